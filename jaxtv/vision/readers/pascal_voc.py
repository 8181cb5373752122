"""Pascal VOC, for weakly supervised localisation."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from jaxtv.vision.readers import checks
from jaxtv.vision.readers.located import Located, resize_located
from jaxtv.vision.task import DataError, Settings

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


def read_voc(path: Path, settings: Settings) -> dict[str, list[Located]]:
    """Pascal VOC: `JPEGImages/*.jpg`, `Annotations/*.xml`, `ImageSets/Main/{train,val}.txt`.

    Pictures with objects of one class only; half of `val` is for validation, half for testing.

    Raises:
        DataError: a file is missing or damaged.
    """

    def located(name: str) -> Located | None:
        file = path / "Annotations" / f"{name}.xml"
        try:
            objects = ElementTree.parse(file).findall("object")
        except (FileNotFoundError, ElementTree.ParseError) as error:
            raise DataError(f"{file} can not be read: {error}.") from error
        kinds = {o.findtext("name") for o in objects}
        if len(kinds) != 1:
            return None
        kind = str(kinds.pop())
        if kind not in VOC_CLASSES:
            raise DataError(f"{file} has the class {kind!r}; expected {', '.join(VOC_CLASSES)}.")
        corners = ("xmin", "ymin", "xmax", "ymax")
        values = [[o.findtext(f"bndbox/{c}", "") for c in corners] for o in objects]
        try:
            numbers = [[float(value) - 1 for value in row] for row in values]
        except ValueError:
            raise DataError(f"{file} has the boxes {values}; expected numbers.") from None
        boxes, label = checks.boxes(str(file), numbers), VOC_CLASSES.index(kind)
        return resize_located(path / "JPEGImages" / f"{name}.jpg", label, boxes, settings)

    def part(name: str) -> list[Located]:
        file = path / "ImageSets" / "Main" / f"{name}.txt"
        names = checks.text(file, "a list of pictures of Pascal VOC").split()
        found = [one for n in names[: settings.limit or None] if (one := located(n)) is not None]
        if not found:
            raise DataError(f"{file} names no picture with objects of one class.")
        return found

    held_out = part("val")
    middle = len(held_out) // 2
    return {"train": part("train"), "validation": held_out[:middle], "test": held_out[middle:]}
