"""The chapters of isotropic TV, graphs, trend filtering and the choice of λ.

As in `sections.py`, each function gives the records of one chapter.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from benchmarks import certified, problems
from benchmarks.certified import Certified
from benchmarks.measure import Method, Problem
from benchmarks.sections import Bench


def isotropic(bench: Bench) -> list[dict]:
    """Error against time of one image: scikit-image, deepinv and fastprox."""
    photo = problems.photo(bench.choose(512, 32))
    noisy = photo + np.float32(0.1) * problems.noise(*photo.shape)
    cases = [("photo, λ = 0.1", photo), ("noisy photo, λ = 0.1", noisy)]
    counts = bench.choose((25, 50, 100, 200, 400), (20,))
    own = [
        Method(f"jaxtv FGP({tol:g})", "jaxtv_isotropic", {"tol": tol})
        for tol in bench.choose((1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6), (1e-4,))
    ]
    fastprox = [
        Method(f"fastprox tv_iso({tol:g})", "fastprox_isotropic", {"tol": tol}, "fastprox")
        for tol in bench.choose((1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8), (1e-4,))
    ]
    options = {"eps": 0, "dtype": "float32"}
    skimage = [
        Method(
            f"scikit-image chambolle, {k} iterations",
            "skimage_chambolle",
            options | {"iterations": k},
        )
        for k in counts
    ]
    options = {"crit": 0.0, "tau": 0.1}  # sooner than with its tau of 0.01
    deepinv = [
        Method(
            f"deepinv TVDenoiser, {k} iterations",
            "deepinv_tv",
            options | {"n_it_max": k},
            "deepinv",
        )
        for k in counts
    ]
    methods = [*own, *fastprox, *skimage, *deepinv]
    return [
        record
        for name, x in cases
        for record in bench.race(
            Certified(name, x, 0.1, (0, 1), solve=certified.isotropic), methods, 0.5
        )
    ]


def graph_tv(bench: Bench) -> list[dict]:
    """An image with 8 neighbours: fastprox's maximal flows."""
    side = bench.choose(256, 16)
    photo = problems.photo(512)[::2, ::2][:side, :side]
    noisy = photo + np.float32(0.1) * problems.noise(*photo.shape)
    methods = [
        *(
            Method(f"jaxtv prox_graph_tv({tol:g})", "jaxtv_graph", {"tol": tol})
            for tol in bench.choose((1e-2, 1e-3, 1e-4, 1e-5, 1e-6), (1e-4,))
        ),
        *(
            Method(
                f"fastprox graph_tv({tol:g})",
                "fastprox_graph",
                {"diagonals": True, "tol": tol},
                "fastprox",
            )
            for tol in bench.choose((1e-1, 1e-2, 0.0), (0.0,))
        ),
    ]
    records = []
    for name, x in (("photo", photo), ("noisy photo", noisy)):
        problem = Certified(f"{name}, λ = 0.05", x, 0.05, (0, 1), solve=certified.graph)
        records += bench.race(problem, methods, 0.7)
    return records


def trend_filter(bench: Bench) -> list[dict]:
    """One signal: packages on CVXPY, and the C code of Kim et al.

    Order 2 has the short signal alone: the optimum of the long one takes five minutes.
    """
    records = []
    short = bench.choose(10_000, 300)
    for order, lam, n in (
        (1, 100.0, short),
        (2, 1e4, short),
        (1, 100.0, bench.choose(100_000, 600)),
    ):
        problem = Certified(
            f"order {order}, n = {n:,}",
            problems.trend(n),
            lam,
            size=n,
            solve=functools.partial(certified.trend, order=order),
        )
        methods = _trend_methods(order, n <= 10_000)
        records += bench.race(problem, methods, bench.choose(1.0, 0.3))
    return records


def _trend_methods(order: int, short: bool) -> list[Method]:
    """Of the packages on CVXPY a long signal has the fastest, which takes 40 seconds."""
    double = {"order": order, "dtype": "float64"}
    model = {"order": order, "solver": "CLARABEL"}
    methods = [
        Method("jaxtv", "jaxtv_trend", {"order": order}),
        *(
            Method(f"jaxtv, float64, tol {tol:g}", "jaxtv_trend", double | {"tol": tol}, "float64")
            for tol in (1e-4, 1e-6, 1e-9)
        ),
        Method("cvxpy CLARABEL", "cvxpy_trend", model, "cvxpy"),
    ]
    if short:
        methods.append(Method("cvxpy OSQP", "cvxpy_trend", model | {"solver": "OSQP"}, "cvxpy"))
    if short and order == 1:
        methods.append(Method("trendfilter", "trendfilter_trend", {}, "trendfilter"))
    if order == 1:
        methods.append(Method("cyl1tf", "cyl1tf_trend", {"tol": 1e-4}, "cyl1tf"))
    return methods


@dataclasses.dataclass(kw_only=True)
class Picture(Problem):
    """A noisy picture; what counts is the distance from the clean one."""

    clean: np.ndarray

    def accuracy(self, y: np.ndarray, own: bool) -> dict[str, float]:
        return {"mse": float(np.mean((y - self.clean) ** 2))}


def selection(bench: Bench) -> list[dict]:
    """λ from the noisy picture alone, and the picture: scikit-image's calibrate_denoiser."""
    side, sigma = bench.choose(512, 32), 0.1
    clean = problems.photo(side)
    noisy = clean + np.float32(sigma) * problems.noise(*clean.shape)
    methods = [
        Method("jaxtv select_lam, SURE", "jaxtv_selected"),
        Method("jaxtv select_lam, SURE, σ known", "jaxtv_selected", {"sigma": sigma}),
        Method("jaxtv select_lam, discrepancy", "jaxtv_selected", {"criterion": "discrepancy"}),
        *(
            Method(
                f"scikit-image calibrate_denoiser, {count} weights",
                "skimage_calibrated",
                {"candidates": count},
                note="isotropic TV",
            )
            for count in (9, 36)
        ),
    ]
    problem = Picture(f"{side}×{side} photo, σ = {sigma:g}", noisy, 0.0, (0, 1), clean=clean)
    return bench.race(problem, methods, 5.0)


CHAPTERS: dict[str, Callable[[Bench], list[dict]]] = {
    "isotropic": isotropic,
    "graph_tv": graph_tv,
    "trend_filter": trend_filter,
    "selection": selection,
}
