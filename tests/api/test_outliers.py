"""One sample that is far larger than the others costs them no precision.

Its jumps have the sign of the outlier whatever its size, so the other samples are those of the same
signal with an outlier of moderate size, which the oracle solves.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from testing import long_double, oracles
from testing.generators import DTYPES, EXACT, NEWTON, rng

MODERATE = 20.0  # far above the samples and the weights
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # of max|sample| without the outlier
ROWS, N = 60, 48


def samples(kind, rows, n, seed):
    noise = rng(seed).normal(size=(rows, n))
    if kind == "noise":
        return noise
    return np.linspace(0, 5, n) + 0 * noise if kind == "ramp" else np.round(2 * noise)


def with_outliers(x, seed):
    """`x` with an outlier in each row, 1e6 to 1e30 of either sign; with moderate ones; where."""
    r = rng(seed)
    at = np.arange(len(x)), r.integers(0, x.shape[1], len(x))
    sign = r.choice([-1.0, 1.0], len(x))
    large, moderate = x.copy(), x.astype(np.float64)
    large[at] = sign * 10.0 ** r.uniform(6, 30, len(x))
    moderate[at] = sign * MODERATE
    return large, moderate, at


def assert_others_equal(y, best, at, x, dtype):
    error = np.abs(np.asarray(y) - best)
    error[at] = 0
    assert error.max() <= TOLERANCE[dtype] * np.abs(x).max()
    assert np.isfinite(y).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", EXACT | NEWTON)
def test_rows_and_columns(solver, dtype):
    """With ties within 8 eps of max|x|, an outlier of 1e14 or more fused all other samples."""
    prox = jax.jit(
        partial(jaxtv.prox_tv1d, solver=(EXACT | NEWTON)[solver]), static_argnames="axis"
    )
    for seed, kind in enumerate(("noise", "ramp", "integers")):
        x = samples(kind, ROWS, N, seed).astype(dtype)
        large, moderate, at = with_outliers(x, seed)
        for w in (
            np.full((ROWS, 1), 0.7, dtype),
            rng(9).uniform(0, 3, (ROWS, N - 1)).astype(dtype),
        ):
            best = long_double.prox1d(moderate, w.astype(np.float64))
            assert_others_equal(prox(large, w), best, at, x, dtype)
            assert_others_equal(prox(large.T, w.T, axis=0).T, best, at, x, dtype)
            for i in range(3):  # one signal alone has its own kernels
                y = prox(large[i : i + 1], w[i : i + 1])
                assert_others_equal(y, best[i : i + 1], (0, at[1][i]), x, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["noise", "ramp", "integers"])
def test_long_signals(kind, dtype):
    """By windows, by taut strings on many threads, and by messages, which ramps need."""
    for seed, (rows, n, lam) in enumerate([(1, 6000, 3.0), (2, 40_000, 0.7), (1, 40_000, 3.0)]):
        x = samples(kind, rows, n, seed).astype(dtype)
        large, moderate, at = with_outliers(x, seed)
        best = long_double.prox1d(moderate, lam)
        for solver in (jaxtv.Direct(), jaxtv.Direct("taut_string")):
            y = jax.jit(partial(jaxtv.prox_tv1d, solver=solver))(jnp.asarray(large), lam)
            assert_others_equal(y, best, at, x, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_images(dtype):
    """Sweeps of `Dykstra`, and their derivatives."""
    r = rng(3)
    x = r.normal(size=(6, 9, 8)).astype(dtype)
    at = np.arange(6), r.integers(0, 9, 6), r.integers(0, 8, 6)
    sign = np.array([1.0, -1, 1, -1, 1, -1])
    large, moderate = x.copy(), x.astype(np.float64)
    large[at], moderate[at] = sign * 10.0 ** np.array([6, 9, 14, 15, 20, 30]), sign * MODERATE
    prox = lambda x, lam: jaxtv.prox_tv2d(x, lam, axes=(1, 2), solver=jaxtv.Dykstra(3))
    best = oracles.dykstra(moderate, (0.4, 0.4), (2, 1), 3)
    assert_others_equal(prox(large, 0.4), best, at, x, dtype)
    if dtype == "float64":
        g = rng(4).normal(size=x.shape)
        loss = lambda x, lam: jnp.sum(g * prox(x, lam))
        for ours, theirs in zip(*(jax.grad(loss, (0, 1))(a, 0.4) for a in (large, moderate))):
            np.testing.assert_allclose(ours, theirs, atol=1e-10)
