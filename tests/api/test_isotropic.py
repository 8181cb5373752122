"""prox_tv_isotropic: certificates computed in NumPy, scikit-image, finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from skimage.restoration import denoise_tv_chambolle

import jaxtv
from testing.lowering import plain_jax

TIGHT = jaxtv.FGP(tol=1e-13, max_iterations=100_000)


def data(shape, seed=0, dtype=np.float64):
    """Steps and noise."""
    rng = np.random.default_rng(seed)
    steps = sum(np.indices(shape)) > sum(shape) / 2 - 1
    x = steps + 0.3 * rng.normal(size=shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * (steps - 0.3 * rng.normal(size=shape))
    return x.astype(dtype)


def differences(y, axes):
    """(axes, ...): forward differences, 0 after the last sample."""
    last = lambda a: [slice(-1, None) if b == a else slice(None) for b in range(y.ndim)]
    return np.stack([np.diff(y, axis=a, append=y[tuple(last(a))]) for a in axes])


def norms(v, channel):
    """|v_p| of an array (axes, ...)."""
    square = np.sum(np.abs(v) ** 2, 0)
    return np.sqrt(square if channel is None else square.sum(channel, keepdims=True))


def objective(x, y, lam, axes, channel):
    every = (*axes,) if channel is None else (*axes, channel)
    variation = np.sum(lam * norms(differences(y, axes), channel), every)
    return np.sum(np.abs(x - y) ** 2, every) / 2 + variation


def dual_value(x, u, axes, channel):
    """A lower bound of the objective, for any u with |u_p| <= lam."""
    rest = np.asarray(x).copy()
    for v, a in zip(u, axes, strict=True):
        v, rest = np.moveaxis(v, a, 0), np.moveaxis(rest, a, 0)  # a view
        rest[:-1] += v[:-1]
        rest[1:] -= v[:-1]
        rest = np.moveaxis(rest, 0, a)
    every = (*axes,) if channel is None else (*axes, channel)
    return np.sum(np.abs(x) ** 2 - np.abs(rest) ** 2, every) / 2


# shape, axes, channel_axis, shape of lam, dtype
CASES = {
    "image": ((9, 11), (0, 1), None, (), np.float64),
    "per pixel": ((9, 11), (0, 1), None, (9, 11), np.float64),
    "per row": ((2, 9, 11), (-2, -1), None, (9, 1), np.float64),
    "channels apart, one each": ((2, 6, 7, 3), (1, 2), None, (3,), np.float64),
    "channels coupled": ((2, 6, 7, 3), (1, 2), -1, (), np.float64),
    "coupled, per image and pixel": ((3, 2, 6, 7), (3, 2), 0, (2, 6, 7), np.float64),
    "volume": ((4, 5, 6), (0, 1, 2), None, (), np.float64),
    "signals": ((3, 12), 1, None, (3, 1), np.float64),
    "coupled signals": ((12, 3), 0, 1, (), np.float64),
    "one row": ((1, 12), (0, 1), None, (), np.float64),
    "complex": ((6, 7), (0, 1), None, (), np.complex128),
    "complex, coupled": ((6, 7, 2), (0, 1), 2, (6, 7, 1), np.complex128),
}


def case(name):
    """(x, lam, options, channel axis and axes as NumPy takes them)."""
    shape, axes, channel, of_lam, dtype = CASES[name]
    lam = np.random.default_rng(1).uniform(0.1, 0.5, of_lam)
    options = {"axes": axes, "channel_axis": channel}
    plain = tuple(a % len(shape) for a in np.atleast_1d(axes))
    plain_channel = None if channel is None else channel % len(shape)
    return jnp.asarray(data(shape, dtype=dtype)), jnp.asarray(lam), options, plain, plain_channel


@functools.partial(jax.jit, static_argnames=("axes", "channel_axis", "solver"))
def solve(x, lam, init_dual=None, *, axes, channel_axis=None, solver=TIGHT):
    return jaxtv.prox_tv_isotropic(
        x,
        lam,
        axes=axes,
        channel_axis=channel_axis,
        solver=solver,
        init_dual=init_dual,
        return_info=True,
        return_dual=True,
    )


NIGHTLY = {"image", "per row", "signals", "one row", "complex, coupled"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.nightly) if n in NIGHTLY else n for n in CASES]
)
def test_solution_is_optimal(name):
    """Its dual is feasible, and a gap computed from both proves it optimal."""
    x, lam, options, axes, channel = case(name)
    y, info, dual = solve(x, lam, **options)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert [v.shape for v in dual] == [x.shape] * len(axes)
    assert np.all(norms(np.stack(dual), channel) <= np.asarray(lam) * (1 + 1e-14))
    best = objective(np.asarray(x), np.asarray(y), np.asarray(lam), axes, channel)
    gap = best - dual_value(np.asarray(x), dual, axes, channel)
    assert info.gap.shape == best.shape
    assert np.all(np.abs(gap) <= 1e-12 * best)
    np.testing.assert_allclose(info.gap, gap, rtol=0, atol=1e-13 * best.max())
    assert info.converged.all()


def test_scikit_image_agrees():
    x = data((24, 20))
    want = denoise_tv_chambolle(x, weight=0.3, eps=0, max_num_iter=20_000)
    y, info, _ = solve(x, 0.3, axes=(0, 1))
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-4)
    assert objective(x, y, 0.3, (0, 1), None) <= objective(x, want, 0.3, (0, 1), None) + info.gap


@pytest.mark.nightly
def test_scikit_image_agrees_on_colours():
    x = data((12, 10, 3))
    want = denoise_tv_chambolle(x, weight=0.3, eps=0, max_num_iter=20_000, channel_axis=-1)
    apart, *_ = solve(x, 0.3, axes=(0, 1))  # scikit-image does not couple channels
    np.testing.assert_allclose(apart, want, rtol=0, atol=1e-4)
    coupled, *_ = solve(x, 0.3, axes=(0, 1), channel_axis=2)
    assert np.abs(coupled - want).max() > 0.02


def test_one_axis_is_the_exact_1d_prox():
    x, lam, options, *_ = case("signals")
    exact = jaxtv.prox_tv1d(x, lam)
    np.testing.assert_allclose(solve(x, lam, **options)[0], exact, rtol=0, atol=1e-6)


# ---- kernels


@pytest.mark.parametrize("name", ["coupled, per image and pixel", "signals"])
def test_plain_jax_agrees(name):
    x, lam, options, *_ = case(name)
    options["solver"] = jaxtv.FGP(1e-6, 10_000)
    y, _, dual = solve(x, lam, **options)
    with plain_jax():
        other, other_info, other_dual = solve(x, lam, **options)
    assert other_info.converged.all()
    np.testing.assert_allclose(other, y, atol=2e-3)
    assert [v.shape for v in other_dual] == [v.shape for v in dual]


@pytest.mark.parametrize("shape", [(40, 1000), (20, 8, 300)])
def test_threads_change_no_bit(shape):
    """One image is solved by all threads, in strips; many, by a thread each."""
    x = data(shape, dtype=np.float32)
    axes = tuple(range(len(shape)))
    solver = jaxtv.FGP(1e-9, 25)
    y, info, dual = solve(x, 0.2, axes=axes, solver=solver)
    many = np.broadcast_to(x, (8, *shape))
    others = solve(many, 0.2, axes=tuple(a + 1 for a in axes), solver=solver)
    for one, batch in zip(jax.tree.leaves((y, info, dual)), jax.tree.leaves(others), strict=True):
        np.testing.assert_array_equal(batch, np.broadcast_to(one, batch.shape))
    x, y, dual = (np.asarray(v, np.float64) for v in (x, y, dual))
    value = objective(x, y, 0.2, axes, None)
    np.testing.assert_allclose(value - dual_value(x, dual, axes, None), info.gap, rtol=1e-3)


# ---- derivatives


def prox(x, lam, **options):
    return solve(x, lam, **options)[0]


@functools.partial(jax.jit, static_argnames=("axes", "channel_axis"))
def derivatives(x, lam, tx, tlam, **options):
    """(y, its tangent, the gradients of the sum of y²)."""
    f = functools.partial(prox, **options)
    y, pushed = jax.jvp(f, (x, lam), (tx, tlam))
    return y, pushed, *jax.vjp(f, x, lam)[1](2 * y)


@pytest.mark.parametrize("name", ["per pixel", "coupled, per image and pixel", "complex"])
def test_derivative_against_finite_differences(name):
    x, lam, options, *_ = case(name)
    tx = jnp.asarray(data(x.shape, 3, x.dtype))
    tlam = jnp.asarray(np.random.default_rng(2).normal(size=lam.shape))
    moved = lambda t: prox(x + t * tx, lam + t * tlam, **options)
    y, pushed, gx, glam = derivatives(x, lam, tx, tlam, **options)
    difference = (moved(1e-5) - moved(-1e-5)) / 2e-5
    np.testing.assert_allclose(pushed, difference, rtol=0, atol=2e-5)
    inner = jnp.sum(gx * tx).real + jnp.sum(glam * tlam)
    np.testing.assert_allclose(inner, jnp.sum(2 * y * pushed).real, rtol=1e-7)


def test_second_derivative():
    """H depends on y, so the prox has curvature where pixels move."""
    x = jnp.asarray(data((3, 4)))
    f = jax.jit(jax.grad(lambda x: jnp.sum(prox(x, 0.2, axes=(0, 1)) ** 3)))
    d = jnp.asarray(data(x.shape, 5))
    difference = (f(x + 1e-5 * d) - f(x - 1e-5 * d)) / 2e-5
    np.testing.assert_allclose(jax.jvp(f, (x,), (d,))[1], difference, rtol=0, atol=1e-6)


# ---- Info, starts, extremes


@pytest.mark.both_precisions
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_tolerance_is_met_per_element(tol, precision):
    dtype = np.float64 if precision == "x64" else np.float32
    x = np.stack([data((16, 14)), 5 * data((16, 14), 1), np.zeros((16, 14))]).astype(dtype)
    options = {"axes": (1, 2), "solver": jaxtv.FGP(tol)}
    y, info, _ = solve(x, 0.3, **options)
    best, *_ = solve(x, 0.3, axes=(1, 2), solver=jaxtv.FGP(1e-6, 20_000))
    assert info.converged.all()
    values = objective(x, np.asarray(y), 0.3, (1, 2), None)
    assert np.all(info.gap <= tol * values * (1 + 1e-5))
    assert np.all(np.sum((y - best) ** 2, (1, 2)) <= 2 * info.gap * (1 + 1e-2))
    alone = [solve(v, 0.3, axes=(0, 1), solver=jaxtv.FGP(tol)) for v in x]
    np.testing.assert_array_equal(info.iterations, [i.iterations for _, i, _ in alone])
    assert len(set(info.iterations.tolist())) == 3
    for one, (other, _, _) in zip(y, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_unfinished_solves_are_reported():
    x = data((12, 10))
    y, info, _ = solve(x, 0.3, axes=(0, 1), solver=jaxtv.FGP(1e-6, 3))
    assert not info.converged
    assert info.iterations == 3
    best, *_ = solve(x, 0.3, axes=(0, 1))
    assert 0 < np.sum((y - best) ** 2) <= 2 * info.gap


def test_warm_start():
    x, lam, options, *_ = case("coupled, per image and pixel")
    options["solver"] = jaxtv.FGP(1e-6, 10_000)
    _, cold, dual = solve(x, lam, **options)
    y, warm, _ = solve(x, 1.01 * lam, dual, **options)
    assert warm.converged.all()
    assert np.all(warm.iterations < cold.iterations)
    anything = (dual[0].at[0].set(jnp.nan), 1e300 * dual[1])
    far, info, _ = solve(x, 1.01 * lam, anything, **options)
    assert info.converged.all()
    np.testing.assert_allclose(far, y, atol=2e-3)
    loss = lambda x, start: jnp.sum(solve(x, lam, start, **options)[0] ** 2)
    assert not np.any(jax.grad(loss, 1)(x, dual)[0])


def test_extreme_weights():
    x = jnp.asarray(data((3, 8, 7)))
    lam = jnp.asarray([0.0, jnp.inf, 1e9])[:, None, None]
    y, info, _ = solve(x, lam, axes=(1, 2))
    np.testing.assert_array_equal(y[0], x[0])
    means = jnp.broadcast_to(jnp.mean(x, (1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(y[1:], means[1:], rtol=1e-15)
    assert info.converged.all()
    gx = jax.grad(lambda x: jnp.sum(prox(x, lam, axes=(1, 2))[:, 0, 0]))(x)
    want = np.zeros(x.shape)
    want[0, 0, 0], want[1:] = 1, 1 / 56
    np.testing.assert_allclose(gx, want, atol=1e-14)
    barrier = jnp.where(jnp.arange(8) == 3, 0.0, 0.4)[:, None]  # no weight after row 3
    one, *_ = solve(x[0], barrier, axes=(0, 1))
    below, *_ = solve(x[0, 4:], 0.4, axes=(0, 1))
    np.testing.assert_allclose(one[4:], below, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_numbers_near_the_ends_of_their_type(scale):
    x = data((6, 7))
    options = {"axes": (0, 1), "solver": jaxtv.FGP(1e-6, 10_000)}
    y, info, _ = solve(scale * x, 0.3 * scale, **options)
    np.testing.assert_allclose(y / scale, solve(x, 0.3, **options)[0], atol=2e-3)
    assert info.converged
    g = jax.grad(lambda x: prox(x, 0.3 * scale, **options)[2, 3])(scale * x)
    np.testing.assert_allclose(jnp.sum(g), 1, rtol=1e-6)


def test_batch_mates_change_no_bit():
    """One image is NaN, one infinite, one has a bad λ; a NaN in one channel is in all."""
    x, lam = np.stack([data((6, 5, 2), s) for s in range(4)]), np.full((4, 1, 1, 1), 0.3)
    want, *_ = solve(x, lam, axes=(1, 2), channel_axis=3, solver=jaxtv.FGP(1e-6))
    poisoned, bad = x.copy(), lam.copy()
    poisoned[0, 2, 3, 1], poisoned[1, 0, 0, 0], bad[2] = np.nan, np.inf, -1
    y, info, _ = solve(poisoned, bad, axes=(1, 2), channel_axis=3, solver=jaxtv.FGP(1e-6))
    assert np.isnan(y[:3]).all()
    assert np.isnan(info.gap[:3]).all()
    np.testing.assert_array_equal(info.converged, [False, False, False, True])
    np.testing.assert_array_equal(y[3], want[3])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types(dtype):
    x = jnp.asarray(data((9, 11)), dtype)
    options = {"axes": (0, 1), "solver": jaxtv.FGP()}
    y, _, dual = solve(x, 0.3, **options)
    assert y.dtype == dtype
    assert dual[0].dtype == jnp.float32
    np.testing.assert_array_equal(y, solve(x.astype("f4"), 0.3, **options)[0].astype(dtype))
    gradient = jax.eval_shape(lambda x: jax.vjp(lambda x: prox(x, 0.3, **options), x)[1](x)[0], x)
    assert gradient.dtype == dtype


def test_empty():
    y, info, dual = solve(jnp.zeros((2, 0, 3)), 0.3, axes=(1, 2))
    assert y.shape == dual[0].shape == (2, 0, 3)
    assert info.gap.shape == (2,)


# ---- transformations


def test_vmap():
    x, lam = jnp.asarray(data((4, 6, 5))), jnp.asarray([0.1, 0.2, 0.3, 0.4])
    f = functools.partial(prox, axes=(0, 1), solver=jaxtv.FGP(1e-6))
    both = jax.jit(jax.value_and_grad(lambda x, lam: jnp.sum(f(x, lam) ** 3), (0, 1)))
    values, grads = jax.vmap(both)(x, lam)
    value, one = both(x[1], lam[1])
    np.testing.assert_allclose(values[1], value, rtol=1e-14)
    np.testing.assert_allclose(grads[0][1], one[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(grads[1][1], one[1], rtol=1e-5)


def test_sharding():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    x, lam = jnp.asarray(data((8, 6, 5))), jnp.asarray(0.3)
    f = functools.partial(prox, axes=(1, 2), solver=jaxtv.FGP(1e-6))

    def everything(f):
        y, pull = jax.vjp(f, x, lam)
        return y, *pull(2 * y)

    inside = jax.shard_map(f, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    for got, want in zip(*(jax.jit(everything, static_argnums=0)(g) for g in (inside, f))):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    placed = jax.device_put(x, NamedSharding(mesh, P("data")))
    compiled = jax.jit(f).lower(placed, lam).compile()
    assert "all-" not in compiled.as_text()
    np.testing.assert_array_equal(compiled(placed, lam), f(x, lam))


# ---- layers, arguments


@pytest.mark.parametrize("flavour", ["linen", "nnx"])
def test_layers(flavour):
    x = jnp.asarray(data((2, 6, 5, 3), dtype=np.float32))
    options = {"isotropic": True, "init_lam": 0.2, "per_channel": True}
    if flavour == "linen":
        layer = jaxtv.linen.TVLayer(**options)
        variables = layer.init(jax.random.key(0), x)
        apply = lambda v: layer.apply(v, x)
        y, g = apply(variables), jax.grad(lambda v: jnp.sum(apply(v) ** 2))(variables)
    else:
        layer = jaxtv.nnx.TVLayer(**options, num_channels=3)
        y, g = layer(x), nnx.grad(lambda m: jnp.sum(m(x) ** 2))(layer)
    want = prox(x, jnp.full(3, 0.2, x.dtype), axes=(1, 2), solver=jaxtv.FGP())
    np.testing.assert_allclose(y, want, atol=1e-5)
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(g))


X = np.zeros((4, 5, 3))
MISTAKES = {
    "solver": ({"solver": jaxtv.Dykstra()}, TypeError, "FGP"),
    "channel among axes": ({"channel_axis": 1}, ValueError, "channel_axis"),
    "channel out of range": ({"channel_axis": 3}, ValueError, "channel_axis"),
    "channel in words": ({"channel_axis": "last"}, TypeError, "channel_axis"),
    "axes": ({"axes": (0, 3)}, ValueError, "axes"),
    "lam per coupled channel": ({"channel_axis": 2, "lam": np.ones(3)}, ValueError, "channel axis"),
    "lam per image": ({"lam": np.ones(4)}, ValueError, "lam"),
    "lam of edges": ({"lam": np.ones((3, 5, 1))}, ValueError, "lam"),
    "lam a pair": ({"lam": (0.1, 0.1)}, TypeError, "lam"),
    "lam below 0": ({"lam": -0.1}, ValueError, "lam"),
    "integers": ({"x": X.astype(int)}, TypeError, "x"),
    "start": ({"init_dual": (X,)}, ValueError, "init_dual"),
    "complex start": ({"init_dual": (X + 0j, X + 0j)}, TypeError, "init_dual"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_arguments(mistake):
    options, error, match = MISTAKES[mistake]
    with pytest.raises(error, match=match):
        jaxtv.prox_tv_isotropic(**{"x": X, "lam": 0.1, "axes": (0, 1)} | options)


def test_solver_object():
    for options in ({"tol": -1.0}, {"max_iterations": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            jaxtv.FGP(**options)
    with pytest.raises(TypeError, match="Dykstra"):
        jaxtv.prox_tv(X, 0.1, axes=(0, 1), solver=jaxtv.FGP())
    for layer in (jaxtv.linen.TVLayer, jaxtv.nnx.TVLayer):
        with pytest.raises(TypeError, match="FGP"):
            layer(isotropic=True, solver=jaxtv.Dykstra())


def test_wrong_calls_of_the_target_are_refused():
    """Straight at it."""
    x, w, joined = np.zeros((2, 1, 5)), np.ones((2, 1, 5)), np.zeros((2, 1, 5), np.uint8)
    infos = [np.zeros(2), np.zeros(2, np.int32), np.zeros(2, bool)]

    def call(x=x, w=w, start=(x,), joined=joined, axes=(1, 2), tol=1e-6, max_iterations=9):
        outs = [x, *infos, *start, joined]
        results = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in outs]
        attributes = {"axes": np.asarray(axes), "tol": np.float64(tol)}
        attributes["max_iterations"] = np.int64(max_iterations)
        out = jax.ffi.ffi_call("jaxtv_isotropic", results)(x, w, *start, **attributes)
        return jax.block_until_ready(out)

    np.testing.assert_array_equal(call()[0], x)
    wrong = [
        {"w": w[..., :1, :4]},
        {"w": w.astype("f4")},
        {"w": np.ones((2, 5))},
        {"start": (x, x)},
        {"start": (x[..., :3],)},
        {"joined": joined[:1]},
        {"axes": (0, 2)},
        {"axes": (0, 1)},
        {"axes": (2,)},
        {"tol": -1.0},
        {"max_iterations": 0},
        {"x": x.astype("f4")},
    ]
    for options in wrong:
        with pytest.raises(jax.errors.JaxRuntimeError, match="jaxtv"):
            call(**options)
