"""Pictures with smoothed versions and votes: BenchmarkEPS, or made at run time."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxtv
from jaxtv.vision import images
from jaxtv.vision.readers import checks, photos
from jaxtv.vision.task import DataError

EMBEDDED_LAMBDAS = (10.0, 20.0, 40.0)  # of the targets of the embedded data, on 0..255

EMBEDDED_WEIGHTS = (0.5, 0.3, 0.2)


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
    names = photos.files_of(folders[0] / "origin_images")
    if len(names) != len(votes):
        raise DataError(f"{folders[0]} has {len(names)} pictures and votes for {len(votes)}.")
    return [read_pair(name, row) for name, row in zip(names, votes)]


def read_votes(path: Path) -> np.ndarray:
    """The (N, K) array of a weight_matrix.mat.

    Raises:
        DataError: it is missing, damaged, or has another content.
    """
    content = checks.mat(path)
    arrays = {k: v for k, v in content.items() if not k.startswith("_") and np.ndim(v) == 2}
    votes = next(iter(arrays.values()), np.zeros(0))
    number = votes.dtype.kind in "uif" and bool(np.all(np.isfinite(votes)))
    if len(arrays) != 1 or not number or votes.min() < 0 or not np.all(votes.sum(axis=1) > 0):
        found = ", ".join(f"{k} {v.dtype} {v.shape}" for k, v in arrays.items()) or "nothing"
        raise DataError(
            f"{path} must hold one matrix of votes >= 0, a row per picture; it has {found}."
        )
    return votes.astype(np.float32)


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
    for file, target in zip(files, targets):
        if target.shape != image.shape:
            raise DataError(
                f"{file} must have the size of {path}, {image.shape[:2]}, not {target.shape[:2]}."
            )
    return Pair(image, np.stack(targets), votes / votes.sum())


def embedded() -> list[Pair]:
    """Photos of scikit-image, with the converged-enough TV prox at three λ as targets."""
    pairs = []
    for image in photos.embedded((*photos.EMBEDDED_TRAIN, *photos.EMBEDDED_TEST)):
        part = photos.centre(image, 256)
        x = jnp.asarray(part, jnp.float32)
        prox = functools.partial(jaxtv.prox_tv2d, x, axes=(0, 1), solver=jaxtv.Dykstra(20))
        smooth = [prox(lam) for lam in EMBEDDED_LAMBDAS]
        targets = np.rint(np.clip(np.stack(smooth), 0, 255)).astype(np.uint8)
        pairs.append(Pair(part, targets, np.asarray(EMBEDDED_WEIGHTS, np.float32)))
    return pairs
