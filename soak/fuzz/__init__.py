"""Coverage-guided fuzzing of the CPU handlers under ASan and UBSan (fuzz/), with clang."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from soak.result import Result, finding
from testing import ROOT

CLANG = os.environ.get("CLANGXX", "clang++-19")


def build(folder: pathlib.Path) -> pathlib.Path:
    """The fuzz target, built in `folder`.

    Raises:
        RuntimeError: there is no clang.
    """
    if shutil.which(CLANG) is None:
        raise RuntimeError(f"{CLANG} is missing: apt-get install clang-19 libclang-rt-19-dev")
    nanobind = subprocess.check_output([sys.executable, "-m", "nanobind", "--cmake_dir"], text=True)
    options = {
        "CMAKE_CXX_COMPILER": CLANG,
        "JAXTV_FUZZ": "ON",
        "JAXTV_CUDA": "OFF",
        "JAXTV_SANITIZE": "address,undefined",
        "Python_EXECUTABLE": sys.executable,
        "nanobind_DIR": nanobind.strip(),
    }
    flags = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, *flags], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", folder, "-j2"], check=True, capture_output=True)
    return folder / "fuzz_ffi"


def summary(log: str) -> tuple[int, int]:
    """Executions and covered edges, from what libFuzzer prints."""
    runs = re.search(r"stat::number_of_executed_units: (\d+)", log)
    covered = re.findall(r" cov: (\d+)", log)
    return int(runs[1]) if runs else 0, int(covered[-1]) if covered else 0


def fuzz(target: pathlib.Path, seconds: int, folder: pathlib.Path) -> Result:
    """The row of the page: runs for so long, from an empty corpus, to the first finding."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", "-max_len=160", "-timeout=60", "-print_final_stats=1"]
    done = subprocess.run(
        [target, *limits, f"-artifact_prefix={folder}/", corpus],
        capture_output=True,
        text=True,
        errors="replace",
    )
    runs, covered = summary(done.stderr)
    failures = [finding(done.stderr)] if done.returncode or not runs else []
    return Result(
        "coverage-guided fuzzing of all CPU handlers under ASan and UBSan (soak/fuzz)",
        f"{seconds} s",
        f"{runs:,} calls, {covered:,} edges covered, {len(failures)} findings",
        failures,
    )


def check(seconds: int) -> Result:
    """Builds the target and runs it; what it finds stays in a folder whose name is printed."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxtv-fuzz-"))
    print(f"inputs in {folder}", flush=True)
    return fuzz(build(folder / "build"), seconds, folder)
