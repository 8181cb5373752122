"""Values, segments and gradients against independent float64 solvers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv
from soak.result import Result
from testing import long_double, oracles, random_batches
from testing.random_batches import (
    DTYPES,
    SCALES,
    Batch,
    batch,
    compute_dtype,
    errors,
    rounded,
    solve,
)

SOLVERS = (jaxtv.Direct(), jaxtv.Direct("decomposition"), jaxtv.Direct("taut_string"))
COMPILED = 100  # programs that are kept at a time: every batch has its own shape


class Tally:
    """The largest errors of the rows of one dtype."""

    def __init__(self):
        self.rows = self.beyond = 0
        self.error = self.gap = 0.0

    def add(self, b: Batch, y: np.ndarray) -> int:
        """The number of wrong rows."""
        error, gap = errors(b, y)
        self.rows += len(y)
        with np.errstate(over="ignore"):
            self.beyond += int((np.abs(b.x).sum(1) > _largest(b.dtype)).sum())
        self.error = max(self.error, np.max(error))
        self.gap = max(self.gap, np.max(gap))
        return int(random_batches.wrong(b, error, gap).sum())

    def __str__(self):
        text = f"{self.rows:,} signals, error ≤ {self.error:.1e} max|x|"
        text += f", gap ≤ {self.gap:.1e} n max|x|²" if self.gap else ""
        text += f", Σ|x| beyond the range of {self.beyond:,}" if self.beyond else ""
        return text


def _largest(dtype: str) -> float:
    return float(jnp.finfo(compute_dtype(dtype)).max)


def disturbed(y: np.ndarray, with_poison: np.ndarray, bad: np.ndarray) -> int:
    """How many rows are wrong after those of `bad` were poisoned: these are NaN, others as before.

    `y` is the solution of the batch, `with_poison` the solution of the poisoned one.
    """
    same = (y.view(np.int64) == with_poison.view(np.int64)).all(1)
    return int((~np.where(bad, np.isnan(with_poison).all(1), same)).sum())


def random(cases: int, seed: int = 0) -> Result:
    """Random batches until there are `cases` signals; each again with some rows poisoned."""
    tallies = {dtype: Tally() for dtype in DTYPES}
    failures, total, bad_rows, disturbances = [], 0, 0, 0
    while total < cases:
        if seed % COMPILED == 0:
            jax.clear_caches()
        b, solver = batch(seed), SOLVERS[seed % len(SOLVERS)]
        y = solve(b, solver)
        wrong = tallies[b.dtype].add(b, y)
        poisoned, bad = random_batches.poisoned(b, seed)
        changed = disturbed(y, solve(poisoned, solver), bad)
        if wrong or changed:
            text = f"{wrong} wrong, {changed} disturbed beside or by poisoned rows"
            failures.append(f"seed {seed}: {b.dtype} {b.x.shape}, {text}")
            print(failures[-1], flush=True)
        total, seed = total + len(b.x), seed + 1
        bad_rows, disturbances = bad_rows + int(bad.sum()), disturbances + changed
    return Result(
        "1D prox, compared with message passing in long double, and its duality gap",
        f"{total:,} signals in {seed:,} batches",
        ". ".join(f"{dtype}: {tally}" for dtype, tally in tallies.items())
        + f". Then NaN, ±inf, λ < 0 or λ = NaN corrupted {bad_rows:,} of the signals. Every "
        "corrupted signal became NaN and every other signal kept its exact bits, with "
        f"{disturbances:,} exceptions",
        failures,
    )


def rows_with_segments(seed: int, scale: float, rows: int = 500):
    """Rows x, one λ each, and g, float32 values in float64: noise on steps, λ of any size."""
    r = np.random.default_rng(seed)
    n = int(r.integers(2, 601))
    jumps = r.normal(size=(rows, n)) * (r.random((rows, n)) < 0.125)
    x = np.cumsum(jumps, 1) + 0.3 * r.normal(size=(rows, n))
    lam = 10 ** r.uniform(-2, 1, (rows, 1))
    return rounded(scale * x, "float32"), rounded(scale * lam, "float32"), r.normal(size=x.shape)


def means(cut: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The mean of g over the segments of every row."""
    starts = np.concatenate([np.ones((len(g), 1), bool), cut], 1)
    label = np.cumsum(starts.ravel()) - 1
    sums = np.bincount(label, g.ravel())
    return (sums / np.bincount(label))[label].reshape(g.shape)


def compare_segments(x, lam, g, y, gx, glam) -> tuple[int, int, float]:
    """Counts rows that differ in a decided edge, and rows with an undecided one.

    Also the largest error of the gradient of the others, relative to max|g| and Σ|terms|.
    """
    best = long_double.prox1d(x, oracles.full_weights(x, lam))
    sign = np.sign(np.diff(best)).astype(np.int8)
    edges = oracles.decided_edges(x, lam, oracles.Solution(best, sign, sign != 0), "float32")
    wrong = edges.wrong(y, sign).any(1)
    same = ~edges.tied & ~wrong
    mean = means(sign != 0, g)
    terms = sign * np.diff(mean)
    off_x = np.abs(gx - mean).max(1) / np.abs(g).max(1)
    off_lam = np.abs(glam[:, 0] + terms.sum(1)) / np.maximum(np.abs(terms).sum(1), 1)
    error = np.where(same, np.maximum(off_x, off_lam), 0).max()
    return int(wrong.sum()), int(edges.tied.sum()), float(error)


