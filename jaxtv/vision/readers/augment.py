"""Batches of images with labels: shuffled, mirrored, shifted, normalised."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxtv.vision.task import Batch


def batches(
    part: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    batch_size: int,
    shift: int,
    side: int = 0,
) -> Iterator[Batch]:
    """All whole batches of images and labels, shuffled and augmented."""
    x, y = part
    order = rng.permutation(len(x))
    for i in range(len(x) // batch_size):
        take = order[i * batch_size : (i + 1) * batch_size]
        yield {"image": normalise(augment(x[take], rng, shift, side)), "label": y[take]}


def augment(x: np.ndarray, rng: np.random.Generator, shift: int = 4, side: int = 0) -> np.ndarray:
    """Mirrors half of the images, and cuts or shifts all at random.

    Where images are larger than `side`, a square of it is cut out. Other images, and with side = 0
    all, are shifted by up to `shift` pixels, rim reflected.
    """
    n, height, width, _ = x.shape
    if 0 < side < min(height, width):
        padded, height, width = x, side, side
    else:
        padded = np.pad(x, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="reflect")
    top = rng.integers(0, padded.shape[1] - height + 1, size=n)
    left = rng.integers(0, padded.shape[2] - width + 1, size=n)
    rows = top[:, None, None] + np.arange(height)[None, :, None]
    columns = left[:, None] + np.arange(width)[None]
    mirrored = rng.random(n) < 0.5
    columns = np.where(mirrored[:, None], columns[:, ::-1], columns)[:, None, :]
    return padded[np.arange(n)[:, None, None], rows, columns]


def normalise(x: np.ndarray) -> np.ndarray:
    """uint8 to float32 of about zero mean and unit variance, the same for every data set."""
    return (x.astype(np.float32) / 255 - np.float32(0.5)) * np.float32(4)
