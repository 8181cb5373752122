"""Table 5 with Gaussians where the TV layers are, each with a learned width.

    python scripts/plain_smoothing.py DATA RUNS SEED...   # a few minutes for each seed, on one core

DATA and RUNS: as of `jaxtv reproduce table5 --preset small`. A TV-sharp layer along one axis
becomes 2x - gaussian(x) along it. The numbers are for docs/results-thin.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from rich.console import Console

from jaxtv.vision import training
from jaxtv.vision.networks.filters import Filter, gaussian
from jaxtv.vision.networks.residual import ResNet
from jaxtv.vision.task import Settings, settings_of
from jaxtv.vision.tasks.smoothing import Smoothing

VARIANT = "gaussian"
WIDTH = 0.5  # pixels, before training


def sharpen_rows(x: jax.Array, width: jax.Array) -> jax.Array:
    """2x - gaussian(x) along W."""
    return 2 * x - gaussian(x.reshape(-1, 1, *x.shape[2:]), width).reshape(x.shape)


def sharpen_columns(x: jax.Array, width: jax.Array) -> jax.Array:
    """2x - gaussian(x) along H."""
    return jnp.swapaxes(sharpen_rows(jnp.swapaxes(x, 1, 2), width), 1, 2)


class PlainSmoothing(Smoothing):
    """The task with a third variant."""

    def build(self, variant: str, settings: Settings, rngs: nnx.Rngs) -> ResNet:
        """ResNetTV with Gaussians."""
        model: Any = ResNet(True, settings, rngs=rngs)
        for block in model.blocks:
            if block.tv is not None:
                along_rows = block.tv.axes == (-2,)
                block.tv = Filter(sharpen_rows if along_rows else sharpen_columns, WIDTH)
        model.tv = Filter(gaussian, WIDTH)
        return model


def main(data: Path, runs: Path, seeds: list[int]) -> None:
    """Trains, and prints errors and widths of each seed."""
    task: Any = PlainSmoothing()
    settings = settings_of(task, "small")
    pairs = task.load(data, settings)
    for seed in seeds:
        run = training.Run(task.name, VARIANT, settings, seed, pairs.description)
        folder = runs / f"smoothing/small/{VARIANT}/seed{seed}"
        found = training.train(task, run, pairs, folder, Console(quiet=True))
        model = training.load(folder, task)[2]
        layers = [*(block.tv for block in model.blocks if block.tv is not None), model.tv]
        widths = [round(float(layer.strength), 3) for layer in layers]
        print(seed, found["metrics"], widths, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(seed) for seed in sys.argv[3:]])
