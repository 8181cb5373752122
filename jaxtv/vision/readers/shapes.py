"""Coloured shapes on coloured ground, made at run time."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxtv.vision.readers.labelled import Labelled
from jaxtv.vision.task import Settings

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


def embedded(settings: Settings, seed: int = 0) -> Labelled:
    """Ten kinds of coloured shapes on coloured ground, made here: no file needed."""
    counts = {"train": 1024, "validation": 256, "test": 256}
    if settings.limit:
        counts = {k: min(v, settings.limit) for k, v in counts.items()}
    rng = np.random.default_rng(seed)
    parts = {k: random_shapes(v, settings.size, rng) for k, v in counts.items()}
    description = f"{counts['train']} generated shapes"
    return Labelled(description, list(SHAPES), parts["train"], parts["validation"], parts["test"])


def random_shapes(n: int, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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
