"""ResNet-50 for class activation maps."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from jaxtv.vision.networks.blocks import ConvNorm, Pool


class Bottleneck(nnx.Module):
    """Residual block of 1 x 1, 3 x 3 and 1 x 1 convolutions (He et al. 2016)."""

    def __init__(self, i: int, width: int, stride: int, dtype: Any, *, rngs: nnx.Rngs):
        conv = lambda *a, **k: ConvNorm(*a, **k, dtype=dtype, rngs=rngs)
        o = 4 * width
        self.convs = nnx.List(
            [conv(i, width, 1), conv(width, width, 3, stride), conv(width, o, 1, relu=False)]
        )
        self.shortcut = None if i == o and stride == 1 else conv(i, o, 1, stride, relu=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, i) to (N, H/stride, W/stride, 4 width)."""
        y = x
        for conv in self.convs:
            y = conv(y)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet50(nnx.Module):
    """The convolutions of ResNet-50 (He et al. 2016), at 1/8 of the size.

    wsolevaluation's strides are 1, 2, 1, 1 after the stem, for 28 x 28 of 224.
    """

    def __init__(self, width: int, dtype: Any, *, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, width, 7, 2, dtype=dtype, rngs=rngs)
        self.pool = Pool(3)
        blocks, channels = [], width
        for stage, (count, stride) in enumerate(((3, 1), (4, 2), (6, 1), (3, 1))):
            for i in range(count):
                w = width * 2**stage
                blocks.append(Bottleneck(channels, w, stride if i == 0 else 1, dtype, rngs=rngs))
                channels = 4 * w
        self.blocks, self.features = nnx.List(blocks), channels

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, 3) to (N, H/8, W/8, 32 width)."""
        x = self.pool(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return x
