"""Pictures with annotated edges: BSDS500, BIPED, pair lists."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io

from jaxtv.vision import images
from jaxtv.vision.readers import photos
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
    root = next(
        (p for p in (path, path / "BSDS500" / "data") if (p / "groundTruth").is_dir()), None
    )
    if root is None:
        return None

    def part(name: str) -> list[Annotated]:
        return [
            Annotated(images.read_rgb(p), read_mat(root / "groundTruth" / name / f"{p.stem}.mat"))
            for p in images.listed(root / "images" / name)
        ]

    return {"train": part("train"), "validation": part("val")[:4], "test": part("test")}


def read_mat(path: Path) -> tuple[np.ndarray, ...]:
    """Boundaries by each annotator in a BSDS .mat.

    Raises:
        DataError: missing or damaged.
    """
    try:
        cells = scipy.io.loadmat(str(path))["groundTruth"].ravel()
        return tuple(cell["Boundaries"][0, 0].astype(bool) for cell in cells)
    except FileNotFoundError:
        raise DataError(f"{path} is missing.") from None
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{path} can not be read: {error}.") from error


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
        return [pair_of(p, maps / f"{p.stem}.png") for p in images.listed(folder)]

    return with_validation(part("train"), part("test"))


def read_pair_lists(path: Path) -> dict[str, list[Annotated]] | None:
    """Pair lists; None: another layout. Without a list for training only testing is possible."""
    if not (path / "test_pair.lst").exists():
        return None

    def part(name: str) -> list[Annotated]:
        file = path / f"{name}_pair.lst"
        if not file.exists():
            return []
        text = file.read_text()
        listed = text.lstrip().startswith("[")
        pairs = json.loads(text) if listed else [line.split() for line in text.splitlines()]
        return [pair_of(path / pair[0], path / pair[1]) for pair in pairs if pair]

    return with_validation(part("train"), part("test"))


def with_validation(train: list[Annotated], test: list[Annotated]) -> dict[str, list[Annotated]]:
    """The last twentieth of the training pictures is kept for validation."""
    keep = len(train) - max(1, len(train) // 20) if len(train) > 1 else len(train)
    return {"train": train[:keep], "validation": train[keep:] or test[:1], "test": test}


def pair_of(picture: Path, edges: Path) -> Annotated:
    """A picture and its edge map, where more than half white is an edge.

    Raises:
        DataError: the edge map is missing or of another size.
    """
    if not edges.exists():
        raise DataError(f"{edges} is missing; it belongs to {picture}.")
    image, truth = images.read_rgb(picture), images.read_rgb(edges)
    if image.shape != truth.shape:
        raise DataError(f"{edges} must have the size of {picture}.")
    return Annotated(image, (truth[..., 0] > 127,))
