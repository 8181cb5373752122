"""The 1D prox against the oracle and against PyPI prox_tv."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from testing import oracles
from testing.generators import CASES, DTYPES, EXACT, HALF, NEWTON, rng, steps

SOLVERS = EXACT | NEWTON
BOTH = ["direct", "backtracking"]  # tests/kernels has all of them, on the same signals

# Of max|x| of the signal. float64: n <= 1e5 sums of rounding errors. float32: the promise of
# SOLVERS.md 2a is 1e-7.
TOLERANCE = {"float64": 1e-11, "float32": 1e-6}


@functools.cache
def expected(name, dtype):
    """(x, w, solution): the case rounded to `dtype`, and the float64 solution of that rounded
    problem.
    """
    with np.errstate(over="ignore"):
        x, w = (v.astype(dtype) for v in CASES[name][:2])
    return x, w, oracles.prox1d(x, w, exact=CASES[name].exact)


def tolerance(x, dtype, axis=-1):
    """Denormals may be flushed to zero, as in all of XLA."""
    x = np.asarray(x, np.float64)
    return TOLERANCE[dtype] * np.abs(x).max(axis, keepdims=True) + np.finfo(dtype).tiny


def assert_solves(y, y_exact, x, dtype, axis=-1):
    assert y.dtype == dtype
    assert y.shape == x.shape
    error = np.abs(np.asarray(y, np.float64) - y_exact) / tolerance(x, dtype, axis)
    assert np.all(error <= 1), (
        f"{np.nanmax(error)} times the tolerance; NaN: {np.isnan(error).any()}"
    )


def run(x, w, solver, axis=-1):
    return jaxtv.prox_tv1d(jnp.asarray(x), jnp.asarray(w), axis=axis, solver=solver)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_oracle(name, dtype):
    x, w, solution = expected(name, dtype)
    assert_solves(run(x, w, jaxtv.Direct()), solution.y, x, dtype)


def peer_cases():
    """prox_tv itself breaks down at λ = 1e30 and at denormals, and takes no infinite λ."""
    absent = {"lam 1e30", "mixed lam", "denormals", "huge"}
    return [n for n, c in CASES.items() if np.isfinite(c.w).all() and n not in absent]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", peer_cases())
def test_peer(prox_tv, name, dtype):
    x, w, _ = expected(name, dtype)
    y = run(x, w, jaxtv.Direct())
    x, w = x.astype(np.float64), w.astype(np.float64)
    if w.shape[1] == 1:
        for method in ("condat", "hybridtautstring"):
            peer = [prox_tv.tv1_1d(row, float(lam), method=method) for row, (lam,) in zip(x, w)]
            assert_solves(y, np.stack(peer), x, dtype)
    else:
        peer = [prox_tv.tv1w_1d(row, weights) for row, weights in zip(x, w)]
        assert_solves(y, np.stack(peer), x, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["scalar", "number", "signal", "channel", "edge", "shared edge"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_any_axis_and_any_lam(axis, kind, dtype):
    r = rng(11)
    x = (2 * r.normal(size=(3, 6, 7, 5))).astype(dtype)
    last = axis == -1
    signal, edge = list(x.shape), list(x.shape)
    signal[axis], edge[axis] = 1, x.shape[axis] - 1
    shared = [1] * 4
    shared[axis] = x.shape[axis] - 1
    lam = {
        "scalar": np.asarray(0.7),
        "number": 0.7,
        "signal": r.random(signal),
        "channel": r.random(1 if last else 5),
        "edge": r.random(edge),
        "shared edge": r.random(shared),
    }[kind]
    lam = lam if kind == "number" else lam.astype(dtype)
    arg = lam if kind == "number" else jnp.asarray(lam)
    y = jax.jit(functools.partial(jaxtv.prox_tv1d, axis=axis))(jnp.asarray(x), arg)
    assert_solves(y, oracles.prox1d(x, np.asarray(lam, dtype), axis).y, x, dtype, axis)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("axis", [0, 1])
def test_axis_by_every_solver(axis, solver):
    x = steps(19, 23).astype(np.float32)
    lam = np.float32(0.4)
    assert_solves(
        run(x, lam, SOLVERS[solver], axis), oracles.prox1d(x, lam, axis).y, x, "float32", axis
    )


@pytest.mark.parametrize("dtype", [*DTYPES, *HALF])
@pytest.mark.parametrize("solver", BOTH)
def test_lam_zero_is_the_identity_bit_for_bit(solver, dtype):
    x = np.concatenate([np.repeat(rng(2).normal(size=(5, 9)), 3, 1), rng(3).normal(size=(5, 27))])
    x[0, :4] = [0.0, -0.0, 1e-40, 1e4]
    x = jnp.asarray(x).astype(dtype)
    prox = functools.partial(jaxtv.prox_tv1d, solver=SOLVERS[solver])
    for y in (
        prox(x, 0),
        prox(x, jnp.zeros((10, 1), dtype)),
        prox(x, jnp.zeros(26, dtype)),
        prox(x.T, 0.0, axis=0).T,
        prox(x.T, jnp.zeros((26, 1), dtype), axis=0).T,
    ):
        assert y.dtype == x.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("dtype", [*DTYPES, *HALF])
@pytest.mark.parametrize("solver", BOTH)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("per_edge", [False, True])
def test_bad_signals_poison_only_themselves(per_edge, axis, solver, dtype):
    # 43: the last, bad signal is repeated to fill a vector.
    x = jnp.asarray(steps(43, 21)).astype(dtype)
    lam = jnp.asarray(rng(1).random((43, 20 if per_edge else 1))).astype(dtype)
    bad_x = x.at[3, 0].set(jnp.nan).at[17, 20].set(jnp.inf).at[18, 9].set(-jnp.inf)
    bad_lam = lam.at[5, 0].set(jnp.nan).at[42, -1].set(-0.5)

    @jax.jit
    def prox(x, lam):
        if axis == 0:
            return jaxtv.prox_tv1d(x.T, lam.T, axis=0, solver=SOLVERS[solver]).T
        return jaxtv.prox_tv1d(x, lam, solver=SOLVERS[solver])

    clean, y = np.asarray(prox(x, lam)), np.asarray(prox(bad_x, bad_lam))
    bad = np.isin(np.arange(43), [3, 17, 18, 5, 42])
    assert np.isfinite(clean.astype(np.float32)).all()
    assert np.isnan(y[bad].astype(np.float32)).all()
    assert y[~bad].tobytes() == clean[~bad].tobytes()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("solver", SOLVERS)
def test_half_types_are_the_float32_solution_rounded(solver, dtype):
    x = jnp.asarray(steps()).astype(dtype)
    lam = jnp.asarray(0.3, dtype)
    y = jaxtv.prox_tv1d(x, lam, solver=SOLVERS[solver])
    single = jaxtv.prox_tv1d(x.astype(jnp.float32), lam.astype(jnp.float32), solver=SOLVERS[solver])
    assert y.dtype == x.dtype
    assert np.array_equal(y, single.astype(dtype))


@pytest.mark.parametrize(
    ("shape", "axis"), [((0, 5), -1), ((5, 0, 7), 2), ((4, 0), 0), ((0,), 0), ((3, 0), 1)]
)
@pytest.mark.parametrize("solver", BOTH)
def test_empty(shape, axis, solver):
    x = jnp.zeros(shape, jnp.float32)
    y, info = jaxtv.prox_tv1d(x, 1.0, axis=axis, solver=SOLVERS[solver], return_info=True)
    assert y.shape == shape
    assert info.gap.shape == shape[:axis] + shape[axis:][1:]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("solver", SOLVERS)
def test_info(solver, axis, dtype):
    x = steps(30, 25).astype(dtype)
    w = rng(8).random((30, 24)).astype(dtype)
    solution = oracles.prox1d(x, w)
    args = (x, w) if axis == 1 else (x.T, w.T)
    y, info = jaxtv.prox_tv1d(
        *map(jnp.asarray, args), axis=axis, solver=SOLVERS[solver], return_info=True
    )
    y = np.asarray(y) if axis == 1 else np.asarray(y).T
    assert {field.shape for field in info} == {(30,)}
    assert info.gap.dtype == dtype
    assert info.iterations.dtype == np.int32
    assert info.converged.dtype == bool
    assert np.all(info.converged)
    assert np.all(np.asarray(info.iterations) >= 0)
    assert np.all(np.asarray(info.gap) >= 0)
    # ... and it certifies: ||y - y*||^2 <= gap, up to the rounding of y itself
    eps = np.finfo(dtype).eps
    assert np.allclose(info.gap, oracles.gap(x, y, w), rtol=1e-3, atol=100 * eps)
    assert np.all(((y - solution.y) ** 2).sum(-1) <= np.asarray(info.gap) + 100 * eps)


def test_info_says_when_newton_has_not_converged():
    x = jnp.asarray(steps(50, 400), jnp.float32)
    one = jaxtv.ProjectedNewton(tol=1e-9, max_iterations=1)
    y, info = jaxtv.prox_tv1d(x, 2.0, solver=one, return_info=True)
    assert np.isfinite(y).all()
    assert np.all(np.asarray(info.iterations) <= 1)
    assert not np.any(info.converged)
    assert np.all(np.asarray(info.gap) > 0)


@pytest.mark.parametrize("solver", EXACT)
def test_linear_time_on_a_ramp(solver):
    """The taut string alone would need n^2/2 = 8e10 trips here (minutes): the budget hands over."""
    x = jnp.arange(400_000, dtype=jnp.float32) / 1024
    start = time.perf_counter()
    y = jax.block_until_ready(jaxtv.prox_tv1d(x, 1e9, solver=EXACT[solver]))
    assert time.perf_counter() - start < 10
    assert np.allclose(y, np.mean(np.asarray(x, np.float64)), rtol=1e-6)
