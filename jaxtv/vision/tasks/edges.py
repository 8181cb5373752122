"""Edge detection: DexiNed with TV layers (paper, section 4.4; Table 4, Fig. 5)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.io
import scipy.ndimage as ndi
from flax import nnx

from jaxtv._solvers import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision import boundaries, images, photos
from jaxtv.vision.task import Batch, Column, DataError, Dataset, Settings, Table, Task

STRIDE = 16  # sides of the input are padded to multiples of it
# Of the six side outputs and the fused one (Poma et al. 2020).
LOSS_WEIGHTS = (0.7, 0.7, 1.1, 1.1, 0.3, 0.3, 1.3)
SHARP_OUTPUTS = (0, 1, 2, 3)  # side outputs at 2x, 2x, 4x and 8x
TEXTURES = (*photos.EMBEDDED_TRAIN, "brick.png", "grass.png", "gravel.png", "astronaut.png")
MOSAICS = {"train": 24, "validation": 2, "test": 8}


class ConvNorm(nnx.Module):
    """Convolution and batch norm."""

    def __init__(self, i: int, o: int, kernel: int, stride: int, dtype: Any, *, rngs: nnx.Rngs):
        init = nnx.initializers.xavier_normal()
        self.conv = nnx.Conv(
            i, o, (kernel, kernel), (stride, stride), dtype=dtype, kernel_init=init, rngs=rngs
        )
        self.norm = nnx.BatchNorm(o, momentum=0.9, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, i) to (N, H/stride, W/stride, o)."""
        return self.norm(self.conv(x))


class DenseBlock(nnx.Module):
    """Layers of two convolutions, each averaged with a skipped input."""

    def __init__(self, layers: int, i: int, o: int, dtype: Any, *, rngs: nnx.Rngs):
        inputs = [i] + [o] * (layers - 1)
        self.first = nnx.List([ConvNorm(c, o, 3, 1, dtype, rngs=rngs) for c in inputs])
        self.second = nnx.List([ConvNorm(o, o, 3, 1, dtype, rngs=rngs) for _ in inputs])

    def __call__(self, x: jax.Array, skip: jax.Array) -> jax.Array:
        """(N, H, W, i), (N, H, W, o) to (N, H, W, o)."""
        for first, second in zip(self.first, self.second):
            x = 0.5 * (second(nnx.relu(first(nnx.relu(x)))) + skip)
        return x


