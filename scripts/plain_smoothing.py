"""Table 5 with Gaussians where the TV layers are, each with a learned width.

    python scripts/plain_smoothing.py RUNS DATA   # three seeds, six minutes each, on one core

RUNS and DATA: the --output and --data of `jaxtv reproduce table5 --preset small`. A TV-sharp layer
along one axis becomes 2x - gaussian(x) along it. Prints a row for docs/results-thin.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console

from jaxtv.vision import reproduce, training
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
    """The task with Gaussians."""

    variants: ClassVar = {VARIANT: "Gaussians in the places of the TV layers"}

    @property
    def name(self) -> str:
        """The task's own, so that the runs lie beside its runs."""
        return "smoothing"

    def build(self, variant: str, settings: Settings, rngs: nnx.Rngs) -> ResNet:
        """ResNetTV with Gaussians."""
        model: Any = ResNet(True, settings, rngs=rngs)
        for block in model.blocks:
            if block.tv is not None:
                along_rows = block.tv.axes == (-2,)
                block.tv = Filter(sharpen_rows if along_rows else sharpen_columns, WIDTH)
        model.tv = Filter(gaussian, WIDTH)
        return model


def widths(model: ResNet) -> list[float]:
    """Of all Gaussians, in their order in the network."""
    layers: Any = [*(block.tv for block in model.blocks), model.tv]
    return [float(layer.strength) for layer in layers if layer is not None]


def main() -> None:
    """Trains what is not trained yet; prints mean ± standard deviation over the seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    task, console = PlainSmoothing(), Console(stderr=True)
    settings = settings_of(task, "small")
    pairs = task.load(options.data, settings)
    found, strengths = [], []
    for seed in range(options.seeds):
        run = training.Run(task.name, VARIANT, settings, seed, pairs.description)
        folder = reproduce.folder_of(options.runs, task, "small", "", VARIANT, seed)
        found.append(reproduce.result_of(task, run, pairs, folder, console)["metrics"])
        strengths.append(widths(training.load(folder, task)[2]))
    errors = [reproduce.spread([each[name] for each in found]) for name in ("wrmse", "wmae")]
    mean = ", ".join(f"{width:.2f}" for width in np.mean(strengths, axis=0))
    print(f"| Gaussians | {errors[0]} | — | {errors[1]} | — | widths {mean} |")


if __name__ == "__main__":
    main()
