"""The CUDA kernels against those of the CPU, in units in the last place of max|x|.

The kernels are those of cuda/, compiled as C++ and emulated (testing/emulator), or run on a GPU
where JAX has one.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from soak.accuracy import SOLVERS
from soak.result import Result
from testing.callframe import bind
from testing.random_batches import DTYPES, Batch, batch, compute_dtype

MOST_ULPS = {"float32": 1, "float64": 32, "bfloat16": 1, "float16": 1}
SAMPLES = 3000  # of a batch: the emulator is slow


def solve(b: Batch, solver, platform: str) -> np.ndarray:
    """The solution by the kernels of a platform, (rows, n) in float64.

    The CPU kernels take no half types: they solve in float32, and the solution is rounded here.
    """
    dtype = b.dtype if platform == "cuda" else compute_dtype(b.dtype)
    x, w = b.x.astype(dtype), b.w.astype(compute_dtype(b.dtype))
    w = np.broadcast_to(w, (len(x), w.shape[1]))
    turn = (lambda a: a) if b.axis == -1 else np.transpose
    axis = b.axis % 2
    (y,) = bind("prox1d", turn(x), turn(w), axis=axis, solver=solver, platform=platform)
    return turn(y).astype(b.dtype).astype(np.float64)


def ulps(b: Batch, y: np.ndarray, z: np.ndarray) -> float:
    """The largest difference of two solutions, in ulps of max|x| of their signal.

    Half types: in ulps of the half type. A NaN in only one of them is infinitely far.
    """
    eps = float(jnp.finfo(b.dtype).eps)
    unit = np.maximum(2.0 ** np.floor(np.log2(b.scale)) * eps, float(jnp.finfo(b.dtype).tiny))
    same = (y == z) | (np.isnan(y) & np.isnan(z))
    with np.errstate(invalid="ignore"):
        off = np.where(same, 0, np.abs(y - z) / unit)
    return float(np.max(np.where(np.isnan(off), np.inf, off), initial=0))


def platforms(cases: int, seed: int = 0) -> Result:
    """Batches of `random`, by every exact solver in turn."""
    worst, failures = dict.fromkeys(DTYPES, 0.0), []
    for s in range(seed, seed + cases):
        b, solver = batch(s, samples=SAMPLES), SOLVERS[s % len(SOLVERS)]
        y, z = (solve(b, solver, platform) for platform in ("cpu", "cuda"))
        off = ulps(b, y, z)
        worst[b.dtype] = max(worst[b.dtype], off)
        if not off <= MOST_ULPS[b.dtype]:
            failures.append(f"seed {s}: {b.dtype} {b.x.shape}, {off:.3g} ulps of max|x|")
            print(failures[-1], flush=True)
    figures = (f"{d}: {worst[d]:.2g} ({MOST_ULPS[d]} allowed)" for d in DTYPES)
    return Result(
        "1D CUDA kernels (in testing/emulator) compared with the CPU kernels",
        f"{cases:,} batches of `random`, of up to {SAMPLES:,} samples",
        "largest difference in ulps of max|x|: " + ", ".join(figures),
        failures,
    )
