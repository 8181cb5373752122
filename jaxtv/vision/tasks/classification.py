"""Image classification: All-CNN-C with TV layers (paper, section 4.2; Tables 2, Fig. 3)."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxtv._solvers import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision import corruptions, images
from jaxtv.vision.task import (
    Batch,
    Column,
    DataError,
    Dataset,
    Settings,
    Table,
    Task,
    with_lam_rate,
)

TV_BLOCKS = 3  # the first blocks get a TV layer before their batch norm


class AllCNN(nnx.Module):
    """All-CNN-C (Springenberg et al. 2015) with batch norm: (N, H, W, 3) to (N, classes) logits.

    Args:
        mode: "smooth" or "sharp" TV layers before the batch norms of the first three blocks; None
            for the baseline.
        settings: `classes`, `width` (paper: 96; the later blocks have twice that), `sweeps`,
            `init_lam` (paper: 0.05), `precision`.
        rngs: of weights and dropout.
    """

    def __init__(self, mode: str | None, settings: Settings, *, rngs: nnx.Rngs):
        w, dtype = settings.width, settings.dtype
        plan = [(w, 3, 1), (w, 3, 1), (w, 3, 2), (2 * w, 3, 1), (2 * w, 3, 1), (2 * w, 3, 2)]
        plan += [(2 * w, 3, 1), (2 * w, 1, 1)]
        blocks, channels = [], 3
        for i, (features, kernel, stride) in enumerate(plan):
            tv = mode if i < TV_BLOCKS else None
            blocks.append(Block(channels, features, kernel, stride, tv, settings, rngs=rngs))
            channels = features
        self.input_dropout = nnx.Dropout(0.2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.blocks = nnx.List(blocks)
        self.classify = nnx.Conv(channels, settings.classes, (1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits, float32."""
        x = self.input_dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in (2, 5):
                x = self.dropout(x)
        return jnp.mean(self.classify(x).astype(jnp.float32), axis=(1, 2))


class Block(nnx.Module):
    """Convolution, TV layer if any, batch norm, ReLU."""

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: int,
        stride: int,
        mode: Any,
        settings: Settings,
        *,
        rngs: nnx.Rngs,
    ):
        dtype = settings.dtype
        strides, he = (stride, stride), nnx.initializers.he_normal()
        self.conv = nnx.Conv(
            channels, features, (kernel, kernel), strides, dtype=dtype, kernel_init=he, rngs=rngs
        )
        tv = {"init_lam": settings.init_lam or 0.05, "solver": Dykstra(settings.sweeps)}
        self.tv = None if mode is None else TVLayer(mode=mode, **tv)
        self.norm = nnx.BatchNorm(features, momentum=0.9, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, channels) to (N, H', W', features)."""
        x = self.conv(x)
        if self.tv is not None:
            x = self.tv(x)
        return nnx.relu(self.norm(x))


# ---------------------------------------------------------------------------- data


@dataclasses.dataclass
class Labelled(Dataset):
    """Images uint8 (N, H, W, 3) with labels int32 (N,), in three parts.

    `corrupted(name, severity)` gives the corrupted test images: files of CIFAR-10-C where they
    are, else `corruptions.corrupt`.
    """

    description: str
    classes: list[str]
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    published: Path | None = None

    def steps(self, batch_size: int) -> int:
        """Whole batches only."""
        return len(self.train[0]) // batch_size

    def epoch(self, rng: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """Shuffled, mirrored and shifted by up to 4 pixels (He et al. 2016)."""
        return batches(self.train, rng, batch_size, shift=4)

    def corrupted(self, name: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
        """Test images under one corruption, and their labels."""
        x, y = self.test
        if self.published is None:
            return corruptions.corrupt(name, x, severity), y
        part = slice((severity - 1) * 10000, severity * 10000)
        return (
            load_array(self.published / f"{name}.npy", (50000, 32, 32, 3))[part],
            load_array(self.published / "labels.npy", (50000,))[part].astype(np.int32),
        )


def normalise(x: np.ndarray) -> np.ndarray:
    """uint8 to float32 of about zero mean and unit variance, the same for every data set."""
    return (x.astype(np.float32) / 255 - np.float32(0.5)) * np.float32(4)


def batches(
    part: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, batch_size: int, shift: int
) -> Iterator[Batch]:
    """All whole batches of images and labels, shuffled and augmented."""
    x, y = part
    order = rng.permutation(len(x))
    for i in range(len(x) // batch_size):
        take = order[i * batch_size : (i + 1) * batch_size]
        yield {"image": normalise(augment(x[take], rng, shift)), "label": y[take]}


def augment(x: np.ndarray, rng: np.random.Generator, shift: int = 4) -> np.ndarray:
    """Mirrors half of the images, shifts all by up to `shift` pixels, rim reflected."""
    n, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="reflect")
    top, left = rng.integers(0, 2 * shift + 1, size=(2, n))
    rows = top[:, None, None] + np.arange(height)[None, :, None]
    columns = left[:, None] + np.arange(width)[None]
    mirrored = rng.random(n) < 0.5
    columns = np.where(mirrored[:, None], columns[:, ::-1], columns)[:, None, :]
    return padded[np.arange(n)[:, None, None], rows, columns]


def embedded(settings: Settings, seed: int = 0) -> Labelled:
    """Ten kinds of coloured shapes on coloured ground, made here: no file needed."""
    counts = {"train": 1024, "validation": 256, "test": 256}
    if settings.limit:
        counts = {k: min(v, settings.limit) for k, v in counts.items()}
    rng = np.random.default_rng(seed)
    parts = {k: draw_shapes(v, settings.size, rng) for k, v in counts.items()}
    description = f"{counts['train']} generated shapes"
    return Labelled(description, list(SHAPES), parts["train"], parts["validation"], parts["test"])


# Signed "inside" functions of coordinates in [-1, 1] about the shape's centre.
SHAPES: dict[str, Any] = {
    "disk": lambda u, v: u**2 + v**2 < 0.8,
    "ring": lambda u, v: abs(u**2 + v**2 - 0.6) < 0.25,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.75,
    "frame": lambda u, v: abs(np.maximum(abs(u), abs(v)) - 0.7) < 0.2,
    "cross": lambda u, v: (abs(u) < 0.25) | (abs(v) < 0.25),
    "diagonal cross": lambda u, v: (abs(u - v) < 0.3) | (abs(u + v) < 0.3),
    "triangle": lambda u, v: (v < 0.7) & (v > 2 * abs(u) - 0.9),
    "bars": lambda u, v: np.sin(8 * u) > 0,
    "stripes": lambda u, v: np.sin(8 * v) > 0,
    "checks": lambda u, v: np.sin(6 * u) * np.sin(6 * v) > 0,
}


def draw_shapes(n: int, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random shapes: uint8 (n, side, side, 3) and int32 (n,)."""
    labels = rng.integers(0, len(SHAPES), size=n).astype(np.int32)
    grid = np.linspace(-1, 1, side)
    out = np.empty((n, side, side, 3))
    inside = list(SHAPES.values())
    for i, label in enumerate(labels):
        size, angle = rng.uniform(0.5, 0.9), rng.uniform(-0.3, 0.3)
        shift = rng.uniform(-0.3, 0.3, size=2)
        y, x = (grid[:, None] - shift[0]) / size, (grid[None] - shift[1]) / size
        u, v = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
        mask = inside[label](u, v) & (np.maximum(abs(u), abs(v)) < 1)
        ground, ink = rng.uniform(0, 1, size=(2, 3))
        ink = np.where(abs(ink - ground).max() < 0.3, 1 - ground.round(), ink)
        out[i] = np.where(mask[..., None], ink, ground)
    out += rng.normal(scale=0.05, size=out.shape)
    return (np.clip(out, 0, 1) * 255).round().astype(np.uint8), labels


