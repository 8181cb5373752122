"""Classification data: an .npz, CIFAR-10, or folders of images by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxtv.vision import files, images
from jaxtv.vision.readers import checks
from jaxtv.vision.readers.cifar import read_cifar
from jaxtv.vision.readers.labelled import Labelled, split
from jaxtv.vision.task import DataError

MOST_CLASSES = 100_000  # of labels without names; more would be no labels


def read(path: Path) -> Labelled:
    """Data at a path: an .npz, a folder of CIFAR-10, or a folder of images by class.

    * `*.npz` (or a folder with `clothing32.npz`): `x_train`, `y_train`, `x_test`, `y_test`, and if
      there are `x_validation`, `y_validation`, `classes`;
    * CIFAR-10, python or binary version: `data_batch_1` … `test_batch` (`.bin`), also within
      `cifar-10-batches-py` or `cifar-10-batches-bin`;
    * `train/<class>/*`, `test/<class>/*`: pictures, all of one size.

    `CIFAR-10-C` next to CIFAR-10 is used for the corrupted test images.

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
        DataError: damaged, or arrays are missing or have other shapes, types or values.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:  # a damaged file fails in any way
        raise DataError(f"{path} can not be read as .npz: {error}.") from error
    needed = {"x_train", "y_train", "x_test", "y_test"}
    if arrays.keys() & {"x_validation", "y_validation"}:
        needed |= {"x_validation", "y_validation"}
    missing = needed - set(arrays)
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; it has {', '.join(arrays)}.")
    names = [n for n in ("train", "validation", "test") if f"x_{n}" in arrays]
    x = {n: checks.pictures(f"{path}: x_{n}", arrays[f"x_{n}"]) for n in names}
    y_train = checks.labels(f"{path}: y_train", arrays["y_train"], len(x["train"]))
    if "classes" not in arrays and y_train.max() >= MOST_CLASSES:
        raise DataError(
            f"{path}: y_train has the label {y_train.max()}; expected less than {MOST_CLASSES} "
            "where no array `classes` names them."
        )
    named = arrays.get("classes", np.arange(y_train.max() + 1))
    if named.ndim != 1:
        raise DataError(f"{path}: classes is {named.dtype} {named.shape}; expected (classes,).")
    classes = [str(c) for c in named]
    parts = {}
    for n in names:
        if x[n].shape[1:] != x["train"].shape[1:]:
            sizes = f"x_{n} is {x[n].shape}, x_train {x['train'].shape}"
            raise DataError(f"{path}: {sizes}; expected one size.")
        y = checks.labels(f"{path}: y_{n}", arrays[f"y_{n}"], len(x[n]), len(classes))
        parts[n] = (x[n], y)
    train, validation = parts["train"], parts.get("validation")
    if validation is None:
        train, validation = split(train)
    description = f"{path.stem}: {len(train[0])} training images"
    return Labelled(description, classes, train, validation, parts["test"])


def read_folders(path: Path) -> Labelled:
    """Pictures in `train/<class>/` and `test/<class>/`.

    Raises:
        DataError: no class, classes that differ, or pictures of several sizes.
    """
    classes, of_test = (
        [p.name for p in files.entries(path / part) if p.is_dir()] for part in ("train", "test")
    )
    if not classes or classes != of_test:
        raise DataError(f"{path}: train/ and test/ must have the same folders, one per class.")

    def part(name: str) -> tuple[np.ndarray, np.ndarray]:
        found = [(f, i) for i, c in enumerate(classes) for f in images.listed(path / name / c)]
        if not found:
            raise DataError(f"{path / name} has no picture in its folders ({', '.join(classes)}).")
        pixels = [images.read_rgb(f) for f, _ in found]
        sizes = sorted({p.shape[:2] for p in pixels})
        if len(sizes) != 1:
            raise DataError(f"{path / name}: the pictures must all have one size, found {sizes}.")
        return np.stack(pixels), np.asarray([i for _, i in found], np.int32)

    train, test = part("train"), part("test")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{path}: train/ has pictures of {train[0].shape[1:3]}, test/ {test[0].shape[1:3]}."
        )
    order = np.random.default_rng(0).permutation(len(train[0]))  # classes mixed, for the split
    train = (train[0][order], train[1][order])
    return Labelled(f"{path.name}: {len(train[0])} pictures", classes, *split(train), test)
