"""The CUDA side without a GPU: the SIMT build of the kernels, their lowering, and nvcc."""

import ctypes
import importlib.util
import os
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from jaxtv import _lowering, _native, _primitive
from testing import callframe, emulator
from testing.generators import EXACT, NEWTON, rng

ROOT = emulator.ROOT


# ---------------------------------------------------------------------------- the SIMT machine


@pytest.fixture(scope="session")
def selftest():
    library = emulator.selftest()
    library.selftest.restype = ctypes.c_char_p
    return library


SELFTESTS = {
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


def test_the_line_search_interpolates(selftest):
    """Towards the minimum, where halving would stop at 1/8."""
    selftest.backtracked.argtypes, selftest.backtracked.restype = [ctypes.c_double], ctypes.c_double
    assert selftest.backtracked(0.5) == 1
    assert selftest.backtracked(6.0) == pytest.approx(1 / 12)


def test_division_by_multiplication(selftest):
    assert selftest.divider_errors() == 0


# ---------------------------------------------------------------------------- launches


@pytest.fixture(scope="session")
def kernels():
    """The emulated kernels as a library, for what does not go through XLA."""
    return emulator.library()


@pytest.mark.cpu_only
def test_cuda_graphs_may_record_every_handler():
    assert all(callframe.recordable(target, "cuda") for target in emulator.handlers())


def test_no_kernel_waits_or_allocates():
    for file in (ROOT / "cuda").rglob("*.*"):
        found = re.findall(
            r"\bcuda\w*(?:Synchronize|Malloc|Free|Memcpy|Query)\w*", file.read_text()
        )
        assert not found, file


def test_derivatives_by_segments_have_no_atomics():
    files = (ROOT / "cuda").rglob("*.*")
    assert {f.name for f in files if re.search(r"\batomic\w+\(", f.read_text())} == {
        "components.cu"
    }


def component_means(x):
    """Over what lies above 0, by the CUDA kernels of the converged derivative."""
    masks = jnp.where(x > 0, 0, 3).astype("uint8")[:, None]
    still = [jnp.zeros_like(x[:, :1]), jnp.zeros_like(x[:, :, :1])]
    return _primitive._components_jvp_p.bind(masks, x, *still, axes=(1, 2))[0]


def launched(kernels):
    """The kernels since emulator_record, by name: blocks, threads of a block."""
    lines = kernels.emulator_recorded().decode().splitlines()
    return {name: tuple(map(int, sizes[:2])) for name, *sizes in map(str.split, lines)}


PLANS = {  # shape, prox
    "rows": ((70, 33), lambda x: jaxtv.prox_tv1d(x, 0.5)),
    "block": ((2, 700), lambda x: jaxtv.prox_tv1d(x, 0.5)),
    "wide": ((2, 1500), lambda x: jaxtv.prox_tv1d(x, 0.5)),
    "grid": ((1, 33_000), lambda x: jaxtv.prox_tv1d(x, 0.5)),
    "Newton": ((5, 90), lambda x: jaxtv.prox_tv1d(x, 0.5, solver=jaxtv.ProjectedNewton())),
    "image": ((2, 9, 8), lambda x: jaxtv.prox_tv2d(x, 0.5, axes=(1, 2))),
    "sweeps": ((2, 5, 160, 3), lambda x: jaxtv.prox_tv(x, 0.5, axes=(1, 2, 3))),
    "serial": (
        (1500, 9),
        lambda x: jaxtv.prox_tv1d(x, 0.5, axis=0, solver=jaxtv.Direct("taut_string")),
    ),
    "components": ((2, 15, 14), component_means),
}
ORDERED = {
    **PLANS,
    "windows of ties": ((2, 700), lambda x: jaxtv.prox_tv1d(jnp.round(x), 0.5)),
    "parallel search": (
        (3, 300),
        lambda x: jaxtv.prox_tv1d(x, 0.5, solver=jaxtv.ProjectedNewton(line_search="parallel")),
    ),
    "chunks": ((1, 20_000), lambda x: jaxtv.prox_tv1d(x, 0.5)),
    "large": ((2, 5, 160, 3), lambda x: jaxtv.prox_tv(3e38 * jnp.tanh(x), 0.5, axes=(1, 2, 3))),
    "converged": (
        (2, 15, 14),
        lambda x: jaxtv.prox_tv(x, 0.5, axes=(1, 2), solver=jaxtv.AcceleratedDykstra(1e-5, 4)),
    ),
}


@pytest.mark.cpu_only
@pytest.mark.parametrize("plan", PLANS)
def test_launches_depend_on_shapes_only(simt, kernels, plan):
    """So a recorded CUDA graph is right for any other data."""
    shape, prox = PLANS[plan]
    noise = rng().normal(size=shape).astype("float32")
    ramp = np.arange(noise.size, dtype="float32").reshape(shape)
    bad = np.where(np.arange(noise.size).reshape(shape) % 7, noise, np.nan).astype("float32")
    launches = set()
    with emulator.using():
        f = jax.jit(jax.value_and_grad(lambda x: jnp.sum(prox(x) ** 2)))
        for x in (noise, ramp, 0 * noise, bad):
            kernels.emulator_record()
            jax.block_until_ready(f(x))
            launches.add(kernels.emulator_recorded())
    assert len(launches) == 1
    assert launches.pop()


@pytest.mark.cpu_only
@pytest.mark.parametrize(("shape", "axis"), [((64, 33), 1), ((16, 33, 4), 1)])
def test_signals_of_half_types_share_blocks(simt, kernels, shape, axis):
    """Their 1D prox with a derivative is a masked pass of Dykstra, whose batch is every signal."""
    x = jnp.asarray(rng().normal(size=shape), jnp.bfloat16)
    with emulator.using():
        kernels.emulator_record()
        jax.block_until_ready(jax.vjp(lambda x: jaxtv.prox_tv1d(x, 0.5, axis=axis), x)[1](x))
    ran = launched(kernels)
    assert ran["sweep"][0] <= 64 // 16
    assert ran["apply"][0] <= 64 // 16


@pytest.mark.cpu_only
@pytest.mark.parametrize("plan", ORDERED)
def test_bits_do_not_depend_on_the_order_of_threads(simt, kernels, plan):
    """A race on global memory, or atomics that do not commute, would show."""
    shape, prox = ORDERED[plan]
    x = rng().normal(size=shape).astype("float32")

    @jax.jit
    def everything(x):
        y, pull = jax.vjp(prox, x)
        return y, pull(x), jax.jvp(prox, (x,), (x,))

    with emulator.using():
        usual = jax.block_until_ready(everything(x))
        kernels.emulator_reverse(True)
        try:
            reverse = jax.block_until_ready(everything(x))
        finally:
            kernels.emulator_reverse(False)
    for a, b in zip(jax.tree.leaves(usual), jax.tree.leaves(reverse), strict=True):
        assert np.array_equal(a, b, equal_nan=True)


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


ROUTES = [  # n, signals: either side of every crossover
    *((n, 4) for n in (1, 64, 65, 256, 257, 1024, 1025, 32_767)),
    *((n, 4092) for n in (64, 65, 300)),
    *((n, 4096) for n in (65, 256, 257, 1024)),
    (32_768, 64),
    (32_768, 68),
]


@pytest.mark.cpu_only
@pytest.mark.parametrize(("n", "signals"), ROUTES)
def test_direct_picks_the_documented_kernel(kernels, n, signals):
    kernels.emulator_record()
    kernels.emulator_huge(METHODS["direct"], signals, n, 1)  # two blocks of each launch
    check_route(launched(kernels), n, signals, "float32")


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("n", "signals", "dtype"),
    [(257, 4, "float64"), (257, 4, "bfloat16"), (32_768, 1, "float32")],
)
def test_direct_picks_the_documented_kernel_for_types_and_the_grid(
    simt, kernels, n, signals, dtype
):
    with emulator.using():
        kernels.emulator_record()
        jax.block_until_ready(jaxtv.prox_tv1d(jnp.zeros((signals, n), dtype), 1))
    check_route(launched(kernels), n, signals, dtype)


