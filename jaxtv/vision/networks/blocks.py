"""Layers that several networks are made of."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from jaxtv.vision.networks.convolution import Conv

# One object: two builds of a network are then the same program, and compile once.
HE = nnx.initializers.he_normal()


class ConvNorm(nnx.Module):
    """Convolution, another layer if any, and batch norm, then ReLU unless told otherwise.

    Args:
        i: channels of the input.
        o: channels of the output.
        kernel: its side, or its height and width.
        stride: of both axes.
        relu: with ReLU.
        before_norm: the other layer.
        options: for `nnx.Conv`: `kernel_init` (by default He's), `use_bias`, `padding`.
        dtype: of activations.
        rngs: of the weights.
    """

    def __init__(
        self,
        i: int,
        o: int,
        kernel: Any,
        stride: int = 1,
        relu: bool = True,
        *,
        before_norm: nnx.Module | None = None,
        dtype: Any,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        options = {"use_bias": False, "kernel_init": HE} | options
        strides = (stride, stride)
        self.conv = Conv(i, o, kernel, strides, dtype=dtype, rngs=rngs, **options)
        self.before_norm = before_norm
        self.norm = nnx.BatchNorm(o, momentum=0.9, dtype=dtype, rngs=rngs)
        self.relu = relu

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, i) to (N, H/stride, W/stride, o)."""
        x = self.conv(x)
        x = self.norm(x if self.before_norm is None else self.before_norm(x))
        return nnx.relu(x) if self.relu else x


class Pool(nnx.Module):
    """Maximum over 2 x 2, or over 3 x 3 at stride 2."""

    def __init__(self, side: int = 2):
        self.side = side

    def __call__(self, x: jax.Array) -> jax.Array:
        """Half the size."""
        return nnx.max_pool(x, (self.side, self.side), (2, 2), "SAME")
