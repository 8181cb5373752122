"""The native kernels: load the modules, check that they fit this jaxlib, register their targets."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax

# JAXTV_FALLBACK=1 lowers every primitive to pure JAX, kernels or not (for debugging and tests).
FALLBACK = os.environ.get("JAXTV_FALLBACK", "0") not in ("", "0")


def runtime_api_version() -> tuple[int, int]:
    """Version of the XLA FFI that the installed jaxlib speaks, from its own header."""
    header = pathlib.Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text()
    major, minor = (
        int(re.search(rf"#define XLA_FFI_API_{part} (\d+)", header)[1])  # type: ignore[index]
        for part in ("MAJOR", "MINOR")
    )
    return major, minor


def check_api_version(module: str, built: tuple[int, int], runtime: tuple[int, int]) -> None:
    """Refuse kernels built for a newer FFI than the runtime's: they would stop JAX itself.

    Raises:
        ImportError: says what to install or to rebuild.
    """
    if built[0] == runtime[0] and built[1] <= runtime[1]:
        return
    raise ImportError(
        f"{module} was built against XLA FFI {built[0]}.{built[1]}, but the installed jaxlib "
        f"speaks {runtime[0]}.{runtime[1]}. Install a newer jax and jaxlib, or rebuild jaxtv with "
        "`pip install --no-binary jaxtv --force-reinstall jaxtv` (in a checkout: `pip install .`)."
    )


def _load_cpu():
    try:
        from jaxtv import _cpu
    except ImportError as error:
        raise ImportError(
            "jaxtv's CPU kernels are missing: the native module jaxtv._cpu can not be imported "
            f"({error}). In a source checkout build it with `pip install -e .`; run the tests of a "
            "non-editable install with `python -P -m pytest`."
        ) from error
    return _cpu


def _load_cuda():
    """The CUDA module, or None if it was not built. If it was built it must load."""
    if importlib.util.find_spec("jaxtv._cuda") is None:
        return None
    try:
        from jaxtv import _cuda
    except ImportError as error:
        raise ImportError(
            f"jaxtv's CUDA kernels were built but jaxtv._cuda can not be loaded ({error}). Build "
            "them again on this machine: `pip install -C cmake.define.JAXTV_CUDA=ON .`; with "
            "JAXTV_CUDA=OFF instead, jaxtv comes without them."
        ) from error
    return _cuda


def has_cuda_plugin() -> bool:
    """Whether the installed jax has its CUDA plugin."""
    return any("cuda" in e.name for e in importlib.metadata.entry_points(group="jax_plugins"))


def _register(module: Any, platform: str) -> tuple[str, ...]:
    targets = module.targets()
    for name, handler in targets.items():
        jax.ffi.register_ffi_target(name, handler, platform=platform)
        jax.ffi.register_ffi_target_as_batch_partitionable(name)
    return tuple(targets)


_cpu = _load_cpu()
check_api_version("jaxtv._cpu", tuple(_cpu.ffi_api_version), runtime_api_version())
# Platform, as in lowering rules -> the FFI targets that are registered for it.
REGISTERED = {"cpu": _register(_cpu, "cpu")}

# "cuda" (and "emulated" in tests without a GPU) -> the function of its module that returns the
# bytes of scratch per batch element. Its arguments are (target, shape of a batch element, its prox
# axes, bytes of a sample, number of the 1D method, for each axis whether gw is per edge).
SCRATCH_BYTES: dict[str, Callable[..., int]] = {}

_cuda = _load_cuda()
if _cuda is not None:
    check_api_version("jaxtv._cuda", tuple(_cuda.ffi_api_version), runtime_api_version())
    REGISTERED["cuda"] = _register(_cuda, "CUDA")
    SCRATCH_BYTES["cuda"] = _cuda.scratch_bytes


def status() -> dict[str, dict[str, Any]]:
    """What is built and registered, per platform (for `jaxtv info`)."""
    runtime = ".".join(map(str, runtime_api_version()))
    out: dict[str, dict[str, Any]] = {
        "cpu": {
            "kernels": REGISTERED["cpu"],
            "instruction set": _cpu.isa(),
            "FFI built": ".".join(map(str, _cpu.ffi_api_version)),
            "FFI runtime": runtime,
            "forced fallback": FALLBACK,
        },
    }
    if _cuda is not None:
        out["cuda"] = {
            "kernels": REGISTERED["cuda"],
            "CUDA": ".".join(map(str, _cuda.cuda_version)),
            "architectures": _cuda.architectures,
            "FFI built": ".".join(map(str, _cuda.ffi_api_version)),
            "FFI runtime": runtime,
            "forced fallback": FALLBACK,
        }
    return out
