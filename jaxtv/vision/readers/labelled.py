"""Images with labels in memory, and their corrupted versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxtv.vision import corruptions
from jaxtv.vision.readers import checks
from jaxtv.vision.readers.augment import batches
from jaxtv.vision.task import Batch, DataError, Dataset


@dataclasses.dataclass
class Labelled(Dataset):
    """Images uint8 (N, H, W, 3) with labels int32 (N,), in three parts.

    `corrupted(name, severity)` gives the corrupted test images: files of CIFAR-10-C where they
    are, else `corruptions.corrupt`. `crop` is the side of what is cut out of training images that
    are larger; 0: nothing is.
    """

    description: str
    classes: list[str]
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    published: Path | None = None
    crop: int = 0

    def steps(self, batch_size: int) -> int:
        """Whole batches only."""
        return len(self.train[0]) // batch_size

    def epoch(self, rng: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """Shuffled, mirrored, and cropped or shifted by up to 4 pixels (He et al. 2016)."""
        return batches(self.train, rng, batch_size, shift=4, side=self.crop)

    def corrupted(self, name: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
        """Test images under one corruption, and their labels."""
        x, y = self.test
        if self.published is None:
            return corruptions.corrupt(name, x, severity), y
        part = slice((severity - 1) * 10000, severity * 10000)
        path = self.published / "labels.npy"
        y = checks.labels(str(path), load_array(path, (50000,)), 50000, len(self.classes))
        return load_array(self.published / f"{name}.npy", (50000, 32, 32, 3))[part], y[part]


def load_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A .npy file of bytes of that shape, read as it is used.

    Raises:
        DataError: missing, damaged, or of another shape or type.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing. CIFAR-10-C: `jaxtv data fetch cifar-10-c`.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): fetch it again.") from error
    if array.shape != shape or array.dtype != np.uint8:
        raise DataError(f"{path} is {array.dtype} {array.shape}, expected uint8 {shape}.")
    return array


def split(part: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
    """The last tenth for validation."""
    (x, y), keep = part, len(part[0]) - len(part[0]) // 10
    return (x[:keep], y[:keep]), (x[keep:], y[keep:])


def at_most(limit: int, part: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A random choice, always the same: files and folders are often sorted by class."""
    chosen = np.random.default_rng(0).permutation(len(part[0]))[:limit]
    return part[0][chosen], part[1][chosen]
