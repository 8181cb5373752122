"""What the CUDA kernels do per sample, counted as nvcc's compiled code runs, and gpu_counts.json.

    python -m benchmarks.gpu_counts             # fails where a kernel does more than 10 % more
    python -m benchmarks.gpu_counts --update    # accepts the counts of now, here and in docs/gpu.md
    python -m benchmarks.gpu_counts --table     # the bounds that follow from the counts kept
    python -m benchmarks.gpu_counts --lines --only "NCHW, rows"     # the lines that cost most
    python -m benchmarks.gpu_counts --functions --only "NCHW, rows" # the functions

The interpreter of testing/ptx runs the passes of benchmarks/gpu.py on its data, on fewer signals,
with the lanes of a warp together as long as they do not part. It counts

* warp instructions of PTX by kind, a diverged one as often as it is issued;
* bytes: sectors of global memory that a launch touches, each once, as if caches lost nothing;
* wavefronts: rows of banks that shared memory serves one after the other.

A time is at least the largest of bytes / bandwidth, warp instructions / issue rate, and so on: a
bound, no prediction. ptxas removes moves and reads of parameters, and makes signs and the halves of
64 bits a part of other instructions; these are not counted. It makes several instructions of some:
of those of 64-bit integers, of divisions. Needs nvcc.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import json
import math
import os
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import gpu
from testing import ROOT, emulator, ptx
from testing.programs import run

COUNTS = pathlib.Path(__file__).with_name("gpu_counts.json")
PAGE = pathlib.Path(__file__).parent.parent / "docs/gpu.md"
BEGIN, END = "<!-- gpu-counts -->", "<!-- /gpu-counts -->"
TOLERANCE = 0.10
SECTOR = 32  # bytes
# What issues nothing of its own after ptxas.
FREE = ("move", "folded", "parameter")
KINDS = (
    *("integer", "float", "double", "convert", "branch"),
    *("global", "shared", "local", "atomic", "warp", "barrier"),
)
GUARDED = ("warp_instructions", "double", "bytes", "wavefronts")

# Fewer signals than in benchmarks/gpu.py, of the same kernels: what is counted is per sample. Still
# enough that tiles have as many signals: with few, their lanes are halved, and warps half empty.
SHAPES = {
    (64, 64, 64, 64): (8, 64, 64, 64),
    (8192, 1024): (1536, 1024),
    (32, 256, 56, 56): (1, 640, 56, 56),
    (32, 56, 56, 256): (10, 56, 56, 256),
    (8, 3, 1024, 1024): (1, 1, 1536, 1024),
    (8, 1024, 1024, 3): (1, 1024, 512, 3),
    (1_000_000,): (100_000,),
    (256, 32, 32): (256, 32, 32),
    (8, 512, 512): (1, 64, 96),
}
# Those that take long; their tiles are the same.
SHAPES_OF_CASES = {
    "64x64x64x64 NCHW, 2D K=4": (1, 64, 64, 64),
    "64x64x64x64 NHWC, 2D K=4": (1, 64, 64, 64),
    "64x64x64x64 NCHW, 2D, bf16": (1, 64, 64, 64),
    "32x256x56x56 NCHW, 2D K=4": (1, 64, 56, 56),
    "32x56x56x256 NHWC, 2D K=4": (1, 56, 56, 256),
    "256x32x32, Newton": (32, 32, 32),
    "256x32x32, Newton, parallel": (32, 32, 32),
    "8192x1024, ramps": (96, 1024),
    "8192x1024, sines": (96, 1024),
}
# Images of which both axes are long would take minutes; a signal of 1e8 is one of 1e6, but longer.
LEFT_OUT = ("8x3x1024x1024 NCHW, 2D K=4", "8x1024x1024x3 NHWC, 2D K=4", "one signal of 1e8")

# The head of a function, at the margin or in a class, and its name.
HEAD = re.compile(
    r"^ {0,2}(?!return|else|using|template)(?:[\w:<>,&*]+ +)+[&*]?"
    r"(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s+)?(\w+)\((?!.*;$)",
    re.MULTILINE,
)

SHOWN = (  # in docs/gpu.md
    *("256x32x32, rows (Table 1)", "64x64x64x64 NCHW, rows", "64x64x64x64 NHWC, rows"),
    *("64x64x64x64 NCHW, rows, bf16", "64x64x64x64 NCHW, 2D K=4", "64x64x64x64 NCHW, 2D, bf16"),
    *(gpu.NOISE, "8192x1024, ramps", "8192x1024, sines"),
    *("one signal of 1e6", "256x32x32, Newton", "8x3x1024x1024 NCHW, rows"),
    "8x512x512, isotropic, 95 steps",
)


@dataclasses.dataclass(frozen=True)
class Device:
    """What bounds a time; rates are warp instructions per clock of a multiprocessor."""

    name: str
    multiprocessors: int
    hertz: float
    bytes_per_second: float
    double_per_clock: float
    issued_per_clock: float = 4  # four schedulers, one warp instruction each
    wavefronts_per_clock: float = 1  # 32 banks of 4 bytes

    def bounds(self, count: dict[str, float]) -> dict[str, float]:
        """Nanoseconds per sample that each resource needs."""
        clocks = self.multiprocessors * self.hertz / 1e9
        return {
            "bytes": count["bytes"] / self.bytes_per_second * 1e9,
            "issue": count["warp_instructions"] / (clocks * self.issued_per_clock),
            "double": count["double"] / (clocks * self.double_per_clock),
            "shared memory": count["wavefronts"] / (clocks * self.wavefronts_per_clock),
        }


DEVICES = (
    Device("H100", 132, 1.7e9, 3.35e12, 2),
    Device("H200", 132, 1.7e9, 4.8e12, 2),
    Device("RTX 4090", 128, 2.5e9, 1.008e12, 1 / 16),
)


def cases() -> list[gpu.Case]:
    """Those of benchmarks/gpu.py, on fewer signals."""
    return [
        dataclasses.replace(case, shape=SHAPES_OF_CASES.get(case.name) or SHAPES[case.shape])
        for case in gpu.CASES
        if case.name not in LEFT_OUT
    ]


def summed(kernels: dict[str, dict[str, Any]], samples: int) -> dict[str, Any]:
    """What all kernels of a call did, per sample."""
    keys = next(iter(kernels.values())).keys() - {"lines"}
    total = {key: sum(k[key] for k in kernels.values()) for key in keys}
    issued = sum(total[kind] for kind in KINDS)
    all_issued = issued + sum(total[kind] for kind in FREE)
    return {
        "kernels": sorted(kernels),
        "warp_instructions": issued / samples,
        **{kind: total[kind] / samples for kind in KINDS},
        "bytes": SECTOR * (total["sectors_read"] + total["sectors_written"]) / samples,
        "bytes_asked": SECTOR * total["sectors"] / samples,
        "wavefronts": total["wavefronts"] / samples,
        "lanes": total["lanes"] / all_issued,  # that are active, of 32
    }


def passes(case: gpu.Case) -> dict[str, Callable[[], Any]]:
    """What is counted; compiled, and run once.

    Of the isotropic prox the backward pass is a JAX loop around the kernels of components, which is
    as long as the data ask for.
    """
    x, lam = gpu.samples(case, 0), jnp.float32(case.lam)
    forward, linearised, backward, _ = gpu.functions(case)
    if gpu.isotropic(case):
        jax.block_until_ready(forward(x, lam))
        return {"forward": lambda: forward(x, lam)}
    y, pull = linearised(x, lam)
    jax.block_until_ready((forward(x, lam), backward(y, pull)))
    return {"forward": lambda: forward(x, lam), "backward": lambda: backward(y, pull)}


@functools.cache
def functions_of(path: str) -> list[tuple[int, str]]:
    """The functions of a file, and the line of each, as far as our style tells."""
    text = pathlib.Path(path).read_text()
    return [(text.count("\n", 0, m.start()) + 1, m[1]) for m in HEAD.finditer(text)]


def by_function(lines: dict[str, int]) -> dict[str, int]:
    """Warp instructions by "function (file)", inlined ones too, in place of "path:line"."""
    total: collections.Counter[str] = collections.Counter()
    for place, issued in lines.items():
        path, _, line = place.rpartition(":")
        known = functions_of(path) if pathlib.Path(path).exists() else []
        above = [name for first, name in known if first <= int(line)]
        total[f"{above[-1] if above else '?'} ({pathlib.Path(path).name})"] += issued
    return total


def print_places(kernels: dict[str, dict[str, Any]], samples: int, functions: bool) -> None:
    """The lines or functions that most warp instructions of each kernel come from."""
    for kernel, count in kernels.items():
        print(f"    {kernel}")
        places = by_function(count["lines"]) if functions else count["lines"]
        by_count = sorted(places.items(), key=lambda item: -item[1])
        for place, issued in by_count[:20]:
            print(f"    {issued / samples:9.3f}  {place.removeprefix(f'{ROOT}/')}")


def counted(case: gpu.Case, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Counts per sample of each pass; with --lines or --functions, prints where they come from."""
    found = {}
    for name, call in passes(case).items():
        ptx.counts()
        with ptx.configured(counted=True):
            jax.block_until_ready(call())
        kernels, samples = ptx.counts(), math.prod(case.shape)
        found[name] = summed(kernels, samples)
        if options.lines or options.functions:
            print_places(kernels, samples, options.functions)
    return found


