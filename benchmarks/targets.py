"""The targets of the CPU kernels, judged by the numbers of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

LEVELS = (1e-1, 1e-2, 1e-3, 1e-4)  # of relative errors of images
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
        "batches": _batches,
        "kernels": _kernels,
        "accuracy": _accuracy,
        "images": _images,
        "single_signal": _single_signal,
        "scaling_n": _slope,
        "network": _network,
        "isotropic": _isotropic,
        "graph_tv": _graph_tv,
        "trend_filter": _trend_filter,
        "selection": _selection,
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
    (loop,) = (r for r in records if r["method"].startswith("C loop, "))
    (total,) = timed(records, "jaxtv total")
    found = _against_fastprox(records, "Table 1, ")
    found += [
        Target("Table 1, forward against the threaded C loop", loop["ratio"], 7, True),
        Target("Table 1, forward + backward over forward", total["ratio"], 1.8, False),
    ]
    (default,) = timed(records, "prox_tv hybridtautstring")
    what = "Table 1, forward against prox_tv per row"
    return [*found, Target(what, default["ratio"], 100, True, "its default method")]


def _against_fastprox(records, problem):
    """Forward, and forward + backward."""
    found = []
    for theirs, ours, what in (
        ("fastprox tv1d", "jaxtv", "forward"),
        ("fastprox tv1d and vjp", "jaxtv total", "forward + backward"),
    ):
        for peer in timed(records, theirs):
            (own,) = timed(records, ours)
            ratio = peer["ratio"] / own["ratio"]
            found.append(Target(f"{problem}{what} against fastprox", ratio, 3, True))
    return found


def _batches(records):
    photo = [r for r in records if "photo" in r["problem"]]
    return _against_fastprox(photo, "Photo rows, ")


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
    found = []
    for problem in dict.fromkeys(r["problem"] for r in records):
        own = [r for r in records if r["problem"] == problem and r["status"] == "ok"]
        if own[0]["method"] == "jaxtv Dykstra(4)":
            found += _image(problem, own)
    return found


def _image(problem, records):
    found = [
        Target(f"{problem}, K = 4, against prox_tv pd", r["ratio"], 12, True)
        for r in timed(records, "prox_tv pd, 4 iterations")
    ]
    for tol, bound in ((1e-2, 1.5), (1e-3, 2.5), (1e-6, 8)):
        for r in timed(records, f"jaxtv AcceleratedDykstra({tol:g})"):
            what = f"{problem}, relative gap {tol:g}, over the time of Dykstra(4)"
            found.append(Target(what, r["ratio"], bound, False))
    return found


def fastest_to(records: Iterable[dict], level: float, *packages: str) -> dict | None:
    """The fastest record of these packages with at most this relative error."""
    fit = [r for r in records if r.get("relative_error", np.inf) <= level and not r["note"]]
    own = [r for r in fit if r["method"].startswith(packages)]
    return min(own, key=lambda r: r["ratio"], default=None)


def packages(records: Iterable[dict]) -> list[str]:
    """The first words of all methods, ours first."""
    return list(dict.fromkeys(r["method"].split()[0].strip(",") for r in records))


def times_to(records: Iterable[dict], level: float) -> tuple[dict, dict] | None:
    """Our fastest record of a problem with at most this relative error, and the best peer's."""
    ours = fastest_to(records, level, "jaxtv")
    theirs = fastest_to(records, level, *(p for p in packages(records) if p != "jaxtv"))
    return (ours, theirs) if ours and theirs else None


def _accuracy(records):
    found = []
    for problem in dict.fromkeys(r["problem"] for r in records):
        own = [r for r in records if r["problem"] == problem]
        for level in LEVELS:
            if pair := times_to(own, level):
                ratio = pair[1]["ratio"] / pair[0]["ratio"]
                what = f"{problem}, relative error {level:g}, against the best peer"
                found.append(Target(what, ratio, 5, True, pair[1]["method"]))
    return found


def _single_signal(records):
    found = []
    for problem in dict.fromkeys(r["problem"] for r in records):
        own = [r for r in records if r["problem"] == problem]
        for peer, name, bound in (
            ("fastprox", "fastprox", 2),
            ("prox_tv", "the best of prox_tv", 4),
        ):
            if any(r["method"].startswith(peer) and r["status"] == "ok" for r in own):
                best = fastest(own, peer)
                what = f"One signal, {problem}, against {name}"
                found.append(Target(what, best["ratio"], bound, True, best["method"]))
    return found


def _slope(records):
    slope = fit_slope(records, "jaxtv", 1e4)
    last = max(r["size"] for r in records)
    what = f"Exponent of time against n, 1e4 to {last:g}"
    return [] if slope is None else [Target(what, slope, 1.05, False)]


def _network(records):
    found = []
    for problem in dict.fromkeys(r["problem"] for r in records):
        own = [r for r in records if r["problem"] == problem]
        bound = 0.25 if own[0]["size"] <= 16 else 0.15
        extra = max(r["ratio"] for r in own) - 1
        found.append(Target(f"TV layers on top of {problem}, share", extra, bound, False))
    return found


def _isotropic(records):
    return _against_each("Isotropic TV", records, 1e-3, 3)


def _graph_tv(records):
    return _against_each("Graph", records, 1e-3, 1)


def _trend_filter(records):
    return _against_each("Trend", records, 1e-2, 1)


def _against_each(chapter, records, level, bound):
    """Against every other package that reaches this error."""
    found = []
    for problem in dict.fromkeys(r["problem"] for r in records):
        own = [r for r in records if r["problem"] == problem]
        ours = fastest_to(own, level, "jaxtv")
        for package in packages(own)[1:]:
            theirs = fastest_to(own, level, package)
            if ours and theirs:
                ratio = theirs["ratio"] / ours["ratio"]
                what = f"{chapter}, {problem}, relative error {level:g}, against {package}"
                found.append(Target(what, ratio, bound, True, theirs["method"]))
    return found


def _selection(records):
    """No worse a picture than the best of scikit-image, and sooner."""
    ours = timed(records, "jaxtv select_lam, SURE")[0]
    peers = [r for r in records if r["method"].startswith("scikit-image") and r["status"] == "ok"]
    if not peers:
        return []
    best = min(peers, key=lambda r: r["mse"])
    return [
        Target(f"select_lam, {what}", ratio, 1, True, best["method"])
        for what, ratio in (
            ("error of the picture, scikit-image over ours", best["mse"] / ours["mse"]),
            ("time, scikit-image over ours", best["ratio"] / ours["ratio"]),
        )
    ]
