"""Edge-preserving smoothing: a residual network with TV layers (paper, section 4.5; Table 5)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.io
from flax import nnx

import jaxtv
from jaxtv._solvers import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision import images, photos
from jaxtv.vision.task import Batch, Column, DataError, Settings, Table, Task

TEST_SHARE = 5  # the last fifth of the pictures is for testing (BenchmarkEPS: 401-500 of 500)
EMBEDDED_LAMBDAS = (10.0, 20.0, 40.0)  # of the targets of the embedded data, on 0..255
EMBEDDED_WEIGHTS = (0.5, 0.3, 0.2)


class ResNet(nnx.Module):
    """The residual network of Zhu et al. 2019 on pictures in 0..255, with TV layers if asked for.

    16 residual blocks, three convolutions, a skip connection from the input. With TV layers: four
    of the blocks get a 1D TV-sharp layer, along rows and columns by turns, and the output a 2D
    TV-smooth layer with one λ for all channels.

    Args:
        tv: with TV layers.
        settings: `width` (paper: 64), `depth` (paper: 16 blocks), `sweeps`, `init_lam`.
        rngs: of the weights.
    """

    def __init__(self, tv: bool, settings: Settings, *, rngs: nnx.Rngs):
        w, depth, dtype = settings.width, settings.depth, settings.dtype
        he = nnx.initializers.he_normal()
        conv = lambda i, o, init=he: nnx.Conv(
            i, o, (3, 3), dtype=dtype, kernel_init=init, rngs=rngs
        )
        self.first = conv(3, w)
        every = max(1, depth // 4)  # four blocks, evenly spread
        axes = {i: (-2 if i // every % 2 == 0 else -3) for i in range(every - 1, depth, every)[:4]}
        blocks = [
            ResidualBlock(w, axes.get(i) if tv else None, settings, rngs=rngs) for i in range(depth)
        ]
        self.blocks = nnx.List(blocks)
        self.tail = nnx.List([conv(w, w), conv(w, w), conv(w, 3, nnx.initializers.zeros)])
        layer = {"init_lam": settings.init_lam or 1.0, "solver": Dykstra(settings.sweeps)}
        self.tv = TVLayer(**layer) if tv else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, 3) in 0..255 to the same shape, float32."""
        return self.stages(x)["output"]

    def stages(self, x: jax.Array) -> dict[str, jax.Array]:
        """The picture before and after the last TV layer (Fig. 6), by name."""
        y = nnx.relu(self.first(x / 255 - 0.5))
        for block in self.blocks:
            y = block(y)
        for conv in self.tail[:-1]:
            y = nnx.relu(conv(y))
        network = x + 255 * self.tail[-1](y).astype(jnp.float32)
        return {"network": network, "output": network if self.tv is None else self.tv(network)}


