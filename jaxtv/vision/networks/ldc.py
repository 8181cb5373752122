"""LDC with trained weights: a small DexiNed for edges (Soria et al., IEEE Access 2022)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LAYERS = (2, 3)  # of the two dense blocks
SCALES = (1, 1, 2, 3)  # of the blocks' maps: each has 2**-scale of the image's resolution
UP = 16  # channels between the steps of an enlargement
HIDDEN, GROUPS = 32, 4  # channels of the fusion, and groups of its norm
EPSILON = 1e-5  # of the norms
MEAN = (123.68, 116.779, 103.939)  # red, green, blue


class Convolution(NamedTuple):
    """A kernel (h, w, i, o) and bias (o,), with the batch norm that follows, if there is one."""

    kernel: jax.Array
    bias: jax.Array


class Fusion(NamedTuple):
    """What weighs the maps: two convolutions, and the group norm (c,) between them."""

    first: Convolution
    scale: jax.Array
    shift: jax.Array
    second: Convolution


Pair = tuple[Convolution, Convolution]


class LDC(NamedTuple):
    """All weights."""

    blocks: tuple[Pair, Pair]
    dense: tuple[tuple[Pair, ...], tuple[Pair, ...]]
    sides: Pair  # from the first and second block to the next
    skips: tuple[Convolution, Convolution, Convolution]  # into the dense blocks
    up: tuple[tuple[Pair, ...], ...]  # per block: 1x1, then transposed, for each doubling
    fusion: Fusion


def from_state(state: Mapping[str, np.ndarray]) -> LDC:
    """The network of the tensors of PyTorch, by name, at any width.

    Raises:
        KeyError: a tensor is missing.
        ValueError: a tensor has another shape than the first ones ask for.
    """

    def tensor(name: str, *shape: int) -> np.ndarray:
        if state[name].shape != shape:
            raise ValueError(f"{name} is {state[name].shape}, not {shape}")
        return state[name].astype(np.float32)

    def conv(name: str, i: int, o: int, side: int, norm: str = "") -> Convolution:
        kernel = tensor(f"{name}.weight", o, i, side, side).transpose(2, 3, 1, 0)
        bias = tensor(f"{name}.bias", o)
        if norm:
            variance = tensor(f"{norm}.running_var", o)
            scale = tensor(f"{norm}.weight", o) / np.sqrt(variance + np.float32(EPSILON))
            kernel = kernel * scale
            bias = (bias - tensor(f"{norm}.running_mean", o)) * scale + tensor(f"{norm}.bias", o)
        return Convolution(jnp.asarray(kernel), jnp.asarray(bias))

    def pair(name: str, norm: str, i: int, o: int) -> Pair:
        first = conv(f"{name}.conv1", i, o, 3, f"{name}.{norm}1")
        return first, conv(f"{name}.conv2", o, o, 3, f"{name}.{norm}2")

    def dense(name: str, layers: int, i: int, o: int) -> tuple[Pair, ...]:
        inputs = [i, *[o] * (layers - 1)]
        return tuple(pair(f"{name}.denselayer{k + 1}", "norm", c, o) for k, c in enumerate(inputs))

    def mix(name: str, i: int, o: int) -> Convolution:
        return conv(f"{name}.conv", i, o, 1, f"{name}.bn")

    def up(name: str, i: int, scale: int) -> tuple[Pair, ...]:
        outputs, steps = [*[UP] * (scale - 1), 1], []
        for k, (a, b) in enumerate(zip([i, *outputs], outputs)):
            transposed, side = f"{name}.features.{3 * k + 2}", 2**scale
            kernel = tensor(f"{transposed}.weight", b, b, side, side)[..., ::-1, ::-1]
            bias = tensor(f"{transposed}.bias", b)
            enlarge = Convolution(jnp.asarray(kernel.transpose(2, 3, 0, 1)), jnp.asarray(bias))
            steps.append((conv(f"{name}.features.{3 * k}", a, b, 1), enlarge))
        return tuple(steps)

    one, two = (len(state[f"block_{k}.conv1.weight"]) for k in (1, 2))
    three, four = (len(state[f"dblock_{k}.denselayer1.conv1.weight"]) for k in (3, 4))
    widths = (one, two, three, four)
    return LDC(
        (pair("block_1", "bn", 3, one), pair("block_2", "bn", one, two)),
        (dense("dblock_3", LAYERS[0], two, three), dense("dblock_4", LAYERS[1], three, four)),
        (mix("side_1", one, two), mix("side_2", two, three)),
        (
            mix("pre_dense_2", two, three),
            mix("pre_dense_3", two, three),
            mix("pre_dense_4", three, four),
        ),
        tuple(up(f"up_block_{k + 1}", widths[k], SCALES[k]) for k in range(4)),
        Fusion(
            conv("block_cat.conv1", 4, HIDDEN, 3),
            jnp.asarray(tensor("block_cat.norm_layer1.weight", HIDDEN)),
            jnp.asarray(tensor("block_cat.norm_layer1.bias", HIDDEN)),
            conv("block_cat.conv3", HIDDEN, 4, 3),
        ),
    )


@jax.jit
def logits(net: LDC, images: jax.Array) -> jax.Array:
    """The fused map, before the sigmoid.

    Args:
        net: the network.
        images: (N, H, W, 3), float32, red, green, blue, 0 to 1.

    Returns:
        (N, H, W), float32. Within, the rim is repeated up to the next multiples of 8.
    """
    height, width = images.shape[1:3]
    x = (255 * images - jnp.asarray([[[MEAN]]], images.dtype))[..., ::-1]
    x = jnp.pad(x, ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    side = lambda mix, x: _convolve(mix, x[:, ::2, ::2])
    one = jax.nn.relu(_pair(net.blocks[0], x, stride=2))
    two = _pair(net.blocks[1], one)
    two_down = _pool(two)
    two_sum = two_down + side(net.sides[0], one)
    three = _dense(net.dense[0], two_sum, _convolve(net.skips[1], two_down))
    three_down = _pool(three)
    skip = _convolve(net.skips[2], three_down + side(net.skips[0], two_down))
    four = _dense(net.dense[1], three_down + side(net.sides[1], two_sum), skip)
    maps = [_enlarged(up, block) for up, block in zip(net.up, (one, two, three, four))]
    return _fused(net.fusion, jnp.concatenate(maps, axis=-1))[:, :height, :width]


def _pair(pair: Pair, x: jax.Array, stride: int = 1) -> jax.Array:
    return _convolve(pair[1], jax.nn.relu(_convolve(pair[0], x, 1, stride)), 1)


def _dense(layers: tuple[Pair, ...], x: jax.Array, skip: jax.Array) -> jax.Array:
    """Both convolutions' padding is before the first."""
    for first, second in layers:
        y = jax.nn.relu(_convolve(first, jax.nn.relu(x), 2))
        x = 0.5 * (_convolve(second, y) + skip)
    return x


