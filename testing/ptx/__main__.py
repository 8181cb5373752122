"""Run tests on nvcc's compiled code, in every order of threads that a GPU may choose.

    python -m testing.ptx                         # the kernel tests in all orders
    python -m testing.ptx --seeds 20 --races tests/kernels/test_components.py
    python -m testing.ptx --orders lockstep tests/api/test_converged.py -- -x -k gradient

Tests outside of tests/kernels run the library's functions on the CUDA kernels through XLA. What follows `--`
goes to pytest. Everywhere scratch is filled with 0xff first, and what nobody wrote must not be read.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from testing import ROOT, callframe, ptx

KERNEL_TESTS = [
    f"tests/kernels/test_{name}.py"
    for name in ("ptx", "prox1d", "segments", "dykstra", "components", "launches", "through_xla")
]


def runs(orders: list[str], seeds: int) -> list[dict[str, str]]:
    """The environment of each run: the orders, and one with rcp.approx off by an ulp."""
    found = []
    for order in orders:
        random = order in ("threads", "lockstep")
        for seed in range(1, seeds + 1) if random else [1]:
            found.append({"JAXTV_PTX_ORDER": order, "JAXTV_PTX_SEED": str(seed)})
    return [*found, {"JAXTV_PTX_ULPS": "1"}]


def main() -> int:
    """The number of runs that failed."""
    parser = argparse.ArgumentParser(
        prog="python -m testing.ptx",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=1, help="runs of each random order")
    parser.add_argument("--races", action="store_true", help="races on global memory too")
    parser.add_argument("--orders", nargs="+", choices=ptx.ORDERS, default=list(ptx.ORDERS))
    parser.add_argument("tests", nargs="*", default=KERNEL_TESTS, help="of pytest")
    own, _, rest = " ".join(sys.argv[1:]).partition(" -- ")
    options = parser.parse_args(own.split())
    start = time.perf_counter()
    callframe.library()
    ptx.library()
    print(f"built in {time.perf_counter() - start:.0f} s", flush=True)
    environment = os.environ | {"JAXTV_EMULATOR": "ptx"}
    if options.races:
        environment["JAXTV_PTX_RACES"] = "1"
    if not all(test.startswith("tests/kernels") for test in options.tests):
        environment["JAXTV_TEST_PLATFORM"] = "emulator"
    failed = 0
    for run in runs(options.orders, options.seeds):
        print(*(f"{name}={value}" for name, value in run.items()), flush=True)
        command = [sys.executable, "-m", "pytest", "-q", *options.tests, *rest.split()]
        failed += (
            subprocess.run(command, cwd=ROOT, env=environment | run, check=False).returncode != 0
        )
    return failed


if __name__ == "__main__":
    sys.exit(main())
