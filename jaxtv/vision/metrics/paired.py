"""Differences between two methods on the same pictures, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

RESAMPLES = 2000

Statistic = Callable[[np.ndarray], float]  # of the mean of one entry a picture


def paired_difference(
    ours: np.ndarray, theirs: np.ndarray, statistic: Statistic = float
) -> tuple[float, float, float]:
    """Difference of a statistic, and its 95 % interval by bootstrap over pictures.

    Args:
        ours: (N, ...), an entry for each picture.
        theirs: the same of the other method, in the same order.
        statistic: of the mean of the entries (...); by default that mean.

    Returns:
        The difference, and the lower and upper end of the interval. Both methods are resampled with
        the same pictures, always in the same way.
    """
    n = len(ours)
    if n != len(theirs):
        raise ValueError(f"`theirs` has {len(theirs)} pictures, `ours` {n}.")
    drawn = np.random.default_rng(0).integers(0, n, size=(RESAMPLES, n))
    shares = np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(np.float32) / n
    means = (np.tensordot(shares, entries, 1) for entries in (ours, theirs))
    resampled = [statistic(a) - statistic(b) for a, b in zip(*means)]
    low, high = np.quantile(resampled, (0.025, 0.975))
    difference = statistic(np.mean(ours, axis=0)) - statistic(np.mean(theirs, axis=0))
    return difference, float(low), float(high)


def cross_fitted(
    by_value: Mapping[float, np.ndarray], statistic: Statistic = float
) -> tuple[np.ndarray, tuple[float, float]]:
    """A method whose parameter is chosen on other pictures than it is measured on.

    Args:
        by_value: value of the parameter -> an entry for each picture, (N, ...).
        statistic: of the mean of entries; the highest is the best.

    Returns:
        The entries (N, ...), and the value that the pictures of even and of odd number have: the
        one that is best on the other half.
    """
    values, entries = [*by_value], [*by_value.values()]
    out, chosen = entries[0].copy(), []
    for half in (0, 1):
        best = int(np.argmax([statistic(e[1 - half :: 2].mean(axis=0)) for e in entries]))
        out[half::2] = entries[best][half::2]
        chosen.append(values[best])
    return out, (chosen[0], chosen[1])


def shown(difference: tuple[float, float, float], digits: int = 2) -> str:
    """`+0.28 [-0.17, +0.61]`."""
    value, low, high = (f"{number:+.{digits}f}" for number in difference)
    return f"{value} [{low}, {high}]"
