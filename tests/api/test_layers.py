"""The two TVLayers: same numbers as the functional API, parameters, dtypes, transformations."""

import math
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import jaxtv
import jaxtv.linen
import jaxtv.nnx
from jaxtv import _layer

HALF = (jnp.bfloat16, jnp.float16)

# Layer arguments, and the equivalent call of the functional API given (x, λ).
LAYERS = {
    "nhwc": ({}, lambda x, lam: jaxtv.prox_tv2d(x, lam, axes=(-3, -2))),
    "nhwc per channel": (
        {"per_channel": True},
        lambda x, lam: jaxtv.prox_tv2d(x, lam.reshape(1, 1, 1, -1), axes=(-3, -2)),
    ),
    "nchw per channel": (
        {"axes": (-2, -1), "per_channel": True, "channel_axis": -3},
        lambda x, lam: jaxtv.prox_tv2d(x, lam.reshape(1, -1, 1, 1), axes=(-2, -1)),
    ),
    "rows": ({"axes": -2}, lambda x, lam: jaxtv.prox_tv1d(x, lam, axis=-2)),
    "columns": ({"axes": -3}, lambda x, lam: jaxtv.prox_tv1d(x, lam, axis=-3)),
    "columns per channel": (
        {"axes": (-3,), "per_channel": True, "channel_axis": 3},
        lambda x, lam: jaxtv.prox_tv1d(x, lam.reshape(1, 1, 1, -1), axis=-3),
    ),
    "one sweep": (
        {"solver": jaxtv.Dykstra(iterations=1, inner=jaxtv.Direct("taut_string"))},
        lambda x, lam: jaxtv.prox_tv2d(x, lam, axes=(-3, -2), solver=jaxtv.Dykstra(1)),
    ),
    "three axes": (
        {"axes": (-4, -3, -2)},
        lambda x, lam: jaxtv.prox_tv(x, lam, axes=(-4, -3, -2), solver=jaxtv.Dykstra(4)),
    ),
}

BAD_ARGUMENTS = [
    ({"mode": "sharpen"}, "`mode`.*'sharpen'"),
    ({"init_lam": 0.0}, "`init_lam`.*inverse softplus"),
    ({"init_lam": math.inf}, "`init_lam`.*inverse softplus"),
    ({"init_lam": -1.0, "trainable": False}, "`init_lam`.*>= 0"),
    ({"init_lam": math.nan}, "`init_lam`.*nan"),
    ({"axes": ()}, "`axes`"),
    ({"axes": (-2, -2)}, "`axes`"),
]


def float_dtype():
    return jnp.zeros(()).dtype


def picture(shape=(2, 7, 6, 3), seed=0, dtype=None):
    return jax.random.normal(jax.random.key(seed), shape, dtype or float_dtype())


def channels(x, channel_axis=-1, per_channel=False, **_):
    return x.shape[channel_axis] if per_channel else None


def make_linen(x, raw_lam=None, **arguments):
    """A linen layer, its variables, λ̃ replaced if given."""
    layer = jaxtv.linen.TVLayer(**{"param_dtype": x.dtype, **arguments})
    variables = layer.init(jax.random.key(0), x)
    if raw_lam is not None:
        assert variables["params"]["raw_lam"].shape == raw_lam.shape
        variables = {"params": {"raw_lam": raw_lam}}
    return layer, variables


def make_nnx(x, raw_lam=None, **arguments):
    layer = jaxtv.nnx.TVLayer(
        **{"param_dtype": x.dtype, **arguments},
        num_channels=channels(x, **arguments),
        rngs=nnx.Rngs(0),
    )
    if raw_lam is not None:
        assert layer.raw_lam.shape == raw_lam.shape
        layer.raw_lam[...] = raw_lam
    return layer


def outputs(x, raw_lam=None, **arguments):
    """The results of the linen and of the NNX layer."""
    layer, variables = make_linen(x, raw_lam, **arguments)
    return layer.apply(variables, x), make_nnx(x, raw_lam, **arguments)(x)


