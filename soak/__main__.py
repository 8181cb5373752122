"""Runs the checks and writes docs/reliability.json and docs/reliability.md.

    python -m soak [CHECK ...] [--cases N] [--seconds S] [--output FOLDER]

Without --cases, the sizes of the page; --seconds is the length of the soak in `misuse` and
of `fuzz`, which needs clang. Checks that are not named stay as they are in reliability.json. The
exit status is 1 where one failed.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

import jax

from soak import (
    accuracy,
    arm,
    bits,
    features,
    fuzz,
    huge_arrays,
    imports,
    misuse,
    page,
    platforms,
    sanitizers,
    trends_and_graphs,
)
from testing import ROOT

CHECKS = {
    "random": (accuracy.random, 1_000_000),
    "segments": (accuracy.segments, 100_000),
    "bitwise": (bits.bitwise, 400),
    "arm": (arm.arm, 2000),
    "platforms": (platforms.platforms, 500),
    "misuse": (misuse.misuse, 2000),
    "huge_arrays": (huge_arrays.huge_arrays, 2**31 + 8),
    "import": (imports.imports, len(imports.SITUATIONS)),
    "converged": (accuracy.converged, 1000),
    "fused_lasso": (features.fused_lasso, 100_000),
    "isotropic": (features.isotropic, 300),
    "tv_ball": (features.tv_ball, 50_000),
    "selection": (features.selection, 2000),
    "trend_filter": (trends_and_graphs.trend_filter, 500),
    "graph_tv": (trends_and_graphs.graph_tv, 500),
    "data_weight": (trends_and_graphs.data_weight, 1000),
    "fuzz": (fuzz.check, None),
    "sanitizers": (sanitizers.sanitizers, 20_000),
}
TIMED = ("misuse", "fuzz")  # take --seconds


def run(name: str, cases: int | None, seconds: int) -> dict:
    """The result of one check, with the command that makes it again."""
    check, full = CHECKS[name]
    options = {} if full is None else {"cases": full if cases is None else cases}
    options |= {"seconds": seconds} if name in TIMED else {}
    start = time.perf_counter()
    result = check(**options)
    command = f"python -m soak {name}"
    command += "".join(f" --{option} {value}" for option, value in options.items())
    took = round(time.perf_counter() - start)
    return result._asdict() | {"command": command, "took_seconds": took}


def main() -> None:
    """Parses the command line, runs, renders."""
    parser = argparse.ArgumentParser(
        prog="python -m soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs")
    options = parser.parse_args()
    if unknown := set(options.checks) - set(CHECKS):
        parser.error(f"no such check: {', '.join(sorted(unknown))}")
    jax.config.update("jax_enable_x64", True)
    file = options.output / "reliability.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in options.checks or CHECKS:
        results[name] = run(name, options.cases, options.seconds)
        print(f"{name}: {results[name]}", flush=True)
        file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    ordered = {name: results[name] for name in CHECKS if name in results}
    (options.output / "reliability.md").write_text(page.render(ordered))
    raise SystemExit(any(results[name]["failures"] for name in options.checks or CHECKS))


if __name__ == "__main__":
    main()
