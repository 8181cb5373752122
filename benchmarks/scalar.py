"""The C++ of this folder: `scalar.cpp` is the C loop, `plain_lanes.cpp` our method bare."""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from testing import native


@functools.cache
def library() -> ctypes.CDLL:
    """Both, compiled."""
    sources = ["benchmarks/scalar.cpp", "benchmarks/plain_lanes.cpp"]
    return ctypes.CDLL(str(native.Library("scalar", sources, ["testing"], native.FAST).build()))


def solve(name: str, x: np.ndarray, lam: float, y: np.ndarray, threads: int) -> np.ndarray:
    """Runs a function of the library on x, contiguous, into y; returns y.

    `loop_f32` and `loop_f64` take rows (rows, n), `plain_lanes` columns (n, rows).
    """
    address = lambda a: ctypes.c_void_p(a.ctypes.data)
    rows, n = (ctypes.c_int64(size) for size in x.shape)
    getattr(library(), name)(address(x), ctypes.c_double(lam), address(y), rows, n, threads)
    return y