@pytest.mark.both_precisions
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("mode", ["smooth", "sharp"])
def test_equals_functional_api(name, mode):
    arguments, prox = LAYERS[name]
    x = picture()
    raw_lam = -2.0 + jnp.arange(channels(x, **arguments) or 1, dtype=x.dtype)
    if not arguments.get("per_channel"):
        raw_lam = raw_lam[0]
    if arguments.get("channel_axis") == -3:
        raw_lam = -2.0 + jnp.arange(x.shape[-3], dtype=x.dtype)
    expected = prox(x, jax.nn.softplus(raw_lam))
    expected = 2 * x - expected if mode == "sharp" else expected
    from_linen, from_nnx = outputs(x, raw_lam, mode=mode, **arguments)
    np.testing.assert_array_equal(from_linen, expected)
    np.testing.assert_array_equal(from_nnx, expected)


@pytest.mark.both_precisions
@pytest.mark.parametrize("shape", [(7, 6, 3), (5, 2, 7, 6, 3)])
def test_any_number_of_leading_axes(shape):
    x = picture(shape)
    from_linen, from_nnx = outputs(x, per_channel=True)
    expected = jaxtv.prox_tv2d(x, make_nnx(x).lam, axes=(-3, -2))
    np.testing.assert_array_equal(from_linen, expected)
    np.testing.assert_array_equal(from_nnx, from_linen)


@pytest.mark.both_precisions
@pytest.mark.parametrize("shared", [True, False])
def test_parameter(shared):
    x = picture()
    layer, variables = make_linen(x, per_channel=not shared, init_lam=15.1)
    other = make_nnx(x, per_channel=not shared, init_lam=15.1)
    shape = () if shared else (3,)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"raw_lam": shape}}
    assert jax.tree.leaves(nnx.state(other, nnx.Param))[0].shape == shape
    for lam in (layer.bind(variables).lam, other.lam, nn.softplus(variables["params"]["raw_lam"])):
        assert lam.shape == shape
        assert lam.dtype == x.dtype
        np.testing.assert_allclose(lam, 15.1, rtol=1e-6)


def test_unbound_linen_layer_has_no_lam():
    with pytest.raises(ValueError, match="bind"):
        _ = jaxtv.linen.TVLayer().bind({}).lam


@pytest.mark.parametrize("lam", [1e-300, 1e-30, 1e-12, 1e-3, 0.05, 0.7, 1.0, 15.1, 40.0, 1e4, 1e30])
def test_inverse_softplus(lam):
    raw_lam = _layer.inverse_softplus(lam)
    # log1p(exp λ̃) written for either sign; λ̃ carries a relative error of 2^-53, λ of |λ̃| 2^-53.
    softplus = max(raw_lam, 0.0) + math.log1p(math.exp(-abs(raw_lam)))
    np.testing.assert_allclose(softplus, lam, rtol=1e-13)


@pytest.mark.parametrize("init_lam", [1e-20, 1e-6, 0.05, 15.1, 1e6])
def test_init_lam_in_float32(init_lam):
    layer = jaxtv.nnx.TVLayer(init_lam=init_lam, param_dtype=jnp.float32)
    # One rounding of λ̃ ≈ log λ in float32.
    rtol = 2e-7 * max(1.0, abs(math.log(init_lam)))
    np.testing.assert_allclose(layer.lam, init_lam, rtol=rtol)


