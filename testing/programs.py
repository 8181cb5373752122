"""Programs of the CPU kernels without XLA, compiled as CMakeLists.txt says."""

from __future__ import annotations

import pathlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

from testing import ROOT
from testing.native import cores

X86 = ("g++", "-DJAXTV_X86")


def run(*command: object, **options) -> str:
    """What a command prints.

    Raises:
        SystemExit: the command failed; with what it printed.
    """
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def build(
    folder: pathlib.Path, source: pathlib.Path, compiler: tuple[str, ...] = X86
) -> pathlib.Path:
    """A program of `source` and the CPU kernels, in `folder`.

    For x86 with all instruction sets; another compiler's program has the baseline only.
    """
    text = (ROOT / "CMakeLists.txt").read_text()
    numerics = re.search(r"set\(numerics (.*)\)", text)[1].split()
    sources = re.search(r"set\(sources ([^)]*)\)", text)[1].split()
    kernels = re.search(r"add_library\(simd_\S+ OBJECT ([^)]*)\)", text)[1].split()
    isas = re.findall(r"add_simd\((\w+) (\d+) ?(.*)\)", text)
    command = [*compiler, "-std=c++20", "-O3", *numerics]
    command += [f"-I{ROOT / 'include'}", f"-I{ROOT / 'cpu'}", "-w"]
    units = {}  # object: its source and flags
    for isa, size, flags in isas if compiler == X86 else isas[:1]:
        macros = [f"-DJAXTV_ISA={isa}", f"-DJAXTV_VECTOR_BYTES={size}", *flags.split()]
        for kernel in kernels:
            units[folder / f"{pathlib.Path(kernel).stem}_{isa}.o"] = (ROOT / kernel, macros)
    handlers = ("module.cpp", "_ffi.cpp")  # they need XLA's headers
    for i, name in enumerate(s for s in sources if not s.endswith(handlers)):
        units[folder / f"{i}_{pathlib.Path(name).stem}.o"] = (ROOT / name, [])
    units[folder / f"{source.stem}.o"] = (source, [])

    def compile_unit(unit: pathlib.Path) -> None:
        path, flags = units[unit]
        run(*command, *flags, "-c", path, "-o", unit)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(compile_unit, units))
    program = folder / source.stem
    run(*command, *units, "-o", program, "-pthread")
    return program
