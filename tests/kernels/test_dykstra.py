"""The kernels of Dykstra and of its derivatives on NumPy arrays: CUDA's against the CPU's."""

import numpy as np
import pytest

import jaxtv
from testing import oracles
from testing.callframe import bind
from testing.generators import (
    ARRAYS,
    DTYPES,
    EXACT,
    HALF,
    KERNELS_OF_DYKSTRA,
    LARGE_ARRAYS,
    MATRIX_DTYPES,
    NEWTON,
    SOLVERS,
    rng,
    weight_shape,
)

PLATFORMS = ["cpu", "cuda"]
DIRECT = jaxtv.Direct()
EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10}


def operands(shape, axes, per_edge, dtype, r=None):
    """Steps with noise, and weights per axis, some of them 0."""
    r = r or rng(2)
    x = np.round(r.normal(size=shape)) + 0.1 * r.normal(size=shape)
    sizes = [weight_shape(shape, a, per_edge) for a in axes]
    ws = [r.random(s) * (r.random(s) < 0.9) for s in sizes]
    return [a.astype(dtype) for a in (x, *ws)]


def ulps(dtype, scale):
    return scale * float(np.finfo(dtype).eps)


def solve(x, ws, axes, platform="cuda", iterations=2, inner=DIRECT):
    """(y, edge codes)."""
    params = {"axes": axes, "iterations": iterations, "inner": inner}
    return bind("dykstra_with_codes", x, *ws, platform=platform, **params)


# ---------------------------------------------------------------------------- values


def check(shape, axes, iterations, per_edge, dtype, inner=DIRECT):
    x, *ws = operands(shape, axes, per_edge, dtype)
    params = {"axes": axes, "iterations": iterations, "inner": inner}
    expected, codes_of_cpu = solve(x, ws, platform="cpu", **params)
    y, codes = solve(x, ws, **params)
    (alone,) = bind("dykstra", x, *ws, platform="cuda", **params)
    assert np.array_equal(y, alone)
    scale = max(1.0, np.abs(x).max(initial=0))
    assert np.allclose(y, expected, rtol=0, atol=ulps(dtype, 8 * iterations * scale))
    assert np.array_equal(codes, codes_of_cpu)


@pytest.mark.parametrize("dtype", MATRIX_DTYPES)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize("arrays", ARRAYS)
def test_cuda_sweeps_as_the_cpu_does(arrays, iterations, per_edge, dtype):
    check(*ARRAYS[arrays], iterations, per_edge, dtype)


@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("inner", SOLVERS)
@pytest.mark.parametrize("kernel", KERNELS_OF_DYKSTRA)
def test_every_kernel_and_inner_solver(kernel, inner, per_edge):
    check(*KERNELS_OF_DYKSTRA[kernel], 2, per_edge, "float32", SOLVERS[inner])


@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("arrays", ["beyond shared memory", "beyond a tile"])
def test_large_arrays(arrays, per_edge):
    check(*LARGE_ARRAYS[arrays], 2, per_edge, "float32")


@pytest.mark.unsanitized
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("kernel", KERNELS_OF_DYKSTRA)
def test_the_cpu_sweeps_as_the_oracle_does(kernel, per_edge, dtype):
    """The paper's Algorithm 1 over exact 1D solutions in float64."""
    shape, axes = KERNELS_OF_DYKSTRA[kernel]
    x, *ws = operands(shape, axes, per_edge, dtype)
    expected = oracles.dykstra(x, ws, axes, 4)
    for name, inner in SOLVERS.items():
        (y,) = bind("dykstra", x, *ws, axes=axes, iterations=4, inner=inner)
        exact = {"float64": 1e-12, "float32": 4e-6}[dtype]
        # Newton is exact up to sqrt(tol * objective) per pass.
        assert np.abs(y - expected).max() <= (1e-2 if name in NEWTON else exact)


@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("kernel", ["in shared memory", "channels last", "tiles"])
def test_ties_and_ramps(kernel, per_edge):
    """Lines that float32 cannot certify or that are no work for the taut string, beside others."""
    shape, axes = KERNELS_OF_DYKSTRA[kernel]
    shape = (8, *shape[1:])
    x, *ws = operands(shape, axes, per_edge, "float32")
    x[:4] = np.round(8 * x[:4])
    x[4] = 0.01 * np.arange(x[4].size).reshape(x[4].shape)
    first_half = np.arange(8).reshape(8, *[1] * (x.ndim - 1)) < 4
    ws = [np.where(first_half, np.round(8 * w), w) for w in ws]
    (expected, codes_of_cpu), (y, codes) = (solve(x, ws, axes, p) for p in PLATFORMS)
    assert np.array_equal(y, expected)
    assert np.array_equal(codes, codes_of_cpu)


