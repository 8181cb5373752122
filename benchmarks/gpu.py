"""Device times of the CUDA kernels beside a copy of the same bytes in the same run.

Times come from the profiler: the durations of all device events of RUNS calls, after a warm-up, on
inputs that rotate through buffers larger than the last-level cache. Prints a line per shape and
writes JSON. Where the paper's PyTorch package is importable it is timed too.

Usage: python benchmarks/gpu.py [--output FILE] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import importlib
import importlib.util
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv

RUNS = 30
ROTATE_BYTES = 512 << 20  # more than any L2


@dataclasses.dataclass(frozen=True)
class Case:
    """A shape, what is solved on it, and the data."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    data: str = "step"
    lam: float = 1.0
    sweeps: int = 4


CASES = [
    Case("Table 1, 256x32x32", (256, 32, 32), (-1,)),
    Case("Table 1, strided axis", (256, 32, 32), (-2,)),
    Case("64x64x64x64 NCHW rows", (64, 64, 64, 64), (-1,)),
    Case("64x64x64x64 NHWC columns", (64, 64, 64, 64), (-3,)),
    Case("32x256x56x56 NCHW rows", (32, 256, 56, 56), (-1,)),
    Case("8x3x1024x1024 NCHW rows", (8, 3, 1024, 1024), (-1,)),
    Case("8x1024x1024x3 NHWC rows", (8, 1024, 1024, 3), (-2,)),
    Case("one signal, 1e6", (1_000_000,), (-1,)),
    Case("one signal, 1e8", (100_000_000,), (-1,)),
    Case("ramps, 8192x1024", (8192, 1024), (-1,), "ramp", 1e3),
    Case("sines, 8192x1024", (8192, 1024), (-1,), "sine", 1e2),
    Case("noise, 8192x1024", (8192, 1024), (-1,), "step"),
    Case("2D K=4, 64x64x64x64 NCHW", (64, 64, 64, 64), (-2, -1), lam=0.1),
    Case("2D K=4, 64x64x64x64 NHWC", (64, 64, 64, 64), (-3, -2), lam=0.1),
    Case("2D K=4, 8x3x1024x1024 NCHW", (8, 3, 1024, 1024), (-2, -1), lam=0.1),
]
QUICK = [*CASES[:2], Case("2D K=4, 8x16x16x16", (8, 16, 16, 16), (-2, -1), lam=0.1)]


def samples(case: Case, seed: int) -> jax.Array:
    n = case.shape[case.axes[-1]]
    k = np.arange(n, dtype=np.float32)
    profile = {
        "step": (k >= n / 2) * 1.0,
        "ramp": 1e-2 * k,
        "sine": 1e2 * np.sin(6 * np.pi * k / n),
    }
    noise = 0.5 if case.data == "step" else 0.0
    along = [1] * len(case.shape)
    along[case.axes[-1]] = n
    x = jax.random.normal(jax.random.key(seed), case.shape, jnp.float32) * noise
    return x + jnp.asarray(profile[case.data], jnp.float32).reshape(along)


def device_microseconds(f: Callable, inputs: list[jax.Array]) -> float:
    """Busy time of the device per call: the sum of its events, from the profiler."""
    jax.block_until_ready([f(x) for x in inputs])
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            outputs = [f(x) for x in itertools.islice(itertools.cycle(inputs), RUNS)]
            jax.block_until_ready(outputs)
            del outputs
        (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        profile = jax.profiler.ProfileData.from_file(file)
        total = sum(
            event.duration_ns
            for plane in profile.planes
            if "/device:GPU" in plane.name
            for line in plane.lines
            if line.name.startswith("Stream")
            for event in line.events
        )
    return total / 1e3 / RUNS


def wall_microseconds(f: Callable, inputs: list[jax.Array]) -> float:
    """Median time per call of a queue of calls, host and launches included."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready([f(x) for x in itertools.islice(itertools.cycle(inputs), RUNS)])
        times.append(1e6 * (time.perf_counter() - start) / RUNS)
    return statistics.median(times)


def measure(case: Case) -> dict:
    size = int(np.prod(case.shape))
    copies = max(1, min(8, ROTATE_BYTES // (4 * size)))
    inputs = [samples(case, seed) for seed in range(copies)]
    solver = jaxtv.Direct() if len(case.axes) == 1 else jaxtv.Dykstra(case.sweeps)

    def prox(x, lam):
        return jaxtv.prox_tv(x, lam, axes=case.axes, solver=solver)

    forward = jax.jit(lambda x: prox(x, case.lam))
    y = forward(inputs[0])
    # The pullback alone: its residuals are made once, outside of what is timed.
    pullback = jax.jit(jax.vjp(prox, inputs[0], jnp.float32(case.lam))[1])
    copy = jax.jit(lambda x: x + 0)
    gap = jaxtv.duality_gap(inputs[0], y, case.lam, axes=case.axes)
    times = {
        "copy_us": device_microseconds(copy, inputs),
        "forward_us": device_microseconds(forward, inputs),
        "backward_us": device_microseconds(pullback, inputs),
        "forward_wall_us": wall_microseconds(forward, inputs),
    }
    floor = times["copy_us"]
    result = {"case": dataclasses.asdict(case), "max_gap": float(jnp.max(gap)), **times}
    rate = 8e-3 * size / times["forward_us"]
    print(
        f"{case.name:28s} copy {floor:9.1f}  forward {times['forward_us']:9.1f} µs "
        f"({times['forward_us'] / floor:5.2f}× copy, {rate:7.1f} GB/s)  backward "
        f"{times['backward_us']:9.1f} µs ({times['backward_us'] / floor:5.2f}×)  wall "
        f"{times['forward_wall_us']:9.1f} µs  gap {result['max_gap']:.1e}",
        flush=True,
    )
    return result


def paper_package() -> dict | None:
    """Forward + backward of the paper's own PyTorch layer on Table 1's shape, if importable."""
    if importlib.util.find_spec("tv_opt_layers") is None:
        print("the paper's PyTorch package (tv_opt_layers) is not importable: not timed")
        return None
    torch = importlib.import_module("torch")
    layers = importlib.import_module("tv_opt_layers.layers.l1_tv_1d_layer")
    layer = layers.L1TV1DLayer(lmbd_mode="learned", lmbd_init=1.0, num_channels=32).cuda()
    batch = np.array(samples(CASES[0], 0)).reshape(8, 32, 32, 32)  # the same 8192 rows
    x = torch.from_numpy(batch).cuda().requires_grad_()
    times = []
    for _ in range(RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        layer(x).sum().backward()
        end.record()
        torch.cuda.synchronize()
        times.append(1e3 * start.elapsed_time(end))
    result = {"forward_backward_us": statistics.median(times)}
    print(
        f"the paper's package, Table 1: forward + backward {result['forward_backward_us']:.0f} µs"
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", help="JSON file")
    parser.add_argument("--quick", action="store_true", help="small shapes only")
    options = parser.parse_args()
    if jax.default_backend() != "gpu":
        raise SystemExit("benchmarks/gpu.py needs a CUDA device; JAX sees none.")
    device = jax.devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}, jaxtv {jaxtv.__version__}, float32, {RUNS} calls each")
    results = [measure(case) for case in (QUICK if options.quick else CASES)]
    report = {"device": device, "jax": jax.__version__, "cases": results, "paper": paper_package()}
    if options.output:
        with open(options.output, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
