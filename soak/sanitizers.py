"""The kernels' tests under ASan and UBSan, and the handlers on many threads under TSan."""

from __future__ import annotations

import re
import subprocess

from soak.result import Result, finding
from testing import ROOT

SCRIPT = ROOT / "scripts" / "sanitize.sh"


def verdict(name: str, log: str, status: int, counted: str) -> tuple[str, list[str]]:
    """What one sanitizer ran, by the last match of `counted` in its log, and its failures."""
    counts = re.findall(counted, log)
    ran = f"{name}: {int(counts[-1]) if counts else 0:,}"
    return ran, [f"{name}: {finding(log)}"] if status or not counts else []


def sanitizers(cases: int) -> Result:
    """The row of the page; `cases` are the calls that are made under TSan."""
    runs = (
        ("address,undefined", [], r"(\d+) passed"),
        ("thread", [str(cases)], r"(\d+) runs"),
    )
    results, failures = [], []
    for name, options, counted in runs:
        command = [SCRIPT, name, *options]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        ran, failed = verdict(name, done.stdout + done.stderr, done.returncode, counted)
        results.append(ran)
        failures += failed
    return Result(
        "the kernels' tests under ASan and UBSan; all CPU handlers in concurrent threads "
        "under TSan (scripts/sanitize.sh)",
        "the tests of the kernels; random calls",
        f"{results[0]} tests passed; {results[1]} calls; {len(failures)} findings",
        failures,
    )
