"""Builds the emulator and the call frame ahead of the tests."""

import time

from testing import callframe, emulator

if __name__ == "__main__":
    start = time.perf_counter()
    emulator.library()
    emulator.selftest()
    callframe.library()
    print(f"built in {time.perf_counter() - start:.0f} s")
