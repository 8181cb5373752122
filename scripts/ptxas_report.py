"""Registers, spills and stack of every CUDA kernel, from the log of a build.

    python scripts/ptxas_report.py BUILD_LOG

The log: of `pip install -v -C cmake.define.JAXTV_CUDA=ON .`, which has ptxas' report (no GPU
needed). Exits with 1 where a kernel spills or exceeds its limit of registers, or where the log has
no kernels or some that it says nothing about.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

# pip puts its own words in front of each line of a log.
PATTERN = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>\w+)'.*\n"
    r".*Function properties.*\n"
    r".*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads\n"
    r".*Used (?P<registers>\d+) registers"
)
# Registers that docs/gpu.md's occupancy needs and __launch_bounds__ does not ask for, by the start
# of the name: 32 warps of the derivative of the 1D prox on a multiprocessor.
LIMITS = {"segment_means<float, false": 64}


class Kernel(NamedTuple):
    """What ptxas says about one kernel; spills and stack in bytes."""

    name: str
    arch: str
    registers: int
    spills: int
    stack: int

    def fails(self) -> bool:
        """Whether it spills or exceeds its limit."""
        limits = [most for start, most in LIMITS.items() if self.name.startswith(start)]
        return self.spills > 0 or any(self.registers > most for most in limits)


def short(names: list[str]) -> list[str]:
    """The kernels' names without namespaces and parameters."""
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    plain = [
        re.sub(r"\w+::|\(anonymous namespace\)::|^void ", "", n) for n in done.stdout.splitlines()
    ]
    return [name.split("(")[0] for name in plain]


def kernels_of(log: str) -> list[Kernel]:
    """The kernels of a build log."""
    found = list(PATTERN.finditer(log))
    return [
        Kernel(
            name,
            m["arch"],
            int(m["registers"]),
            int(m["stores"]) + int(m["loads"]),
            int(m["stack"]),
        )
        for m, name in zip(found, short([m["name"] for m in found]), strict=True)
    ]


def main(arguments: list[str]) -> int:
    """Print the table."""
    (log,) = arguments
    text = pathlib.Path(log).read_text()
    kernels = kernels_of(text)
    if not kernels:
        raise SystemExit(f"{log}: no kernels; the log of a verbose build is needed")
    compiled = text.count("Compiling entry function")
    if len(kernels) != compiled:
        raise SystemExit(f"{log}: {compiled} kernels, but {len(kernels)} reports")
    print("registers, spills (bytes), stack (bytes)")
    for k in kernels:
        verdict = "  FAILS" if k.fails() else ""
        print(f"{k.registers:5d} {k.spills:6d} {k.stack:6d}  {k.name} {k.arch}{verdict}")
    return int(any(k.fails() for k in kernels))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