class UpBlock(nnx.Module):
    """To one channel at 2**scale times the size, by transposed convolutions of stride 2."""

    def __init__(self, i: int, scale: int, dtype: Any, *, rngs: nnx.Rngs):
        widths = [16] * (scale - 1) + [1]
        kernel, steps = 2**scale, list(zip([i, *widths], widths))
        self.mix = nnx.List([nnx.Conv(a, b, (1, 1), dtype=dtype, rngs=rngs) for a, b in steps])
        self.up = nnx.List(
            [
                nnx.ConvTranspose(b, b, (kernel, kernel), (2, 2), dtype=dtype, rngs=rngs)
                for b in widths
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, i) to (N, 2**scale H, 2**scale W, 1)."""
        for mix, up in zip(self.mix, self.up):
            x = up(nnx.relu(mix(x)))
        return x


class DexiNed(nnx.Module):
    """Dense extreme inception network (Poma et al. 2020): six side outputs and their fusion.

    With TV layers: TV-sharp on the side outputs from 2x, 4x and 8x, TV-smooth on the fused one.

    Args:
        tv: with TV layers.
        settings: `width` (paper: 32; the widest blocks have 16 times that), `depth` layers of a
            dense block (paper: 3), `sweeps`, `init_lam`.
        rngs: of the weights.
    """

    def __init__(self, tv: bool, settings: Settings, *, rngs: nnx.Rngs):
        c, depth, dtype = settings.width, settings.depth, settings.dtype
        conv = lambda i, o, kernel, stride=1: ConvNorm(i, o, kernel, stride, dtype, rngs=rngs)
        dense = lambda n, i, o: DenseBlock(n, i, o, dtype, rngs=rngs)
        self.block1 = nnx.List([conv(3, c, 3, 2), conv(c, 2 * c, 3)])
        self.block2 = nnx.List([conv(2 * c, 4 * c, 3), conv(4 * c, 4 * c, 3)])
        self.block3 = dense(max(1, depth - 1), 4 * c, 8 * c)
        self.block4 = dense(depth, 8 * c, 16 * c)
        self.block5 = dense(depth, 16 * c, 16 * c)
        self.block6 = dense(depth, 16 * c, 8 * c)
        self.side1, self.side2 = conv(2 * c, 4 * c, 1, 2), conv(4 * c, 8 * c, 1, 2)
        self.side3, self.side4 = conv(8 * c, 16 * c, 1, 2), conv(16 * c, 16 * c, 1)
        self.skip2, self.skip3 = conv(4 * c, 8 * c, 1, 2), conv(4 * c, 8 * c, 1)
        self.skip4, self.skip5 = conv(8 * c, 16 * c, 1), conv(16 * c, 16 * c, 1)
        self.skip6 = conv(16 * c, 8 * c, 1)
        scales = ((2, 1), (4, 1), (8, 2), (16, 3), (16, 4), (8, 4))
        self.up = nnx.List([UpBlock(k * c, scale, dtype, rngs=rngs) for k, scale in scales])
        self.fuse = nnx.Conv(6, 1, (1, 1), kernel_init=nnx.initializers.constant(1 / 6), rngs=rngs)
        layer = {"init_lam": settings.init_lam or 0.05, "solver": Dykstra(settings.sweeps)}
        self.sharp = nnx.List([TVLayer(mode="sharp", **layer) for _ in SHARP_OUTPUTS] if tv else [])
        self.smooth = TVLayer(**layer) if tv else None

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """(N, H, W, 3) in -1..1, sides multiples of 16, to seven maps of logits (N, H, W, 1).

        The last is the fused map. Logits are float32.
        """
        maps = [up(block).astype(jnp.float32) for up, block in zip(self.up, self.features(x))]
        for i, layer in zip(SHARP_OUTPUTS, self.sharp):
            maps[i] = layer(maps[i])
        fused = self.fuse(jnp.concatenate(maps, axis=-1))
        return [*maps, fused if self.smooth is None else self.smooth(fused)]

    def features(self, x: jax.Array) -> list[jax.Array]:
        """Outputs of the six blocks, at 1/2, 1/2, 1/4, 1/8, 1/16 and 1/16 of the size."""
        pool = lambda x: nnx.max_pool(x, (3, 3), (2, 2), "SAME")
        one = nnx.relu(self.block1[1](nnx.relu(self.block1[0](x))))
        two = self.block2[1](nnx.relu(self.block2[0](one)))
        down2 = pool(two)
        add2 = down2 + self.side1(one)
        three = self.block3(add2, self.skip3(down2))
        down3 = pool(three)
        add3 = down3 + self.side2(add2)
        four = self.block4(add3, self.skip4(down3 + self.skip2(down2)))
        down4 = pool(four)
        add4 = down4 + self.side3(add3)
        five = self.block5(add4, self.skip5(down4))
        add5 = five + self.side4(add4)
        six = self.block6(add5, self.skip6(five))
        return [one, two, three, four, five, six]


# ---------------------------------------------------------------------------- data


@dataclasses.dataclass(frozen=True)
class Annotated:
    """A picture, uint8 (H, W, 3), and the edges by each annotator, bool (H, W)."""

    image: np.ndarray
    truths: tuple[np.ndarray, ...]

    def target(self) -> np.ndarray:
        """What is trained on: the share of annotators that see an edge, float32 (H, W)."""
        return np.stack(self.truths).mean(axis=0).astype(np.float32)


@dataclasses.dataclass
class Edges(Dataset):
    """Annotated pictures in two parts, `train` and `test`; see `photos.Crops` for the crops."""

    description: str
    crops: photos.Crops
    validation: list[Annotated]
    test: list[Annotated]

    def steps(self, batch_size: int) -> int:
        """Whole batches only."""
        return self.crops.steps(batch_size)

    def epoch(self, rng: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """Random crops."""
        return self.crops.epoch(rng, batch_size)


def normalise(x: Any) -> Any:
    """0..255 to -1..1, float32."""
    return x.astype(np.float32) / np.float32(127.5) - np.float32(1)


def mosaic(textures: list[np.ndarray], side: int, rng: np.random.Generator) -> Annotated:
    """Warped cells, each cut out of a photo and tinted: where cells meet is an edge, exactly."""
    cells = int(rng.integers(6, 14))
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    warp = [side / 3 * smooth_noise(side, rng) for _ in range(2)]
    centres = rng.uniform(0, side, size=(cells, 2))
    distance = (y + warp[0] - centres[:, 0, None, None]) ** 2
    distance = distance + (x + warp[1] - centres[:, 1, None, None]) ** 2
    label = distance.argmin(axis=0)
    picture = np.zeros((side, side, 3))
    for cell in range(cells):
        texture = textures[rng.integers(len(textures))]
        top, left = (rng.integers(0, max(1, n - side)) for n in texture.shape[:2])
        part = texture[top : top + side, left : left + side]
        part = np.pad(part, [(0, side - n) for n in part.shape[:2]] + [(0, 0)], mode="reflect")
        tint, shift = rng.uniform(0.6, 1.2, size=3), rng.uniform(-40, 40, size=3)
        picture = np.where((label == cell)[..., None], part * tint + shift, picture)
    edge = np.zeros((side, side), bool)
    edge[:, :-1] |= label[:, 1:] != label[:, :-1]
    edge[:-1] |= label[1:] != label[:-1]
    return Annotated(np.clip(picture, 0, 255).astype(np.uint8), (edge,))


def smooth_noise(side: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of a scale of a twelfth of the picture, between about -1 and 1."""
    noise = ndi.gaussian_filter(rng.normal(size=(side, side)), side / 12, mode="wrap")
    return noise / np.abs(noise).max()


def mosaics(textures: list[np.ndarray], settings: Settings, seed: int = 0) -> dict[str, Any]:
    """Mosaics for training, validation and testing, each from textures of its own half."""
    side = 2 * settings.size
    half = len(textures) // 2
    sources = {"train": textures[:half], "validation": textures[half:], "test": textures[half:]}
    rng = np.random.default_rng(seed)
    limit = settings.limit or max(MOSAICS.values())
    return {
        part: [mosaic(sources[part], side, rng) for _ in range(min(count, limit))]
        for part, count in MOSAICS.items()
    }


def read(path: Path) -> dict[str, list[Annotated]]:
    """Annotated pictures of a folder.

    * BSDS500: `images/{train,val,test}/*.jpg`, `groundTruth/{train,val,test}/*.mat`;
    * BIPED: `edges/imgs/{train,test}/rgbr[/real]/*`, `edges/edge_maps/…` likewise;
    * pair lists: `train_pair.lst` and `test_pair.lst`, lines of two paths or a JSON list of pairs,
      as MDBD and UDED have them.

    Raises:
        DataError: none of these, or a file is missing or damaged.
    """
    for reader in (read_bsds, read_biped, read_pair_lists):
        found = reader(path)
        if found is not None:
            return found
    raise DataError(
        f"{path} is not laid out as edge data: expected BSDS500 (images/, groundTruth/), BIPED "
        "(edges/imgs, edges/edge_maps) or train_pair.lst and test_pair.lst."
    )


def read_bsds(path: Path) -> dict[str, list[Annotated]] | None:
    """BSDS500, also below `BSDS500/data`; None: another layout."""
    root = next(
        (p for p in (path, path / "BSDS500" / "data") if (p / "groundTruth").is_dir()), None
    )
    if root is None:
        return None

    def part(name: str) -> list[Annotated]:
        return [
            Annotated(images.read_rgb(p), read_mat(root / "groundTruth" / name / f"{p.stem}.mat"))
            for p in images.listed(root / "images" / name)
        ]

    return {"train": part("train"), "validation": part("val")[:4], "test": part("test")}


def read_mat(path: Path) -> tuple[np.ndarray, ...]:
    """Boundaries by each annotator in a BSDS .mat.

    Raises:
        DataError: missing or damaged.
    """
    try:
        cells = scipy.io.loadmat(str(path))["groundTruth"].ravel()
        return tuple(cell["Boundaries"][0, 0].astype(bool) for cell in cells)
    except FileNotFoundError:
        raise DataError(f"{path} is missing.") from None
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{path} can not be read: {error}.") from error


def read_biped(path: Path) -> dict[str, list[Annotated]] | None:
    """BIPED, also below `BIPED`; None: another layout."""
    roots = [p for p in (path, path / "BIPED") if (p / "edges" / "imgs").is_dir()]
    if not roots:
        return None
    root = roots[0] / "edges"

    def part(name: str) -> list[Annotated]:
        folder = root / "imgs" / name / "rgbr"
        folder = folder / "real" if (folder / "real").is_dir() else folder
        maps = Path(str(folder).replace(str(root / "imgs"), str(root / "edge_maps"), 1))
        return [pair_of(p, maps / f"{p.stem}.png") for p in images.listed(folder)]

    return with_validation(part("train"), part("test"))


def read_pair_lists(path: Path) -> dict[str, list[Annotated]] | None:
    """Pair lists; None: another layout. Without a list for training only testing is possible."""
    if not (path / "test_pair.lst").exists():
        return None

    def part(name: str) -> list[Annotated]:
        file = path / f"{name}_pair.lst"
        if not file.exists():
            return []
        text = file.read_text()
        listed = text.lstrip().startswith("[")
        pairs = json.loads(text) if listed else [line.split() for line in text.splitlines()]
        return [pair_of(path / pair[0], path / pair[1]) for pair in pairs if pair]

    return with_validation(part("train"), part("test"))


def with_validation(train: list[Annotated], test: list[Annotated]) -> dict[str, list[Annotated]]:
    """The last twentieth of the training pictures is kept for validation."""
    keep = len(train) - max(1, len(train) // 20) if len(train) > 1 else len(train)
    return {"train": train[:keep], "validation": train[keep:] or test[:1], "test": test}


def pair_of(picture: Path, edges: Path) -> Annotated:
    """A picture and its edge map, where more than half white is an edge.

    Raises:
        DataError: the edge map is missing or of another size.
    """
    if not edges.exists():
        raise DataError(f"{edges} is missing; it belongs to {picture}.")
    image, truth = images.read_rgb(picture), images.read_rgb(edges)
    if image.shape != truth.shape:
        raise DataError(f"{edges} must have the size of {picture}.")
    return Annotated(image, (truth[..., 0] > 127,))


# ---------------------------------------------------------------------------- task


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
        """ODS, OIS and AP on the test pictures."""
        return boundaries.scores(
            [boundaries.counts(detect(model, a.image), a.truths) for a in data.test]
        )


def as_bytes(share: np.ndarray) -> np.ndarray:
    """Shares (H, W) in 0..1 to uint8 (H, W, 1)."""
    return np.rint(255 * share).astype(np.uint8)[..., None]


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
