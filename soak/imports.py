"""Import of a copy of the package in which something is wrong, each in a process of its own."""

from __future__ import annotations

import pathlib
import tempfile

from soak.result import Result
from testing.damaged_installs import SITUATIONS, wrong


def imports(cases: int) -> Result:
    """The first so many situations."""
    failures = []
    names = list(SITUATIONS)[:cases]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            if text := wrong(SITUATIONS[name], pathlib.Path(folder)):
                failures.append(f"{name}: {text}")
    said = len(names) - len(failures)
    return Result(
        "import of the package if a native module is missing, damaged, built for a newer FFI, or "
        "for an absent GPU",
        f"{len(names)} situations",
        f"{said} as documented: the message names the module and the remedy, or the CPU works; JAX "
        "itself works in each",
        failures,
    )
