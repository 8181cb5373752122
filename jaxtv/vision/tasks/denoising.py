"""Denoising of colour photos: DnCNN with TV layers (paper, section 4.6; Table 6, Fig. 8)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtv.vision.metrics.errors import psnr
from jaxtv.vision.networks.dncnn import DnCNN
from jaxtv.vision.readers import photos
from jaxtv.vision.readers.denoising import Photos, read
from jaxtv.vision.task import Batch, Column, Settings, Table, Task, apply

# Table 6: dB for the baseline and with TV layers.
PAPER = {
    "CBSD68": {"σ=25": ("31.24", "31.26"), "σ=50": ("27.95", "28.07")},
    "Kodak24": {"σ=25": ("32.14", "32.15"), "σ=50": ("28.95", "29.09")},
    "McMaster": {"σ=25": ("31.52", "32.32"), "σ=50": ("28.62", "29.35")},
}


class Denoising(Task):
    """Additive white Gaussian noise of known strength, `Settings.noise`, on the scale 0..255."""

    variants: ClassVar = {"baseline": "DnCNN", "tv": "2D TV layers at input and output (Eq. 14)"}
    presets: ClassVar = {
        "smoke": Settings(1, 8, 1e-3, 1e-2, width=8, depth=4, size=32, limit=2),
        "small": Settings(10, 16, 2e-3, 1e-2, width=16, depth=6, size=48),
        "paper": Settings(400, 128, 1e-3, 1e-2, width=64, depth=17, size=40),
    }
    metric = "psnr"
    tables: ClassVar = {
        "table6": Table(
            "Table 6: PSNR in dB",
            (
                *(
                    Column(
                        title,
                        f"psnr/{title}",
                        {
                            f"{group}/{variant}": value
                            for group, pair in paper.items()
                            for variant, value in zip(("baseline", "tv"), pair)
                        },
                    )
                    for title, paper in PAPER.items()
                ),
                Column("mean of the sets", "psnr", {}),  # also of sets that the paper has not
            ),
            groups={"σ=25": {"noise": 25.0}, "σ=50": {"noise": 50.0}},
        )
    }

    def load(self, data: Path | None, settings: Settings) -> Photos:
        """See `read`; without data: photos that scikit-image brings."""
        if data is None:
            train = photos.embedded(photos.EMBEDDED_TRAIN)
            test = [photos.centre(image, 256) for image in photos.embedded(photos.EMBEDDED_TEST)]
            name, tests = "scikit-image", {"test": test}
        else:
            (train, tests), name = read(data), data.name
        return examples(train, tests, name, settings)

    def build(self, variant: str, settings: Settings, rngs: nnx.Rngs) -> DnCNN:
        """DnCNN or DnCNNTV."""
        return DnCNN(variant == "tv", settings, rngs=rngs)

    def loss(self, model: DnCNN, batch: Batch) -> jax.Array:
        """Mean squared error."""
        return jnp.mean((model(batch["noisy"]) - batch["clean"]) ** 2)

    def validate(self, model: DnCNN, data: Photos, settings: Settings) -> dict[str, float]:
        """PSNR on the first test picture of each set."""
        first = {title: pictures[:1] for title, pictures in data.tests.items()}
        return scores(model, first, settings.noise)

    def evaluate(self, model: DnCNN, data: Photos, settings: Settings) -> dict[str, float]:
        """PSNR in dB per test set, and `psnr`, the mean over sets."""
        return scores(model, data.tests, settings.noise)


def examples(
    train: list[np.ndarray], tests: dict[str, list[np.ndarray]], name: str, settings: Settings
) -> Photos:
    """Crops of photos with noise, and test pictures; `name` is for logs."""
    if settings.limit:
        train = train[: settings.limit]
        tests = {title: pictures[: settings.limit] for title, pictures in tests.items()}
    counts = ", ".join(f"{len(pictures)} {title}" for title, pictures in tests.items())
    # As many crops as cover the pictures about once.
    pixels = np.mean([image.shape[0] * image.shape[1] for image in train])
    per_photo = max(1, round(pixels / settings.size**2))

    def finish(crops: np.ndarray, _: np.ndarray, rng: np.random.Generator) -> Batch:
        clean = crops[:, 0] / np.float32(255)
        noise = rng.standard_normal(clean.shape, np.float32) * np.float32(settings.noise / 255)
        return {"clean": clean, "noisy": clean + noise}

    return Photos(
        f"{name}: {len(train)} photos to train on, tests: {counts}",
        [image[None] for image in train],
        settings.size,
        per_photo,
        finish,
        tests,
    )


def scores(model: DnCNN, tests: dict[str, list[np.ndarray]], noise: float) -> dict[str, float]:
    """Mean PSNR in dB of each set, and of all."""
    found = {
        f"psnr/{title}": float(
            np.mean([psnr(denoise(model, x, noise, i), x) for i, x in enumerate(pictures)])
        )
        for title, pictures in tests.items()
    }
    return found | {"psnr": float(np.mean(list(found.values())))}


def noisy(image: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """A picture in [0, 1] plus noise, the same in every run: float32 (H, W, 3), not clipped."""
    added = np.random.default_rng((seed, 25)).standard_normal(image.shape)
    return (image / 255 + noise / 255 * added).astype(np.float32)


def denoise(model: DnCNN, image: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """The restored picture, uint8 (H, W, 3), from its noisy version."""
    y = np.asarray(apply(model, jnp.asarray(noisy(image, noise, seed))[None])[0])
    return np.rint(np.clip(y, 0, 1) * 255).astype(np.uint8)