@pytest.mark.both_precisions
@pytest.mark.parametrize("mode", ["smooth", "sharp"])
@pytest.mark.parametrize("init_lam", [0.0, 0.4])
def test_constant_lam(mode, init_lam):
    x = picture()
    arguments = {"trainable": False, "init_lam": init_lam, "mode": mode, "per_channel": True}
    layer, variables = make_linen(x, **arguments)
    other = jaxtv.nnx.TVLayer(**arguments)
    assert not jax.tree.leaves(variables)
    assert not jax.tree.leaves(nnx.state(other))
    for lam in (layer.bind(variables).lam, other.lam):
        np.testing.assert_allclose(lam, init_lam, rtol=1e-7)
    y = jaxtv.prox_tv2d(x, init_lam, axes=(-3, -2))
    expected = 2 * x - y if mode == "sharp" else y
    np.testing.assert_array_equal(layer.apply(variables, x), expected)
    np.testing.assert_array_equal(other(x), expected)
    if init_lam == 0:
        np.testing.assert_array_equal(expected, x)


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
@pytest.mark.parametrize("flavour", [jaxtv.linen, jaxtv.nnx])
def test_bad_arguments(flavour, arguments, message):
    with pytest.raises(ValueError, match=message):
        flavour.TVLayer(**arguments)


def test_num_channels_is_needed():
    with pytest.raises(ValueError, match="`num_channels`"):
        jaxtv.nnx.TVLayer(per_channel=True)


def test_wrong_number_of_channels():
    with pytest.raises(ValueError, match="4 channels on axis -1"):
        jaxtv.nnx.TVLayer(per_channel=True, num_channels=4)(picture(dtype=jnp.float32))


def test_raw_lam_of_another_package_has_a_wrong_shape():
    layer = jaxtv.nnx.TVLayer()
    layer.raw_lam = nnx.Param(jnp.zeros((1, 1), jnp.float32))
    with pytest.raises(ValueError, match=r"`raw_lam` must have shape .* got \(1, 1\)"):
        layer(picture(dtype=jnp.float32))


@pytest.mark.parametrize("channel_axis", [-2, 1, 7])
def test_bad_channel_axis(channel_axis):
    x = picture(dtype=jnp.float32)
    arguments = {"per_channel": True, "channel_axis": channel_axis}
    with pytest.raises(ValueError, match="`channel_axis`"):
        jaxtv.linen.TVLayer(**arguments).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="`channel_axis`"):
        jaxtv.nnx.TVLayer(**arguments, num_channels=7)(x)


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16", "float16", "int32"])
@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_dtypes_are_those_of_flax_layers(x_dtype, dtype, param_dtype):
    x = (20 * picture(dtype=jnp.float32)).astype(x_dtype)
    arguments = {"dtype": dtype, "param_dtype": param_dtype}
    with jax.numpy_dtype_promotion("standard"):
        expected = nnx.Linear(3, 3, rngs=nnx.Rngs(0), **arguments)(x).dtype
        from_linen, from_nnx = outputs(x, **arguments)
    assert from_linen.dtype == from_nnx.dtype == expected
    np.testing.assert_array_equal(from_linen, from_nnx)


@pytest.mark.parametrize("dtype", HALF)
def test_half_types_keep_lam_in_float32(dtype):
    # 0.0505 is no bfloat16 and no float16: a rounded λ would move the result, at this data scale,
    # by more than the rounding of the result.
    x = picture(dtype=jnp.float32).astype(dtype)
    raw_lam = jnp.asarray(-2.97, jnp.float32)
    from_linen, from_nnx = outputs(x, raw_lam, dtype=dtype, param_dtype=jnp.float32)
    exact = jaxtv.prox_tv2d(x.astype(jnp.float32), nn.softplus(raw_lam), axes=(-3, -2))
    np.testing.assert_array_equal(from_linen, exact.astype(dtype))
    np.testing.assert_array_equal(from_nnx, exact.astype(dtype))


def value(x, raw_lam, arguments):
    """A smooth function of a layer's output, by each flavour: (x, λ̃) -> number."""
    weights = picture(x.shape, seed=5)
    layer = jaxtv.linen.TVLayer(param_dtype=x.dtype, **arguments)
    graph, _ = nnx.split(make_nnx(x, **arguments))

    def by_linen(raw_lam, x):
        return jnp.sum(weights * layer.apply({"params": {"raw_lam": raw_lam}}, x))

    def by_nnx(raw_lam, x):
        merged = nnx.merge(graph, nnx.State({"raw_lam": nnx.Param(raw_lam)}))
        return jnp.sum(weights * merged(x))

    return by_linen, by_nnx


