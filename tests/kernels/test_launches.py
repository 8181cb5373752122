"""What the CUDA handlers launch: by shapes only, the documented kernel, the same bits in any order, any device."""

import ctypes
import re

import numpy as np
import pytest

import jaxtv
from testing import ROOT, emulator
from testing.callframe import HandlerError, bind, recordable
from testing.fgp import fresh
from testing.generators import EXACT, NEWTON, rng, weight_shape

pytestmark = pytest.mark.cpu_only


def test_cuda_graphs_may_record_every_handler():
    assert all(recordable(target, "cuda") for target in emulator.handlers())


def test_no_kernel_waits_or_allocates():
    for file in filter(lambda path: path.is_file(), (ROOT / "cuda").rglob("*")):
        found = re.findall(
            r"\bcuda\w*(?:Synchronize|Malloc|Free|Memcpy|Query)\w*", file.read_text()
        )
        assert not found, file


def test_only_the_means_over_components_use_atomics():
    files = filter(lambda path: path.is_file(), (ROOT / "cuda").rglob("*"))
    assert {f.name for f in files if re.search(r"\batomic\w+\(", f.read_text())} == {
        "components.cu"
    }


# ---------------------------------------------------------------------------- plans


def prox1d(solver=EXACT["direct"], axis=1, prepare=lambda x: x):
    """The prox of x along an axis, and both of its derivatives."""

    def run(x, platform="cuda", device=0):
        x = prepare(x)
        w = np.full(weight_shape(x.shape, axis, False), 0.5, x.dtype)
        on = {"axis": axis, "platform": platform, "device": device}
        (y,) = bind("prox1d", x, w, solver=solver, **on)
        return y, *bind("segment_jvp", y, w, x, w, **on), *bind("segment_vjp", y, w, x, **on)

    return run


def data_weight(x, platform="cuda", device=0):
    """The prox with data weights."""
    w, mass = np.full((x.shape[0], 1), 0.5, x.dtype), 1 / (1 + x**2)
    on = {"axis": 1, "platform": platform, "device": device}
    return bind("prox1d_data_weight", x, mass, w, **on)


def dykstra(axes, prepare=lambda x: x):
    """Four sweeps, with and without edge codes, and both of their derivatives."""

    def run(x, platform="cuda", device=0):
        x = prepare(x)
        ws = [np.full(weight_shape(x.shape, a, False), 0.5, x.dtype) for a in axes]
        sweeps = {"axes": axes, "iterations": 4, "platform": platform, "device": device}
        (alone,) = bind("dykstra", x, *ws, inner=jaxtv.Direct(), **sweeps)
        y, codes = bind("dykstra_with_codes", x, *ws, inner=jaxtv.Direct(), **sweeps)
        tangent = bind("dykstra_jvp", codes, x, *ws, **sweeps)
        cotangents = bind("dykstra_vjp", codes, x, edge=(False,) * len(axes), **sweeps)
        return alone, y, codes, *tangent, *cotangents

    return run


def components(x, platform="cuda", device=0):
    """Both derivatives of the converged prox, whose components lie above 0."""
    axes, codes = (1, 2), np.where(x > 0, 0, 3).astype("uint8")[:, None]
    ws = [np.zeros(weight_shape(x.shape, a, False), x.dtype) for a in axes]
    on = {"axes": axes, "platform": platform, "device": device}
    tangent = bind("components_jvp", codes, x, *ws, **on)
    return *tangent, *bind("components_vjp", codes, x, edge=(False, False), **on)


def isotropic(x, platform="cuda", device=0):
    """The steps of a call, in one channel of each element."""
    return bind(
        "isotropic_steps",
        *fresh(x[:, None], np.full((len(x), 1, 1, 1), 0.5, x.dtype)),
        **{"axes": (1, 2, 3), "tol": 1e-3, "max_iterations": 20},
        **{"platform": platform, "device": device},
    )


