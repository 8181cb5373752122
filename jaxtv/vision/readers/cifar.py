"""CIFAR-10 and CIFAR-10-C in their published files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from jaxtv.vision.readers import checks
from jaxtv.vision.readers.labelled import Labelled, split
from jaxtv.vision.task import DataError

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
    return to_images(path, rows[:, 1:], rows[:, 0])


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
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a data file")


def read_cifar_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One pickle of the python version."""
    try:
        with path.open("rb") as file:
            content = PlainUnpickler(file, encoding="bytes").load()
        planes, labels = np.asarray(content[b"data"]), content[b"labels"]
    except FileNotFoundError:
        raise DataError(f"{path} is missing: `jaxtv data fetch cifar-10`.") from None
    except Exception as error:  # a damaged file fails in any way
        raise DataError(f"{path} is damaged ({error}): fetch it again.") from error
    return to_images(path, planes, labels)


def to_images(path: Path, planes: np.ndarray, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Channel planes (N, 3072) to (N, 32, 32, 3), and their labels.

    Raises:
        DataError: other shapes, types or labels.
    """
    if planes.dtype != np.uint8 or planes.ndim != 2 or planes.shape[1] != 3072 or not len(planes):
        raise DataError(f"{path} has {planes.dtype} {planes.shape}, expected uint8 (N, 3072).")
    y = checks.labels(f"{path}: labels", labels, len(planes), len(CIFAR))
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), y
