"""Instructions of every loop of a CUDA kernel, from its machine code (SASS); needs no GPU.

    python scripts/sass_report.py [--kernel REGEX] [FILE.cu ...]
    python scripts/sass_report.py --markdown > docs/gpu-model.md

The second predicts times of the kernel of one thread per signal on an H100: instructions per
sample from the loops, trips of the taut string from a simulation on the benchmarks' data.
Needs nvcc and nvdisasm (of the toolkit, or `pip install nvidia-cuda-nvdisasm`).
"""

from __future__ import annotations

import argparse
import collections
import functools
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The pipe of an operation, by the start of its name; what is not here (control, uniform datapath,
# special registers) only takes an issue slot. The first match counts.
PIPES = {
    "fp64": ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX"),
    "special": ("MUFU", "F2F", "F2I", "I2F", "FRND", "POPC", "FLO", "BREV"),
    "memory": ("LDS", "STS", "LDG", "STG", "LD", "ST", "SHFL", "ATOM", "RED"),
    "fp32": ("FADD", "FMUL", "FFMA", "HADD", "HMUL", "HFMA", "IMAD"),
    "integer": (
        "FMNMX",
        "FSETP",
        "FSEL",
        "FSET",
        "FCHK",
        "ISETP",
        "IADD",
        "VIADD",
        "LEA",
        "LOP",
        "IMNMX",
        "VIMNMX",
        "IABS",
        "PLOP",
        "SHF",
        "SEL",
        "SGXT",
        "PRMT",
        "MOV",
        "VOTE",
    ),
}
# Cycles that one warp instruction keeps a pipe of one of the four schedulers of an H100 busy
# (CUDA programming guide, throughput of arithmetic instructions, 9.0; `integer` is its ALU pipe).
CYCLES = {"fp64": 2, "special": 8, "memory": 4, "fp32": 1, "integer": 2}


class Instruction(NamedTuple):
    """One line of SASS. `target`: index of the instruction it may branch to."""

    name: str
    predicated: bool
    target: int | None
    place: tuple[str, int]  # file and line of the innermost inlined function

    @property
    def pipe(self) -> str:
        """Its pipe, "control" where it has none."""
        starts = ((p, s) for p, names in PIPES.items() for s in names)
        return next((p for p, s in starts if self.name.startswith(s)), "control")


class Loop(NamedTuple):
    """A natural loop: its instructions without those of the loops inside it."""

    function: str  # most of its instructions come from it
    depth: int
    body: list[Instruction]

    def counts(self) -> collections.Counter:
        """Instructions per pipe."""
        return collections.Counter(i.pipe for i in self.body)


class Kernel(NamedTuple):
    """A kernel and its code."""

    name: str
    registers: int
    instructions: list[Instruction]


def find_nvdisasm() -> str:
    """Path of nvdisasm: on PATH, beside nvcc, or from the PyPI wheel.

    Raises:
        FileNotFoundError: where it is in none of these places.
    """
    nvcc = shutil.which(os.environ.get("CUDACXX", "nvcc"))
    places = [pathlib.Path(nvcc).resolve().parent] if nvcc else []
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or []:
        places += sorted(pathlib.Path(folder).glob("*/bin"))
    found = shutil.which("nvdisasm") or shutil.which(
        "nvdisasm", path=os.pathsep.join(map(str, places))
    )
    if not found:
        raise FileNotFoundError("nvdisasm: not found; pip install nvidia-cuda-nvdisasm")
    return found


def _run(command: list[str], *, messages: bool = False) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return done.stderr if messages else done.stdout


def disassemble(source: pathlib.Path, arch: str) -> list[Kernel]:
    """Compile one .cu file and parse the SASS of its kernels.

    Raises:
        RuntimeError: with the tool's messages, where one fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        cubin = f"{folder}/kernels.cubin"
        includes = [f"-I{ROOT / 'include'}", f"-I{ROOT / 'cuda'}"]
        nvcc = os.environ.get("CUDACXX", "nvcc")
        flags = ["-std=c++20", f"-arch={arch}", "-O3", "-lineinfo", "-cubin", "-Xptxas=-v"]
        log = _run([nvcc, *flags, *includes, "-o", cubin, str(source)], messages=True)
        text = _run([find_nvdisasm(), "--print-line-info-inline", cubin])
    registers = dict(
        re.findall(r"Compiling entry function '(\S+)'.*?Used (\d+) registers", log, re.S)
    )
    names = re.findall(r"^\.text\.(\S+):$", text, re.M)
    readable = dict(zip(names, _run(["c++filt", *names]).splitlines(), strict=True))
    sections = re.split(r"^\t?\.section\s+", text, flags=re.M)
    kernels = []
    for section in sections:
        start = re.match(r"\.text\.([^,\s]+)", section)
        if start:
            name = re.sub(r"\w+::|\(anonymous namespace\)::|^void ", "", readable[start[1]])
            count = int(registers[start[1]])
            kernels.append(Kernel(name.split("(")[0], count, _parse(section)))
    return kernels


def _parse(section: str) -> list[Instruction]:
    labels, lines, place = {}, [], ("", 0)
    fresh = True  # the next comment is the innermost place
    for line in section.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            labels[label[1]] = len(lines)
        elif comment := re.match(r'\s*//## File "(.*?)", line (\d+)', line):
            if fresh:
                place = (pathlib.Path(comment[1]).name, int(comment[2]))
            fresh = False
        elif code := re.match(r"\s*/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z0-9][\w.]*)(.*);", line):
            jump = re.search(r"`\((\.L_\w+)\)", code[3])
            lines.append((code[2], bool(code[1]), jump[1] if jump else None, place))
            fresh = True
    return [
        Instruction(name, predicated, labels.get(jump) if name.startswith("BRA") else None, place)
        for name, predicated, jump, place in lines
    ]


def _blocks(code: list[Instruction]) -> tuple[list[range], list[list[int]]]:
    """Basic blocks and their successors."""
    ends = {i + 1 for i, c in enumerate(code) if c.name.startswith(("BRA", "EXIT", "RET", "CALL"))}
    starts = sorted({0} | ends | {c.target for c in code if c.target is not None})
    starts = [s for s in starts if s < len(code)]
    blocks = [range(a, b) for a, b in zip(starts, [*starts[1:], len(code)], strict=True)]
    at = {b.start: i for i, b in enumerate(blocks)}
    follow = []
    for i, block in enumerate(blocks):
        last = code[block[-1]]
        onwards = last.predicated or not last.name.startswith(("BRA", "EXIT", "RET"))
        following = [i + 1] if onwards and i + 1 < len(blocks) else []
        follow.append(following + ([at[last.target]] if last.target is not None else []))
    return blocks, follow


def _dominators(follow: list[list[int]]) -> list[set[int]]:
    """For each block the blocks on every path to it (itself too)."""
    before = collections.defaultdict(list)
    for i, targets in enumerate(follow):
        for t in targets:
            before[t].append(i)
    dominators = [{0}] + [set(range(len(follow))) for _ in follow[1:]]
    changed = True
    while changed:
        changed = False
        for i in range(1, len(follow)):
            paths = [dominators[b] for b in before[i]]
            new = {i} | (set.intersection(*paths) if paths else set())
            changed |= new != dominators[i]
            dominators[i] = new
    return dominators


def _loop_blocks(follow: list[list[int]]) -> dict[int, set[int]]:
    """Header of each natural loop -> its blocks."""
    dominators = _dominators(follow)
    before = collections.defaultdict(list)
    for i, targets in enumerate(follow):
        for t in targets:
            before[t].append(i)
    loops = collections.defaultdict(set)
    for i, targets in enumerate(follow):
        for header in set(targets) & dominators[i]:
            body, rest = {header}, [i]
            while rest:
                b = rest.pop()
                if b not in body:
                    body.add(b)
                    rest += before[b]
            loops[header] |= body
    return dict(loops)


def loops_of(kernel: Kernel) -> list[Loop]:
    """The loops in the order of their code."""
    blocks, follow = _blocks(kernel.instructions)
    bodies = _loop_blocks(follow)
    result = []
    for header, body in sorted(bodies.items()):
        inner = set().union(*(b for h, b in bodies.items() if h != header and b < body))
        code = [kernel.instructions[i] for b in sorted(body - inner) for i in blocks[b]]
        functions = collections.Counter(_function(*c.place) for c in code)
        depth = sum(header in b for b in bodies.values())
        result.append(Loop(functions.most_common(1)[0][0], depth, code))
    return result


@functools.cache
def _function(file: str, line: int) -> str:
    """Name of the function of ours that a line lies in."""
    path = next((p for d in ("include/jaxtv", "cuda") if (p := ROOT / d / file).exists()), None)
    for text in reversed(path.read_text().splitlines()[:line] if path else []):
        if name := re.match(
            r"(?:JAXTV_HD|JAXTV_DEVICE|__global__|__device__|    prox)\b[^(]*?(\w+)\(", text
        ):
            return name[1]
    return "?"


def occupancy(registers: int, threads: int, shared: int) -> int:
    """Warps per multiprocessor of compute capability 9.0."""
    warps = -(-threads // 32)
    by_registers = 65536 // (-(-registers * 32 // 256) * 256) // 4 * 4 // warps
    by_shared = 228 * 1024 // (-(-shared // 128) * 128 + 1024)
    return warps * min(32, 64 // warps, by_registers, by_shared)


# ---- the model of prox_rows<float, one λ> on an H100 ----

SCHEDULERS, CLOCK, BANDWIDTH = 132 * 4, 1.7e9, 3.0e12  # Hz; bytes per second of a copy
SHAPES = {  # name: signals, n, contiguous, λ
    "64x64x64x64, last axis": (64**3, 64, True, 1.0),
    "64x64x64x64 NHWC, axis -3": (64**3, 64, False, 1.0),
    "32x256x56x56, last axis": (32 * 256 * 56, 56, True, 1.0),
    "many of n = 32, last axis": (2**18, 32, True, 1.0),
    "many of n = 32, strided": (2**18, 32, False, 1.0),
}


def trips_of(n: int, lam: float, signals: int = 1024, seed: int = 0) -> float:
    """Trips per sample of the slowest of 32 neighbouring signals, mean over such warps.

    The data are those of benchmarks/gpu.py: a step of 1 and noise of 0.5. The same steps as
    include/jaxtv/certified.hpp, all signals at once.
    """
    rng = np.random.default_rng(seed)
    x = 0.5 * rng.normal(size=(signals, n)) + (np.arange(n) >= n / 2)
    row = np.arange(signals)
    at, trips = np.ones(signals, int), np.zeros(signals, int)
    low, high = np.zeros(signals, int), np.zeros(signals, int)
    vmin, vmax, count = x[:, 0] - lam, x[:, 0] + lam, np.ones(signals)
    p, q = np.zeros(signals), np.zeros(signals)
    while (live := at < n).any():
        trips += live
        i = np.minimum(at, n - 1)
        a, b = p + (x[row, i] - vmin), q + (x[row, i] - vmax)
        limit = np.where(i < n - 1, -2 * lam, -lam)
        down, up = live & (a < limit), live & (b > -limit)
        cut = down | up
        i = np.where(cut, np.where(down, low, high) + 1, i)
        first = x[row, np.minimum(i, n - 1)]
        vmin = np.where(cut, first + np.where(down, 0, -2 * lam), vmin)
        vmax = np.where(cut, vmin + 2 * lam, vmax)
        a, b, count = (np.where(cut, 0, v) for v in (a, b, count))
        count = count + 1
        vmin, vmax = vmin + np.maximum(a, 0) / count, vmax + np.minimum(b, 0) / count
        low, high = np.where(a >= 0, i, low), np.where(b <= 0, i, high)
        p, q = np.minimum(a, 0), np.maximum(b, 0)
        at = np.where(live, i + 1, at)
    return float(trips.reshape(-1, 32).max(axis=1).mean() / n)


def phases_of(kernel: Kernel, contiguous: bool) -> dict[str, tuple[Loop, int]]:
    """The loops that every sample goes through, and the samples of one iteration of each."""

    def count(loop: Loop, start: str) -> int:
        return sum(i.name.startswith(start) for i in loop.body)

    def of(function: str, marker: str, but: str = "none") -> list[Loop]:
        loops = [x for x in loops_of(kernel) if x.function == function and count(x, marker)]
        return sorted((x for x in loops if not count(x, but)), key=lambda x: len(x.body))

    def moved(marker: str) -> Loop:
        # Whole batches; least is done where threads walk along signals, then for a run of memory.
        batches = [x for x in loops_of(kernel) if x.depth == 2 and count(x, marker) == 8]
        return sorted(batches, key=lambda x: len(x.body))[1 if contiguous else 0]

    clear = of("prox_certified", "STS.U8", "LDS")[-1]
    spread = of("prox_certified", "LDS")[-1]
    return {
        "load": (moved("LDG"), 8),
        "clear": (clear, count(clear, "STS")),
        "trip": (of("taut_string_float", "MUFU")[0], 1),
        "values": (of("certified_values", "MUFU")[0], 1),
        "spread": (spread, count(spread, "STS")),
        "store": (moved("STG"), 8),
    }


def markdown(kernel: Kernel) -> str:
    """The predicted times and what they are made of."""
    lines = [
        "# What the SASS says about one thread per signal on an H100",
        "",
        "Generated by `python scripts/sass_report.py --markdown`; **predicted, not measured**.",
        "",
        f"`{kernel.name}`, sm_90: {kernel.registers} registers. Instructions per sample, or per",
        "trip of the taut string; cycles of the busiest pipe of a scheduler in brackets.",
        "",
        "| axis | " + " | ".join(phases_of(kernel, True)) + " |",
        "|---|" + "---|" * len(phases_of(kernel, True)),
    ]
    for name, contiguous in (("last (a run of memory)", True), ("any other", False)):
        cells = []
        for loop, samples in phases_of(kernel, contiguous).values():
            busiest = max(CYCLES[p] * c for p, c in loop.counts().items() if p in CYCLES)
            cells.append(f"{len(loop.body) / samples:.1f} ({busiest / samples:.1f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "τ: trips per sample of a warp's slowest lane on the benchmarks' data. Warps: per",
        "multiprocessor, by registers and shared memory. Time: the larger of instructions issued",
        f"(132 × 4 schedulers at {CLOCK / 1e9:.1f} GHz), the busiest pipe, and 8 bytes per sample",
        f"at {BANDWIDTH / 1e12:.1f} TB/s, the copy. Latency, which rules small batches, is not.",
        "",
        "| shape | τ | warps | instructions per sample | busiest pipe | µs | × copy |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (signals, n, contiguous, lam) in SHAPES.items():
        trips = trips_of(n, lam)
        issued, busy = 0.0, dict.fromkeys(CYCLES, 0.0)
        for phase, (loop, samples) in phases_of(kernel, contiguous).items():
            times = (trips if phase == "trip" else 1) / samples
            issued += times * len(loop.body)
            for pipe, cycles in CYCLES.items():
                busy[pipe] += times * cycles * loop.counts()[pipe]
        cycles, pipe = max((c, p) for p, c in busy.items())
        lanes = min(128, 20 * 1024 // 5 // (n + 1) // 32 * 32)  # as tiling_of in cuda/tile.cuh
        warps = occupancy(kernel.registers, lanes, 5 * n * (lanes | contiguous))
        samples = signals * n
        seconds = samples / 32 * max(issued, cycles) / SCHEDULERS / CLOCK
        copy = 8 * samples / BANDWIDTH
        lines.append(
            f"| {name} | {trips:.2f} | {warps} | {issued:.0f} | {cycles:.0f} ({pipe}) | "
            f"{1e6 * max(seconds, copy):.0f} | {max(seconds / copy, 1):.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the loops or the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--kernel", default="prox_rows<float, false>")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("sources", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    for source in args.sources or [ROOT / "cuda/prox1d.cu"]:
        for kernel in disassemble(source, args.arch):
            if not re.search(args.kernel, kernel.name):
                continue
            if args.markdown:
                print(markdown(kernel))
                continue
            size = len(kernel.instructions)
            print(f"{kernel.name}: {kernel.registers} registers, {size} instructions")
            for loop in loops_of(kernel):
                counts = loop.counts()
                pipes = ", ".join(f"{counts[p]} {p}" for p in [*CYCLES, "control"] if counts[p])
                print(f"{'  ' * loop.depth}{loop.function}: {len(loop.body)} ({pipes})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
