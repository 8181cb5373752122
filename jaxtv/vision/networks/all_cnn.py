"""All-CNN-C for classification, with TV layers (paper, section 4.2)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtv._solvers import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision.networks.blocks import HE
from jaxtv.vision.networks.convolution import Conv
from jaxtv.vision.task import Settings

TV_BLOCKS = 3  # the first blocks get a TV layer before their batch norm


class AllCNN(nnx.Module):
    """All-CNN-C (Springenberg et al. 2015) with batch norm: (N, H, W, 3) to (N, classes) logits.

    Args:
        mode: "smooth" or "sharp" TV layers before the batch norms of the first three blocks; None
            for the baseline.
        settings: `classes`, `width` (paper: 96; the later blocks have twice that), `sweeps`,
            `init_lam` (paper: 0.05), `dropout` (paper: 0.5), `precision`.
        rngs: of weights and dropout.
    """

    def __init__(self, mode: str | None, settings: Settings, *, rngs: nnx.Rngs):
        w, dtype = settings.width, settings.dtype
        plan = [(w, 3, 1), (w, 3, 1), (w, 3, 2), (2 * w, 3, 1), (2 * w, 3, 1), (2 * w, 3, 2)]
        plan += [(2 * w, 3, 1), (2 * w, 1, 1)]
        blocks, channels = [], 3
        for i, (features, kernel, stride) in enumerate(plan):
            tv = mode if i < TV_BLOCKS else None
            blocks.append(Block(channels, features, kernel, stride, tv, settings, rngs=rngs))
            channels = features
        self.input_dropout = nnx.Dropout(0.4 * settings.dropout, rngs=rngs)
        self.dropout = nnx.Dropout(settings.dropout, rngs=rngs)
        self.blocks = nnx.List(blocks)
        self.classify = Conv(channels, settings.classes, (1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits, float32."""
        x = self.input_dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in (2, 5):
                x = self.dropout(x)
        return jnp.mean(self.classify(x).astype(jnp.float32), axis=(1, 2))


class Block(nnx.Module):
    """Convolution, TV layer if any, batch norm, ReLU."""

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: int,
        stride: int,
        mode: Any,
        settings: Settings,
        *,
        rngs: nnx.Rngs,
    ):
        dtype = settings.dtype
        strides = (stride, stride)
        self.conv = Conv(
            channels, features, (kernel, kernel), strides, dtype=dtype, kernel_init=HE, rngs=rngs
        )
        tv = {"init_lam": settings.init_lam or 0.05, "solver": Dykstra(settings.sweeps)}
        self.tv = None if mode is None else TVLayer(mode=mode, **tv)
        self.norm = nnx.BatchNorm(features, momentum=0.9, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, channels) to (N, H', W', features)."""
        x = self.conv(x)
        if self.tv is not None:
            x = self.tv(x)
        return nnx.relu(self.norm(x))
