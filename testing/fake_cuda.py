"""jaxtv as if its CUDA module were built, to look at what lowers for CUDA without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtv import _native

CPU_ONLY = ("jaxtv_converged", "jaxtv_isotropic")  # plain JAX around kernels on CUDA
CUDA_ONLY = ("jaxtv_isotropic_steps",)
TARGETS = (*(t for t in _native.REGISTERED["cpu"] if t not in CPU_ONLY), *CUDA_ONLY)


def scratch_bytes(target, shape, axes, itemsize, method, per_edge) -> int:
    """A number that is different for different questions, in place of `jaxtv._cuda.scratch_bytes`."""
    numbers = (len(target), *shape, *axes, itemsize, method, *per_edge)
    return 1000 + sum((i + 1) * int(number) for i, number in enumerate(numbers))


def build(monkeypatch, targets: Sequence[str] = ()) -> None:
    """Register `targets`, or all of them, for CUDA, until the test ends; nothing runs."""
    monkeypatch.setitem(_native.REGISTERED, "cuda", tuple(targets) or TARGETS)
    monkeypatch.setitem(_native.SCRATCH_BYTES, "cuda", scratch_bytes)
