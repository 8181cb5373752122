"""Predicted times on an H100, as Markdown."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.gpu_model.costs import (
    GRID_EACH,
    GRID_ONCE,
    GRID_ROUND,
    GRID_ROUNDS,
    LATENCY,
    NEWTON_JOINS,
    Cost,
    apply_cost,
    chain_of,
    cycles_of,
    grid_cost,
    group_cost,
    image_cost,
    lanes_of,
    newton_cost,
    phases_of,
    rows_cost,
    windows_cost,
)
from benchmarks.gpu_model.sass import CYCLES, ROOT, Kernel, disassemble, occupancy
from benchmarks.gpu_model.simulate import (
    AT_ONCE,
    HALO,
    WARP_SIGNALS,
    Decomposed,
    decomposed,
    newton_iterations,
    noise_of_1024,
    trips_of,
    windows_trips,
)

SCHEDULERS, CLOCK, BANDWIDTH = 132 * 4, 1.7e9, 3.0e12  # Hz; bytes per second of a copy
SHAPES = {  # name: signals, n, contiguous; λ = 1
    "64x64x64x64, last axis": (64**3, 64, True),
    "64x64x64x64 NHWC, axis -3": (64**3, 64, False),
    "32x256x56x56, last axis": (32 * 256 * 56, 56, True),
    "many of n = 32, last axis": (2**18, 32, True),
    "many of n = 32, strided": (2**18, 32, False),
}


def rows_markdown(single: Kernel, half: Kernel) -> list[str]:
    """Predicted times of prox_rows and what they are made of."""
    lines = [
        f"`{single.name}` and `{half.name}`, sm_90:",
        f"{single.registers} and {half.registers} registers. Instructions per sample, or per",
        "trip of the taut string, both sides of its branches; cycles of the busiest pipe of a",
        "scheduler in brackets.",
        "",
        "| samples | axis | " + " | ".join(phases_of(single, True)) + " |",
        "|---|---|" + "---|" * len(phases_of(single, True)),
    ]
    for name, kernel in (("float32", single), ("bfloat16", half)):
        for axis, contiguous in (("last (a run of memory)", True), ("any other", False)):
            cells = []
            for loop, samples in phases_of(kernel, contiguous).values():
                busiest = max(CYCLES[p] * c for p, c in loop.counts().items() if p in CYCLES)
                cells.append(f"{len(loop.body) / samples:.1f} ({busiest / samples:.1f})")
            lines.append(f"| {name} | {axis} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "τ: trips per sample of a warp's slowest lane on the benchmarks' data; the share of them",
        "in which some lane cuts, and that of samples at which a segment ends, are in the times.",
        "Warps: per",
        "multiprocessor, by registers and shared memory. Time: the larger of instructions issued",
        f"(132 × 4 schedulers at {CLOCK / 1e9:.1f} GHz), the busiest pipe, and 8 bytes per sample",
        f"(bfloat16: 4) at {BANDWIDTH / 1e12:.1f} TB/s, the copy. Latency, which rules small",
        "batches, is not.",
        "",
        "| shape | τ | warps | instructions per sample | busiest pipe | µs | × copy |",
        "|---|---|---|---|---|---|---|",
    ]
    cases = [(shape, single, 8, of) for shape, of in SHAPES.items()]
    cases += [(f"{s}, bfloat16", half, 4, of) for s, of in SHAPES.items() if s.startswith("64x")]
    for shape, kernel, moved, (signals, n, contiguous) in cases:
        trips = trips_of(n, 1.0)
        cost = rows_cost(kernel, contiguous, trips)
        issued, cycles, pipe = cycles_of(cost)
        lanes = lanes_of(n, 1 if contiguous else 8)
        warps = occupancy(kernel.registers, lanes, 5 * n * (lanes | contiguous))
        samples = signals * n
        seconds = samples / 32 * max(issued, cycles) / SCHEDULERS / CLOCK
        copy = moved * samples / BANDWIDTH
        lines.append(
            f"| {shape} | {trips.per_sample:.2f} | {warps} | {issued:.0f} | {cycles:.0f} ({pipe}) "
            f"| {1e6 * max(seconds, copy):.0f} | {max(seconds / copy, 1):.1f} |"
        )
    return lines


KERNELS = {  # kernel: its file
    "prox_rows<float, false>": "prox1d",
    "prox_rows<BFloat16, false>": "prox1d",
    "prox_group<float, 4>": "prox1d",
    "prox_windows<float, false>": "prox1d",
    "image_dykstra<float, false>": "dykstra",
    "apply<float, false, Pulling<float,": "segments",
    "newton_group<float, 1>": "newton",
    **dict.fromkeys((*GRID_ROUND, *GRID_ONCE), "prox1d_grid"),
}
# Of a pass of Dykstra by the 1D kernels: `subtract` and `settle` read two floats and write one.
AROUND = 24
GRID_LAUNCHES, LAUNCH = 85, 2e-6  # seconds each


# Noisy signals that windows do not solve; test_windows_are_certified_and_exact allows 0.03.
UNSOLVED = 0.002


class Row(NamedTuple):
    """A line of the table: what a warp issues for `of_warp` samples; seconds that come on top."""

    shape: str
    kernel: str
    registers: int | str
    samples: int
    moved: int  # bytes of a sample
    of_warp: float
    cost: Cost
    more: float = 0.0

    def __str__(self) -> str:
        issued, cycles, pipe = cycles_of([(x, t * 32 / self.of_warp) for x, t in self.cost])
        seconds = self.samples / 32 * max(issued, cycles) / SCHEDULERS / CLOCK + self.more
        copies = seconds * BANDWIDTH / self.moved / self.samples
        return (
            f"| {self.shape} | `{self.kernel}` | {self.registers} | {issued:.0f} "
            f"| {cycles:.0f} ({pipe}) | {1e6 * seconds:.0f} | {copies:.1f} |"
        )


def others_markdown(
    group: Kernel,
    windows: Kernel,
    image: Kernel,
    pull: Kernel,
    newton: Kernel,
    steps: dict[str, Kernel],
) -> list[str]:
    """Predicted times of the other kernels."""
    k = np.arange(1024)
    noise = noise_of_1024()
    smooth = {"ramps": (1e-2 * k, 1e3), "sines": (1e2 * np.sin(6 * np.pi * k / 1024), 1e2)}
    trips, iterations = trips_of(64, 0.1), newton_iterations(32, 1.0)

    def with_group(trips: float, cutting: float, done: Decomposed, share: float) -> Cost:
        again = group_cost(windows, 1024, done, threads=32, depth=2)
        cost = windows_cost(windows, trips, cutting, noise.steps)
        return cost + [(loop, t * share * WARP_SIGNALS) for loop, t in again]

    usual = with_group(noise.trips, noise.cutting, noise.decomposed, UNSOLVED)

    def windows_row(shape: str, samples: int, cost: Cost, more: float = 0.0) -> Row:
        each = 1024 * WARP_SIGNALS
        return Row(shape, "prox_windows", windows.registers, samples, 8, each, cost, more)

    photos, passes = 24 << 20, 8  # samples; of K = 4
    around = passes * (photos * AROUND / BANDWIDTH + 4 * LAUNCH)
    table = [
        windows_row(f"8x3x1024x1024 forward, {noise.trips:.2f} trips", photos, usual),
        windows_row("8x3x1024x1024 2D K = 4", photos, [(x, passes * t) for x, t in usual], around),
        windows_row(f"8192x1024, noise, {noise.trips:.2f} trips", 8 << 20, usual),
    ]
    for name, (signal, lam) in smooth.items():
        done = decomposed(signal[None], lam)
        cost = with_group(*windows_trips(signal, lam), done, 1.0)
        table.append(windows_row(f"8192x1024, {name}, {done.rounds[0]} rounds", 8 << 20, cost))
    cost = group_cost(group, 1024, noise.decomposed, threads=128)
    rounds = noise.decomposed.rounds
    name = f"as above by decomposition, {rounds.mean():.1f} rounds"
    table.append(Row(name, "prox_group", group.registers, 8 << 20, 8, 256, cost))
    for shape, n, samples, of_warp in (  # two warps have the lines of an image
        ("64x64x64x64", 64, 64**4, 64 * 32),
        ("32x256x56x56", 56, 2**13 * 56**2, 56 * 28),
    ):
        name = f"{shape} 2D K = 4, {trips.per_sample:.2f} trips"
        cost = image_cost(image, n, trips, passes)
        table.append(Row(name, "image_dykstra", image.registers, samples, 8, of_warp, cost))
    # Rows and parts of the backward: split_of in cuda/segments.cu.
    for shape, samples, of_warp, rows, parts, contiguous in (
        ("64x64x64x64 backward", 64**4, 32 * 12.8, 13, 5, True),
        ("64x64x64x64 NHWC backward, axis -3", 64**4, 32 * 12.8, 13, 5, False),
        ("32x256x56x56 backward", 2**13 * 56**2, 32 * 14, 14, 4, True),
        ("8x3x1024x1024 backward", photos, 32 * 14.8, 15, 69, True),
    ):
        cost = apply_cost(pull, rows, parts, contiguous=contiguous)
        table.append(Row(shape, "apply", pull.registers, samples, 12, of_warp, cost))
    for name, samples in (("1e6", 10**6), ("1e8", 10**8)):
        cost, more = grid_cost(steps), (GRID_LAUNCHES - 1) * LAUNCH
        each = 32 * GRID_EACH
        table.append(Row(f"one signal of {name}", "prox_grid", "", samples, 8, each, cost, more))
    name = f"256x32x32 projected Newton, {iterations:.1f} iterations"
    cost = newton_cost(newton, iterations)
    table.append(Row(name, "newton_group", newton.registers, 2**18, 8, 32, cost))
    late = 100 * float((rounds > GRID_ROUNDS).mean())
    return [
        "",
        "## Other kernels",
        "",
        "Rounds of the decomposition: mean over signals of the benchmarks' data. Trips of the taut",
        "string: per sample, of a warp's worst lane; in 2D in the first of 8 passes (in later ones",
        f"up to 6 % more). Windows see {HALO} samples more on either side, which are in their",
        f"trips; {100 * UNSOLVED} % of the noisy signals are decomposed too, by a warp each, and",
        "all ramps and sines. There the sides of a branch on a cut count as often as some lane",
        "of a warp has one (simulated). Loops but for these, the taut string's and those of values",
        "in 2D are counted whole: both sides of a branch, the remainders of unrolled loops,",
        "operands that are not there. Not in them: waiting. Doubles take 2 cycles of a scheduler,",
        f"floats 1. One signal: the kernels of {GRID_ROUNDS} rounds, {GRID_LAUNCHES} launches of",
        f"{1e6 * LAUNCH:.0f} µs; of noise, {late:.1f} % of pieces of 1,024 samples take more and",
        "leave something to `g_finish`. Images of 1024² go pass by pass: windows, and",
        f"{AROUND} bytes per sample and pass by the kernels around them. Newton: {NEWTON_JOINS}",
        "rounds of joining ties and one step size per iteration.",
        "",
        "| shape | kernel | registers | instructions per sample | busiest pipe | µs | × copy |",
        "|---|---|---|---|---|---|---|",
        *map(str, table),
    ]


GLOBAL = 600


def latency_markdown(rows: Kernel, pull: Kernel) -> list[str]:
    """Bounds of the time of 256x32x32, where a scheduler has one warp, or two backward."""
    n, parts = 32, 3  # threads of a signal backward, 11 rows each (split_of in cuda/segments.cu)
    lines = [
        "",
        "## 256x32x32: latency",
        "",
        "A warp has a scheduler to itself; backward two share one. At least: their instructions,",
        "one a cycle. At most: each waits for the one before (cycles assumed:",
        ", ".join(f"{c} {p}" for p, c in LATENCY.items()) + ").",
        f"Both: {GLOBAL} cycles for each wait on global memory. Launches come on top.",
        "",
        "| pass | at least, µs | at most, µs |",
        "|---|---|---|",
    ]
    forward = [(x, n * times) for x, times in rows_cost(rows, True, trips_of(n, 1.0))]
    backward = apply_cost(pull, 11, parts, contiguous=True)
    # Loads come in batches of 8: y, then the cotangent; n samples by `parts` threads backward.
    passes = (("forward", forward, 1, n / 8), ("backward", backward, 2, 2 * np.ceil(n / parts / 8)))
    for name, cost, warps, waits in passes:
        bounds = (warps * cycles_of(cost)[0], chain_of(cost))
        least, most = (1e6 * (c + waits * GLOBAL) / CLOCK for c in bounds)
        lines.append(f"| {name} | {least:.0f} | {most:.0f} |")
    return lines


def crossover_markdown(rows: Kernel, windows: Kernel) -> list[str]:
    """Many strided signals of noise by either kernel: where Direct changes."""
    samples = 8 << 20

    def line(kernel: str, n: int, lanes: int, warps: int, cost: Cost, of_warp: float) -> str:
        bounds = (cycles_of(cost)[0], chain_of(cost) / (warps / 4))
        least, most = (1e6 * samples * c / of_warp / SCHEDULERS / CLOCK for c in bounds)
        return f"| {n} | `{kernel}` | {lanes} | {warps} | {least:.0f} | {most:.0f} |"

    lines = [
        "",
        "## Where one thread per signal ends",
        "",
        f"{samples >> 20} Mi samples in float32 signals of n along any axis but the last (tiles of",
        "at least 8 lanes, whose neighbours share sectors). At least: the instructions. At most:",
        "the warps of a multiprocessor side by side, each waiting for all of its own (as below).",
        "",
        "| n | kernel | lanes of a warp | warps | at least, µs | at most, µs |",
        "|---|---|---|---|---|---|",
    ]
    for n in (256, 512, 1024):
        lanes = lanes_of(n, 8)
        cost = [(x, n * times) for x, times in rows_cost(rows, False, trips_of(n, 1.0))]
        warps = occupancy(rows.registers, lanes, 5 * n * lanes)
        lines.append(line("prox_rows", n, lanes, warps, cost, n * lanes))
    noise = noise_of_1024()
    cost = windows_cost(windows, noise.trips, noise.cutting, noise.steps)
    warps = occupancy(windows.registers, 64, 9 * AT_ONCE * 1025)
    return [*lines, line("prox_windows", 1024, 32, warps, cost, 1024 * WARP_SIGNALS)]


def markdown(arch: str) -> str:
    """All predictions."""
    files = {f: disassemble(ROOT / f"cuda/{f}.cu", arch) for f in dict.fromkeys(KERNELS.values())}
    found = {
        name: next(k for k in files[file] if k.name.startswith(name))
        for name, file in KERNELS.items()
    }
    rows, half, group, windows, image, pull, newton, *_ = found.values()
    lines = [
        "# What the SASS says about times on an H100",
        "",
        "Generated by `python -m benchmarks.gpu_model --markdown`; **predicted, not measured**.",
        "",
        "## One thread per signal",
        "",
    ]
    lines += rows_markdown(rows, half) + others_markdown(group, windows, image, pull, newton, found)
    lines += crossover_markdown(rows, windows)
    return "\n".join(lines + latency_markdown(rows, pull))
