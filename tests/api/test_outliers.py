"""One sample that is far larger than the others costs them no precision.

Its jumps have the sign of the outlier whatever its size, so the other samples are those of the same
signal with an outlier of moderate size, which the oracle solves.
"""

from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from testing import long_double, oracles
from testing.generators import DTYPES, EXACT, NEWTON, rng
from testing.lowering import plain_jax

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


def assert_others_equal(y, best, at, x, dtype, at_best=0.0):
    error = np.abs(np.asarray(y) - best)
    error[at] = 0
    assert error.max() <= max(TOLERANCE[dtype], at_best) * np.abs(x).max()
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


def images_with_outliers(dtype):
    """Images with an outlier each, the same with moderate ones, and the outliers' places."""
    r = rng(3)
    x = r.normal(size=(30, 9, 8)).astype(dtype)
    at = np.arange(30), r.integers(0, 9, 30), r.integers(0, 8, 30)
    sign = r.choice([-1.0, 1.0], 30)
    large, moderate = x.copy(), x.astype(np.float64)
    large[at], moderate[at] = sign * 10.0 ** np.linspace(6, 30, 30), sign * MODERATE
    return x, large, moderate, at


CONVERGED = jaxtv.AcceleratedDykstra(tol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", [jaxtv.Dykstra(3), CONVERGED], ids=["dykstra", "converged"])
def test_images(solver, dtype):
    """`AcceleratedDykstra` stopped by an objective that was that of the outlier alone."""
    x, large, moderate, at = images_with_outliers(dtype)
    prox = jax.jit(lambda x, lam: jaxtv.prox_tv2d(x, lam, axes=(1, 2), solver=solver))
    if solver == CONVERGED:  # the oracle's own error for such a gap
        best = np.stack([long_double.prox2d(m, 0.4, 1e-14) for m in moderate])
        assert_others_equal(prox(large, 0.4), best, at, x, dtype, at_best=1e-10)
        best = np.asarray(prox(moderate, 0.4))
    else:
        best = oracles.dykstra(moderate, (0.4, 0.4), (2, 1), 3)
    assert_others_equal(prox(large, 0.4), best, at, x, dtype)
    np.testing.assert_allclose(prox(large, 0.4)[at], large[at], rtol=2e-6)
    if dtype == "float64":
        g = rng(4).normal(size=x.shape)
        loss = lambda x, lam: jnp.sum(g * prox(x, lam))
        for ours, theirs in zip(*(jax.grad(loss, (0, 1))(a, 0.4) for a in (large, moderate))):
            np.testing.assert_allclose(ours, theirs, atol=1e-10)


def volume_with_outliers():
    """Outliers of several sizes, one of four samples; the same with moderate ones; where."""
    r = rng(5)
    x = r.normal(size=(5, 6, 7))
    at = np.zeros(x.shape, bool)
    large, moderate = x.copy(), x.copy()
    places = [(2, 3, slice(2, 6)), (4, 0, 6), (0, 5, 1), (1, 1, 3)]
    shape = np.array([0, 0.5, 3, 3])  # differences that it keeps, at the height of 1e9
    for place, height, far in zip(places, (40, -40, 80, 120), (1e9, -1e15, 1e20, 1.5e20)):
        of_four = shape if isinstance(place[2], slice) else 0
        large[place], moderate[place], at[place] = far + of_four, height + of_four, True
    ws = [r.uniform(0, 1, np.subtract(x.shape, np.eye(3, dtype=int)[a])) for a in range(3)]
    ws[0][0, 3, 3], ws[2][3, :, 0] = np.inf, 0.0  # inside the ordinary samples
    return large, moderate, ws, at


@pytest.mark.parametrize("plain", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_outliers_of_several_sizes(plain):
    """In a volume with weights per edge: y, certificate, duals, a start from these, derivatives."""
    large, moderate, ws, at = volume_with_outliers()
    x, ws = np.stack([large, moderate]), tuple(w[None] for w in ws)
    solver = jaxtv.AcceleratedDykstra(tol=1e-13)
    g = np.cos(np.arange(large.size)).reshape(large.shape)

    @jax.jit
    def everything(x, ws, start):
        prox = partial(jaxtv.prox_tv, axes=(1, 2, 3), solver=solver, init_dual=start)
        f = lambda x, ws: prox(x, ws, return_info=True, return_dual=True)
        y, vjp, (info, dual) = jax.vjp(
            lambda x, ws: (f(x, ws)[0], f(x, ws)[1:]), x, ws, has_aux=True
        )
        return y, info, dual, [vjp(jnp.zeros_like(y).at[i].set(g)) for i in (0, 1)]

    with plain_jax() if plain else nullcontext():
        none = tuple(jnp.zeros_like(x) for _ in range(2))
        (y, best), info, dual, gradients = everything(x, ws, none)
        (again, _), info_again, *_ = everything(x, ws, dual)
    y, best = np.asarray(y), np.asarray(best)
    assert np.abs(y - best)[~at].max() <= 1e-11
    assert np.abs(again - best)[~at].max() <= 1e-11
    four = 2, 3, slice(2, 6)
    np.testing.assert_allclose(y[four] - 1e9, best[four] - 40, atol=1e-6)
    np.testing.assert_allclose(y[at], large[at], rtol=1e-8)
    assert info.converged.all()
    assert info.gap.max() <= 1e-9  # of the other samples
    assert info_again.iterations.max() <= 2
    for of_axis in dual:
        np.testing.assert_allclose(of_axis[0], of_axis[1], atol=1e-6)
    total = np.asarray(sum(dual))[0]
    assert np.abs(total).max() < 12  # the weights at a sample, but for the infinite one
    np.testing.assert_allclose(jnp.sum(gradients[0][0][0]), g.sum())
    of_large, of_moderate = ((gx[i], gws) for i, (gx, gws) in enumerate(gradients))
    for ours, theirs in zip(*map(jax.tree.leaves, (of_large, of_moderate))):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize(
    ("plain", "dtype"), [(False, "float32"), (False, "float64"), (True, "float32")]
)
def test_only_elements_with_far_outliers_change(plain, dtype):
    """NaN, an outlier that its weights hold, and ordinary images, next to one with an outlier."""
    x = rng(6).normal(size=(6, 7, 8)).astype(dtype)
    x[1, 2, 3] = np.nan
    x[2, 0, 0] = x[3, 0, 0] = x[4, 0, 0] = 1e14
    lam = np.full((6, 1, 1), 0.4, dtype)
    lam[3], lam[4] = np.inf, 0
    with plain_jax() if plain else nullcontext():
        prox = jax.jit(lambda x, lam: jaxtv.prox_tv2d(x, lam, axes=(1, 2), solver=CONVERGED))
        together = np.asarray(prox(x, lam))
        ordinary = x.copy()
        ordinary[2] = x[0]
        apart = np.asarray(prox(ordinary, lam))
    for i in (0, 3, 4, 5):
        np.testing.assert_array_equal(together[i], apart[i])
    assert np.isnan(together[1]).all()
    moderate = x[2].astype(np.float64)
    moderate[0, 0] = MODERATE
    error = np.abs(together[2] - long_double.prox2d(moderate, 0.4, 1e-14))
    error[0, 0] = 0
    assert error.max() <= TOLERANCE[dtype] * 4
    np.testing.assert_allclose(together[3], np.mean(x[3].astype(np.float64)), rtol=1e-6)
    np.testing.assert_array_equal(together[4], x[4])


def test_graph():
    """Nodes of a ring with chords; a node without an edge is an outlier too."""
    n = 24
    edges = [(i, (i + step) % n) for step in (1, 5) for i in range(n)]
    graph = jaxtv.Graph(edges, n + 1)
    solver = jaxtv.AcceleratedDykstra(tol=1e-12)
    x = samples("noise", 8, n + 1, 7)
    large, moderate, at = with_outliers(x, 7)
    large[:4, n], moderate[:4, n] = 1e20, 1.0
    lam = rng(8).uniform(0, 0.8, (8, len(edges)))
    prox = jax.jit(lambda x, lam: jaxtv.prox_graph_tv(x, lam, graph, solver=solver))
    best = np.stack([oracles.prox_graph_tv(v, w, graph.edges) for v, w in zip(moderate, lam)])
    best[:4, n] = 1e20
    assert_others_equal(prox(large, lam), best, at, x, "float64")
    g = rng(9).normal(size=x.shape)
    of_lam = jax.grad(lambda lam, x: jnp.sum(g * prox(x, lam)))
    moderate[:4, n] = large[:4, n]
    np.testing.assert_allclose(of_lam(lam, large), of_lam(lam, moderate), atol=1e-10)
