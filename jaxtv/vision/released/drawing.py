"""What figures of released networks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Gain = Sequence[float]  # a difference, and the lower and upper end of its interval


def draw_gains(axes: Any, gains: Mapping[str, Mapping[str, Gain]]) -> None:
    """Gains with their intervals, from the weakest to the strongest value of the parameter.

    Args:
        axes: of matplotlib.
        gains: method -> value of its parameter -> gain.
    """
    for i, (method, by_value) in enumerate(gains.items()):
        found = np.array([*by_value.values()])
        at = np.arange(len(found)) + 0.12 * (i - (len(gains) - 1) / 2)
        errors = np.abs(found[:, 1:] - found[:, :1]).T
        name = f"{method}: {', '.join(by_value)}"
        axes.errorbar(at, found[:, 0], errors, fmt="o-", ms=4, lw=0.8, capsize=2, label=name)
    axes.set_xticks([])
    axes.set_xlabel("weak to strong")
    axes.axhline(0, color="gray", lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7)
