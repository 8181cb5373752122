"""Registers, spills and stack of every CUDA kernel.

    python scripts/ptxas_report.py [--arch sm_90] [FILE.cu ...]

Needs nvcc, no GPU. Exits with 1 where a kernel spills.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Kernel(NamedTuple):
    """What ptxas says about one kernel; sizes in bytes."""

    file: str
    name: str
    registers: int
    spills: int
    stack: int


def _short(name: str) -> str:
    """The kernel's name without namespaces and parameters."""
    name = re.sub(r"\w+::|\(anonymous namespace\)::|^void ", "", name)
    return name.split("(")[0]


def compile_kernels(source: pathlib.Path, arch: str) -> list[Kernel]:
    """Compile one .cu for one architecture and read ptxas' report.

    Raises:
        RuntimeError: with nvcc's messages, where it does not compile.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [os.environ.get("CUDACXX", "nvcc"), "-std=c++20", f"-arch={arch}", "-O3"]
        command += ["-cubin", "-Xptxas=-v", "-Werror=all-warnings"]
        command += [f"-I{ROOT / 'include'}", f"-I{ROOT / 'cuda'}"]
        command += ["-o", f"{folder}/kernels.cubin", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"nvcc {source}:\n{done.stderr}")
    demangled = done.stderr
    if shutil.which("c++filt"):
        demangled = subprocess.run(
            ["c++filt"], input=done.stderr, capture_output=True, text=True, check=True
        ).stdout
    found = re.findall(
        r"Compiling entry function '(.*?)' for.*?\n.*?Function properties.*?\n"
        r"\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
        r".*?Used (\d+) registers",
        demangled,
    )
    return [
        Kernel(source.name, _short(name), int(registers), int(stores) + int(loads), int(stack))
        for name, stack, stores, loads, registers in found
    ]


def report(sources: list[pathlib.Path], arch: str) -> list[Kernel]:
    """All kernels of `sources`, compiled two files at a time."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return [k for ks in pool.map(lambda s: compile_kernels(s, arch), sources) for k in ks]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("sources", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    kernels = report(args.sources or sorted((ROOT / "cuda").glob("*.cu")), args.arch)
    print(f"{args.arch}: registers, spills (bytes), stack (bytes)")
    for k in kernels:
        print(f"{k.registers:5d} {k.spills:6d} {k.stack:6d}  {k.file}: {k.name}")
    return int(any(k.spills for k in kernels))


if __name__ == "__main__":
    sys.exit(main())
