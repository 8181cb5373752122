"""nvcc's compiled code, executed: an interpreter of the PTX of the CUDA kernels, and a CUDA runtime.

The handlers, nvcc's host code and the kernels' PTX are what a GPU would get. Unlike the emulator
(testing/emulator) this has nvcc's own arithmetic and lets threads run in any order: in warps, in
random slices, in lockstep. It reports races on shared and global memory, reads of what nobody wrote,
lanes that are missing from warp primitives, barriers that never fill, misaligned and out-of-bounds
accesses, writes to operands, each with the kernel, the line of the source and the instruction. It
does not see what comes after PTX: ptxas, weak memory, the driver, graphs, time.

JAXTV_EMULATOR=ptx runs the tests that run on the emulator on this instead, as these say:

* JAXTV_PTX_ORDER: "forward" (the default), "reverse", "threads" or "lockstep";
* JAXTV_PTX_SEED: of the random orders;
* JAXTV_PTX_SLICE: mean instructions between two switches of a random order;
* JAXTV_PTX_ULPS: by which approximate instructions are off;
* JAXTV_PTX_RACES=1: races on global memory too.

`python -m testing.ptx` runs the tests in all orders. Needs nvcc.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from testing import ROOT, native

ORDERS = ("forward", "reverse", "threads", "lockstep")
NVCC = (
    *("nvcc", "-std=c++20", "-O3", "-lineinfo", "-arch=compute_90", "-code=compute_90"),
    *("-no-compress", "-cudart=none", "-Xcompiler=-fPIC,-fvisibility=hidden,-O1"),
)
# Lanes are vectors of the machine that runs this; values of two types share registers.
INTERPRETER_FLAGS = ("-O2", "-fvect-cost-model=dynamic", "-march=native", "-fno-strict-aliasing")


def wanted() -> bool:
    """Whether the tests run on this, not on testing.emulator."""
    return os.environ.get("JAXTV_EMULATOR") == "ptx"


def nvcc() -> str | None:
    """The compiler, or None where there is none."""
    return shutil.which("nvcc")


def _interpreter() -> native.Library:
    sources = sorted(f"testing/ptx/{path.name}" for path in (ROOT / "testing/ptx").glob("*.cpp"))
    return native.Library("ptx", sources, ["testing", "testing/ptx"], INTERPRETER_FLAGS)


class _Settings(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("order", "slice", "resident", "ulps")),
        *((name, ctypes.c_bool) for name in ("global_races", "counted")),
        *((name, ctypes.c_uint64) for name in ("seed", "most_steps")),
    ]


@functools.cache
def interpreter() -> ctypes.CDLL:
    """The interpreter, set up as the environment says."""
    built = ctypes.CDLL(str(_interpreter().build()))
    built.ptx_configure.argtypes = [_Settings]
    built.ptx_run.argtypes = [
        *(ctypes.c_char_p, ctypes.c_char_p),  # text, kernel
        *(ctypes.c_int64, ctypes.c_uint, ctypes.c_size_t),  # grid, threads, shared
        ctypes.POINTER(ctypes.c_void_p),
    ]
    built.ptx_run.restype = built.ptx_counts.restype = ctypes.c_char_p
    built.ptx_mutate.argtypes = [*[ctypes.c_char_p] * 3, ctypes.c_int]
    built.ptx_allow.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_bool, ctypes.c_bool]
    built.ptx_configure(_as_structure())
    return built


def _usual() -> dict[str, Any]:
    """How launches run unless somebody says otherwise: as the environment says."""
    return {
        "order": os.environ.get("JAXTV_PTX_ORDER", "forward"),
        "seed": int(os.environ.get("JAXTV_PTX_SEED", "1")),
        "slice": int(os.environ.get("JAXTV_PTX_SLICE", "8")),
        "ulps": int(os.environ.get("JAXTV_PTX_ULPS", "0")),
        "global_races": bool(os.environ.get("JAXTV_PTX_RACES")),
        "resident": 8,
        "counted": False,
        "most_steps": 1 << 40,
    }


_settings = _usual()


def _as_structure() -> _Settings:
    return _Settings(**(_settings | {"order": ORDERS.index(_settings["order"])}))


def _configure(settings: dict[str, Any]) -> None:
    _settings.update(settings)
    interpreter().ptx_configure(_as_structure())


@contextlib.contextmanager
def configured(**settings: Any) -> Iterator[None]:
    """Launches inside of the context run so; what is not given stays as it is.

    Args:
        settings: order, seed, slice, ulps, global_races as the environment has them; resident, the
            blocks at once in a random order; counted; most_steps of the warps of a launch, more are
            an error.
    """
    before = dict(_settings)
    _configure(settings)
    try:
        yield
    finally:
        _configure(before)


def counts() -> dict[str, dict[str, Any]]:
    """Of each kernel what it did since the last call, in launches that were `counted`.

    Warp instructions by kind; "lanes": that were active in them, in all; launches, blocks, warps;
    "sectors" of 32 bytes of global memory that warps asked for, and "sectors_read" and
    "sectors_written", of each launch each once; "wavefronts": rows of banks of shared memory;
    "lines": warp instructions, without moves and reads of parameters, by "path:line" of the source.
    """
    return json.loads(interpreter().ptx_counts())


@contextlib.contextmanager
def mutated(kernel: str, old: str, new: str, at: int) -> Iterator[list[int]]:
    """Kernels with a defect: the `at`-th statement with `old` in the PTX has `new` there.

    Args:
        kernel: how the names of the kernels start.
        old: of one statement, with one space between words.
        new: what stands there instead; "" for a whole statement removes it.
        at: counted from 0 over all these kernels as they are used first.

    The list is filled as the context ends: how many statements have `old`.
    """
    found: list[int] = []
    machine = interpreter()
    machine.ptx_mutate(kernel.encode(), old.encode(), new.encode(), at)
    try:
        yield found
    finally:
        found.append(machine.ptx_mutate(b"", b"", b"", -1))


def _compiled(name: str, sources: Sequence[str], includes: Sequence[str]) -> ctypes.CDLL:
    if nvcc() is None:
        raise RuntimeError("nvcc is not on PATH; testing.ptx runs what it compiles")
    interpreter()
    flags = ["-DJAXTV_EMULATED", "-DJAXTV_PTX"]
    folder = native.Library(name, sources, includes, flags, NVCC, (), [_interpreter().build()])
    return ctypes.CDLL(str(folder.build()))


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels with their handlers, and what testing/emulator/library.cpp offers."""
    found = [p for end in ("*.cu", "*_ffi.cpp", "scratch.cpp") for p in (ROOT / "cuda").rglob(end)]
    sources = sorted(str(path.relative_to(ROOT)) for path in found)
    includes = ["include", "ffi", "cuda", "testing/machine"]
    return _compiled("ptx-kernels", [*sources, "testing/emulator/library.cpp"], includes)


