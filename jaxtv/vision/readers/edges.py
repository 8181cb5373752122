"""Pictures with annotated edges: BSDS500, BIPED, pair lists."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtv.vision import images
from jaxtv.vision.readers import checks, photos
from jaxtv.vision.task import Batch, DataError, Dataset


@dataclasses.dataclass(frozen=True)
class Annotated:
    """A picture, uint8 (H, W, 3), and the edges by each annotator, bool (H, W)."""

    image: np.ndarray
    truths: tuple[np.ndarray, ...]

    def target(self) -> np.ndarray:
        """What is trained on: the share of annotators that see an edge, float32 (H, W)."""
        return np.stack(self.truths).mean(axis=0).astype(np.float32)


@dataclasses.dataclass
class Edges(Dataset):
    """Annotated pictures in two parts, `train` and `test`; see `photos.Crops` for the crops."""

    description: str
    crops: photos.Crops
    validation: list[Annotated]
    test: list[Annotated]

    def steps(self, batch_size: int) -> int:
        """Whole batches only."""
        return self.crops.steps(batch_size)

    def epoch(self, rng: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """Random crops."""
        return self.crops.epoch(rng, batch_size)


def read(path: Path) -> dict[str, list[Annotated]]:
    """Annotated pictures of a folder.

    * BSDS500: `images/{train,val,test}/*.jpg`, `groundTruth/{train,val,test}/*.mat`;
    * BIPED: `edges/imgs/{train,test}/rgbr[/real]/*`, `edges/edge_maps/…` likewise;
    * pair lists: `train_pair.lst` and `test_pair.lst`, lines of two paths or a JSON list of pairs,
      as MDBD and UDED have them.

    Raises:
        DataError: none of these, or a file is missing or damaged.
    """
    for reader in (read_bsds, read_biped, read_pair_lists):
        found = reader(path)
        if found is not None:
            return found
    raise DataError(
        f"{path} is not laid out as edge data: expected BSDS500 (images/, groundTruth/), BIPED "
        "(edges/imgs, edges/edge_maps) or train_pair.lst and test_pair.lst."
    )


def read_bsds(path: Path) -> dict[str, list[Annotated]] | None:
    """BSDS500, also below `BSDS500/data`; None: another layout."""
    root = bsds_root(path)
    if root is None:
        return None

    def part(name: str) -> list[Annotated]:
        return [read_bsds_picture(p) for p in photos.files_of(root / "images" / name)]

    return {"train": part("train"), "validation": part("val")[:4], "test": part("test")}


def bsds_root(path: Path) -> Path | None:
    """Where `images/` and `groundTruth/` of BSDS500 are, also below `BSDS500/data`."""
    folders = (path, path / "BSDS500" / "data")
    return next((p for p in folders if (p / "groundTruth").is_dir()), None)


def read_bsds_picture(picture: Path) -> Annotated:
    """A picture `images/PART/NAME.jpg` with its `groundTruth/PART/NAME.mat`.

    Raises:
        DataError: the annotations are missing, damaged, or of another size.
    """
    part = picture.parent
    truths = part.parent.parent / "groundTruth" / part.name / f"{picture.stem}.mat"
    return annotated(picture, read_mat(truths), truths)


def read_mat(path: Path) -> tuple[np.ndarray, ...]:
    """Boundaries by each annotator in a BSDS .mat.

    Raises:
        DataError: missing or damaged.
    """
    content = checks.mat(path)
    try:
        cells = content["groundTruth"].ravel()
        found = tuple(cell["Boundaries"][0, 0].astype(bool) for cell in cells)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path} has no groundTruth with Boundaries: {error}.") from error
    if not found:
        raise DataError(f"{path} has a groundTruth without an annotator.")
    return found


def annotated(picture: Path, truths: tuple[np.ndarray, ...], path: Path) -> Annotated:
    """A picture and its edges.

    Raises:
        DataError: the edges, from `path`, are of another size.
    """
    image = images.read_rgb(picture)
    for truth in truths:
        if truth.shape != image.shape[:2]:
            raise DataError(
                f"{path} must have the size of {picture}, {image.shape[:2]}, not {truth.shape}."
            )
    return Annotated(image, truths)


def read_biped(path: Path) -> dict[str, list[Annotated]] | None:
    """BIPED, also below `BIPED`; None: another layout."""
    roots = [p for p in (path, path / "BIPED") if (p / "edges" / "imgs").is_dir()]
    if not roots:
        return None
    root = roots[0] / "edges"

    def part(name: str) -> list[Annotated]:
        folder = root / "imgs" / name / "rgbr"
        folder = folder / "real" if (folder / "real").is_dir() else folder
        maps = Path(str(folder).replace(str(root / "imgs"), str(root / "edge_maps"), 1))
        return [pair_of(p, maps / f"{p.stem}.png") for p in photos.files_of(folder)]

    return with_validation(part("train"), part("test"))


def read_pair_lists(path: Path) -> dict[str, list[Annotated]] | None:
    """Pair lists; None: another layout. Without a list for training only testing is possible."""
    if not (path / "test_pair.lst").exists():
        return None

    def part(name: str) -> list[Annotated]:
        file = path / f"{name}_pair.lst"
        if not file.exists():
            return []
        text = checks.text(file, "a list of pairs")
        try:
            listed = text.lstrip().startswith("[")
            pairs = json.loads(text) if listed else [line.split() for line in text.splitlines()]
        except json.JSONDecodeError as error:
            raise DataError(f"{file} is no JSON list of pairs: {error}.") from error
        pairs = [pair for pair in pairs if pair]
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or {*map(type, pair)} != {str}:
                raise DataError(f"{file} has {pair!r}; expected pairs of paths: picture, edge map.")
        return [pair_of(path / picture, path / edges) for picture, edges in pairs]

    return with_validation(part("train"), part("test"))


def with_validation(train: list[Annotated], test: list[Annotated]) -> dict[str, list[Annotated]]:
    """The last twentieth of the training pictures is kept for validation."""
    keep = len(train) - max(1, len(train) // 20) if len(train) > 1 else len(train)
    return {"train": train[:keep], "validation": train[keep:] or test[:1], "test": test}


def pair_of(picture: Path, edges: Path) -> Annotated:
    """A picture and its edge map.

    In a map of two values, for example 0 and 1, the higher one is an edge; else more than half
    white.

    Raises:
        DataError: the edge map is missing, of another size, or has values that are neither.
    """
    if not edges.exists():
        raise DataError(f"{edges} is missing; it belongs to {picture}.")
    found = images.read(edges, upright=False)
    shares = found.color.max(axis=-1)  # a palette may draw edges in any colour
    values = np.unique(shares)
    if len(values) > 2 and values[-1] <= 0.5:
        white = 1 if found.dtype == np.float32 else np.iinfo(found.dtype).max
        raise DataError(
            f"{edges} has {len(values)} values up to {values[-1] * white:g}; expected two values, "
            f"or shares of an edge up to {white}."
        )
    level = values[0] if len(values) == 2 else 0 if values[-1] <= 0.5 else 0.5
    return annotated(picture, (shares > level,), edges)