def load_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A .npy file of that shape, read as it is used.

    Raises:
        DataError: missing, damaged, or of another shape.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing. CIFAR-10-C: `jaxtv data fetch cifar-10-c`.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): fetch it again.") from error
    if array.shape != shape:
        raise DataError(f"{path} has shape {array.shape}, expected {shape}.")
    return array


def read(path: Path) -> Labelled:
    """Data at a path: an .npz, a folder of CIFAR-10, or a folder of images by class.

    * `*.npz` (or a folder with `clothing32.npz`): `x_train`, `y_train`, `x_test`, `y_test`, and if
      there are `x_validation`, `y_validation`, `classes`;
    * CIFAR-10, python or binary version: `data_batch_1` … `test_batch` (`.bin`), also within
      `cifar-10-batches-py` or `cifar-10-batches-bin`;
    * `train/<class>/*`, `test/<class>/*`: pictures, all of one size.

    `CIFAR-10-C` beside CIFAR-10 is used for the corrupted test images.

    Raises:
        DataError: none of these.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist. `jaxtv data list` says what can be fetched.")
    if path.is_file():
        return read_npz(path)
    if (path / "clothing32.npz").exists():
        return read_npz(path / "clothing32.npz")
    for folder in (path, path / "cifar-10-batches-py", path / "cifar-10-batches-bin"):
        if (folder / "test_batch").exists() or (folder / "test_batch.bin").exists():
            return read_cifar(folder)
    if (path / "train").is_dir() and (path / "test").is_dir():
        return read_folders(path)
    raise DataError(
        f"{path} is not laid out as classification data: expected an .npz, CIFAR-10's "
        "`test_batch` and `data_batch_1` … `_5` (or their .bin), or folders train/<class>/ and "
        "test/<class>/ with pictures. `jaxtv data fetch cifar-10` gets CIFAR-10."
    )


def read_npz(path: Path) -> Labelled:
    """Arrays of an .npz.

    Raises:
        DataError: damaged, or arrays are missing.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can not be read as .npz: {error}.") from error
    missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays)
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; it has {', '.join(arrays)}.")
    part = lambda name: (arrays[f"x_{name}"], arrays[f"y_{name}"].astype(np.int32))
    classes = arrays.get("classes", np.unique(arrays["y_train"]))
    train, validation = (
        (part("train"), part("validation")) if "x_validation" in arrays else split(part("train"))
    )
    return Labelled(
        f"{path.stem}: {len(train[0])} training images",
        [str(c) for c in classes],
        train,
        validation,
        part("test"),
    )


