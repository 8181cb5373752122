"""project_tv_ball and denoise_discrepancy: optimality by linear programs, derivatives, bad input."""

import functools

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
FUNCTIONS = {"ball": jaxtv.project_tv_ball, "discrepancy": jaxtv.denoise_discrepancy}
BOTH = pytest.mark.parametrize("name", FUNCTIONS)


@functools.cache
def solver_of(name, axes, info=False):
    """A compiled function of x and the bound."""
    options = {"axes": axes, "return_info": info, "solver": TIGHT if len(axes) > 1 else None}
    return jax.jit(functools.partial(FUNCTIONS[name], **options))


def variation(y, axes):
    return sum(np.abs(np.diff(y, axis=a)).sum(axes, keepdims=True) for a in axes)


def constraint(name, x, y, axes):
    """What the bound limits: TV(y), or the root mean square of y - x."""
    if name == "ball":
        return variation(y, axes)
    return np.sqrt(np.mean((y - x) ** 2, axes, keepdims=True))


def bounds(name, x, axes, shares=(0.02, 0.9)):
    """One for each element, between the least and the largest that matter."""
    mean = np.mean(x, axes, keepdims=True)
    most = constraint(name, x, x if name == "ball" else mean, axes)
    return most * rng(1).uniform(*shares, most.shape)


def excess_of_another(x, y):
    """By how much a z with TV(z) <= TV(y) has a larger <x - y, z> than y has: 0 for a projection."""
    grid, axes = np.arange(x.size).reshape(x.shape), range(x.ndim)
    ends = [(np.delete(grid, 0, a).ravel(), np.delete(grid, -1, a).ravel()) for a in axes]
    right, left = (np.concatenate(e) for e in zip(*ends))
    d = np.eye(x.size)[right] - np.eye(x.size)[left]
    r, tau, edges = (x - y).ravel(), variation(y, tuple(axes)).item(), len(d)
    assert abs(r.sum()) < 1e-9
    eye, none = np.eye(edges), np.zeros((1, x.size))
    program = scipy.optimize.linprog(
        -np.concatenate([r, np.zeros(edges)]),
        A_ub=np.block([[d, -eye], [-d, -eye], [none, np.ones((1, edges))]]),
        b_ub=np.append(np.zeros(2 * edges), tau),
        bounds=[(0, 0), *[(None, None)] * (x.size - 1), *[(0, None)] * edges],
    )
    assert program.success
    return -program.fun - r @ (y - y.ravel()[0]).ravel()


@BOTH
@pytest.mark.parametrize("axes", [(1,), (1, 2)], ids=str)
def test_optimality(name, axes):
    """The constraint holds with equality, and y is the projection onto its own ball."""
    x = rng(2).normal(size=(6, 13) if len(axes) == 1 else (4, 4, 5))
    bound = bounds(name, x, axes)
    y, info = solver_of(name, axes, info=True)(x, bound)
    y = np.asarray(y)
    assert info.converged.all()
    assert info.iterations.max() <= 12
    np.testing.assert_allclose(constraint(name, x, y, axes), bound, rtol=1e-11)
    for signal, projection in zip(x, y):
        assert excess_of_another(signal, projection) < 1e-8
    assert excess_of_another(signal, projection + 1e-2 * (signal - signal.mean())) > 1e-5


@BOTH
def test_long_signals_take_few_steps(name):
    """Walks and noise of 3,000 samples, in float32 too."""
    x = np.concatenate([rng(3).normal(size=(4, 3000)), rng(4).normal(size=(4, 3000)).cumsum(1)])
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        samples = x.astype(dtype)
        bound = bounds(name, samples, (1,)).astype(dtype)
        y, info = solver_of(name, (1,), info=True)(samples, bound)
        assert y.dtype == dtype
        assert info.converged.all()
        assert info.iterations.max() <= 16
        np.testing.assert_allclose(constraint(name, samples, y, (1,)), bound, rtol=tolerance)


