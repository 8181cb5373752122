"""Convolutions with their own weight gradient on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtv.vision.networks import convolution
from jaxtv.vision.networks.convolution import Conv, convolve

from .conftest import one_device

pytestmark = [pytest.mark.float32, pytest.mark.cpu_only]
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def gradients(f, x, kernel, padding, stride):
    def loss(x, kernel):
        y = f(x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS)
        return jnp.sum(jnp.sin(y))  # a gradient that differs at every position

    return jax.jit(jax.grad(loss, (0, 1)))(x, kernel)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [(12, 3, 1, "SAME"), (11, 3, 2, "SAME"), (9, 2, 2, "VALID"), (8, 1, 1, ((0, 0), (0, 0)))],
)
def test_gradients_are_xlas_to_round_off(monkeypatch, side, kernel, stride, padding):
    positions = (side // stride) ** 2
    monkeypatch.setattr(convolution, "_PATCHES", 2 * positions * kernel**2 * 3)  # 2, 2 and 1
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((5, side, side, 3)), jnp.float32)
    k = jnp.asarray(rng.standard_normal((kernel, kernel, 3, 4)), jnp.float32)
    expected = gradients(jax.lax.conv_general_dilated, x, k, padding, stride)
    with one_device():
        found = gradients(convolve, x, k, padding, stride)
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def convolutions_of(f, x, k, **options):
    """Of a weight gradient, as XLA gets it."""
    g = jax.grad(
        lambda k: jnp.sum(f(x, k, (1, 1), "SAME", dimension_numbers=DIMENSIONS, **options))
    )
    return jax.jit(g).lower(k).as_text().count("stablehlo.convolution")


def test_a_large_batch_is_taken_in_parts_on_one_cpu_alone():
    x, k = jnp.zeros((4, 256, 256, 2)), jnp.zeros((4, 4, 2, 2))  # patches of 2 have 2²² numbers
    with one_device():
        assert convolutions_of(convolve, x, k) == 2
        assert convolutions_of(convolve, x[:3], k) == 1
        assert convolutions_of(convolve, x, k[:, :, :1], feature_group_count=2) == 1
        assert convolutions_of(convolve, x, k, rhs_dilation=(2, 2)) == 1
    assert jax.device_count() > 1
    assert convolutions_of(convolve, x, k) == 1


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((0, 6, 6, 3), {"dimension_numbers": DIMENSIONS}),
        ((2, 2, 6, 3), {"dimension_numbers": DIMENSIONS}),  # no output
        ((2, 6, 6, 3), {"dimension_numbers": DIMENSIONS, "preferred_element_type": jnp.float32}),
        ((2, 3, 6, 6), {"dimension_numbers": ("NCHW", "HWIO", "NCHW")}),
    ],
)
def test_what_is_empty_or_has_options_is_as_in_xla(shape, options):
    x, kernel = jnp.ones(shape, jnp.bfloat16), jnp.ones((3, 3, 3, 4), jnp.bfloat16)

    def value_and_gradients(convolution):
        y, to_operands = jax.vjp(
            lambda x, k: convolution(x, k, (1, 1), "VALID", **options), x, kernel
        )
        return y, *to_operands(jnp.ones_like(y))

    with one_device():
        found = value_and_gradients(convolve)
    for a, b in zip(found, value_and_gradients(jax.lax.conv_general_dilated)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_half_types_keep_their_type_and_are_summed_in_float32(monkeypatch):
    """256 + 1 + 1, an image each: bfloat16 has 258, and would round 257 to 256."""
    monkeypatch.setattr(convolution, "_PATCHES", 1)
    x = jnp.array([256, 1, 1], jnp.bfloat16).reshape(3, 1, 1, 1)
    with one_device():
        y = lambda k: convolve(x, k, (1, 1), "SAME", dimension_numbers=DIMENSIONS)
        gradient = jax.grad(lambda k: jnp.sum(y(k)))(jnp.zeros((1, 1, 1, 1), jnp.bfloat16))
    assert gradient.dtype == jnp.bfloat16
    assert float(gradient[0, 0, 0, 0]) == 258


def test_layers_of_all_networks_use_it(untrained):
    for task, variant in (("classification", "baseline"), ("denoising", "tv"), ("edges", "tv")):
        layers = [m for _, m in nnx.iter_graph(untrained(task, variant)) if isinstance(m, nnx.Conv)]
        assert layers
        assert all(layer.conv_general_dilated is convolve for layer in layers), task
    assert Conv.keywords == {"conv_general_dilated": convolve}
