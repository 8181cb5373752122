"""Derivatives against the literal Eq. 8-9, finite differences, and `jaxtv.reference`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxtv
from testing import oracles
from testing.generators import DTYPES, EXACT, HALF, NEWTON, rng, steps

SOLVERS = EXACT | NEWTON
# A derivative depends on the solver through its solution alone, so an exact one and an iterative one do.
BOTH = ["direct", "backtracking"]

# Segment means of cotangents of size 1, and sums over n edges of them: n * eps.
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def lam_of(kind, r, batch, n, scale=1.0):
    """λ of one kind for x (batch, n), of about the size of the jumps."""
    shape = {"scalar": (), "signal": (batch, 1), "edge": (batch, n - 1), "shared edge": (n - 1,)}
    return scale * (0.2 + 0.5 * r.random(shape[kind]))


KINDS = ["scalar", "signal", "edge", "shared edge"]


def pullback(x, lam, g, axis=-1):
    """Gradient of <g, prox(x, lam)> by the literal formula, summed over what was broadcast."""
    solution = oracles.prox1d(x, lam)
    gx, gw = oracles.pullback(solution, g)
    return solution, gx, oracles.unbroadcast(gw, np.shape(lam))


def gradient(x, lam, g, **options):
    def objective(x, lam):
        return jnp.sum(jaxtv.prox_tv1d(x, lam, **options) * g.astype(x.dtype))

    both = jax.jit(jax.grad(objective, (0, 1)))(jnp.asarray(x), jnp.asarray(lam))
    return tuple(map(np.asarray, both))


def jvp(f):
    return jax.jit(lambda primals, tangents: jax.jvp(f, primals, tangents))


def vjp(f):
    return jax.jit(lambda g, *primals: jax.vjp(f, *primals)[1](g))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", BOTH)
def test_literal_formula(solver, kind, dtype):
    x = steps(40, 23).astype(dtype)
    lam = lam_of(kind, rng(1), *x.shape).astype(dtype)
    g = rng(2).normal(size=x.shape)
    _, gx, glam = pullback(x, lam, g)
    got_x, got_lam = gradient(x, lam, g, solver=SOLVERS[solver])
    assert got_x.dtype == got_lam.dtype == dtype
    assert np.allclose(got_x, gx, atol=TOLERANCE[dtype])
    assert got_lam.shape == lam.shape
    assert np.allclose(got_lam, glam, atol=x.size * TOLERANCE[dtype] / 10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_jvp_is_the_transpose(kind, dtype):
    x = steps(40, 23).astype(dtype)
    lam = lam_of(kind, rng(1), *x.shape).astype(dtype)
    r = rng(3)
    tx, tlam, g = (r.normal(size=s) for s in (x.shape, np.shape(lam), x.shape))
    _, gx, glam = pullback(x, lam, g)
    tangents = jnp.asarray(tx, dtype), jnp.asarray(tlam, dtype)
    _, ty = jax.jvp(jaxtv.prox_tv1d, (jnp.asarray(x), jnp.asarray(lam)), tangents)
    assert ty.dtype == dtype
    expected = (gx * tx).sum() + (glam * tlam).sum()
    assert np.isclose((np.asarray(ty, np.float64) * g).sum(), expected, rtol=1e2 * TOLERANCE[dtype])


@pytest.mark.parametrize("kind", ["scalar", "channel", "edge"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels_and_axes(axis, kind):
    """NHWC-like (N, W, C): λ per channel is (C,), and its gradient is summed over the rest."""
    r = rng(5)
    x = r.normal(size=(6, 7, 4)).astype(np.float32)
    edges = list(x.shape)
    edges[axis] -= 1
    shape = {"scalar": (), "channel": (1 if axis == 2 else 4,), "edge": edges}[kind]
    lam = (0.1 + 0.4 * r.random(shape)).astype(np.float32)
    g = r.normal(size=x.shape)
    rows = np.moveaxis(x, axis, -1)
    weights = np.moveaxis(oracles.full_weights(x, lam, axis), axis, -1)
    gx, gw = oracles.pullback(oracles.prox1d(rows, weights), np.moveaxis(g, axis, -1))
    got_x, got_lam = gradient(x, lam, g, axis=axis)
    assert np.allclose(got_x, np.moveaxis(gx, -1, axis), atol=1e-5)
    expected = oracles.unbroadcast(np.moveaxis(gw, -1, axis), lam.shape)
    assert np.allclose(got_lam, expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", BOTH)
def test_finite_differences(solver, kind):
    """The prox is piecewise linear: central differences are exact but for rounding, away from the
    kinks.
    """
    x = steps(100, 31)
    lam = lam_of(kind, rng(1), *x.shape)
    r = rng(4)
    direction = r.normal(size=x.shape), r.normal(size=np.shape(lam))
    tight = jaxtv.ProjectedNewton(tol=1e-13) if solver in NEWTON else SOLVERS[solver]
    f = jax.jit(functools.partial(jaxtv.prox_tv1d, solver=tight))
    difference = oracles.directional(lambda *a: f(*map(jnp.asarray, a)), (x, lam), direction, 1e-6)
    _, ty = jvp(f)((jnp.asarray(x), jnp.asarray(lam)), tuple(map(jnp.asarray, direction)))
    error = np.abs(ty - difference).max(-1)
    assert np.sort(error)[-2] < 1e-7  # one row in a hundred may sit on a kink


@pytest.mark.parametrize("kind", KINDS)
def test_reference(kind):
    x = jnp.asarray(steps(12, 14))
    lam = jnp.asarray(lam_of(kind, rng(1), *x.shape))
    g = jnp.asarray(rng(2).normal(size=x.shape))
    y, pull = jax.vjp(jaxtv.prox_tv1d, x, lam)
    y_reference, pull_reference = jax.vjp(jaxtv.reference.prox_tv1d, x, lam)
    assert np.allclose(y, y_reference, atol=1e-12)
    for got, want in zip(pull(g), pull_reference(g)):
        assert got.shape == want.shape
        assert np.allclose(got, want, atol=1e-11)


@functools.cache
def rows_at_scale(kind, scale):
    x = (scale * steps(2000, 32, seed=6)).astype(np.float32)
    lam = lam_of(kind, rng(7), *x.shape, scale).astype(np.float32)
    g = rng(8).normal(size=x.shape)
    return x, lam, g, *pullback(x, lam, g)


@pytest.mark.parametrize("scale", [1.0, 255.0, 1e4])
@pytest.mark.parametrize("kind", ["signal", "edge"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_gradients_at_any_data_scale(solver, kind, scale):
    """Zero wrong segments: 2000 gradients equal those of the float64 solution of the same data."""
    x, lam, g, solution, gx, glam = rows_at_scale(kind, scale)
    got_x, got_lam = gradient(x, lam, g, solver=SOLVERS[solver])
    error = np.maximum(np.abs(got_x - gx).max(-1), np.abs(got_lam - glam).max(-1))
    tied = oracles.decided_edges(x, lam, solution, np.float32).tied
    assert tied.mean() < 0.01
    assert np.flatnonzero((error > 1e-4) & ~tied).size == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_identity_where_lam_is_zero(solver, dtype):
    """Repeated samples at λ = 0 are not a segment: the Jacobian is I. λ > 0 averages them."""
    x = jnp.asarray(np.repeat(steps(8, 5), 3, 1), dtype)
    g = rng().normal(size=x.shape)
    for lam in (jnp.zeros((), dtype), jnp.zeros((8, 1), dtype), jnp.zeros((8, 14), dtype)):
        gx, _ = gradient(x, lam, g, solver=SOLVERS[solver])
        assert np.array_equal(gx, g.astype(dtype))
    gx, _ = gradient(x, jnp.asarray(1e-3, dtype), g, solver=SOLVERS[solver])
    means = np.repeat(g.reshape(8, 5, 3).mean(-1), 3, 1)
    assert np.allclose(gx, means, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_weights_inside_ties(dtype):
    """The weight of an edge decides whether equal neighbours are one segment."""
    x = jnp.asarray([[1.0, 1.0, 1.0, 1.0]], dtype)
    w = jnp.asarray([[0.5, 0.0, 0.5]], dtype)
    g = np.asarray([[1.0, 2.0, 3.0, 5.0]])
    gx, gw = gradient(x, w, g)
    assert np.array_equal(gx, [[1.5, 1.5, 4, 4]])
    assert not np.any(gw)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lam_max_infinity_and_one_sample(dtype):
    x = jnp.asarray(steps(5, 9), dtype)
    g = rng().normal(size=(5, 9))
    for lam in (1e30, np.inf):
        gx, glam = gradient(x, jnp.asarray(lam, dtype), g)
        assert np.allclose(gx, np.broadcast_to(g.mean(-1, keepdims=True), g.shape), atol=1e-6)
        assert glam == 0
    gx, glam = gradient(x[:, :1], jnp.asarray(1.0, dtype), g[:, :1])
    assert np.array_equal(gx, g[:, :1].astype(dtype))
    assert glam == 0


@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev])
def test_second_order(inner, outer):
    """f = sum h(prox(x, λ)): inside a linear piece the Hessian is J^T diag(h'') J."""
    x, lam = steps(1, 11, seed=5)[0], np.asarray(0.4)
    solution = oracles.solve1d(x, lam)
    dx, dw = oracles.jacobians(solution.sign, solution.cut)
    jacobian = np.concatenate([dx, dw.sum(1, keepdims=True)], 1)
    expected = jacobian.T @ np.diag(-np.sin(solution.y)) @ jacobian

    def f(point):
        return jnp.sum(jnp.sin(jaxtv.prox_tv1d(point[:-1], point[-1])))

    hessian = outer(inner(f))(jnp.asarray(np.append(x, lam)))
    assert np.allclose(hessian, expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_check_grads_1d(kind):
    x = steps(3, 8, seed=3)
    lam = lam_of(kind, rng(1), 3, 8)

    def f(x, lam):
        return jnp.sum(jnp.sin(jaxtv.prox_tv1d(x, lam)), -1)

    check_grads(
        jax.jit(f), (jnp.asarray(x), jnp.asarray(lam)), order=2, modes=("fwd", "rev"), eps=1e-6
    )


@pytest.mark.parametrize("iterations", [1, 4])
def test_check_grads_2d(iterations):
    x = rng(3).normal(size=(2, 5, 4, 2))
    lam = 0.2 + 0.3 * rng(4).random(2)

    def f(x, lam):
        y = jaxtv.prox_tv2d(x, lam, axes=(-3, -2), solver=jaxtv.Dykstra(iterations))
        return jnp.sum(jnp.sin(y), (1, 2))

    check_grads(
        jax.jit(f), (jnp.asarray(x), jnp.asarray(lam)), order=2, modes=("fwd", "rev"), eps=1e-6
    )


@pytest.mark.parametrize("iterations", [1, 2, 4])
@pytest.mark.parametrize("kind", ["scalar", "pair", "edges"])
def test_2d_against_finite_differences_of_the_oracle(kind, iterations):
    """Of the K-sweep map itself, by the independent NumPy Dykstra; the pair in the order of
    `axes`.
    """
    r = rng(6)
    x = r.normal(size=(7, 6))
    shapes = {"scalar": ((),), "pair": ((), ()), "edges": ((6, 6), (7, 5))}[kind]
    lams = tuple(0.1 + 0.4 * r.random(s) for s in shapes)
    direction = r.normal(size=x.shape), *(r.normal(size=s) for s in shapes)

    def oracle(x, *lams):
        rows, columns = lams[-1], lams[0]
        return oracles.dykstra(x, (rows, columns), (-1, -2), iterations)

    def library(x, *lams):
        lam = lams[0] if len(lams) == 1 else lams
        return jaxtv.prox_tv2d(x, lam, solver=jaxtv.Dykstra(iterations))

    difference = oracles.directional(oracle, (x, *lams), direction, 1e-6)
    primals, tangents = (tuple(map(jnp.asarray, v)) for v in ((x, *lams), direction))
    y, ty = jvp(library)(primals, tangents)
    assert np.allclose(y, oracle(x, *lams), atol=1e-13)
    assert np.abs(ty - difference).max() < 1e-7
    g = r.normal(size=x.shape)
    cotangents = vjp(library)(jnp.asarray(g), *primals)
    pulled = sum((np.asarray(c) * d).sum() for c, d in zip(cotangents, direction))
    assert np.isclose(pulled, (g * difference).sum(), atol=1e-6)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_3d_against_finite_differences_of_the_oracle(axes):
    r = rng(7)
    x, lam = r.normal(size=(4, 5, 3)), np.asarray(0.3)
    direction = r.normal(size=x.shape), np.asarray(1.0)
    difference = oracles.directional(
        lambda x, lam: oracles.dykstra(x, (lam,) * 3, axes[::-1], 3), (x, lam), direction, 1e-6
    )
    f = functools.partial(jaxtv.prox_tv, axes=axes, solver=jaxtv.Dykstra(3))
    primals, tangents = (tuple(map(jnp.asarray, v)) for v in ((x, lam), direction))
    assert np.abs(jvp(f)(primals, tangents)[1] - difference).max() < 1e-7
    g = r.normal(size=x.shape)
    pulled = vjp(f)(jnp.asarray(g), *primals)
    total = sum((np.asarray(c) * d).sum() for c, d in zip(pulled, direction))
    assert np.isclose(total, (g * difference).sum(), atol=1e-6)


def test_2d_reference():
    x = jnp.asarray(rng(2).normal(size=(2, 6, 7)))
    lam = jnp.asarray(0.3)
    g = jnp.asarray(rng(3).normal(size=x.shape))
    library, reference = (
        functools.partial(f, axes=(1, 2)) for f in (jaxtv.prox_tv2d, jaxtv.reference.prox_tv2d)
    )
    y, pull = jax.vjp(library, x, lam)
    y_reference, pull_reference = jax.vjp(reference, x, lam)
    assert np.allclose(y, y_reference, atol=1e-12)
    for got, want in zip(pull(g), pull_reference(g)):
        assert np.allclose(got, want, atol=1e-11)


@pytest.mark.parametrize("scale", [1.0, 255.0, 1e4])
def test_2d_float32_at_any_data_scale(scale):
    """The unrolled derivative in float32 has the segments of the float64 sweeps of the same data.

    One Dykstra sweep after another feeds rounding into the next pass, so an edge within it of a
    kink may differ: all but one image in a hundred agree.
    """
    x = (scale * steps(100 * 12, 12, seed=9).reshape(100, 12, 12)).astype(np.float32)
    lam = np.full((100, 1, 1), 0.4 * scale, np.float32)
    g = rng(1).normal(size=x.shape)
    expected = [oracles.dykstra_pullback(*image, 4) for image in zip(x, lam[:, 0, 0], g)]
    gx, glam = (np.stack(v) for v in zip(*expected))

    def objective(x, lam):
        return jnp.sum(jaxtv.prox_tv2d(x, lam, axes=(1, 2)) * jnp.asarray(g, jnp.float32))

    both = jax.grad(objective, (0, 1))(jnp.asarray(x), jnp.asarray(lam))
    got_x, got_lam = map(np.asarray, both)
    error = np.maximum(np.abs(got_x - gx).max((1, 2)), np.abs(got_lam[:, 0, 0] - glam) / 10)
    assert np.sort(error)[-2] < 1e-4


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("dimensions", [1, 2])
def test_half_types_keep_the_segments_of_the_float32_solution(dimensions, dtype):
    """Rounding to 8 or 11 bits joins neighbours which the solution does not: with an offset of
    100, most of them.
    """
    x = (jnp.asarray(steps(24, 20)) + 100).astype(dtype)
    lam = jnp.asarray(0.25, dtype)
    g = jnp.asarray(rng(3).normal(size=x.shape)).astype(dtype)
    prox = jaxtv.prox_tv1d if dimensions == 1 else jaxtv.prox_tv2d
    y, pull = jax.vjp(prox, x, lam)
    y32, pull32 = jax.vjp(prox, x.astype(jnp.float32), lam.astype(jnp.float32))
    assert np.any((np.diff(y.astype(np.float32)) == 0) & (np.diff(y32) != 0))
    gx, glam = pull(g)
    assert gx.dtype == glam.dtype == dtype
    gx32, glam32 = pull32(g.astype(jnp.float32))
    assert np.array_equal(gx, gx32.astype(dtype))
    assert np.allclose(glam.astype(np.float32), glam32, rtol=float(jnp.finfo(dtype).eps))
    _, ty = jax.jvp(prox, (x, lam), (g, jnp.ones_like(lam)))
    _, ty32 = jax.jvp(
        prox,
        (x.astype(jnp.float32), lam.astype(jnp.float32)),
        (g.astype(jnp.float32), jnp.float32(1)),
    )
    assert ty.dtype == dtype
    assert np.array_equal(ty, ty32.astype(dtype))


def test_bad_signals_do_not_poison_other_gradients():
    x = jnp.asarray(steps(9, 15), jnp.float32)
    lam = jnp.full((9, 1), 0.3, jnp.float32)
    g = rng().normal(size=x.shape)
    clean = gradient(x, lam, g)
    poisoned = gradient(x.at[4, 7].set(jnp.nan), lam, g)
    good = np.arange(9) != 4
    for a, b in zip(clean, poisoned):
        assert np.array_equal(np.asarray(a)[good], np.asarray(b)[good])


def test_info_has_no_derivative_but_y_has():
    x = jnp.asarray(steps(4, 9), jnp.float32)
    lam = jnp.float32(0.3)

    def f(x, lam):
        y, info = jaxtv.prox_tv1d(x, lam, return_info=True)
        return jnp.sum(y**2) + jnp.sum(info.gap)

    def plain(x, lam):
        return jnp.sum(jaxtv.prox_tv1d(x, lam) ** 2)

    for a, b in zip(jax.grad(f, (0, 1))(x, lam), jax.grad(plain, (0, 1))(x, lam)):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("solver", [jaxtv.Dykstra(3), jaxtv.AcceleratedDykstra()], ids=["K", "tol"])
def test_derivative_in_a_shared_lam_at_zero_with_ties(solver):
    """An edge of weight 0 joins nothing: -D^T sign(Dx), and the mean over ties from the right."""
    x = jnp.array([[1.0, 1.0, 3.0, 3.0, 2.0]])
    for prox in (
        lambda x, lam: jaxtv.prox_tv1d(x, lam),
        lambda x, lam: jaxtv.prox_tv2d(jnp.tile(x, (2, 1)), (0.0, lam), solver=solver)[:1],
    ):
        for jacobian in (jax.jacfwd, jax.jacrev):
            np.testing.assert_array_equal(jacobian(prox, 1)(x, 0.0), [[0, 1, -1, -1, 1]])
            at_zero = jacobian(prox, 0)(x, 0.0).reshape(5, 5)
            np.testing.assert_array_equal(at_zero, np.eye(5))
        slope = (prox(x, 1e-3) - prox(x, 0.0)) / 1e-3
        np.testing.assert_allclose(slope, [[0.5, 0.5, -1, -1, 1]], atol=1e-3)