def compare(known: dict, measured: dict[str, dict]) -> list[str]:
    """What to say about each count that is larger than the tolerance allows."""
    wrong = []
    for case, found in measured.items():
        for name, count in found.items():
            before = known["cases"].get(case, {}).get(name)
            if before is None:
                wrong.append(f"{case}, {name}: no count in {COUNTS.name}")
                continue
            for key in GUARDED:
                if count[key] > (1 + known["tolerance"]) * before[key] + 1e-3:
                    more = 100 * (count[key] / before[key] - 1) if before[key] else math.inf
                    wrong.append(f"{case}, {name}: {count[key]:.4g} {key}, {more:.1f} % more")
    return wrong


def rounded(value: Any) -> Any:
    """Four digits of every number, in containers too."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def bound(device: Device, count: dict[str, float]) -> tuple[float, float, str]:
    """(nanoseconds per sample, times a copy of the same bytes, what takes so long)."""
    bounds = device.bounds(count)
    worst = max(bounds, key=lambda resource: bounds[resource])
    return bounds[worst], bounds[worst] / bounds["bytes"], worst


def table(cases: dict[str, dict[str, Any]]) -> str:
    """The bounds of the calls of benchmarks/gpu.py, as Markdown."""
    sizes = {case.name: math.prod(case.shape) for case in gpu.CASES}
    head = ["case", "pass", "warp instructions", "bytes", *(d.name for d in DEVICES)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for case, found in cases.items():
        for name, count in found.items() if case in SHOWN else ():
            cells = [case, name, f"{count['warp_instructions']:.2f}", f"{count['bytes']:.1f}"]
            for device in DEVICES:
                ns, copies, worst = bound(device, count)
                us = ns * sizes[case] / 1e3
                digits = 0 if us >= 100 else 1
                cells.append(f"{us:,.{digits}f} µs, {copies:.1f} ×, {worst}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(cases: dict[str, dict[str, Any]]) -> None:
    """The table of docs/gpu.md, which stands between two comments."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(cases)}\n\n{END}{after}")


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Counts of all cases; printed as they are found."""
    os.environ["JAXTV_EMULATOR"] = "ptx"
    measured = {}
    with emulator.using():
        for case in cases():
            if options.only and options.only not in case.name:
                continue
            measured[case.name] = rounded(counted(case, options))
            for name, c in measured[case.name].items():
                print(
                    f"{case.name:29s} {name:8s} {c['warp_instructions']:8.3f} warp instructions, "
                    f"{c['bytes']:6.1f} bytes, {c['wavefronts']:7.3f} wavefronts per sample",
                    flush=True,
                )
    return measured


def main() -> int:
    """1 where a kernel does more than it did."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_counts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--update", action="store_true", help="accept the counts of now")
    parser.add_argument("--table", action="store_true", help="print the bounds of the counts kept")
    parser.add_argument("--lines", action="store_true", help="print the lines of the source too")
    parser.add_argument("--functions", action="store_true", help="print the functions too")
    parser.add_argument("--only", help="cases whose names have this in them")
    options = parser.parse_args()
    known = json.loads(COUNTS.read_text()) if COUNTS.exists() else {"cases": {}}
    if options.table:
        print(table(known["cases"]))
        return 0
    measured = measure(options)
    if options.update:
        kept = known["cases"] if options.only else {}
        known = {"nvcc": nvcc_version(), "tolerance": TOLERANCE, "cases": kept | measured}
        COUNTS.write_text(json.dumps(known, indent=1) + "\n")
        write_page(known["cases"])
        return 0
    wrong = compare(known, measured)
    print("\n".join([*wrong, "--update accepts it"]) if wrong else "no count is larger than kept")
    return int(bool(wrong))


def nvcc_version() -> str:
    return run("nvcc", "--version").splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
