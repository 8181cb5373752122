"""Trends, graphs and data weights against exact float64 solvers, on random small problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv
from soak.result import Result
from testing import oracles

ROWS = 25  # of one compilation
TOL = 1e-10


class Solved(NamedTuple):
    """A batch of solutions, what was reported, and the exact solutions."""

    name: str
    x: np.ndarray
    y: np.ndarray
    info: jaxtv.Info
    exact: np.ndarray


def errors(solved: Solved) -> np.ndarray:
    """Of each row: the distance to the solution relative to max|x|; inf where it is not certified.

    A certified row is within sqrt(2 gap) of the solution.
    """
    distance = np.linalg.norm(solved.y - solved.exact, axis=1)
    bound = np.sqrt(2 * np.asarray(solved.info.gap)) + 1e-9 * np.abs(solved.x).max(1)
    right = np.asarray(solved.info.converged) & (distance <= bound)
    return np.where(right, np.abs(solved.y - solved.exact).max(1) / np.abs(solved.x).max(1), np.inf)


def trends(seed: int, rows: int = ROWS) -> Solved:
    """Random walks of 5 to 40 samples at uneven times, λ of any size."""
    r = np.random.default_rng(seed)
    order, n = 1 + seed % 2, int(r.integers(5, 41))
    x, spacing = r.normal(size=(rows, n)).cumsum(1), r.uniform(0.3, 3, n - 1)
    lam = 10 ** r.uniform(-2, 3, (rows, 1))
    options = {"order": order, "spacing": spacing, "tol": TOL, "return_info": True}
    y, info = jaxtv.trend_filter(jnp.asarray(x), jnp.asarray(lam), **options)
    exact = [oracles.trend_filter(v, w, spacing, order) for v, (w,) in zip(x, lam)]
    return Solved(f"order {order}, {n} samples", x, np.asarray(y), info, np.array(exact))


def graphs(seed: int, rows: int = ROWS) -> Solved:
    """Random graphs of 3 to 16 nodes and any number of parts, one weight per edge."""
    r = np.random.default_rng(seed)
    n = int(r.integers(3, 17))
    edges = r.integers(0, n, (int(r.integers(1, 3 * n)), 2))
    edges = edges[edges[:, 0] != edges[:, 1]]
    x = r.normal(size=(rows, n))
    lam = 10 ** r.uniform(-1.5, 0.5, (rows, len(edges)))
    solver = jaxtv.AcceleratedDykstra(tol=TOL, max_iterations=10_000)
    graph = jaxtv.Graph(edges, n)
    y, info = jaxtv.prox_graph_tv(
        jnp.asarray(x), jnp.asarray(lam), graph, solver=solver, return_info=True
    )
    exact = [oracles.prox_graph_tv(v, w, edges) for v, w in zip(x, lam)]
    return Solved(repr(graph), x, np.asarray(y), info, np.array(exact))


def weighted(seed: int, rows: int = ROWS) -> Solved:
    """Random signals and images of up to 30 samples, of which up to half are missing.

    What is compared are the known samples, times the square roots of their data weights.
    """
    r = np.random.default_rng(seed)
    shape = tuple(r.integers(2, 7, 2)) if seed % 2 else (int(r.integers(2, 31)),)
    axes = tuple(range(1, len(shape) + 1))
    x, a = r.normal(size=(rows, *shape)), 10 ** r.uniform(-2, 1, (rows, *shape))
    a *= r.random(a.shape) > r.choice([0, 0.2, 0.5])
    a.reshape(rows, -1)[:, 0] = 1  # something is known
    ws = [10 ** r.uniform(-1.5, 0.5, np.diff(x, axis=axis).shape) for axis in axes]
    solver = jaxtv.AcceleratedDykstra(tol=TOL, max_iterations=10_000) if seed % 2 else None
    y, info = jaxtv.prox_tv(
        jnp.asarray(x), ws, axes=axes, solver=solver, data_weight=a, return_info=True
    )
    exact = [oracles.prox_nd(v, w, range(len(shape)), mass).y for v, mass, *w in zip(x, a, *ws)]
    x, y, exact = ((np.sqrt(a) * v).reshape(rows, -1) for v in (x, y, np.array(exact)))
    return Solved(f"{shape}", x, y, info, exact)


def compared(batches: Iterable[Solved]) -> tuple[int, float, list[str]]:
    """(rows, largest error of those that are right, failures)."""
    rows, worst, failures = 0, 0.0, []
    for number, solved in enumerate(batches):
        error = errors(solved)
        wrong = np.isinf(error)
        if wrong.any():
            failures.append(f"seed {number}: {solved.name}, {wrong.sum()} of {len(error)} rows")
            print(failures[-1], flush=True)
        rows, worst = rows + len(error), max(worst, error[~wrong].max(initial=0))
        jax.clear_caches()
    return rows, worst, failures


def _result(what: str, cases: int, batch: Callable[[int], Solved]) -> Result:
    rows, worst, failures = compared(map(batch, range(-(-cases // ROWS))))
    text = f"error ≤ {worst:.1e} max|x|; every gap bounds its error, and every row converged"
    return Result(what, f"{rows:,} rows, float64, tol {TOL:g}", text, failures)


def trend_filter(cases: int) -> Result:
    """Each `ROWS` rows have an order, a length and times of their own."""
    return _result(
        "trend_filter, orders 1 and 2, compared with an active-set solver", cases, trends
    )


def data_weight(cases: int) -> Result:
    """Each `ROWS` rows have a shape of their own."""
    what = "data_weight of signals and images with missing samples, compared with cuts"
    return _result(what, cases, weighted)


def graph_tv(cases: int) -> Result:
    """Each `ROWS` rows have a graph of their own."""
    return _result("prox_graph_tv, compared with threshold decomposition by cuts", cases, graphs)
