"""Files as `torch.save` writes them, without PyTorch."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np


def save(
    path: Path, tensors: Mapping[str, np.ndarray], zipped: bool = True, wrapped: bool = True
) -> None:
    """Writes float32 tensors.

    Args:
        path: of the file.
        tensors: by name.
        zipped: in the format since PyTorch 1.6, else in the one before.
        wrapped: in a dictionary with an entry `state_dict`, the names with the prefix `module.`.
    """
    state: dict[str, Any] = {name: _Tensor(array) for name, array in tensors.items()}
    if wrapped:
        state = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    storages: dict[str, np.ndarray] = {}
    content = _pickled(state, storages)
    if zipped:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", content)
            for key, array in storages.items():
                file.writestr(f"archive/data/{key}", array.tobytes())
        return
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    parts = [*(pickle.dumps(value, 2) for value in head), content, pickle.dumps([*storages], 2)]
    for array in storages.values():
        parts += [np.int64(array.size).tobytes(), array.tobytes()]
    path.write_bytes(b"".join(parts))


class _Tensor:
    def __init__(self, array: np.ndarray):
        self.array = np.asarray(array, np.float32)

    def __reduce__(self) -> tuple[Any, ...]:
        strides = tuple(stride // 4 for stride in self.array.strides)
        storage = _Storage(np.ravel(self.array, order="K"))
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (
            *(storage, 0, self.array.shape, strides),
            *(False, {}),
        )


class _Storage:
    def __init__(self, numbers: np.ndarray):
        self.numbers = numbers


def _pickled(state: dict[str, Any], storages: dict[str, np.ndarray]) -> bytes:
    """The pickle; its storages are left out and put into `storages`."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    kind = type("FloatStorage", (), {"__module__": "torch"})

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch.__dict__["FloatStorage"] = kind
    utils.__dict__["_rebuild_tensor_v2"] = _rebuild_tensor_v2

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if not isinstance(value, _Storage):
                return None
            key = str(len(storages))
            storages[key] = value.numbers
            return "storage", kind, key, "cpu", value.numbers.size

    file = io.BytesIO()
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        Pickler(file, 2).dump(state)
    return file.getvalue()


def without(name: str) -> Callable[[dict[str, np.ndarray]], Any]:
    """A change of a network's tensors: one is missing."""
    return lambda state: state.pop(name)


def replaced(name: str, shape: tuple[int, ...]) -> Callable[[dict[str, np.ndarray]], Any]:
    """A change of a network's tensors: one has another shape."""
    return lambda state: state.update({name: np.zeros(shape)})
