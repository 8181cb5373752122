"""Image classification: All-CNN-C with TV layers (paper, section 4.2; Table 2, Fig. 3)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxtv.vision import corruptions
from jaxtv.vision.networks.all_cnn import AllCNN
from jaxtv.vision.readers.augment import normalise
from jaxtv.vision.readers.classification import read, read_npz
from jaxtv.vision.readers.labelled import Labelled, at_most
from jaxtv.vision.readers.shapes import embedded
from jaxtv.vision.task import Batch, Column, DataError, Settings, Table, Task, with_lam_rate

__all__ = ("Classification", "accuracy", "normalise", "predict", "read", "read_npz")

VARIANTS = {
    "baseline": "All-CNN-C",
    "tv-smooth": "2D TV layers before the batch norm of the first three blocks",
    "tv-sharp": "the same, sharpening",
}

# Table 2, and the clean accuracy in its section's text; percent, five runs.
PAPER = {
    "accuracy": ("93.51 ± 0.18", "93.61 ± 0.17", "93.43 ± 0.24"),
    "corrupted": ("68.4 ± 0.5", "70.3 ± 0.6", "70.6 ± 0.2"),
    "corrupted/gaussian_noise": ("36.2 ± 1.4", "42.7 ± 2.4", "40.6 ± 1.4"),
    "corrupted/shot_noise": ("48.9 ± 1.5", "55.0 ± 1.4", "53.1 ± 1.5"),
    "corrupted/impulse_noise": ("46.6 ± 3.1", "44.8 ± 3.2", "46.5 ± 1.0"),
    "corrupted/glass_blur": ("77.9 ± 0.7", "79.4 ± 0.7", "79.8 ± 0.3"),
    "corrupted/defocus_blur": ("46.7 ± 2.3", "49.2 ± 2.5", "50.3 ± 0.6"),
    "corrupted/motion_blur": ("72.8 ± 0.5", "74.5 ± 0.8", "75.7 ± 0.7"),
    "corrupted/zoom_blur": ("71.9 ± 1.1", "74.3 ± 1.2", "73.9 ± 0.4"),
    "corrupted/snow": ("77.8 ± 0.1", "79.4 ± 0.8", "80.3 ± 0.5"),
    "corrupted/frost": ("71.9 ± 0.8", "75.3 ± 1.1", "75.2 ± 0.9"),
    "corrupted/fog": ("82.5 ± 0.4", "85.0 ± 0.3", "86.2 ± 0.4"),
    "corrupted/brightness": ("91.6 ± 0.2", "92.1 ± 0.1", "92.2 ± 0.1"),
    "corrupted/contrast": ("67.1 ± 0.9", "69.4 ± 1.1", "74.4 ± 0.2"),
    "corrupted/elastic_transform": ("82.2 ± 0.7", "81.8 ± 0.3", "81.8 ± 0.3"),
    "corrupted/pixelate": ("72.2 ± 0.5", "73.0 ± 0.6", "72.6 ± 0.5"),
    "corrupted/jpeg_compression": ("79.0 ± 0.3", "78.4 ± 0.2", "76.5 ± 0.16"),
}


class Classification(Task):
    """CIFAR-10 and its like."""

    variants = VARIANTS
    presets: ClassVar = {
        "smoke": Settings(1, 64, 2e-3, 1e-2, width=8, depth=8, size=32, limit=128),
        "small": Settings(20, 32, 2e-3, 1e-2, width=32, depth=8, size=32),
        "paper": Settings(350, 128, 0.05, 0.05, width=96, depth=8, size=32, weight_decay=1e-3),
    }
    metric = "accuracy"
    tables: ClassVar = {
        "table2": Table(
            "Table 2: accuracy under corruptions, percent",
            tuple(
                Column(metric.removeprefix("corrupted/"), metric, dict(zip(VARIANTS, values)))
                for metric, values in PAPER.items()
            ),
        )
    }

    def load(self, data: Path | None, settings: Settings) -> Labelled:
        """See `read`; without data: generated shapes."""
        if data is None:
            return embedded(settings)
        found = read(data)
        if len(found.classes) > settings.classes:
            count = len(found.classes)
            raise DataError(f"{data} has {count} classes; train with --classes {count}.")
        found = dataclasses.replace(found, crop=settings.size)
        if settings.limit:
            parts = ("train", "validation", "test")
            cut = {part: at_most(settings.limit, getattr(found, part)) for part in parts}
            sizes = f"{len(cut['train'][0])} of them, {len(cut['test'][0])} to test"
            description = f"{found.description}, {sizes}"
            found = dataclasses.replace(found, description=description, **cut)
        return found

    def build(self, variant: str, settings: Settings, rngs: nnx.Rngs) -> AllCNN:
        """All-CNN-C."""
        mode = {"baseline": None, "tv-smooth": "smooth", "tv-sharp": "sharp"}[variant]
        return AllCNN(mode, settings, rngs=rngs)

    def optimizer(self, settings: Settings, steps: int) -> optax.GradientTransformation:
        """The paper's preset: momentum with steps down at 4/7, 5/7 and 6/7 (Springenberg 2015)."""
        if settings.learning_rate < 0.01:
            return super().optimizer(settings, steps)
        drops = {steps * k // 7: 0.1 for k in (4, 5, 6)}
        rate = lambda peak: optax.piecewise_constant_schedule(peak, drops)
        decay = optax.add_decayed_weights(settings.weight_decay)
        return with_lam_rate(
            optax.chain(decay, optax.sgd(rate(settings.learning_rate), momentum=0.9)),
            optax.sgd(rate(settings.lam_learning_rate), momentum=0.9),
        )

    def loss(self, model: AllCNN, batch: Batch) -> jax.Array:
        """Cross-entropy."""
        logits = model(batch["image"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    def validate(self, model: AllCNN, data: Labelled, settings: Settings) -> dict[str, float]:
        """Accuracy on the validation part."""
        return {"accuracy": accuracy(model, *data.validation)}

    def evaluate(self, model: AllCNN, data: Labelled, settings: Settings) -> dict[str, float]:
        """Accuracy in percent, clean and over 15 corruptions × 5 severities (Table 2)."""
        scores = {"accuracy": accuracy(model, *data.test)}
        for name in corruptions.CORRUPTIONS:
            each = [accuracy(model, *data.corrupted(name, s)) for s in corruptions.SEVERITIES]
            scores[f"corrupted/{name}"] = float(np.mean(each))
        scores["corrupted"] = float(np.mean(list(scores.values())[1:]))
        return scores


@nnx.jit
def predict(model: Any, x: jax.Array) -> jax.Array:
    """Labels of normalised images."""
    return jnp.argmax(model(x), axis=-1)


def accuracy(model: Any, x: np.ndarray, y: np.ndarray, batch_size: int = 256) -> float:
    """Percent of labels that are right; x uint8 (N, H, W, 3)."""
    return 100 * float(np.mean(right(model, x, y, batch_size)))


def right(model: Any, x: np.ndarray, y: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Whether the label of each picture is right: bool (N,)."""
    found, batch_size = [], min(batch_size, len(x))
    for i in range(0, len(x), batch_size):
        part = normalise(np.asarray(x[i : i + batch_size]))
        padded = np.pad(part, ((0, batch_size - len(part)), (0, 0), (0, 0), (0, 0)))  # one shape
        found.append(np.asarray(predict(model, jnp.asarray(padded)))[: len(part)])
    return np.concatenate(found) == y
