"""Kernels of a .cu file as SASS: instructions, loops, and how many warps fit."""

from __future__ import annotations

import collections
import functools
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]

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
        functions = collections.Counter(function_of(*c.place) for c in code)
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
def function_of(file: str, line: int) -> str:
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
