"""What a result depends on: the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re

import jax

import jaxtv
from benchmarks.environments import pins
from testing.native import cores


def describe() -> dict:
    return {
        "processor": _processor(),
        "cores": cores(),
        "isa": os.environ.get("JAXTV_ISA") or "best of the processor",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("jax", "jaxlib", "numpy", "flax")},
        "jaxtv": jaxtv.__version__,
        "pins": pins(),
        "platform": jax.default_backend(),
    }


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _processor() -> str:
    file = pathlib.Path("/proc/cpuinfo")
    found = file.exists() and re.search(r"model name\s*:\s*(.*)", file.read_text())
    return found[1] if found else platform.processor() or platform.machine()
