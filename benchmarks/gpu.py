"""Device times of the CUDA kernels beside a copy of the same bytes in the same run.

A time is the median over many calls of what one call keeps the device busy, from the profiler,
after a warm-up, on inputs that rotate through buffers larger than the last-level cache. The copy
is a device-to-device copy that reads and writes together as many bytes as the operands and results
of the call. Where the profiler shows no device events the host's clock over a queue of calls is
used; the report names the clock of every time. JSON is written after every case, so that what was
measured survives what comes later. Where the paper's PyTorch package is importable it is timed too.

Usage: python benchmarks/gpu.py [--output FILE] [--seconds S] [--platform cpu --smoke]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import glob
import importlib
import importlib.util
import itertools
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv

ROTATE_BYTES = 256 << 20  # of inputs: more than any last-level cache
PASSES = ("forward", "backward", "both")
COPIES = {"forward": ("× copy", 2.5), "backward": ("× copy", 1.2)}  # of large batches
NOISE = "8192x1024, noise"
EXACT, K4 = jaxtv.Direct(), jaxtv.Dykstra(4)
PARALLEL = jaxtv.ProjectedNewton(line_search="parallel")
FIXED = jaxtv.FGP(tol=0, max_iterations=95)  # iterations in four calls of the kernel


@dataclasses.dataclass(frozen=True)
class Case:
    """What is solved on which data, and the targets: pass -> (unit, at most)."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] = (-1,)
    data: str = "step"
    lam: float = 1.0
    solver: Any = EXACT
    dtype: str = "float32"
    targets: dict[str, tuple[str, float]] = dataclasses.field(default_factory=dict, hash=False)


NCHW, NHWC, DEEP, DEEP_NHWC = (64,) * 4, (64,) * 4, (32, 256, 56, 56), (32, 56, 56, 256)
PHOTOS, PHOTOS_NHWC = (8, 3, 1024, 1024), (8, 1024, 1024, 3)
CASES = [
    Case("256x32x32, rows (Table 1)", (256, 32, 32), targets={"both": ("µs", 20)}),
    Case("64x64x64x64 NCHW, rows", NCHW, targets=COPIES),
    Case(
        "64x64x64x64 NCHW, 2D K=4",
        NCHW,
        (-2, -1),
        "step",
        0.1,
        K4,
        targets={"forward": ("µs", 1e3)},
    ),
    Case(NOISE, (8192, 1024)),
    Case("8192x1024, ramps", (8192, 1024), (-1,), "ramp", 1e3, targets={"forward": ("× noise", 5)}),
    Case("8192x1024, sines", (8192, 1024), (-1,), "sine", 1e2, targets={"forward": ("× noise", 5)}),
    Case("256x32x32, columns", (256, 32, 32), (-2,)),
    Case("64x64x64x64 NHWC, rows", NHWC, (-2,), targets=COPIES),
    Case(
        "64x64x64x64 NHWC, 2D K=4",
        NHWC,
        (-3, -2),
        "step",
        0.1,
        K4,
        targets={"forward": ("µs", 1e3)},
    ),
    Case("32x256x56x56 NCHW, rows", DEEP, targets=COPIES),
    Case("32x56x56x256 NHWC, rows", DEEP_NHWC, (-2,), targets=COPIES),
    Case("8x3x1024x1024 NCHW, rows", PHOTOS, targets=COPIES),
    Case("8x1024x1024x3 NHWC, rows", PHOTOS_NHWC, (-2,), targets=COPIES),
    Case("one signal of 1e6", (1_000_000,)),
    Case("one signal of 1e8", (100_000_000,)),
    Case("256x32x32, Newton", (256, 32, 32), solver=jaxtv.ProjectedNewton()),
    Case("256x32x32, Newton, parallel", (256, 32, 32), solver=PARALLEL),
    Case("64x64x64x64 NCHW, rows, bf16", NCHW, dtype="bfloat16", targets=COPIES),
    Case("64x64x64x64 NCHW, 2D, bf16", NCHW, (-2, -1), "step", 0.1, K4, dtype="bfloat16"),
    Case("8x512x512, isotropic, 95 steps", (8, 512, 512), (-2, -1), "step", 0.5, FIXED),
    Case("256x32x32, 2D K=4", (256, 32, 32), (-2, -1), "step", 0.1, K4),
    Case("32x256x56x56 NCHW, 2D K=4", DEEP, (-2, -1), "step", 0.1, K4),
    Case("32x56x56x256 NHWC, 2D K=4", DEEP_NHWC, (-3, -2), "step", 0.1, K4),
    Case("8x3x1024x1024 NCHW, 2D K=4", PHOTOS, (-2, -1), "step", 0.1, K4),
    Case("8x1024x1024x3 NHWC, 2D K=4", PHOTOS_NHWC, (-3, -2), "step", 0.1, K4),
]


def smoke(case: Case) -> Case:
    """The case on a tiny shape: to run the benchmark's own code."""
    return dataclasses.replace(case, shape=tuple(min(d, 8) for d in case.shape))


