"""Problems whose optimum is known with a bound of its error, from a dual that NumPy checks.

jaxtv solves them in float64, to a gap far below any that is timed. The dual tells how far that can
be from the optimum, ½‖y − y*‖² ≤ gap, whatever made it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv
from benchmarks import problems
from benchmarks.measure import Problem

Solution = tuple[np.ndarray, float]  # of x and λ: y, and a bound of its duality gap


@dataclasses.dataclass(kw_only=True)
class Certified(Problem):
    """`solve` finds the optimum of x in float64."""

    solve: Callable[[np.ndarray, float], Solution]

    @functools.cached_property
    def solution(self) -> Solution:
        with jax.enable_x64(True):
            return self.solve(self.x.astype(np.float64), self.lam)

    def accuracy(self, y: np.ndarray, own: bool) -> dict[str, float]:
        """`optimum_error` bounds the error that `relative_error` has itself."""
        best, gap = self.solution
        distance = np.linalg.norm(self.x - best)
        return {
            "error": float(np.abs(y - best).max()),
            "relative_error": float(np.linalg.norm(y - best) / distance),
            "optimum_error": float(np.sqrt(2 * max(gap, 0)) / distance),
        }


def isotropic(x: np.ndarray, lam: float) -> Solution:
    y, dual = jaxtv.prox_tv_isotropic(
        jnp.asarray(x), lam, axes=(0, 1), solver=jaxtv.FGP(1e-9, 100_000), return_dual=True
    )
    y = np.asarray(y)
    u = np.stack([_without_last(np.asarray(v), axis) for axis, v in enumerate(dual)])
    u /= max(1, np.sqrt((u**2).sum(0)).max() / lam)
    rest = x + sum(np.diff(v, axis=axis, prepend=0) for axis, v in enumerate(u))
    jumps = [np.diff(y, axis=axis, append=np.take(y, [-1], axis)) for axis in (0, 1)]
    variation = lam * np.sqrt(jumps[0] ** 2 + jumps[1] ** 2).sum()
    return y, _gap(x, y, variation, rest)


def graph(x: np.ndarray, lam: float) -> Solution:
    """Its gap is the one that the library reports; fastprox's exact solution is in the table."""
    edges, weights = problems.grid(x.shape, diagonals=True)
    solver = jaxtv.AcceleratedDykstra(tol=1e-11, max_iterations=20_000)
    y, info = jaxtv.prox_graph_tv(
        jnp.asarray(x.ravel()),
        jnp.asarray(lam * weights),
        jaxtv.Graph(edges, x.size),
        solver=solver,
        return_info=True,
    )
    return np.asarray(y).reshape(x.shape), float(info.gap)


def trend(x: np.ndarray, lam: float, order: int) -> Solution:
    """The dual is what repeated sums of x − y are, in long double, and 0 at the ends."""
    y = np.asarray(
        jaxtv.trend_filter(jnp.asarray(x), lam, order=order, tol=1e-12, max_iterations=50_000)
    )[0]
    u = (x[0] - y).astype(np.longdouble)
    for _ in range(order + 1):
        u = -np.cumsum(u)[:-1]
    u /= max(1, np.abs(u).max() / lam)
    rest = x[0] - _adjoint(u, order + 1)
    return y[None], _gap(x[0], y, lam * np.abs(np.diff(y, order + 1)).sum(), rest)


def _adjoint(u: np.ndarray, order: int) -> np.ndarray:
    for _ in range(order):
        u = -np.diff(u, prepend=0, append=0)
    return u


def _without_last(u: np.ndarray, axis: int) -> np.ndarray:
    u = u.copy()
    np.moveaxis(u, axis, 0)[-1] = 0
    return u


def _gap(x: np.ndarray, y: np.ndarray, variation: float, rest: np.ndarray) -> float:
    """Of y and of the dual that leaves `rest` of x."""
    long = np.longdouble
    return float(
        variation
        + (
            ((x - y).astype(long) ** 2).sum()
            - (x.astype(long) ** 2).sum()
            + (rest.astype(long) ** 2).sum()
        )
        / 2
    )