@pytest.mark.both_precisions
@pytest.mark.parametrize("mode", ["smooth", "sharp"])
def test_gradients(mode):
    x = picture((1, 9, 8, 2))
    raw_lam = jnp.asarray([-1.2, -2.0], x.dtype)
    by_linen, by_nnx = value(x, raw_lam, {"mode": mode, "per_channel": True})
    from_linen = jax.grad(by_linen, (0, 1))(raw_lam, x)
    from_nnx = jax.grad(by_nnx, (0, 1))(raw_lam, x)
    for a, b in zip(from_linen, from_nnx, strict=True):
        np.testing.assert_array_equal(a, b)

    # The prox is piecewise linear in λ and in x, softplus is smooth: central differences.
    eps = 1e-6 if x.dtype == jnp.float64 else 1e-2
    rtol = 1e-6 if x.dtype == jnp.float64 else 5e-2
    for channel in range(2):
        step = jnp.zeros_like(raw_lam).at[channel].set(eps)
        slope = (by_linen(raw_lam + step, x) - by_linen(raw_lam - step, x)) / (2 * eps)
        np.testing.assert_allclose(from_linen[0][channel], slope, rtol=rtol, atol=rtol)


@pytest.mark.cpu_only
@pytest.mark.parametrize("axes", [(-3, -2), -2])
@pytest.mark.parametrize("mode", ["smooth", "sharp"])
def test_a_training_step_adds_two_kernel_calls_and_no_copy(mode, axes):
    layer = jaxtv.linen.TVLayer(axes=axes, mode=mode, per_channel=True)
    x = jnp.ones((2, 6, 5, 3), jnp.float32)
    params = layer.init(jax.random.key(0), x)
    step = jax.value_and_grad(
        lambda params, x: (layer.apply(params, jnp.sin(x)) ** 2).sum(), (0, 1)
    )
    program = jax.jit(step).lower(params, x).compile().as_text()
    main = program[program.index("ENTRY ") :]
    assert main.count(" custom-call(") == 2
    assert not any(f" {moves}(" in program for moves in ("copy", "transpose"))


@pytest.mark.both_precisions
@pytest.mark.parametrize("mode", ["smooth", "sharp"])
def test_jit_and_vmap(mode):
    x = picture((4, 7, 6, 3))
    layer, variables = make_linen(x, mode=mode, per_channel=True)
    other = make_nnx(x, mode=mode, per_channel=True)
    expected = layer.apply(variables, x)
    close = {"rtol": 1e-5, "atol": 1e-5}  # jit may fuse 2x - y into one rounding
    np.testing.assert_allclose(jax.jit(layer.apply)(variables, x), expected, **close)
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(other, x), expected, **close)
    one_by_one = jax.vmap(layer.apply, in_axes=(None, 0))(variables, x)
    np.testing.assert_allclose(one_by_one, expected, **close)
    one_by_one = nnx.vmap(lambda m, x: m(x), in_axes=(None, 0))(other, x)
    np.testing.assert_allclose(one_by_one, expected, **close)


@pytest.mark.both_precisions
def test_linen_scan_over_remat_layers():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.remat(jaxtv.linen.TVLayer)(param_dtype=x.dtype)(x), None

    x = picture()
    scanned = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()
    variables = scanned.init(jax.random.key(0), x, None)
    (name,) = variables["params"]
    raw_lam = jnp.asarray([-3.0, -2.0, -1.0], x.dtype)
    assert variables["params"][name]["raw_lam"].shape == (3,)

    def by_scan(raw_lam):
        y, _ = scanned.apply({"params": {name: {"raw_lam": raw_lam}}}, x, None)
        return jnp.sum(y**2), y

    def by_loop(raw_lam):
        y = x
        for i in range(3):
            y = jaxtv.linen.TVLayer(param_dtype=x.dtype).apply(
                {"params": {"raw_lam": raw_lam[i]}}, y
            )
        return jnp.sum(y**2), y

    check_same_gradients(by_scan, by_loop, raw_lam)


