"""VGG-16 for class activation maps."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from jaxtv.vision.networks.blocks import ConvNorm, Pool


class VGG16(nnx.Module):
    """The convolutions of VGG-16 (Simonyan & Zisserman 2015), at 1/8 of the size, with batch norm.

    wsolevaluation keeps the last blocks at 28 x 28 of 224; one more convolution follows (CAM).
    """

    def __init__(self, width: int, dtype: Any, *, rngs: nnx.Rngs):
        plan = [1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, 8, 8, 8, 16]
        layers, channels = [], 3
        for times in plan:
            if isinstance(times, str):
                layers.append(Pool())
                continue
            layers.append(ConvNorm(channels, times * width, 3, dtype=dtype, rngs=rngs))
            channels = times * width
        self.layers, self.features = nnx.List(layers), channels

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, 3) to (N, H/8, W/8, 16 width)."""
        for layer in self.layers:
            x = layer(x)
        return x
