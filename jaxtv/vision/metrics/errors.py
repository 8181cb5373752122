"""Errors of restored pictures: PSNR, WRMSE and WMAE."""

from __future__ import annotations

import numpy as np

from jaxtv.vision.readers.smoothing import Pair


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures; inf where they are equal."""
    error = np.mean((image.astype(np.float64) - clean.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def weighted_errors(
    outputs: list[np.ndarray], pairs: list[Pair], literal: bool = False
) -> tuple[float, float]:
    """WRMSE and WMAE of Zhu et al. 2019, on the scale 0..255.

    Args:
        outputs: (H, W, 3) each.
        pairs: what they are compared with.
        literal: as the formulas are printed: summed over channels, divided by N·K·H·W. By default
            as the authors' script computes them: divided by N·H·W·channels.

    Returns:
        The root of the weighted mean square, and the weighted mean absolute error.
    """
    square = absolute = 0.0
    for y, pair in zip(outputs, pairs, strict=True):
        difference = y.astype(np.float64)[None] - pair.targets
        count = len(pair.targets) * y.shape[0] * y.shape[1] if literal else y.size
        square += float(pair.weights @ (difference**2).sum(axis=(1, 2, 3))) / count
        absolute += float(pair.weights @ np.abs(difference).sum(axis=(1, 2, 3))) / count
    return float(np.sqrt(square / len(pairs))), absolute / len(pairs)
