"""Registers, spills and stack of every CUDA kernel, from the log of a build.

    python scripts/ptxas_report.py BUILD_LOG

The log: of `pip install -v -C cmake.define.JAXTV_CUDA=ON .`, which has ptxas' report (no GPU
needed). Exits with 1 where a kernel spills, or where the log has no kernels.
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


class Kernel(NamedTuple):
    """What ptxas says about one kernel; spills and stack in bytes."""

    name: str
    arch: str
    registers: int
    spills: int
    stack: int


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
    kernels = kernels_of(pathlib.Path(log).read_text())
    if not kernels:
        raise SystemExit(f"{log}: no kernels; the log of a verbose build is needed")
    print("registers, spills (bytes), stack (bytes)")
    for k in kernels:
        print(f"{k.registers:5d} {k.spills:6d} {k.stack:6d}  {k.name} {k.arch}")
    return int(any(k.spills for k in kernels))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
