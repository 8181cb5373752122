"""ResNet-20 for CIFAR-10 (He et al. 2016), with layers before its first batch norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtv.vision.networks.blocks import ConvNorm

WIDTHS = (16, 32, 64)  # channels of the three stages
BLOCKS = 3  # residual blocks of a stage
EARLY = 3  # the first norms, of 32 x 32 positions, get a layer before them
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the released network's input

Layer = Callable[[], nnx.Module] | None


class ResNet20(nnx.Module):
    """20 layers, shortcuts without weights; (N, 32, 32, 3) to (N, 10) logits.

    Args:
        early: makes a layer before each of the first three batch norms; None: no such layers.
        front: makes a layer for the input, which is in [0, 1] there; None: no such layer.
        rngs: of the weights.
    """

    def __init__(self, early: Layer = None, front: Layer = None, *, rngs: nnx.Rngs):
        self.front = None if front is None else front()
        self.stem = conv(3, WIDTHS[0], early=early, rngs=rngs)
        blocks, channels = [], WIDTHS[0]
        for width in WIDTHS:
            for i in range(BLOCKS):
                stride = 2 if i == 0 and width > channels else 1
                its = early if len(blocks) < EARLY // 2 else None
                blocks.append(Block(channels, width, stride, its, rngs=rngs))
                channels = width
        self.blocks = nnx.List(blocks)
        self.classify = nnx.Linear(channels, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of pictures as `jaxtv.vision.readers.augment.normalise` gives them."""
        x = x / 4 + 0.5
        x = x if self.front is None else self.front(x)
        x = self.stem((x - jnp.array(MEAN)) / jnp.array(DEVIATION))
        for block in self.blocks:
            x = block(x)
        return self.classify(jnp.mean(x, axis=(1, 2)))


class Block(nnx.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, i: int, o: int, stride: int, early: Layer, *, rngs: nnx.Rngs):
        self.first = conv(i, o, stride, early=early, rngs=rngs)
        self.second = conv(o, o, relu=False, early=early, rngs=rngs)
        self.stride, self.more = stride, o - i

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, i) to (N, H/stride, W/stride, o)."""
        y = self.second(self.first(x))
        x = x[:, :: self.stride, :: self.stride]
        half = self.more // 2
        return nnx.relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (half, self.more - half))))


def conv(
    i: int, o: int, stride: int = 1, relu: bool = True, *, early: Layer, rngs: nnx.Rngs
) -> ConvNorm:
    """3 x 3, padded by one on every side at stride 2 too, as PyTorch does."""
    layer = None if early is None else early()
    padding = ((1, 1), (1, 1))
    return ConvNorm(
        i, o, 3, stride, relu, dtype=jnp.float32, rngs=rngs, padding=padding, before_norm=layer
    )


def load_state(model: ResNet20, state: Mapping[str, np.ndarray]) -> None:
    """Puts weights into a network.

    Args:
        model: with layers or without.
        state: as `jaxtv.vision.readers.weights.read_resnet20` returns it.
    """
    _load(model.stem, state, "", "1")
    for i, block in enumerate(model.blocks):
        name = f"layer{i // BLOCKS + 1}.{i % BLOCKS}."
        _load(block.first, state, name, "1")
        _load(block.second, state, name, "2")
    model.classify.kernel[...] = jnp.asarray(state["linear.weight"].T)
    model.classify.bias[...] = jnp.asarray(state["linear.bias"])  # type: ignore[index]


def _load(part: ConvNorm, state: Mapping[str, np.ndarray], prefix: str, number: str) -> None:
    of_norm = lambda name: jnp.asarray(state[f"{prefix}bn{number}.{name}"])
    kernel = state[f"{prefix}conv{number}.weight"].transpose(2, 3, 1, 0)
    part.conv.kernel[...] = jnp.asarray(kernel)
    part.norm.scale[...] = of_norm("weight")  # type: ignore[index]
    part.norm.bias[...] = of_norm("bias")  # type: ignore[index]
    part.norm.mean[...], part.norm.var[...] = of_norm("running_mean"), of_norm("running_var")