def _pool(x: jax.Array) -> jax.Array:
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)


def _enlarged(steps: tuple[Pair, ...], x: jax.Array) -> jax.Array:
    for mix, enlarge in steps:
        x = _convolve(enlarge, jax.nn.relu(_convolve(mix, x)), enlarge.kernel.shape[0] // 2, 1, 2)
    return x


def _fused(fusion: Fusion, maps: jax.Array) -> jax.Array:
    """The mean of the maps with weights of each pixel."""
    y = _convolve(fusion.first, maps, 1)
    groups = y.reshape(*y.shape[:3], GROUPS, -1)
    moments = functools.partial(jnp.mean, axis=(1, 2, 4), keepdims=True)
    centred = groups - moments(groups)
    y = (centred * jax.lax.rsqrt(moments(centred**2) + EPSILON)).reshape(y.shape)
    y = jax.nn.relu(y * fusion.scale.reshape(1, 1, 1, -1) + fusion.shift.reshape(1, 1, 1, -1))
    return (maps * jax.nn.softmax(_convolve(fusion.second, y, 1), axis=-1)).sum(axis=-1)


def _convolve(
    conv: Convolution, x: jax.Array, pad: int = 0, stride: int = 1, dilation: int = 1
) -> jax.Array:
    y = jax.lax.conv_general_dilated(
        x,
        conv.kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        lhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + conv.bias.reshape(1, 1, 1, -1)
