"""Differences between two methods on the same pictures, with intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RESAMPLES = 2000


def mean(scores: np.ndarray) -> float:
    """Of one score a picture."""
    return float(np.mean(scores))


def paired_difference(
    ours: np.ndarray, theirs: np.ndarray, statistic: Callable[[np.ndarray], float] = mean
) -> tuple[float, float, float]:
    """Difference of a statistic, and its 95 % interval by bootstrap over pictures.

    Args:
        ours: what `statistic` takes, one entry a picture along the first axis.
        theirs: the same of the other method, in the same order.
        statistic: from entries of some pictures to a number.

    Returns:
        The difference, and the lower and upper end of the interval. Both methods are resampled with
        the same pictures, always in the same way.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"`theirs` has {len(theirs)} pictures, `ours` {len(ours)}.")
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(ours), size=(RESAMPLES, len(ours)))
    resampled = [statistic(ours[i]) - statistic(theirs[i]) for i in chosen]
    low, high = np.quantile(resampled, (0.025, 0.975))
    return statistic(ours) - statistic(theirs), float(low), float(high)


def shown(difference: tuple[float, float, float], digits: int = 2) -> str:
    """`+0.28 [-0.17, +0.61]`."""
    value, low, high = (f"{number:+.{digits}f}" for number in difference)
    return f"{value} [{low}, {high}]"
