"""Arrays of more than 2^31 samples: whether every one of them is right.

The input is one tile, mapped into memory again and again, so that only the result needs memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pathlib
import re
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv
from soak.result import Result
from testing import long_double, oracles
from testing.random_batches import TOLERANCE

TILE = 1 << 20  # samples
ROW = 64
LAMBDA = 0.5


def tile(samples: int, seed: int = 0) -> np.ndarray:
    """Noise on steps."""
    r = np.random.default_rng(seed)
    steps = np.repeat(r.normal(size=samples // 32) * 3, 32)
    return (steps + 0.3 * r.normal(size=samples)).astype(np.float32)


def repeated(part: np.ndarray, samples: int) -> np.ndarray:
    """`part` over and over, without memory of its own. It stays mapped until the process ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    file = os.memfd_create("tile")
    os.write(file, part.tobytes())
    size, step, fixed = samples * part.itemsize, part.nbytes, 0x10  # MAP_FIXED
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    start = libc.mmap(None, size, mmap.PROT_READ, anonymous, -1, 0)
    for at in range(0, size, step):
        flags = mmap.MAP_SHARED | fixed
        got = libc.mmap(start + at, min(step, size - at), mmap.PROT_READ, flags, file, 0)
        if got != start + at:
            raise OSError(ctypes.get_errno(), "mmap")
    os.close(file)
    return np.frombuffer((ctypes.c_float * samples).from_address(start), np.float32)


def rows(samples: np.ndarray, *shape: int) -> jax.Array:
    """Signals of `ROW` samples, or of another shape, in the same memory."""
    return jax.dlpack.from_dlpack(samples.reshape(-1, *(shape or (ROW,))))


def one_signal(part: np.ndarray, samples: int) -> jax.Array:
    """The prox of all samples as one signal."""
    return jaxtv.prox_tv1d(rows(repeated(part, samples), samples), LAMBDA)


def signals(part: np.ndarray, samples: int) -> jax.Array:
    """The prox of every row."""
    return jaxtv.prox_tv1d(rows(repeated(part, samples)), LAMBDA)


def images(part: np.ndarray, samples: int) -> jax.Array:
    """The prox of square images, by `Dykstra`."""
    return jaxtv.prox_tv2d(rows(repeated(part, samples), ROW, ROW), LAMBDA, axes=(1, 2))


def gradient(part: np.ndarray, samples: int) -> jax.Array:
    """The gradient of `signals`, straight at its target: the solution needs no memory then."""
    solution = np.asarray(signals(part, len(part))).ravel()
    y, g = rows(repeated(solution, samples)), rows(repeated(part[::-1].copy(), samples))
    w = jnp.full((len(y), 1), LAMBDA, jnp.float32)
    outs = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (g, w))
    return jax.ffi.ffi_call("jaxtv_segment_vjp", outs)(y, w, g, axis=np.int64(1))[0]


def optimum(part: np.ndarray, rest: int) -> tuple[np.ndarray, ...]:
    """The solution of `one_signal`: on its first tile, on those between, on the last and `rest`.

    Far from a sample the signal has no influence on it: three tiles are as good as thousands.
    """
    x = np.concatenate([part, part, part, part[:rest]]).astype(np.float64)[None]
    y = long_double.prox1d(x, oracles.full_weights(x, LAMBDA))[0]
    n = len(part)
    return y[:n], y[n : 2 * n], y[2 * n :]


def of_one_tile(call: Callable, part: np.ndarray, rest: int) -> tuple[np.ndarray, ...]:
    """The results of a call in which no signal crosses tiles, which is right for one tile."""
    y = np.asarray(call(part, len(part))).ravel()
    return y, y, np.concatenate([y, y[:rest]])


def error(y: np.ndarray, solution: tuple[np.ndarray, ...]) -> float:
    """The largest error of all samples; a NaN is infinite."""
    first, middle, last = solution
    n = len(first)
    ends = [np.abs(y[:n] - first).max(), np.abs(y[-len(last) :] - last).max()]
    between = (y[at : at + n] - middle for at in range(n, len(y) - len(last), n))
    off = np.max([*ends, *(np.abs(d).max() for d in between)])
    return float(np.nan_to_num(off, nan=np.inf))


def available() -> int:
    """Bytes of memory that the machine has left."""
    text = pathlib.Path("/proc/meminfo").read_text()
    return int(re.search(r"MemAvailable: *(\d+) kB", text)[1]) * 1024  # type: ignore[index]


CALLS = {
    "one signal": (one_signal, 1, optimum),
    f"rows of {ROW}": (signals, ROW, partial(of_one_tile, signals)),
    "their gradient": (gradient, ROW, partial(of_one_tile, gradient)),
    f"images of {ROW}²": (images, ROW**2, partial(of_one_tile, images)),
}


def huge_arrays(cases: int, samples_of_tile: int = TILE) -> Result:
    """Calls with `cases` samples, float32, or with as many as make whole rows or images.

    Raises:
        MemoryError: there is no memory for a result.
    """
    if available() < 5 * cases:
        raise MemoryError(f"{available():,} bytes are left of {5 * cases:,} that this needs")
    part = tile(samples_of_tile)
    figures, failures = [], []
    for name, (call, unit, solution) in CALLS.items():
        samples = -(-cases // unit) * unit
        start = time.perf_counter()
        y = np.asarray(jax.block_until_ready(call(part, samples))).ravel()
        took = time.perf_counter() - start
        off = error(y, solution(part, samples % samples_of_tile)) / np.abs(part).max()
        figures.append(f"{name}: {samples:,} samples in {took:.0f} s, error ≤ {off:.1e} max|x|")
        if not off <= TOLERANCE["float32"]:
            failures.append(figures[-1])
        del y
    return Result(
        "calls with more samples than an int32 counts; every sample compared with message passing "
        "in long double (one signal), or with a call on one of the tiles that the input repeats",
        f"{cases:,} samples, float32",
        "; ".join(figures),
        failures,
    )
