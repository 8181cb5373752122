"""The residual network for edge-preserving smoothing, with TV layers (paper, section 4.5)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtv._solvers import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision.networks.blocks import HE
from jaxtv.vision.networks.convolution import Conv
from jaxtv.vision.task import Settings


class ResNet(nnx.Module):
    """The residual network of Zhu et al. 2019 on pictures in 0..255, with TV layers if asked for.

    16 residual blocks, three convolutions, a skip connection from the input. With TV layers: four
    of the blocks get a 1D TV-sharp layer, along rows and columns by turns, and the output a 2D
    TV-smooth layer with one λ for all channels.

    Args:
        tv: with TV layers.
        settings: `width` (paper: 64), `depth` (paper: 16 blocks), `sweeps`, `init_lam`.
        rngs: of the weights.
    """

    def __init__(self, tv: bool, settings: Settings, *, rngs: nnx.Rngs):
        w, depth, dtype = settings.width, settings.depth, settings.dtype
        conv = lambda i, o, init=HE: Conv(i, o, (3, 3), dtype=dtype, kernel_init=init, rngs=rngs)
        self.first = conv(3, w)
        every = max(1, depth // 4)  # four blocks, evenly spread
        axes = {i: (-2 if i // every % 2 == 0 else -3) for i in range(every - 1, depth, every)[:4]}
        blocks = [
            ResidualBlock(w, axes.get(i) if tv else None, settings, rngs=rngs) for i in range(depth)
        ]
        self.blocks = nnx.List(blocks)
        self.tail = nnx.List([conv(w, w), conv(w, w), conv(w, 3, nnx.initializers.zeros)])
        layer = {"init_lam": settings.init_lam or 1.0, "solver": Dykstra(settings.sweeps)}
        self.tv = TVLayer(**layer) if tv else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, 3) in 0..255 to the same shape, float32."""
        return self.stages(x)["output"]

    def stages(self, x: jax.Array) -> dict[str, jax.Array]:
        """The picture before and after the last TV layer (Fig. 6), by name."""
        y = nnx.relu(self.first(x / 255 - 0.5))
        for block in self.blocks:
            y = block(y)
        for conv in self.tail[:-1]:
            y = nnx.relu(conv(y))
        network = x + 255 * self.tail[-1](y).astype(jnp.float32)
        return {"network": network, "output": network if self.tv is None else self.tv(network)}


class ResidualBlock(nnx.Module):
    """x + conv(relu(conv(x))), and a 1D TV-sharp layer on what is added if `axis` is given."""

    def __init__(self, width: int, axis: int | None, settings: Settings, *, rngs: nnx.Rngs):
        conv = lambda: Conv(width, width, (3, 3), dtype=settings.dtype, kernel_init=HE, rngs=rngs)
        self.first, self.second = conv(), conv()
        # Batch statistics hurt the colours of a picture: a learned scale keeps 16 blocks stable.
        self.scale = nnx.Param(jnp.full((), 0.1, jnp.float32))
        self.tv = None if axis is None else TVLayer(axes=axis, mode="sharp", init_lam=0.05)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, width) to the same shape."""
        y = self.second(nnx.relu(self.first(x))) * self.scale[...].astype(x.dtype)
        return x + (y if self.tv is None else self.tv(y))
