"""Denoising of colour photos: DnCNN with TV layers (paper, section 4.6; Eqs. 13, 14, Table 6)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtv._solvers import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision import photos
from jaxtv.vision.task import Batch, Column, DataError, Settings, Table, Task

# Folders of test pictures by the names they are found under, in lower case -> names in tables.
TEST_SETS = {"cbsd68": "CBSD68", "kodak24": "Kodak24", "mcmaster": "McMaster", "test": "test"}
TRAIN_FOLDERS = ("train", "photos_cc0")
KODAK_SIDE = 500  # the paper's Kodak24 are 500 x 500 centres

# Table 6: dB for the baseline and with TV layers.
PAPER = {
    "CBSD68": {"σ=25": ("31.24", "31.26"), "σ=50": ("27.95", "28.07")},
    "Kodak24": {"σ=25": ("32.14", "32.15"), "σ=50": ("28.95", "29.09")},
    "McMaster": {"σ=25": ("31.52", "32.32"), "σ=50": ("28.62", "29.35")},
}


class DnCNN(nnx.Module):
    """DnCNN (Zhang et al. 2017), y = R(x) + x, between two TV layers if asked for.

    With them y = prox(R(x̃) + x̃, λ_out), x̃ = prox(x, λ_in) (Eq. 14).

    Args:
        tv: with TV layers.
        settings: `width` (paper: 64) and `depth` (paper: 17 convolutions), `sweeps`, `init_lam`.
        rngs: of the weights.
    """

    def __init__(self, tv: bool, settings: Settings, *, rngs: nnx.Rngs):
        w, dtype = settings.width, settings.dtype
        he = nnx.initializers.he_normal()
        conv = lambda i, o: nnx.Conv(i, o, (3, 3), dtype=dtype, kernel_init=he, rngs=rngs)
        norm = lambda: nnx.BatchNorm(w, momentum=0.95, dtype=dtype, rngs=rngs)
        self.first = conv(3, w)
        self.hidden = nnx.List([conv(w, w) for _ in range(settings.depth - 2)])
        self.norms = nnx.List([norm() for _ in range(settings.depth - 2)])
        # Zero: training starts from the identity.
        self.last = nnx.Conv(w, 3, (3, 3), kernel_init=nnx.initializers.zeros, rngs=rngs)
        layer = {"init_lam": settings.init_lam or 0.01, "solver": Dykstra(settings.sweeps)}
        self.tv_in = TVLayer(**layer) if tv else None
        self.tv_out = TVLayer(**layer) if tv else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, 3) in [0, 1], noisy, to the same shape, float32."""
        return self.stages(x)["output"]

    def stages(self, x: jax.Array) -> dict[str, jax.Array]:
        """All pictures on the way (Fig. 8), by name."""
        start = x if self.tv_in is None else self.tv_in(x)
        y = nnx.relu(self.first(start))
        for conv, norm in zip(self.hidden, self.norms):
            y = nnx.relu(norm(conv(y)))
        network = start + self.last(y).astype(jnp.float32)
        output = network if self.tv_out is None else self.tv_out(network)
        return {"input layer": start, "network": network, "output": output}


@dataclasses.dataclass
class Photos(photos.Crops):
    """Crops to train on, and test pictures: name of the set -> uint8 (H, W, 3) each."""

    tests: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)


def read(path: Path) -> tuple[list[np.ndarray], dict[str, list[np.ndarray]]]:
    """Training pictures and test sets of a folder.

    Training pictures are in `train` (or `photos_cc0`), tests in any of `CBSD68`, `Kodak24`,
    `McMaster`, `test`; case does not matter.

    Raises:
        DataError: there are no training or no test pictures.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder. Denoising takes one with train/ and test sets.")
    folders = {p.name.lower(): p for p in sorted(path.iterdir()) if p.is_dir()}
    train = next((folders[name] for name in TRAIN_FOLDERS if name in folders), None)
    tests = {title: folders[name] for name, title in TEST_SETS.items() if name in folders}
    if train is None or not tests:
        names = [*folders][:10] + ["…"] * (len(folders) > 10)
        raise DataError(
            f"{path} has the folders {', '.join(names) or '(none)'}; denoising needs "
            f"{' or '.join(TRAIN_FOLDERS)} and one of {', '.join(TEST_SETS.values())}."
        )
    found = {title: photos.read_folder(folder) for title, folder in tests.items()}
    if "Kodak24" in found:
        found["Kodak24"] = [photos.centre(image, KODAK_SIDE) for image in found["Kodak24"]]
    return photos.read_folder(train), found


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


@nnx.jit
def apply(model: Any, x: jax.Array) -> jax.Array:
    """The model on whole pictures, compiled once per shape."""
    return model(x)


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures; inf where they are equal."""
    error = np.mean((image.astype(np.float64) - clean.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
