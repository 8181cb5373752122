"""Weakly supervised localisation: class activation maps after a TV layer (paper, section 4.3)."""

from __future__ import annotations

import dataclasses
import gzip
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.ndimage as ndi
import skimage
from flax import nnx
from PIL import Image

from jaxtv._solvers import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision import images, photos
from jaxtv.vision.task import Batch, Column, DataError, Dataset, Settings, Table, Task
from jaxtv.vision.tasks import classification

LAM = 1.0  # fixed (paper)
IOUS = (0.3, 0.5, 0.7)
LEVELS = 1000  # thresholds of a score map, as in wsolevaluation
COUNTS = {"train": 1024, "validation": 128, "test": 256}  # of composed pictures

# ---------------------------------------------------------------------------- models


class ConvNorm(nnx.Module):
    """Convolution, batch norm, ReLU unless told otherwise."""

    def __init__(
        self,
        i: int,
        o: int,
        kernel: Any,
        stride: int = 1,
        relu: bool = True,
        *,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        he, strides = nnx.initializers.he_normal(), (stride, stride)
        self.conv = nnx.Conv(
            i, o, kernel, strides, use_bias=False, dtype=dtype, kernel_init=he, rngs=rngs
        )
        self.norm = nnx.BatchNorm(o, momentum=0.9, dtype=dtype, rngs=rngs)
        self.relu = relu

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, i) to (N, H/stride, W/stride, o)."""
        x = self.norm(self.conv(x))
        return nnx.relu(x) if self.relu else x


class VGG16(nnx.Module):
    """The convolutions of VGG-16 (Simonyan & Zisserman 2015), at 1/8 of the size, with batch norm.

    wsolevaluation keeps the last blocks at 28 x 28 of 224; one more convolution follows (CAM).
    """

    def __init__(self, width: int, dtype: Any, *, rngs: nnx.Rngs):
        plan = [1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, 8, 8, 8, 16]
        layers, channels = [], 3
        for times in plan:
            if isinstance(times, str):
                layers.append(Pool())
                continue
            layers.append(ConvNorm(channels, times * width, 3, dtype=dtype, rngs=rngs))
            channels = times * width
        self.layers, self.features = nnx.List(layers), channels

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, 3) to (N, H/8, W/8, 16 width)."""
        for layer in self.layers:
            x = layer(x)
        return x


class Pool(nnx.Module):
    """Maximum over 2 x 2, or over 3 x 3 at stride 2."""

    def __init__(self, side: int = 2):
        self.side = side

    def __call__(self, x: jax.Array) -> jax.Array:
        """Half the size."""
        return nnx.max_pool(x, (self.side, self.side), (2, 2), "SAME")


