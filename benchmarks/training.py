"""Training steps of the five tasks on a CPU: with XLA's weight gradient and with ours.

    python -m benchmarks.training          # prints two tables; ten minutes, on an idle machine

The second table has one run of All-CNN-C on all cores, and one on each of them at once, as
`jaxtv reproduce` has them.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks.worker import sample
from jaxtv.vision import processes, training
from jaxtv.vision.networks.convolution import convolve
from jaxtv.vision.networks.resnet20 import ResNet20
from jaxtv.vision.task import Batch, Task, get_task, settings_of
from jaxtv.vision.tasks.classification import Classification

STEPS = 7  # of each, in turn; the table has their medians
SECONDS = 10.0  # of each measurement of throughput
GRADIENTS = {"XLA's": jax.lax.conv_general_dilated, "ours": convolve}


class OfResNet20(Classification):
    """The released network's architecture."""

    def build(self, variant: str, settings: Any, rngs: nnx.Rngs) -> ResNet20:  # type: ignore[override]
        return ResNet20(rngs=rngs)


# Task, and what is changed of its preset `small`.
CASES: dict[str, tuple[Task, dict[str, Any]]] = {
    "All-CNN-C, width 32, batch 64": (Classification(), {"width": 32, "batch_size": 64}),
    "All-CNN-C, width 32, batch 128": (Classification(), {"width": 32, "batch_size": 128}),
    "All-CNN-C, width 48, batch 64": (Classification(), {"width": 48, "batch_size": 64}),
    "All-CNN-C, width 96, batch 128": (Classification(), {"width": 96, "batch_size": 128}),
    "ResNet-20, batch 50": (OfResNet20(), {"batch_size": 50}),
    "VGG-16": (get_task("wsol"), {}),
    "DexiNed": (get_task("edges"), {}),
    "ResNet of 16 blocks": (get_task("smoothing"), {}),
    "DnCNN": (get_task("denoising"), {}),
}

THROUGHPUT = ("All-CNN-C, width 32, batch 64", "All-CNN-C, width 48, batch 64")


def step_of(case: str, gradient: str) -> Callable[[], jax.Array]:
    """A training step without TV layers, compiled and warm."""
    task, changes = CASES[case]
    settings = settings_of(task, "small", changes)
    run = training.Run(task.name, "baseline", settings, 0, "")
    model, optimizer = training.create(task, run, steps=1000)
    for _, module in nnx.iter_graph(model):
        if isinstance(module, nnx.Conv):
            module.conv_general_dilated = GRADIENTS[gradient]
    batch = batch_of(task, settings)
    model.train()
    step = lambda: training.step(model, optimizer, batch, task).block_until_ready()
    step()
    step()
    return step


def batch_of(task: Task, settings: Any) -> Batch:
    """Of the task's embedded data; for classification random images of 32x32."""
    rng = np.random.default_rng(0)
    if not isinstance(task, Classification):
        return next(iter(task.load(None, settings).epoch(rng, settings.batch_size)))
    images = rng.normal(size=(settings.batch_size, 32, 32, 3)).astype(np.float32)
    return {"image": images, "label": rng.integers(0, 10, settings.batch_size)}


def compare(case: str) -> list[float]:
    """Median seconds of a step with each gradient."""
    steps = [step_of(case, gradient) for gradient in GRADIENTS]
    times = [[sample(step) for step in steps] for _ in range(STEPS)]
    return [statistics.median(mine) for mine in zip(*times)]


def rate(case: str, gradient: str, start: Any = None) -> float:
    """Steps a second in this process; `start` is a barrier for those that run at once."""
    step = step_of(case, gradient)
    if start:
        start.wait()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() < begin + SECONDS:
        step()
        count += 1
    return count / (time.perf_counter() - begin)


def rate_of_one(case: str, gradient: str) -> float:
    """Steps a second of one process on all cores."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(rate, case, gradient).result()


def rate_of_pinned(case: str, gradient: str, pins: list[int]) -> float:
    """Steps a second of one process on each of the cores, together."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        calls = [(case, gradient, manager.Barrier(len(pins)))] * len(pins)
        return sum(found for _, found in processes.each_on_a_core(rate, calls, pins))


def main() -> None:
    pins = processes.cores()
    print("| step, on one core | XLA's | ours | ratio |\n| --- | --- | --- | --- |")
    calls = [(case,) for case in CASES]
    for i, (theirs, ours) in processes.each_on_a_core(compare, calls, pins[:1]):
        times = f"{theirs:.3f} s | {ours:.3f} s | {theirs / ours:.2f}"
        print(f"| {calls[i][0]} | {times} |", flush=True)
    print("\n| steps a second, on all cores | one run | one on each core | ratio |")
    print("| --- | --- | --- | --- |")
    for case, gradient in itertools.product(THROUGHPUT, GRADIENTS):
        one, each = rate_of_one(case, gradient), rate_of_pinned(case, gradient, pins)
        print(f"| {case}, {gradient} | {one:.2f} | {each:.2f} | {each / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
