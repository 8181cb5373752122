"""Allocation failure: an exception, after which the same process still gives right results."""

from __future__ import annotations

import os
import pathlib
import resource

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv

SIDE = 4352  # of a float32 image of 72 MiB: more than any heap of malloc holds


def programs() -> dict:
    """Compiled, not yet run: a prox of long signals, 2D proxes, derivatives."""
    image = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)
    few = jaxtv.AcceleratedDykstra(tol=1e-2, max_iterations=2)
    gradient = lambda f: jax.grad(lambda x: jnp.sum(f(x) ** 2))
    plane = lambda solver: lambda x: jaxtv.prox_tv2d(x, 0.5, solver=solver)
    functions = {
        "1D": lambda x: jaxtv.prox_tv1d(x, 0.5),
        "one signal": lambda x: jaxtv.prox_tv1d(x.ravel(), 0.5),
        "Dykstra": plane(jaxtv.Dykstra()),
        "AcceleratedDykstra": plane(few),
        "gradient of 1D": gradient(lambda x: jaxtv.prox_tv1d(x, 0.5, axis=0)),
        "gradient of Dykstra": gradient(plane(jaxtv.Dykstra())),
        "gradient of AcceleratedDykstra": gradient(plane(few)),
    }
    return {name: jax.jit(f).lower(image).compile() for name, f in functions.items()}


def address_space() -> int:
    """Bytes that this process has mapped."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def limited(f, x, left: int) -> np.ndarray | None:
    """f(x) with so many bytes more; None where they were too few, which was an exception."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + left, before[1]))
    try:
        y = jax.block_until_ready(f(x))
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    return np.asarray(y)


def exhaust(number: int) -> str:
    """Every program at `number` limits, of nothing left to a dozen images; then without a limit.

    Raises:
        RuntimeError: no call of a program failed, or a result that came about is not the right one.
    """
    x = jnp.asarray(np.random.default_rng(0).normal(size=(SIDE, SIDE)), jnp.float32)
    left = [0, *(int(x.nbytes * 1.3 * 1.7**k) for k in range(number - 1))]
    failed = served = 0
    for name, f in programs().items():
        results = [limited(f, x, size) for size in left]
        expected = np.asarray(f(x))
        wrong = sum(y is not None and not np.array_equal(y, expected) for y in results)
        missing = sum(y is None for y in results)
        if wrong or not missing:
            raise RuntimeError(f"{name}: {missing} of {number} failed, {wrong} wrong")
        failed, served = failed + missing, served + number - missing
    return f"out of memory {failed} times, each an exception; all {served} other calls right"