class Bottleneck(nnx.Module):
    """Residual block of 1 x 1, 3 x 3 and 1 x 1 convolutions (He et al. 2016)."""

    def __init__(self, i: int, width: int, stride: int, dtype: Any, *, rngs: nnx.Rngs):
        conv = lambda *a, **k: ConvNorm(*a, **k, dtype=dtype, rngs=rngs)
        o = 4 * width
        self.convs = nnx.List(
            [conv(i, width, 1), conv(width, width, 3, stride), conv(width, o, 1, relu=False)]
        )
        self.shortcut = None if i == o and stride == 1 else conv(i, o, 1, stride, relu=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, i) to (N, H/stride, W/stride, 4 width)."""
        y = x
        for conv in self.convs:
            y = conv(y)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet50(nnx.Module):
    """The convolutions of ResNet-50 (He et al. 2016), at 1/8 of the size.

    wsolevaluation's strides are 1, 2, 1, 1 after the stem, for 28 x 28 of 224.
    """

    def __init__(self, width: int, dtype: Any, *, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, width, 7, 2, dtype=dtype, rngs=rngs)
        self.pool = Pool(3)
        blocks, channels = [], width
        for stage, (count, stride) in enumerate(((3, 1), (4, 2), (6, 1), (3, 1))):
            for i in range(count):
                w = width * 2**stage
                blocks.append(Bottleneck(channels, w, stride if i == 0 else 1, dtype, rngs=rngs))
                channels = 4 * w
        self.blocks, self.features = nnx.List(blocks), channels

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, 3) to (N, H/8, W/8, 32 width)."""
        x = self.pool(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return x


class Branches(nnx.Module):
    """Chains of convolutions side by side, concatenated; `pool`: 3 x 3 average (or maximum) first.

    Args:
        chains: per branch, layers (channels, kernel, stride) after an optional "average" or "max".
    """

    def __init__(self, i: int, chains: Sequence[Sequence[Any]], dtype: Any, *, rngs: nnx.Rngs):
        self.pools = tuple(next((p for p in chain if isinstance(p, str)), "") for chain in chains)
        branches, self.features = [], 0
        for chain in chains:
            channels, layers = i, []
            for layer in (step for step in chain if not isinstance(step, str)):
                layers.append(ConvNorm(channels, *layer, dtype=dtype, rngs=rngs))
                channels = layer[0]
            branches.append(nnx.List(layers))
            self.features += channels
        self.branches = nnx.List(branches)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, i) to (N, H', W', features)."""
        outputs = []
        for pool, branch in zip(self.pools, self.branches):
            y = x
            if pool == "average":
                y = nnx.avg_pool(x, (3, 3), (1, 1), "SAME")
            elif pool == "max":
                y = nnx.max_pool(x, (3, 3), (2, 2), "SAME")
            for conv in branch:
                y = conv(y)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=-1)


class InceptionV3(nnx.Module):
    """The convolutions of Inception-V3 (Szegedy et al. 2016), at 1/8 of the size.

    wsolevaluation cuts it after Mixed_6e, without the stride of Mixed_6a, and adds two 3 x 3
    convolutions of 1024 channels.
    """

    def __init__(self, width: int, dtype: Any, *, rngs: nnx.Rngs):
        c = lambda channels: max(1, channels * width // 64)
        conv = lambda *a: ConvNorm(*a, dtype=dtype, rngs=rngs)
        layers: list[Any] = [conv(3, c(32), 3, 2), conv(c(32), c(32), 3), conv(c(32), c(64), 3)]
        layers += [Pool(3), conv(c(64), c(80), 1), conv(c(80), c(192), 3), Pool(3)]
        channels = c(192)

        def add(*chains: Sequence[Any]) -> None:
            nonlocal channels
            layers.append(Branches(channels, chains, dtype, rngs=rngs))
            channels = layers[-1].features

        for pooled in (32, 64, 64):
            five, three = [(c(48), 1), (c(64), 5)], [(c(64), 1), (c(96), 3), (c(96), 3)]
            add([(c(64), 1)], five, three, ["average", (c(pooled), 1)])
        add([(c(384), 3)], [(c(64), 1), (c(96), 3), (c(96), 3)], ["average"])
        for inner in (128, 160, 160, 192):
            k = c(inner)
            once = [(k, 1), (k, (1, 7)), (c(192), (7, 1))]
            twice = [(k, 1), (k, (7, 1)), (k, (1, 7)), (k, (7, 1)), (c(192), (1, 7))]
            add([(c(192), 1)], once, twice, ["average", (c(192), 1)])
        layers += [conv(channels, c(1024), 3), conv(c(1024), c(1024), 3)]
        self.layers, self.features = nnx.List(layers), c(1024)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, 3) to (N, H/8, W/8, 16 width)."""
        for layer in self.layers:
            x = layer(x)
        return x


BACKBONES = {"vgg16": VGG16, "resnet50": ResNet50, "inception3": InceptionV3}


