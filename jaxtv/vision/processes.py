"""Several trainings at once on a CPU: a process for each core, pinned to it.

A training step of these networks gains little from a second core. Two runs, each on a core of its
own, finish sooner than one after the other on both.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Queue
from typing import Any

import jax


def cores() -> list[int]:
    """The cores to pin processes to: all that this process may use (`taskset` sets them).

    Empty where JAX has another device than one CPU, or the system can not pin.
    """
    one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    if not one_cpu or not hasattr(os, "sched_setaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def each_on_a_core(
    function: Callable[..., Any], arguments: Sequence[tuple], pins: Sequence[int]
) -> Iterator[tuple[int, Any]]:
    """Calls of a function in processes, each pinned to one core for all its calls.

    Args:
        function: of a module, so that it can be pickled.
        arguments: of each call.
        pins: the cores, one process each.

    Yields:
        Number and result of a call, as soon as it is done.

    Raises:
        Exception: whatever a call raises; calls that have not started are then dropped.
    """
    context = multiprocessing.get_context("spawn")  # XLA's threads do not survive a fork
    with context.Manager() as manager:
        free = manager.Queue()
        for core in pins:
            free.put(core)
        pool = concurrent.futures.ProcessPoolExecutor(len(pins), context, pin, (free,))
        try:
            calls = {pool.submit(function, *given): i for i, given in enumerate(arguments)}
            for call in concurrent.futures.as_completed(calls):
                yield calls[call], call.result()
        finally:
            pool.shutdown(cancel_futures=True)


def pin(free: Queue[int]) -> None:
    """Pins this process to the next free core, before XLA starts as many threads as it may use."""
    os.sched_setaffinity(0, {free.get()})


def train(run: Any, data: Path | None, folder: Path) -> None:
    """One training to its end; `folder` then has its `result.json`."""
    from rich.console import Console

    from jaxtv.vision import training
    from jaxtv.vision.task import get_task

    task = get_task(run.task)
    training.train(task, run, task.load(data, run.settings), folder, Console(quiet=True))
