"""Samples near the largest number, denormal ones, and weights of 0."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from testing import oracles, random_batches
from testing.generators import DTYPES, EXACT, NEWTON, rng

SOLVERS = EXACT | NEWTON
BIG = [*DTYPES, "bfloat16"]
TOLERANCE = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2.0**-8}  # of max|x|


def large(shape, dtype, part=1.0):
    """Samples of up to `part` of the largest number, and a power of two that makes them small."""
    largest = float(jnp.finfo(dtype).max)
    values = part * largest * rng(8).choice([-1.0, -0.25, 0.7, 1.0], size=shape)
    return jnp.asarray(values).astype(dtype), 0.5 ** (jnp.finfo(dtype).maxexp - 4)


def lam_like(x, lam):
    return jnp.asarray(lam, x.dtype if x.dtype == "float64" else "float32")


def wide(x):
    return np.asarray(x).astype(np.float64)


@pytest.mark.parametrize("dtype", BIG)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("rows", "n"), [(1, 16), (40, 16), (9, 301), (3, 1)])
def test_sums_beyond_the_range(rows, n, solver, dtype):
    """16 float32 samples of 3e37 and λ = inf gave inf: their sum is beyond float32."""
    prox = jax.jit(partial(jaxtv.prox_tv1d, solver=SOLVERS[solver]))
    for part in (0.1, 1.0):
        x, small = large((rows, n), dtype, part)
        for lam in (0.0, 0.03, 2.0, np.inf):
            w = lam_like(x, lam / small)
            y = prox(x, w)
            best = oracles.prox1d(wide(x) * small, wide(w) * small).y
            scale = np.abs(wide(x) * small).max()
            assert np.abs(wide(y) * small - best).max() <= TOLERANCE[dtype] * scale


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_large_signals_are_certified_and_stay_alone(solver, dtype):
    """Gaps may be beyond the range, but are never NaN; no bit of another signal changes."""
    prox = lambda x, w: jaxtv.prox_tv1d(x, w, solver=SOLVERS[solver], return_info=True)
    normal, w = jnp.asarray(rng(9).normal(size=(40, 20)), dtype), jnp.full((40, 1), 0.4, dtype)
    big, small = large((4, 20), dtype)
    mixed_w = w.at[7:11].set(lam_like(big, 0.03 / small))
    before, (y, info) = prox(normal, w)[0], prox(normal.at[7:11].set(big), mixed_w)
    rest = np.r_[:7, 11:40]
    assert np.asarray(y)[rest].tobytes() == np.asarray(before)[rest].tobytes()
    assert np.isfinite(y).all()
    assert np.all(info.converged)
    assert not np.isnan(info.gap).any()


@pytest.mark.parametrize("dtype", BIG)
@pytest.mark.parametrize("name", ["Dykstra", "AcceleratedDykstra"])
@pytest.mark.parametrize("shape", [(3, 7, 8), (2, 3, 4, 5)])
def test_images_beyond_the_range(shape, name, dtype):
    solver = {
        "Dykstra": jaxtv.Dykstra(4),
        "AcceleratedDykstra": jaxtv.AcceleratedDykstra(tol=1e-6),
    }[name]
    axes = tuple(range(1, len(shape)))
    prox = jax.jit(partial(jaxtv.prox_tv, axes=axes, solver=solver, return_info=True))
    x, small = large(shape, dtype)
    x = x.at[0].set(rng(3).normal(size=shape[1:]).astype(x.dtype))  # an element of usual size
    work = "float64" if dtype == "float64" else "float32"
    for lam in (1e-9, 0.05, 2.0):
        w = jnp.full((shape[0], *[1] * len(axes)), lam, work).at[1:].multiply(1 / small)
        y, info = prox(x, w)
        y0, info0 = prox((wide(x) * small).astype(work), jnp.full_like(w, lam))
        error = np.abs(wide(y)[1:] * small - wide(y0)[1:]).max()
        bound = 1e-2 if name == "AcceleratedDykstra" else TOLERANCE[dtype]
        assert error <= bound * np.abs(wide(x)[1:] * small).max()
        assert not np.isnan(info.gap).any()
        assert np.array_equal(info.converged[1:], info0.converged[1:])
        alone = prox(x[:1], w[:1])[0]
        assert np.asarray(alone).tobytes() == np.asarray(y)[:1].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gap_of_large_signals_is_no_nan(dtype):
    x, small = large((5, 12), dtype)
    mean = jnp.zeros_like(x)
    for axes in (-1, (0, 1)):
        gap = partial(jaxtv.duality_gap, axes=axes)
        assert np.all(gap(x, x, 0.0) == 0)
        assert np.all(jax.jit(gap)(x, x, 0.0) == 0)  # XLA must not divide by the square at once
        assert np.all(jaxtv.duality_gap(x, mean, 1 / small, axes=axes) > 0)


@pytest.mark.parametrize("seed", [5, 48, 60, 159, 165, 195, 262])
@pytest.mark.parametrize("solver", EXACT)
def test_seeds_of_the_random_check_that_gave_inf(solver, seed):
    b = random_batches.batch(seed)
    few = b._replace(x=b.x[:20], w=b.w[:20])
    errors = random_batches.errors(few, random_batches.solve(few, EXACT[solver]))
    assert not random_batches.wrong(few, *errors).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", EXACT)
def test_denormal_samples_do_not_depend_on_the_batch(solver, dtype):
    """Random check, seed 49: the lanes took them to zero where a neighbour had an offset."""
    x = jnp.asarray(float(jnp.finfo(dtype).tiny) * rng(1).random((64, 9)), dtype)
    w = jnp.asarray(rng(2).choice([0.0, 1.0], size=(64, 8)), dtype)
    with_offset = x.at[20].set(jnp.asarray(1000 + rng(3).random(9), dtype))
    prox = lambda x: np.asarray(jaxtv.prox_tv1d(x, w, solver=EXACT[solver]))
    rest = np.arange(64) != 20
    assert prox(with_offset)[rest].tobytes() == prox(x)[rest].tobytes()


def tied(dtype):
    """Ten parts of each signal with the same mean but for round-off, and weight 0 between them."""
    r = rng(12)
    x = r.permuted(np.broadcast_to(r.normal(size=(200, 1, 3)), (200, 10, 3)), axis=2)
    w = np.where(np.arange(1, 30) % 3 == 0, 0, r.choice([0.1, 1, 9], size=(200, 29)))
    return jnp.asarray(x.reshape(200, 30), dtype), jnp.asarray(w, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.cpu_only
def test_edges_of_weight_zero_are_cuts_to_the_last_bit(dtype):
    """The signal is solved as its parts are; the lanes joined what is equal across such an edge."""
    x, w = tied(dtype)
    prox = jax.jit(jaxtv.prox_tv1d, static_argnames=("axis", "solver"))
    expected = np.asarray(prox(x, w, solver=jaxtv.Direct("taut_string")))
    for solver in (jaxtv.Direct(), jaxtv.Direct("decomposition")):
        assert np.array_equal(prox(x, w, solver=solver), expected)
    half = w.at[:, 14].set(0.0)
    for solver in EXACT.values():
        parts = [prox(x[:, a:b], w[:, a : b - 1], solver=solver) for a, b in ((0, 15), (15, 30))]
        assert np.array_equal(prox(x, half, solver=solver), np.concatenate(parts, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_derivative_at_weight_zero(dtype):
    """In x nothing is averaged across such an edge; in w it is the derivative from the right."""
    x = jnp.asarray([2.0, 2.0, 2.0, 5.0, 4.0], dtype)
    w = jnp.asarray([1.0, 0.0, 0.0, 1.0], dtype)
    by_x, by_w = jax.jacrev(jaxtv.prox_tv1d, (0, 1))(x, w)
    average = np.full((2, 2), 0.5)
    blocks = [(slice(0, 2), average), (slice(2, 3), [[1.0]]), (slice(3, 5), average)]
    expected = np.zeros((5, 5))
    for at, block in blocks:
        expected[at, at] = block
    assert np.array_equal(by_x, expected)
    step = 2.0**-6
    for edge in (1, 2):
        moved = jaxtv.prox_tv1d(x, w.at[edge].add(step)) - jaxtv.prox_tv1d(x, w)
        assert np.allclose(by_w[:, edge], moved / step, atol=1e-4)
    assert np.array_equal(by_w[:, 1], np.zeros(5))
