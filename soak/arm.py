"""The CPU kernels compiled for aarch64 (NEON) and run by qemu, against those of x86: same bits."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

from soak.result import Result
from testing import programs

SOURCE = pathlib.Path(__file__).with_suffix(".cpp")
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


def hashes(*command: object, isa: str = "") -> list[str]:
    """What the program prints, a line per case."""
    environment = os.environ | ({"JAXTV_ISA": isa} if isa else {})
    return programs.run(*command, env=environment).split()


def compare(expected: list[str], found: dict[str, list[str]]) -> list[str]:
    """The cases in which an instruction set has other bits, or none."""
    wrong = []
    for name, lines in found.items():
        if len(lines) != len(expected):
            wrong.append(f"{name}: {len(lines)} of {len(expected)} cases ran")
        pairs = enumerate(zip(expected, lines, strict=False))
        wrong += [f"{name}: seed {seed}" for seed, (a, b) in pairs if a != b]
    return wrong


def arm(cases: int) -> Result:
    """The row of the page.

    Raises:
        RuntimeError: there is no compiler for aarch64, or no emulator.
    """
    if missing := [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]:
        raise RuntimeError(f"{', '.join(missing)}: apt-get install g++-aarch64-linux-gnu qemu-user")
    with tempfile.TemporaryDirectory() as name:
        x86, neon = (pathlib.Path(name, part) for part in ("x86", "neon"))
        x86.mkdir()
        neon.mkdir()
        program = programs.build(x86, SOURCE)
        expected = hashes(program, cases, isa="baseline")
        found = {"avx2": hashes(program, cases, isa="avx2")}
        emulated = programs.build(neon, SOURCE, (COMPILER, "-static"))
        found["neon"] = hashes(EMULATOR, emulated, cases)
    failures = compare(expected, found)
    return Result(
        "bits of prox, Dykstra, edge codes, derivatives: AVX2 and NEON (qemu) compared with SSE2",
        f"{cases:,} batches, 1D and 2D, float32 and float64",
        f"{len(failures)} differences",
        failures,
    )
