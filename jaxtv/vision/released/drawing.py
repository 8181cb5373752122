"""What figures of released networks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Gain = Sequence[float]  # a difference, and the lower and upper end of its interval


def draw_cases(axes: Any, gains: Mapping[str, Sequence[Gain]], cases: Sequence[str]) -> None:
    """Gains of several methods with their intervals, side by side for each case.

    Args:
        axes: of matplotlib.
        gains: method -> gain in each case.
        cases: their names.
    """
    for i, (method, found) in enumerate(gains.items()):
        at = np.arange(len(cases)) + 0.14 * (i - (len(gains) - 1) / 2)
        _draw(axes, at, found, method, fmt="o")
    axes.set_xticks(range(len(cases)), cases, fontsize=8)
    _frame(axes)


def draw_gains(axes: Any, gains: Mapping[str, Mapping[str, Gain]]) -> None:
    """Gains with their intervals, from the weakest to the strongest value of the parameter.

    Args:
        axes: of matplotlib.
        gains: method -> value of its parameter -> gain.
    """
    for i, (method, by_value) in enumerate(gains.items()):
        at = np.arange(len(by_value)) + 0.12 * (i - (len(gains) - 1) / 2)
        name = f"{method}: {', '.join(by_value)}"
        _draw(axes, at, [*by_value.values()], name, fmt="o-", lw=0.8)
    axes.set_xticks([])
    axes.set_xlabel("weak to strong")
    _frame(axes)


def _draw(axes: Any, at: np.ndarray, gains: Sequence[Gain], name: str, **style: Any) -> None:
    found = np.array(gains)
    errors = np.abs(found[:, 1:] - found[:, :1]).T
    axes.errorbar(at, found[:, 0], errors, ms=4, capsize=2, label=name, **style)


def _frame(axes: Any) -> None:
    axes.axhline(0, color="gray", lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7)
