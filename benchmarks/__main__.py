"""Measures everything and writes the report.

    python -m benchmarks [--quick] [--only CHAPTER ...] [--output FOLDER]
    python -m benchmarks --render                  # the report again, from the numbers it has

FOLDER (docs, or build/benchmarks/quick with --quick) gets benchmarks.json, benchmarks.md and
images/bench_*.png. With --only, the other chapters stay as they are in benchmarks.json.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import time

from benchmarks import capabilities, machine, network, report, sections
from benchmarks.environments import BUILD, ROOT, Environments

CHAPTERS = sections.CHAPTERS | {"network": network.training_step} | capabilities.CHAPTERS

# XLA allocates every result anew. As the methods of a race come and go, glibc gives its memory back
# to the system or keeps it. What was given back costs a page fault for every 4 KiB, up to half of
# the time of a short call; peers that write into arrays made before never pay for that. So keep it.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


def measure(quick: bool, only: list[str], known: dict, file: pathlib.Path) -> dict:
    """The numbers: `known` with the chapters in `only`, or all of them, measured anew.

    They are in `file` after every chapter, so that a run that is stopped is not lost.
    """
    results = known | {"environment": machine.describe(), "quick": quick}
    results["chapters"] = dict(known.get("chapters", {}))
    results["seconds"] = dict(known.get("seconds", {}))
    results["dates"] = dict(known.get("dates", {}))
    environments = Environments(may_install=not quick)
    try:
        for name in only or CHAPTERS:
            start = time.perf_counter()
            print(f"== {name}", flush=True)
            results["chapters"][name] = CHAPTERS[name](sections.Bench(environments, quick))
            results["dates"][name] = time.strftime("%Y-%m-%d")
            results["seconds"][name] = round(time.perf_counter() - start, 1)
            file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    finally:
        environments.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to test the suite")
    parser.add_argument("--only", nargs="+", choices=CHAPTERS, default=[], metavar="CHAPTER")
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--render", action="store_true", help="measure nothing")
    options = parser.parse_args()
    folder = options.output or (BUILD / "quick" if options.quick else ROOT / "docs")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "benchmarks.json"
    keep = options.render or options.only
    results = json.loads(file.read_text()) if keep and file.exists() else {}
    if not options.render:
        results = measure(options.quick, options.only, results, file)
    report.write(results, folder)
    print(f"wrote {folder / 'benchmarks.md'}")


if __name__ == "__main__":
    if not ALLOCATOR.items() <= os.environ.items():
        command = [sys.executable, "-m", "benchmarks", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | ALLOCATOR)
    main()
