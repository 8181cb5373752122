"""Random batches of 1D problems; a batch is a function of its seed."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv
from testing import generators, long_double, oracles

DTYPES = ("float32", "float64", "bfloat16", "float16")
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # of `Batch.scale`
SCALES = (1.0, 255.0, 1e4)
SAMPLES = 120_000  # the most of one batch


class Batch(NamedTuple):
    """x (rows, n) and w (1 or rows, 1 or n-1) in float64, exactly representable in `dtype`.

    Half types: w is representable in float32, which is what weights are computed in.
    """

    dtype: str
    x: np.ndarray
    w: np.ndarray
    axis: int  # of the signals in the call: -1, or 0 for the transposed layout

    @property
    def scale(self) -> np.ndarray:
        """Max|x|, which the errors of a row are relative to, but at least tiny / eps.

        XLA's threads take what is below `tiny`, the least normal number, for zero, in every step of
        the arithmetic: the numbers have a spacing of `tiny` there, as numbers of tiny / eps have.
        """
        info = jnp.finfo(compute_dtype(self.dtype))
        return np.maximum(np.abs(self.x).max(1, keepdims=True), float(info.tiny) / float(info.eps))


def compute_dtype(dtype: str) -> str:
    """The dtype of the weights, and of the arithmetic."""
    return "float64" if dtype == "float64" else "float32"


def rounded(a, dtype: str) -> np.ndarray:
    """The nearest values of `dtype`, in float64; what would overflow is cut down to the largest."""
    largest = float(jnp.finfo(dtype).max)
    cut = np.where(np.isinf(a), a, np.clip(a, -largest, largest))
    return np.asarray(cut).astype(jnp.dtype(dtype)).astype(np.float64)


def _noise(r, rows, n):
    return r.normal(size=(rows, n))


def _steps(r, rows, n):
    return generators.steps(rows, n, seed=int(r.integers(2**31)))


def _ties(r, rows, n):
    return r.integers(0, r.integers(2, 9), size=(rows, n)).astype(float)


def _repeated(r, rows, n):
    return np.repeat(r.normal(size=(rows, -(-n // 3))), 3, 1)[:, :n]


def _constant(r, rows, n):
    return np.broadcast_to(r.normal(size=(rows, 1)), (rows, n))


def _saw(r, rows, n):
    return np.arange(n) % 2 * r.normal(size=(rows, 1))


def _ramp(r, rows, n):
    return np.arange(n) * r.normal(size=(rows, 1))


def _walk(r, rows, n):
    return np.cumsum(r.normal(size=(rows, n)), 1)


def _sine(r, rows, n):
    return np.sin(np.arange(n) * r.exponential(0.05, size=(rows, 1)))


def _powers(r, rows, n):
    return r.choice([2.0, -2.0, 1 / 3], size=(rows, 1)) ** (np.arange(n) % 60)


def _spread(r, rows, n):
    return np.where(r.random((rows, n)) < 0.5, 1e8, 1e-3 * r.normal(size=(rows, n)))


def _denormal(r, rows, n):
    return 1e-40 * r.normal(size=(rows, n))


def _huge(r, rows, n):
    return 3e38 * r.choice([-1.0, 1.0], size=(rows, n))


KINDS = (_noise, _steps, _ties, _repeated, _constant, _saw, _ramp, _walk, _sine, _powers)
KINDS += (_spread, _denormal, _huge)
NASTY = tuple(case for case in generators.CASES.values() if case.x.shape[1] <= 600)


def signals(r: np.random.Generator, rows: int, n: int) -> np.ndarray:
    """Rows of one kind, at a scale, with an offset or none."""
    x = KINDS[r.integers(len(KINDS))](r, rows, n) * r.choice(SCALES)
    return x + 10.0 ** r.integers(1, 7) * np.abs(x).max() if r.random() < 0.15 else x


def weights(r: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """One λ, one per signal, or one per edge, about as large as the samples differ."""
    rows, n = x.shape
    size = float(np.abs(np.diff(x)).mean()) if n > 1 else 1.0
    kind = r.integers(3)
    shape = ((1, 1), (rows, 1), (rows, n - 1))[kind]
    w = size * 10 ** r.uniform(-3, 2.5, shape[:1])[:, None] * np.ones(shape)
    if kind == 2:
        w = w * r.exponential(size=shape)
    w = np.where(r.random(shape) < 0.1, r.choice([0.0, np.inf, 1e30], shape), w)
    if kind == 1:
        w = np.where(r.random(shape) < 0.1, generators.lam_max(x), w)
    return w


def poisoned(b: Batch, seed: int) -> tuple[Batch, np.ndarray]:
    """The batch with some rows that have no solution, and which ones (rows,).

    One sample of them is NaN or infinite, or, where they have weights of their own, one of these
    is NaN or negative.
    """
    r = np.random.default_rng((seed, 1))
    rows, n = b.x.shape
    bad = r.random(rows) < 0.2
    bad[r.integers(rows)] = True
    x, w = b.x.copy(), b.w.copy()
    own_weights = w.size > 0 and len(w) == rows
    for row in np.flatnonzero(bad):
        if own_weights and r.random() < 0.5:
            w[row, r.integers(w.shape[1])] = r.choice([np.nan, -1.0, -np.inf])
        else:
            x[row, r.integers(n)] = r.choice([np.nan, np.inf, -np.inf])
    return b._replace(x=x, w=w), bad


def batch(seed: int, samples: int = SAMPLES) -> Batch:
    """The batch of this seed: a random problem, or rows of a case that the tests name."""
    r = np.random.default_rng(seed)
    dtype = DTYPES[r.choice(4, p=[0.5, 0.3, 0.1, 0.1])]
    n = int(r.integers(1, 601)) if r.random() < 0.7 else int(r.integers(1, 33))
    if r.random() < 0.15:
        case = NASTY[r.integers(len(NASTY))]
        pick = r.integers(len(case.x), size=min(1500, samples // case.x.shape[1]))
        x, w = case.x[pick] * r.choice([-1.0, 1.0], (len(pick), 1)), case.w[pick]
        x, w = (x[:, ::-1], w[:, ::-1]) if r.random() < 0.5 else (x, w)
    else:
        x = signals(r, int(r.integers(1, min(1500, samples // n) + 1)), n)
        if dtype == "float64" and np.abs(x).max() > 1e38:
            x = x * 2.0**860  # _huge is that for float32
        w = weights(r, x)
    return Batch(dtype, rounded(x, dtype), rounded(w, compute_dtype(dtype)), int(r.integers(-1, 1)))


# ---------------------------------------------------------------------------- their solutions


@functools.partial(jax.jit, static_argnames=("axis", "solver"))
def prox(x, w, axis: int, solver):
    """`prox_tv1d` under jit, where λ may be anything."""
    return jaxtv.prox_tv1d(x, w, axis=axis, solver=solver)


def solve(b: Batch, solver) -> np.ndarray:
    """The library's solution, (rows, n) in float64."""
    order = (lambda a: a) if b.axis == -1 else np.transpose
    x = jnp.asarray(order(b.x), b.dtype)
    w = jnp.asarray(order(b.w), compute_dtype(b.dtype))
    return order(np.asarray(prox(x, w, b.axis, solver)).astype(np.float64))


def exact(b: Batch) -> np.ndarray:
    """The independent solution, (rows, n) in float64."""
    return long_double.prox1d(b.x, oracles.full_weights(b.x, b.w))


def errors(b: Batch, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The error of every row relative to max|x|, and its duality gap to n max|x|^2.

    Half types: the error beyond half an ulp of the result, which is rounded once; no gap.
    """
    best = exact(b)
    miss = np.abs(y - best)
    if b.dtype != compute_dtype(b.dtype):
        info = jnp.finfo(b.dtype)
        ulp = np.maximum(np.abs(best) * float(info.eps), float(info.smallest_subnormal))
        return np.max(np.maximum(miss - ulp / 2, 0) / b.scale, 1), np.zeros(len(y))
    with np.errstate(over="ignore"):
        x, y, w = b.x / b.scale, y / b.scale, np.minimum(b.w / b.scale, 4.0 * b.x.shape[1])
    return np.max(miss / b.scale, 1), np.abs(oracles.gap(x, y, w)) / b.x.shape[1]


def wrong(b: Batch, error: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """The rows whose error or gap is beyond the tolerance; a NaN is."""
    return ~(np.maximum(error, gap) <= TOLERANCE[compute_dtype(b.dtype)])
