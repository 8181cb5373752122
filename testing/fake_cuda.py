"""jaxtv as if its CUDA module were built, to look at what lowers for CUDA without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtv import _native


def scratch_bytes(target, shape, axes, itemsize, method, per_edge) -> int:
    """A number that is different for different questions, in place of `jaxtv._cuda.scratch_bytes`."""
    numbers = (len(target), *shape, *axes, itemsize, method, *per_edge)
    return 1000 + sum((i + 1) * int(number) for i, number in enumerate(numbers))


def build(monkeypatch, targets: Sequence[str] = ()) -> None:
    """Register `targets`, or all of them, for CUDA, until the test ends; nothing runs."""
    registered = tuple(targets) or tuple(_native.REGISTERED["cpu"])
    monkeypatch.setitem(_native.REGISTERED, "cuda", registered)
    monkeypatch.setitem(_native.SCRATCH_BYTES, "cuda", scratch_bytes)