@BOTH
@pytest.mark.parametrize("axes", [(1,), (1, 2)], ids=str)
def test_derivatives_against_finite_differences(name, axes):
    f = solver_of(name, axes)
    x = rng(5).normal(size=(6, 13) if len(axes) == 1 else (4, 4, 5))
    point = x, bounds(name, x, axes, (0.2, 0.8))
    direction = rng(6).normal(size=x.shape), rng(7).normal(size=point[1].shape) * point[1]
    difference = oracles.directional(f, point, direction, 1e-7)
    primals, tangents = (tuple(map(jnp.asarray, v)) for v in (point, direction))
    _, ty = jax.jit(lambda p, t: jax.jvp(f, p, t))(primals, tangents)
    np.testing.assert_allclose(ty, difference, atol=1e-6)
    g = rng(8).normal(size=x.shape)
    pull = jax.jit(lambda g, p: jax.vjp(f, *p)[1](g))
    pulled = pull(jnp.asarray(g), primals)
    total = sum((np.asarray(a) * b).sum() for a, b in zip(pulled, direction))
    np.testing.assert_allclose(total, (g * difference).sum(), atol=1e-6)
    if len(axes) == 1:  # second order, forward over reverse
        curved = jax.jit(lambda g, p, t: jax.jvp(lambda *p: jax.vjp(f, *p)[1](g), p, t)[1])
        curvature = curved(jnp.asarray(g), primals, tangents)
        for i, second in enumerate(curvature):
            at = lambda *p, i=i: pull(jnp.asarray(g), tuple(map(jnp.asarray, p)))[i]
            want = oracles.directional(at, point, direction, 1e-6)
            np.testing.assert_allclose(second, want, atol=1e-6)


@BOTH
def test_a_constraint_that_is_met_anyway(name):
    """Within the ball x comes back bit for bit; a noise that explains everything leaves the mean."""
    x = jnp.asarray(steps(3, 9))
    mean = np.broadcast_to(np.mean(x, 1, keepdims=True), x.shape)
    f = solver_of(name, (1,))
    for bound in (1e3, np.inf):
        y = f(x, bound)
        if name == "ball":
            np.testing.assert_array_equal(y, x)
        else:
            np.testing.assert_allclose(y, mean, atol=1e-12)
        gx, gb = jax.vjp(f, x, jnp.asarray(bound))[1](x)
        np.testing.assert_allclose(gx, y, atol=1e-12)
        assert gb == 0
    _, info = solver_of(name, (1,), info=True)(x, jnp.inf)
    assert info.converged.all()
    assert not np.any(info.gap > 1e-12)
    if name == "ball":
        np.testing.assert_allclose(f(x, 0.0), mean, atol=1e-12)
    np.testing.assert_allclose(f(mean, 0.1), mean, atol=1e-12)


@BOTH
@pytest.mark.parametrize("scale", [2.0**-116, 2.0**120])
def test_the_whole_range_of_float32(name, scale):
    x = steps(2, 300).astype(np.float32)
    bound = np.float32(0.05 * np.abs(x).max())
    find = solver_of(name, (1,), info=True)
    y, _ = find(x, bound)
    scaled, info = find(x * np.float32(scale), bound * np.float32(scale))
    assert np.abs(np.asarray(scaled) / np.float32(scale) - y).max() < 1e-5 * np.abs(x).max()
    assert info.converged.all()


@BOTH
def test_vmap_one_bound_and_degenerate_sizes(name):
    x = jnp.asarray(rng(9).normal(size=(3, 2, 8)))
    f = functools.partial(FUNCTIONS[name], axes=-1)
    want = f(x, 0.5)
    np.testing.assert_allclose(jax.jit(jax.vmap(f, (0, None)))(x, 0.5), want, atol=1e-13)
    got = FUNCTIONS[name](jnp.moveaxis(x, 2, 1), 0.5 * jnp.ones(2), axes=1)  # per channel
    np.testing.assert_allclose(jnp.moveaxis(got, 1, 2), want, atol=1e-13)
    for shape in ((2, 1), (0, 4), (2, 0)):
        np.testing.assert_array_equal(f(jnp.ones(shape), 0.5), np.ones(shape))


