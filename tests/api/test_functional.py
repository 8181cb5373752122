"""total_variation, duality_gap, max_lambda against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxtv
from testing import oracles
from testing.generators import DTYPES, HALF, rng, steps

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}  # sums of up to 100 terms


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axes", [-1, (1,), (-3, -2), (0, 1, 2, 3), (2, 0)])
def test_total_variation(axes, dtype):
    x = rng().normal(size=(3, 4, 5, 2)).astype(dtype)
    names = (axes,) if isinstance(axes, int) else axes
    gone = tuple(a % 4 for a in names)
    expected = sum(np.abs(np.diff(x.astype(np.float64), axis=a)).sum(gone) for a in gone)
    got = jaxtv.total_variation(jnp.asarray(x), axes=axes)
    assert got.dtype == dtype
    assert got.shape == expected.shape
    assert np.allclose(got, expected, rtol=TOLERANCE[dtype])
    assert np.allclose(jaxtv.total_variation(jnp.asarray(x), 2.5, axes=axes), 2.5 * expected)


def test_total_variation_with_weights():
    x = rng().normal(size=(3, 6, 5)).astype(np.float32)
    wr, wc = rng(1).random((3, 6, 4)).astype(np.float32), rng(2).random((5, 5)).astype(np.float32)
    expected = (wr * np.abs(np.diff(x))).sum((1, 2)) + (wc * np.abs(np.diff(x, axis=1))).sum((1, 2))
    got = jaxtv.total_variation(jnp.asarray(x), (jnp.asarray(wc), jnp.asarray(wr)), axes=(-2, -1))
    assert np.allclose(got, expected, rtol=1e-5)
    channel = rng(3).random(5).astype(np.float32)
    got = jaxtv.total_variation(jnp.asarray(x), jnp.asarray(channel), axes=-2)
    assert got.shape == (3, 5)
    assert np.allclose(got, channel * np.abs(np.diff(x, axis=1)).sum(1), rtol=1e-5)


def test_total_variation_gradient():
    x = jnp.asarray(steps(4, 9), jnp.float32)
    gx, glam = jax.grad(lambda x, lam: jaxtv.total_variation(x, lam, axes=-1).sum(), (0, 1))(
        x, jnp.float32(0.7)
    )
    s = np.pad(np.sign(np.diff(x)), ((0, 0), (1, 1)))
    assert np.allclose(gx, 0.7 * (s[:, :-1] - s[:, 1:]), atol=1e-6)
    assert np.allclose(glam, np.abs(np.diff(x)).sum(), rtol=1e-5)


INFINITE = np.where(np.isin(np.arange(7), [0, 3]), np.inf, 0.3)


def with_ties():
    """Signals that an infinite weight holds together."""
    return jaxtv.prox_tv1d(jnp.asarray(rng().normal(size=(4, 8))), jnp.asarray(INFINITE))


def test_gradient_of_variation_with_infinite_weights():
    """The subgradient that JAX takes elsewhere: an edge without a jump adds nothing."""
    y, w = with_ties(), jnp.asarray(INFINITE)
    gx, gw = jax.grad(lambda y, w: jaxtv.total_variation(y, w, axes=-1).sum(), (0, 1))(y, w)
    sign = np.sign(np.diff(y))
    assert np.isfinite(jaxtv.total_variation(y, w, axes=-1)).all()
    assert (sign[:, [0, 3]] == 0).all()
    pad = np.pad(np.where(np.isinf(w), 0, w) * sign, ((0, 0), (1, 1)))
    np.testing.assert_allclose(gx, pad[:, :-1] - pad[:, 1:], atol=1e-15)
    np.testing.assert_allclose(gw, np.abs(np.diff(y)).sum(0), atol=1e-15)
    both = jax.grad(lambda y: jaxtv.total_variation(y, jnp.inf, axes=(0, 1)))(jnp.ones((3, 4)))
    np.testing.assert_array_equal(both, np.zeros((3, 4)))


def test_second_derivatives_of_variation():
    """It is linear in λ and piecewise linear in x: only the mixed derivative is not zero."""
    x, w = jnp.asarray([0.0, 2.0, 2.0, 1.0]), jnp.asarray([0.5, jnp.inf, 0.3])
    f = lambda x, w: jaxtv.total_variation(x, w, axes=0)
    for hessian in (jax.hessian, lambda f, n: jax.jacrev(jax.jacfwd(f, n), n)):
        (xx, xw), (wx, ww) = hessian(f, (0, 1))(x, w)
        assert not np.any(xx)
        assert not np.any(ww)
        mixed = np.asarray([[-1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, -1]], x.dtype)
        np.testing.assert_array_equal(xw, mixed)
        np.testing.assert_array_equal(wx, mixed.T)


def test_finite_values_are_computed_without_a_nan():
    """jax_debug_nans raises where any operation gives one."""
    y, w = with_ties(), jnp.asarray(INFINITE)
    x = jnp.asarray(rng(1).normal(size=y.shape))
    x2 = jnp.ones((3, 4)) * jnp.arange(3.0)[:, None]
    inf = jnp.asarray(jnp.inf)
    functions = {
        "variation": lambda: jaxtv.total_variation(y, w, axes=-1),
        "its gradient": lambda: jax.grad(
            lambda y, w: jaxtv.total_variation(y, w, axes=-1).sum(), (0, 1)
        )(y, w),
        "gap": lambda: jaxtv.duality_gap(x, y, w, axes=-1),
        "gap of two axes": lambda: jaxtv.duality_gap(x2, x2, (0.1, inf), axes=(0, 1)),
        "max_lambda": lambda: jaxtv.max_lambda(jnp.ones((3, 4)), 1),
        "max_lambda of two axes": lambda: jaxtv.max_lambda(jnp.ones((3, 4)), (0, 1)),
        "gradient of max_lambda": lambda: jax.grad(lambda x: jaxtv.max_lambda(x, 1).sum())(x),
        "prox": lambda: jax.grad(
            lambda x, w: (jaxtv.prox_tv1d(x, w, return_info=True)[0] ** 2).sum(), (0, 1)
        )(x, w),
        "Dykstra": lambda: jax.grad(
            lambda x, lam: (jaxtv.prox_tv2d(x, lam, return_info=True)[0] ** 2).sum(), (0, 1)
        )(x, inf),
        "converged": lambda: jax.grad(
            lambda x, lam: (
                jaxtv.prox_tv2d(x, lam, solver=jaxtv.AcceleratedDykstra(), return_info=True)[0] ** 2
            ).sum(),
            (0, 1),
        )(x, inf),
        "layer": lambda: jaxtv.nnx.TVLayer(
            axes=(0, 1), trainable=False, init_lam=jnp.inf, param_dtype=x.dtype
        )(x),
    }
    with jax.debug_nans(True):
        for name, function in functions.items():
            for leaf in jax.tree.leaves(function()):
                assert np.isfinite(leaf).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_duality_gap_of_any_feasible_output(dtype):
    """Feasible but not optimal: y = x - D^T u for a random |u| <= w; the gap bounds the squared
    distance.
    """
    x = steps(20, 30).astype(dtype)
    w = rng(1).random((20, 29)).astype(dtype)
    u = np.pad(w * rng(2).uniform(-1, 1, w.shape), ((0, 0), (1, 1)))
    y = (x - u[:, :-1] + u[:, 1:]).astype(dtype)
    got = np.asarray(jaxtv.duality_gap(*map(jnp.asarray, (x, y, w)), axes=-1))
    assert got.shape == (20,)
    assert got.dtype == dtype
    assert np.allclose(got, oracles.gap(x, y, w), rtol=1e3 * np.finfo(dtype).eps)
    distance = ((y - oracles.prox1d(x, w).y) ** 2).sum(-1)
    assert np.all(got >= distance)


def test_duality_gap_of_the_solution_is_zero():
    for lam in (0.0, 0.01, 1.0, 100.0):
        x = jnp.asarray(steps(20, 30)) + 100
        gap = jaxtv.duality_gap(x, jaxtv.prox_tv1d(x, lam), lam, axes=-1)
        energy = np.sum(np.square(np.asarray(x) - np.mean(x, -1, keepdims=True)), -1)
        assert np.all(np.abs(gap) <= 1e-12 * energy)


@pytest.mark.parametrize("axes", [(-2, -1), (-3, -2), (0, 1, 2)])
def test_duality_gap_in_several_dimensions(axes):
    """sum λ|Dy| - <x - y, y - mean y>, per batch element."""
    x = rng().normal(size=(4, 6, 5)).astype(np.float32)
    y = jaxtv.prox_tv(jnp.asarray(x), 0.3, axes=axes, solver=jaxtv.Dykstra(200))
    got = np.asarray(jaxtv.duality_gap(jnp.asarray(x), y, 0.3, axes=axes))
    y = np.asarray(y, np.float64)
    gone = tuple(a % 3 for a in axes)
    tv = sum(np.abs(np.diff(y, axis=a)).sum(gone) for a in gone)
    expected = 0.3 * tv - ((x - y) * y).sum(gone)
    assert got.shape == expected.shape
    assert np.allclose(got, expected, atol=1e-4)
    assert np.all(np.abs(got) < 1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
def test_max_lambda_is_the_smallest_with_a_constant_solution(axis, dtype):
    x = (steps(12, 17) + 3).astype(dtype)
    got = np.asarray(jaxtv.max_lambda(jnp.asarray(x), axis))
    assert got.dtype == dtype
    centred = x.astype(np.float64) - x.astype(np.float64).mean(axis, keepdims=True)
    assert np.allclose(got, np.abs(np.cumsum(centred, axis)).max(axis), rtol=1e-5)
    lam = np.expand_dims(got, axis)
    above = oracles.prox1d(x, lam * (1 + 1e-5), axis)
    below = oracles.prox1d(x, lam * (1 - 1e-5), axis)
    assert not above.cut.any()
    assert below.cut.any(axis).all()


@pytest.mark.parametrize("shape", [(4, 1), (0, 5)])
def test_functionals_of_degenerate_shapes(shape):
    x = jnp.zeros(shape, jnp.float32)
    for got in (
        jaxtv.total_variation(x, axes=-1),
        jaxtv.duality_gap(x, x, 1.0, axes=-1),
        jaxtv.max_lambda(x, -1),
    ):
        assert got.shape == shape[:1]
        assert not np.any(got)


@pytest.mark.parametrize("dtype", DTYPES)
def test_max_lambda_in_two_dimensions(dtype):
    """min max|u| over D^T u = x - mean: a linear program, solved by scipy."""
    x = rng(4).normal(size=(3, 4, 5)).astype(dtype)
    got = np.asarray(jaxtv.max_lambda(jnp.asarray(x), (-2, -1)))
    assert got.shape == (3,)
    rows = np.kron(np.eye(4), np.diff(np.eye(5), axis=0))
    columns = np.kron(np.diff(np.eye(4), axis=0), np.eye(5))
    d = np.concatenate([rows, columns])
    edges = len(d)
    box = np.block([[np.eye(edges), -np.ones((edges, 1))], [-np.eye(edges), -np.ones((edges, 1))]])
    for image, lam in zip(x.astype(np.float64), got):
        program = scipy.optimize.linprog(
            np.eye(edges + 1)[-1],
            A_ub=box,
            b_ub=np.zeros(2 * edges),
            A_eq=np.pad(d.T, ((0, 0), (0, 1))),
            b_eq=(image - image.mean()).ravel(),
            bounds=(None, None),
        )
        assert np.isclose(lam, program.fun, rtol=1e-3)


@pytest.mark.parametrize("dtype", HALF)
def test_half_types_give_float32(dtype):
    """A sum over many samples has no business in 8 bits of mantissa."""
    x = jnp.asarray(steps(5, 9)).astype(dtype)
    single = x.astype(jnp.float32)
    for got, want in (
        (jaxtv.total_variation(x, axes=-1), jaxtv.total_variation(single, axes=-1)),
        (jaxtv.duality_gap(x, x, 0.5, axes=-1), jaxtv.duality_gap(single, single, 0.5, axes=-1)),
        (jaxtv.max_lambda(x, -1), jaxtv.max_lambda(single, -1)),
    ):
        assert got.dtype == jnp.float32
        assert np.array_equal(got, want)


def test_degenerate_sizes():
    assert np.array_equal(jaxtv.max_lambda(jnp.ones((3, 0)), -1), np.zeros(3))
    assert jaxtv.max_lambda(jnp.ones((0, 3)), (0, 1)) == 0
    one = jnp.ones((2, 1))
    assert np.array_equal(jaxtv.prox_tv1d(one, jnp.ones((2, 0))), one)  # n = 1 has no edge
    assert np.array_equal(jaxtv.total_variation(one, (0.1,), axes=(1,)), np.zeros(2))
