"""The released ResNet-20 trained on, with filters before its first batch norms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from flax import nnx
from rich.console import Console

from jaxtv.vision import training
from jaxtv.vision.networks import filters
from jaxtv.vision.networks.resnet20 import ResNet20, load_state
from jaxtv.vision.readers.labelled import Labelled, at_most
from jaxtv.vision.task import Settings
from jaxtv.vision.tasks.classification import Classification, accuracy

# Name -> filter and its strength before training; the network alone comes first.
FILTERS = {
    "network alone": None,
    "TV-smooth from 0.05": (filters.tv_smooth, 0.05),
    "TV-smooth from 0.3": (filters.tv_smooth, 0.3),
    "TV-sharp from 0.05": (filters.tv_sharp, 0.05),
    "Gaussian from 0.3": (filters.gaussian, 0.3),
    "Gaussian from 0.7": (filters.gaussian, 0.7),
}
SETTINGS = Settings(
    epochs=1,
    batch_size=50,
    learning_rate=3e-4,
    lam_learning_rate=1e-2,
    width=16,
    depth=20,
    size=32,
    limit=2500,
)


class FineTuning(Classification):
    """Classification that starts from released weights."""

    variants: ClassVar = dict.fromkeys(FILTERS, "")

    def __init__(self, state: Mapping[str, np.ndarray]):
        self.state = state

    def build(self, variant: str, settings: Settings, rngs: nnx.Rngs) -> ResNet20:  # type: ignore[override]
        """ResNet-20 with its released weights."""
        chosen = FILTERS[variant]
        model = ResNet20(None if chosen is None else lambda: filters.Filter(*chosen), rngs=rngs)
        load_state(model, self.state)
        return model

    def evaluate(self, model: Any, data: Labelled, settings: Settings) -> dict[str, float]:
        """Accuracy on the validation part."""
        return {"accuracy": accuracy(model, *data.validation)}

    def trained(
        self, variant: str, seed: int, data: Labelled, folder: Path, console: Console
    ) -> ResNet20:
        """The model at the end of its training, which goes on where it stopped in the folder."""
        data = dataclasses.replace(data, train=at_most(SETTINGS.limit, data.train))
        run = training.Run("fine-tuning", variant, SETTINGS, seed, data.description)
        training.train(self, run, data, folder, console)
        return training.load(folder, self)[2]


def strengths(model: ResNet20) -> list[float]:
    """Of all filters before norms, in their order in the network."""
    early = (model.stem, model.blocks[0].first, model.blocks[0].second)
    layers = (one.before_norm for one in early)
    return [float(layer.strength) for layer in layers if isinstance(layer, filters.Filter)]
