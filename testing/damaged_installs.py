"""Import of a copy of the package in which something is wrong, each in a process of its own."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple

import jaxtv
from jaxtv import _native

# JAX works after a failed import, and a second import fails as the first did.
FAILS = """
import jax.numpy as jnp
messages = []
for _ in range(2):
    try:
        import jaxtv
    except ImportError as error:
        messages.append(str(error))
assert float(jnp.sum(jnp.arange(4.0) ** 2)) == 14
assert len(messages) == 2 and messages[0] == messages[1], messages
print(messages[0])
"""
WORKS = """
import jax.numpy as jnp
import jaxtv
from jaxtv import _native
print(jaxtv.prox_tv1d(jnp.asarray([0.0, 4.0]), 1.0), *_native.status())
"""

OTHER_VERSION = "version = '0.0.1'\n"
NEWER = f"version, ffi_api_version = {jaxtv.__version__!r}, (99, 0)\n"
NO_LIBRARY = "raise ImportError('libcuda.so.1: cannot open shared object file')\n"
STAND_IN = """
from jaxtv._cpu import ffi_api_version, targets, version
cuda_version, architectures = (13, 0), "90"


def scratch_bytes(*_):  # nothing here lowers for CUDA
    return 0
"""  # for a CUDA build, which loads anywhere; its handlers are never called


class Situation(NamedTuple):
    """What replaces a native module (None: nothing does), and what has to be said.

    The module is one of jaxtv, or of a plugin: "jaxtv_cuda13_plugin._cuda".
    """

    module: str
    text: str | None
    suffix: str
    script: str
    said: tuple[str, ...]


SITUATIONS = {
    "no CPU module": Situation("_cpu", None, "", FAILS, ("jaxtv._cpu", "pip install -e .")),
    "a damaged CPU module": Situation(
        "_cpu", "\x7fELF", ".so", FAILS, ("_cpu.so", "jaxtv._cpu", "pip install -e .")
    ),
    "CPU kernels of a newer FFI": Situation(
        "_cpu", NEWER, ".py", FAILS, ("jaxtv._cpu", "XLA FFI 99.0", "jaxlib", "rebuild jaxtv")
    ),
    "CUDA kernels of a newer FFI": Situation(
        "_cuda", NEWER, ".py", FAILS, ("jaxtv._cuda", "XLA FFI 99.0", "jaxlib", "rebuild jaxtv")
    ),
    "a CUDA module whose libraries are missing": Situation(
        "_cuda", NO_LIBRARY, ".py", FAILS, ("jaxtv._cuda", "libcuda.so.1", "JAXTV_CUDA=OFF")
    ),
    "a CUDA plugin of another version": Situation(
        "jaxtv_cuda12_plugin._cuda",
        OTHER_VERSION,
        ".py",
        FAILS,
        ("built for jaxtv 0.0.1", f"pip install 'jaxtv-cuda12-plugin=={jaxtv.__version__}'"),
    ),
    "a CUDA plugin, no driver": Situation(
        "jaxtv_cuda13_plugin._cuda", STAND_IN, ".py", WORKS, ("[1. 3.]", "cpu", "cuda")
    ),
    "a CUDA module, no driver": Situation(
        "_cuda", STAND_IN, ".py", WORKS, ("[1. 3.]", "cpu", "cuda")
    ),
}


def changed_package(situation: Situation, folder: pathlib.Path) -> None:
    """A copy of the package in `folder`, with the module replaced."""
    copy = folder / "jaxtv"
    shutil.copytree(pathlib.Path(jaxtv.__file__).parent, copy, dirs_exist_ok=True)
    for module in filter(None, (_native._cpu, _native._cuda)):  # elsewhere in an editable install
        shutil.copy(module.__file__, copy)
    package, _, module = situation.module.rpartition(".")
    if package:  # alone: kernels that were built from source would come first
        remove(copy, "_cuda")
        copy = folder / package
        copy.mkdir()
        (copy / "__init__.py").touch()
    elif situation.text == STAND_IN and _native._cuda is not None:
        return
    remove(copy, module)
    if situation.text is not None:
        (copy / f"{module}{situation.suffix}").write_text(situation.text)


def remove(package: pathlib.Path, module: str) -> None:
    """Delete a native module of a package."""
    for file in package.glob(f"{module}.*"):
        file.unlink()


def wrong(situation: Situation, folder: pathlib.Path) -> str:
    """What is not as it should be, empty if nothing."""
    changed_package(situation, folder)
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-S", "-c", situation.script],  # -S: no hooks of an editable install
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAXTV_FALLBACK": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        return f"exit status {done.returncode}: {done.stderr[-1000:]}"
    unsaid = [text for text in situation.said if text not in done.stdout]
    return f"not said: {unsaid} in {done.stdout}" if unsaid else ""