@pytest.mark.cpu_only
@BOTH
def test_batch_sharded(name):
    """Each step asks all devices whether one goes on: a reduction of one bit, no other collective."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jnp.asarray(rng(1).normal(size=(8, 9)))
    f = jax.jit(jax.value_and_grad(lambda x: jnp.sum(FUNCTIONS[name](x, 0.5, axes=1) ** 2)))
    sharded = jax.device_put(x, NamedSharding(mesh, P("data")))
    text = f.lower(sharded).compile().as_text()
    assert not [c for c in ("all-gather", "all-to-all", "collective-permute") if c in text]
    local = lambda x: FUNCTIONS[name](x, 0.5, axes=1)
    mapped = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=P("data")))
    (value, slope), want = f(sharded), f(x)
    np.testing.assert_allclose(value, want[0], rtol=1e-12)
    np.testing.assert_allclose(value, np.sum(np.asarray(mapped(x)) ** 2), rtol=1e-12)
    np.testing.assert_allclose(slope, want[1], atol=1e-12)


@pytest.mark.parametrize("dtype", HALF)
def test_half_types(dtype):
    x = jnp.asarray(steps(3, 9)).astype(dtype)
    for f, bound in ((jaxtv.project_tv_ball, 1.0), (jaxtv.denoise_discrepancy, 0.25)):
        y = f(x, bound, axes=1)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, f(x.astype("float32"), bound, axes=1).astype(dtype))


@BOTH
def test_a_solve_that_does_not_converge_is_reported(name):
    x = jnp.asarray(rng(2).normal(size=(8, 9)))
    short = jaxtv.AcceleratedDykstra(tol=1e-12, max_iterations=2)
    _, info = FUNCTIONS[name](x, 0.9, axes=(0, 1), solver=short, return_info=True)
    assert not info.converged
    assert info.gap > 0


X = np.zeros((4, 6), np.float32)
WRONG = {
    "radius negative": ("ball", {"radius": -1.0}, ValueError, r"`radius` must be >= 0.*-1\.0"),
    "radius NaN": ("ball", {"radius": np.nan}, ValueError, "`radius`.*nan"),
    "radius per sample": ("ball", {"radius": X}, ValueError, r"`radius`.*\(4, 6\).*axis 1"),
    "radius in words": ("ball", {"radius": "1"}, TypeError, "`radius`.*str"),
    "no noise": ("discrepancy", {"sigma": 0.0}, ValueError, r"`sigma` must be > 0.*0\.0"),
    "sigma negative": (
        "discrepancy",
        {"sigma": np.float32([[1], [-2], [1], [1]])},
        ValueError,
        "`sigma`.*-2",
    ),
    "integers": ("ball", {"x": X.astype(int), "radius": 1.0}, TypeError, "`x`.*int64"),
    "axes": ("ball", {"radius": 1.0, "axes": 2}, ValueError, "`axes` 2"),
    "sweeps": (
        "ball",
        {"radius": 1.0, "axes": (0, 1), "solver": jaxtv.Dykstra()},
        TypeError,
        "`solver` must be AcceleratedDykstra for 2 axes",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    name, options, error, message = WRONG[case]
    call = lambda: FUNCTIONS[name](**{"x": X, "axes": 1} | options)
    with pytest.raises(error, match=message):
        call()
    with pytest.raises(error, match=message):
        jax.make_jaxpr(lambda _: call())(0.0)


@BOTH
def test_bad_values_make_their_elements_nan(name):
    x = rng(3).normal(size=(4, 13))
    x[1, 2] = np.nan
    bound = np.asarray([[0.5], [0.5], [-0.5], [0.4]])
    y, info = solver_of(name, (1,), info=True)(x, bound)
    assert np.isnan(y).all(1).tolist() == [False, True, True, False]
    assert info.converged.tolist() == [True, False, False, True]
    np.testing.assert_allclose(constraint(name, x[::3], y[::3], (1,)), bound[::3], rtol=1e-11)
