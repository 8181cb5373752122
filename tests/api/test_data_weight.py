"""data_weight=: values against cuts by linear programs, derivatives against differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxtv
from testing import oracles
from testing.generators import rng

TIGHT = jaxtv.AcceleratedDykstra(tol=1e-12)
N = 14


def signals(rows=4, n=N, seed=0):
    """(x, a, a weight per edge); of each second signal some samples are missing."""
    r = rng(seed)
    x, w = r.normal(size=(rows, n)), r.uniform(0.05, 0.8, (rows, n - 1))
    a = r.uniform(0.1, 2, (rows, n))
    a[1::2] *= r.random((rows, n))[1::2] < 0.6
    a[1, :3], a[1, -2:] = 0, 0  # at both ends
    return x, a, w


def objective(y, x, w, a, axes):
    """Of any y, over the axes of x."""
    jumps = (np.abs(np.diff(y, axis=axis)) for axis in axes)
    return (a * (y - x) ** 2).sum() / 2 + sum((v * j).sum() for v, j in zip(w, jumps))


solve = jax.jit(lambda x, lam, a: jaxtv.prox_tv1d(x, lam, data_weight=a))


def test_signals_are_those_of_cuts():
    """Known samples have one solution; what missing ones are given costs nothing more."""
    x, a, w = signals()
    a[2, 3] *= 1e6  # weights of very different sizes
    a[2, 7] *= 1e-6
    w[3, 4:6] = 0.1, 0  # a weight of 0, and a least one that is not the first
    for lam in (w, 0.3):
        y = np.asarray(solve(x, lam, a))
        for v, row, edges, mass in zip(y, x, np.broadcast_to(lam, w.shape), a):
            exact = oracles.prox_nd(row, [edges], [0], mass).y
            np.testing.assert_allclose(v[mass > 0], exact[mass > 0], atol=1e-9)
            best = objective(exact, row, [edges], mass, [0])
            assert objective(v, row, [edges], mass, [0]) <= best * (1 + 1e-12)


def test_missing_samples_are_filled_as_documented():
    x = jnp.array([9.0, 0.0, jnp.nan, jnp.inf, 4.0, 4.0, -9.0])
    a = jnp.array([0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    w = jnp.array([3.0, 2.0, 1.0, 1.0, 2.0, 3.0])
    y = jaxtv.prox_tv1d(x, w, data_weight=a)  # the jump is at the first of the least weights
    np.testing.assert_allclose(y, [1, 1, 1, 3.5, 3.5, 3.5, 3.5])
    y = jaxtv.prox_tv1d(x, 1.0, data_weight=a > 0)
    np.testing.assert_allclose(y, [1, 1, 3.5, 3.5, 3.5, 3.5, 3.5])
    y = jaxtv.prox_tv1d(x, 0.0, data_weight=a)
    np.testing.assert_array_equal(y, [0, 0, 4, 4, 4, 4, 4])
    y, info = jaxtv.prox_tv1d(x, 1.0, data_weight=0.0, return_info=True)
    np.testing.assert_array_equal(y, np.zeros(7))  # nothing is known
    assert info.converged
    assert info.gap == 0


def test_equal_weights_change_lambda():
    """a x/a = x: with the same weight c everywhere the prox is that of lambda / c."""
    x, _, w = signals()
    np.testing.assert_allclose(solve(x, w, 4.0), jaxtv.prox_tv1d(x, w / 4), atol=1e-12)
    y = jaxtv.prox_tv2d(x, 1.2, solver=jaxtv.Dykstra(3), data_weight=jnp.full(N, 4.0))
    np.testing.assert_allclose(y, jaxtv.prox_tv2d(x, 0.3, solver=jaxtv.Dykstra(3)), atol=1e-12)


@pytest.mark.parametrize(
    "shape", [(4, 5), pytest.param((2, 3, 3), marks=pytest.mark.nightly)], ids=str
)
def test_arrays_are_those_of_cuts(shape):
    """Weights, missing samples with NaN, weights per edge, an outlier, by AcceleratedDykstra."""
    r, axes = rng(7), tuple(range(len(shape)))
    x, a = r.normal(size=shape), r.uniform(0.2, 2, shape)
    masked = a * (r.random(shape) < 0.6)
    ws = [r.uniform(0.05, 0.5, np.array(shape) - (np.arange(len(shape)) == k)) for k in axes]
    run = jax.jit(
        lambda x, ws, a: jaxtv.prox_tv(
            x, ws, axes=axes, solver=TIGHT, data_weight=a, return_info=True
        )
    )
    far, corner = x.copy(), (slice(2),) * x.ndim
    far.flat[0] = -1e9
    known = masked.copy()
    known[corner] = a[corner]
    for v, mass in ((x, a), (x, masked), (far, known)):
        y, info = run(np.where(mass > 0, v, np.nan), ws, mass)
        exact = oracles.prox_nd(v, ws, axes, mass).y
        assert info.converged
        np.testing.assert_allclose(y[mass > 0], exact[mass > 0], atol=1e-5)
        best = objective(exact, v, ws, mass, axes)
        assert objective(np.asarray(y), v, ws, mass, axes) <= best * (1 + 1e-12) + info.gap


def test_dykstra_reaches_the_solution():
    r = rng(3)
    x, a = r.normal(size=(2, 6, 7)), r.uniform(0.3, 2, (2, 6, 7))
    options = {"axes": (1, 2), "data_weight": a, "return_info": True}
    y, info = jaxtv.prox_tv(x, 0.3, solver=jaxtv.Dykstra(200), **options)
    exact = np.stack([oracles.prox_nd(v, [0.3, 0.3], [0, 1], mass).y for v, mass in zip(x, a)])
    np.testing.assert_allclose(y, exact, atol=1e-5)
    assert info.converged.all()
    y, info = jaxtv.prox_tv(x, 0.3, solver=jaxtv.Dykstra(2), **options)
    distance = (a * (y - exact) ** 2).sum((1, 2))
    assert (distance <= 2 * info.gap).all()
    assert (info.gap > 1e-6).all()


def test_info_of_signals():
    x, a, w = signals(seed=4)
    _, info = jax.jit(partial(jaxtv.prox_tv1d, return_info=True))(x, w, data_weight=a)
    assert (info.gap <= 1e-25).all()
    assert info.iterations.shape == (4,)


@pytest.mark.nightly
def test_the_gap_bounds_the_error_where_the_iteration_ends_too_early():
    x, a, _ = signals(seed=4)
    image, mass = (v.reshape(7, 8) for v in (x, a))
    known = mass > 0
    exact = oracles.prox_nd(image, [0.3, 0.3], [0, 1], mass).y
    solver = jaxtv.AcceleratedDykstra(tol=1e-12, max_iterations=5)
    y, info = jaxtv.prox_tv2d(image, 0.3, solver=solver, data_weight=mass, return_info=True)
    assert (mass * (y - exact) ** 2)[known].sum() <= 2 * info.gap * (1 + 1e-9)
    assert not info.converged
    assert info.iterations == 5


def prox_of(name):
    return {
        "signals": lambda x, lam, a: jaxtv.prox_tv1d(x, lam, data_weight=a),
        "dykstra": lambda x, lam, a: jaxtv.prox_tv2d(x, lam, data_weight=a),
        "converged": lambda x, lam, a: jaxtv.prox_tv2d(x, lam, solver=TIGHT, data_weight=a),
    }[name]


@pytest.mark.parametrize("name", ["signals", "dykstra", "converged"])
def test_derivatives(name):
    """In x, λ and a: gradients, and their derivatives by forward over reverse."""
    x, a, _ = (jnp.asarray(v) for v in signals(seed=5))
    if name == "dykstra":
        a = a + 0.1
    x = jnp.where(a > 0, x, jnp.nan)
    lam = jnp.full((4, 1), 0.3) if name == "signals" else jnp.asarray(0.2)
    r = rng(6)
    tangents = tuple(jnp.asarray(r.normal(size=v.shape)) for v in (x, lam, a))
    tangents = (*tangents[:2], jnp.where(a > 0, tangents[2], 0))
    prox, factor = prox_of(name), jnp.where(a > 0, r.normal(size=x.shape), 0)
    loss = lambda *args: jnp.sum(factor * prox(*args) ** 2)

    @jax.jit
    def derivatives(*args):
        """(loss, its derivative in the direction, the derivative of that)."""
        gradient = jax.value_and_grad(loss, argnums=(0, 1, 2))
        (value, by), (_, change) = jax.jvp(gradient, args, tangents)
        inner = lambda p: sum(jnp.vdot(u, v) for u, v in zip(p, tangents))
        return value, inner(by), inner(change)

    step = 1e-6
    moved = lambda s: derivatives(*(v + s * t for v, t in zip((x, lam, a), tangents)))
    ahead, behind = moved(step), moved(-step)
    _, first, second = moved(0)
    np.testing.assert_allclose(first, (ahead[0] - behind[0]) / (2 * step), rtol=1e-5)
    np.testing.assert_allclose(second, (ahead[1] - behind[1]) / (2 * step), rtol=1e-4)


def test_what_is_missing_has_no_gradient_and_spoils_none():
    x, a, _ = signals()
    x = np.where(a > 0, x, np.nan)
    loss = lambda *args: jnp.sum(prox_of("signals")(*args) ** 2)
    gradients = jax.grad(loss, argnums=(0, 1, 2))(x, 0.3, a)
    assert all(jnp.isfinite(g).all() for g in gradients)
    assert (gradients[0][a == 0] == 0).all()
    assert (gradients[2][a == 0] == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_axes_and_bad_signals(dtype):
    x, a, _ = signals(rows=3)
    x = jnp.asarray(np.round(4 * x) / 4, dtype)
    exact = jaxtv.prox_tv1d(np.asarray(x, float), 0.25, data_weight=a)
    run = jax.jit(lambda x, a: jaxtv.prox_tv1d(x.T, 0.25, axis=0, data_weight=a.T).T)
    y = run(x, a)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.astype(float), exact, atol=8 * float(jnp.finfo(dtype).eps))
    bad = run(x, jnp.asarray(a).at[1, 5].set(-1.0).at[2, 6].set(jnp.nan))
    np.testing.assert_array_equal(bad[0], y[0])
    assert jnp.isnan(bad[1:]).all()
    if dtype == "float32":
        dykstra = jax.jit(prox_of("dykstra"))
        assert jnp.isnan(dykstra(x, 0.25, jnp.full_like(a, -1.0))).all()
        assert jnp.isnan(dykstra(x, 0.25, a)).all()  # it divides by a


@pytest.mark.parametrize("lam", [[1, 1, np.nan], [1, np.nan, 1], [1, 1, -1], np.nan], ids=str)
def test_a_bad_lambda_at_missing_samples_makes_the_signal_nan(lam):
    x, a = np.array([[0.0, 5, 1, 3]] * 2), np.array([1.0, 0, 1, 0])
    lam = np.stack([np.broadcast_to(lam, 3), np.ones(3)])
    y = solve(x, lam if len(set(lam[0])) > 1 else lam[:, :1], a)
    assert jnp.isnan(y[0]).all()
    assert jnp.isfinite(y[1]).all()


def test_outliers_cost_the_others_no_precision():
    x = np.array([[1e9, 5, 1], [2, 3, 4]])
    a = np.array([[1, 1, 0.01], [1, 0.5, 2]])
    options = {"solver": jaxtv.AcceleratedDykstra(tol=1e-6), "return_info": True}
    y, info = jaxtv.prox_tv2d(np.float32(x), 0.5, data_weight=np.float32(a), **options)
    exact = oracles.prox_nd(x, [0.5, 0.5], [0, 1], a).y
    np.testing.assert_allclose(y, exact, rtol=1e-3)
    assert info.converged


def test_vmap_and_sizes():
    x, a, w = (jnp.asarray(v) for v in signals())
    np.testing.assert_array_equal(jax.vmap(solve)(x, w, a), solve(x, w, a))
    np.testing.assert_array_equal(
        solve(x[:, :1], 1.0, a[:, :1]), np.where(a[:, :1] > 0, x[:, :1], 0)
    )
    assert jaxtv.prox_tv1d(x[:0], 1.0, data_weight=a[0]).shape == (0, N)
    assert jaxtv.prox_tv2d(x[:0], 1.0, solver=TIGHT, data_weight=a[0]).shape == (0, N)
    two = jaxtv.prox_tv1d(jnp.array([0.0, 4.0]), jnp.array([1.0]), data_weight=jnp.array([1.0, 2]))
    np.testing.assert_allclose(two, [1, 3.5])


def test_huge_and_tiny_sizes():
    """Samples and weights near the ends of their type."""
    x, a, w = signals()
    exact = solve(x, w, a)
    for dtype, big in (("float64", 2.0**1000), ("float32", 2.0**120)):
        one, mass, edges = (v.astype(dtype) for v in (x, a, w))
        y = solve(one * big, edges, mass / big)
        np.testing.assert_allclose(y / big, exact, atol=1e-5)
        np.testing.assert_allclose(solve(one, edges * big, mass * big), exact, atol=1e-5)
    ratio = np.float32([[1e20, 1e-20]])  # beyond the type
    y = jaxtv.prox_tv2d(jnp.array([[0, 4]], "float32"), 1.0, data_weight=ratio)
    np.testing.assert_array_equal(y, [[0, 0]])


def test_no_collective_when_sharded_over_the_batch():
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("batch", None))
    x, a, _ = (jax.device_put(v, sharding) for v in signals())
    loss = lambda x, a: jnp.sum(jaxtv.prox_tv1d(x, 0.25, data_weight=a) ** 2)
    text = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(x, a).compile().as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text


@pytest.mark.cpu_only
@pytest.mark.parametrize("name", ["an axis of size 1", "weights per edge"])
def test_derivatives_when_sharded(name):
    """In shard_map, and on a mesh of explicit axes."""
    x, a, w = (v[:2] for v in signals(n=4))
    one_axis = lambda x, lam, a: jaxtv.prox_tv1d(x, lam, data_weight=a)
    prox, lam = one_axis, w
    if name == "an axis of size 1":
        lam = w[:, :1]
        prox = lambda x, lam, a: jaxtv.prox_tv(
            x[..., None], lam[..., None], axes=(1, 2), solver=TIGHT, data_weight=a[..., None]
        )[..., 0]

    def derivatives(prox, *args):
        y, pull = jax.vjp(prox, *args)
        return y, *pull(args[0])

    want = jax.jit(partial(derivatives, one_axis))(x, lam, a)
    f = partial(derivatives, prox)
    for axis_type in (AxisType.Auto, AxisType.Explicit)[: 1 if prox is not one_axis else 2]:
        mesh = jax.make_mesh((2,), ("batch",), axis_types=(axis_type,), devices=jax.devices()[:2])
        g = f
        if axis_type == AxisType.Auto:
            g = jax.shard_map(f, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"))
        with jax.set_mesh(mesh):
            args = [jax.device_put(v, NamedSharding(mesh, P("batch"))) for v in (x, lam, a)]
            for got, exact in zip(jax.jit(g)(*args), want, strict=True):
                np.testing.assert_allclose(got, exact, atol=1e-9)


@pytest.mark.cpu_only
def test_export_with_a_symbolic_batch():
    x, a, _ = signals()
    f = jax.jit(lambda x, a: jaxtv.prox_tv1d(x, 0.3, data_weight=a))
    (batch,) = jax.export.symbolic_shape("batch")
    spec = jax.ShapeDtypeStruct((batch, N), x.dtype)
    check = jax.export.DisabledSafetyCheck.custom_call("jaxtv_prox1d_data_weight")
    exported = jax.export.export(f, disabled_checks=[check])(spec, spec)
    np.testing.assert_allclose(exported.call(x, a), solve(x, 0.3, a), atol=1e-12)


X = np.zeros((3, 12))
WRONG = {
    "negative": (lambda: jaxtv.prox_tv1d(X, 1.0, data_weight=-1.0), ValueError, ">= 0 and finite"),
    "NaN": (lambda: jaxtv.prox_tv2d(X, 1.0, data_weight=np.nan), ValueError, "`data_weight`.*nan"),
    "empty": (
        lambda: jaxtv.prox_tv1d(X[:0], 1.0, data_weight=np.ones(3)),
        ValueError,
        "does not fit",
    ),
    "infinite": (lambda: jaxtv.prox_tv1d(X, 1.0, data_weight=np.inf), ValueError, "finite.*inf"),
    "misfit": (
        lambda: jaxtv.prox_tv1d(X, 1.0, data_weight=np.ones(11)),
        ValueError,
        r"`data_weight` of shape \(11,\) does not fit x of shape \(3, 12\)",
    ),
    "one per signal": (
        lambda: jaxtv.prox_tv1d(X, 1.0, data_weight=np.ones(3)),
        ValueError,
        r"data_weight.reshape\(3, 1\)",
    ),
    "integers": (
        lambda: jaxtv.prox_tv1d(X, 1.0, data_weight=np.ones(12, int)),
        TypeError,
        "`data_weight` must be a float array",
    ),
    "Newton": (
        lambda: jaxtv.prox_tv1d(X, 1.0, data_weight=1.0, solver=jaxtv.ProjectedNewton()),
        TypeError,
        r"`solver` must be Direct\(\) with `data_weight`",
    ),
    "kernel": (
        lambda: jaxtv.prox_tv2d(
            X, 1.0, data_weight=1.0, solver=jaxtv.Dykstra(4, jaxtv.Direct("taut_string"))
        ),
        TypeError,
        "`inner`",
    ),
    "missing": (
        lambda: jaxtv.prox_tv2d(X, 1.0, data_weight=np.eye(3, 12)),
        ValueError,
        "`data_weight` must be > 0 for Dykstra.*AcceleratedDykstra",
    ),
    "dual": (
        lambda: jaxtv.prox_tv(X, 1.0, axes=(0, 1), solver=TIGHT, data_weight=1.0, return_dual=True),
        TypeError,
        "`return_dual`",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()
