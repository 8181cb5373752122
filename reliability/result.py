"""What a check hands back."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """One row of docs/reliability.md."""

    what: str
    cases: str
    result: str
    failures: list[str]  # the seeds, or what happened; empty where the check passed
