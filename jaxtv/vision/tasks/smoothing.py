"""Edge-preserving smoothing: a residual network with TV layers (paper, section 4.5; Table 5)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtv.vision.metrics.errors import weighted_errors
from jaxtv.vision.networks.residual import ResNet
from jaxtv.vision.readers.smoothing import Pair, Pairs, embedded, read, read_votes
from jaxtv.vision.task import Batch, Column, DataError, Settings, Table, Task, apply

__all__ = ("Smoothing", "read", "read_votes", "smooth", "weighted_errors")

TEST_SHARE = 5  # the last fifth of the pictures is for testing (BenchmarkEPS: 401-500 of 500)


class Smoothing(Task):
    """Imitate smoothing filters that people voted for."""

    variants: ClassVar = {
        "baseline": "ResNet of 16 residual blocks",
        "tv": "four 1D TV-sharp layers in the blocks and a 2D TV-smooth layer at the end",
    }
    presets: ClassVar = {
        "smoke": Settings(1, 8, 1e-3, 1e-1, width=8, depth=4, size=32, limit=5),
        "small": Settings(12, 8, 2e-3, 1e-1, width=24, depth=8, size=64),
        "paper": Settings(300, 16, 1e-3, 1e-1, width=64, depth=16, size=96),
    }
    metric = "wrmse"
    higher_is_better = False
    tables: ClassVar = {
        "table5": Table(
            "Table 5: edge-preserving smoothing",
            (
                Column("WRMSE", "wrmse", {"baseline": "9.03", "tv": "8.87"}),
                Column("WMAE", "wmae", {"baseline": "5.55", "tv": "5.47"}),
            ),
        )
    }

    def load(self, data: Path | None, settings: Settings) -> Pairs:
        """See `read`; without data: photos of scikit-image and their TV prox."""
        pairs = embedded() if data is None else read(data)
        if settings.limit:
            pairs = pairs[: settings.limit]
        tests = max(1, len(pairs) // TEST_SHARE)
        train, tests = pairs[:-tests], pairs[-tests:]
        if not train:
            raise DataError(f"one picture is not enough to train and test on ({data}).")
        pixels = np.mean([pair.image.shape[0] * pair.image.shape[1] for pair in train])
        weights = np.stack([pair.weights for pair in train])

        def finish(crops: np.ndarray, chosen: np.ndarray, _: np.random.Generator) -> Batch:
            return {"image": crops[:, 0], "targets": crops[:, 1:], "weights": weights[chosen]}

        name = "scikit-image" if data is None else data.name
        return Pairs(
            f"{name}: {len(train)} photos to train on, {len(tests)} to test",
            [np.concatenate([pair.image[None], pair.targets]) for pair in train],
            settings.size,
            max(1, round(pixels / settings.size**2)),
            finish,
            tests,
        )

    def build(self, variant: str, settings: Settings, rngs: nnx.Rngs) -> ResNet:
        """ResNet or ResNetTV."""
        return ResNet(variant == "tv", settings, rngs=rngs)

    def loss(self, model: ResNet, batch: Batch) -> jax.Array:
        """Weighted mean absolute error on the scale 0..1."""
        error = jnp.abs(model(batch["image"])[:, None] - batch["targets"])
        return jnp.mean(jnp.sum(batch["weights"] * jnp.mean(error, axis=(2, 3, 4)), axis=1)) / 255

    def validate(self, model: ResNet, data: Pairs, settings: Settings) -> dict[str, float]:
        """The metrics on the first test picture."""
        return self.measure(model, data.tests[:1])

    def evaluate(self, model: ResNet, data: Pairs, settings: Settings) -> dict[str, float]:
        """WRMSE and WMAE, as the authors' script has them and as the formulas are printed."""
        return self.measure(model, data.tests)

    def measure(self, model: ResNet, pairs: list[Pair]) -> dict[str, float]:
        """All four numbers."""
        outputs = [smooth(model, pair.image) for pair in pairs]
        wrmse, wmae = weighted_errors(outputs, pairs)
        literal = weighted_errors(outputs, pairs, literal=True)
        return {
            "wrmse": wrmse,
            "wmae": wmae,
            "wrmse literal": literal[0],
            "wmae literal": literal[1],
        }


def smooth(model: ResNet, image: np.ndarray) -> np.ndarray:
    """A picture through the model, uint8 (H, W, 3)."""
    y = np.asarray(apply(model, jnp.asarray(image, jnp.float32)[None])[0])
    return np.rint(np.clip(y, 0, 255)).astype(np.uint8)
