"""Objects pasted on photos at run time, with exact boxes and masks."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi
from PIL import Image

from jaxtv.vision.readers import checks, photos
from jaxtv.vision.readers.located import Located
from jaxtv.vision.readers.shapes import SHAPES
from jaxtv.vision.task import DataError, Settings

COUNTS = {"train": 1024, "validation": 128, "test": 256}  # of composed pictures


def compose(
    part: np.ndarray, alpha: np.ndarray, label: int, ground: np.ndarray, rng: np.random.Generator
) -> Located:
    """Pastes an object somewhere on a picture.

    Args:
        part: (h, w, 3) in 0..255.
        alpha: bool (h, w), where the object is.
        label: its class.
        ground: uint8 (H, W, 3), larger than the object.
        rng: of the position.
    """
    (h, w), (height, width) = alpha.shape, ground.shape[:2]
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    mask = np.zeros((height, width), bool)
    mask[top : top + h, left : left + w] = alpha
    image = ground.copy()
    image[mask] = np.clip(part[alpha], 0, 255).astype(np.uint8)
    return Located(image, label, box_of(mask), mask)


def box_of(mask: np.ndarray) -> np.ndarray:
    """The bounding box of a mask, (1, 4): it ends as the boxes that MaxBoxAccV2 compares with it.

    That is at x0 + width and y0 + height, at most at the last pixel.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    last = np.array(mask.shape) - 1
    bottom, right = np.minimum((rows[-1] + 1, columns[-1] + 1), last)
    return np.array([[columns[0], rows[0], right, bottom]])


def embedded(settings: Settings, seed: int = 0) -> dict[str, list[Located]]:
    """Generated shapes on photos of scikit-image."""
    grounds = photos.embedded((*photos.EMBEDDED_TRAIN, *photos.EMBEDDED_TEST))
    rng = np.random.default_rng(seed)
    inside = list(SHAPES.values())
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
            raise DataError(f"{folder}: {prefix} has {labels.size} labels, and not as many images.")
        labels = checks.labels(f"{folder}: {prefix}-labels", labels, len(labels), 10)
        found[part] = (pixels.reshape(-1, 28, 28), labels)
    return found


def resized(rng: np.random.Generator, settings: Settings) -> int:
    """Side of an object: a third to four fifths of the picture."""
    return int(settings.size * rng.uniform(0.35, 0.8))


def crop(grounds: list[np.ndarray], side: int, part: str, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photo; test pictures take the last fifth of the photos.

    Raises:
        DataError: the photo is smaller.
    """
    first = len(grounds) - max(1, len(grounds) // 5)
    pool = grounds[first:] if part == "test" else grounds[:first] or grounds
    picture = pool[rng.integers(len(pool))]
    if min(picture.shape[:2]) < side:
        raise DataError(f"`size` {side} is more than the {min(picture.shape[:2])} of a photo.")
    top, left = (rng.integers(0, length - side + 1) for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]
