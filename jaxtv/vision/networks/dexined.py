"""DexiNed for edge detection, with TV layers (paper, section 4.4)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtv._solvers import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision.networks.blocks import ConvNorm
from jaxtv.vision.networks.convolution import Conv
from jaxtv.vision.task import Settings

XAVIER, MEAN = nnx.initializers.xavier_normal(), nnx.initializers.constant(1 / 6)
SHARP_OUTPUTS = (0, 1, 2, 3)  # side outputs at 2x, 2x, 4x and 8x


def conv_norm(i: int, o: int, kernel: int, stride: int, dtype: Any, *, rngs: nnx.Rngs) -> ConvNorm:
    """Convolution with bias and batch norm."""
    return ConvNorm(
        i, o, kernel, stride, False, use_bias=True, kernel_init=XAVIER, dtype=dtype, rngs=rngs
    )


class DenseBlock(nnx.Module):
    """Layers of two convolutions, each averaged with a skipped input."""

    def __init__(self, layers: int, i: int, o: int, dtype: Any, *, rngs: nnx.Rngs):
        inputs = [i] + [o] * (layers - 1)
        self.first = nnx.List([conv_norm(c, o, 3, 1, dtype, rngs=rngs) for c in inputs])
        self.second = nnx.List([conv_norm(o, o, 3, 1, dtype, rngs=rngs) for _ in inputs])

    def __call__(self, x: jax.Array, skip: jax.Array) -> jax.Array:
        """(N, H, W, i), (N, H, W, o) to (N, H, W, o)."""
        for first, second in zip(self.first, self.second):
            x = 0.5 * (second(nnx.relu(first(nnx.relu(x)))) + skip)
        return x


class UpBlock(nnx.Module):
    """To one channel at 2**scale times the size, by transposed convolutions of stride 2.

    A ReLU comes before each of them but the last. The authors' network has it there too: on that
    single channel. Once all of it is negative, no gradient passes and the map stays constant.
    """

    def __init__(self, i: int, scale: int, dtype: Any, *, rngs: nnx.Rngs):
        widths = [16] * (scale - 1) + [1]
        kernel, steps = 2**scale, list(zip([i, *widths], widths))
        self.mix = nnx.List([Conv(a, b, (1, 1), dtype=dtype, rngs=rngs) for a, b in steps])
        self.up = nnx.List(
            [
                nnx.ConvTranspose(b, b, (kernel, kernel), (2, 2), dtype=dtype, rngs=rngs)
                for b in widths
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, i) to (N, 2**scale H, 2**scale W, 1)."""
        for mix, up in zip(self.mix[:-1], self.up[:-1]):
            x = up(nnx.relu(mix(x)))
        return self.up[-1](self.mix[-1](x))


class DexiNed(nnx.Module):
    """Dense extreme inception network (Poma et al. 2020): six side outputs and their fusion.

    With TV layers: TV-sharp on the side outputs from 2x, 4x and 8x, TV-smooth on the fused one.

    Args:
        tv: with TV layers.
        settings: `width` (paper: 32; the widest blocks have 16 times that), `depth` layers of a
            dense block (paper: 3), `sweeps`, `init_lam`.
        rngs: of the weights.
    """

    def __init__(self, tv: bool, settings: Settings, *, rngs: nnx.Rngs):
        c, depth, dtype = settings.width, settings.depth, settings.dtype
        conv = lambda i, o, kernel, stride=1: conv_norm(i, o, kernel, stride, dtype, rngs=rngs)
        dense = lambda n, i, o: DenseBlock(n, i, o, dtype, rngs=rngs)
        self.block1 = nnx.List([conv(3, c, 3, 2), conv(c, 2 * c, 3)])
        self.block2 = nnx.List([conv(2 * c, 4 * c, 3), conv(4 * c, 4 * c, 3)])
        self.block3 = dense(max(1, depth - 1), 4 * c, 8 * c)
        self.block4 = dense(depth, 8 * c, 16 * c)
        self.block5 = dense(depth, 16 * c, 16 * c)
        self.block6 = dense(depth, 16 * c, 8 * c)
        self.side1, self.side2 = conv(2 * c, 4 * c, 1, 2), conv(4 * c, 8 * c, 1, 2)
        self.side3, self.side4 = conv(8 * c, 16 * c, 1, 2), conv(16 * c, 16 * c, 1)
        self.skip2, self.skip3 = conv(4 * c, 8 * c, 1, 2), conv(4 * c, 8 * c, 1)
        self.skip4, self.skip5 = conv(8 * c, 16 * c, 1), conv(16 * c, 16 * c, 1)
        self.skip6 = conv(16 * c, 8 * c, 1)
        scales = ((2, 1), (4, 1), (8, 2), (16, 3), (16, 4), (8, 4))
        self.up = nnx.List([UpBlock(k * c, scale, dtype, rngs=rngs) for k, scale in scales])
        self.fuse = Conv(6, 1, (1, 1), kernel_init=MEAN, rngs=rngs)
        layer = {"init_lam": settings.init_lam or 0.05, "solver": Dykstra(settings.sweeps)}
        self.sharp = nnx.List([TVLayer(mode="sharp", **layer) for _ in SHARP_OUTPUTS] if tv else [])
        self.smooth = TVLayer(**layer) if tv else None

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """(N, H, W, 3) in -1..1, sides multiples of 16, to seven maps of logits (N, H, W, 1).

        The last is the fused map. Logits are float32.
        """
        maps = [up(block).astype(jnp.float32) for up, block in zip(self.up, self.features(x))]
        for i, layer in zip(SHARP_OUTPUTS, self.sharp):
            maps[i] = layer(maps[i])
        fused = self.fuse(jnp.concatenate(maps, axis=-1))
        return [*maps, fused if self.smooth is None else self.smooth(fused)]

    def features(self, x: jax.Array) -> list[jax.Array]:
        """Outputs of the six blocks, at 1/2, 1/2, 1/4, 1/8, 1/16 and 1/16 of the size."""
        pool = lambda x: nnx.max_pool(x, (3, 3), (2, 2), "SAME")
        one = nnx.relu(self.block1[1](nnx.relu(self.block1[0](x))))
        two = self.block2[1](nnx.relu(self.block2[0](one)))
        down2 = pool(two)
        add2 = down2 + self.side1(one)
        three = self.block3(add2, self.skip3(down2))
        down3 = pool(three)
        add3 = down3 + self.side2(add2)
        four = self.block4(add3, self.skip4(down3 + self.skip2(down2)))
        down4 = pool(four)
        add4 = down4 + self.side3(add3)
        five = self.block5(add4, self.skip5(down4))
        add5 = five + self.side4(add4)
        six = self.block6(add5, self.skip6(five))
        return [one, two, three, four, five, six]