@pytest.mark.both_precisions
def test_nnx_scan_over_remat_layers():
    x = picture()
    raw_lam = jnp.asarray([-3.0, -2.0, -1.0], x.dtype)

    @nnx.split_rngs(splits=3)
    @nnx.vmap(axis_size=3)
    def create(rngs):
        return jaxtv.nnx.TVLayer(param_dtype=x.dtype, rngs=rngs)

    graph, state = nnx.split(create(nnx.Rngs(0)))
    assert state["raw_lam"].shape == (3,)

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def forward(layer, x):
        return nnx.remat(lambda layer, x: layer(x))(layer, x)

    def by_scan(raw_lam):
        y = forward(nnx.merge(graph, nnx.State({"raw_lam": nnx.Param(raw_lam)})), x)
        return jnp.sum(y**2), y

    def by_loop(raw_lam):
        y = x
        for i in range(3):
            y = jaxtv.prox_tv2d(y, jax.nn.softplus(raw_lam[i]), axes=(-3, -2))
        return jnp.sum(y**2), y

    check_same_gradients(by_scan, by_loop, raw_lam)


def check_same_gradients(f, g, raw_lam):
    grad_f, y_f = jax.jit(jax.grad(f, has_aux=True))(raw_lam)
    grad_g, y_g = jax.grad(g, has_aux=True)(raw_lam)
    np.testing.assert_allclose(y_f, y_g, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grad_f, grad_g, rtol=1e-4, atol=1e-4)


@pytest.mark.both_precisions
@pytest.mark.parametrize("per_channel", [False, True])
def test_orbax_round_trip(tmp_path, per_channel):
    x = picture()
    arguments = {"per_channel": per_channel}
    raw_lam = jnp.full((3,) if per_channel else (), -0.3, x.dtype)
    layer, variables = make_linen(x, raw_lam, **arguments)
    trained = make_nnx(x, raw_lam, **arguments)
    fresh = make_nnx(x, **arguments)
    graph, state = nnx.split(fresh)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "linen", variables)
        checkpointer.save(tmp_path / "nnx", nnx.state(trained))
        checkpointer.wait_until_finished()
        _, empty = make_linen(x, **arguments)
        restored = checkpointer.restore(tmp_path / "linen", empty)
        merged = nnx.merge(graph, checkpointer.restore(tmp_path / "nnx", state))
    np.testing.assert_array_equal(restored["params"]["raw_lam"], raw_lam)
    np.testing.assert_array_equal(layer.apply(restored, x), layer.apply(variables, x))
    np.testing.assert_array_equal(merged.lam, trained.lam)
    assert not np.array_equal(fresh.lam, trained.lam)


def test_lam_learns_to_denoise():
    """λ rises from almost nothing to where the noise is gone: the loss falls several times."""
    clean = jnp.zeros((24, 24, 1), jnp.float32).at[8:16, 6:18].set(1.0)
    noisy = clean + 0.1 * picture(clean.shape, dtype=jnp.float32)
    model = jaxtv.nnx.TVLayer(init_lam=0.01)
    optimizer = nnx.Optimizer(model, optax.adam(0.2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(noisy) - clean) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    with jax.numpy_dtype_promotion("standard"):  # optax's Adam promotes
        losses = [float(step(model, optimizer)) for _ in range(30)]
    assert losses[-1] < losses[0] / 3
    assert 0.05 < model.lam < 0.5


def test_import_jaxtv_does_not_import_flax():
    code = (
        "import sys, jaxtv; assert 'flax' not in sys.modules; "
        "jaxtv.nnx.TVLayer; jaxtv.linen.TVLayer; assert 'flax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
