"""The third platform: the CUDA kernels compiled as C++ against testing/emulator and run on the CPU.

`JAXTV_TEST_PLATFORM=simt python -m pytest` runs the whole suite on it, `JAXTV_SIMT_SANITIZE=1`
with AddressSanitizer and UBSan (preload libasan then). `using()` switches it on for one test. Where
JAX sees a GPU nothing is emulated: `using()` switches to that device.
"""

import contextlib
import ctypes
import hashlib
import os
import pathlib
import subprocess
from concurrent.futures import ThreadPoolExecutor

import jax

from jaxtv import _lowering, _native
from testing import ROOT

CXX = os.environ.get("CXX", "g++")
WARNINGS = ["-Wall", "-Wextra", "-Wno-unknown-pragmas"]
INCLUDES = [f"-I{ROOT / d}" for d in ("include", "ffi", "cuda", "testing/emulator")]
HEADERS = (".hpp", ".cuh")
FLAGS = ["-std=c++20", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def sources():
    """Translation units of the library."""
    units = [f for ends in ("*.cu", "*_ffi.cpp") for f in sorted((ROOT / "cuda").rglob(ends))]
    return [*units, ROOT / "testing/emulator/library.cpp"]


def _headers() -> bytes:
    folders = ("include/jaxtv", "ffi", "cuda", "testing/emulator")
    files = [f for d in folders for f in sorted((ROOT / d).rglob("*.[hc]*")) if f.suffix in HEADERS]
    return b"".join(f.read_bytes() for f in files)


def _run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")


def compile_cached(folder: pathlib.Path, units, link=(), flags=()) -> pathlib.Path:
    """Compile and link `units`; what did not change since the last time is taken from `folder`."""
    if os.environ.get("JAXTV_SIMT_SANITIZE"):
        flags = [*flags, *SANITIZE]
    xla = ["-isystem", jax.ffi.include_dir()]
    flags = [*FLAGS, *WARNINGS, *INCLUDES, "-DJAXTV_SIMT", *xla, *flags]
    common = hashlib.sha256(_headers() + repr((CXX, flags)).encode())

    def build(target, command):
        if not target.exists():  # renamed into place: several processes may build at once
            partial = target.with_suffix(f".{os.getpid()}")
            _run([*command, "-o", partial])
            partial.rename(target)
        return target

    def compile_one(unit):
        key = common.copy()
        key.update(unit.read_bytes())
        target = folder / f"{unit.stem}-{key.hexdigest()[:16]}.o"
        return build(target, [CXX, *flags, "-x", "c++", "-c", unit])

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, units))
    key = hashlib.sha256(repr((sorted(map(str, objects)), link)).encode()).hexdigest()[:16]
    sanitize = [f for f in flags if f.startswith("-fsanitize")]
    return build(folder / f"linked-{key}.so", [CXX, *link, *sanitize, *objects])


def library(folder: pathlib.Path) -> ctypes.CDLL:
    """The kernels, compiled."""
    return ctypes.CDLL(str(compile_cached(folder, sources(), ("-shared",))))


def on_gpu() -> bool:
    """Whether the tests run on a GPU."""
    return jax.default_backend() == "gpu"


_loaded: dict[str, str] = {}  # a process registers a target once


def load(folder: pathlib.Path) -> dict[str, str]:
    """Build, register under jaxtv_simt_*; returns CPU target -> SIMT target (on a GPU: itself)."""
    if on_gpu():
        return {target: target for target in _native.REGISTERED["cuda"]}
    if _loaded:
        return _loaded
    kernels = library(folder)
    kernels.jaxtv_simt_name.restype = ctypes.c_char_p
    kernels.jaxtv_simt_name.argtypes = kernels.jaxtv_simt_handler.argtypes = [ctypes.c_size_t]
    kernels.jaxtv_simt_handler.restype = ctypes.c_void_p
    i = 0
    while (name := kernels.jaxtv_simt_name(i)) is not None:
        target = name.decode()
        simt = target.replace("jaxtv_", "jaxtv_simt_")
        handler = jax.ffi.pycapsule(kernels.jaxtv_simt_handler(i))
        jax.ffi.register_ffi_target(simt, handler, platform="cpu")
        jax.ffi.register_ffi_target_as_batch_partitionable(simt)
        _loaded[target] = simt
        i += 1
    return _loaded


@contextlib.contextmanager
def using(targets: dict[str, str]):
    """Run the primitives on the SIMT kernels, or on the GPU."""
    if on_gpu():
        with jax.default_device(jax.devices()[0]):
            yield
        return
    jax.clear_caches()
    before = dict(_lowering.EMULATED)
    _lowering.EMULATED.update(targets)
    try:
        yield
    finally:
        _lowering.EMULATED.clear()
        _lowering.EMULATED.update(before)
        jax.clear_caches()
