"""Inception-V3 for class activation maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtv.vision.networks.blocks import ConvNorm, Pool


class Branches(nnx.Module):
    """Chains of convolutions side by side, concatenated; `pool`: 3 x 3 average (or maximum) first.

    Args:
        chains: per branch, layers (channels, kernel, stride) after an optional "average" or "max".
    """

    def __init__(self, i: int, chains: Sequence[Sequence[Any]], dtype: Any, *, rngs: nnx.Rngs):
        self.pools = tuple(next((p for p in chain if isinstance(p, str)), "") for chain in chains)
        branches, self.features = [], 0
        for chain in chains:
            channels, layers = i, []
            for layer in (step for step in chain if not isinstance(step, str)):
                layers.append(ConvNorm(channels, *layer, dtype=dtype, rngs=rngs))
                channels = layer[0]
            branches.append(nnx.List(layers))
            self.features += channels
        self.branches = nnx.List(branches)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, i) to (N, H', W', features)."""
        outputs = []
        for pool, branch in zip(self.pools, self.branches):
            y = x
            if pool == "average":
                y = nnx.avg_pool(x, (3, 3), (1, 1), "SAME")
            elif pool == "max":
                y = nnx.max_pool(x, (3, 3), (2, 2), "SAME")
            for conv in branch:
                y = conv(y)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=-1)


class InceptionV3(nnx.Module):
    """The convolutions of Inception-V3 (Szegedy et al. 2016), at 1/8 of the size.

    wsolevaluation cuts it after Mixed_6e, without the stride of Mixed_6a, and adds two 3 x 3
    convolutions of 1024 channels.
    """

    def __init__(self, width: int, dtype: Any, *, rngs: nnx.Rngs):
        c = lambda channels: max(1, channels * width // 64)
        conv = lambda *a: ConvNorm(*a, dtype=dtype, rngs=rngs)
        layers: list[Any] = [conv(3, c(32), 3, 2), conv(c(32), c(32), 3), conv(c(32), c(64), 3)]
        layers += [Pool(3), conv(c(64), c(80), 1), conv(c(80), c(192), 3), Pool(3)]
        channels = c(192)

        def add(*chains: Sequence[Any]) -> None:
            nonlocal channels
            layers.append(Branches(channels, chains, dtype, rngs=rngs))
            channels = layers[-1].features

        for pooled in (32, 64, 64):
            five, three = [(c(48), 1), (c(64), 5)], [(c(64), 1), (c(96), 3), (c(96), 3)]
            add([(c(64), 1)], five, three, ["average", (c(pooled), 1)])
        add([(c(384), 3)], [(c(64), 1), (c(96), 3), (c(96), 3)], ["average"])
        for inner in (128, 160, 160, 192):
            k = c(inner)
            once = [(k, 1), (k, (1, 7)), (c(192), (7, 1))]
            twice = [(k, 1), (k, (7, 1)), (k, (1, 7)), (k, (7, 1)), (c(192), (1, 7))]
            add([(c(192), 1)], once, twice, ["average", (c(192), 1)])
        layers += [conv(channels, c(1024), 3), conv(c(1024), c(1024), 3)]
        self.layers, self.features = nnx.List(layers), c(1024)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, 3) to (N, H/8, W/8, 16 width)."""
        for layer in self.layers:
            x = layer(x)
        return x
