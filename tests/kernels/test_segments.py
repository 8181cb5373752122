"""The derivative kernels of the 1D prox on NumPy arrays: against the oracle, and CUDA's against the CPU's."""

import math

import numpy as np
import pytest

from testing import oracles
from testing.callframe import HandlerError, bind, call
from testing.generators import (
    DTYPES,
    EXACT,
    LONG_SIGNALS,
    MATRIX_DTYPES,
    SIGNALS,
    rng,
    steps,
    weight_shape,
)

ALL_SIGNALS = SIGNALS | LONG_SIGNALS
PLATFORMS = ["cpu", "cuda"]
TOLERANCE = {"float64": 1e-12, "float32": 1e-6}


def operands(shape, axis, per_edge, dtype, jumps):
    """A solution y (of few values), weights (some 0), and tangents. jumps 0: one segment."""
    r = rng(1)
    y = np.round(jumps * r.normal(size=shape))
    sizes = weight_shape(shape, axis, per_edge)
    w = r.random(sizes) * (r.random(sizes) < (0.9 if jumps else 2))
    return [a.astype(dtype) for a in (y, w, r.normal(size=shape), r.normal(size=sizes))]


def derivatives(y, w, tx, tw, axis, platform):
    """The JVP of (tx, tw), and the VJP of tx as a cotangent, in x and in w."""
    jvp = bind("segment_jvp", y, w, tx, tw, axis=axis, platform=platform)
    return jvp + bind("segment_vjp", y, w, tx, axis=axis, platform=platform)


@pytest.mark.parametrize("dtype", MATRIX_DTYPES)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("jumps", [0.7, 0.1, 0.0])
@pytest.mark.parametrize("signals", ALL_SIGNALS)
def test_cuda_derives_as_the_cpu_does(signals, jumps, per_edge, dtype):
    shape, axis = ALL_SIGNALS[signals]
    given = operands(shape, axis, per_edge, dtype, jumps)
    expected, got = (derivatives(*given, axis, platform) for platform in PLATFORMS)
    for a, b, scale in zip(got, expected, [1, 1, shape[axis]], strict=True):
        assert a.dtype == b.dtype
        assert np.allclose(a, b, rtol=0, atol=scale * TOLERANCE[dtype])


@pytest.mark.unsanitized
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("per_edge", [False, True])
def test_literal_formula(per_edge, axis, dtype, platform):
    """Eq. 8 and 9 of the paper, written out as matrices, at an exact solution."""
    x = steps(40, 23).astype(dtype)
    w = (0.2 + 0.5 * rng(1).random((40, 22 if per_edge else 1))).astype(dtype)
    g = rng(2).normal(size=x.shape)
    solution = oracles.prox1d(x, w)
    gx, gw = oracles.pullback(solution, g)
    gw = oracles.unbroadcast(gw, w.shape)
    turn = (lambda a: a) if axis == 1 else np.transpose
    y = turn(solution.y).astype(dtype)
    got = bind("segment_vjp", y, turn(w), turn(g).astype(dtype), axis=axis, platform=platform)
    tolerance = {"float64": 1e-12, "float32": 2e-5}[dtype]
    assert np.allclose(turn(got[0]), gx, rtol=0, atol=tolerance)
    assert np.allclose(turn(got[1]), gw, rtol=0, atol=23 * tolerance)


@pytest.mark.unsanitized
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("scale", [1.0, 255.0, 1e4])
@pytest.mark.parametrize("solver", EXACT)
def test_float32_gradients_at_any_data_scale(solver, scale, platform):
    """Zero wrong segments: the gradients of all rows are those of the float64 solution."""
    rows = {"cpu": 2000, "cuda": 400}[platform]  # the emulator is slow
    x = (scale * steps(rows, 32, seed=6)).astype(np.float32)
    w = (scale * (0.2 + 0.5 * rng(7).random((rows, 31)))).astype(np.float32)
    g = rng(8).normal(size=x.shape)
    solution = oracles.prox1d(x, w)
    gx, gw = oracles.pullback(solution, g)
    (y,) = bind("prox1d", x, w, axis=1, solver=EXACT[solver], platform=platform)
    got_x, got_w = bind("segment_vjp", y, w, np.float32(g), axis=1, platform=platform)
    error = np.maximum(np.abs(got_x - gx).max(-1), np.abs(got_w - gw).max(-1))
    tied = oracles.decided_edges(x, w, solution, np.float32).tied
    assert tied.mean() < 0.01
    assert np.flatnonzero((error > 1e-4) & ~tied).size == 0


@pytest.mark.cpu_only
@pytest.mark.parametrize("axis", [0, 1])
def test_outliers_leave_no_error(axis):
    """A float32 mean is that of the exact sum, also where 1e15 comes and goes. n is above kFold."""
    r = rng(11)
    y, w = np.repeat(r.integers(0, 3, size=(20, 500)), 5, axis=1), np.ones((20, 1))
    small, outliers = r.normal(size=y.shape).astype(np.float32), np.zeros(y.shape, np.float32)
    outliers[np.arange(20), 5 * r.integers(500, size=20)] = 1e15
    g = np.where(outliers == 0, small - np.roll(outliers, 3, axis=1), outliers)
    turn = (lambda a: a) if axis == 1 else np.transpose
    y, w, g = (turn(np.float32(a)) for a in (y, w, g))
    for got in (
        bind("segment_vjp", y, w, g, axis=axis)[0],
        bind("segment_jvp", y, w, g, np.zeros_like(w), axis=axis)[0],
    ):
        for values, cotangents, means, scale in zip(*map(turn, (y, g, got)), np.abs(small)):
            cuts = [0, *np.flatnonzero(np.diff(values)) + 1, len(values)]
            for part in map(slice, cuts, cuts[1:]):
                exact = math.fsum(cotangents[part]) / len(means[part])
                assert np.abs(means[part] - exact).max() <= 2e-7 * scale[part].mean()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_nan_and_zero_weights(platform):
    """NaN in a cotangent stays in its segment; equal neighbours at weight 0 are two segments."""
    y = np.zeros((2, 6), np.float32)
    w = np.float32([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1]])
    g = np.float32([[1, 2, 3, np.nan, 5, 6], [1, 2, 3, 4, 5, 6]])
    gx, gw = bind("segment_vjp", y, w, g, axis=1, platform=platform)
    assert np.array_equal(gx[0, :3], [2, 2, 2])
    assert np.all(np.isnan(gx[0, 3:]))
    assert np.array_equal(gx[1], np.full(6, 3.5, np.float32))
    assert not np.any(gw[0, :2])
    assert not np.any(gw[1])


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("bytes_", "w", "axis", "message"),
    [
        (8, (1, 1), 1, "scratch is too small"),
        (10**6, (1, 2), 1, "wrong size along the prox axis"),
        (10**6, (2, 1), 1, "differ in shape"),
        (10**6, (1, 1), 2, "axis out of range"),
    ],
)
def test_wrong_calls_are_errors(bytes_, w, axis, message):
    y, w = np.ones((1, 20_000), np.float32), np.ones(w, np.float32)
    results = [(y.shape, y.dtype), (w.shape, w.dtype), ((bytes_,), np.uint8)]
    with pytest.raises(HandlerError, match=message):
        call("jaxtv_segment_vjp", [y, w, y], results, {"axis": axis}, "cuda")