PLANS = {  # shape, what runs
    "tiles": ((70, 33), prox1d()),
    "block": ((2, 700), prox1d()),
    "wide block": ((2, 1500), prox1d()),
    "grid": ((1, 33_000), prox1d()),
    "Newton": ((5, 90), prox1d(NEWTON["backtracking"])),
    "serial": ((1500, 9), prox1d(EXACT["taut string"], axis=0)),
    "data weights": ((2, 300), data_weight),
    "image": ((2, 9, 8), dykstra((2, 1))),
    "sweeps": ((2, 5, 160, 3), dykstra((3, 2, 1))),
    "components": ((2, 15, 14), components),
    "isotropic": ((2, 41, 14), isotropic),
}
ORDERED = {
    **PLANS,
    "windows of ties": ((2, 700), prox1d(prepare=np.round)),
    "parallel search": ((3, 300), prox1d(NEWTON["parallel"])),
    "chunks": ((1, 20_000), prox1d()),
    "near the end of float32": (
        (2, 5, 160, 3),
        dykstra((3, 2, 1), prepare=lambda x: np.float32(3e38) * np.tanh(x)),
    ),
}


@pytest.mark.parametrize("plan", PLANS)
def test_launches_depend_on_shapes_only(plan):
    """So a recorded CUDA graph is right for any other data."""
    shape, run = PLANS[plan]
    noise = rng().normal(size=shape).astype("float32")
    ramp = np.arange(noise.size, dtype="float32").reshape(shape)
    bad = np.where(np.arange(noise.size).reshape(shape) % 7, noise, np.nan).astype("float32")
    found = set()
    for x in (noise, ramp, 0 * noise, bad):
        with emulator.launches() as launches:
            run(x)
        found.add(tuple(launches))
    assert len(found) == 1
    assert found.pop()


@pytest.mark.parametrize("plan", ORDERED)
def test_bits_do_not_depend_on_the_order_of_threads(plan):
    """A race on global memory, or atomics that do not commute, would show."""
    shape, run = ORDERED[plan]
    x = rng().normal(size=shape).astype("float32")
    usual = run(x)
    with emulator.reversed_order():
        reverse = run(x)
    for a, b in zip(usual, reverse, strict=True):
        assert np.array_equal(a, b, equal_nan=True)


@pytest.mark.unsanitized
@pytest.mark.parametrize(("shape", "axis"), [((64, 33), 1), ((64, 33, 1), 1), ((16, 33, 4), 1)])
def test_signals_of_half_types_share_blocks(shape, axis):
    """Their 1D prox with a derivative is one pass of Dykstra, whose batch is every signal."""
    x = rng().normal(size=shape).astype("bfloat16")
    with emulator.launches() as launches:
        on = {"axes": (axis,), "iterations": 1, "platform": "cuda"}
        w = np.full(weight_shape(shape, axis, False), 0.5, np.float32)
        _, codes = bind("dykstra_with_codes", x, w, inner=jaxtv.Direct(), **on)
        bind("dykstra_vjp", codes, x, edge=(False,), **on)
    blocks = {launch.kernel: launch.blocks for launch in launches}
    assert blocks["pass_of_tiles"] <= 64 // 16
    assert blocks["segment_means"] <= 64 // 16


# ---------------------------------------------------------------------------- crossovers


def documented(n, signals, dtype):
    """The kernel of docs/gpu.md's table for signals along the last axis."""
    text = (ROOT / "docs/gpu.md").read_text()
    lanes = 20 * 1024 // (9 if dtype == "float64" else 5) // (n + 1)

    def holds(condition, value):
        bounds = re.findall(r"([≤≥]) ([\d,]+)", condition)
        values = [(sign, int(bound.replace(",", ""))) for sign, bound in bounds]
        return all(value <= bound if sign == "≤" else value >= bound for sign, bound in values)

    for row in re.findall(r"^\| (.*?) \| (.*?) \| `(prox_\S+?)`.*\|$", text, re.M):
        length, count, kernel = row
        if "float32" in length and dtype == "float64":
            continue
        if holds(length, lanes if "lanes" in length else n) and holds(count, signals):
            return kernel
    return None


def check_route(launches, n, signals, dtype):
    kernel, _, warps = documented(n, signals, dtype).rstrip(">").partition("<")
    ran = {launch.kernel: launch for launch in launches}
    assert ("grid_write" if kernel == "prox_grid" else kernel) in ran
    if warps:
        assert ran[kernel].blocks * ran[kernel].threads == 32 * int(warps) * signals


ROUTES = [  # n, signals: either side of every crossover
    *((n, 4) for n in (1, 64, 65, 256, 257, 1024, 1025, 32_767)),
    *((n, 4092) for n in (64, 65, 300)),
    *((n, 4096) for n in (65, 256, 257, 1024)),
    (32_768, 64),
    (32_768, 68),
]


