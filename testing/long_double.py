"""The exact prox by message passing in long double (long_double.cpp), and optima of images by it.

Fast enough for millions of signals, and another algorithm than any kernel of the library.
"""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from testing import native


@functools.cache
def library() -> ctypes.CDLL:
    """long_double.cpp, compiled."""
    built = native.Library("long_double", ["testing/long_double.cpp"], ["testing"], native.FAST)
    return ctypes.CDLL(str(built.build()))


def prox1d(x: np.ndarray, w: np.ndarray | float) -> np.ndarray:
    """The exact prox of every row, in float64: x (rows, n), w a number or (rows, n-1), inf allowed."""
    x = np.ascontiguousarray(x, np.float64)
    rows, n = x.shape
    # |u_e| <= sum |y - x| <= n * range, so a weight above that acts like infinity.
    w = np.minimum(w, 2 * n * np.ptp(x, axis=1, keepdims=True))
    w = np.ascontiguousarray(np.broadcast_to(w, (rows, n - 1)), np.float64)
    y = np.empty_like(x)
    address = lambda a: ctypes.c_void_p(a.ctypes.data)
    sizes = ctypes.c_int64(rows), ctypes.c_int64(n)
    library().message_passing(address(x), address(w), address(y), *sizes, native.cores())
    return y


def prox2d(x: np.ndarray, lam: float, gap: float = 1e-12) -> np.ndarray:
    """The anisotropic 2D prox of one image to a relative duality gap, in float64.

    Accelerated Dykstra with restart (Chambolle & Pock 2015). The residuals u of the rows and v of
    the columns are dual feasible, so the duality gap of y = x − u − v is λ TV(y) − ⟨x − y, y⟩.
    """
    x = np.asarray(x, np.float64)
    v = ahead = np.zeros_like(x)
    t = 1.0
    residual = lambda a: a - prox1d(a, lam)
    for _ in range(20_000):
        u = residual(x - ahead)
        new = residual((x - u).T).T
        y = x - u - new
        variation = lam * total_variation(y, (0, 1))
        if variation - np.sum((x - y) * y) <= gap * (variation + 0.5 * np.sum((x - y) ** 2)):
            return y
        restart = np.sum((ahead - new) * (new - v)) > 0
        t, previous = (1.0, 1.0) if restart else ((1 + np.sqrt(1 + 4 * t * t)) / 2, t)
        ahead = new + (previous - 1) / t * (new - v)
        v = new
    raise RuntimeError(f"no optimum within a relative gap of {gap} in 20,000 sweeps")


def total_variation(y: np.ndarray, axes: tuple[int, ...]) -> float:
    """Σ|Dy| over the axes."""
    return float(sum(np.abs(np.diff(y, axis=axis)).sum() for axis in axes))


def objective(x: np.ndarray, y: np.ndarray, lam: float, axes: tuple[int, ...]) -> float:
    """½|y − x|² + λ TV(y), in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return 0.5 * float(np.sum((y - x) ** 2)) + lam * total_variation(y, axes)
