"""`jaxtv demo`: learn λ on one half of a photo, measure on the other, in about a minute.

Three models are trained at once on random crops of the lower half of scikit-image's astronaut:

* TV-smooth: one `TVLayer` that removes Gaussian noise; all it can learn is λ;
* TV-sharp: one `TVLayer(mode="sharp")` that undoes a Gaussian blur; likewise;
* a small residual network with a TV layer at its input and its output (paper, Eq. 14), which
  removes the same noise.

Everything reported and drawn is from the upper half with noise of a seed not seen in training.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import skimage
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxtv.nnx import TVLayer

BATCH, CROP = 8, 64
BLUR = 2.0
LEARNING_RATES = {"raw_lam": 0.04, "weights": 3e-3}
LAMBDAS = {
    "TV-smooth": lambda model: model.smooth.lam,
    "TV-sharp": lambda model: model.sharp.lam,
    "network, input": lambda model: model.network.tv_in.lam,
    "network, output": lambda model: model.network.tv_out.lam,
}


class DenoisingNetwork(nnx.Module):
    """Residual convolutions between two TV layers: y = prox(R(x̃) + x̃), x̃ = prox(x) (Eq. 14)."""

    def __init__(self, width: int = 32, depth: int = 4, *, rngs: nnx.Rngs):
        channels = [3] + [width] * (depth - 1) + [3]
        self.tv_in = TVLayer(init_lam=0.01)
        self.convs = nnx.List(
            [nnx.Conv(i, o, (3, 3), rngs=rngs) for i, o in zip(channels[:-1], channels[1:])]
        )
        self.convs[-1].kernel[...] = jnp.zeros_like(self.convs[-1].kernel[...])  # starts at R = 0
        self.tv_out = TVLayer(init_lam=0.01)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Denoises (..., H, W, 3)."""
        smoothed = self.tv_in(x)
        residual = smoothed
        for conv in self.convs[:-1]:
            residual = nnx.relu(conv(residual))
        return self.tv_out(smoothed + self.convs[-1](residual))


class Models(nnx.Module):
    """The three models of the demo; they share nothing but the training loop."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.smooth = TVLayer(init_lam=0.01)
        self.sharp = TVLayer(mode="sharp", init_lam=0.01)
        self.network = DenoisingNetwork(rngs=rngs)


@dataclass
class History:
    """What training recorded: λ of every layer after each step."""

    lam: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LAMBDAS})

    def record(self, model: Models) -> None:
        for name, read in LAMBDAS.items():
            self.lam[name].append(float(read(model)))


def gaussian(image: np.ndarray | jax.Array, sigma: float) -> jax.Array:
    """Gaussian convolution of (H, W, 3) by scikit-image."""
    blurred = skimage.filters.gaussian(np.asarray(image), sigma, channel_axis=-1)
    return jnp.asarray(blurred, jnp.float32)


def psnr(image: jax.Array, clean: jax.Array) -> float:
    """Peak signal-to-noise ratio in dB of an image in [0, 1], clipped to that range."""
    return float(-10 * jnp.log10(jnp.mean((jnp.clip(image, 0, 1) - clean) ** 2)))


def random_crops(key: jax.Array, pictures: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The same `BATCH` random squares, half of them mirrored, out of each (H, W, 3) picture."""
    keys = jax.random.split(key, 3)
    height, width, _ = pictures[0].shape
    tops = jax.random.randint(keys[0], (BATCH,), 0, height - CROP + 1)
    lefts = jax.random.randint(keys[1], (BATCH,), 0, width - CROP + 1)
    flips = jax.random.bernoulli(keys[2], shape=(BATCH,))

    def crop(picture, top, left, flip):
        square = jax.lax.dynamic_slice(picture, (top, left, 0), (CROP, CROP, 3))
        return jnp.where(flip, square[:, ::-1], square)

    return tuple(jax.vmap(crop, (None, 0, 0, 0))(p, tops, lefts, flips) for p in pictures)


def losses(
    model: Models, clean: jax.Array, noisy: jax.Array, blurred: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum of the three mean squared errors, and the three."""
    outputs = (model.smooth(noisy), model.sharp(blurred), model.network(noisy))
    errors = jnp.stack([jnp.mean((output - clean) ** 2) for output in outputs])
    return jnp.sum(errors), errors


@nnx.jit
def train_step(
    model: Models,
    optimizer: nnx.Optimizer,
    key: jax.Array,
    noise: jax.Array,
    clean: jax.Array,
    blurred: jax.Array,
) -> jax.Array:
    """One step on fresh crops with fresh noise; returns the three errors."""
    crop_key, noise_key = jax.random.split(key)
    clean, blurred = random_crops(crop_key, (clean, blurred))
    noisy = clean + noise * jax.random.normal(noise_key, clean.shape)
    (_, errors), grads = nnx.value_and_grad(losses, has_aux=True)(model, clean, noisy, blurred)
    optimizer.update(model, grads)
    return errors


def make_optimizer(model: Models) -> nnx.Optimizer:
    """Adam, faster for λ̃ (log-like, needs to travel) than for convolution weights."""

    def adam(decay, rate):
        return optax.adam(rate * decay)

    def labels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "raw_lam" if "raw_lam" in jax.tree_util.keystr(path) else "weights",
            params,
        )

    transform = optax.inject_hyperparams(
        lambda decay: optax.partition(
            {name: adam(decay, rate) for name, rate in LEARNING_RATES.items()}, labels
        )
    )
    return nnx.Optimizer(model, transform(decay=1.0), wrt=nnx.Param)