def split(part: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
    """The last tenth for validation."""
    (x, y), keep = part, len(part[0]) - len(part[0]) // 10
    return (x[:keep], y[:keep]), (x[keep:], y[keep:])


def at_most(limit: int, part: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Examples drawn at random, always the same: files and folders are often sorted by class."""
    chosen = np.random.default_rng(0).permutation(len(part[0]))[:limit]
    return part[0][chosen], part[1][chosen]


CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def read_cifar(folder: Path) -> Labelled:
    """CIFAR-10, python or binary version.

    Raises:
        DataError: a file is missing or damaged.
    """
    binary = (folder / "test_batch.bin").exists()
    read_one = read_cifar_binary if binary else read_cifar_python
    suffix = ".bin" if binary else ""
    batches = [read_one(folder / f"data_batch_{i}{suffix}") for i in range(1, 6)]
    x, y = (np.concatenate(arrays) for arrays in zip(*batches))
    beside = [p / "CIFAR-10-C" for p in (folder, folder.parent)]
    published = next((p for p in beside if (p / "labels.npy").exists()), None)
    test = read_one(folder / f"test_batch{suffix}")
    return Labelled("CIFAR-10", CIFAR, *split((x, y)), test, published)


def read_cifar_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One .bin: a byte of label and 3072 of pixels, 10,000 times."""
    if not path.exists():
        raise DataError(f"{path} is missing: `jaxtv data fetch cifar-10`.")
    raw = np.fromfile(path, np.uint8)
    if raw.size == 0 or raw.size % 3073:
        raise DataError(f"{path} has {raw.size} bytes, no multiple of 3073: fetch it again.")
    rows = raw.reshape(-1, 3073)
    return planes_to_images(rows[:, 1:]), rows[:, 0].astype(np.int32)


class PlainUnpickler(pickle.Unpickler):
    """Reads arrays and containers only: a pickle can not run code through it."""

    ALLOWED = {
        f"{numpy}.multiarray": ("_reconstruct",) for numpy in ("numpy.core", "numpy._core")
    } | {"numpy": ("ndarray", "dtype"), "_codecs": ("encode",)}

    def find_class(self, module: str, name: str) -> Any:
        """The few names that CIFAR's pickles need."""
        if name in self.ALLOWED.get(module, ()):
            module = module.replace("numpy.core.", "numpy._core.")
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a data file")


def read_cifar_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One pickle of the python version."""
    try:
        with path.open("rb") as file:
            content = PlainUnpickler(file, encoding="bytes").load()
        return planes_to_images(content[b"data"]), np.asarray(content[b"labels"], np.int32)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: `jaxtv data fetch cifar-10`.") from None
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): fetch it again.") from error


def planes_to_images(planes: np.ndarray) -> np.ndarray:
    """(N, 3072) in planes to (N, 32, 32, 3)."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def read_folders(path: Path) -> Labelled:
    """Pictures in `train/<class>/` and `test/<class>/`.

    Raises:
        DataError: no class, classes that differ, or pictures of several sizes.
    """
    classes = sorted(p.name for p in (path / "train").iterdir() if p.is_dir())
    if not classes or classes != sorted(p.name for p in (path / "test").iterdir() if p.is_dir()):
        raise DataError(f"{path}: train/ and test/ must have the same folders, one per class.")

    def part(name: str) -> tuple[np.ndarray, np.ndarray]:
        files = [(f, i) for i, c in enumerate(classes) for f in images.listed(path / name / c)]
        pixels = [images.read_rgb(f) for f, _ in files]
        if len({p.shape for p in pixels}) != 1:
            raise DataError(f"{path / name}: the pictures must all have one size.")
        return np.stack(pixels), np.asarray([i for _, i in files], np.int32)

    train, test = part("train"), part("test")
    order = np.random.default_rng(0).permutation(len(train[0]))  # classes mixed, for the split
    train = (train[0][order], train[1][order])
    return Labelled(f"{path.name}: {len(train[0])} pictures", classes, *split(train), test)


# ---------------------------------------------------------------------------- task


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
def predict(model: AllCNN, x: jax.Array) -> jax.Array:
    """Labels of normalised images."""
    return jnp.argmax(model(x), axis=-1)


def accuracy(model: AllCNN, x: np.ndarray, y: np.ndarray, batch_size: int = 256) -> float:
    """Percent of labels that are right; x uint8 (N, H, W, 3)."""
    right, batch_size = 0, min(batch_size, len(x))
    for i in range(0, len(x), batch_size):
        part = normalise(np.asarray(x[i : i + batch_size]))
        padded = np.pad(part, ((0, batch_size - len(part)), (0, 0), (0, 0), (0, 0)))  # one shape
        found = np.asarray(predict(model, jnp.asarray(padded)))[: len(part)]
        right += int(np.sum(found == y[i : i + batch_size]))
    return 100 * right / len(x)
