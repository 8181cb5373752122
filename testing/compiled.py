"""C++ files as a library of C functions, compiled for this machine on first use."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import pathlib
import subprocess

from testing import ROOT

COMMAND = ["g++", "-std=c++20", "-O3", "-march=native", "-fPIC", "-shared", "-pthread"]


@functools.cache
def library(*sources: pathlib.Path) -> ctypes.CDLL:
    """The library of these sources, built into build/compiled where they changed."""
    key = hashlib.sha256(b"".join(s.read_bytes() for s in sources)).hexdigest()[:12]
    path = ROOT / f"build/compiled/{sources[0].stem}-{key}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(
            f".{os.getpid()}"
        )  # renamed: several processes may build at once
        subprocess.run([*COMMAND, *map(str, sources), "-o", str(partial)], check=True)
        partial.rename(path)
    return ctypes.CDLL(str(path))


def cores() -> int:
    """Cores of this process."""
    return len(os.sched_getaffinity(0))