def check_route(ran, n, signals, dtype):
    kernel, _, warps = documented(n, signals, dtype).rstrip(">").partition("<")
    assert ("g_spread" if kernel == "prox_grid" else kernel) in ran
    if warps:
        blocks, threads = ran[kernel]
        assert blocks * threads == 32 * int(warps) * signals


# ---------------------------------------------------------------------------- devices


@pytest.mark.parametrize(
    ("device", "stream", "asked", "size", "message"),
    [
        (0, 0, 0, 200_000, ""),
        (1, 1, 1, 60_000, ""),
        (1, 1, 1, 70_000, "invalid argument"),
        (2, 2, 0, 60_000, "may not have here"),
        (2, 2, 0, 40_000, ""),
        (0, 2, 0, 1000, "another stream"),
    ],
)
def test_the_machine_has_devices(selftest, device, stream, asked, size, message):
    """Two kinds; more than 48 KiB must be asked for on each; a stream belongs to one."""
    selftest.on_device.restype = ctypes.c_char_p
    got = selftest.on_device(device, stream, asked, size).decode()
    assert message in got
    assert bool(got) == bool(message)


@pytest.mark.cpu_only
def test_every_call_asks_the_device_that_it_runs_on(simt, kernels):
    """An image that fits into the shared memory of even devices only, on one after the other."""
    x = rng().normal(size=(1, 110, 111)).astype(np.float32)
    f = jax.jit(jax.value_and_grad(lambda x: jnp.sum(jaxtv.prox_tv2d(x, 0.3, axes=(1, 2)) ** 2)))
    expected = f(x)
    with emulator.using():
        for device in (0, 1, 2, 0, 3):
            kernels.emulator_record()
            got = jax.block_until_ready(f(jax.device_put(x, jax.devices("cpu")[device])))
            ran = launched(kernels)
            assert ("image_dykstra" in ran) == (device % 2 == 0)
            assert ("image_pull" in ran) == (device % 2 == 0)
            for a, b in zip(got, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


METHODS = {"direct": 0, "taut string": 1, "decomposition": 2, "newton": 3}
HUGE = 1 << 31


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("method", "outer", "n", "inner"),
    [
        ("direct", HUGE // 32 + 3, 32, 1),
        ("direct", 3, 32, HUGE // 64),
        ("direct", HUGE // 200 + 3, 200, 1),
        ("direct", 5, 600, HUGE // 1200),
        ("direct", HUGE // 2048 + 3, 2048, 1),
        ("decomposition", HUGE // 200 + 3, 200, 1),
        ("decomposition", HUGE // 700 + 3, 700, 1),
        ("taut string", HUGE // 2048 + 3, 2048, 1),
        ("newton", HUGE // 32 + 3, 32, 1),
        ("newton", HUGE // 700 + 3, 700, 1),
        ("newton", HUGE // 2048 + 3, 2048, 1),
    ],
)
def test_first_and_last_block_of_more_than_2_31_samples(kernels, method, outer, n, inner):
    assert outer * n * inner > HUGE
    assert kernels.emulator_huge(METHODS[method], outer, n, inner) == b""


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("kernel", "axes", "batch", "n", "inner"),
    [
        ("sweep", 1, HUGE // 32 + 3, 32, 1),
        ("sweep", 1, 3, 32, HUGE // 64),
        ("prox_wide", 1, HUGE // 2048 + 3, 2048, 1),
        ("image_dykstra", 2, HUGE // 1600 + 3, 40, 40),
    ],
)
def test_dykstra_of_more_than_2_31_samples(kernels, kernel, axes, batch, n, inner):
    assert batch * n * inner > HUGE
    kernels.emulator_record()
    assert kernels.emulator_huge_dykstra(axes, batch, n, inner) == b""
    assert kernel in launched(kernels)


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (0, 255), (300, 1)])
@pytest.mark.parametrize("n", [1, 2, 3, 32, 200])
def test_float32_solutions_are_certified_and_exact(selftest, n, offset, scale, edge):
    """Nearly all of them, bit for bit those of the CPU."""
    r, signals = rng(2), 300
    x = (offset + scale * r.normal(size=(signals, n))).astype(np.float32)
    w = (scale * r.random((signals, max(1, n - 1) if edge else 1)) + 1e-3).astype(np.float32)
    expected = np.asarray(_primitive.prox1d(x, w, axis=1, solver=jaxtv.Direct()))
    y, sure = certified(selftest, x, w)
    assert np.array_equal(y[sure], expected[sure])
    assert np.count_nonzero(sure) >= 0.98 * signals


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_float32_cannot_tell_is_not_certified(selftest, bad):
    x = rng(3).normal(size=(3, 40)).astype(np.float32)
    x[0, 0], x[1, 20], x[2, 39] = bad, bad, bad
    assert not certified(selftest, x, np.full((3, 1), 0.5, np.float32))[1].any()
    x = rng(3).normal(size=(3, 40)).astype(np.float32)
    assert not certified(selftest, x, np.float32([[-1], [np.nan], [0]]))[1].any()
    ties = np.float32([[0, 2, 0, 2, 0, 2], [1, 1, 2, 2, 2, 1], [0, 1, 2, 3, 4, 5]])
    assert not certified(selftest, ties, np.ones((3, 1), np.float32))[1].any()
    assert not certified(selftest, x, np.where(np.arange(39) == 7, -1, x[:, :39] ** 2))[1].any()


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize(("n", "lam"), [(1, 1), (66, 0.1), (300, 0.3), (1024, 1)])
def test_windows_are_certified_and_exact(selftest, n, lam, edge):
    """Nearly all signals with noise; the others are solved again, by another method."""
    r, signals = rng(2), 100
    x = (0.5 * r.normal(size=(signals, n)) + (np.arange(n) >= n / 2)).astype(np.float32)
    w = (lam * r.uniform(0.5, 1, (signals, max(1, n - 1) if edge else 1))).astype(np.float32)
    expected = np.asarray(_primitive.prox1d(x, w, axis=1, solver=jaxtv.Direct()))
    y, sure = certified_by_windows(selftest, x, w)
    assert np.array_equal(y[sure], expected[sure])
    assert np.count_nonzero(sure) >= 0.97 * signals


def test_windows_that_do_not_suffice_are_not_certified(selftest):
    """Segments longer than windows: cuts in them are wrong."""
    x = (0.5 * rng(3).normal(size=(20, 1000))).astype(np.float32)
    w = np.full((20, 1), 6, np.float32)
    expected = np.asarray(_primitive.prox1d(x, w, axis=1, solver=jaxtv.Direct()))
    y, sure = certified_by_windows(selftest, x, w)
    assert np.array_equal(y[sure], expected[sure])
    assert np.count_nonzero(sure) < 20


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


def certified(selftest, x, w):
    """(y, which signals are certified) of include/jaxtv/certificate.hpp."""
    y, w = np.array(x, np.float32), np.ascontiguousarray(w, np.float32)
    pointer = np.ctypeslib.ndpointer(np.float32, flags="C")
    selftest.certified.argtypes = [pointer, pointer, ctypes.c_int, ctypes.c_int]
    n = x.shape[1]
    sure = [selftest.certified(a, b, n, w.shape[1] == n - 1) for a, b in zip(y, w)]
    return y, np.array(sure, bool)


# ---------------------------------------------------------------------------- segment kernels

SHAPES = [  # shape, axis: contiguous and strided, one tile and several chunks, lanes that hang over
    ((5, 1), 1),
    ((5, 2), 1),
    ((300, 32), 1),
    ((6, 7, 4), 0),
    ((6, 7, 4), 1),
    ((2, 30, 33), 1),
    ((2, 700, 9), 1),
    ((3, 3000), 1),
    ((20_000,), 0),
    ((1300, 3), 0),
    ((1300, 20), 0),
    ((1500, 9), 0),
    ((7, 15), 1),
    ((3, 45, 2), 1),
    ((0, 5), 1),
]
TOLERANCE = {"float64": 1e-12, "float32": 1e-6}


def operands(shape, axis, edge, dtype, jumps):
    """A solution y (of few values), weights (some 0), and tangents. jumps 0: one segment."""
    r = rng(1)
    y = np.round(jumps * r.normal(size=shape))
    sizes = [d if i != axis else (max(1, d - 1) if edge else 1) for i, d in enumerate(shape)]
    w = r.random(sizes) * (r.random(sizes) < (0.9 if jumps else 2))
    return [a.astype(dtype) for a in (y, w, r.normal(size=shape), r.normal(size=sizes))]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("jumps", [0.7, 0.1, 0.0])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_segment_kernels_are_those_of_the_cpu(simt, shape, axis, jumps, edge, dtype):
    y, w, tx, tw = operands(shape, axis, edge, dtype, jumps)

    def both(y, w, tx, tw):
        ty = _primitive._segment_jvp_p.bind(y, w, tx, tw, axis=axis)
        return ty + _primitive._segment_vjp_p.bind(y, w, tx, axis=axis)

    expected = jax.jit(both)(y, w, tx, tw)
    with emulator.using():
        lowered = jax.jit(lambda *a: both(*a)).lower(y, w, tx, tw)
        assert simt["jaxtv_segment_vjp"] in lowered.as_text()
        got = lowered.compile()(y, w, tx, tw)
    scale = [1, 1, shape[axis]]
    for a, b, s in zip(got, expected, scale):
        assert a.dtype == b.dtype
        assert np.allclose(a, b, rtol=0, atol=s * TOLERANCE[dtype])


def test_segment_kernels_see_nan_and_zero_weights(simt):
    """NaN in a cotangent stays in its segment; equal neighbours at weight 0 are two segments."""
    y = jnp.zeros((2, 6), jnp.float32)
    w = jnp.asarray([[1.0, 1, 0, 1, 1], [1, 1, 1, 1, 1]], jnp.float32)
    g = jnp.asarray([[1.0, 2, 3, np.nan, 5, 6], [1, 2, 3, 4, 5, 6]], jnp.float32)
    with emulator.using():
        gx, gw = _primitive._segment_vjp_p.bind(y, w, g, axis=1)
    assert np.array_equal(gx[0, :3], [2, 2, 2])
    assert np.all(np.isnan(gx[0, 3:]))
    assert np.array_equal(gx[1], np.full(6, 3.5, np.float32))
    assert not np.any(gw)


@pytest.mark.parametrize(
    ("bytes_", "w", "axis", "message"),
    [
        (8, (1, 1), 1, "workspace is too small"),
        (10**6, (1, 2), 1, "wrong size along the prox axis"),
        (10**6, (2, 1), 1, "differ in shape"),
        (10**6, (1, 1), 2, "axis out of range"),
    ],
)
def test_wrong_calls_are_errors(simt, bytes_, w, axis, message):
    y, w = jnp.ones((1, 20_000), jnp.float32), jnp.ones(w, jnp.float32)
    like = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (y, w)]
    results = [*like, jax.ShapeDtypeStruct((bytes_,), jnp.uint8)]
    call = jax.ffi.ffi_call(simt["jaxtv_segment_vjp"], results)
    with pytest.raises(Exception, match=message):
        jax.block_until_ready(call(y, w, y, axis=np.int64(axis)))


def test_public_gradients_under_jit_vmap_and_remat(simt):
    x = jnp.asarray(rng().normal(size=(3, 4, 20)), jnp.float32)

    def loss(x, lam):
        return jnp.sum(jaxtv.prox_tv1d(x, lam) ** 3)

    def gradients(x, lam):
        f = jax.vmap(jax.grad(jax.checkpoint(lambda x, lam: loss(x, lam)), (0, 1)), (0, None))
        return jax.jit(f)(x, lam)

    expected = gradients(x, jnp.float32(0.3))
    with emulator.using():
        got = gradients(x, jnp.float32(0.3))
    for a, b in zip(got, expected):
        assert np.allclose(a, b, atol=1e-5)


# ---------------------------------------------------------------------------- Dykstra

IMAGES = [  # shape, axes in sweep order: 2D, 3D, NHWC, axes apart, one axis, odd and empty ones
    ((3, 7, 9), (2, 1)),
    ((2, 17, 40), (1, 2)),
    ((2, 6, 5, 3), (2, 1)),
    ((9, 4, 5), (0, 2)),
    ((2, 4, 5, 6), (3, 1, 2)),
    ((2, 30), (1,)),
    ((2, 1, 6), (2, 1)),
    ((1, 2, 2), (2, 1)),
    ((0, 4, 3), (2, 1)),
]
LARGE = [((1, 160, 170), (2, 1)), ((2, 3, 700, 2), (2, 1)), ((3, 9000), (1, 0))]


def dykstra_operands(shape, axes, edge, dtype, r=None):
    """Steps with noise, and weights per axis, some of them 0."""
    r = r or rng(2)
    x = np.round(r.normal(size=shape)) + 0.1 * r.normal(size=shape)
    sizes = [
        [d if i != a else (max(1, d - 1) if edge else 1) for i, d in enumerate(shape)] for a in axes
    ]
    ws = [r.random(s) * (r.random(s) < 0.9) for s in sizes]
    return [a.astype(dtype) for a in (x, *ws)]


def ulps(dtype, scale):
    return scale * float(np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize(("shape", "axes"), IMAGES)
def test_dykstra_derivatives_are_those_of_the_cpu(simt, shape, axes, iterations, edge, dtype):
    check_dykstra_derivatives(simt, shape, axes, iterations, edge, dtype)


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize(("shape", "axes"), LARGE)
def test_dykstra_derivatives_of_long_signals(simt, shape, axes, edge):
    check_dykstra_derivatives(simt, shape, axes, 3, edge, "float32")


def check_dykstra_derivatives(simt, shape, axes, iterations, edge, dtype):
    params = {"axes": axes, "iterations": iterations}
    x, *ws = dykstra_operands(shape, axes, edge, dtype)
    tx, *tws = dykstra_operands(shape, axes, edge, dtype, rng(3))
    _, masks = _primitive._dykstra_with_codes_p.bind(x, *ws, inner=jaxtv.Direct(), **params)
    per_edge = tuple(w.shape[a] != 1 for a, w in zip(axes, ws))

    def both(masks, tx, *tws):
        ty = _primitive._dykstra_jvp_p.bind(masks, tx, *tws, **params)
        return ty + _primitive._dykstra_vjp_p.bind(masks, tx, edge=per_edge, **params)

    expected = jax.jit(both)(masks, tx, *tws)
    with emulator.using():
        lowered = jax.jit(lambda *a: both(*a)).lower(masks, tx, *tws)
        assert simt["jaxtv_dykstra_vjp"] in lowered.as_text()
        got = lowered.compile()(masks, tx, *tws)
    signals = [1, 1] + [1 if e else shape[a] for a, e in zip(axes, per_edge)]
    for a, b, n in zip(got, expected, signals):
        assert a.dtype == b.dtype
        scale = n * max(1.0, np.abs(tx).max(initial=0))
        assert np.allclose(a, b, rtol=0, atol=ulps(dtype, 8 * iterations * scale))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize(("shape", "axes"), IMAGES)
def test_dykstra_is_that_of_the_cpu(simt, shape, axes, iterations, edge, dtype):
    check_dykstra(simt, shape, axes, iterations, edge, dtype, jaxtv.Direct())


KERNELS = {  # shape, axes
    "in shared memory": ((3, 9, 8), (2, 1)),
    "channels last": ((2, 9, 8, 5), (1, 2)),
    "sweeps of tiles": ((2, 5, 6, 4), (3, 1, 2)),
    "a pass by the 1D kernels": ((2, 90, 2, 3), (1, 2, 3)),
    "longer than a tile": ((2, 1500, 3, 2), (3, 2, 1)),
    "larger than shared memory": ((1, 160, 170), (2, 1)),
}


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("inner", list(EXACT | NEWTON))
@pytest.mark.parametrize("kernel", list(KERNELS)[:4])
def test_dykstra_by_every_kernel_and_inner_solver(simt, kernel, inner, edge):
    check_dykstra(simt, *KERNELS[kernel], 2, edge, "float32", (EXACT | NEWTON)[inner])


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("kernel", list(KERNELS)[4:])
def test_dykstra_of_long_signals(simt, kernel, edge):
    check_dykstra(simt, *KERNELS[kernel], 2, edge, "float32", jaxtv.Direct())


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("kernel", list(KERNELS)[:3])
def test_dykstra_of_ties_and_ramps(simt, kernel, edge):
    """Lines that float32 cannot certify or that are no work for the taut string, beside others."""
    shape, axes = KERNELS[kernel]
    shape = (8, *shape[1:])
    x, *ws = dykstra_operands(shape, axes, edge, "float32")
    x[:4] = np.round(8 * x[:4])
    x[4] = 0.01 * np.arange(x[4].size).reshape(x[4].shape)
    ws = [
        np.where(np.arange(8).reshape(8, *[1] * (x.ndim - 1)) < 4, np.round(8 * w), w) for w in ws
    ]
    params = {"axes": axes, "iterations": 2, "inner": jaxtv.Direct()}
    expected, expected_masks = _primitive._dykstra_with_codes_p.bind(x, *ws, **params)
    with emulator.using():
        y, masks = _primitive._dykstra_with_codes_p.bind(x, *ws, **params)
    assert np.array_equal(y, expected)
    assert np.array_equal(masks, expected_masks)


@pytest.mark.parametrize("bad", ["nan", "inf", "weight"])
@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("kernel", list(KERNELS)[:4])
def test_bad_elements_poison_only_themselves(simt, kernel, edge, bad):
    shape, axes = KERNELS[kernel]
    shape = (4, *shape[1:])
    x, *ws = dykstra_operands(shape, axes, edge, "float32")
    at = (2, *(d // 2 for d in shape[1:]))
    if bad == "weight":
        ws[-1][(2, *(0 for _ in shape[1:]))] = -1
    else:
        x[at] = float(bad)
    params = {"axes": axes, "iterations": 2, "inner": jaxtv.Direct()}
    y_cpu, _ = _primitive._dykstra_with_codes_p.bind(x, *ws, **params)
    with emulator.using():
        y, masks = _primitive._dykstra_with_codes_p.bind(x, *ws, **params)
        x[2], ws[-1][2] = 0, 0
        clean, clean_masks = _primitive._dykstra_with_codes_p.bind(x, *ws, **params)
    others = np.array([0, 1, 3])
    assert np.array_equal(np.isnan(y), np.isnan(y_cpu))
    spoilt = np.isnan(y[2]).any(tuple(a - 1 for a in axes))  # per image: one of them, and all of it
    assert np.array_equal(spoilt, np.isnan(y[2]).all(tuple(a - 1 for a in axes)))
    assert np.count_nonzero(spoilt) == 1
    assert np.array_equal(y[others], clean[others])
    assert np.array_equal(masks[others], clean_masks[others])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("kernel", list(KERNELS)[:4])
def test_large_elements_are_those_of_the_cpu_and_stay_alone(simt, kernel, edge, dtype):
    """The states are sums of samples; where all weights are 0 the samples are bit for bit."""
    shape, axes = KERNELS[kernel]
    x, *ws = dykstra_operands((4, *shape[1:]), axes, edge, dtype)
    usual = rng(4).choice([-1, -0.25, 0.7, 1], size=x[1].shape)
    big = np.finfo(dtype).max
    x[1] = usual * big
    for w in ws:
        w[1] *= big
    x[3] = np.where(x[3] < 0, np.finfo(dtype).max, np.finfo(dtype).tiny)
    for w in ws:
        w[3] = 0
    params = {"axes": axes, "iterations": 3, "inner": jaxtv.Direct()}
    y_cpu, masks_cpu = _primitive._dykstra_with_codes_p.bind(x, *ws, **params)
    with emulator.using():
        y, masks = _primitive._dykstra_with_codes_p.bind(x, *ws, **params)
        small = x.copy()
        small[1] = usual
        y_usual, masks_usual = _primitive._dykstra_with_codes_p.bind(small, *ws, **params)
    assert np.array_equal(masks, masks_cpu)
    error = np.abs(np.asarray(y[1]) / big - np.asarray(y_cpu[1]) / big).max()
    assert error <= ulps(dtype, 24)
    assert np.array_equal(y[3], x[3])
    others = np.array([0, 2, 3])
    assert np.array_equal(y[others], y_usual[others])
    assert np.array_equal(masks[others], masks_usual[others])


def test_dykstra_of_more_blocks_than_65535(simt):
    x = rng().normal(size=(66_000, 2, 2)).astype(np.float32)
    lam = jnp.full((66_000, 1, 1), 0.3, jnp.float32)
    params = {"axes": (2, 1), "iterations": 1, "inner": jaxtv.Direct()}
    ws = [jnp.broadcast_to(lam, (66_000, 2, 1)), jnp.broadcast_to(lam, (66_000, 1, 2))]
    (expected,) = _primitive._dykstra_p.bind(x, *ws, **params)
    with emulator.using():
        (y,) = _primitive._dykstra_p.bind(x, *ws, **params)
    assert np.array_equal(y, expected)


def check_dykstra(simt, shape, axes, iterations, edge, dtype, inner):
    operands = dykstra_operands(shape, axes, edge, dtype)
    params = {"axes": axes, "iterations": iterations, "inner": inner}

    def both(*a):
        return _primitive._dykstra_p.bind(*a, **params) + _primitive._dykstra_with_codes_p.bind(
            *a, **params
        )

    expected, _, masks = jax.jit(both)(*operands)
    with emulator.using():
        lowered = jax.jit(lambda *a: both(*a)).lower(*operands)
        assert simt["jaxtv_dykstra_with_codes"] in lowered.as_text()
        y, y_masked, masks_simt = lowered.compile()(*operands)
    assert y.dtype == expected.dtype
    assert np.array_equal(y, y_masked)
    scale = max(1.0, np.abs(operands[0]).max(initial=0))
    assert np.allclose(y, expected, rtol=0, atol=ulps(dtype, 8 * iterations * scale))
    assert np.array_equal(masks_simt, masks)


# ---------------------------------------------------------------------------- lowering for CUDA


def fake_cuda(monkeypatch, targets):
    """As if the CUDA module were built; nothing runs."""
    monkeypatch.setitem(_native.REGISTERED, "cuda", tuple(targets))


def lowered_for_cuda(f, *args):
    return jax.jit(f).trace(*args).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("shape", [(4, 9), (2, 5000)])
def test_lowering_adds_a_workspace(monkeypatch, shape):
    fake_cuda(monkeypatch, ["jaxtv_segment_jvp", "jaxtv_segment_vjp"])
    y, w, tx, tw = operands(shape, 1, False, "float32", 1.0)
    text = lowered_for_cuda(
        lambda *a: _primitive._segment_jvp_p.bind(*a, axis=1), *map(jnp.asarray, (y, w, tx, tw))
    )
    size = _lowering.WORKSPACES["jaxtv_segment_jvp"]([shape], axis=1)
    assert "@jaxtv_segment_jvp" in text
    assert f"tensor<{shape[0]}x{size}xui8>" in text
    assert "num_batch_dims" in text
    text = lowered_for_cuda(
        lambda *a: _primitive._segment_vjp_p.bind(*a, axis=1), *map(jnp.asarray, (y, w, tx))
    )
    assert "@jaxtv_segment_vjp" in text


DYKSTRA = ["dykstra", "dykstra_with_codes", "dykstra_jvp", "dykstra_vjp"]


@pytest.mark.parametrize("iterations", [1, 5])
def test_dykstra_is_lowered_to_its_kernels(monkeypatch, iterations):
    fake_cuda(monkeypatch, [f"jaxtv_{name}" for name in DYKSTRA])
    shape, axes = (4, 2, 9, 7, 3), (3, 2)
    params = {"axes": axes, "iterations": iterations}
    x, *ws = map(jnp.asarray, dykstra_operands(shape, axes, True, "float32"))
    solved = lowered_for_cuda(
        lambda *a: _primitive._dykstra_p.bind(*a, inner=jaxtv.Direct(), **params), x, *ws
    )
    size = _lowering.WORKSPACES["jaxtv_dykstra"](
        [shape], itemsize=4, inner=jaxtv.Direct(), **params
    )
    assert "@jaxtv_dykstra(" in solved
    assert f"tensor<4x2x{size}xui8>" in solved
    assert "num_batch_dims" in solved
    gradient = lowered_for_cuda(
        lambda *a: jax.vjp(
            lambda *a: _primitive.dykstra(a[0], a[1:], inner=jaxtv.Direct(), **params), *a
        )[1](x),
        x,
        *ws,
    )
    tangent = lowered_for_cuda(
        lambda *a: jax.jvp(
            lambda *a: _primitive.dykstra(a[0], a[1:], inner=jaxtv.Direct(), **params), a, a
        ),
        x,
        *ws,
    )
    assert "@jaxtv_dykstra_with_codes(" in gradient
    assert "@jaxtv_dykstra_vjp(" in gradient
    assert "@jaxtv_dykstra_jvp(" in tangent


def every_primitive():
    """Target -> (bind, operands): batch dimension 4, a core axis behind it."""
    y, w, tx, tw = map(jnp.asarray, operands((4, 9), 1, False, "float32", 1.0))
    x, *ws = map(jnp.asarray, dykstra_operands((4, 9, 7), (2, 1), False, "float32"))
    sweeps = {"axes": (2, 1), "iterations": 2}
    masks = jnp.zeros((4, 1, 9, 7), jnp.uint8)
    exact = {"axis": 1, "solver": jaxtv.Direct()}
    both = {**sweeps, "inner": jaxtv.Direct()}
    return {
        "prox1d": (exact, (y, w)),
        "prox1d_info": (exact, (y, w)),
        "segment_jvp": ({"axis": 1}, (y, w, tx, tw)),
        "segment_vjp": ({"axis": 1}, (y, w, tx)),
        "dykstra": (both, (x, *ws)),
        "dykstra_with_codes": (both, (x, *ws)),
        "dykstra_jvp": (sweeps, (masks, x, *ws)),
        "dykstra_vjp": ({**sweeps, "edge": (False, False)}, (masks, x)),
        "components_jvp": ({"axes": (2, 1)}, (masks, x, *ws)),
        "components_vjp": ({"axes": (2, 1), "edge": (False, False)}, (masks, x)),
    }


HANDLERS = re.findall(
    r"X\(jaxtv_(\w+)\)", (ROOT / "ffi/targets.hpp").read_text().split("CPU_HANDLERS")[0]
)


@pytest.mark.parametrize("how", ["plain", "vmap", "sharded"])
@pytest.mark.parametrize("target", HANDLERS)
def test_every_primitive_lowers_to_its_kernel(monkeypatch, target, how):
    """With a workspace, and what keeps XLA from gathering a sharded batch."""
    fake_cuda(monkeypatch, _native.REGISTERED["cpu"])
    params, args = every_primitive()[target]
    bind = getattr(_primitive, f"_{target}_p").bind
    f = lambda *a: bind(*a, **params)
    batch = 1
    if how == "vmap":
        args = [jnp.stack([a, a, a]) for a in args]
        f, batch = jax.vmap(f), 2
    if how == "sharded":
        mesh = jax.make_mesh((4,), ("data",), devices=jax.devices("cpu")[:4])
        batched = jax.NamedSharding(mesh, jax.P("data"))
        args = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=batched) for a in args]
    (call,) = [c for c in lowered_for_cuda(f, *args).splitlines() if "custom_call @jaxtv_" in c]
    assert f"@jaxtv_{target}(" in call
    assert re.search(r"\(tensor<[^)]*\) -> .*tensor<(3x)?4x\d+xui8>", call)
    assert f'num_batch_dims = "{batch}"' in call
    assert "sdy.op_sharding_rule" in call


def test_a_kernel_missing_from_the_build_is_an_error(monkeypatch):
    fake_cuda(monkeypatch, ["jaxtv_segment_jvp"])
    x = jnp.ones((3, 5), jnp.float32)
    with pytest.raises(RuntimeError, match="jaxtv_prox1d is not among the cuda kernels"):
        lowered_for_cuda(lambda x: jaxtv.prox_tv1d(x, 0.1), x)


def plugin(name):
    """What importlib.metadata.entry_points gives with one jax plugin."""
    return lambda group: [types.SimpleNamespace(name=name)] if group == "jax_plugins" else []


def gradient_for_cuda():
    x = jnp.ones((3, 5), jnp.float32)
    return lowered_for_cuda(jax.grad(lambda x: jnp.sum(jaxtv.prox_tv1d(x, 0.1) ** 2)), x)


def test_missing_kernels_are_an_error_only_where_jax_runs_on_cuda(monkeypatch):
    monkeypatch.setattr(_native, "REGISTERED", {"cpu": _native.REGISTERED["cpu"]})
    monkeypatch.setattr("importlib.metadata.entry_points", plugin("rocm"))
    assert "jaxtv_" not in gradient_for_cuda()
    monkeypatch.setattr("importlib.metadata.entry_points", plugin("xla_cuda13"))
    with pytest.raises(RuntimeError, match="JAXTV_CUDA=ON"):
        gradient_for_cuda()
    monkeypatch.setattr(_native, "FALLBACK", True)
    assert "jaxtv_" not in gradient_for_cuda()


def test_a_broken_cuda_module_says_how_to_build(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert _native._load_cuda() is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setitem(__import__("sys").modules, "jaxtv._cuda", None)
    monkeypatch.delattr(jaxtv, "_cuda", raising=False)
    with pytest.raises(ImportError, match="JAXTV_CUDA=ON"):
        _native._load_cuda()


@pytest.mark.skipif(
    importlib.util.find_spec("jaxtv._cuda") is None and not os.environ.get("JAXTV_REQUIRE_CUDA"),
    reason="built without CUDA kernels",
)
def test_the_module_loads_without_a_gpu():
    assert set(_native.REGISTERED["cuda"]) <= set(_native.REGISTERED["cpu"])
    assert _native.status()["cuda"]["architectures"]
