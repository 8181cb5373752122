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

# Plugin wheels: packages that have the CUDA module and nothing else.
PLUGIN = "jaxtv_cuda{}_plugin"
PLUGINS = (PLUGIN.format(13), PLUGIN.format(12))
BUILD = "from a checkout, with nvcc: `pip install -C cmake.define.JAXTV_CUDA=ON .`"


def runtime_api_version() -> tuple[int, int]:
    """Version of the XLA FFI that the installed jaxlib speaks, from its own header."""
    header = pathlib.Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text("utf-8")
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
            f"({error}). In a source checkout build it with `pip install -e .`, or start Python "
            "elsewhere to import the installed jaxtv."
        ) from error
    return _cpu


def jax_cuda() -> str | None:
    """The CUDA version of the plugin that makes jax run on CUDA, "12" or "13"; None without one."""
    for entry in importlib.metadata.entry_points(group="jax_plugins"):
        if named := re.search(r"cuda(\d*)", entry.name):
            return named[1]
    return None


def install_cuda() -> str:
    """How to get the CUDA kernels that fit this jax."""
    return f"`pip install 'jaxtv[cuda{jax_cuda() or 13}]'`; or {BUILD}"


def cuda_packages() -> list[str]:
    """The installed packages that have a CUDA module, best first.

    That is jaxtv itself where it was built from source with the kernels, then the plugin wheel for
    the CUDA version of jax, then any other.
    """
    plugins = sorted(PLUGINS, key=lambda package: package != PLUGIN.format(jax_cuda()))
    return [
        package
        for package in ("jaxtv", *plugins)
        if importlib.util.find_spec(package) and importlib.util.find_spec(f"{package}._cuda")
    ]


def check_version(module: str, built: str, own: str) -> None:
    """Refuse CUDA kernels of another version: their calls have other operands.

    Raises:
        ImportError: says what to install.
    """
    if built == own:
        return
    package = module.split(".")[0]
    remedy = f"`pip install '{package.replace('_', '-')}=={own}'`" if package in PLUGINS else BUILD
    raise ImportError(
        f"{module} was built for jaxtv {built}, but this is jaxtv {own}. Install the same "
        f"version: {remedy}."
    )


def _load_cuda(cpu: Any) -> Any:
    """The CUDA module, or None if there is none. One that is there must load, and fit."""
    packages = cuda_packages()
    if not packages:
        return None
    name = f"{packages[0]}._cuda"
    try:
        cuda = importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"jaxtv's CUDA kernels are installed but {name} can not be loaded ({error}). Install "
            f"them again, with --force-reinstall: {install_cuda()}. With JAXTV_CUDA=OFF instead, "
            "jaxtv comes without them."
        ) from error
    check_version(name, cuda.version, cpu.version)
    check_api_version(name, tuple(cuda.ffi_api_version), runtime_api_version())
    return cuda


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

_cuda = _load_cuda(_cpu)
if _cuda is not None:
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
            "module": _cuda.__name__,
            "CUDA": ".".join(map(str, _cuda.cuda_version)),
            "architectures": _cuda.architectures,
            "FFI built": ".".join(map(str, _cuda.ffi_api_version)),
            "FFI runtime": runtime,
            "forced fallback": FALLBACK,
        }
    return out


def cuda_state() -> str:
    """Which CUDA kernels are loaded, and what is missing (for `jaxtv info`)."""
    wanted, packages = jax_cuda(), cuda_packages()
    if not packages and wanted is None:
        return f"no kernels, and jax has no CUDA plugin; both: {install_cuda()}"
    if not packages:
        return f"jax runs on CUDA {wanted}, but there are no kernels: {install_cuda()}"
    used, *others = packages
    state = "built from source" if used == "jaxtv" else used
    if others:
        state += f" (not used: {', '.join(others)})"
    if wanted is None:
        version = 12 if used == PLUGIN.format(12) else 13
        state += f"; jax has no CUDA plugin: `pip install 'jax[cuda{version}]'`"
    elif used in PLUGINS and used != PLUGIN.format(wanted):
        state += f"; jax runs on CUDA {wanted}: {install_cuda()}"
    return state
