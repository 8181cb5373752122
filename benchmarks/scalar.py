"""The C++ of this folder, compiled for this machine on first use.

`scalar.cpp` is the C loop and the float64 optimum, `plain_lanes.cpp` our method bare.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import pathlib
import subprocess

import numpy as np

HERE = pathlib.Path(__file__).parent
SOURCES = [HERE / "scalar.cpp", HERE / "plain_lanes.cpp"]
BUILD = HERE.parent / "build" / "benchmarks"
COMMAND = ["g++", "-std=c++20", "-O3", "-march=native", "-fPIC", "-shared", "-pthread"]


@functools.cache
def library() -> ctypes.CDLL:
    key = hashlib.sha256(b"".join(s.read_bytes() for s in SOURCES)).hexdigest()[:12]
    path = BUILD / f"scalar-{key}.so"
    if not path.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        work = path.with_suffix(f".{os.getpid()}")
        subprocess.run([*COMMAND, *map(str, SOURCES), "-o", str(work)], check=True)
        work.rename(path)
    return ctypes.CDLL(str(path))


def solve(name: str, x: np.ndarray, lam: float, y: np.ndarray, threads: int) -> np.ndarray:
    """Runs a function of the library on x, contiguous, into y; returns y.

    `loop_f32`, `loop_f64` and `optimum` take rows (rows, n), `plain_lanes` columns (n, rows).
    """
    address = lambda a: ctypes.c_void_p(a.ctypes.data)
    rows, n = (ctypes.c_int64(size) for size in x.shape)
    getattr(library(), name)(address(x), ctypes.c_double(lam), address(y), rows, n, threads)
    return y


def cores() -> int:
    return len(os.sched_getaffinity(0))


def optimum1d(rows: np.ndarray, lam: float) -> np.ndarray:
    """The exact prox of every row, computed in long double, in float64."""
    x = np.ascontiguousarray(rows, np.float64)
    return solve("optimum", x, lam, np.empty_like(x), cores())


def optimum_of_edges(rows: np.ndarray, w: np.ndarray) -> np.ndarray:
    """`optimum1d` with a weight for every edge, w (rows, n-1), inf allowed."""
    x = np.ascontiguousarray(rows, np.float64)
    # |u_e| <= sum |y - x| <= n * range, so a weight above that acts like infinity.
    w = np.ascontiguousarray(np.minimum(w, 2 * x.shape[1] * np.ptp(x, axis=1, keepdims=True)))
    y = np.empty_like(x)
    address = lambda a: ctypes.c_void_p(a.ctypes.data)
    count, n = (ctypes.c_int64(size) for size in x.shape)
    library().optimum_of_edges(address(x), address(w), address(y), count, n, cores())
    return y


def optimum2d(x: np.ndarray, lam: float, gap: float = 1e-12) -> np.ndarray:
    """The anisotropic 2D prox of one image to a relative duality gap, in float64.

    Accelerated Dykstra with restart (Chambolle & Pock 2015). The residuals u of the rows and v of
    the columns are dual feasible, so the duality gap of y = x − u − v is λ TV(y) − ⟨x − y, y⟩.
    """
    x = np.asarray(x, np.float64)
    v = ahead = np.zeros_like(x)
    t = 1.0
    for _ in range(20_000):
        u = _residual(x - ahead, lam)
        new = _residual((x - u).T, lam).T
        y = x - u - new
        variation = lam * total_variation(y, (0, 1))
        if variation - np.sum((x - y) * y) <= gap * (variation + 0.5 * np.sum((x - y) ** 2)):
            return y
        restart = np.sum((ahead - new) * (new - v)) > 0
        t, previous = (1.0, 1.0) if restart else ((1 + np.sqrt(1 + 4 * t * t)) / 2, t)
        ahead = new + (previous - 1) / t * (new - v)
        v = new
    raise RuntimeError(f"no optimum within a relative gap of {gap} in 20,000 sweeps")


def _residual(a: np.ndarray, lam: float) -> np.ndarray:
    a = np.ascontiguousarray(a)
    return a - solve("loop_f64", a, lam, np.empty_like(a), cores())


def total_variation(y: np.ndarray, axes: tuple[int, ...]) -> float:
    return float(sum(np.abs(np.diff(y, axis=axis)).sum() for axis in axes))


def objective(x: np.ndarray, y: np.ndarray, lam: float, axes: tuple[int, ...]) -> float:
    """½|y − x|² + λ TV(y), in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return 0.5 * float(np.sum((y - x) ** 2)) + lam * total_variation(y, axes)
