"""The third platform: the CUDA kernels compiled as C++ against testing/emulator and run on the CPU.

JAXTV_EMULATOR=ptx runs what nvcc makes of them instead (testing/ptx).

`testing.callframe` calls them on NumPy arrays; `using()` runs the library's functions on them
through XLA. JAXTV_EMULATOR_SANITIZE=1 builds them with AddressSanitizer and UBSan (preload libasan
then), without half types. Where JAX sees a GPU nothing is emulated: `using()` switches to that
device. `python -m testing.emulator` builds what the tests need.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

from jaxtv import _lowering, _native
from testing import ROOT, native, ptx

SANITIZED = bool(os.environ.get("JAXTV_EMULATOR_SANITIZE"))
SANITIZE = [
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-DJAXTV_NO_HALF_TYPES",
]
FLAGS = [*(SANITIZE if SANITIZED else ["-O2"]), "-DJAXTV_SIMT", "-DJAXTV_EMULATED"]
NAME = "emulator-sanitized" if SANITIZED else "emulator"


def _build(name: str, sources: list[str]) -> ctypes.CDLL:
    includes = ["include", "ffi", "cuda", "testing/emulator", "testing/machine"]
    return ctypes.CDLL(str(native.Library(name, sources, includes, FLAGS).build()))


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels with their handlers, and what testing/emulator/library.cpp offers."""
    if ptx.wanted():
        return declared(ptx.library())
    kernels = [
        p for end in ("*.cu", "*_ffi.cpp", "scratch.cpp") for p in (ROOT / "cuda").rglob(end)
    ]
    sources = sorted(str(path.relative_to(ROOT)) for path in kernels)
    own = ["testing/emulator/library.cpp", "testing/emulator/machine.cpp"]
    return declared(_build(NAME, [*sources, *own]))


def declared(built: ctypes.CDLL) -> ctypes.CDLL:
    """The same library, with the types of testing/emulator/library.cpp."""
    int64 = ctypes.c_int64
    built.emulator_name.argtypes = built.emulator_handler.argtypes = [ctypes.c_size_t]
    built.emulator_name.restype = built.emulator_recorded.restype = ctypes.c_char_p
    built.emulator_handler.restype = ctypes.c_void_p
    sizes = [ctypes.POINTER(int64), ctypes.c_size_t]
    built.emulator_scratch_bytes.argtypes = [
        *(ctypes.c_char_p, *sizes, *sizes),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_uint),
    ]
    built.emulator_scratch_bytes.restype = int64
    built.emulator_reverse.argtypes = built.emulator_refuse.argtypes = [ctypes.c_bool]
    built.emulator_turns.argtypes = [ctypes.c_uint64, ctypes.c_int]
    built.emulator_least_allowed.argtypes = built.emulator_fail_launch.argtypes = [ctypes.c_int]
    built.emulator_least_allowed.restype = ctypes.c_size_t
    built.emulator_image_tiles.argtypes = [*[int64] * 4, ctypes.c_size_t, ctypes.POINTER(int64)]
    built.emulator_wrong_quotients.argtypes = [ctypes.c_int, ctypes.c_bool, ctypes.c_int]
    built.emulator_huge.argtypes = built.emulator_huge_dykstra.argtypes = [
        ctypes.c_int,
        *[int64] * 3,
    ]
    built.emulator_huge_components.argtypes = [int64] * 3
    for huge in (built.emulator_huge, built.emulator_huge_dykstra, built.emulator_huge_components):
        huge.restype = ctypes.c_char_p
    return built


@functools.cache
def selftest() -> ctypes.CDLL:
    """Kernels that are right and kernels that are wrong (testing/emulator/selftest.cu)."""
    return _build(f"{NAME}-selftest", ["testing/emulator/selftest.cu"])


def handlers() -> dict[str, int]:
    """Target -> address of its emulated handler."""
    found, i = {}, 0
    while (name := library().emulator_name(i)) is not None:
        found[name.decode()] = library().emulator_handler(i)
        i += 1
    return found


def scratch_bytes(
    target: str,
    shape: Sequence[int],
    axes: Sequence[int],
    itemsize: int,
    method: int = 0,
    per_edge: Sequence[bool] = (),
) -> int:
    """Bytes of scratch per batch element; -1 for an unknown target (`_native.SCRATCH_BYTES`)."""
    arrays = [(ctypes.c_int64 * len(a))(*a) for a in (shape, axes)]
    counted = [argument for a in arrays for argument in (a, len(a))]
    edges = sum(edge << a for a, edge in enumerate(per_edge))
    return library().emulator_scratch_bytes(target.encode(), *counted, itemsize, method, edges)


class Launch(NamedTuple):
    """A kernel and how it was launched; `shared` is bytes of shared memory per block."""

    kernel: str
    blocks: int
    threads: int
    shared: int


@contextlib.contextmanager
def launches() -> Iterator[list[Launch]]:
    """The launches inside of the context; the list is filled as it ends."""
    found: list[Launch] = []
    library().emulator_record()
    try:
        yield found
    finally:
        lines = library().emulator_recorded().decode().splitlines()
        found += [Launch(name, *map(int, sizes)) for name, *sizes in map(str.split, lines)]


@contextlib.contextmanager
def failing_launch(others: int) -> Iterator[None]:
    """Of the launches inside of the context, the one after the first `others` fails."""
    library().emulator_fail_launch(others)
    try:
        yield
    finally:
        library().emulator_fail_launch(-1)


@contextlib.contextmanager
def reversed_order() -> Iterator[None]:
    """Blocks, warps and lanes run from the last to the first."""
    library().emulator_reverse(True)
    try:
        yield
    finally:
        library().emulator_reverse(False)


@contextlib.contextmanager
def random_turns(seed: int, host_threads: int = 1) -> Iterator[None]:
    """Lanes go on for a random while before others do; threads of the CPU share the blocks."""
    library().emulator_turns(seed, host_threads)
    try:
        yield
    finally:
        library().emulator_turns(0, 1)


def on_gpu() -> bool:
    """Whether the tests run on a GPU."""
    return jax.default_backend() == "gpu"


@functools.cache
def register() -> dict[str, str]:
    """Hand the emulated handlers to XLA; CPU target -> target of its emulated CUDA kernel."""
    _native.SCRATCH_BYTES["emulated"] = scratch_bytes
    targets = {}
    for target, address in handlers().items():
        targets[target] = target.replace("jaxtv_", "jaxtv_emulated_")
        capsule = jax.ffi.pycapsule(address)
        jax.ffi.register_ffi_target(targets[target], capsule, platform="cpu")
        jax.ffi.register_ffi_target_as_batch_partitionable(targets[target])
    return targets


@contextlib.contextmanager
def using() -> Iterator[None]:
    """Run the primitives on the CUDA kernels: on the GPU, where there is one, or emulated."""
    if on_gpu():
        with jax.default_device(jax.devices()[0]):
            yield
        return
    targets = register()
    jax.clear_caches()
    before = dict(_lowering.EMULATED)
    _lowering.EMULATED.update(targets)
    try:
        yield
    finally:
        _lowering.EMULATED.clear()
        _lowering.EMULATED.update(before)
        jax.clear_caches()
