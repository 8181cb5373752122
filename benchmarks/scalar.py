"""The C loop, scalar.cpp."""

from __future__ import annotations

import ctypes
import functools
import platform

import numpy as np

from testing import native

# Valgrind, under which `peers.py` counts its instructions, knows no AVX-512.
_FLAGS = (*native.FAST, *(["-mno-avx512f"] if platform.machine() == "x86_64" else []))


@functools.cache
def library() -> ctypes.CDLL:
    """scalar.cpp, compiled."""
    built = native.Library("scalar", ["benchmarks/scalar.cpp"], ["testing"], _FLAGS)
    return ctypes.CDLL(str(built.build()))


def solve(name: str, x: np.ndarray, lam: float, y: np.ndarray, threads: int) -> np.ndarray:
    """Runs `loop_f32` or `loop_f64` on the rows of x, contiguous, into y; returns y."""
    address = lambda a: ctypes.c_void_p(a.ctypes.data)
    rows, n = (ctypes.c_int64(size) for size in x.shape)
    getattr(library(), name)(address(x), ctypes.c_double(lam), address(y), rows, n, threads)
    return y
