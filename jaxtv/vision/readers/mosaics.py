"""Mosaics of warped textures with exact edges, made at run time."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage as ndi

from jaxtv.vision.readers import photos
from jaxtv.vision.readers.edges import Annotated
from jaxtv.vision.task import Settings

TEXTURES = (*photos.EMBEDDED_TRAIN, "brick.png", "grass.png", "gravel.png", "astronaut.png")

MOSAICS = {"train": 24, "validation": 2, "test": 8}


def mosaics(textures: list[np.ndarray], settings: Settings, seed: int = 0) -> dict[str, Any]:
    """Mosaics for training, validation and testing; textures to train on are not tested on."""
    side = 2 * settings.size
    half = len(textures) // 2
    sources = {"train": textures[:half], "validation": textures[half:], "test": textures[half:]}
    rng = np.random.default_rng(seed)
    limit = settings.limit or max(MOSAICS.values())
    return {
        part: [mosaic(sources[part], side, rng) for _ in range(min(count, limit))]
        for part, count in MOSAICS.items()
    }


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
