"""The emulator of CUDA itself: it runs right kernels and reports wrong ones; what is solved by parts of kernels."""

import ctypes
import re

import numpy as np
import pytest

import jaxtv
from testing import emulator
from testing.callframe import bind
from testing.generators import rng

pytestmark = pytest.mark.cpu_only


@pytest.fixture(scope="module")
def selftest():
    library = emulator.selftest()
    library.selftest.restype = library.on_device.restype = ctypes.c_char_p
    return library


SELFTESTS = {  # name: what is reported, the sum of what the kernel wrote
    "barrier": ("", 141_120_000),  # 70,000 blocks: more than 65,535
    "warp": ("", 2016),
    "primitives": ("", 96),
    "no barrier": ("race on shared memory byte .*: written after a read by", None),
    "reuse": ("race on shared memory byte .*: written after a read by", None),
    "same bytes": ("race on shared memory byte 0: written after a write by thread 0", None),
    "across warps": ("race on shared memory byte .*: written after a read by", None),
    "publish": ("race on shared memory byte 0: read after a write by thread 0", None),
    "shuffle": ("race on shared memory byte 0: read after a write by thread 0", None),
    "overwrite": ("race on shared memory byte 0: written after a read by other warps", None),
    "out of bounds": ("out of bounds: element 32 of an array of 32", None),
    "uninitialised": ("read before it is written", None),
    "too much": ("more shared memory taken", None),
    "divergent": ("wait for lanes that are elsewhere", None),
    "block too large": ("bad block of 2048", None),
    "other stream": ("another stream", None),
}


@pytest.mark.parametrize("name", SELFTESTS)
def test_the_machine_runs_right_kernels_and_reports_wrong_ones(selftest, name):
    message, expected = SELFTESTS[name]
    total = ctypes.c_int64()
    got = selftest.selftest(name.encode(), ctypes.byref(total)).decode()
    assert bool(got) == bool(message), got
    assert re.search(message, got)
    if expected is not None:
        assert total.value == expected


@pytest.mark.parametrize(
    ("device", "stream", "asked", "size", "message"),
    [
        (0, 0, 0, 200_000, ""),
        (1, 1, 1, 60_000, ""),
        (1, 1, 1, 70_000, "may not have here"),
        (2, 2, 0, 60_000, "may not have here"),
        (2, 2, 0, 40_000, ""),
        (0, 2, 0, 1000, "another stream"),
    ],
)
def test_the_machine_has_devices(selftest, device, stream, asked, size, message):
    """Two kinds; more than 48 KiB must be asked for on each; a stream belongs to one."""
    got = selftest.on_device(device, stream, asked, size).decode()
    assert message in got
    assert bool(got) == bool(message)


def test_the_line_search_interpolates(selftest):
    """Towards the minimum, where halving would stop at 1/8."""
    selftest.backtracked.argtypes, selftest.backtracked.restype = [ctypes.c_double], ctypes.c_double
    assert selftest.backtracked(0.5) == 1
    assert selftest.backtracked(6.0) == pytest.approx(1 / 12)


def test_division_by_multiplication(selftest):
    assert selftest.divider_errors() == 0


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_quotients_are_rounded_correctly_unless_denormal(off):
    """From a reciprocal that is off by an ulp. Denormal quotients may be the neighbour."""
    wrong = emulator.library().emulator_wrong_quotients
    assert wrong(1_000_000, False, off) == 0
    assert wrong(100_000, True, off) > 0


# ---------------------------------------------------------------------------- certificates


def certified(selftest, x, w):
    """(y, which signals are certified) of include/jaxtv/certificate.hpp."""
    y, w = np.array(x, np.float32), np.ascontiguousarray(w, np.float32)
    pointer = np.ctypeslib.ndpointer(np.float32, flags="C")
    selftest.certified.argtypes = [pointer, pointer, ctypes.c_int, ctypes.c_int]
    n = x.shape[1]
    sure = [selftest.certified(a, b, n, w.shape[1] == n - 1) for a, b in zip(y, w)]
    return y, np.array(sure, bool)


