"""What a check hands back."""

from __future__ import annotations

import re
from typing import NamedTuple


class Result(NamedTuple):
    """One row of docs/reliability.md."""

    what: str
    cases: str
    result: str
    failures: list[str]  # the seeds, or what happened; empty where the check passed


def finding(log: str) -> str:
    """The lines of a log that say what a sanitizer or pytest found, without folders.

    They go into a page that is published: the names of a machine's folders do not. The end of the
    log is printed.
    """
    print(log[-4000:], flush=True)
    lines = [
        line
        for line in log.splitlines()
        if re.match(r"SUMMARY|FAILED|(CMake )?(ERROR|Error)\b", line)
    ]
    return re.sub(r"(?<![\w.])(/[\w.+-]+)+/", "", "; ".join(lines)) or "stopped without saying why"