class CAM(nnx.Module):
    """A classifier whose decision is a mean over places (Zhou et al. 2016).

    With TV a fixed 2D TV-smooth layer, λ = 1, comes before the layer that weighs the maps.

    Args:
        tv: with it.
        classes: number of classes.
        settings: `backbone`, `width` (paper: 64), `sweeps`, `init_lam` in place of λ = 1.
        rngs: of the weights.
    """

    def __init__(self, tv: bool, classes: int, settings: Settings, *, rngs: nnx.Rngs):
        backbone = BACKBONES[settings.backbone]
        self.backbone = backbone(settings.width, settings.dtype, rngs=rngs)
        lam = settings.init_lam or LAM
        layer = TVLayer(init_lam=lam, trainable=False, solver=Dykstra(settings.sweeps))
        self.tv = layer if tv else None
        self.classify = nnx.Linear(self.backbone.features, classes, rngs=rngs)

    def maps(self, x: jax.Array) -> jax.Array:
        """Evidence for each class at each place: (N, H/8, W/8, classes), float32."""
        features = self.backbone(x).astype(jnp.float32)
        return self.classify(features if self.tv is None else self.tv(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, classes)."""
        return jnp.mean(self.maps(x), axis=(1, 2))


# ---------------------------------------------------------------------------- metrics


def score_map(evidence: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of one class at the picture's size, from 0 to 1: (h, w) to float32 (height, width)."""
    if evidence.max() == evidence.min():
        return np.zeros((height, width), np.float32)
    large = np.asarray(jax.image.resize(evidence, (height, width), "cubic"))
    return (large - large.min()) / (large.max() - large.min())


def best_ious(scores: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The best overlap at each threshold, over all components and all true boxes (MaxBoxAccV2).

    Args:
        scores: (H, W) in 0..1; quantised to 8 bits, as in wsolevaluation (Choe et al. 2020).
        boxes: (B, 4), x0, y0, x1, y1 in pixels, both ends inside.

    Returns:
        (1000,): per threshold.
    """
    gray = (255 * scores).astype(np.uint8)
    levels = (np.arange(LEVELS) / LEVELS * gray.max()).astype(int)
    found = {level: best_iou(gray > level, boxes) for level in np.unique(levels)}
    return np.array([found[level] for level in levels])


def best_iou(mask: np.ndarray, boxes: np.ndarray) -> float:
    """The best overlap of a component's bounding box with a true box; 0 for an empty mask."""
    label = np.asarray(skimage.measure.label(mask, connectivity=2))
    found = np.array(
        [(x.start, y.start, x.stop - 1, y.stop - 1) for y, x in ndi.find_objects(label)]
    )
    if not len(found):
        return 0.0
    return float(iou(found[:, None], boxes[None]).max())


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4), both ends inside."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    inter = np.prod(np.maximum(high - low + 1, 0), axis=-1)
    area = lambda box: np.prod(box[..., 2:] - box[..., :2] + 1, axis=-1)
    return inter / (area(a) + area(b) - inter)


def box_accuracy(ious: np.ndarray) -> dict[str, float]:
    """MaxBoxAccV2 in percent: the mean over IoU 0.3, 0.5, 0.7 of the best threshold's accuracy.

    Args:
        ious: (images, thresholds) of `best_ious`.
    """
    each = [100 * (ious >= limit).mean(axis=0).max() for limit in IOUS]
    scores = {f"boxes at {limit}": float(v) for limit, v in zip(IOUS, each)}
    return {"max_box_acc": float(np.mean(each)), **scores}


class PixelCurve:
    """PxAP: average precision of pixels, over all images at once (Choe et al. 2020)."""

    def __init__(self):
        self.edges = np.append(np.arange(LEVELS) / LEVELS, [1.0, 2.0])
        self.inside = np.zeros(LEVELS + 1)
        self.outside = np.zeros(LEVELS + 1)

    def add(self, scores: np.ndarray, mask: np.ndarray) -> None:
        """One score map (H, W) in 0..1 and its true mask (bool)."""
        self.inside += np.histogram(scores[mask], self.edges)[0]
        self.outside += np.histogram(scores[~mask], self.edges)[0]

    def average_precision(self) -> float:
        """In percent."""
        hits, wrong = (np.cumsum(h[::-1]) for h in (self.inside, self.outside))
        precision = hits / np.maximum(hits + wrong, 1)
        recall = hits / max(hits[-1], 1)
        return float(100 * (precision[1:] * np.diff(recall)).sum() + 100 * precision[0] * recall[0])


# ---------------------------------------------------------------------------- data


class Located(NamedTuple):
    """A picture with its class and where it is.

    Attributes:
        image: uint8 (H, W, 3).
        label: class.
        boxes: (B, 4), x0, y0, x1, y1, both ends inside.
        mask: bool (H, W), or None where only boxes are known.
    """

    image: np.ndarray
    label: int
    boxes: np.ndarray
    mask: np.ndarray | None


@dataclasses.dataclass
class Places(Dataset):
    """Pictures of one size to train on (labels only), and located ones to test on."""

    description: str
    train: tuple[np.ndarray, np.ndarray]
    validation: list[Located]
    test: list[Located]

    def steps(self, batch_size: int) -> int:
        """Whole batches only."""
        return len(self.train[0]) // batch_size

    def epoch(self, rng: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """Shuffled, mirrored and shifted by up to an eighth."""
        shift = self.train[0].shape[1] // 8
        return classification.batches(self.train, rng, batch_size, shift)


def compose(
    part: np.ndarray, alpha: np.ndarray, label: int, ground: np.ndarray, rng: np.random.Generator
) -> Located:
    """Pastes an object somewhere on a picture.

    Args:
        part: (h, w, 3) in 0..255.
        alpha: bool (h, w), where the object is.
        label: its class.
        ground: uint8 (H, W, 3), larger than the object.
        rng: of the place.
    """
    (h, w), (height, width) = alpha.shape, ground.shape[:2]
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    mask = np.zeros((height, width), bool)
    mask[top : top + h, left : left + w] = alpha
    image = ground.copy()
    image[mask] = np.clip(part[alpha], 0, 255).astype(np.uint8)
    return Located(image, label, box_of(mask), mask)


def box_of(mask: np.ndarray) -> np.ndarray:
    """The bounding box of a mask, (1, 4)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([[columns[0], rows[0], columns[-1], rows[-1]]])


def garments(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Fashion-MNIST: gray garments on black, uint8 (N, 28, 28), and labels.

    Raises:
        DataError: a file is missing or damaged.
    """

    def array(name: str, header: int) -> np.ndarray:
        path = folder / name
        try:
            with gzip.open(path) as file:
                return np.frombuffer(file.read()[header:], np.uint8)
        except FileNotFoundError:
            raise DataError(f"{path} is missing; it is a part of Fashion-MNIST.") from None
        except (OSError, EOFError) as error:
            raise DataError(f"{path} is damaged ({error}).") from error

    found = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        labels = array(f"{prefix}-labels-idx1-ubyte.gz", 8)
        pixels = array(f"{prefix}-images-idx3-ubyte.gz", 16)
        if pixels.size != 784 * labels.size:
            raise DataError(f"{folder}: {prefix} has {labels.size} labels and other images.")
        found[part] = (pixels.reshape(-1, 28, 28), labels.astype(np.int32))
    return found


def dressed(
    folder: Path, grounds: list[np.ndarray], settings: Settings, seed: int = 0
) -> dict[str, list[Located]]:
    """Fashion-MNIST's garments, enlarged and tinted, on crops of photos."""
    source = garments(folder)
    rng = np.random.default_rng(seed)
    parts = {}
    for part, count in COUNTS.items():
        pixels, labels = source["test" if part == "test" else "train"]
        chosen = rng.permutation(len(labels))[: min(count, settings.limit or count)]
        parts[part] = []
        for i in chosen:
            gray = np.asarray(Image.fromarray(pixels[i]).resize([resized(rng, settings)] * 2))
            alpha = np.asarray(ndi.binary_fill_holes(gray > 24))
            tint = rng.uniform(0.5, 1.2, size=3)
            ground = crop(grounds, settings.size, part, rng)
            parts[part].append(compose(gray[..., None] * tint, alpha, int(labels[i]), ground, rng))
    return parts


def resized(rng: np.random.Generator, settings: Settings) -> int:
    """Side of an object: a third to four fifths of the picture."""
    return int(settings.size * rng.uniform(0.35, 0.8))


def crop(grounds: list[np.ndarray], side: int, part: str, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photo; test pictures take the last fifth of the photos."""
    first = len(grounds) - max(1, len(grounds) // 5)
    pool = grounds[first:] if part == "test" else grounds[:first] or grounds
    picture = pool[rng.integers(len(pool))]
    top, left = (rng.integers(0, length - side + 1) for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def embedded(settings: Settings, seed: int = 0) -> dict[str, list[Located]]:
    """Generated shapes on photos of scikit-image."""
    grounds = photos.embedded((*photos.EMBEDDED_TRAIN, *photos.EMBEDDED_TEST))
    rng = np.random.default_rng(seed)
    inside = list(classification.SHAPES.values())
    parts = {}
    for part, count in COUNTS.items():
        parts[part] = []
        for _ in range(min(count // 2, settings.limit or count)):
            label, side = int(rng.integers(len(inside))), resized(rng, settings)
            axis = np.linspace(-1, 1, side)
            alpha = inside[label](axis[None], axis[:, None]) & np.ones((side, side), bool)
            colour = np.broadcast_to(rng.uniform(0, 255, size=3), (side, side, 3))
            ground = crop(grounds, settings.size, part, rng)
            parts[part].append(compose(colour, alpha, label, ground, rng))
    return parts


def read_metadata(path: Path, settings: Settings) -> dict[str, list[Located]]:
    """Wsolevaluation's layout (Choe et al. 2020), for CUB and ILSVRC.

    `metadata/{train,val,test}/image_ids.txt`, `class_labels.txt`, `image_sizes.txt` and, but for
    train, `localization.txt` (id,x0,y0,x1,y1), with pictures below the folder itself.

    Raises:
        DataError: a file is missing or does not fit.
    """
    parts = {}
    for part, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        folder = path / "metadata" / name
        labels = {k: int(v[0]) for k, v in table(folder / "class_labels.txt").items()}
        boxes = {} if part == "train" else table(folder / "localization.txt", several=True)
        names = [line.strip() for line in text_of(folder / "image_ids.txt").splitlines() if line]
        names = names[: settings.limit or None]
        missing = [n for n in names if n not in labels or (part != "train" and n not in boxes)]
        if missing:
            raise DataError(f"{folder} has no label or box of {missing[0]}.")
        parts[part] = [
            resize_located(path / n, labels[n], np.array(boxes.get(n, [[0, 0, 0, 0]])), settings)
            for n in names
        ]
    return parts


def text_of(path: Path) -> str:
    """A text file.

    Raises:
        DataError: missing.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is missing; expected wsolevaluation's metadata (github.com/clovaai/"
            "wsolevaluation, metadata/) in the folder of the pictures."
        )
    return path.read_text()


def table(path: Path, several: bool = False) -> dict[str, Any]:
    """Lines of `id,number,number…`; `several`: a list of rows for each id."""
    out: dict[str, Any] = {}
    for line in text_of(path).splitlines():
        name, *numbers = line.strip().split(",")
        row = [float(n) for n in numbers]
        if several:
            out.setdefault(name, []).append(row)
        elif name:
            out[name] = row
    return out


def read_voc(path: Path, settings: Settings) -> dict[str, list[Located]]:
    """Pascal VOC: `JPEGImages/*.jpg`, `Annotations/*.xml`, `ImageSets/Main/{train,val}.txt`.

    Pictures with objects of one class only; half of `val` is for validation, half for testing.

    Raises:
        DataError: a file is missing or damaged.
    """

    def located(name: str) -> Located | None:
        file = path / "Annotations" / f"{name}.xml"
        try:
            objects = ElementTree.parse(file).findall("object")
        except (FileNotFoundError, ElementTree.ParseError) as error:
            raise DataError(f"{file} can not be read: {error}.") from error
        kinds = {o.findtext("name") for o in objects}
        if len(kinds) != 1:
            return None
        corners = ("xmin", "ymin", "xmax", "ymax")
        boxes = [[float(o.findtext(f"bndbox/{c}", "0")) - 1 for c in corners] for o in objects]
        label = VOC_CLASSES.index(str(kinds.pop()))
        return resize_located(path / "JPEGImages" / f"{name}.jpg", label, np.array(boxes), settings)

    def part(name: str) -> list[Located]:
        names = text_of(path / "ImageSets" / "Main" / f"{name}.txt").split()
        found = (located(n) for n in names[: settings.limit or None])
        return [f for f in found if f is not None]

    held_out = part("val")
    middle = len(held_out) // 2
    return {"train": part("train"), "validation": held_out[:middle], "test": held_out[middle:]}


VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


def resize_located(path: Path, label: int, boxes: np.ndarray, settings: Settings) -> Located:
    """A picture and its boxes at `size` x `size`."""
    image = images.read_rgb(path)
    scale = settings.size / np.array([image.shape[1], image.shape[0]] * 2)
    small = Image.fromarray(image).resize([settings.size] * 2, Image.Resampling.BICUBIC)
    return Located(np.asarray(small), label, np.rint(boxes * scale).astype(int), None)


# ---------------------------------------------------------------------------- task

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


class Localisation(Task):
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

    def load(self, data: Path | None, settings: Settings) -> Places:
        """A folder of one of the layouts; without data: shapes on photos of scikit-image.

        wsolevaluation's, Pascal VOC's, or Fashion-MNIST (`fashion_mnist_small/`) beside photos
        (`photos_cc0/`), from which pictures with exact boxes and masks are composed.

        Raises:
            DataError: none of these.
        """
        if data is None:
            parts, name = embedded(settings), "shapes on photos of scikit-image"
        elif (data / "metadata").is_dir():
            parts, name = read_metadata(data, settings), data.name
        elif (data / "Annotations").is_dir():
            parts, name = read_voc(data, settings), data.name
        elif (data / "fashion_mnist_small").is_dir() and (data / "photos_cc0").is_dir():
            grounds = photos.read_folder(data / "photos_cc0")
            parts = dressed(data / "fashion_mnist_small", grounds, settings)
            name = "garments of Fashion-MNIST on photos"
        else:
            raise DataError(
                f"{data} is not laid out as localisation data: expected metadata/ "
                "(wsolevaluation), Annotations/ (Pascal VOC), or fashion_mnist_small/ and "
                "photos_cc0/."
            )
        train = parts["train"]
        x, y = np.stack([t.image for t in train]), np.array([t.label for t in train], np.int32)
        classes = 1 + max(located.label for part in parts.values() for located in part)
        if classes > settings.classes:
            raise DataError(f"{data} has {classes} classes; train with --classes {classes}.")
        return Places(
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

    def validate(self, model: CAM, data: Places, settings: Settings) -> dict[str, float]:
        """Accuracy and MaxBoxAccV2 on the pictures held out."""
        return measure(model, data.validation)

    def evaluate(self, model: CAM, data: Places, settings: Settings) -> dict[str, float]:
        """MaxBoxAccV2, PxAP where masks are known, and the accuracy, all in percent."""
        return measure(model, data.test)


def measure(model: CAM, located: list[Located]) -> dict[str, float]:
    """All metrics, from the maps of the true classes."""
    ious, right, pixels = [], 0, PixelCurve()
    for one in located:
        maps = np.asarray(apply(model, jnp.asarray(classification.normalise(one.image))[None])[0])
        right += int(maps.mean(axis=(0, 1)).argmax() == one.label)
        scores = score_map(maps[..., one.label], *one.image.shape[:2])
        ious.append(best_ious(scores, one.boxes))
        if one.mask is not None:
            pixels.add(scores, one.mask)
    found = box_accuracy(np.stack(ious)) | {"accuracy": 100 * right / len(located)}
    if all(one.mask is not None for one in located):
        found["pxap"] = pixels.average_precision()
    return found


@nnx.jit
def apply(model: Any, x: jax.Array) -> jax.Array:
    """Maps of all classes."""
    return model.maps(x)
