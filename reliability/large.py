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

import jax
import numpy as np
import oracles

import jaxtv
from benchmarks import scalar
from reliability.draws import TOLERANCE
from reliability.result import Result

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


def expected(part: np.ndarray, rest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The solution of one long signal: on its first tile, on those between, on the last and `rest`.

    Far from a sample the signal has no influence on it: three tiles are as good as thousands.
    """
    x = np.concatenate([part, part, part, part[:rest]]).astype(np.float64)[None]
    y = scalar.optimum_of_edges(x, oracles.full_weights(x, LAMBDA))[0]
    n = len(part)
    return y[:n], y[n : 2 * n], y[2 * n :]


def expected_rows(part: np.ndarray, rest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `expected`, where every `ROW` samples are a signal."""
    x = part.reshape(-1, ROW).astype(np.float64)
    y = scalar.optimum_of_edges(x, oracles.full_weights(x, LAMBDA)).ravel()
    return y, y, np.concatenate([y, y[:rest]])


def error(y: np.ndarray, solution: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
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


def large(cases: int, samples_of_tile: int = TILE) -> Result:
    """One signal of `cases` samples, and as many in rows of `ROW`, all float32.

    Raises:
        MemoryError: there is no memory for a result.
    """
    if available() < 5 * cases:
        raise MemoryError(f"{available():,} bytes are left of {5 * cases:,} that this needs")
    part = tile(samples_of_tile)
    rest = cases % samples_of_tile
    in_rows = cases - rest + (rest + ROW - 1) // ROW * ROW
    figures, failures = [], []
    for name, solve, samples, row in (
        ("one signal", expected, cases, cases),
        (f"rows of {ROW}", expected_rows, in_rows, ROW),
    ):
        x = jax.dlpack.from_dlpack(repeated(part, samples).reshape(-1, row))
        start = time.perf_counter()
        y = jax.block_until_ready(jaxtv.prox_tv1d(x, LAMBDA))
        took = time.perf_counter() - start
        off = error(np.asarray(y).ravel(), solve(part, samples - (cases - rest)))
        off /= float(np.abs(part).max())
        figures.append(f"{name}: {samples:,} samples in {took:.0f} s, error ≤ {off:.1e} max|x|")
        if not off <= TOLERANCE["float32"]:
            failures.append(figures[-1])
        del x, y
    return Result(
        "1D prox of more samples than an int32 counts, every one against message passing in long "
        "double",
        f"{cases:,} samples, float32",
        "; ".join(figures),
        failures,
    )
