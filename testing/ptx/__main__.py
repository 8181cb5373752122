"""Run tests on nvcc's compiled code, in every order of threads that a GPU may choose.

    python -m testing.ptx                         # the kernel tests in all orders
    python -m testing.ptx --seeds 20 --races tests/kernels/test_components.py
    python -m testing.ptx --order lockstep tests/api/test_converged.py -- -x -k gradient

Tests outside of tests/kernels run the library's functions on the CUDA kernels through XLA. What follows `--`
goes to pytest. Everywhere scratch is filled with 0xff first, and what nobody wrote must not be read.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from testing import ROOT, callframe, ptx

KERNEL_TESTS = [
    f"tests/kernels/test_{name}.py"
    for name in (
        "ptx",
        "prox1d",
        "data_weight",
        "segments",
        "dykstra",
        "components",
        "isotropic",
        "launches",
        "through_xla",
    )
]

# The files of the kernels that most depend on the order of threads; each order once.
QUICK_TESTS = [f"tests/kernels/test_{name}.py" for name in ("ptx", "components", "launches")]
QUICK_RUNS = [
    {"JAXTV_PTX_ORDER": "lockstep", "JAXTV_PTX_SEED": "1"},
    {"JAXTV_PTX_ORDER": "threads", "JAXTV_PTX_SEED": "1", "JAXTV_PTX_ULPS": "1"},
]


def runs(orders: Sequence[str], seeds: int) -> list[dict[str, str]]:
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
    parser.add_argument("--order", action="append", choices=ptx.ORDERS, help="not all, but these")
    parser.add_argument("-n", default="0", help="processes of pytest: a number, or auto")
    parser.add_argument("--quick", action="store_true", help="the selection of the gate")
    parser.add_argument("tests", nargs="*", help="of pytest")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, rest = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    tests = options.tests or (QUICK_TESTS if options.quick else KERNEL_TESTS)
    start = time.perf_counter()
    callframe.library()
    ptx.library()
    ptx.selftest()
    print(f"built in {time.perf_counter() - start:.0f} s", flush=True)
    environment = os.environ | {"JAXTV_EMULATOR": "ptx"}
    if options.races:
        environment["JAXTV_PTX_RACES"] = "1"
    if not all(test.startswith("tests/kernels") for test in tests):
        environment["JAXTV_TEST_PLATFORM"] = "emulator"
    failed = 0
    for run in QUICK_RUNS if options.quick else runs(options.order or ptx.ORDERS, options.seeds):
        print(*(f"{name}={value}" for name, value in run.items()), flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-n", options.n, *tests, *rest]
        failed += (
            subprocess.run(command, cwd=ROOT, env=environment | run, check=False).returncode != 0
        )
    return failed


if __name__ == "__main__":
    sys.exit(main())
