"""Calls of FFI handlers on NumPy arrays, without XLA: the CPU kernels, and the emulated CUDA kernels.

`bind` does what `primitive.bind` of `jaxtv._primitive` does, on a platform of choice; `call` is the
bare call of a target. A result starts with all bits set (NaN, -1), so what a handler leaves
unwritten shows.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np

from jaxtv import _cpu, _primitive
from testing import emulator, native

Platform = Literal["cpu", "cuda"]
Spec = tuple[tuple[int, ...], Any]  # shape and dtype of a result

# enum XLA_FFI_DataType and XLA_FFI_Error_Code of xla/ffi/api/c_api.h
_DTYPES = {
    np.dtype(dtype): code
    for dtype, code in {
        "bool": 1,
        "int8": 2,
        "int32": 4,
        "int64": 5,
        "uint8": 6,
        "float16": 10,
        "float32": 11,
        "float64": 12,
        "complex64": 15,
        ml_dtypes.bfloat16: 16,
    }.items()
}
_CODES = {3: "INVALID_ARGUMENT", 8: "RESOURCE_EXHAUSTED", 12: "UNIMPLEMENTED", 13: "INTERNAL"}


class HandlerError(Exception):
    """The error that a handler returned: `code`, by name, and `message`."""

    def __init__(self, code: int, message: str):
        self.code, self.message = _CODES.get(code, str(code)), message
        super().__init__(f"{self.code}: {message}")


class _Array(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
        ("data", ctypes.c_void_p),
    ]


class _Attribute(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("count", ctypes.c_int64),
        ("data", ctypes.c_void_p),
    ]


@functools.cache
def library() -> ctypes.CDLL:
    """The call frame and the stub of XLA, compiled."""
    sources = [f"testing/callframe/{name}.cpp" for name in ("frame", "host", "library")]
    folder = native.Library("callframe", sources, ["testing/callframe"], ["-O2"])
    built = ctypes.CDLL(str(folder.build()))
    arrays = [ctypes.POINTER(_Array), ctypes.c_int64]
    built.callframe_call.argtypes = [
        *(ctypes.c_void_p, ctypes.c_int32),  # handler, device
        *arrays,  # operands
        *arrays,  # results
        *(ctypes.POINTER(_Attribute), ctypes.c_int64),
        ctypes.POINTER(ctypes.c_char_p),  # message
    ]
    built.callframe_recordable.argtypes = [ctypes.c_void_p]
    built.callframe_recordable.restype = ctypes.c_bool
    built.callframe_set_threads.argtypes = [ctypes.c_int64]
    return built


@functools.cache
def handlers(platform: Platform) -> dict[str, int]:
    """Target -> address of its handler."""
    if platform == "cuda":
        return emulator.handlers()
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.argtypes, address.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
    return {name: address(capsule, None) for name, capsule in _cpu.targets().items()}


def _arrays(arrays: Sequence[np.ndarray]):
    structures = (_Array * len(arrays))()
    for structure, a in zip(structures, arrays, strict=True):
        structure.dtype, structure.rank = _DTYPES[a.dtype], a.ndim
        structure.dims, structure.data = (ctypes.c_int64 * a.ndim)(*a.shape), a.ctypes.data
    return structures


def _attributes(attributes: Mapping[str, np.ndarray]):
    structures = (_Attribute * len(attributes))()
    for structure, (name, value) in zip(structures, attributes.items(), strict=True):
        if value.dtype not in (np.int64, np.float64):
            raise TypeError(f"attribute {name}: {value.dtype} is neither int64 nor float64")
        structure.name, structure.dtype = name.encode(), _DTYPES[value.dtype]
        structure.count = value.size if value.ndim else -1
        structure.data = value.ctypes.data
    return structures


def call(
    target: str,
    operands: Sequence[Any],
    results: Sequence[Spec],
    attributes: Mapping[str, Any],
    platform: Platform = "cpu",
    device: int = 0,
    in_place: Mapping[int, int] | None = None,
) -> list[np.ndarray]:
    """The results of one call of the target's handler.

    Args:
        target: as registered with XLA, with its prefix "jaxtv_".
        operands: arrays; made row-major where they are not.
        results: (shape, dtype) of each.
        attributes: int64 and float64 numbers, and arrays of int64.
        platform: "cpu", or "cuda" for the emulated CUDA kernels.
        device: the number of the device that the handler is told.
        in_place: operand -> the result whose memory it has; the array given is not changed.

    Raises:
        HandlerError: the handler returned an error.
    """
    ins = [np.asarray(a, order="C") for a in operands]
    outs = [np.empty(shape, dtype) for shape, dtype in results]
    for out in outs:
        out.reshape(-1).view(np.uint8)[:] = 0xFF
    for operand, result in (in_place or {}).items():
        ins[operand] = outs[result] = ins[operand].copy()
    values = {name: np.asarray(value) for name, value in attributes.items()}
    message = ctypes.c_char_p()
    code = library().callframe_call(
        *(handlers(platform)[target], device),
        *(_arrays(ins), len(ins)),
        *(_arrays(outs), len(outs)),
        *(_attributes(values), len(values)),
        ctypes.byref(message),
    )
    if code:
        raise HandlerError(code, (message.value or b"").decode())
    return outs


_OWN_ATTRIBUTES = {
    "converged": _primitive._converged_attributes,
    "isotropic": _primitive._isotropic_attributes,
    "isotropic_steps": _primitive._isotropic_attributes,
    "components_jvp": _primitive._components_attributes,
    "components_vjp": _primitive._components_attributes,
}
_IN_PLACE = {"isotropic_steps": _primitive.ISOTROPIC_STATE}


def bind(
    name: str, *operands: Any, platform: Platform = "cpu", device: int = 0, **params: Any
) -> list[np.ndarray]:
    """The results of the primitive `jaxtv_<name>` with these parameters.

    Where JAX sees a GPU, "cuda" is that GPU, through XLA; elsewhere it is the emulator.
    """
    primitive = getattr(_primitive, f"_{name}_p")
    if platform == "cuda" and emulator.on_gpu():
        with jax.default_device(jax.devices()[device]):
            return [np.asarray(a) for a in primitive.bind(*operands, **params)]
    ins = [np.asarray(a) for a in operands]
    outs, _ = primitive.abstract_eval(
        *(jax.core.ShapedArray(a.shape, a.dtype) for a in ins), **params
    )
    results = [(out.shape, out.dtype) for out in outs]
    attributes = _OWN_ATTRIBUTES.get(name, _primitive._attributes)(**params)
    if platform == "cuda":
        results.append(_scratch(f"jaxtv_{name}", outs[0], attributes, **params))
    in_place = _IN_PLACE.get(name)
    return call(f"jaxtv_{name}", ins, results, attributes, platform, device, in_place)[: len(outs)]


def _scratch(target, y, attributes: Mapping[str, Any], *, axis=None, axes=(), edge=(), **_) -> Spec:
    """The scratch that a CUDA kernel gets as its last result; `y` is its first one."""
    axes = axes if axis is None else (axis,)
    batch = min(axes)
    size = emulator.scratch_bytes(
        target,
        y.shape[batch:],
        [a - batch for a in axes],
        y.dtype.itemsize,
        int(attributes.get("method", 0)),
        edge,
    )
    return (*y.shape[:batch], size), np.uint8


def recordable(target: str, platform: Platform) -> bool:
    """Whether XLA may record the handler into a command buffer (CUDA graph)."""
    return library().callframe_recordable(handlers(platform)[target])


def set_threads(threads: int) -> None:
    """The number of threads that CPU handlers see beside the caller: 0 to 3."""
    library().callframe_set_threads(threads)