class ResidualBlock(nnx.Module):
    """x + conv(relu(conv(x))), and a 1D TV-sharp layer on what is added if `axis` is given."""

    def __init__(self, width: int, axis: int | None, settings: Settings, *, rngs: nnx.Rngs):
        he = nnx.initializers.he_normal()
        conv = lambda: nnx.Conv(
            width, width, (3, 3), dtype=settings.dtype, kernel_init=he, rngs=rngs
        )
        self.first, self.second = conv(), conv()
        # Batch statistics hurt the colours of a picture: a learned scale keeps 16 blocks stable.
        self.scale = nnx.Param(jnp.full((), 0.1))
        self.tv = None if axis is None else TVLayer(axes=axis, mode="sharp", init_lam=0.05)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, width) to the same shape."""
        y = self.second(nnx.relu(self.first(x))) * self.scale[...].astype(x.dtype)
        return x + (y if self.tv is None else self.tv(y))


# ---------------------------------------------------------------------------- data


class Pair(NamedTuple):
    """A picture, its smoothed versions, and the votes for each.

    Attributes:
        image: uint8 (H, W, 3).
        targets: uint8 (K, H, W, 3).
        weights: float32 (K,), of sum 1.
    """

    image: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass
class Pairs(photos.Crops):
    """Crops to train on, and pairs to test on."""

    tests: list[Pair] = dataclasses.field(default_factory=list)


def read(path: Path) -> list[Pair]:
    """BenchmarkEPS' layout (Zhu et al. 2019), also one level down.

    `origin_images/0001.png`, `gt_images/0001_1.png` … `_K.png`, and `weight_matrix.mat` with one
    (N, K) array of votes.

    Raises:
        DataError: a file is missing or does not fit the others.
    """
    folders = [p for p in (path, path / "eps_mini", path / "dataset") if (p / "gt_images").is_dir()]
    if not folders:
        raise DataError(
            f"{path} is not laid out as BenchmarkEPS: expected origin_images/0001.png, "
            "gt_images/0001_1.png … and weight_matrix.mat (github.com/zhufeida/Benchmark_EPS)."
        )
    votes = read_votes(folders[0] / "weight_matrix.mat")
    names = images.listed(folders[0] / "origin_images")
    if len(names) != len(votes):
        raise DataError(f"{folders[0]} has {len(names)} pictures and votes for {len(votes)}.")
    return [read_pair(name, row) for name, row in zip(names, votes)]


def read_votes(path: Path) -> np.ndarray:
    """The (N, K) array of a weight_matrix.mat.

    Raises:
        DataError: it is missing, damaged, or has another content.
    """
    try:
        content = scipy.io.loadmat(str(path))
    except FileNotFoundError:
        raise DataError(f"{path} is missing.") from None
    except (ValueError, TypeError, NotImplementedError) as error:
        raise DataError(f"{path} can not be read: {error}.") from error
    arrays = [v for k, v in content.items() if not k.startswith("_") and np.ndim(v) == 2]
    if len(arrays) != 1 or not np.all(arrays[0] >= 0) or not np.all(arrays[0].sum(axis=1) > 0):
        raise DataError(f"{path} must hold one matrix of votes, a row per picture.")
    return arrays[0].astype(np.float32)


def read_pair(path: Path, votes: np.ndarray) -> Pair:
    """One picture and its targets.

    Raises:
        DataError: a target is missing or of another size.
    """
    image = images.read_rgb(path)
    files = [
        path.parent.parent / "gt_images" / f"{path.stem}_{k + 1}.png" for k in range(len(votes))
    ]
    for file in files:
        if not file.exists():
            raise DataError(f"{file} is missing.")
    targets = [images.read_rgb(file) for file in files]
    if any(target.shape != image.shape for target in targets):
        raise DataError(f"the targets of {path} must have its size.")
    return Pair(image, np.stack(targets), votes / votes.sum())


def embedded() -> list[Pair]:
    """Photos of scikit-image, with the converged-enough TV prox at three λ as targets."""
    pairs = []
    for image in photos.embedded((*photos.EMBEDDED_TRAIN, *photos.EMBEDDED_TEST)):
        part = photos.centre(image, 256)
        x = jnp.asarray(part, jnp.float32)
        smooth = [
            jaxtv.prox_tv2d(x, lam, axes=(0, 1), solver=Dykstra(20)) for lam in EMBEDDED_LAMBDAS
        ]
        targets = np.rint(np.clip(np.stack(smooth), 0, 255)).astype(np.uint8)
        pairs.append(Pair(part, targets, np.asarray(EMBEDDED_WEIGHTS, np.float32)))
    return pairs


# ---------------------------------------------------------------------------- metrics


def weighted_errors(
    outputs: list[np.ndarray], pairs: list[Pair], literal: bool = False
) -> tuple[float, float]:
    """WRMSE and WMAE of Zhu et al. 2019, on the scale 0..255.

    Args:
        outputs: (H, W, 3) each.
        pairs: what they are compared with.
        literal: as the formulas are printed: summed over channels, divided by N·K·H·W. By default
            as the authors' script computes them: divided by N·H·W·channels.

    Returns:
        The root of the weighted mean square, and the weighted mean absolute error.
    """
    square = absolute = 0.0
    for y, pair in zip(outputs, pairs, strict=True):
        difference = y.astype(np.float64)[None] - pair.targets
        count = len(pair.targets) * y.shape[0] * y.shape[1] if literal else y.size
        square += float(pair.weights @ (difference**2).sum(axis=(1, 2, 3))) / count
        absolute += float(pair.weights @ np.abs(difference).sum(axis=(1, 2, 3))) / count
    return float(np.sqrt(square / len(pairs))), absolute / len(pairs)


# ---------------------------------------------------------------------------- task


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


@nnx.jit
def apply(model: Any, x: jax.Array) -> jax.Array:
    """The model on whole pictures, compiled once per shape."""
    return model(x)
