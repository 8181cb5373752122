"""Instructions of every loop of a CUDA kernel, from its machine code (SASS); needs no GPU.

    python scripts/sass_report.py [--kernel REGEX] [FILE.cu ...]
    python scripts/sass_report.py --markdown > docs/gpu-model.md

The second predicts times on an H100: instructions per sample from the loops, trips of the taut
string and rounds of the decomposition from simulations on the benchmarks' data.
Needs jaxtv, nvcc and nvdisasm (of the toolkit, or `pip install nvidia-cuda-nvdisasm`).
"""

from __future__ import annotations

import argparse
import collections
import functools
import importlib.util
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy as np

import jaxtv

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
    sides: tuple[list[Instruction], ...] = ()  # of them, those that not every round goes through

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
    reached, rest = {0}, [0]
    while rest:
        new = set(follow[rest.pop()]) - reached
        reached |= new
        rest += new
    # What WARPSYNC enters has no branch to it, and would hide the loops that it comes back to.
    follow = [targets if i in reached else [] for i, targets in enumerate(follow)]
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
        sides = tuple(
            [kernel.instructions[i] for b in side for i in blocks[b]]
            for side in _sides(follow, header, body - inner)
        )
        result.append(Loop(functions.most_common(1)[0][0], depth, code, sides))
    return result


def _sides(follow: list[list[int]], header: int, body: set[int]) -> list[list[int]]:
    """Blocks of a loop that are not on every way through it, in pieces that hang together."""
    index = {b: i for i, b in enumerate([header, *sorted(body - {header})])}
    inside = [[index[t] for t in follow[b] if t in index] for b in index]
    dominators = _dominators([[t for t in targets if t != 0] for targets in inside])
    back = [dominators[i] for i, targets in enumerate(inside) if 0 in targets]
    always = set.intersection(*back) if back else set(range(len(index)))
    rest = {b: i for b, i in index.items() if i not in always}
    pieces: list[list[int]] = []
    while rest:
        piece, new = [], [next(iter(rest))]
        while new:
            b = new.pop()
            i = rest.pop(b, None)
            if i is not None:
                piece.append(b)
                new += [c for c, j in rest.items() if j in inside[i] or i in inside[j]]
        pieces.append(sorted(piece))
    return pieces


@functools.cache
def _function(file: str, line: int) -> str:
    """Name of the function of ours that a line lies in."""
    path = next((p for d in ("include/jaxtv", "cuda") if (p := ROOT / d / file).is_file()), None)
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


# ---- the model of an H100 ----

SCHEDULERS, CLOCK, BANDWIDTH = 132 * 4, 1.7e9, 3.0e12  # Hz; bytes per second of a copy
SHAPES = {  # name: signals, n, contiguous; λ = 1
    "64x64x64x64, last axis": (64**3, 64, True),
    "64x64x64x64 NHWC, axis -3": (64**3, 64, False),
    "32x256x56x56, last axis": (32 * 256 * 56, 56, True),
    "many of n = 32, last axis": (2**18, 32, True),
    "many of n = 32, strided": (2**18, 32, False),
}


def noisy_steps(signals: int, n: int) -> np.ndarray:
    """Data as in benchmarks/gpu.py: a step of 1 and noise of 0.5."""
    return 0.5 * np.random.default_rng(0).normal(size=(signals, n)) + (np.arange(n) >= n / 2)


class Trips(NamedTuple):
    """Of the taut string, in a warp of 32 neighbouring signals, mean over warps."""

    per_sample: float  # of the worst lane
    cutting: float  # the share of these in which some lane cuts
    ends: float  # the share of samples at which some signal is cut at last


@functools.cache
def trips_of(n: int, lam: float, signals: int = 1024) -> Trips:
    """On noisy steps."""
    return string_of(noisy_steps(signals, n), lam)


