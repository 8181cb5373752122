"""PiDiNet with trained weights: edges from differences of pixels (Su et al., ICCV 2021)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtv.vision.networks.convolution import convolve_each

KINDS = ("cd", "ad", "rd", "cv")  # of the stem and the blocks in turn: the authors' "carv4"
BLOCKS = (3, 4, 4, 4)  # in each stage; each but the first stage begins with a pooling
WIDTHS = (1, 2, 4, 4)  # of the stages, in widths of the stem
DILATIONS = (5, 7, 9, 11)
ATTENTION = 4  # channels
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red, green, blue
CLOCKWISE = (0, 1, 2, 5, 8, 7, 6, 3)  # the neighbours in a kernel of 3x3, row by row


class Linear(NamedTuple):
    """A convolution of 1x1: kernel (i, o) and bias (o,)."""

    kernel: jax.Array
    bias: jax.Array


class Block(NamedTuple):
    """A convolution of each channel, (k, k, 1, i), and one of 1x1, (i, o); none has a bias."""

    each: jax.Array
    mix: jax.Array
    shortcut: Linear | None  # after a pooling


class Side(NamedTuple):
    """What makes a map of a stage: dilated convolutions (CDCM), attention (CSAM), their sum."""

    reduce: Linear
    dilated: tuple[jax.Array, ...]  # (3, 3, c, c) for each of `DILATIONS`
    attend: Linear
    attention: jax.Array
    out: Linear


class PiDiNet(NamedTuple):
    """All weights."""

    stem: jax.Array
    stages: tuple[tuple[Block, ...], ...]
    sides: tuple[Side, ...]
    fuse: Linear


def from_state(state: Mapping[str, np.ndarray]) -> PiDiNet:
    """The network of the tensors of PyTorch, by name, at any width.

    Raises:
        KeyError: a tensor is missing.
        ValueError: a tensor has another shape than the first ones ask for.
    """
    kinds = iter(KINDS * BLOCKS[-1])

    def weight(name: str, *shape: int) -> np.ndarray:
        if state[name].shape != shape:
            raise ValueError(f"{name} is {state[name].shape}, not {shape}")
        return state[name].astype(np.float32)

    def kernel(name: str, *shape: int, kind: str = "cv") -> jax.Array:
        return jnp.asarray(plain(weight(f"{name}.weight", *shape), kind).transpose(2, 3, 1, 0))

    def linear(name: str, i: int, o: int) -> Linear:
        bias = jnp.asarray(weight(f"{name}.bias", o))
        return Linear(kernel(name, o, i, 1, 1)[0, 0], bias)

    def block(name: str, i: int, o: int, pools: bool) -> Block:
        each = kernel(f"{name}.conv1", i, 1, 3, 3, kind=next(kinds))
        mix = kernel(f"{name}.conv2", o, i, 1, 1)[0, 0]
        return Block(each, mix, linear(f"{name}.shortcut", i, o) if pools else None)

    def stage(s: int) -> tuple[Block, ...]:
        before, o = widths[max(s - 1, 0)], widths[s]
        inputs = [before, *[o] * (BLOCKS[s] - 1)]
        return tuple(
            block(f"block{s + 1}_{b + 1}", i, o, pools=s > 0 and b == 0)
            for b, i in enumerate(inputs)
        )

    def side(s: int) -> Side:
        return Side(
            linear(f"dilations.{s}.conv1", widths[s], reduced),
            tuple(
                kernel(f"dilations.{s}.conv2_{d + 1}", reduced, reduced, 3, 3)
                for d in range(len(DILATIONS))
            ),
            linear(f"attentions.{s}.conv1", reduced, ATTENTION),
            kernel(f"attentions.{s}.conv2", 1, ATTENTION, 3, 3),
            linear(f"conv_reduces.{s}.conv", reduced, 1),
        )

    width, reduced = len(state["init_block.weight"]), len(state["dilations.0.conv1.weight"])
    widths = [width * factor for factor in WIDTHS]
    stem = kernel("init_block", width, 3, 3, 3, kind=next(kinds))
    stages, sides = zip(*((stage(s), side(s)) for s in range(len(BLOCKS))))
    return PiDiNet(stem, stages, sides, linear("classifier", len(BLOCKS), 1))


def plain(weight: np.ndarray, kind: str) -> np.ndarray:
    """The kernel of the same convolution on pixels instead of their differences.

    Args:
        weight: (o, i, 3, 3), or any for "cv".
        kind: differences to the middle ("cd"), to the next neighbour clockwise ("ad"), between
            neighbours at distances 2 and 1 ("rd"), or none ("cv").

    Returns:
        (o, i, 3, 3); (o, i, 5, 5) for "rd", whose first weight has no use.
    """
    if kind == "cv":
        return weight
    flat = weight.reshape(*weight.shape[:2], 9).copy()
    if kind == "rd":
        flat = np.insert(flat[..., 1:], 4, 0, axis=-1)
        out = np.zeros((*weight.shape[:2], 5, 5), weight.dtype)
        out[..., ::2, ::2] = flat.reshape(weight.shape)
        out[..., 1:4, 1:4] -= flat.reshape(weight.shape)
        return out
    if kind == "cd":
        flat[..., 4] -= flat.sum(axis=-1)
    else:
        flat[..., CLOCKWISE] -= flat[..., np.roll(CLOCKWISE, 1)]
        flat[..., 4] = 0
    return flat.reshape(weight.shape)


@jax.jit
def logits(net: PiDiNet, images: jax.Array) -> jax.Array:
    """The fused map, before the sigmoid.

    Args:
        net: the network.
        images: (N, H, W, 3), float32, red, green, blue, 0 to 1; H and W are at least 8.

    Returns:
        (N, H, W), float32.
    """
    mean, deviation = (jnp.asarray([[[each]]], images.dtype) for each in (MEAN, DEVIATION))
    x, maps = _convolve((images - mean) / deviation, net.stem), []
    for stage, side in zip(net.stages, net.sides):
        for block in stage:
            x = _block(block, x)
        maps.append(jax.image.resize(_side(side, x), (*images.shape[:3], 1), "linear"))
    return _linear(net.fuse, jnp.concatenate(maps, axis=-1))[..., 0]


def _block(block: Block, x: jax.Array) -> jax.Array:
    if block.shortcut is not None:
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    y = jax.nn.relu(convolve_each(x, block.each)) @ block.mix
    return y + (x if block.shortcut is None else _linear(block.shortcut, x))


def _side(side: Side, x: jax.Array) -> jax.Array:
    x = _linear(side.reduce, jax.nn.relu(x))
    x = functools.reduce(jnp.add, map(_convolve, [x] * len(DILATIONS), side.dilated, DILATIONS))
    attention = _convolve(_linear(side.attend, jax.nn.relu(x)), side.attention)
    return _linear(side.out, x * jax.nn.sigmoid(attention))


def _linear(linear: Linear, x: jax.Array) -> jax.Array:
    return x @ linear.kernel + linear.bias.reshape(1, 1, 1, -1)


def _convolve(x: jax.Array, kernel: jax.Array, dilation: int = 1) -> jax.Array:
    dilations, numbers = (dilation, dilation), ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", rhs_dilation=dilations, dimension_numbers=numbers
    )
