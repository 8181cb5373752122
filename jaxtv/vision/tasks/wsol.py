"""Weakly supervised localisation: class activation maps after a TV layer (paper, section 4.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxtv.vision.metrics.wsol import PixelCurve, best_ious, box_accuracy, score_map
from jaxtv.vision.networks.cam import CAM
from jaxtv.vision.readers import composed, photos
from jaxtv.vision.readers.augment import normalise
from jaxtv.vision.readers.located import Located, LocatedPictures, resize_located
from jaxtv.vision.readers.pascal_voc import read_voc
from jaxtv.vision.readers.wsolevaluation import read_metadata
from jaxtv.vision.task import Batch, Column, DataError, Settings, Table, Task

__all__ = ("Wsol", "best_ious", "measure", "resize_located")

PAPER = {  # Table 3: reproduced baseline, with TV
    "VGG-16": ("60.13", "60.35"),
    "Inception-V3": ("63.51", "63.80"),
    "ResNet-50": ("64.09", "65.36"),
}

GROUPS = {
    "VGG-16": {"backbone": "vgg16"},
    "Inception-V3": {"backbone": "inception3"},
    "ResNet-50": {"backbone": "resnet50"},
}


class Wsol(Task):
    """Learn from class labels, be asked where the object is."""

    variants: ClassVar = {
        "baseline": "class activation maps",
        "tv": "a fixed 2D TV-smooth layer, λ = 1, before the class activation maps",
    }
    presets: ClassVar = {
        "smoke": Settings(1, 16, 1e-3, 0.0, width=4, depth=1, size=48, limit=32),
        "small": Settings(30, 32, 2e-3, 0.0, width=8, depth=1, size=64),
        "paper": Settings(10, 32, 1e-3, 0.0, width=64, depth=1, size=224, weight_decay=1e-4),
    }
    metric = "max_box_acc"
    tables: ClassVar = {
        "table3": Table(
            "Table 3: weakly supervised localisation (the paper: ImageNet, pre-trained)",
            (
                Column(
                    "MaxBoxAccV2",
                    "max_box_acc",
                    {f"{g}/{v}": p for g in PAPER for v, p in zip(("baseline", "tv"), PAPER[g])},
                ),
                Column("PxAP", "pxap", {}),
                Column("accuracy", "accuracy", {}),
            ),
            groups=GROUPS,
        )
    }

    def load(self, data: Path | None, settings: Settings) -> LocatedPictures:
        """A folder of one of the layouts; without data: shapes on photos of scikit-image.

        wsolevaluation's, Pascal VOC's, or Fashion-MNIST (`fashion_mnist_small/`) next to photos
        (`photos_cc0/`), from which pictures with exact boxes and masks are composed.

        Raises:
            DataError: none of these.
        """
        if data is None:
            parts, name = composed.embedded(settings), "shapes on photos of scikit-image"
        elif (data / "metadata").is_dir():
            parts, name = read_metadata(data, settings), data.name
        elif (data / "Annotations").is_dir():
            parts, name = read_voc(data, settings), data.name
        elif (data / "fashion_mnist_small").is_dir() and (data / "photos_cc0").is_dir():
            grounds = photos.read_folder(data / "photos_cc0")
            parts = composed.dressed(data / "fashion_mnist_small", grounds, settings)
            name = "garments of Fashion-MNIST on photos"
        else:
            raise DataError(
                f"{data} is not laid out as wsol data: expected metadata/ "
                "(wsolevaluation), Annotations/ (Pascal VOC), or fashion_mnist_small/ and "
                "photos_cc0/."
            )
        train = parts["train"]
        x, y = np.stack([t.image for t in train]), np.array([t.label for t in train], np.int32)
        classes = 1 + max(located.label for part in parts.values() for located in part)
        if classes > settings.classes:
            raise DataError(f"{data} has {classes} classes; train with --classes {classes}.")
        return LocatedPictures(
            f"{name}: {len(train)} pictures to train on, {len(parts['test'])} to test",
            (x, y),
            parts["validation"],
            parts["test"],
        )

    def build(self, variant: str, settings: Settings, rngs: nnx.Rngs) -> CAM:
        """CAM, with or without the TV layer."""
        return CAM(variant == "tv", settings.classes, settings, rngs=rngs)

    def loss(self, model: CAM, batch: Batch) -> jax.Array:
        """Cross-entropy of the labels."""
        logits = model(batch["image"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    def validate(self, model: CAM, data: LocatedPictures, settings: Settings) -> dict[str, float]:
        """Accuracy and MaxBoxAccV2 on the pictures held out."""
        return measure(model, data.validation)

    def evaluate(self, model: CAM, data: LocatedPictures, settings: Settings) -> dict[str, float]:
        """MaxBoxAccV2 or PxAP, where boxes or masks are known, and the accuracy, in percent."""
        return measure(model, data.test)


def measure(model: CAM, located: list[Located]) -> dict[str, float]:
    """All metrics that the boxes and masks allow, from the maps of the true classes."""
    ious, right, pixels = [], 0, PixelCurve()
    for one in located:
        maps = np.asarray(apply(model, jnp.asarray(normalise(one.image))[None])[0])
        right += int(maps.mean(axis=(0, 1)).argmax() == one.label)
        scores = score_map(maps[..., one.label], *one.image.shape[:2])
        if len(one.boxes):
            ious.append(best_ious(scores, one.boxes))
        if one.mask is not None:
            pixels.add(scores, one.mask, one.ignored)
    found = {"accuracy": 100 * right / len(located)}
    if len(ious) == len(located):
        found = box_accuracy(np.stack(ious)) | found
    if all(one.mask is not None for one in located):
        found["pxap"] = pixels.average_precision()
    return found


@nnx.jit
def apply(model: Any, x: jax.Array) -> jax.Array:
    """Maps of all classes."""
    return model.maps(x)
