"""The metadata of wsolevaluation (Choe et al. 2020)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxtv.vision.readers.located import Located, resize_located
from jaxtv.vision.task import DataError, Settings


def read_metadata(path: Path, settings: Settings) -> dict[str, list[Located]]:
    """Wsolevaluation's layout (Choe et al. 2020), for CUB and ILSVRC.

    `metadata/{train,val,test}/image_ids.txt`, `class_labels.txt`, `image_sizes.txt` and, but for
    train, `localization.txt` (id,x0,y0,x1,y1), with pictures below the folder itself.

    Raises:
        DataError: a file is missing or does not fit.
    """
    parts = {}
    for part, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        folder = path / "metadata" / name
        labels = {k: int(v[0]) for k, v in table(folder / "class_labels.txt").items()}
        boxes = {} if part == "train" else table(folder / "localization.txt", several=True)
        names = [line.strip() for line in text_of(folder / "image_ids.txt").splitlines() if line]
        names = names[: settings.limit or None]
        missing = [n for n in names if n not in labels or (part != "train" and n not in boxes)]
        if missing:
            raise DataError(f"{folder} has no label or box of {missing[0]}.")
        parts[part] = [
            resize_located(path / n, labels[n], np.array(boxes.get(n, [[0, 0, 0, 0]])), settings)
            for n in names
        ]
    return parts


def text_of(path: Path) -> str:
    """A text file.

    Raises:
        DataError: missing.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is missing; expected wsolevaluation's metadata (github.com/clovaai/"
            "wsolevaluation, metadata/) in the folder of the pictures."
        )
    return path.read_text()


def table(path: Path, several: bool = False) -> dict[str, Any]:
    """Lines of `id,number,number…`; `several`: a list of rows for each id."""
    out: dict[str, Any] = {}
    for line in text_of(path).splitlines():
        name, *numbers = line.strip().split(",")
        row = [float(n) for n in numbers]
        if several:
            out.setdefault(name, []).append(row)
        elif name:
            out[name] = row
    return out