@pytest.mark.parametrize("bad", ["nan", "inf", "weight"])
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("kernel", KERNELS_OF_DYKSTRA)
def test_bad_elements_poison_only_themselves(kernel, per_edge, bad):
    shape, axes = KERNELS_OF_DYKSTRA[kernel]
    shape = (4, *shape[1:])
    x, *ws = operands(shape, axes, per_edge, "float32")
    at = (2, *(d // 2 for d in shape[1:]))
    if bad == "weight":
        ws[-1][(2, *(0 for _ in shape[1:]))] = -1
    else:
        x[at] = float(bad)
    (y_cpu, _), (y, codes) = (solve(x, ws, axes, p) for p in PLATFORMS)
    x[2], ws[-1][2] = 0, 0
    clean, clean_codes = solve(x, ws, axes)
    others = np.array([0, 1, 3])
    assert np.array_equal(np.isnan(y), np.isnan(y_cpu))
    within = tuple(a - 1 for a in axes)
    poisoned = np.isnan(y[2]).any(within)  # per image: one of them, and all of it
    assert np.array_equal(poisoned, np.isnan(y[2]).all(within))
    assert np.count_nonzero(poisoned) == 1
    assert np.array_equal(y[others], clean[others])
    assert np.array_equal(codes[others], clean_codes[others])


@pytest.mark.parametrize("dtype", MATRIX_DTYPES)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("kernel", KERNELS_OF_DYKSTRA)
def test_elements_near_the_end_of_their_type_stay_alone(kernel, per_edge, dtype):
    """The states are sums of samples; where all weights are 0 the samples are bit for bit."""
    shape, axes = KERNELS_OF_DYKSTRA[kernel]
    x, *ws = operands((4, *shape[1:]), axes, per_edge, dtype)
    usual = rng(4).choice([-1, -0.25, 0.7, 1], size=x[1].shape)
    big = np.finfo(dtype).max
    x[1] = usual * big
    for w in ws:
        w[1] *= big
    x[3] = np.where(x[3] < 0, np.finfo(dtype).max, np.finfo(dtype).tiny)
    for w in ws:
        w[3] = 0
    (y_cpu, codes_of_cpu), (y, codes) = (solve(x, ws, axes, p, iterations=3) for p in PLATFORMS)
    small = x.copy()
    small[1] = usual
    y_usual, codes_usual = solve(small, ws, axes, iterations=3)
    assert np.array_equal(codes, codes_of_cpu)
    assert np.abs(y[1] / big - y_cpu[1] / big).max() <= ulps(dtype, 24)
    assert np.array_equal(y[3], x[3])
    others = np.array([0, 2, 3])
    assert np.array_equal(y[others], y_usual[others])
    assert np.array_equal(codes[others], codes_usual[others])


def test_more_blocks_than_65535():
    x = rng().normal(size=(66_000, 2, 2)).astype(np.float32)
    ws = [np.full(weight_shape(x.shape, a, False), 0.3, np.float32) for a in (2, 1)]
    (expected, _), (y, _) = (solve(x, ws, (2, 1), p, iterations=1) for p in PLATFORMS)
    assert np.array_equal(y, expected)


# ---------------------------------------------------------------------------- derivatives


def derivatives(codes, tx, tws, axes, iterations, platform="cuda"):
    """The JVP of (tx, tws), and the VJP of tx as a cotangent, in x and in the weights."""
    params = {"axes": axes, "iterations": iterations, "platform": platform}
    edge = tuple(w.shape[a] != 1 for a, w in zip(axes, tws, strict=True))
    jvp = bind("dykstra_jvp", codes, tx, *tws, **params)
    return jvp + bind("dykstra_vjp", codes, tx, edge=edge, **params)


def check_derivatives(shape, axes, iterations, per_edge, dtype):
    x, *ws = operands(shape, axes, per_edge, dtype)
    tx, *tws = operands(shape, axes, per_edge, dtype, rng(3))
    _, codes = solve(x, ws, axes, "cpu", iterations)
    expected, got = (derivatives(codes, tx, tws, axes, iterations, p) for p in PLATFORMS)
    summed = [1 if w.shape[a] != 1 else shape[a] for a, w in zip(axes, tws, strict=True)]
    for a, b, n in zip(got, expected, [1, 1, *summed], strict=True):
        assert a.dtype == b.dtype
        scale = n * max(1.0, np.abs(tx).max(initial=0))
        assert np.allclose(a, b, rtol=0, atol=ulps(dtype, 8 * iterations * scale))


@pytest.mark.parametrize("dtype", MATRIX_DTYPES)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize("arrays", ARRAYS)
def test_cuda_derives_as_the_cpu_does(arrays, iterations, per_edge, dtype):
    check_derivatives(*ARRAYS[arrays], iterations, per_edge, dtype)


@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("arrays", ["beyond shared memory", "chunks", "long and strided"])
def test_derivatives_of_large_arrays(arrays, per_edge):
    check_derivatives(*LARGE_ARRAYS[arrays], 3, per_edge, "float32")


@pytest.mark.unsanitized
@pytest.mark.parametrize("platform", PLATFORMS)
def test_pullback_of_the_oracle(platform):
    """The Jacobians of all passes, chained as dense matrices, on 20 images."""
    axes, iterations = (2, 1), 4
    x, w = rng(9).normal(size=(20, 7, 6)), np.full((20, 1, 1), 0.3)
    ws = [np.broadcast_to(w, weight_shape(x.shape, a, False)) for a in axes]
    g = rng(1).normal(size=x.shape)
    _, codes = solve(x, ws, axes, platform, iterations)
    *_, gx, gw0, gw1 = derivatives(codes, g, ws, axes, iterations, platform)
    for i, image in enumerate(x):
        want_x, want_w = oracles.dykstra_pullback(image, 0.3, g[i], iterations)
        assert np.allclose(gx[i], want_x, rtol=0, atol=1e-12)
        assert np.isclose(gw0[i].sum() + gw1[i].sum(), want_w, rtol=0, atol=1e-11)


# ---------------------------------------------------------------------------- half types


@pytest.mark.unsanitized
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("arrays", [*KERNELS_OF_DYKSTRA, "chunks"])
def test_half_types_are_the_float32_result_rounded(arrays, per_edge, dtype):
    shape, axes = (KERNELS_OF_DYKSTRA | LARGE_ARRAYS)[arrays]
    x, *ws = operands(shape, axes, per_edge, "float32")
    tx, *tws = operands(shape, axes, per_edge, "float32", rng(3))
    x, tx = x.astype(dtype), tx.astype(dtype)
    y, codes = solve(x, ws, axes)
    single, codes_of_single = solve(np.float32(x), ws, axes)
    assert np.array_equal(y.view(np.uint16), single.astype(dtype).view(np.uint16))
    assert np.array_equal(codes, codes_of_single)
    got = derivatives(codes, tx, tws, axes, 2)
    want = derivatives(codes, np.float32(tx), tws, axes, 2)
    assert [a.dtype for a in got] == [dtype, dtype, *["float32"] * len(axes)]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b.astype(a.dtype))


@pytest.mark.unsanitized
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("inner", EXACT)
def test_segments_that_rounding_joins_keep_their_edge_codes(inner, dtype):
    """Plateaus of 1 and 1 + eps/4 round to one value; the derivative of one axis has two segments."""
    eps = EPS[dtype]
    x = np.asarray([[1, 1, 1, 1 + eps, 1 + eps, 1 + eps]]).astype(dtype)
    w = np.full((1, 1), 3 * eps * 0.3, np.float32)  # brings them up to 0.4 eps together
    y, codes = solve(x, [w], (1,), iterations=1, inner=EXACT[inner])
    assert len(np.unique(y.astype(np.float32))) in (1, 2)
    basis = np.eye(6).astype(dtype)
    rows = np.repeat(codes, 6, 0)
    (jacobian,) = bind(
        "dykstra_jvp", rows, basis, np.zeros((6, 1), np.float32), axes=(1,), iterations=1,
        platform="cuda",
    )  # fmt: skip
    expected = np.kron(np.eye(2), np.full((3, 3), 1 / 3))
    np.testing.assert_allclose(np.float32(jacobian), expected, atol=2 * eps)
