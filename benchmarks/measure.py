"""Problems, methods, and a race: all methods on one problem, interleaved, with their accuracy."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.environments import Environments, NotInstalledError
from testing import long_double


@dataclasses.dataclass(frozen=True)
class Method:
    """A function of `methods.py` and where it runs; of a slow one, on how many of the rows."""

    name: str
    build: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: str = "here"
    rows: int | None = None
    note: str = ""
    exact: bool = True  # it returns the prox, so its error is worth a number

    @property
    def own(self) -> bool:
        """Ours: it gets the array as it is, and its failure ends the run."""
        return self.build.startswith(("jaxtv", "copy"))


@dataclasses.dataclass
class Problem:
    """argmin ½|y − x|² + λ TV(y) along one axis, or of one image along both."""

    name: str
    x: np.ndarray
    lam: float
    axes: tuple[int, ...] = (-1,)
    size: float = 0.0  # where the problem stands on the horizontal axis of a plot

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """What peers get: the prox axis last and contiguous; an image as it is."""
        if len(self.axes) == 2:
            return self.x
        last = np.moveaxis(self.x, self.axes[0], -1)
        return np.ascontiguousarray(last).reshape(-1, last.shape[-1])

    @functools.cached_property
    def optimum(self) -> np.ndarray:
        """The float64 solution, shaped as `rows`."""
        if self.lam == 0:
            return self.rows.astype(np.float64)
        solve = long_double.prox1d if len(self.axes) == 1 else long_double.prox2d
        return solve(self.rows, self.lam)

    def accuracy(self, y: np.ndarray, own: bool) -> dict[str, float]:
        """Of y, shaped as x if it is our own, as the first of the rows if a peer's."""
        if own and len(self.axes) == 1:
            y = np.moveaxis(y, self.axes[0], -1)
            y = y.reshape(-1, y.shape[-1])
        x, best = self.rows[: len(y)].astype(np.float64), self.optimum[: len(y)]
        axes = (0, 1) if len(self.axes) == 2 else (-1,)
        # The optimum attains the largest value of the dual: beside it, the gap is the excess.
        least = long_double.objective(x, best, self.lam, axes)
        excess = long_double.objective(x, y, self.lam, axes) - least
        difference = y - best
        return {
            "error": float(np.abs(difference).max()),
            "relative_error": _ratio(np.linalg.norm(difference), np.linalg.norm(x - best)),
            "relative_gap": _ratio(max(excess, 0.0), least),
        }


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else float(a)


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long a race may take: runs of every method, at most `seconds` for each."""

    runs: int
    seconds: float
    block: float = 1e-2  # a sample consists of as many calls as take so long: threads stay awake

    def repeat(self, rough: float) -> int:
        return max(1, min(1000, math.ceil(self.block / max(rough, 1e-7))))


def race(
    environments: Environments,
    problem: Problem,
    methods: Sequence[Method],
    effort: Effort,
    accuracy: bool = True,
) -> list[dict]:
    """A record per method. Its `ratio` is that of its time to the first method's, run by run."""
    runners, records = [], []
    for method in methods:
        record = {"problem": problem.name, "size": problem.size, "method": method.name}
        record |= {"note": method.note, "status": "ok", "of_rows": 1.0}
        records.append(record)
        runners.append(_build(environments, problem, method, record))
    times = interleave([_sampler(*pair, effort) for pair in zip(runners, records)], effort)
    for method, record, runner, mine in zip(methods, records, runners, times):
        if runner is None:
            print(f"  {method.name}: {record['status']}: {record['reason']}", flush=True)
            continue
        record |= statistics_of(mine, times[0])
        if accuracy and method.exact:
            record |= problem.accuracy(runner.output(), method.own)
        print(f"  {describe(record)}", flush=True)
    environments.clear()
    return records


def _build(environments, problem, method, record):
    """A runner, or None and the reason in the record."""
    x = problem.x if method.own else problem.rows
    if method.rows and method.rows < len(x):
        record["of_rows"] = method.rows / len(x)
        x = x[: method.rows]
    axes = problem.axes if method.own or len(problem.axes) == 2 else (-1,)
    try:
        return environments[method.environment].build(
            method.build, x, problem.lam, axes, method.options
        )
    except (ImportError, NotInstalledError) as error:
        record |= {"status": "not installed", "reason": str(error)}
    except Exception as error:
        if method.own:
            raise
        record |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    return None


def _sampler(runner, record, effort: Effort):
    """A function that measures once, scaled to all rows; None where there is no runner."""
    if runner is None:
        return None
    repeat = effort.repeat(runner.rough)
    return lambda: runner.sample(repeat) / record["of_rows"]


def interleave(samplers, effort: Effort) -> list[list[float]]:
    """Round after round: the seconds that each sampler (or None) returned.

    One whose time is up leaves after three rounds, or sooner when it is very slow.
    """
    times: list[list[float]] = [[] for _ in samplers]
    spent = [0.0] * len(samplers)
    for _ in range(effort.runs):
        for i, sampler in enumerate(samplers):
            limit = effort.seconds * (1 if len(times[i]) >= 3 else 3)
            if sampler is None or spent[i] > limit:
                continue
            start = time.perf_counter()
            times[i].append(sampler())
            spent[i] += time.perf_counter() - start
    return times


def statistics_of(times: list[float], first: list[float]) -> dict:
    return {
        "median": statistics.median(times),
        "mean": statistics.mean(times),
        "std": statistics.stdev(times) if len(times) > 1 else 0.0,
        "runs": len(times),
        "ratio": statistics.median(a / b for a, b in zip(times, first)),
    }


def describe(record: dict) -> str:
    error = f"  error {record['error']:.1e}" if "error" in record else ""
    milliseconds = 1e3 * record["median"]
    return f"{record['method']:44s} {milliseconds:11.4f} ms  {record['ratio']:9.2f}×{error}"
