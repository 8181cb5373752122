"""Classification data: an .npz, CIFAR-10, or folders of images by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxtv.vision import images
from jaxtv.vision.readers.cifar import read_cifar
from jaxtv.vision.readers.labelled import Labelled, split
from jaxtv.vision.task import DataError


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
