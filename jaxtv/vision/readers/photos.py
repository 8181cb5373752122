"""Collections of colour photos: reading them, and random crops to train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import skimage

from jaxtv.vision import images
from jaxtv.vision.task import Batch, DataError, Dataset

# Photos that scikit-image brings: no download.
EMBEDDED_TRAIN = ("coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png")
EMBEDDED_TEST = ("astronaut.png",)


def files_of(folder: Path) -> list[Path]:
    """The pictures of a folder, in the order of their names.

    Raises:
        DataError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected one with pictures.")
    files = images.listed(folder)
    if not files:
        raise DataError(f"{folder} has no picture ({', '.join(images.SUFFIXES)}).")
    return files


def read_folder(folder: Path) -> list[np.ndarray]:
    """All pictures of a folder, uint8 (H, W, 3) each, in the order of their names.

    Raises:
        DataError: no such folder, or no picture in it.
        ImageError: a picture can not be read.
    """
    return [images.read_rgb(path) for path in files_of(folder)]


def embedded(names: tuple[str, ...]) -> list[np.ndarray]:
    """Photos of scikit-image, uint8 (H, W, 3) each."""
    return [images.read_rgb(Path(skimage.data_dir, name)) for name in names]


def centre(image: np.ndarray, side: int) -> np.ndarray:
    """The middle of a picture, at most `side` x `side`."""
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


@dataclasses.dataclass
class Crops(Dataset):
    """Random crops of aligned stacks of pictures, mirrored and turned.

    Attributes:
        description: for logs and tables.
        stacks: per photo an array (K, H, W, 3): the picture and what belongs to it (targets).
        size: side of the crops.
        per_photo: crops of each photo in an epoch.
        finish: from float32 crops (N, K, size, size, 3), the photos (N,) that they are from, and a
            generator to a batch.
    """

    description: str
    stacks: list[np.ndarray]
    size: int
    per_photo: int
    finish: Callable[[np.ndarray, np.ndarray, np.random.Generator], Batch]

    def __post_init__(self):
        """Checks that crops fit.

        Raises:
            DataError: a photo is smaller than a crop.
        """
        smallest = min((min(stack.shape[1:3]) for stack in self.stacks), default=self.size)
        if smallest < self.size:
            raise DataError(f"`size` {self.size} is more than the {smallest} pixels of a photo.")

    def steps(self, batch_size: int) -> int:
        """Whole batches only."""
        return len(self.stacks) * self.per_photo // batch_size

    def epoch(self, rng: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """The same number of crops of every photo, mixed."""
        order = rng.permutation(np.repeat(np.arange(len(self.stacks)), self.per_photo))
        for i in range(self.steps(batch_size)):
            chosen = order[i * batch_size : (i + 1) * batch_size]
            crops = np.stack([self.crop(self.stacks[j], rng) for j in chosen])
            yield self.finish(crops.astype(np.float32), chosen, rng)

    def crop(self, stack: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One crop, (K, size, size, 3): any of the 8 symmetries of the square."""
        top, left = (rng.integers(0, length - self.size + 1) for length in stack.shape[1:3])
        crop = stack[:, top : top + self.size, left : left + self.size]
        crop = np.rot90(crop, int(rng.integers(4)), axes=(1, 2))
        return crop[:, :, ::-1] if rng.random() < 0.5 else crop
