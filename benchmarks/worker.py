"""Times a method in this process; run as a module, does so for requests that come as JSON lines.

A request is {"do": "build" | "sample" | "output" | "clear", ...}; the answer is one line, with
"error" and "missing" in it where the request failed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks import methods

WARM = 0.02  # seconds: a shorter call is preceded by one that is not timed
SLOW = 5.0  # a longer one is not repeated to know how long it takes


def sample(call: Callable[[], object], repeat: int = 1) -> float:
    """Seconds per call, of `repeat` calls in a row."""
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


class Runner:
    """One method on one problem, compiled and warm."""

    def __init__(self, build: str, x: np.ndarray, lam: float, axes: tuple[int, ...], options: dict):
        self.solve = getattr(methods, build)(x, lam, axes, **options)
        self.rough = sample(self.call)
        if self.rough < SLOW:
            self.rough = sample(self.call)

    def call(self) -> None:
        self.result = self.solve()

    def sample(self, repeat: int) -> float:
        if self.rough < WARM:
            self.call()
        return sample(self.call, repeat)

    def output(self) -> np.ndarray:
        return np.asarray(self.result)


def answer(request: dict, runners: dict[str, Runner]) -> dict:
    key = request.get("key", "")
    if request["do"] == "build":
        x = np.load(request["input"])
        runners[key] = Runner(
            request["build"], x, request["lam"], tuple(request["axes"]), request["options"]
        )
        return {"rough": runners[key].rough}
    if request["do"] == "sample":
        return {"seconds": runners[key].sample(request["repeat"])}
    if request["do"] == "output":
        np.save(request["output"], runners[key].output())
    else:
        runners.clear()
    return {}


def main() -> None:
    # Packages print to stdout as they like; the answers go where it pointed to at first.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    runners: dict[str, Runner] = {}
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line), runners)
        except Exception as error:
            missing = isinstance(error, ImportError)
            reply = {"error": f"{type(error).__name__}: {error}", "missing": missing}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
