"""docs/reliability.md from the results."""

from __future__ import annotations

HEAD = """# Reliability

Made by `python -m soak` (after `pip install -e '.[test]'`) with the CPU kernels.
Every figure is as that command printed it.

| check | what | how many | result | failures | command |
|---|---|---|---|---|---|
"""

TAIL = """
`python -m pytest -m nightly tests/tools/test_soak.py` runs every check at a small size, and shows
that each would notice a broken result.

Errors in `random` are relative to max|x|, but at least to tiny / eps (1e-31 in float32): XLA's
threads take numbers below tiny, the least normal number, for zero. It counts the signals whose sum
Σ|x| is beyond the range of their arithmetic (3.4e38 in float32 and the half types, 1.8e308 in
float64). They are solved like all others; what is itself beyond the range is not: a gap of such
signals may be inf, and so may a derivative in a direction whose sum is beyond it.

Of the random wrong calls at the FFI targets in `misuse`, some are right again by chance (a weight
that becomes one per edge, another solver): `soak/calls.py` tells them apart by what the
targets promise, and a wrong call that is served is a failure as is a right one that is not. Memory
runs out under RLIMIT_AS, in programs that are compiled already. `huge_arrays` needs 9 GiB of memory and
maps its input again and again from one tile; `AcceleratedDykstra` refuses arrays
of 2^31 samples and more along its axes. `fuzz` needs clang, with its sanitizers and libFuzzer;
`arm` a compiler for aarch64 and qemu.

Nothing here ran on a GPU: `platforms` emulates the CUDA kernels.
"""


def render(results: dict) -> str:
    """The page; a check that has not been run has no row."""
    rows = [
        f"| `{name}` | {r['what'].replace('|', chr(92) + '|')} | {r['cases']} | "
        f"{r['result'].replace('|', chr(92) + '|')} | {len(r['failures'])} | `{r['command']}` |"
        for name, r in results.items()
    ]
    failures = [line for name, r in results.items() for line in _listed(name, r["failures"])]
    known = ["", "Failures:", "", *failures] if failures else []
    return HEAD + "\n".join([*rows, *known]) + "\n" + TAIL


def _listed(name: str, failures: list[str], most: int = 5) -> list[str]:
    lines = [f"* `{name}`: {text}" for text in failures[:most]]
    more = len(failures) - most
    return [*lines, f"* `{name}`: {more} more, all in reliability.json"] if more > 0 else lines
