"""trend_filter: values against an active-set solver, derivatives against finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxtv
from jaxtv import _divided_differences
from testing import oracles

N = 24
LAMS = np.array([[0.0], [0.2], [0.7], [4.0], [np.inf]])
each_order = pytest.mark.parametrize("order", [1, 2])


def signals(rows=5, n=N, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, n)).cumsum(1)


def spacings(n=N, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 2, n - 1)


def solve(x, lam, order, **options):
    return jaxtv.trend_filter(x, lam, order=order, spacing=spacings(), tol=1e-13, **options)


@each_order
def test_values_are_those_of_an_active_set_solver(order):
    x = signals()
    y, info = solve(x, LAMS, order, return_info=True)
    exact = [oracles.trend_filter(v, lam, spacings(), order) for v, (lam,) in zip(x, LAMS)]
    # The knots are the same, and then both are least-squares fits in float64.
    np.testing.assert_allclose(y, exact, atol=1e-11)
    assert info.converged.all()
    assert (info.gap >= 0).all()
    np.testing.assert_array_equal(y[0], x[0])


@each_order
def test_derivatives(order):
    """Gradient (reverse mode) and its derivative (forward over reverse) in x and λ."""
    x, lam = jnp.asarray(signals()[1:4]), jnp.asarray(LAMS[1:4])
    rng = np.random.default_rng(1)
    tangents = tuple(jnp.asarray(rng.normal(size=v.shape)) for v in (x, lam))
    loss = lambda *args: jnp.sum(solve(*args, order) ** 2) / 2
    gradient, change = jax.jit(
        lambda primals, tangents: jax.jvp(jax.grad(loss, argnums=(0, 1)), primals, tangents)
    )((x, lam), tangents)
    step = 1e-6
    ahead, behind = (
        solve(x + s * tangents[0], lam + s * tangents[1], order) for s in (step, -step)
    )
    y, ty = solve(x, lam, order), (ahead - behind) / (2 * step)
    inner = lambda a, b: sum(jnp.vdot(p, q) for p, q in zip(a, b))
    np.testing.assert_allclose(inner(gradient, tangents), jnp.vdot(y, ty), rtol=1e-7)
    # The Jacobian J is piecewise constant, so the gradient J^T y changes by J^T J t.
    np.testing.assert_allclose(inner(change, tangents), jnp.vdot(ty, ty), rtol=1e-7)


@pytest.mark.parametrize(
    ("dtype", "tol"),
    [("float32", 2e-3), pytest.param("float64", 1e-9, marks=pytest.mark.nightly)],
)
def test_long_segments_are_fitted_to_roundoff(dtype, tol):
    """Knots 1,000 samples apart, where normal equations of D lose all digits for order 2."""
    n, knots = 3000, [999, 1999]
    t = np.arange(n, dtype=float)
    basis = [np.ones(n), t / n, (t / n) ** 2]
    basis += [np.maximum(t - k - 1, 0) * np.maximum(t - k, 0) / n**2 for k in knots]
    basis = np.linalg.qr(np.stack(basis, 1))[0]
    v = np.random.default_rng(0).normal(size=n).cumsum().astype(dtype)
    differences = _divided_differences.differences_of(jnp.ones(n - 1, dtype), 2)
    at = jnp.zeros(n - 3, bool).at[np.array(knots) - 1].set(True)
    fit = jax.jit(lambda v: _divided_differences.projection(differences, at)(v))(v)
    exact = basis @ (basis.T @ v.astype(float))
    np.testing.assert_allclose(fit, exact, atol=tol * np.abs(v).max())


def test_axes_dtypes_and_what_can_not_be_solved():
    """All compute in float32; a poisoned signal changes no other."""
    x = np.round(signals(4, 8) * 8) / 8  # exact in every dtype
    solve = functools.partial(jaxtv.trend_filter, lam=0.5, axis=0, return_info=True)
    exact = np.stack([oracles.trend_filter(v, 0.5, np.ones(7), 1) for v in x], 1)
    for dtype, tol in (("float32", 1e-5), ("bfloat16", 2e-2), ("float16", 2e-3)):
        columns = jnp.asarray(x.T, dtype)
        y, info = solve(columns)
        assert y.dtype == dtype
        assert info.gap.shape == (4,)
        assert info.converged.all()
        np.testing.assert_allclose(y.astype(float), exact, atol=tol * np.abs(x).max())
        y_bad, info_bad = solve(columns.at[3, 1].set(jnp.nan))
        assert jnp.isnan(y_bad[:, 1]).all()
        assert not info_bad.converged[1]
        np.testing.assert_array_equal(y_bad[:, [0, 2, 3]], y[:, [0, 2, 3]])
    huge = jaxtv.trend_filter(jnp.asarray(x * 1e37, jnp.float32), 0.5e37)
    np.testing.assert_allclose(huge / 1e37, exact.T, atol=1e-5 * np.abs(x).max())


def test_vmap_and_a_negative_lam_that_is_traced():
    x = signals(4, 8)
    y = jax.vmap(jaxtv.trend_filter)(x, jnp.array([0.5, -1.0, 0.5, jnp.nan]))
    exact = [oracles.trend_filter(v, 0.5, np.ones(7), 1) for v in x[::2]]
    np.testing.assert_allclose(y[::2], exact, atol=1e-5)
    assert jnp.isnan(y[1::2]).all()


def test_too_few_iterations_are_reported():
    _, info = solve(signals(), LAMS, 2, max_iterations=3, return_info=True)
    np.testing.assert_array_equal(info.iterations[1:4], 3)
    assert info.converged[0]
    assert not info.converged[1:4].any()


def test_no_collective_when_sharded_over_the_batch():
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jax.device_put(signals(8, 8), NamedSharding(mesh, P("batch", None)))
    step = jax.jit(jax.value_and_grad(lambda x: jnp.sum(jaxtv.trend_filter(x, 0.5) ** 2)))
    text = step.lower(x).compile().as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text
    value, _ = step(x)
    np.testing.assert_allclose(value, step(np.asarray(x))[0])


X = np.zeros((3, 8))
WRONG = {
    "order": ({"order": 3}, ValueError, "`order` must be 1 .* or 2 .*got 3"),
    "fraction": ({"order": 1.0}, TypeError, "`order` must be an integer"),
    "short": ({"x": X[:, :3], "order": 2}, ValueError, "`x` must have at least 4 .*order=2, got 3"),
    "integers": ({"x": X.astype(int)}, TypeError, "`x` must be float32"),
    "axis": ({"axis": 2}, ValueError, "`axis` 2"),
    "negative": ({"lam": -1.0}, ValueError, "`lam` must be >= 0"),
    "per edge": ({"lam": np.ones(7)}, ValueError, "`lam` must be .*one λ per signal"),
    "misfit": ({"lam": np.ones((2, 1))}, ValueError, "`lam` of shape"),
    "no gap": ({"spacing": np.array([1.0, 0, 1, 1, 1, 1, 1])}, ValueError, "`spacing`.*got 0.0"),
    "back": ({"spacing": -1.0}, ValueError, "`spacing` must be positive"),
    "times": ({"spacing": np.arange(1.0, 9)}, ValueError, r"`spacing`.*\(7,\).*got shape \(8,\)"),
    "spacing": ({"spacing": "even"}, TypeError, "`spacing`"),
    "tol": ({"tol": -1}, ValueError, "`tol`"),
    "iterations": ({"max_iterations": 0}, ValueError, "`max_iterations`"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    options, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        jaxtv.trend_filter(**{"x": X, "lam": 1.0, **options})


@pytest.mark.nightly
def test_gaps_too_uneven_for_float32_are_reported():
    rng = np.random.default_rng(6)
    t = np.sort(rng.uniform(0, 10, 100)).astype(np.float32)
    x = np.abs(t - 4) + np.float32(0.3) * rng.normal(size=100).astype(np.float32)

    def solve(x):
        options = {"order": 2, "spacing": np.diff(t), "max_iterations": 1000}
        return jax.tree.map(np.asarray, jaxtv.trend_filter(x, 5.0, return_info=True, **options))

    (y, info), (exact, sure) = solve(x), solve(x.astype(float))
    assert sure.converged
    assert np.sum((y - exact) ** 2) <= 2 * info.gap
    line, info = solve(2 * t + 1)
    np.testing.assert_allclose(line, 2 * t + 1, atol=1e-5)
    assert info.converged
