"""Pascal VOC, for weakly supervised localisation."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from jaxtv.vision.readers.located import Located, resize_located
from jaxtv.vision.readers.wsolevaluation import text_of
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
        corners = ("xmin", "ymin", "xmax", "ymax")
        boxes = [[float(o.findtext(f"bndbox/{c}", "0")) - 1 for c in corners] for o in objects]
        label = VOC_CLASSES.index(str(kinds.pop()))
        return resize_located(path / "JPEGImages" / f"{name}.jpg", label, np.array(boxes), settings)

    def part(name: str) -> list[Located]:
        names = text_of(path / "ImageSets" / "Main" / f"{name}.txt").split()
        found = (located(n) for n in names[: settings.limit or None])
        return [f for f in found if f is not None]

    held_out = part("val")
    middle = len(held_out) // 2
    return {"train": part("train"), "validation": held_out[:middle], "test": held_out[middle:]}
