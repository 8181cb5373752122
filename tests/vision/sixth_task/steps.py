"""A sixth task: one file. `test_vision_training.py` puts this folder beside the other tasks."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxtv
from jaxtv.vision.task import Column, DataError, Dataset, Settings, Table, Task


class Lines(Dataset):
    """Noisy steps of 16 samples and their clean versions."""

    description = "steps"

    def steps(self, batch_size):
        return 64 // batch_size

    def epoch(self, rng, batch_size):
        for _ in range(self.steps(batch_size)):
            yield self.draw(rng, batch_size)

    def draw(self, rng, n):
        clean = np.where(np.arange(16) < rng.integers(4, 12, size=(n, 1)), 0.0, 1.0)
        noisy = clean + 0.2 * rng.normal(size=clean.shape)
        return {"x": noisy.astype(np.float32), "y": clean.astype(np.float32)}


class Model(nnx.Module):
    def __init__(self, tv, settings, rngs):
        self.scale = nnx.Param(jnp.ones(()))
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.tv = jaxtv.nnx.TVLayer(axes=-1, init_lam=0.05) if tv else None

    def __call__(self, x):
        x = self.dropout(x) * self.scale[...]
        return x if self.tv is None else self.tv(x)


class Steps(Task):
    variants: ClassVar = {"baseline": "a scale", "tv": "a scale and a TV layer"}
    presets: ClassVar = {"smoke": Settings(3, 16, 0.01, 0.1, width=1, depth=1, size=16)}
    metric = "mse"
    tables: ClassVar = {
        "table9": Table("Steps", (Column("MSE", "mse", {"baseline": "1", "tv": "0"}),))
    }

    def load(self, data, settings):
        if data is not None:
            raise DataError(f"{data} is not there.")
        return Lines()

    def build(self, variant, settings, rngs):
        return Model(variant == "tv", settings, rngs)

    def loss(self, model, batch):
        return jnp.mean((model(batch["x"]) - batch["y"]) ** 2)

    def evaluate(self, model, data, settings):
        batch = data.draw(np.random.default_rng(99), 64)
        return {"mse": float(self.loss(model, batch))}