def segments(cases: int, seed: int = 0) -> Result:
    """float32 rows at every scale until there are `cases`; gradients to 1e-5."""
    failures, total, undecided, worst = [], 0, 0, 0.0
    while total < cases:
        if seed % COMPILED == 0:
            jax.clear_caches()
        scale = SCALES[seed % len(SCALES)]
        x, lam, g = rows_with_segments(seed, scale)
        x32, lam32, g32 = (jnp.asarray(a, "float32") for a in (x, lam, g))
        y, pull = jax.vjp(jaxtv.prox_tv1d, x32, lam32)
        gx, glam = pull(g32)
        arrays = (np.asarray(a, np.float64) for a in (g32, y, gx, glam))
        wrong, tied, error = compare_segments(x, lam, *arrays)
        if wrong or not error <= 1e-5:
            failures.append(f"seed {seed}: ×{scale:g} {x.shape}, {wrong} rows, error {error:.1e}")
            print(failures[-1], flush=True)
        worst, undecided = max(worst, error), undecided + tied
        total, seed = total + len(x), seed + 1
    return Result(
        "segments and gradients in float32, compared with the float64 solution, at ×1, ×255, ×1e4",
        f"{total:,} rows",
        f"{len(failures)} batches with a wrong segment or gradient; {undecided:,} rows are not "
        "counted, because the jump or slack of an edge is below 8 ulp of max|x|; the gradients of "
        f"the other rows agree to {worst:.1e}",
        failures,
    )


def image(seed: int):
    """A small 2D or 3D array of steps and noise, and a λ, at a scale; ten seeds share a shape."""
    kind = seed // 10
    shape = tuple(np.random.default_rng(kind).integers(2, 14 if kind % 2 else 25, 2 + kind % 2))
    r = np.random.default_rng(seed)
    steps = sum(np.indices(shape)) > sum(shape) / 2 - 1
    scale = r.choice(SCALES)
    return scale * (steps + 0.3 * r.normal(size=shape)), float(scale * 10 ** r.uniform(-2, 0))


def converged_errors(x, lam, tol: float, y, reported: bool) -> tuple[float, float]:
    """The gap of y relative to `tol` of the objective, and |y - y*| to the bound of that gap.

    Both are at most 1 for a solution; y* is an independent optimum in 2D, a tighter solve in 3D.
    """
    if not reported:
        return np.inf, np.inf
    axes = tuple(range(x.ndim))
    objective = long_double.objective(x, y, lam, axes)
    gap = float(jaxtv.duality_gap(x, y, lam, axes=axes))
    tight = jaxtv.AcceleratedDykstra(tol=1e-13, max_iterations=20_000)
    tighter = lambda: np.asarray(jaxtv.prox_tv(x, lam, axes=axes, solver=tight))
    best = long_double.prox2d(x, lam) if x.ndim == 2 else tighter()
    distance = np.linalg.norm(y - best) / np.sqrt(2 * tol * objective)
    return gap / (tol * objective), float(distance)


def converged(cases: int, seed: int = 0, tol: float = 1e-6) -> Result:
    """AcceleratedDykstra in float64 on 2D and 3D arrays in turn.

    `duality_gap` bounds the gap with the dual of a solve of its own, to 1e-6, so it is
    compared with 2 tol.
    """
    failures, worst_gap, worst_distance = [], 0.0, 0.0
    solver = jaxtv.AcceleratedDykstra(tol=tol)
    for current in range(seed, seed + cases):
        if current % COMPILED == 0:
            jax.clear_caches()
        x, lam = image(current)
        options = {"axes": tuple(range(x.ndim)), "solver": solver, "return_info": True}
        y, info = jaxtv.prox_tv(jnp.asarray(x), lam, **options)
        gap, distance = converged_errors(x, lam, tol, np.asarray(y), bool(info.converged))
        if not (gap <= 2 and distance <= 1):
            failures.append(f"seed {current}: {x.shape}, gap {gap:.1e}, distance {distance:.1e}")
            print(failures[-1], flush=True)
        worst_gap, worst_distance = max(worst_gap, gap), max(worst_distance, distance)
    return Result(
        "AcceleratedDykstra(tol): duality gap, and distance to an optimum or a tighter solve",
        f"{cases:,} arrays, 2D and 3D, float64, tol {tol:g}",
        f"gap ≤ {worst_gap:.2g} tol · objective (2 allowed); ‖y − y*‖ ≤ {worst_distance:.2g} "
        "times what tol allows",
        failures,
    )