@functools.cache
def selftest() -> ctypes.CDLL:
    """Kernels that are right and kernels that are wrong (testing/ptx/selftest.cu)."""
    includes = ["include", "cuda", "testing/machine"]
    return _compiled("ptx-selftest", ["testing/ptx/selftest.cu"], includes)


def run(
    text: str,
    kernel: str,
    arguments: Sequence[np.ndarray | int | bytes],
    *,
    grid: int = 1,
    threads: int = 32,
    shared: int = 0,
    filled: bool = True,
) -> str:
    """Run one kernel of a PTX text; what went wrong, or "".

    Args:
        text: PTX.
        kernel: the name of the entry.
        arguments: arrays, which the kernel may read and write, numbers of 32 bits, structures.
        grid: blocks.
        threads: of a block.
        shared: bytes of dynamic shared memory.
        filled: whether the arrays may be read before the kernel writes them.
    """
    machine = interpreter()
    cells: list[Any] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            machine.ptx_allow(argument.ctypes.data, argument.nbytes, True, not filled)
            cells.append(ctypes.c_void_p(argument.ctypes.data))
        elif isinstance(argument, bytes):
            cells.append(ctypes.create_string_buffer(argument))
        else:
            cells.append(ctypes.c_uint(argument))
    pointers = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))
    wrong = machine.ptx_run(text.encode(), kernel.encode(), grid, threads, shared, pointers)
    machine.ptx_forget()
    return wrong.decode()