def string_of(x: np.ndarray, lam: float) -> Trips:
    """The same steps as include/jaxtv/certified.hpp, all rows at once, but without a budget."""
    signals, n = x.shape
    row = np.arange(signals)
    at, trips = np.ones(signals, int), np.zeros(signals, int)
    cutting, cuts = np.zeros(signals // 32), np.zeros((signals, n), bool)
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
        cutting += cut.reshape(-1, 32).any(axis=1)
        cuts[cut, np.where(down, low, high)[cut]] = True
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
    worst = trips.reshape(-1, 32).max(axis=1)
    ends = cuts.reshape(-1, 32, n).any(axis=1)
    return Trips(*(float(v) for v in (worst.mean() / n, (cutting / worst).mean(), ends.mean())))


class Decomposed(NamedTuple):
    """What the decomposition of signals (cuda/rounds.cuh, but for ties) does."""

    rounds: np.ndarray  # of each signal
    starts: np.ndarray  # which samples start a segment; the place behind the last does too
    cutting: float  # of the steps of a round, how many have a cut in some lane after it


def decomposed(x: np.ndarray, lam: float) -> Decomposed:
    """Decomposes each row by a warp."""
    signals, n = x.shape
    each = -(-n // 32) | 1  # samples of a lane
    lanes = np.zeros((signals, 32 * each), bool)
    shares = []
    jump = np.zeros((signals, n + 1), int)  # before each sample; 2: not a jump, but an end
    jump[:, 0] = jump[:, n] = 2
    rounds, going = np.zeros(signals, int), np.ones(signals, bool)
    while going.any():
        rounds += going
        dual = lam * np.where(jump == 2, 0, jump)
        mean = np.empty_like(x)
        for row, ends in enumerate(jump != 0):
            edges = np.flatnonzero(ends)
            size = np.diff(edges)
            total = np.add.reduceat(x[row], edges[:-1]) + np.diff(dual[row, edges])
            mean[row] = np.repeat(total / size, size)
        by, message = mean - x, np.empty_like(x)
        last = np.zeros(signals)
        for i in range(n):
            start = np.where(jump[:, i] != 0, dual[:, i], np.clip(last, -lam, lam))
            message[:, i] = last = start + by[:, i]
        slack = 1e-12 * (lam + abs(mean) + abs(x))
        label, new = np.zeros(signals, int), np.zeros_like(jump)
        for i in reversed(range(n)):
            end = jump[:, i + 1] != 0
            own = np.where(message[:, i] > lam + slack[:, i], 0, label)
            own = np.where(message[:, i] < -lam - slack[:, i], 1, own)
            own = np.where(end, message[:, i] - dual[:, i + 1] < -slack[:, i], own)
            new[:, i + 1] = np.where(end, 0, label - own)
            label = own
        jump += new
        lanes[:, : n - 1] = jump[:, 1:n] != 0
        shares.append(lanes[going].reshape(-1, 32, each).any(axis=1).mean())
        going = new.any(axis=1)
    return Decomposed(rounds, jump != 0, float(np.mean(shares)))


WINDOW, HALO, AT_ONCE, WARP_SIGNALS = 65, 48, 4, 2  # of cuda/windows.cuh, signals of n = 1024


def windows_of(starts: np.ndarray) -> np.ndarray:
    """Of a warp's worst window: steps of the three searches for cuts, and samples to certify.

    As certify_window in cuda/windows.cuh; mean over warps.
    """
    signals, n = starts.shape[0], starts.shape[1] - 1
    steps = []
    for row in starts:
        cuts = np.flatnonzero(row) - 1  # the edges, from -1 to n - 1
        for begin in range(0, n, WINDOW):
            end = min(begin + WINDOW, n)
            before = cuts[cuts < begin].max()
            inside = cuts[(cuts >= begin) & (cuts < end)]
            if inside.size == 0:
                steps.append((begin - before, end - begin, 0, 0))
                continue
            last = inside.max()
            following = min(cuts[cuts > last], default=last)
            steps.append((begin - before, end - last, following - last, following - before))
    return np.reshape(steps, (signals // WARP_SIGNALS, -1, 4)).max(axis=1).mean(axis=0)


class Noise(NamedTuple):
    """The benchmarks' noisy signals of 1,024 samples, by decomposition and by windows."""

    decomposed: Decomposed
    steps: np.ndarray  # windows_of
    trips: float  # per sample, as a window sees more than it has
    cutting: float


SEEN = WINDOW + 2 * HALO  # samples
TRIPS, MORE_TRIPS = 4, 64  # the budget in cuda/solve.cuh


@functools.cache
def noise_of_1024() -> Noise:
    """Both simulations."""
    found, trips = decomposed(noisy_steps(64, 1024), 1.0), trips_of(SEEN, 1.0)
    steps = windows_of(found.starts)
    return Noise(found, steps, trips.per_sample * SEEN / WINDOW, trips.cutting)


def windows_trips(signal: np.ndarray, lam: float) -> tuple[float, float]:
    """As trips and cutting of Noise, of a warp with copies of one signal."""
    n = signal.size
    firsts = [min(max(k - HALO, 0), n - SEEN) for k in range(0, n, WINDOW)]
    rows = np.array([signal[k : k + SEEN] for k in firsts * WARP_SIGNALS])
    trips = string_of(rows, lam)
    return min(trips.per_sample * SEEN, TRIPS * SEEN + MORE_TRIPS) / WINDOW, trips.cutting


ANY = "any"  # function


def count(loop: Loop, start: str) -> int:
    """How many of its instructions begin like that."""
    return sum(i.name.startswith(start) for i in loop.body)


def loop_at(kernel: Kernel, depth: int, function: str, marker: str) -> tuple[Loop, int]:
    """The loop of that function with the least per sample; it has one `marker` of each."""
    loops = [x for x in loops_of(kernel) if x.depth == depth and count(x, marker)]
    found = [x for x in loops if function in (x.function, ANY)]
    if not found:  # most of it is inlined from others
        found = [x for x in loops if any(_function(*i.place) == function for i in x.body)]
    if not found:
        raise LookupError(f"{kernel.name}: no loop of {function} at depth {depth} has {marker}")
    loop = min(found, key=lambda x: len(x.body) / count(x, marker))
    return loop, count(loop, marker)


Cost = list[tuple[Loop, float]]  # loops, and how many times a warp goes through each


def at_times(loop: Loop, times: float, share: float, marker: str = "STS") -> Cost:
    """A loop whose sides with such an instruction are gone through in a share of its rounds."""
    side = [i for s in loop.sides if any(i.name.startswith(marker) for i in s) for i in s]
    if not side:
        raise LookupError(f"no side of a loop of {loop.function} has {marker}")
    rest = list((collections.Counter(loop.body) - collections.Counter(side)).elements())
    return [(loop._replace(body=rest), times), (loop._replace(body=side), times * share)]


def chain_of(cost: Cost) -> float:
    """Cycles of a warp alone whose instructions each wait for the one before."""
    return sum(times * sum(LATENCY[i.pipe] for i in loop.body) for loop, times in cost)


def cycles_of(cost: Cost) -> tuple[float, float, str]:
    """Instructions that a warp issues; cycles of the busiest pipe, and which that is."""
    issued = sum(times * len(loop.body) for loop, times in cost)
    busy = {p: sum(t * c * loop.counts()[p] for loop, t in cost) for p, c in CYCLES.items()}
    pipe = max(busy, key=lambda p: busy[p])
    return issued, busy[pipe], pipe


# The decomposition (cuda/rounds.cuh): loops of a round and those that run once.
ROUND = (  # function, what is once per sample, what its sides of a cut have
    ("compose", "LDS.64", "LDS"),
    ("labels", "STS.U8", "LDS"),
    ("fill", "STS.64", "STS"),  # and means
)
MEANS = ("extend", "STS.64")
ONCE = (
    ("bounds", "F2F.F64"),
    ("start_cuts", "STS.U8"),
    MEANS,
    ("segment_value", "STS.64"),  # means in float32
    ("spread", "F2F.F32"),
    (ANY, "LDG"),
    (ANY, "STG"),
)


def group_cost(kernel: Kernel, n: int, done: Decomposed, threads: int, depth: int = 1) -> Cost:
    """Of a warp of the threads that solve one signal; `depth`: of the loop over signals."""
    rounds = float(done.rounds.mean())
    each = -(-n // threads) | 1
    loops = loops_of(kernel)
    whole = max((x for x in loops if x.depth == depth), key=lambda x: count(x, "SHFL"))
    behind = loops[loops.index(whole) + 1 :]
    inside = list(itertools.takewhile(lambda x: x.depth > depth, behind))
    # The rounds of splitting and of joining ties, of which there is one.
    splits, joins = (x for x in inside if x.depth == depth + 1 and count(x, "SHFL") > 10)
    cost: Cost = [(whole, 1), (splits, rounds), (joins, 1)]
    of_join = ("fuse", "STS"), MEANS
    for function, marker, side in ROUND:
        loop, samples = loop_at(kernel, depth + 2, function, marker)
        cost += at_times(loop, rounds * each / samples, done.cutting, side)
    for steps, at in ((ONCE, 1), (of_join, 2)):
        for step in steps:
            loop, samples = loop_at(kernel, depth + at, *step)
            cost.append((loop, each / samples))
    first_join = inside.index(joins)
    for i, loop in enumerate(inside):  # scans: five steps each
        if len(loop.body) < 100 and count(loop, "SHFL"):
            of_round = loop.depth == depth + 2 and i < first_join
            cost.append((loop, 5 * (rounds if of_round else 1)))
    return cost


def windows_cost(kernel: Kernel, trips: float, cutting: float, steps: np.ndarray) -> Cost:
    """Of a warp with signals of 1,024 that are all certified (prox_windows in cuda/prox1d.cu)."""
    each = 1024 * WARP_SIGNALS / 32  # samples of a thread
    searches = [x for x in loops_of(kernel) if x.function == "certify_window"]
    cost: Cost = [(x, t) for x, t in zip(searches, steps[:3], strict=True)]
    for loop in loops_of(kernel):
        if loop.depth == 1 or (loop.function == "__launch_bounds__" and not count(loop, "STG")):
            signals = 1 if loop.depth == 1 else AT_ONCE  # what is done for each of a block
            cost += [] if count(loop, "LDG") and loop.depth > 1 else [(loop, signals)]
    lines = ("for_signals", "__launch_bounds__")  # where the compiler says that they are from
    for marker in ("LDG", "STG"):
        moves = [x for x in loops_of(kernel) if x.depth == 3 and x.function in lines]
        loop = min((x for x in moves if count(x, marker)), key=lambda x: len(x.body))
        cost.append((loop, each / count(loop, marker)))
        cost.append((loop_at(kernel, 2, "for_signals", marker)[0], AT_ONCE))
    cost += at_times(loop_at(kernel, 2, "taut_string_float", "MUFU")[0], WINDOW * trips, cutting)
    cost.append((loop_at(kernel, 2, "certified_values", "MUFU")[0], steps[3]))
    for function, marker in (("find_window", "STS"), ("spread_window", "STS")):
        loop, samples = loop_at(kernel, 2, function, marker)
        cost.append((loop, WINDOW / samples))
    return cost


# What is done for the lines that float32 cannot solve.
IN_DOUBLE_FILES = ("cuts.hpp", "decomposition.hpp", "taut_string.hpp")
IN_DOUBLE = ("solve_line", "extent_of", "find_cuts", "prox_cuts", "for_segments_at")


def image_cost(kernel: Kernel, n: int, trips: Trips, passes: int) -> Cost:
    """Of a warp with a line per thread, all solved in float32 (cuda/dykstra.cu), without masks."""

    def smallest(function: str, *markers: tuple[str, int], but: str = "none") -> Loop:
        loops = [
            x
            for x in loops_of(kernel)
            if x.function == function and all(count(x, m) == c for m, c in markers)
        ]
        return min((x for x in loops if not count(x, but)), key=lambda x: len(x.body))

    outer = max((x for x in loops_of(kernel) if x.depth == 3), key=lambda x: len(x.body))
    taken = [
        i
        for i in outer.body
        if i.place[0] not in IN_DOUBLE_FILES and _function(*i.place) not in IN_DOUBLE
    ]
    loading = smallest("__launch_bounds__", ("LDG", 8), ("STS", 8), but="LDS")
    moving = smallest("__launch_bounds__", ("LDG", 8), ("STS", 8), ("LDS", 8))
    storing = smallest("__launch_bounds__", ("STG", 8), ("LDS", 8))
    clearing = smallest("certified_cuts", ("STS", 4))
    spreading = smallest("certified_line", ("LDS", 12), ("STS", 4))
    trip, _ = loop_at(kernel, 4, "taut_string_float", "MUFU")
    values, _ = loop_at(kernel, 4, "certified_values", "MUFU")
    of_pass = [
        (Loop(outer.function, 3, taken), 1 / n),
        (moving, 1 / 8),
        (clearing, 1 / 4),
        *at_times(trip, trips.per_sample, trips.cutting),
        *at_times(values, 1, trips.ends),
        (spreading, 1 / 4),
    ]
    of_image = [(loading, 1 / 8), (storing, 1 / 8)]
    return [(x, passes * n * t) for x, t in of_pass] + [(x, n * t) for x, t in of_image]


# Of apply: what is not done, whichever way a tile is read, and with one λ per signal.
BESIDE = ("cut_weightless", "add_slopes", "slope_of")
IN_MEMORY = ("load_y", "load_values", "load", "write_memory")
IN_RUNS = ("stage_run", "move_run", "read_y", "read_values", "write_run")


def apply_cost(kernel: Kernel, rows: int, parts: int, *, contiguous: bool) -> Cost:
    """Of a warp: each thread has `rows` of a signal that `parts` threads share."""

    def of(loop: Loop, *functions: str) -> int:
        return sum(_function(*i.place) in functions for i in loop.body)

    body = next(x for x in loops_of(kernel) if x.depth == 1)
    other = BESIDE + (IN_MEMORY if contiguous else IN_RUNS)
    taken = [i for i in body.body if _function(*i.place) not in other]
    cost: Cost = [(Loop(body.function, 1, taken), 1)]
    for loop in (x for x in loops_of(kernel) if x.depth == 2):
        if of(loop, "move_run"):  # a batch of 8
            cost += [(loop, rows / 8)] if contiguous else []
        elif of(loop, "flow_in"):  # of two, towards either side
            cost.append((loop, parts / 2))
        elif loop.function != "cut_weightless":  # sums over the parts, in batches
            cost.append((loop, parts / count(loop, "LDS")))
    return cost


# Of prox_grid, which has no data-dependent launches: kernels of a round, and those that run once
# (Launcher in cuda/prox1d_grid.cu). Not those that scan the tiles.
GRID_EACH, GRID_WARPS, GRID_ROUNDS = 16, 8, 8
GRID_ROUND = ("g_means<float, double>", "g_compose<float>", "g_labels<float>", "g_fill<float>")
GRID_ONCE = (
    *("g_bounds<float>", "g_sums<float>", "g_sums<float>", "g_means<float, double>"),
    *("g_fuse<float>", "g_sums<float>", "g_means<float, float>", "g_spread<float>"),
)


def grid_cost(steps: dict[str, Kernel]) -> Cost:
    """Of a warp whose lanes have GRID_EACH samples each."""
    once = [(steps[name], 1) for name in GRID_ONCE]
    cost: Cost = []
    for kernel, times in once + [(steps[name], GRID_ROUNDS) for name in GRID_ROUND]:
        for loop in loops_of(kernel):
            read = count(loop, "LDG.E.S8") + count(loop, "LDG.E.U8")  # cuts
            written = count(loop, "STG.E.U8")
            if loop.depth == 1:
                turns = times
            elif count(loop, "SHFL"):
                turns = 5 * times
            elif count(loop, "LDS"):  # the warps' totals, two at once
                turns = times * GRID_WARPS / 2
            elif 0 < read < written:  # with marks of new cuts: in the last round
                turns = GRID_EACH / read
            else:  # a cut for each sample, or (g_bounds) a weight beside it
                turns = times * GRID_EACH / (read or written or max(1, count(loop, "LDG") / 2))
            cost.append((loop, turns))
    return cost


NEWTON_JOINS = 2  # rounds per iteration, assumed


def newton_iterations(n: int, lam: float) -> float:
    """Mean over signals, of the CPU's solver, which takes as many."""
    x = noisy_steps(1024, n).astype(np.float32)
    _, info = jaxtv.prox_tv1d(x, lam, solver=jaxtv.ProjectedNewton(), return_info=True)
    return float(np.mean(info.iterations))


def newton_cost(kernel: Kernel, iterations: float) -> Cost:
    """Of a warp whose lanes have one sample each of a signal (cuda/newton.cu).

    What loops do for one sample is in the code around them: they are unrolled.
    """
    loops = loops_of(kernel)
    whole = max((x for x in loops if x.depth == 2), key=lambda x: len(x.body))
    inside = [x for x in loops[loops.index(whole) :] if x.depth > 2]
    outside = [x for x in loops if x.depth < 3 and x is not whole]
    cost: Cost = [(whole, iterations)]
    for loop in outside + inside:
        times = iterations if loop in inside else 1
        if loop.depth == 1 or len(loop.body) > 200:  # or the rounds of ties, the search for a step
            cost.append((loop, times * (NEWTON_JOINS if count(loop, "SHFL") > 20 else 1)))
        elif count(loop, "SHFL"):  # scans: five steps each
            cost.append((loop, 5 * times))
    return cost


def phases_of(kernel: Kernel, contiguous: bool) -> dict[str, tuple[Loop, int]]:
    """The loops that every sample goes through, and the samples of one iteration of each."""

    def of(function: str, marker: str, but: str = "none") -> list[Loop]:
        loops = [x for x in loops_of(kernel) if x.function == function and count(x, marker)]
        return sorted((x for x in loops if not count(x, but)), key=lambda x: len(x.body))

    def moved(marker: str) -> Loop:
        # Whole batches: warps walk along signals, or threads do (less than for a run of memory).
        depth = 3 if contiguous else 2
        batches = [x for x in loops_of(kernel) if x.depth == depth and count(x, marker) == 8]
        return min(batches, key=lambda x: len(x.body))

    clear = of("certified_cuts", "STS.U8", "LDS")[-1]
    spread = of("prox_certified", "LDS")[-1]
    return {
        "load": (moved("LDG"), 8),
        "clear": (clear, count(clear, "STS")),
        "trip": (of("taut_string_float", "MUFU")[0], 1),
        "values": (of("certified_values", "MUFU")[0], 1),
        "spread": (spread, count(spread, "STS")),
        "store": (moved("STG"), 8),
    }


def lanes_of(n: int, narrow: int) -> int:
    """Of a tile of float32 signals, at least `narrow` (tiling_of in cuda/tile.cuh)."""
    lanes = max(narrow, min(128, 20 * 1024 // 5 // (n + 1)))
    return lanes if lanes <= 32 else lanes // 32 * 32


def rows_cost(kernel: Kernel, contiguous: bool, trips: Trips) -> Cost:
    """Of a sample in each lane of a warp (prox_rows in cuda/prox1d.cu)."""
    cost: Cost = []
    for name, (loop, samples) in phases_of(kernel, contiguous).items():
        if name == "trip":
            cost += at_times(loop, trips.per_sample, trips.cutting)
        elif name == "values":
            cost += at_times(loop, 1, trips.ends)
        else:
            cost.append((loop, 1 / samples))
    return cost


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


# Cycles until what an instruction made can be used, assumed; of global memory, once per batch.
LATENCY = {"fp64": 8, "special": 20, "memory": 30, "fp32": 4, "integer": 5, "control": 5}
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
        "Generated by `python scripts/sass_report.py --markdown`; **predicted, not measured**.",
        "",
        "## One thread per signal",
        "",
    ]
    lines += rows_markdown(rows, half) + others_markdown(group, windows, image, pull, newton, found)
    lines += crossover_markdown(rows, windows)
    return "\n".join(lines + latency_markdown(rows, pull))


def main() -> int:
    """Print the loops or the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--kernel", default="prox_rows<float, false>")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("sources", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    if args.markdown:
        print(markdown(args.arch))
        return 0
    for source in args.sources or [ROOT / "cuda/prox1d.cu"]:
        for kernel in disassemble(source, args.arch):
            if not re.search(args.kernel, kernel.name):
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
