"""The data: deterministic, float32, values of the order of one."""

from __future__ import annotations

import numpy as np


def step_and_noise(rows: int, n: int) -> np.ndarray:
    """The paper's signals: a unit step with Gaussian noise."""
    noise = np.random.default_rng(0).standard_normal((rows, n), np.float32)
    return (np.arange(n) >= n / 2).astype(np.float32) + np.float32(0.5) * noise


def noise(rows: int, n: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, n), np.float32)


def blocks(n: int) -> np.ndarray:
    """One long signal: a level for every 1000 samples or so, and noise of 0.5."""
    random = np.random.default_rng(2)
    jumps = random.standard_normal(n, np.float32) * (random.random(n, np.float32) < 1e-3)
    signal = np.cumsum(jumps, dtype=np.float32)
    return (signal + np.float32(0.5) * random.standard_normal(n, np.float32))[None]


def ramps(rows: int, n: int) -> np.ndarray:
    return np.tile(np.arange(n, dtype=np.float32), (rows, 1))


def sines(rows: int, n: int) -> np.ndarray:
    return np.tile(np.sin(np.arange(n) * (2 * np.pi / n)).astype(np.float32), (rows, 1))


def photo(side: int) -> np.ndarray:
    """scikit-image's camera on [0, 1], 512×512; mirrored to be larger, its middle to be smaller."""
    from skimage import data

    image = (data.camera() / 255).astype(np.float32)
    if side > 512:
        return np.pad(image, (0, side - 512), "symmetric")
    start = (512 - side) // 2
    return image[start : start + side, start : start + side]


def image_rows(rows: int, n: int) -> np.ndarray:
    """Pieces of the rows of the photo."""
    pixels = np.resize(photo(512).ravel(), rows * n)
    return pixels.reshape(rows, n)


def trend(n: int) -> np.ndarray:
    """One long signal: lines between random values, 1000 samples long or so, and noise of 0.3."""
    random = np.random.default_rng(4)
    knots = np.flatnonzero(random.random(n) < 1e-3)
    knots = np.unique([0, *knots, n - 1])
    signal = np.interp(np.arange(n), knots, random.standard_normal(len(knots)))
    return (signal + 0.3 * random.standard_normal(n)).astype(np.float32)[None]


def grid(shape: tuple[int, int], diagonals: bool) -> tuple[np.ndarray, np.ndarray]:
    """Edges between the pixels of an image and their neighbours, and weights, 1 over the length."""
    index = np.arange(shape[0] * shape[1]).reshape(shape)
    pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:])]
    if diagonals:
        pairs += [(index[:-1, :-1], index[1:, 1:]), (index[:-1, 1:], index[1:, :-1])]
    edges = [np.stack([a.ravel(), b.ravel()], 1) for a, b in pairs]
    lengths = [1, 1, 2**0.5, 2**0.5]
    weights = [np.full(len(e), 1 / length) for e, length in zip(edges, lengths)]
    return np.concatenate(edges), np.concatenate(weights)
