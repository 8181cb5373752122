"""The reference against optimality conditions and finite differences, and the pure-JAX fallback
against the reference. Two algorithms, two derivations of the derivative, nothing shared."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtv import _fallback as fallback
from jaxtv import reference

WEIGHTS = ["signal", "edge", "edge with zeros"]


def make_signal(family, rng, batch, n):
    i = np.arange(n, dtype=float)
    return {
        "noise": lambda: rng.normal(size=(batch, n)),
        "walk": lambda: np.cumsum(rng.normal(size=(batch, n)), -1),
        "ramp": lambda: i * rng.normal(size=(batch, 1)),
        "saw": lambda: (i % 5) * rng.normal(size=(batch, 1)),
        "sine": lambda: 100 * np.sin(i * rng.uniform(0.01, 0.3, size=(batch, 1))),
        "steps": lambda: np.cumsum(rng.normal(size=(batch, n)) > 1.5, -1).astype(float),
        "integers": lambda: np.round(3 * rng.normal(size=(batch, n))),
        "offset": lambda: 1e5 + rng.normal(size=(batch, n)),
        "powers": lambda: 1.5 ** -(i % 64) + np.zeros((batch, 1)),
    }[family]()


FAMILIES = ["noise", "walk", "ramp", "saw", "sine", "steps", "integers", "offset", "powers"]


def make_weights(kind, rng, batch, n, scale=1.0):
    if kind == "signal":
        return scale * rng.uniform(0, 3, size=(batch, 1))
    w = scale * rng.uniform(0, 3, size=(batch, max(n - 1, 1)))
    return w * (rng.random(w.shape) < 0.7) if kind == "edge with zeros" else w


def kkt_violation(x, w, y):
    """Largest violation, in units of the data, of the conditions that make y the solution:
    u = cumsum(y - x) stays within the weights, ends at 0 and sits at +-w where y jumps."""
    x, w, y = (np.asarray(v, np.float64) for v in (x, w, y))
    u = np.cumsum(y - x, -1)
    inner, end = u[..., :-1], u[..., -1:]
    jump = np.diff(y, axis=-1)
    w = np.broadcast_to(w, jump.shape)
    outside = np.abs(inner) - w
    off = np.where(jump != 0, np.abs(inner - np.sign(jump) * w), 0)
    return max(v.max(initial=0) for v in (outside, off, np.abs(end)))


def round_off(x, dtype):
    """n rounding errors of the size of the largest sample, the error of the sum u itself."""
    return np.finfo(dtype).eps * np.abs(x).max(initial=0) * x.shape[-1]


reference_1d = jax.jit(reference.prox_tv1d, static_argnames="axis")


def jitted(f, *names, static=()):
    return jax.jit(f, static_argnames=names or static)


reference_2d = jitted(reference.prox_tv2d, "axes", "iterations")
prox1d = jitted(fallback.prox1d, "axis", "solver")
prox1d_info = jitted(fallback.prox1d_info, "axis", "solver")
segment_jvp = jitted(fallback.segment_jvp, "axis")
segment_vjp = jitted(fallback.segment_vjp, "axis")
dykstra = jitted(fallback.dykstra, "axes", "iterations", "inner")
dykstra_with_codes = jitted(fallback.dykstra_with_codes, "axes", "iterations", "inner")
dykstra_jvp = jitted(fallback.dykstra_jvp, "axes", "iterations")
dykstra_vjp = jitted(fallback.dykstra_vjp, "axes", "iterations", "edge")


def fallback_1d(x, w):
    """(y, gap, iterations, converged) of signals on the last axis, as NumPy arrays."""
    return tuple(map(np.asarray, prox1d_info(x, w, axis=x.ndim - 1, solver=None)))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def dtype(precision):
    return np.float64 if precision == "x64" else np.float32


# --------------------------------------------------------------------------- reference, value


@pytest.mark.both_precisions
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_reference_is_optimal(family, kind, dtype, rng):
    x = make_signal(family, rng, 8, 24).astype(dtype)
    w = make_weights(kind, rng, 8, 24, scale=x.std()).astype(dtype)
    y = reference_1d(x, w)
    assert y.dtype == dtype
    assert kkt_violation(x, w, y) <= 4 * round_off(x, dtype)


@pytest.mark.both_precisions
def test_reference_two_samples_in_closed_form(dtype):
    x = np.asarray([[1.0, 4.0]] * 5, dtype)
    lam = np.asarray([[0.0], [1.0], [1.5], [2.0], [np.inf]], dtype)
    t = np.minimum(lam, 1.5)
    np.testing.assert_array_equal(reference_1d(x, lam), x + t * np.asarray([1, -1], dtype))


def test_reference_extremes():
    x = jnp.asarray([3.0, 3.0, -1.0, 7.0, 7.0])
    np.testing.assert_array_equal(reference_1d(x, 0.0), x)
    np.testing.assert_allclose(reference_1d(x, jnp.inf), jnp.full(5, 3.8), rtol=1e-6)
    np.testing.assert_array_equal(reference.prox_tv1d(x[:1], 2.0), x[:1])
    assert reference.prox_tv1d(jnp.zeros((0, 5)), 2.0).shape == (0, 5)


def test_reference_bad_signals_are_nan_and_alone():
    x = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    good = reference_1d(x, 0.5)
    x[1, 3], x[2, 0] = np.nan, -np.inf
    lam = np.full((6, 1), 0.5, np.float32)
    lam[3], lam[4] = np.nan, -1
    y = reference_1d(x, lam)
    assert np.isnan(y[1:5]).all()
    np.testing.assert_array_equal(y[::5], good[::5])


def test_reference_bad_arguments():
    with pytest.raises(TypeError, match=r"`x` must be float32.*int"):
        reference.prox_tv1d(jnp.arange(4), 1.0)
    with pytest.raises(ValueError, match="`lam` has shape"):
        reference.prox_tv1d(jnp.ones(5), jnp.ones(3))


def test_reference_weights_along_any_axis(rng):
    x = jnp.asarray(rng.normal(size=(4, 7, 3)))
    lam = jnp.asarray(rng.uniform(0.1, 1, size=(6, 1)), x.dtype)
    y = reference_1d(x, lam, axis=1)
    for i in range(4):
        for c in range(3):
            alone = reference_1d(x[i, :, c], lam[:, 0])
            np.testing.assert_allclose(y[i, :, c], alone, rtol=1e-5, atol=1e-6)
    per_channel = jnp.asarray([0.1, 0.5, 2.0])
    y = reference_1d(x, per_channel, axis=-2)
    alone = reference_1d(x[..., 2], 2.0)
    np.testing.assert_allclose(y[..., 2], alone, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- reference, derivative


def difference_quotient(f, x, h=1e-6):
    """Jacobian of f by central differences; f is piecewise linear, so h only has round-off."""
    steps = h * np.eye(np.size(x)).reshape(-1, *np.shape(x))
    points = np.asarray(x) + np.concatenate([steps, -steps])
    after, before = np.split(np.asarray(jax.jit(jax.vmap(f))(points)), 2)
    columns = np.moveaxis((after - before) / (2 * h), 0, -1)
    return columns.reshape(*columns.shape[:-1], *np.shape(x))


@pytest.mark.parametrize("lam_shape", [(), (3, 1), (3, 11), (11,)])
@pytest.mark.parametrize(
    "scale", [1.0, *(pytest.param(s, marks=pytest.mark.nightly) for s in (255.0, 1e4))]
)
def test_reference_vjp_against_finite_differences(lam_shape, scale, rng):
    x = scale * rng.normal(size=(3, 12))
    lam = scale * rng.uniform(0.2, 1.0, size=lam_shape)
    g = rng.normal(size=(3, 12))
    y, vjp = jax.vjp(reference_1d, x, lam)
    gx, glam = vjp(jnp.asarray(g))
    jump = np.abs(np.diff(y, axis=-1))
    assert jump[jump > 0].min() > 1e-5 * scale  # else a difference could step over a kink
    jx = difference_quotient(lambda x: reference_1d(x, lam), x, h=1e-6 * scale)
    jl = difference_quotient(lambda lam: reference_1d(x, lam), lam, h=1e-6 * scale)
    np.testing.assert_allclose(gx, np.tensordot(g, jx, 2), atol=1e-8)
    np.testing.assert_allclose(glam, np.tensordot(g, jl, 2), atol=1e-8)


def test_reference_vjp_at_zero_weight_is_the_identity():
    x = jnp.asarray([1.0, 1.0, 1.0, 2.0])
    jacobian = jax.jacrev(reference_1d)(x, 0.0)
    np.testing.assert_allclose(jacobian, jnp.eye(4), atol=1e-5)


def test_reference_2d_vjp_against_finite_differences(rng):
    x, g = rng.normal(size=(2, 5, 6))
    lam = jnp.asarray(0.3)
    f = partial(reference_2d, iterations=2)
    gx, glam = jax.jit(lambda x, lam, g: jax.vjp(f, x, lam)[1](g))(x, lam, g)
    jx = difference_quotient(lambda x: f(x, lam), x)
    jl = difference_quotient(lambda lam: f(x, lam), lam)
    np.testing.assert_allclose(gx, np.tensordot(g, jx, 2), atol=1e-8)
    np.testing.assert_allclose(glam, np.tensordot(g, jl, 2), atol=1e-8)


def test_reference_under_transformations(rng):
    x = jnp.asarray(rng.normal(size=(3, 4, 9)))
    f = lambda x, lam: jnp.sum(reference_1d(x, lam) ** 2)
    expected = jax.jit(jax.grad(f, (0, 1)))(x, 0.4)
    batched = jax.jit(jax.vmap(jax.grad(f, (0, 1)), (0, None)))(x, 0.4)
    np.testing.assert_allclose(batched[0], expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batched[1].sum(), expected[1], rtol=1e-4)


# ----------------------------------------------------------------------------- fallback, 1D


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_fallback_equals_reference(family, kind, rng):
    x = make_signal(family, rng, 8, 24)
    for scale in (0.1, 1.0, 20.0):
        w = make_weights(kind, rng, 8, 24, scale=scale * x.std())
        y, gap, rounds, converged = fallback_1d(x, w)
        assert kkt_violation(x, w, y) <= 2 * round_off(x, x.dtype)
        np.testing.assert_allclose(y, reference_1d(x, w), atol=1e-13 * np.abs(x).max())
        assert converged.all()
        assert gap.shape == rounds.shape == converged.shape == (8, 1)
        assert (rounds == 1).all()
        assert (gap >= 0).all()
        assert gap.max() <= 1e-24 * (x**2).sum(-1).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_fallback_float32_is_accurate(family, rng):
    """Within 2e-7 max|x| (under two units in the last place) of float64, up to n = 1024."""
    n = 1024
    x = make_signal(family, rng, 8, n).astype(np.float32)
    lam = (x.std() * np.geomspace(1e-2, 1e3, 8)[:, None]).astype(np.float32)
    y, gap, *_ = fallback_1d(x, lam)
    exact = fallback_1d(x.astype(np.float64), lam.astype(np.float64))[0]
    assert y.dtype == gap.dtype == np.float32
    assert np.abs(y - exact).max() <= 2e-7 * np.abs(x).max()
    assert (gap >= 0).all()
    assert gap.max() <= 1e-9 * (x.astype(np.float64) ** 2).sum(-1).max()


@pytest.mark.both_precisions
@pytest.mark.parametrize("n", [1, 2, 24])
def test_fallback_zero_weight_returns_the_input_bit_for_bit(n, dtype, rng):
    info = np.finfo(dtype)
    x = rng.choice([0.0, -0.0, 1.0, 0.1, info.tiny / 8, info.max, -info.max], size=(8, n))
    x = x.astype(dtype)
    y = fallback_1d(x, np.zeros((8, 1), dtype))[0]
    np.testing.assert_array_equal(y.view(np.uint8), x.view(np.uint8))


@pytest.mark.both_precisions
@pytest.mark.parametrize("lam", [np.inf, 1e30])
def test_fallback_huge_weight_returns_the_mean(lam, dtype, rng):
    x = rng.normal(size=(8, 24)).astype(dtype)
    for shape in ((8, 1), (8, 23)):
        y, gap, _, converged = fallback_1d(x, np.full(shape, lam, dtype))
        assert (y == y[:, :1]).all()
        np.testing.assert_allclose(y[:, 0], x.mean(-1, dtype=np.float64), atol=1e-7)
        assert np.isfinite(gap).all()
        assert converged.all()


def test_fallback_huge_weight_on_some_edges_only(rng):
    x = rng.normal(size=(1, 6)).astype(np.float32)
    w = np.asarray([[np.inf, 0, np.inf, np.inf, 0]], np.float32)
    y = fallback_1d(x, w)[0]
    expected = np.repeat([x[0, :2].mean(), x[0, 2:5].mean(), x[0, 5]], [2, 3, 1])
    np.testing.assert_allclose(y[0], expected, atol=1e-7)
    assert y[0, 5] == x[0, 5]


@pytest.mark.both_precisions
def test_fallback_bad_signals_are_nan_and_alone(dtype, rng):
    x = rng.normal(size=(8, 24)).astype(dtype)
    w = np.full((8, 23), 0.5, dtype)
    good = fallback_1d(x, w)[0]
    x[1, 3], x[2, 0], x[3, 23] = np.nan, -np.inf, np.inf
    w[4, 7], w[5, 0] = np.nan, -1e-3
    x[6, ::2], w[6, 4] = np.finfo(dtype).max, np.inf
    y, gap, _, converged = fallback_1d(x, w)
    assert np.isnan(y[1:6]).all()
    assert np.isnan(gap[1:6]).all()
    assert not converged[1:6].any()
    np.testing.assert_array_equal(y[::7], good[::7])
    assert np.isfinite(y[6]).all()


@pytest.mark.both_precisions
def test_fallback_near_overflow(dtype, rng):
    """Scaling by a power of two commutes with the prox, to the last bit."""
    big = 2.0 ** (np.finfo(dtype).maxexp - 2)
    x = rng.uniform(-1, 1, size=(8, 24)).astype(dtype)
    lam = np.asarray([[0.1], [1.0], [0.0], [np.inf]] * 2, dtype)
    y = fallback_1d(x, lam)[0]
    np.testing.assert_array_equal(fallback_1d(x * dtype(big), lam * dtype(big))[0], y * dtype(big))
    largest = np.full((8, 24), np.finfo(dtype).max, dtype)
    np.testing.assert_array_equal(fallback_1d(largest, lam)[0], largest)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 4), (3, 1), (1, 1)])
def test_fallback_empty_and_single(shape):
    x = np.full(shape, 0.1, np.float32)
    y, gap, rounds, converged = fallback_1d(x, np.full((*shape[:-1], 1), 2, np.float32))
    np.testing.assert_array_equal(y, x)
    assert gap.shape == rounds.shape == converged.shape == (*shape[:-1], 1)


@pytest.mark.both_precisions
def test_fallback_constant_signal_is_returned(dtype):
    x = np.full((8, 24), 0.1, dtype) * np.geomspace(1e-4, 1e4, 8, dtype=dtype)[:, None]
    np.testing.assert_array_equal(fallback_1d(x, np.full((8, 1), 0.3, dtype))[0], x)


@pytest.mark.both_precisions
def test_fallback_jumps_have_the_sign_of_their_dual(dtype, rng):
    """Ties everywhere: integers with integer weights, where rounding could leave false jumps."""
    x = rng.integers(-3, 4, size=(400, 24)).astype(dtype) / dtype(3)
    w = rng.integers(0, 4, size=(400, 23)).astype(dtype) / dtype(3)
    y = np.asarray(fallback_1d(x, w)[0], np.float64)
    u = np.cumsum(y - x.astype(np.float64), -1)[:, :-1]
    jump = np.diff(y, axis=-1)
    off = np.where(jump != 0, np.abs(u - np.sign(jump) * w), 0)
    assert off.max() <= 40 * np.finfo(dtype).eps


@pytest.mark.both_precisions
def test_fallback_result_does_not_depend_on_the_batch(dtype, rng):
    x = make_signal("walk", rng, 8, 24).astype(dtype)
    w = np.geomspace(1e-2, 1e3, 8)[:, None].astype(dtype)
    together = fallback_1d(x, w)
    for i in range(8):
        for a, b in zip(together, fallback_1d(x[i], w[i]), strict=True):
            np.testing.assert_array_equal(a[i], b)


def test_fallback_under_vmap_and_scan(rng):
    x = jnp.asarray(rng.normal(size=(3, 4, 9, 2)), jnp.float32)
    w = jnp.full((3, 4, 1, 2), 0.4, jnp.float32)
    f = partial(prox1d, axis=1, solver=None)
    flat = prox1d(x, w, axis=2, solver=None)
    np.testing.assert_array_equal(jax.vmap(f)(x, w), flat)
    scanned = jax.jit(lambda x, w: jax.lax.scan(lambda c, xw: (c, f(*xw)), 0, (x, w))[1])(x, w)
    np.testing.assert_array_equal(scanned, flat)


# ------------------------------------------------------------- fallback, derivative of the 1D


@pytest.mark.parametrize(("axis", "kind"), list(enumerate(WEIGHTS)))
def test_segment_vjp_equals_eq_8(axis, kind, rng):
    n = 10
    x, g = rng.normal(size=(2, n, 3, 4))
    w = np.moveaxis(make_weights(kind, rng, 12, n), -1, 0).reshape(-1, 3, 4)
    x, g, w = (jnp.asarray(np.moveaxis(v, 0, axis)) for v in (x, g, w))
    y, vjp = jax.vjp(partial(reference_1d, axis=axis), x, w)
    gx, gw = segment_vjp(y, w, g, axis=axis)
    assert gw.shape == w.shape
    for ours, theirs in zip((gx, gw), vjp(g), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-11)


@pytest.mark.parametrize(("size", "edge"), [(1, False), (2, False), (6, False), (6, True)])
def test_segment_jvp_is_the_transpose(edge, size, rng):
    y, tx, g = jnp.asarray(rng.integers(-1, 2, size=(3, 5, size, 2)) * 1.0)
    w, tw = jnp.asarray(rng.uniform(size=(2, 5, max(size - 1, 1) if edge else 1, 2)))
    w = jnp.where(w < 0.2, 0, w)
    ty = segment_jvp(y, w, tx, tw, axis=1)
    gx, gw = segment_vjp(y, w, g, axis=1)
    assert ty.shape == gx.shape == y.shape
    assert gw.shape == w.shape
    np.testing.assert_allclose(jnp.sum(g * ty), jnp.sum(gx * tx) + jnp.sum(gw * tw), atol=1e-12)


def test_segment_edges_of_weight_zero_join_nothing():
    y, g = jnp.ones((1, 4)), jnp.asarray([[1.0, 3.0, 4.0, 8.0]])
    gx, gw = segment_vjp(y, jnp.asarray([[2.0, 0.0, 2.0]]), g, axis=1)
    np.testing.assert_array_equal(gx, jnp.asarray([[2.0, 2.0, 6.0, 6.0]]))
    np.testing.assert_array_equal(gw, jnp.zeros((1, 3)))


def test_segment_derivative_stays_within_its_signal():
    y = jnp.asarray([[1.0, 1.0, 2.0], [jnp.nan] * 3])
    g = jnp.asarray([[2.0, 4.0, 1.0], [jnp.nan, 1.0, 1.0]])
    gx, gw = segment_vjp(y, jnp.ones((2, 1)), g, axis=1)
    np.testing.assert_array_equal(gx[0], jnp.asarray([3.0, 3.0, 1.0]))
    np.testing.assert_array_equal(gw[0], jnp.asarray([2.0]))


# --------------------------------------------------------------------------- fallback, Dykstra

CASES = {  # shape, axes in sweep order, iterations, weights per edge
    "plane": ((6, 6, 5), (2, 1), 3, (False, False)),
    "volume": ((2, 4, 3, 5), (3, 2, 1), 3, (True, False, True)),
    "axes apart, one flat, channels last": ((1, 3, 6, 2), (2, 0), 2, (True, True)),
}


def make_case(name, rng, dtype):
    shape, axes, iterations, edge = CASES[name]
    x = jnp.asarray(rng.normal(size=shape), dtype)
    ws = []
    for axis, per_edge in zip(axes, edge, strict=True):
        size = list(shape)
        size[axis] = max(shape[axis] - 1, 1) if per_edge else 1
        ws.append(jnp.asarray(rng.uniform(0.05, 0.5, size=size), dtype))
    return x, ws, axes, iterations, edge


@partial(jitted, static=("axes", "iterations"))
def unrolled(x, ws, g, *, axes, iterations):
    """Cyclic Dykstra as textbooks have it: one increment per axis, added before its prox.

    Returns the result, its cotangents for `g`, and the results of all passes.
    """

    def sweep(state, _, ws):
        y, increments = state
        passes = []
        for i, (axis, w) in enumerate(zip(axes, ws, strict=True)):
            a = y + increments[i]
            y = reference.prox_tv1d(a, w, axis=axis)
            increments = (*increments[:i], a - y, *increments[i + 1 :])
            passes.append(y)
        return (y, increments), jnp.stack(passes)

    def dykstra(x, *ws):
        state = (x, tuple(jnp.zeros_like(x) for _ in axes))
        (y, _), passes = jax.lax.scan(partial(sweep, ws=ws), state, length=iterations)
        return y, passes.reshape(-1, *x.shape)

    y, vjp, passes = jax.vjp(dykstra, x, *ws, has_aux=True)
    return y, vjp(g), passes


def unpack(masks, p, planes_axis):
    return (np.take(masks, p // 4, axis=planes_axis) >> (2 * (p % 4))) & 3


def check_masks(masks, passes, x, axes, iterations):
    first, count = min(axes), iterations * len(axes)
    planes = -(-count // 4)
    assert masks.dtype == np.uint8
    assert masks.shape == (*x.shape[:first], planes, *x.shape[first:])
    for p, z in enumerate(passes):
        axis = axes[p % len(axes)]
        jump = np.diff(z, axis=axis)
        code = np.where(np.abs(jump) < 1e-12, 0, np.where(jump > 0, 1, 2))
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, 1)
        expected = np.pad(code, pad, constant_values=3)
        np.testing.assert_array_equal(unpack(masks, p, first), expected)
    for p in range(count, 4 * planes):
        assert not unpack(masks, p, first).any()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.nightly] * (n == "volume")) for n in CASES]
)
def test_dykstra_against_unrolled_autodiff(name, rng):
    x, ws, axes, iterations, edge = make_case(name, rng, np.float64)
    g, tx = jnp.asarray(rng.normal(size=(2, *x.shape)))
    tws = [jnp.asarray(rng.normal(size=w.shape)) for w in ws]
    kwargs = {"axes": axes, "iterations": iterations}
    expected, cotangents, passes = unrolled(x, ws, g, **kwargs)
    y, masks = dykstra_with_codes(x, *ws, **kwargs, inner=None)
    np.testing.assert_allclose(y, expected, atol=1e-13)
    check_masks(np.asarray(masks), np.asarray(passes), x, axes, iterations)

    grads = dykstra_vjp(masks, g, **kwargs, edge=edge)
    for ours, theirs in zip(grads, cotangents, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-11)
    ty = dykstra_jvp(masks, tx, *tws, **kwargs)
    transposed = sum(jnp.sum(a * b) for a, b in zip(grads, (tx, *tws), strict=True))
    np.testing.assert_allclose(jnp.sum(g * ty), transposed, atol=1e-11)


def test_dykstra_jvp_against_finite_differences(rng):
    x, ws, axes, iterations, _ = make_case("plane", rng, np.float64)
    kwargs = {"axes": axes, "iterations": iterations}
    tangents = [jnp.asarray(rng.normal(size=v.shape)) for v in (x, *ws)]
    f = partial(dykstra, **kwargs, inner=None)
    h = 1e-7
    after, before = (
        f(*(v + s * h * t for v, t in zip((x, *ws), tangents, strict=True))) for s in (1, -1)
    )
    y, masks = dykstra_with_codes(x, *ws, **kwargs, inner=None)
    np.testing.assert_array_equal(y, f(x, *ws))
    ty = dykstra_jvp(masks, *tangents, **kwargs)
    np.testing.assert_allclose(ty, (after - before) / (2 * h), atol=1e-7)


def test_dykstra_equals_algorithm_1(rng):
    x, _, axes, iterations, _ = make_case("plane", rng, np.float64)
    lams = jnp.asarray(0.2), jnp.asarray(0.4)
    ws = [jnp.full((6, 6, 1), 0.4), jnp.full((6, 1, 5), 0.2)]
    y, _ = dykstra_with_codes(x, *ws, axes=axes, iterations=iterations, inner=None)
    for axes, lam in (((-2, -1), lams), ((1, 2), lams)):
        expected = reference_2d(x, lam, axes=axes, iterations=iterations)
        np.testing.assert_allclose(expected, y, atol=1e-13)


@pytest.mark.both_precisions
def test_dykstra_zero_weights(dtype, rng):
    """λ = 0 leaves every bit, its Jacobian is the identity even where samples repeat (code 3)."""
    x, ws, axes, iterations, _ = make_case("plane", rng, dtype)
    x = np.where(rng.random(x.shape) < 0.5, np.finfo(dtype).smallest_subnormal, dtype(0))
    kwargs = {"axes": axes, "iterations": iterations}
    y, masks = dykstra_with_codes(x, *(w * 0 for w in ws), **kwargs, inner=None)
    np.testing.assert_array_equal(np.asarray(y).view(np.uint8), x.view(np.uint8))
    g = jnp.asarray(rng.normal(size=x.shape), dtype)
    gx, *_ = dykstra_vjp(masks, g, **kwargs, edge=(False, False))
    np.testing.assert_array_equal(gx, g)


@pytest.mark.both_precisions
def test_dykstra_bad_elements_are_nan_and_alone(dtype, rng):
    x, ws, axes, iterations, _ = make_case("plane", rng, dtype)
    x, *ws = (np.array(v) for v in (x, *ws))
    f = partial(dykstra_with_codes, axes=axes, iterations=iterations, inner=None)
    good = np.asarray(f(x, *ws)[0])
    x[1, 2, 2], ws[0][2, 0], ws[1][3, 0, 1] = np.inf, np.nan, -1
    x[4] = np.finfo(dtype).max * np.sign(x[4])
    y = np.asarray(f(x, *ws)[0])
    assert np.isnan(y[1:4]).all()
    assert np.isfinite(y[4]).all()
    np.testing.assert_array_equal(y[::5], good[::5])


def test_dykstra_of_an_empty_batch():
    x = jnp.zeros((0, 3, 4), jnp.float32)
    ws = [jnp.zeros((0, 3, 1), jnp.float32), jnp.zeros((0, 1, 4), jnp.float32)]
    kwargs = {"axes": (2, 1), "iterations": 4}
    y, masks = dykstra_with_codes(x, *ws, **kwargs, inner=None)
    assert y.shape == x.shape
    assert masks.shape == (0, 2, 3, 4)
    assert [v.shape for v in dykstra_vjp(masks, x, **kwargs, edge=(False, True))] == [
        (0, 3, 4),
        (0, 3, 1),
        (0, 2, 4),
    ]
