"""docs/reliability.md from the results."""

from __future__ import annotations

HEAD = """# Reliability

Made by `python -m reliability` with the CPU kernels. Every figure is as that command printed it.

| check | what | how many | result | failures | command |
|---|---|---|---|---|---|
"""

TAIL = """
`python -m pytest tests/test_reliability.py` runs every check at a small size, and shows that each
would notice a broken result.

Errors in `random` are relative to max|x|, but at least to tiny / eps (1e-31 in float32): XLA's
threads take numbers below tiny, the least normal number, for zero. It counts the signals whose sum
Σ|x| is beyond the range of their arithmetic (3.4e38 in float32 and the half types, 1.8e308 in
float64). They are solved like all others; what is itself beyond the range is not: a gap of such
signals may be inf, and so may a derivative in a direction whose sum is beyond it. The CUDA kernels
of `Dykstra` keep sums of samples, and give NaN for images with samples beyond about a tenth of the
largest number; the CPU's do not.

Not done yet: the sizes that `python -m reliability` has by default, wherever the table has fewer
cases; sanitizer builds (ASan, UBSan, TSan) of the native code under the suite; coverage-guided
fuzzing (AFL, libFuzzer) of the FFI entry points; allocation failure; sizes of 2^31 samples; all of
these on a GPU.
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
