"""The targets of the CPU kernels, judged by the numbers of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

ORDINARY = ("step + noise", "noise", "image rows")


@dataclasses.dataclass(frozen=True)
class Target:
    """`measured` has to be at least, or at most, `bound`."""

    what: str
    measured: float
    bound: float
    at_least: bool
    detail: str = ""

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def judge(chapters: dict[str, list[dict]]) -> list[Target]:
    """Those targets whose chapters were measured."""
    judges = {
        "table1": _table1,
        "kernels": _kernels,
        "images": _images,
        "single_signal": _single_signal,
        "scaling_n": _slope,
        "network": _network,
    }
    return [t for name, judge in judges.items() if name in chapters for t in judge(chapters[name])]


def fit_slope(records: Iterable[dict], method: str, start: float) -> float | None:
    """Exponent of the median time against the size, from the size `start` on."""
    points = [(r["size"], r["median"]) for r in timed(records, method) if r["size"] >= start]
    if len(points) < 2:
        return None
    return float(np.polyfit(*np.log(np.array(points).T), 1)[0])


def timed(records: Iterable[dict], method: str) -> list[dict]:
    return [r for r in records if r["method"] == method and r["status"] == "ok"]


def fastest(records: Iterable[dict], prefix: str) -> dict:
    """The fastest of the accurate methods whose name begins so."""
    fit = [r for r in records if r["method"].startswith(prefix) and r["status"] == "ok"]
    return min((r for r in fit if r["error"] < 1e-3), key=lambda r: r["ratio"])


def _table1(records):
    loop = next(r for r in records if r["method"].startswith("C loop, "))
    (total,) = timed(records, "jaxtv total")
    (default,) = timed(records, "prox_tv hybridtautstring")
    best = fastest(records, "prox_tv")
    detail = f"its default method; {best['ratio']:.0f}× {best['method']}, its fastest"
    return [
        Target("Table 1, forward against prox_tv per row", default["ratio"], 100, True, detail),
        Target("Table 1, forward against the threaded C loop", loop["ratio"], 5, True),
        Target("Table 1, forward + backward over forward", total["ratio"], 2, False),
    ]


def _kernels(records):
    ours = timed(records, "jaxtv")
    ordinary = [r for r in ours if r["problem"].split(",")[0] in ORDINARY]
    ramps = [r for r in ours if r["problem"].startswith("ramps")]
    found = []
    for what, group, bound in (("ordinary data", ordinary, 1.8), ("ramps", ramps, 3.6)):
        worst = max(group, key=lambda r: r["ns_per_sample"])
        middle = float(np.median([r["ns_per_sample"] for r in group]))
        detail = f"{worst['problem']}, n = {worst['size']}; median of all {middle:.2f}"
        what = f"ns per sample on one core, {what}, worst case"
        found.append(Target(what, worst["ns_per_sample"], bound, False, detail))
    return found


def _images(records):
    return [
        Target(f"{r['problem']}, K = 4, against prox_tv pd", r["ratio"], 20, True)
        for r in timed(records, "prox_tv pd, 4 iterations")
    ]


def _single_signal(records):
    found = []
    for problem in dict.fromkeys(r["problem"] for r in records):
        best = fastest([r for r in records if r["problem"] == problem], "prox_tv")
        what = f"One signal, {problem}, against the best of prox_tv"
        found.append(Target(what, best["ratio"], 4, True, best["method"]))
    return found


def _slope(records):
    slope = fit_slope(records, "jaxtv", 1e4)
    last = max(r["size"] for r in records)
    what = f"Exponent of time against n, 1e4 to {last:g}"
    return [] if slope is None else [Target(what, slope, 1.05, False)]


def _network(records):
    extra = max(r["ratio"] for r in records) - 1
    return [Target(f"TV layers on top of {records[0]['problem']}, share", extra, 0.15, False)]
