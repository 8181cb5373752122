"""docs/reliability.md from the results."""

from __future__ import annotations

HEAD = """# Reliability

`python -m soak` (after `pip install -e '.[test]'`) measured every figure here, with the CPU
kernels. `python -m soak NAME` repeats one row.

| name | what is checked | how many | result | failures |
|---|---|---|---|---|
"""

TAIL = """
`python -m pytest -m nightly tests/tools/test_soak.py` runs every check at a small size, and shows
that each of them would notice a broken result.

Notes on the checks:

* `random`: errors are relative to max|x|, but at least to tiny / eps (1e-31 in float32), because
  XLA's threads treat numbers below tiny, the least normal number, as zero. Some signals have a sum
  Σ|x| beyond the range of their arithmetic (3.4e38 in float32 and the half types, 1.8e308 in
  float64). They are solved like all others, but their gap may be inf, and so may a derivative in a
  direction whose sum is beyond the range.
* `misuse`: a random change of a call sometimes gives another valid call, for example with a weight
  per edge. `soak/calls.py` decides which calls are valid. Serving a wrong call is a failure, and so
  is refusing a valid one. Memory is limited by RLIMIT_AS, in programs that are compiled already.
* `huge_arrays` needs 9 GiB of memory, and maps its input repeatedly from one tile.
  `AcceleratedDykstra` refuses arrays of 2^31 samples and more along its axes.
* `fuzz` needs clang with its sanitizers and libFuzzer. `arm` needs a compiler for aarch64 and qemu.
* `platforms` emulates the CUDA kernels. Nothing here ran on a GPU.
"""


def render(results: dict) -> str:
    """The page; a check that has not been run has no row."""
    rows = [
        f"| `{name}` | {r['what'].replace('|', chr(92) + '|')} | {r['cases']} | "
        f"{r['result'].replace('|', chr(92) + '|')} | {len(r['failures'])} |"
        for name, r in results.items()
    ]
    failures = [line for name, r in results.items() for line in _listed(name, r["failures"])]
    known = ["", "Failures:", "", *failures] if failures else []
    return HEAD + "\n".join([*rows, *known]) + "\n" + TAIL


def _listed(name: str, failures: list[str], most: int = 5) -> list[str]:
    lines = [f"* `{name}`: {text}" for text in failures[:most]]
    more = len(failures) - most
    return [*lines, f"* `{name}`: {more} more, all in reliability.json"] if more > 0 else lines