def certified_by_windows(selftest, x, w):
    """(y, which signals are certified) of cuda/prox1d/thread_windows.cuh."""
    y, w, sure = np.array(x), np.ascontiguousarray(w), np.zeros(len(x), np.int32)
    array = lambda dtype: np.ctypeslib.ndpointer(dtype, flags="C")
    run = selftest.certified_windows
    run.restype = ctypes.c_char_p
    floats, integer = array(np.float32), ctypes.c_int
    run.argtypes = [floats, floats, integer, integer, integer, array(np.int32)]
    assert run(y, w, *x.shape, w.shape[1], sure) == b""
    return y, sure.astype(bool)


def on_cpu(x, w):
    return bind("prox1d", x, w, axis=1, solver=jaxtv.Direct())[0]


@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (0, 255), (300, 1)])
@pytest.mark.parametrize("n", [1, 2, 3, 32, 200])
def test_float32_solutions_are_certified_and_exact(selftest, n, offset, scale, per_edge):
    """Nearly all of them, bit for bit those of the CPU."""
    r, signals = rng(2), 300
    x = (offset + scale * r.normal(size=(signals, n))).astype(np.float32)
    w = (scale * r.random((signals, max(1, n - 1) if per_edge else 1)) + 1e-3).astype(np.float32)
    y, sure = certified(selftest, x, w)
    assert np.array_equal(y[sure], on_cpu(x, w)[sure])
    assert np.count_nonzero(sure) >= 0.98 * signals


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_float32_cannot_tell_is_not_certified(selftest, bad):
    x = rng(3).normal(size=(3, 40)).astype(np.float32)
    x[0, 0], x[1, 20], x[2, 39] = bad, bad, bad
    assert not certified(selftest, x, np.full((3, 1), 0.5, np.float32))[1].any()
    x = rng(3).normal(size=(3, 40)).astype(np.float32)
    assert not certified(selftest, x, np.float32([[-1], [np.nan], [0]]))[1].any()
    assert not certified(selftest, x, np.where(np.arange(39) == 7, -1, x[:, :39] ** 2))[1].any()


@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("n", [2, 6, 64])
def test_ties_are_decided_in_double(selftest, n, per_edge):
    """Whole numbers: duals touch their bounds, and cuts are no jumps; bit for bit as on the CPU."""
    r, signals = rng(4), 300
    x = r.integers(0, 8, (signals, n)).astype(np.float32)
    w = r.integers(1, 4, (signals, n - 1 if per_edge else 1)).astype(np.float32)
    y, sure = certified(selftest, x, w)
    assert np.array_equal(y[sure], on_cpu(x, w)[sure])
    assert np.count_nonzero(sure) >= 0.9 * signals


@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize(("n", "lam"), [(1, 1), (66, 0.1), (300, 0.3), (1024, 1)])
def test_windows_are_certified_and_exact(selftest, n, lam, per_edge):
    """Nearly all signals with noise; the others are solved again, by another method."""
    r, signals = rng(2), 100
    x = (0.5 * r.normal(size=(signals, n)) + (np.arange(n) >= n / 2)).astype(np.float32)
    w = (lam * r.uniform(0.5, 1, (signals, max(1, n - 1) if per_edge else 1))).astype(np.float32)
    y, sure = certified_by_windows(selftest, x, w)
    assert np.array_equal(y[sure], on_cpu(x, w)[sure])
    assert np.count_nonzero(sure) >= 0.97 * signals


def test_windows_that_do_not_suffice_are_not_certified(selftest):
    """Segments longer than windows: cuts in them are wrong."""
    x = (0.5 * rng(3).normal(size=(20, 1000))).astype(np.float32)
    w = np.full((20, 1), 6, np.float32)
    y, sure = certified_by_windows(selftest, x, w)
    assert np.array_equal(y[sure], on_cpu(x, w)[sure])
    assert np.count_nonzero(sure) < 20
