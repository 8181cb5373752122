"""Edge detection: DexiNed with TV layers (paper, section 4.4; Table 4, Fig. 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtv.vision.metrics import boundaries
from jaxtv.vision.networks.dexined import DexiNed
from jaxtv.vision.readers import photos
from jaxtv.vision.readers.edges import Edges, pair_of, read, read_mat
from jaxtv.vision.readers.mosaics import TEXTURES, mosaics
from jaxtv.vision.task import Batch, Column, Settings, Table, Task

__all__ = ("EdgeDetection", "detect", "pair_of", "read", "read_mat")

STRIDE = 16  # sides of the input are padded to multiples of it

# Of the six side outputs and the fused one (Poma et al. 2020).
LOSS_WEIGHTS = (0.7, 0.7, 1.1, 1.1, 0.3, 0.3, 1.3)


class EdgeDetection(Task):
    """Where objects meet."""

    variants: ClassVar = {
        "baseline": "DexiNed",
        "tv": "TV-sharp layers on the 2x, 4x and 8x edge maps, TV-smooth on the final one",
    }
    presets: ClassVar = {
        "smoke": Settings(1, 8, 1e-3, 1e-2, width=2, depth=1, size=64, limit=2),
        "small": Settings(12, 8, 2e-3, 1e-2, width=6, depth=2, size=96),
        "paper": Settings(17, 8, 1e-4, 1e-3, width=32, depth=3, size=352, weight_decay=1e-8),
    }
    metric = "ods"
    tables: ClassVar = {
        "table4": Table(
            "Table 4: edge detection (the paper: trained and tested on BIPED)",
            (
                Column("ODS", "ods", {"baseline": ".859", "tv": ".874"}),
                Column("OIS", "ois", {"baseline": ".867", "tv": ".879"}),
                Column("AP", "ap", {"baseline": ".905", "tv": ".914"}),
                Column("least recall", "least recall", {}),
            ),
        )
    }

    def load(self, data: Path | None, settings: Settings) -> Edges:
        """See `read`; a folder of photos, or none: mosaics of textures."""
        if data is None:
            parts, name = mosaics(photos.embedded(TEXTURES), settings), "mosaics of scikit-image"
        elif (data / "photos_cc0").is_dir():
            textures = photos.read_folder(data / "photos_cc0")
            parts, name = mosaics(textures, settings), "mosaics of photos_cc0"
        else:
            parts, name = read(data), data.name
            if settings.limit:
                parts = {part: found[: settings.limit] for part, found in parts.items()}
        train, test = parts["train"], parts["test"]

        def finish(crops: np.ndarray, chosen: np.ndarray, _: np.random.Generator) -> Batch:
            return {"image": normalise(crops[:, 0]), "edges": crops[:, 1, :, :, :1] / 255}

        stacks = [np.stack([a.image, np.repeat(as_bytes(a.target()), 3, axis=-1)]) for a in train]
        pixels = np.mean([a.image[..., 0].size for a in train or test])
        per_photo = max(1, round(pixels / settings.size**2))
        return Edges(
            f"{name}: {len(train)} pictures to train on, {len(test)} to test",
            photos.Crops("", stacks, settings.size, per_photo, finish),
            parts["validation"],
            test,
        )

    def build(self, variant: str, settings: Settings, rngs: nnx.Rngs) -> DexiNed:
        """DexiNed, with or without TV layers."""
        return DexiNed(variant == "tv", settings, rngs=rngs)

    def loss(self, model: DexiNed, batch: Batch) -> jax.Array:
        """Class-balanced cross-entropy of all seven maps, weighted (Poma et al. 2020)."""
        target = batch["edges"]
        positive = target > 0.1  # some annotator sees an edge
        share = jnp.mean(positive, axis=(1, 2, 3), keepdims=True)
        weight = jnp.where(positive, 1 - share, 1.1 * share)
        each = [
            jnp.mean(weight * binary_cross_entropy(logits, target))
            for logits in model(batch["image"])
        ]
        return jnp.dot(jnp.asarray(LOSS_WEIGHTS, jnp.float32), jnp.stack(each))

    def validate(self, model: DexiNed, data: Edges, settings: Settings) -> dict[str, float]:
        """Mean absolute error of the fused map, in the middle of the pictures held out."""
        errors = []
        for annotated in data.validation:
            shown = detect(model, photos.centre(annotated.image, 2 * settings.size))
            target = photos.centre(annotated.target(), 2 * settings.size)
            errors.append(np.abs(shown - target).mean())
        return {"error": float(np.mean(errors))}

    def evaluate(self, model: DexiNed, data: Edges, settings: Settings) -> dict[str, float]:
        """ODS, OIS, AP and the least recall on the test pictures."""
        return boundaries.scores(
            [boundaries.counts(detect(model, a.image), a.truths) for a in data.test]
        )


def as_bytes(share: np.ndarray) -> np.ndarray:
    """Shares (H, W) in 0..1 to uint8 (H, W, 1)."""
    return np.rint(255 * share).astype(np.uint8)[..., None]


def normalise(x: Any) -> Any:
    """0..255 to -1..1, float32."""
    return x.astype(np.float32) / np.float32(127.5) - np.float32(1)


def binary_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Per pixel."""
    return jax.nn.softplus(logits) - target * logits


def detect(model: DexiNed, image: np.ndarray) -> np.ndarray:
    """Probability of an edge at each pixel: uint8 (H, W, 3) to float32 (H, W)."""
    height, width = image.shape[:2]
    padding = [(0, -height % STRIDE), (0, -width % STRIDE), (0, 0)]
    x = normalise(np.pad(image, padding, mode="reflect"))
    return np.asarray(apply(model, jnp.asarray(x)[None]))[0, :height, :width, 0]


@nnx.jit
def apply(model: Any, x: jax.Array) -> jax.Array:
    """The fused map as probabilities, compiled once per shape."""
    return jax.nn.sigmoid(model(x)[-1])