@pytest.mark.parametrize(("n", "signals"), ROUTES)
def test_direct_picks_the_documented_kernel(n, signals):
    with emulator.launches() as launches:
        emulator.library().emulator_huge(0, signals, n, 1)  # two blocks of each launch
    check_route(launches, n, signals, "float32")


@pytest.mark.parametrize(
    ("n", "signals", "dtype"),
    [
        (257, 4, "float64"),
        pytest.param(257, 4, "bfloat16", marks=pytest.mark.unsanitized),
        (32_768, 1, "float32"),
    ],
)
def test_direct_picks_the_documented_kernel_for_types_and_the_grid(n, signals, dtype):
    w = np.ones((signals, 1), "float32" if dtype == "bfloat16" else dtype)
    x = np.zeros((signals, n)).astype(dtype)
    with emulator.launches() as launches:
        bind("prox1d", x, w, axis=1, solver=jaxtv.Direct(), platform="cuda")
    check_route(launches, n, signals, dtype)


# ---------------------------------------------------------------------------- devices


def test_every_call_asks_the_device_that_it_runs_on():
    """An image that fits into the shared memory of even devices only, on one after the other."""
    x, run = rng().normal(size=(1, 110, 111)).astype(np.float32), dykstra((2, 1))
    expected = run(x, "cpu")
    for device in (0, 1, 2):
        with emulator.launches() as launches:
            got = run(x, "cuda", device)
        kernels = {launch.kernel for launch in launches}
        assert ("image_dykstra" in kernels) == (device % 2 == 0)
        assert any(kernel.startswith("image_") for kernel in kernels) == (device % 2 == 0)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_kernels_may_always_use_all_shared_memory_of_the_device():
    """Else two host threads that launch a kernel with different sizes could lower each other's."""
    run, r = dykstra((2, 1)), rng()
    for size in (110, 80):
        run(r.normal(size=(1, size, size)).astype(np.float32))
    assert emulator.library().emulator_least_allowed(0) == 232_448


def test_a_refused_permission_is_an_error_of_that_call_alone():
    x, run = rng().normal(size=(1, 80, 80)).astype(np.float32), dykstra((2, 1))
    emulator.library().emulator_refuse(True)
    try:
        with pytest.raises(HandlerError, match="INTERNAL: jaxtv: invalid argument"):
            run(x)
    finally:
        emulator.library().emulator_refuse(False)
    run(x)


@pytest.mark.parametrize(
    ("shape", "axes", "inner"),
    [((1, 3, 4), (2, 1), NEWTON["backtracking"]), ((1, 2, 3, 4), (3, 2, 1), jaxtv.Direct())],
    ids=["1D kernels", "tiles"],
)
def test_a_launch_that_fails_is_the_error_of_the_call_and_its_last_one(shape, axes, inner):
    x = rng().normal(size=shape).astype(np.float32)
    ws = [np.full(weight_shape(shape, a, False), 0.5, x.dtype) for a in axes]
    sweeps = {"axes": axes, "iterations": 1, "platform": "cuda"}
    _, codes = bind("dykstra_with_codes", x, *ws, inner=inner, **sweeps)
    calls = [
        lambda: bind("dykstra_with_codes", x, *ws, inner=inner, **sweeps),
        lambda: bind("dykstra_jvp", codes, x, *ws, **sweeps),
        lambda: bind("dykstra_vjp", codes, x, edge=(False,) * len(axes), **sweeps),
    ]
    for call in calls:
        with emulator.launches() as whole:
            call()
        for others in range(len(whole)):
            with (
                emulator.launches() as launches,
                emulator.failing_launch(others),
                pytest.raises(HandlerError, match="INTERNAL: jaxtv: told to fail"),
            ):
                call()
            assert launches == whole[:others]


def test_tiles_of_two_channels_leave_room_for_a_second_block():
    """A multiprocessor of an H100 has 228 KiB, and keeps 1 KiB of it for each block."""

    def tile(rows):
        results = (ctypes.c_int64 * 2)()
        emulator.library().emulator_image_tiles(512, rows, 99, 8, 227 * 1024, results)
        return tuple(results)

    one_row = 101 * 2 * 9  # with a column more, and one that makes their number odd
    largest = 63 * one_row  # with a row more
    assert largest + 1024 <= 114 * 1024 < largest + one_row + 1024
    assert tile(62) == (largest, 2)
    assert tile(63) == (64 * 101 * 9, 1)
