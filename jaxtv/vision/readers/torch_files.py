"""Tensors of PyTorch's files, without PyTorch."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxtv.vision.readers import catalogue
from jaxtv.vision.task import DataError

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
}


class _Tensor(NamedTuple):
    """Where the numbers of a tensor are: a storage, and the layout in it, in numbers."""

    storage: tuple[type, str]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state(path: Path, source: str) -> dict[str, np.ndarray]:
    """The tensors of a network, by the names of its modules.

    Args:
        path: a file of `torch.save`, in the format of any version: a `state_dict`, or a dictionary
            that has one under that name. The prefix `module.` of parallel training is left out.
        source: its entry in the catalogue, for errors.

    Returns:
        Arrays of the shapes and types in the file. No code in the file runs.

    Raises:
        DataError: the file is missing, damaged, holds no network, or numbers that are not finite.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing. {catalogue.wanted(source)}")
    try:
        content, storages = _content(path)
        state = content.get("state_dict", content)
        found = {
            name.removeprefix("module."): _array(tensor, storages)
            for name, tensor in state.items()
            if isinstance(tensor, _Tensor)
        }
    except Exception as error:  # a damaged file fails in any way
        raise DataError(f"{path} can not be read ({error}). {catalogue.wanted(source)}") from error
    if not found:
        raise DataError(f"{path} holds no network. {catalogue.wanted(source)}")
    bad = [name for name, array in found.items() if not np.isfinite(array).all()]
    if bad:
        raise DataError(f"{path} has weights that are not finite: {', '.join(bad)}.")
    return found


def require_shapes(
    path: Path, state: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], source: str
) -> None:
    """Raises a DataError for the first tensor that is missing or has another shape."""
    for name, shape in shapes.items():
        found = state[name].shape if name in state else "missing"
        if found != shape:
            raise DataError(
                f"{path} holds another network: {name} is {found}, expected {shape}. "
                f"{catalogue.wanted(source)}"
            )


def _content(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """What was saved, with a `_Tensor` for each tensor, and the numbers of each storage."""
    if zipfile.is_zipfile(path):
        return _zipped(path)
    with path.open("rb") as file:  # before PyTorch 1.6: five pickles, then the storages
        for _ in range(3):  # magic number, version, sizes of types
            _Unpickler(file).load()
        unpickler = _Unpickler(file)
        content = unpickler.load()
        storages = {}
        for key in _Unpickler(file).load():
            dtype, count = unpickler.storages[key], int(_numbers(file.read(8), np.int64)[0])
            storages[key] = _numbers(file.read(count * np.dtype(dtype).itemsize), dtype)
    return content, storages


def _zipped(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    with zipfile.ZipFile(path) as file:
        pickled = next(name for name in file.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl") + "data/"
        unpickler = _Unpickler(io.BytesIO(file.read(pickled)))
        content = unpickler.load()
        storages = {
            key: _numbers(file.read(folder + key), dtype)
            for key, dtype in unpickler.storages.items()
        }
    return content, storages


class _Unpickler(pickle.Unpickler):
    """Reads tensors and containers only: a pickle can not run code through it."""

    def __init__(self, file: BinaryIO | io.BytesIO):
        super().__init__(file)
        self.storages: dict[str, type] = {}  # key -> type of the numbers

    def find_class(self, module: str, name: str) -> Any:
        """The few names that tensors need."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, shape, strides
            )
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in weights")

    def persistent_load(self, pid: Any) -> tuple[type, str]:
        """A storage: its type and key."""
        _, dtype, key, *_ = pid
        self.storages[key] = dtype
        return dtype, key


def _numbers(raw: bytes, dtype: Any) -> np.ndarray:
    """Little-endian numbers."""
    return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<"))


def _array(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    """A copy of a tensor's numbers.

    Raises:
        ValueError: its layout reaches beyond its storage.
    """
    dtype, key = tensor.storage
    numbers = storages[key]
    reach = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    inside = tensor.offset >= 0 and min(tensor.strides, default=0) >= 0
    if 0 not in tensor.shape and not (inside and tensor.offset + reach < len(numbers)):
        raise ValueError(f"storage {key} has {len(numbers)} numbers, too few for {tensor.shape}")
    strides = np.multiply(tensor.strides, numbers.itemsize)
    part = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    return part.astype(dtype)
