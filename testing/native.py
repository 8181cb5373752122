"""Shared libraries of C++ for the tests. Whichever process comes first builds one; all others wait for it and load it.

What was built is kept in build/ under a name that contains the hash of its sources, headers and flags.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax

from testing import ROOT

CXX = shlex.split(os.environ.get("CXX", "g++"))
WARNINGS = ("-Wall", "-Wextra", "-Wno-unknown-pragmas")
FLAGS = ("-std=c++20", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", *WARNINGS)


# Of numerical C++ that has no kernel of ours: a library of C functions, for this machine.
FAST = ("-O3", "-march=native", "-ffp-contract=fast", "-pthread", "-fvisibility=default")


def cores() -> int:
    """Cores of this process."""
    return len(os.sched_getaffinity(0))


@dataclasses.dataclass(frozen=True)
class Library:
    """A shared library: the name of its folder in build/, its sources, and what these include.

    Attributes:
        name: the folder under build/. A new build removes what is left there of older ones.
        sources: translation units, relative to the checkout.
        includes: include directories, relative to the checkout. Every header below them counts as
            included: a change of any one rebuilds all.
        flags: of the compiler, for all units.
        compiler: with what it needs to make a shared library.
        language: what it is told of the language of all units.
        links: libraries that are loaded with this one.
    """

    name: str
    sources: Sequence[str]
    includes: Sequence[str]
    flags: Sequence[str]
    compiler: Sequence[str] = (*CXX, *FLAGS)
    language: Sequence[str] = ("-x", "c++")
    links: Sequence[pathlib.Path] = ()

    def build(self) -> pathlib.Path:
        """Compile and link, unless that is done already; the path of the library."""
        import fcntl  # not on Windows, where the tests of a wheel build nothing

        folder = ROOT / "build" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._build(folder)

    def _build(self, folder: pathlib.Path) -> pathlib.Path:
        command = [*self.compiler, *self.flags, "-isystem", jax.ffi.include_dir()]
        command += [f"-I{ROOT / directory}" for directory in self.includes]
        common = hashlib.sha256(repr(command).encode() + self._headers())
        keys = {}
        for unit in self.sources:
            key = common.copy()
            key.update((ROOT / unit).read_bytes())
            keys[unit] = key.hexdigest()[:16]
        parts = repr((sorted(keys.items()), self.links))
        name = hashlib.sha256(parts.encode()).hexdigest()[:16]
        library = folder / f"{name}.so"
        if library.exists():
            return library
        objects = {u: folder / f"{pathlib.Path(u).stem}-{keys[u]}.o" for u in self.sources}

        def compile_unit(unit: str) -> None:
            if not objects[unit].exists():
                _run([*command, *self.language, "-c", ROOT / unit], objects[unit])

        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(compile_unit, self.sources))
        _run([*command, "-shared", *objects.values(), *self.links], library)
        for file in {*folder.iterdir()} - {library, folder / "lock", *objects.values()}:
            file.unlink()
        return library

    def _headers(self) -> bytes:
        files = {
            file
            for directory in self.includes
            for file in (ROOT / directory).rglob("*")
            if file.suffix in (".hpp", ".cuh")
        }
        return b"".join(file.read_bytes() for file in sorted(files))


def _run(command: list, output: pathlib.Path) -> None:
    """Run a compiler; what it was told to write appears whole or not at all."""
    partial = output.with_suffix(".partial")
    command = [*map(str, command), "-o", str(partial)]
    # A sanitiser that is preloaded for the tests would only slow the compiler down.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    partial.rename(output)
