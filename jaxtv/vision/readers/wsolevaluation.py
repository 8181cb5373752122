"""The metadata of wsolevaluation (Choe et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtv.vision import files
from jaxtv.vision.readers import checks
from jaxtv.vision.readers.located import Located, read_mask, resize_located
from jaxtv.vision.task import DataError, Settings

PARTS = {"train": "train", "validation": "val", "test": "test"}
KIND = "wsolevaluation's metadata (github.com/clovaai/wsolevaluation, metadata/)"


def read_metadata(path: Path, settings: Settings) -> dict[str, list[Located]]:
    """Pictures of CUB and ILSVRC with boxes, of OpenImages with masks.

    `metadata/{train,val,test}/image_ids.txt`, `class_labels.txt` and, for val and test,
    `localization.txt` (id,x0,y0,x1,y1 or id,mask,ignored) in the folder of the pictures and masks;
    or as the repository has it, `metadata/{CUB,ILSVRC,OpenImages}/{train,val,test}`, with the
    pictures in that folder, in the one of the set, or in `dataset/` and the set.

    Raises:
        DataError: a file is missing or does not fit.
    """
    metadata, root = find(path)
    parts = {}
    for part, folder in ((part, metadata / name) for part, name in PARTS.items()):
        labels = class_labels(folder / "class_labels.txt")
        names = image_ids(folder)[: settings.limit or None]
        located = {} if part == "train" else by_name(folder / "localization.txt")
        missing = [n for n in names if n not in labels or (part != "train" and n not in located)]
        if missing:
            raise DataError(f"{folder} has no label or box of {missing[0]}.")
        parts[part] = [
            read_located(root, n, labels[n], located.get(n, []), folder, settings) for n in names
        ]
    return parts


def find(path: Path) -> tuple[Path, Path]:
    """The folder of the metadata of one set, and that of its pictures.

    Raises:
        DataError: there is none, or there are several.
    """
    metadata = path / "metadata"
    if (metadata / "train").is_dir():
        return metadata, path
    sets = [p for p in files.entries(metadata) if (p / "train").is_dir()]
    found = []
    for folder in sets:
        first = image_ids(folder / "test")[0]
        roots = (path / folder.name, path / "dataset" / folder.name, path)
        found += [(folder, root) for root in roots if (root / first).is_file()][:1]
    names = ", ".join(p.name for p in sets) or "nothing"
    if not found:
        raise DataError(
            f"{metadata} has {names}; expected train/, val/ and test/ in it or in one of them, and "
            f"their pictures in {path}, or in folders of it of these names."
        )
    if len(found) > 1:
        raise DataError(
            f"{metadata} has {names}, and {path} pictures of several; keep the metadata of one."
        )
    return found[0]


def image_ids(folder: Path) -> list[str]:
    """The names of the pictures.

    Raises:
        DataError: there are none.
    """
    path = folder / "image_ids.txt"
    names = [line.strip() for line in checks.text(path, KIND).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{path} is empty; expected a picture's name in each line.")
    return names


def rows_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Lines of `id,value,value…`."""
    for line in checks.text(path, KIND).splitlines():
        if line.strip():
            name, *values = line.strip().split(",")
            yield name, values


def class_labels(path: Path) -> dict[str, int]:
    """Label of each picture.

    Raises:
        DataError: a line is not `id,number`.
    """
    found = {}
    for name, values in rows_of(path):
        if len(values) != 1 or not values[0].strip().isdecimal():
            raise DataError(f"{path} has {','.join([name, *values])!r}; expected id,label.")
        found[name] = int(values[0])
    return found


def by_name(path: Path) -> dict[str, list[list[str]]]:
    """All rows of each picture."""
    found: dict[str, list[list[str]]] = {}
    for name, values in rows_of(path):
        found.setdefault(name, []).append(values)
    return found


def read_located(
    root: Path, name: str, label: int, rows: list[list[str]], folder: Path, settings: Settings
) -> Located:
    """A picture with its boxes or its mask.

    Raises:
        DataError: rows are neither boxes nor masks, or a mask is missing.
    """
    where = f"{folder / 'localization.txt'}: {name}"
    masks = [row for row in rows if len(row) == 2]
    if not masks:
        try:
            numbers = [[float(value) for value in row] for row in rows]
        except ValueError:
            raise DataError(f"{where} has {rows}; expected x0,y0,x1,y1 or masks.") from None
        return resize_located(root / name, label, checks.boxes(where, numbers), settings)
    if len(masks) != len(rows):
        raise DataError(f"{where} has {rows}; expected boxes or masks, not both.")
    paths = [[root / value for value in row if value] for row in masks]
    for path in (path for row in paths for path in row):
        if not path.is_file():
            raise DataError(f"{where}: the mask {path} is missing.")
    mask = np.any([read_mask(row[0], settings.size) for row in paths], axis=0)
    ignored = [read_mask(row[1], settings.size) for row in paths if len(row) == 2]
    picture = resize_located(root / name, label, np.zeros((0, 4)), settings)
    left_out = np.any(ignored, axis=0) & ~mask if ignored else None
    return picture._replace(mask=mask, ignored=left_out)
