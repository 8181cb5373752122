"""Validation pictures of Tiny ImageNet with their boxes, and their classes in ImageNet."""

from __future__ import annotations

import re
from pathlib import Path

from jaxtv.vision import images
from jaxtv.vision.readers import catalogue, checks
from jaxtv.vision.readers.located import Located
from jaxtv.vision.task import DataError

NAMES = "imagenet_names.txt"
CLASSES = 1000  # of ImageNet


def read(folder: Path, limit: int = 0) -> list[Located]:
    """The first pictures of the list, of 64 x 64 pixels, each with a box.

    Args:
        folder: has `val/` or `tiny-imagenet-200/val/`, and `imagenet_names.txt`: a line for each of
            ImageNet's 1000 classes, in their order, which starts with the class's WordNet number.
        limit: most pictures; 0: all 10,000.

    Returns:
        The labels are the numbers of the classes in ImageNet.

    Raises:
        DataError: a file is missing or damaged.
    """
    where = catalogue.wanted("tiny-imagenet")
    parts = [p for p in (folder / "tiny-imagenet-200", folder) if (p / "val").is_dir()]
    if not parts:
        raise DataError(f"{folder} has no val/. {where}")
    numbers = class_numbers(folder / NAMES)
    path = parts[0] / "val" / "val_annotations.txt"
    lines = checks.text(path, f"a line for each picture. {where}").split("\n")
    lines = [line.rstrip("\r") for line in lines if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty. {where}")
    return [located(path, line, numbers) for line in lines[: limit or None]]


def class_numbers(path: Path) -> dict[str, int]:
    """WordNet number -> number of the class in ImageNet.

    Raises:
        DataError: the file is missing, or does not have the 1000 classes in order.
    """
    where = catalogue.wanted("tiny-imagenet")
    lines = checks.text(path, f"a line for each class of ImageNet. {where}").splitlines()
    found = [match[0] for line in lines if (match := re.match(r"n\d{8}", line))]
    if len(found) != CLASSES or found != sorted(set(found)):
        raise DataError(
            f"{path} has {len(found)} lines that start with a WordNet number; expected {CLASSES}, "
            f"in order, each once. {where}"
        )
    return {name: number for number, name in enumerate(found)}


def located(path: Path, line: str, numbers: dict[str, int]) -> Located:
    """The picture of a line: its name, WordNet number, and x0, y0, x1, y1.

    Raises:
        DataError: the line is something else, or its box is not within the picture.
    """
    name, *rest = line.split("\t")
    try:
        label, box = numbers[rest[0]], [float(value) for value in rest[1:]]
    except (IndexError, KeyError, ValueError):
        raise DataError(
            f"{path} has {line!r}; expected a name, a WordNet number of ImageNet, and a box."
        ) from None
    boxes = checks.boxes(f"{path}: {name}", [box])
    picture = path.parent / "images" / name
    image = images.read_rgb(picture)
    if (boxes[:, 2:] > image.shape[1::-1]).any():
        raise DataError(f"{path}: {name} has a box {box}; {picture} has {image.shape[1::-1]}.")
    return Located(image, label, boxes, None)