# ---------------------------------------------------------------------------- data


@functools.partial(jax.jit, static_argnums=0)
def samples(case: Case, seed: int) -> jax.Array:
    """A step with noise, or a smooth ramp or sine, along the last of the axes."""
    axis = case.axes[-1] % len(case.shape)
    n = case.shape[axis]
    k = jax.lax.broadcasted_iota(jnp.float32, case.shape, axis)
    if case.data == "ramp":
        x = 1e-2 * k + seed
    elif case.data == "sine":
        x = 1e2 * jnp.sin(6 * np.pi * k / n) + seed
    else:
        x = (k >= n / 2) + 0.5 * jax.random.normal(jax.random.key(seed), case.shape)
    return x.astype(case.dtype)


def rotation(nbytes: int, most: int) -> int:
    """How many buffers of `nbytes` exceed the cache together; no more than are used."""
    return min(2 * most, max(2, -(-ROTATE_BYTES // max(1, nbytes))))


def nbytes(tree: Any) -> int:
    """Bytes of the arrays of a pytree."""
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))


# ---------------------------------------------------------------------------- clocks


def device_events(profile: jax.profiler.ProfileData) -> list[tuple[float, float]]:
    """(start, duration) of everything that ran on a GPU, in µs, in order."""
    return sorted(
        (event.start_ns / 1e3, event.duration_ns / 1e3)
        for plane in profile.planes
        if "/device:GPU" in plane.name
        for line in plane.lines
        if line.name.startswith("Stream")
        for event in line.events
    )


def per_call(events: Sequence[tuple[float, float]], runs: int) -> tuple[float, str] | None:
    """Median busy time of one of `runs` equal calls; the mean where calls can not be told apart."""
    if not events:
        return None
    durations = [duration for _, duration in events]
    each, rest = divmod(len(durations), runs)
    if rest:
        return sum(durations) / runs, "profiler, mean"
    calls = [sum(durations[i : i + each]) for i in range(0, len(durations), each)]
    return statistics.median(calls), "profiler"


def queue(f: Callable, operands: list[tuple], runs: int) -> float:
    """Seconds of `runs` calls in a row, each on the next operands."""
    start = time.perf_counter()
    for args in itertools.islice(itertools.cycle(operands), runs):
        out = f(*args)
    jax.block_until_ready(out)
    return time.perf_counter() - start


def timed(f: Callable, operands: list[tuple], most: int) -> dict[str, Any]:
    """The time of a call: from the profiler if it sees the device, and from the host's clock."""
    queue(f, operands, len(operands))  # compiles, warms up, leaves the last buffers in the cache
    once = queue(f, operands, 2) / 2
    runs = int(min(most, max(5, 0.3 / once)))
    host = statistics.median(queue(f, operands, runs) for _ in range(3)) * 1e6 / runs
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            queue(f, operands, runs)
        (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        events = device_events(jax.profiler.ProfileData.from_file(file))
    us, clock = per_call(events, runs) or (host, "host")
    return {"us": us, "clock": clock, "host_us": host, "runs": runs}


@functools.cache
def copy_us(size: int, most: int) -> float:
    """Time of a device-to-device copy that moves `size` bytes, reads and writes together."""
    shape = (max(1, size // 2 // 4),)
    count = rotation(4 * shape[0], most)
    operands = [(jnp.full(shape, i, jnp.float32),) for i in range(count)]
    return timed(jax.jit(jnp.copy), operands, most)["us"]


# ---------------------------------------------------------------------------- measuring


def functions(case: Case) -> tuple[Callable, Callable, Callable, Callable]:
    """forward(x, lam), linearised(x, lam) -> (y, pull), backward(y, pull), both(x, lam)."""

    def prox(x, lam):
        solve = jaxtv.prox_tv_isotropic if isotropic(case) else jaxtv.prox_tv
        return solve(x, lam, axes=case.axes, solver=case.solver)

    forward = jax.jit(prox)
    linearised = jax.jit(lambda x, lam: jax.vjp(prox, x, lam))
    backward = jax.jit(lambda y, pull: pull(y))  # residuals are made outside of what is timed

    @jax.jit
    def both(x, lam):
        y, pull = jax.vjp(prox, x, lam)
        return y, pull(y)

    return forward, linearised, backward, both


def isotropic(case: Case) -> bool:
    """Whether it is about `prox_tv_isotropic`."""
    return isinstance(case.solver, jaxtv.FGP)


def max_gap(case: Case, x: jax.Array, lam: jax.Array, y: jax.Array) -> jax.Array:
    """The largest duality gap of the batch."""
    if isotropic(case):
        options = {"axes": case.axes, "solver": case.solver}
        gap = jaxtv.prox_tv_isotropic(x, lam, **options, return_info=True)[1].gap
    else:
        gap = jaxtv.duality_gap(x, y, lam, axes=case.axes)
    return jnp.max(gap)


def measure(case: Case, most: int = 100) -> dict[str, Any]:
    """Times of the passes of a case, `most` calls each."""
    size = int(np.prod(case.shape)) * jnp.dtype(case.dtype).itemsize
    inputs = [samples(case, seed) for seed in range(rotation(size, most))]
    lam = jnp.float32(case.lam)
    forward, linearised, backward, both = functions(case)
    y = forward(inputs[0], lam)
    gap = float(max_gap(case, inputs[0], lam, y))
    out: dict[str, Any] = {"case": case.name, "dtype": case.dtype, "max_gap": gap}
    for name, f in zip(PASSES, (forward, backward, both)):
        operands: list[tuple] = [(x, lam) for x in inputs]
        if name == "backward":
            operands = [linearised(*args) for args in operands]
        moved = nbytes(operands[0]) + nbytes(jax.eval_shape(f, *operands[0]))
        row = timed(f, operands, most)
        copy = copy_us(moved, most)
        row |= {"bytes": moved, "gb_s": moved / row["us"] / 1e3}
        out[name] = row | {"copy_us": copy, "copies": row["us"] / copy}
    return out


def achieved(row: dict[str, Any], unit: str, noise: float | None) -> float | None:
    """A row in the unit of its target; `noise`: the time of the typical case."""
    if unit == "× noise":
        return row["us"] / noise if noise else None
    return row["us"] if unit == "µs" else row["copies"]


def lines(case: Case, result: dict[str, Any], noise: float | None) -> list[str]:
    """The table's lines of a case."""
    out = []
    for name in PASSES:
        row, verdict = result[name], ""
        if name in case.targets:
            unit, most = case.targets[name]
            value = achieved(row, unit, noise)
            row["target"] = {"unit": unit, "at_most": most, "value": value}
            met = "?" if value is None else ("met" if value <= most else f"MISSED: {value:.3g}")
            verdict = f"≤ {most:g} {unit} {met}"
        out.append(
            f"{case.name:29s} {name:8s} {row['us']:10.1f} {row['gb_s']:7.0f} "
            f"{row['copies']:7.2f}  {row['clock']:8s} {verdict}".rstrip()
        )
    return out


HEADER = f"{'':29s} {'':8s} {'µs':>10s} {'GB/s':>7s} {'× copy':>7s}  {'clock':8s} target"


def paper_package(runs: int) -> dict[str, Any]:
    """Forward + backward of the paper's own PyTorch layer on Table 1's 8192 signals."""
    if importlib.util.find_spec("tv_opt_layers") is None:
        return {"error": "tv_opt_layers is not importable"}
    try:
        torch = importlib.import_module("torch")
        module = importlib.import_module("tv_opt_layers.layers.l1_tv_1d_layer")
        layer = module.L1TV1DLayer(lmbd_mode="learned", lmbd_init=1.0).cuda()
        batch = np.array(samples(CASES[0], 0)).reshape(8, 32, 32, 32)
        x = torch.from_numpy(batch).cuda().requires_grad_()
        times = []
        for _ in range(runs + 3):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            layer(x).sum().backward()
            end.record()
            torch.cuda.synchronize()
            times.append(1e3 * start.elapsed_time(end))
    except Exception as error:  # someone else's package: what it raises is its result
        return {"error": f"{type(error).__name__}: {error}"}
    return {"forward_backward_us": statistics.median(times[3:])}


def main() -> int:
    """Measure; 1 where a case could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=pathlib.Path, help="JSON file")
    parser.add_argument("--seconds", type=float, default=600, help="start no case after that")
    parser.add_argument("--platform", default="gpu", help="of JAX; cpu is for --smoke")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, few calls")
    options = parser.parse_args()
    if jax.default_backend() != options.platform:
        raise SystemExit(f"no {options.platform}: JAX runs on {jax.default_backend()}")
    start, most = time.perf_counter(), 5 if options.smoke else 100
    report: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "jaxtv": jaxtv.__version__,
        "smoke": options.smoke,
        "cases": {},
    }

    def write():
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(report, indent=1) + "\n")

    print(f"{report['device']}, jax {jax.__version__}, jaxtv {jaxtv.__version__}")
    print(HEADER, flush=True)
    failed = 0
    for case in map(smoke, CASES) if options.smoke else CASES:
        try:
            if time.perf_counter() - start > options.seconds:
                raise RuntimeError("not measured: out of time")
            result = measure(case, most)
            noise = report["cases"].get(NOISE, {}).get("forward", {}).get("us")
            table = lines(case, result, noise)
        except RuntimeError as error:  # XLA's errors too: the next case may well run
            result = {"error": str(error)}
            table = [f"{case.name:29s} ERROR {str(error).splitlines()[0][:80]}"]
            failed += 1
        report["cases"][case.name] = result
        print("\n".join(table), flush=True)
        write()
    report["paper"] = paper_package(runs=10)
    print(f"the paper's package, Table 1, forward + backward: {report['paper']}")
    write()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
