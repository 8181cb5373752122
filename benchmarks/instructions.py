"""Instruction counts of the CPU kernels under callgrind, held against instructions.json.

    python -m benchmarks.instructions            # fails where a kernel got more than 10 % slower
    python -m benchmarks.instructions --update   # accepts the counts of now

Counts repeat on a noisy machine, times do not. Valgrind knows AVX2 at most, so that is what is
counted; sources and flags are those of CMakeLists.txt. Needs g++ and valgrind (a Debian package).
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import shutil
import tempfile

from testing.programs import build, run

COUNTS = pathlib.Path(__file__).with_name("instructions.json")
DRIVER = pathlib.Path(__file__).with_suffix(".cpp")
TOLERANCE = 0.10
SAMPLES = 16384  # of every case, see instructions.cpp
CASES = (
    "rows of 32",
    "rows of 512",
    "strided",
    "ramp",
    "single",
    "backward",
    "image, 4 sweeps",
    "edge codes, channels last",
    "edge codes, channels first",
    "vjp, channels last",
    "vjp, channels first",
)


def callgrind(functions: str, *command: object, **options) -> int:
    """Instructions inside of the functions whose names match, in a run of the command."""
    valgrind = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    output = run(*valgrind, f"--toggle-collect={functions}", *command, **options)
    return int(re.search(r"Collected : (\d+)", output)[1])


def count(driver: pathlib.Path, *arguments: object) -> int:
    """Instructions inside of the driver's counted_* functions."""
    return callgrind("counted_*", driver, *arguments, env=os.environ | {"JAXTV_ISA": "avx2"})


def compare(known: dict, measured: dict[str, int]) -> list[str]:
    """What to say about each case that has more instructions than the tolerance allows."""
    wrong = [f"{name}: no count in {COUNTS.name}" for name in measured.keys() - known["cases"]]
    for name, now in measured.items():
        before = known["cases"].get(name, {}).get("instructions", now)
        if now > (1 + known["tolerance"]) * before:
            wrong.append(f"{name}: {now:,} instructions, {100 * (now / before - 1):.1f} % more")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--update", action="store_true", help="accept the counts of now")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not on PATH: apt-get install valgrind, or your system's way")
    compiler = run("g++", "--version").splitlines()[0]
    with tempfile.TemporaryDirectory() as folder:
        driver = build(pathlib.Path(folder), DRIVER)
        measured = {case: count(driver, case) for case in CASES}
    for case, instructions in measured.items():
        print(f"{case:24s} {instructions:12,d}  {instructions / SAMPLES:7.2f} per sample")
    if options.update:
        cases = {c: {"instructions": i, "samples": SAMPLES} for c, i in measured.items()}
        known = {"compiler": compiler, "isa": "avx2", "tolerance": TOLERANCE, "cases": cases}
        COUNTS.write_text(json.dumps(known, indent=1) + "\n")
        return
    known = json.loads(COUNTS.read_text())
    if compiler != known["compiler"]:
        print(f"the counts kept are of another compiler: {known['compiler']}, not {compiler}")
    wrong = compare(known, measured)
    if wrong:
        raise SystemExit("\n".join([*wrong, "--update accepts it"]))


if __name__ == "__main__":
    main()
