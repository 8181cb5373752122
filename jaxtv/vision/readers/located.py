"""Pictures with a class and boxes, for weakly supervised localisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxtv.vision import images
from jaxtv.vision.readers.augment import batches
from jaxtv.vision.task import Batch, DataError, Dataset, Settings


class Located(NamedTuple):
    """A picture with its class and where it is.

    Attributes:
        image: uint8 (H, W, 3).
        label: class.
        boxes: (B, 4), x0, y0, x1, y1 as the data has them; none where only the mask is known.
        mask: bool (H, W), or None where only boxes are known.
        ignored: bool (H, W), pixels that PxAP leaves out, or None.
    """

    image: np.ndarray
    label: int
    boxes: np.ndarray
    mask: np.ndarray | None
    ignored: np.ndarray | None = None


@dataclasses.dataclass
class LocatedPictures(Dataset):
    """Pictures of one size to train on (labels only), and located ones to test on."""

    description: str
    train: tuple[np.ndarray, np.ndarray]
    validation: list[Located]
    test: list[Located]

    def steps(self, batch_size: int) -> int:
        """Whole batches only."""
        return len(self.train[0]) // batch_size

    def epoch(self, rng: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """Shuffled, mirrored and shifted by up to an eighth."""
        shift = self.train[0].shape[1] // 8
        return batches(self.train, rng, batch_size, shift)


def resize_located(path: Path, label: int, boxes: np.ndarray, settings: Settings) -> Located:
    """A picture and its boxes at `size` x `size`; boxes are truncated, as in wsolevaluation.

    Raises:
        DataError: a box ends outside of the picture, by more than the pixel that is lost in
            rounding.
    """
    image = images.read_rgb(path)
    sides = np.array([image.shape[1], image.shape[0]] * 2)
    outside = np.any(boxes > sides + 1, axis=-1)
    if outside.any():
        raise DataError(
            f"{path} has {sides[0]} x {sides[1]} pixels, and a box of it "
            f"{boxes[outside][0].tolist()}; expected x0, y0, x1, y1 within the picture."
        )
    small = Image.fromarray(image).resize([settings.size] * 2, Image.Resampling.BICUBIC)
    scaled = np.asarray(boxes, float) * settings.size / sides
    return Located(np.asarray(small), label, scaled.astype(int), None)


def read_mask(path: Path, size: int) -> np.ndarray:
    """Where a mask has any colour, at `size` x `size` by the nearest pixel: bool."""
    inside = images.read(path, upright=False).color.max(axis=-1) > 0
    rows, columns = (np.arange(size) * side // size for side in inside.shape)
    return inside[rows[:, None], columns]
