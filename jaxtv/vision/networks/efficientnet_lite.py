"""EfficientNet-Lite with trained weights (Tan & Le 2019, without squeeze and excitation)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtv.vision.networks.convolution import convolve_each

STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)
EPSILON = 1e-3  # of the batch norms


class Convolution(NamedTuple):
    """A kernel (h, w, i / groups, o) and bias (o,), with the batch norm that follows."""

    kernel: jax.Array
    bias: jax.Array


class Block(NamedTuple):
    """Inverted bottleneck; the first block has no expansion."""

    expand: Convolution | None
    depthwise: Convolution
    project: Convolution

    @property
    def starts_stage(self) -> bool:
        """Whether the number of channels changes, as at the start of every stage."""
        first = self.depthwise if self.expand is None else self.expand
        inputs = self.depthwise.bias.shape[0] if self.expand is None else first.kernel.shape[2]
        return inputs != self.project.bias.shape[0]


class EfficientNetLite(NamedTuple):
    """All weights; `kernel` (features, classes) and `bias` are of the last, dense layer."""

    stem: Convolution
    blocks: tuple[Block, ...]
    head: Convolution
    kernel: jax.Array
    bias: jax.Array


def from_state(state: Mapping[str, np.ndarray]) -> EfficientNetLite:
    """The network of the tensors of PyTorch, by name.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the number of stages is not that of an EfficientNet.
    """

    def conv(name: str, norm: str) -> Convolution:
        mean, variance = (state[f"{norm}.running_{moment}"] for moment in ("mean", "var"))
        scale = state[f"{norm}.weight"] / np.sqrt(variance + np.float32(EPSILON))
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0) * scale
        return Convolution(jnp.asarray(kernel), jnp.asarray(state[f"{norm}.bias"] - mean * scale))

    def block(name: str) -> Block:
        expands = f"{name}._expand_conv.weight" in state
        return Block(
            conv(f"{name}._expand_conv", f"{name}._bn0") if expands else None,
            conv(f"{name}._depthwise_conv", f"{name}._bn1"),
            conv(f"{name}._project_conv", f"{name}._bn2"),
        )

    count = len({name.split(".")[1] for name in state if name.startswith("_blocks.")})
    blocks = tuple(block(f"_blocks.{i}") for i in range(count))
    stages = sum(block.starts_stage for block in blocks)
    if stages != len(STAGE_STRIDES):
        raise ValueError(f"it has {stages} stages, not {len(STAGE_STRIDES)}")
    return EfficientNetLite(
        conv("_conv_stem", "_bn0"),
        blocks,
        conv("_conv_head", "_bn1"),
        jnp.asarray(state["_fc.weight"].T),
        jnp.asarray(state["_fc.bias"]),
    )


@functools.partial(jax.jit, static_argnames="stride")
def features(net: EfficientNetLite, x: jax.Array, stride: int = 32) -> jax.Array:
    """What is averaged over positions for the last layer.

    Args:
        net: the network.
        x: (N, H, W, 3), float32, (uint8 - 127) / 128.
        stride: 32 as trained; with 16 or 8 the last strides are taken out, and later kernels are
            dilated instead.

    Returns:
        (N, H/stride, W/stride, features), float32.
    """
    x, reached, dilation = jax.nn.relu6(_convolve(net.stem, x, 2)), 2, 1
    stages = iter(STAGE_STRIDES)
    for block in net.blocks:
        step = next(stages) if block.starts_stage else 1
        taken = step if reached * step <= stride else 1
        y = x if block.expand is None else jax.nn.relu6(_convolve(block.expand, x))
        y = convolve_each(y, block.depthwise.kernel, taken, dilation)
        y = jax.nn.relu6(y + block.depthwise.bias.reshape(1, 1, 1, -1))
        reached, dilation = reached * taken, dilation * step // taken
        y = _convolve(block.project, y)
        x = x + y if x.shape == y.shape else y
    return jax.nn.relu6(_convolve(net.head, x))


def _convolve(conv: Convolution, x: jax.Array, stride: int = 1) -> jax.Array:
    strides, numbers = (stride, stride), ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, conv.kernel, strides, "SAME", dimension_numbers=numbers)
    return y + conv.bias.reshape(1, 1, 1, -1)
