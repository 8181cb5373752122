"""prox_fused_lasso: optimality by linear programs, derivatives, transformations, bad arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxtv
from testing import oracles
from testing.generators import HALF, rng, steps

TIGHT = jaxtv.AcceleratedDykstra(tol=1e-13)
BOX = {"lower": -0.4, "upper": 0.9}


def differences(shape):
    """D over all axes, dense, of a flat array."""
    grid = np.arange(np.prod(shape)).reshape(shape)
    ends = [
        np.stack([np.delete(grid, -1, a).ravel(), np.delete(grid, 0, a).ravel()])
        for a in range(len(shape))
    ]
    left, right = np.concatenate(ends, axis=1)
    eye = np.eye(grid.size)
    return eye[right] - eye[left]


def violation(x, y, lam, l1, lower, upper):
    """The least max|x - y - Dᵀu - v - c| over the subgradients u, v and normals c at y, by HiGHS."""
    d, x, y = differences(x.shape), x.ravel(), y.ravel()
    jump = np.where(np.abs(d @ y) > 1e-9, np.sign(d @ y), 0)
    sign = np.where(np.abs(y) > 1e-9, np.sign(y), 0)
    free = lambda s, w: [(w * a, w * b) for a, b in zip(np.where(s, s, -1), np.where(s, s, 1))]
    normal = [(0 if t > lower else None, 0 if t < upper else None) for t in y]
    n, eye = x.size, np.eye(x.size)
    parts = np.concatenate([d.T, eye, eye], axis=1)
    ones = np.ones((n, 1))
    program = scipy.optimize.linprog(
        np.eye(parts.shape[1] + 1)[-1],
        A_ub=np.block([[parts, -ones], [-parts, -ones]]),
        b_ub=np.concatenate([x - y, y - x]),
        bounds=[*free(jump, lam), *free(sign, l1), *normal, (0, None)],
    )
    assert program.success
    return program.fun


@pytest.mark.parametrize("shape", [(14,), (4, 5), (2, 3, 3)], ids=str)
def test_optimality(shape):
    """Any axes; bounds, a bound at 0, and weights that leave nothing; y is within the bounds."""
    axes = tuple(range(len(shape)))
    solver = TIGHT if len(shape) > 1 else None
    x = rng(len(shape)).normal(size=shape)
    cases = [(0.2, -9.0, 9.0), (0.3, -0.4, 0.3), (0.05, 0.0, 9.0), (0.1, 0.2, 0.3), (5.0, -9, 9.0)]

    @jax.jit
    def solve(l1, lower, upper):
        options = {"axes": axes, "solver": solver, "lower": lower, "upper": upper}
        return jaxtv.prox_fused_lasso(x, 0.3, l1, **options)

    for l1, lower, upper in cases:
        y = np.asarray(solve(l1, lower, upper))
        assert y.min() >= lower
        assert y.max() <= upper
        assert violation(x, y, 0.3, l1, lower, upper) < 1e-7
    worse = np.where(np.arange(y.size).reshape(shape) == 3, y + 1e-3, y)
    assert violation(x, worse, 0.3, 5.0, -9.0, 9.0) > 1e-5


def test_without_l1_and_bounds_it_is_prox_tv():
    x = jnp.asarray(steps(6, 20))
    np.testing.assert_array_equal(jaxtv.prox_fused_lasso(x, 0.3, axes=-1), jaxtv.prox_tv1d(x, 0.3))
    unrolled = jaxtv.prox_fused_lasso(x, 0.3, axes=(0, 1))
    np.testing.assert_array_equal(unrolled, jaxtv.prox_tv(x, 0.3, axes=(0, 1)))
    np.testing.assert_array_equal(jaxtv.prox_fused_lasso(x, 0.3, jnp.inf, axes=1), 0 * x)
    np.testing.assert_array_equal(
        jaxtv.prox_fused_lasso(x, 0.3, jnp.inf, axes=1, lower=0.5), 0 * x + 0.5
    )


@jax.jit
def fused(x, lam, l1, lower, upper):
    return jaxtv.prox_fused_lasso(x, lam, l1, axes=-1, lower=lower, upper=upper)


def point(batch=5, n=12):
    """Arguments of `fused`, one number per signal, with samples shrunk, zero and at both bounds."""
    r = rng(7)
    each = lambda low, high: jnp.asarray(r.uniform(low, high, (batch, 1)))
    x = jnp.asarray(1.2 * r.normal(size=(batch, n)))
    arguments = x, each(0.1, 0.3), each(0.1, 0.3), each(-0.5, -0.3), each(0.4, 0.6)
    y = fused(*arguments)
    low, high = arguments[3:]
    for part in (y == 0, y == low, y == high, (y != 0) & (low < y) & (y < high)):
        assert np.any(part)
    return arguments


def test_derivatives_against_finite_differences():
    arguments = point()
    r = rng(8)
    direction = tuple(r.normal(size=a.shape) for a in arguments)
    push = jax.jit(lambda p, t: jax.jvp(fused, p, t))
    y, ty = push(arguments, tuple(map(jnp.asarray, direction)))
    difference = oracles.directional(fused, arguments, direction, 1e-7)
    np.testing.assert_allclose(ty, difference, atol=1e-6)
    g = jnp.asarray(r.normal(size=y.shape))
    pulled = jax.jit(lambda p: jax.vjp(fused, *p)[1](g))(arguments)
    total = sum((np.asarray(a) * b).sum() for a, b in zip(pulled, direction))
    np.testing.assert_allclose(total, (np.asarray(g) * difference).sum(), atol=1e-6)
    # Second order, forward over reverse: y is piecewise linear, the loss is not.
    slope = jax.grad(lambda x: jnp.sum(jnp.sin(fused(x, *arguments[1:]))))
    _, curvature = jax.jit(lambda x, t: jax.jvp(slope, (x,), (t,)))(arguments[0], g)
    want = oracles.directional(jax.jit(slope), arguments[:1], (np.asarray(g),), 1e-6)
    np.testing.assert_allclose(curvature, want, atol=1e-7)


def test_the_derivative_at_a_kink_is_that_of_no_penalty():
    """l1 = 0 at y = 0, and values at a bound that is not active."""
    x = jnp.asarray([0.0, 0.0, 1.0, 1.0])
    slope = jax.jacobian(lambda x: fused(x, 0.0, 0.0, 0.0, 1.0))
    np.testing.assert_array_equal(slope(x), np.eye(4))


def test_transformations():
    """vmap over everything, an axis in the middle, λ per edge."""
    arguments = point()
    want = np.asarray(fused(*arguments))
    np.testing.assert_array_equal(jax.vmap(fused)(*arguments), want)
    cube = jnp.moveaxis(jnp.stack([arguments[0]] * 2), 2, 1)  # (2, n, batch)
    l1 = jnp.squeeze(arguments[2], 1)  # per channel, which is last
    weights = jnp.full((12 - 1, 1), 0.2)
    got = jax.jit(lambda x: jaxtv.prox_fused_lasso(x, weights, l1, axes=1))(cube)
    rows = fused(arguments[0], 0.2, arguments[2], None, None)
    np.testing.assert_array_equal(got[1].T, rows)


@pytest.mark.cpu_only
def test_batch_sharded():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jnp.asarray(rng(1).normal(size=(8, 9)))
    f = jax.jit(jax.value_and_grad(lambda x: jnp.sum(fused(x, 0.2, 0.1, **BOX) ** 2)))
    sharded = jax.device_put(x, NamedSharding(mesh, P("data")))
    assert "all-gather" not in f.lower(sharded).compile().as_text()
    jax.tree.map(np.testing.assert_allclose, f(sharded), f(x))


@pytest.mark.parametrize("dtype", ["float32", *HALF])
def test_other_dtypes(dtype):
    """Half types are computed in float32, and rounded once."""
    x = point()[0].astype(dtype)
    got = fused(x, 0.2, 0.125, -0.5, 0.5)
    assert got.dtype == dtype
    want = fused(x.astype(jnp.float32), 0.2, 0.125, -0.5, 0.5)
    np.testing.assert_array_equal(got, want.astype(dtype))
    _, pull = jax.vjp(lambda x: fused(x, 0.2, 0.125, -0.5, 0.5), x)
    assert pull(got)[0].dtype == dtype


def test_info_certifies_the_result():
    """The gap of the TV step bounds the squared distance of a result that has not converged."""
    x = jnp.asarray(rng(3).normal(size=(3, 7, 8)))
    options = {"axes": (1, 2), **BOX}
    best = jaxtv.prox_fused_lasso(x, 0.4, 0.1, solver=TIGHT, **options)
    y, info = jaxtv.prox_fused_lasso(
        x, 0.4, 0.1, solver=jaxtv.Dykstra(2), return_info=True, **options
    )
    assert info.gap.shape == (3,)
    assert not info.converged.any()
    distance = np.sum((np.asarray(y) - best) ** 2, (1, 2))
    assert np.all(distance > 1e-9)
    assert np.all(distance <= 2 * info.gap)


X = np.zeros((4, 6), np.float32)
WRONG = {
    "l1 negative": ({"l1": -1.0}, ValueError, r"`l1` must be >= 0.*-1\.0"),
    "l1 NaN": ({"l1": float("nan")}, ValueError, "`l1`.*nan"),
    "l1 in words": ({"l1": "1"}, TypeError, "`l1`.*str"),
    "l1 per sample": ({"l1": X}, ValueError, r"`l1` of shape \(4, 6\).*size 1 along axis 1"),
    "l1 per signal": ({"l1": X[:, 0]}, ValueError, r"One `l1` .*axis 0: l1\.reshape\(4, 1\)"),
    "lower above upper": ({"lower": 1.0, "upper": 0.0}, ValueError, "`lower`.*`upper`.*1.0 and 0"),
    "one lower above": (
        {"lower": np.float32([[0], [0], [2], [0]]), "upper": 1.0},
        ValueError,
        r"`lower`.*2\.0 and 1\.0",
    ),
    "lower NaN": ({"lower": np.nan}, ValueError, "`lower`.*nan"),
    "lower infinite": ({"lower": np.inf}, ValueError, "`lower` must be below inf.*inf"),
    "upper infinite": ({"upper": -np.inf}, ValueError, "`upper`.*-inf"),
    "upper integers": ({"upper": np.ones((4, 1), int)}, TypeError, "`upper`.*int64.*astype"),
    "lam negative": ({"lam": -1.0}, ValueError, "`lam`"),
    "solver": ({"solver": jaxtv.Dykstra()}, TypeError, "`solver`"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    changed, error, message = WRONG[name]
    call = lambda: jaxtv.prox_fused_lasso(X, **{"lam": 1.0, "axes": 1} | changed)
    with pytest.raises(error, match=message):
        call()
    with pytest.raises(error, match=message):
        jax.make_jaxpr(lambda _: call())(0.0)


def test_traced_wrong_values_make_their_signals_nan():
    x = jnp.ones((3, 4))
    l1, lower = jnp.asarray([[0.1], [-0.1], [0.1]]), jnp.asarray([[0.0], [0.0], [2.0]])
    y = jax.jit(fused)(x, 0.1, l1, lower, 1.0)
    assert np.isnan(np.asarray(y)).any(1).tolist() == [False, True, True]
    y = fused(x.at[1, 2].set(jnp.nan), 0.1, 0.1, 0.0, 1.0)
    assert np.isnan(np.asarray(y)).all(1).tolist() == [False, True, False]
