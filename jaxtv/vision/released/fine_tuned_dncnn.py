"""The released DnCNN trained on, with TV layers at its input and output and without."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from flax import nnx
from rich.console import Console

from jaxtv.vision import training
from jaxtv.vision.networks.dncnn import DnCNN, from_convolutions
from jaxtv.vision.readers.denoising import Photos
from jaxtv.vision.task import Settings
from jaxtv.vision.tasks.denoising import Denoising, examples

Convolutions = Sequence[tuple[np.ndarray, np.ndarray]]  # kernel, bias
Pictures = tuple[list[np.ndarray], dict[str, list[np.ndarray]]]  # to train on, test sets by name

FROZEN, ALONE, JOINT = "λ learned, weights frozen", "fine-tuned without TV", "fine-tuned with TV"
SETTINGS = Settings(
    epochs=1,
    batch_size=8,
    learning_rate=1e-5,
    lam_learning_rate=0.2,
    width=64,
    depth=20,
    size=40,
    limit=24,
    init_lam=0.01,
)


class FineTuning(Denoising):
    """Denoising that starts from released weights."""

    variants: ClassVar = dict.fromkeys((FROZEN, ALONE, JOINT), "")

    def __init__(self, convolutions: Convolutions):
        self.convolutions = convolutions

    def build(self, variant: str, settings: Settings, rngs: nnx.Rngs) -> DnCNN:
        """DnCNN with its released weights."""
        return from_convolutions(self.convolutions, 0.0 if variant == ALONE else settings.init_lam)

    def trained(
        self,
        variant: str,
        noise: float,
        seed: int,
        photos: Pictures,
        folder: Path,
        console: Console,
    ) -> DnCNN:
        """The model at the end of its training, which goes on where it stopped in the folder.

        Args:
            variant: of `variants`.
            noise: σ, on the scale 0..255.
            seed: of noise and order.
            photos: to train on, and test sets, of which a first picture is measured after training.
            folder: of the run.
            console: where progress is shown.
        """
        rate = 0.0 if variant == FROZEN else SETTINGS.learning_rate
        settings = dataclasses.replace(SETTINGS, learning_rate=rate, noise=noise)
        data = examples(*photos, "photos", settings)
        run = training.Run("fine-tuning", variant, settings, seed, data.description)
        training.train(self, run, data, folder, console)
        return training.load(folder, self)[2]

    def evaluate(self, model: DnCNN, data: Photos, settings: Settings) -> dict[str, float]:
        """As after an epoch; the study measures all test pictures."""
        return self.validate(model, data, settings)
