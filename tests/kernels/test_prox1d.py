"""The kernels of the 1D prox on NumPy arrays: against the oracle, and CUDA's against the CPU's."""

import functools
import itertools

import numpy as np
import pytest

import jaxtv
from testing import emulator, oracles
from testing.callframe import HandlerError, bind, call
from testing.generators import (
    CASES,
    DTYPES,
    EXACT,
    HALF,
    MATRIX_DTYPES,
    NEWTON,
    SIGNALS,
    SOLVERS,
    Signals,
    rng,
    steps,
    weight_shape,
)

PLATFORMS = ["cpu", "cuda"]
ROWS = {"cpu": 2000, "cuda": 400}  # of random images: the emulator is slow
ONE_EACH = {name: solver for name, solver in SOLVERS.items() if name != "parallel"}


def solve(x, w, solver, platform="cuda", axis=1):
    """(y, gap, iterations, converged)."""
    return bind("prox1d_info", x, w, axis=axis, solver=solver, platform=platform)


# ---------------------------------------------------------------------------- against the oracle

# Of max|x|. float64: n <= 1e5 sums of rounding errors. float32: the promise is 1e-7.
TOLERANCE = {"float64": 1e-11, "float32": 1e-6}


@functools.cache
def expected(name, dtype):
    """(x, w, solution): the case rounded to `dtype`, and the float64 solution of that problem."""
    with np.errstate(over="ignore"):
        x, w = (v.astype(dtype) for v in CASES[name][:2])
    return x, w, oracles.prox1d(x, w, exact=CASES[name].exact)


def tolerance(x, axis=-1):
    """The error that y may have; what is below the least normal number may be flushed to zero."""
    scale = np.abs(np.asarray(x, np.float64)).max(axis, keepdims=True)
    return TOLERANCE[str(x.dtype)] * scale + np.finfo(x.dtype).tiny


def assert_solves(y, y_exact, x, axis=-1):
    assert y.dtype == x.dtype
    error = np.abs(np.asarray(y, np.float64) - y_exact) / tolerance(x, axis)
    worst = np.nanmax(error, initial=0)
    assert np.all(error <= 1), f"{worst} times the tolerance; NaN: {np.isnan(error).any()}"


# Emulated, the 100,000 samples of "sine" take 10 s; in the test command it is one long signal below.
PROBLEMS = [
    pytest.param(
        name, platform, marks=[pytest.mark.nightly] * (name == "sine" and platform == "cuda")
    )
    for name in CASES
    for platform in PLATFORMS
]


@pytest.mark.unsanitized
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize(("name", "platform"), PROBLEMS)
def test_exact_solvers(name, platform, solver, dtype):
    x, w, solution = expected(name, dtype)
    (y,) = bind("prox1d", x, w, axis=1, solver=EXACT[solver], platform=platform)
    assert_solves(y, solution.y, x)


@pytest.mark.unsanitized
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", NEWTON)
@pytest.mark.parametrize("name", [name for name in CASES if name != "sine"])  # 40 s at n = 1e5
def test_newton_keeps_its_promise(name, solver, dtype, platform):
    """gap <= tol * objective wherever it says `converged`, and ||y - y*|| <= sqrt(gap) with it."""
    x, w, solution = expected(name, dtype)
    y, _, _, converged = solve(x, w, NEWTON[solver], platform)
    allowed_by_rounding = np.sqrt(x.shape[-1]) * tolerance(x)[:, 0]
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    assert np.isfinite(y).all()
    weights = np.where(np.diff(y) == 0, 0, oracles.full_weights(x, w))
    objective = ((x - y) ** 2).sum(-1) / 2 + (weights * np.abs(np.diff(y))).sum(-1)
    distance = np.sqrt(((y - solution.y) ** 2).sum(-1))
    allowed = np.sqrt(NEWTON[solver].tol * objective) + allowed_by_rounding
    assert converged.mean() > 0.9
    assert np.all(distance[converged[:, 0]] <= allowed[converged[:, 0]])


@pytest.mark.unsanitized
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", NEWTON)
@pytest.mark.parametrize("scale", [1.0, 255.0, 1e4])
def test_newton_never_jams_on_image_rows(scale, solver, dtype, platform):
    """Published codes end 0.03-0.5 % of such rows wrong by up to 3.5; here all have the exact segments."""
    x, w, solution = image_rows(scale, dtype, {"cpu": 2000, "cuda": 100}[platform])
    (y,) = bind("prox1d", x, w, axis=1, solver=NEWTON[solver], platform=platform)
    assert_solves(y, solution.y, x)
    assert not oracles.decided_edges(x, w, solution, dtype).wrong(y, solution.sign).any()


@functools.cache
def image_rows(scale, dtype, rows):
    x = (scale * steps(rows, 32, seed=3)).astype(dtype)
    w = np.full((rows, 1), 0.5 * scale, dtype)
    return x, w, oracles.prox1d(x, w)


@pytest.mark.unsanitized
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("scale", [1.0, 255.0, 1e4])
@pytest.mark.parametrize("weighted", [False, True])
def test_float32_segments_are_those_of_float64(weighted, scale, solver, platform):
    x, w, solution = weighted_rows(weighted, scale, ROWS[platform])
    (y,) = bind("prox1d", x, w, axis=1, solver=EXACT[solver], platform=platform)
    edges = oracles.decided_edges(x, w, solution, np.float32)
    assert edges.tied.mean() < 0.01
    assert not edges.wrong(y, solution.sign).any()


@functools.cache
def weighted_rows(weighted, scale, rows):
    x = (scale * steps(rows, 48, seed=4)).astype(np.float32)
    factor = rng(5).random((rows, 47)) if weighted else np.full((rows, 1), 0.5)
    w = (scale * factor).astype(np.float32)
    return x, w, oracles.prox1d(x, w)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("axis", [0, 1])
def test_every_length_and_every_count(axis, platform):
    """Every n to 67 and every batch to 70: every vector and every tile hangs over in every way."""
    x, w, solutions = rows_of_every_length()
    sizes = [(7 * n % 70 + 1, n) for n in range(1, 68)] + [(b, 9) for b in range(1, 71)]
    solvers = EXACT.values() if platform == "cpu" else [EXACT["direct"]]  # tiles, on CUDA
    for batch, n in sizes[:: 5 if platform == "cuda" and emulator.SANITIZED else 1]:
        part, weights, y_exact = x[:batch, :n], w[:batch], solutions[n][:batch]
        if axis == 0:
            part, weights, y_exact = part.T, weights.T, y_exact.T
        for solver in solvers:
            (y,) = bind("prox1d", part, weights, axis=axis, solver=solver, platform=platform)
            assert_solves(y, y_exact, part, axis)


@functools.cache
def rows_of_every_length():
    x = steps(70, 67, seed=9).astype(np.float32)
    w = (0.5 * rng(10).random((70, 1))).astype(np.float32)
    return x, w, {n: oracles.prox1d(x[:, :n], w).y for n in range(1, 68)}


@pytest.mark.unsanitized
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("solver", SOLVERS)
def test_info_certifies(solver, axis, dtype, platform):
    """The gap is that of y, and ||y - y*||^2 <= gap but for the rounding of y."""
    x, w = steps(30, 25).astype(dtype), rng(8).random((30, 24)).astype(dtype)
    solution = oracles.prox1d(x, w)
    operands = (x, w) if axis == 1 else (x.T, w.T)
    y, gap, iterations, converged = solve(*operands, SOLVERS[solver], platform, axis)
    y = y if axis == 1 else y.T
    assert gap.dtype == dtype
    assert np.all(converged)
    assert np.all(iterations >= 0)
    assert np.all(gap >= 0)
    eps = np.finfo(dtype).eps
    assert np.allclose(gap.ravel(), oracles.gap(x, y, w), rtol=1e-3, atol=100 * eps)
    assert np.all(((y - solution.y) ** 2).sum(-1) <= gap.ravel() + 100 * eps)


@pytest.mark.unsanitized
@pytest.mark.parametrize("platform", PLATFORMS)
def test_newton_says_where_it_has_not_converged(platform):
    x, w = steps(9, 400).astype(np.float32), np.full((9, 1), 2, np.float32)
    one = jaxtv.ProjectedNewton(tol=1e-9, max_iterations=1)
    y, gap, iterations, converged = solve(x, w, one, platform)
    assert np.isfinite(y).all()
    assert np.all(iterations <= 1)
    assert not np.any(converged)
    assert np.all(gap > 0)


SMOOTH = {
    "sine": lambda k: np.sin(k / 300),
    "parabola": lambda k: (k / 1500 - 1) ** 2,
    "steep then flat": lambda k: np.exp(-k / 400),
    "stairs of ramps": lambda k: k // 500 + (k % 500) / 700,
    "integers": lambda k: np.floor(k / 7) % 400,
}
WEIGHTS = {
    "one": lambda r, n: np.full(1, 5.0),
    "random": lambda r, n: r.exponential(8.0, n),
    "some 0": lambda r, n: r.exponential(8.0, n) * (r.random(n) > 0.01),
    "some inf": lambda r, n: np.where(r.random(n) > 0.99, np.inf, r.exponential(8.0, n)),
}


@pytest.mark.unsanitized
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", SMOOTH)
def test_the_taut_string_hands_over_at_any_sample(name, weights, dtype, platform):
    """An O(n) method takes over on smooth signals, wherever the iteration budget runs out."""
    x, w, y_exact = smooth(name, weights, dtype)
    (y,) = bind("prox1d", x, w, axis=1, solver=EXACT["taut string"], platform=platform)
    assert_solves(y, y_exact, x)
    (other,) = bind("prox1d", x, w, axis=1, solver=EXACT["decomposition"], platform=platform)
    np.testing.assert_array_equal(np.diff(y) == 0, np.diff(other) == 0)


@functools.cache
def smooth(name, weights, dtype):
    k = np.arange(3000)
    x = SMOOTH[name](k) + 0.3 * (k < 200) * rng(1).normal(size=k.size)
    x = np.stack([x, -x, x[::-1]]).astype(dtype)
    w = np.tile(WEIGHTS[weights](rng(2), k.size - 1), (3, 1)).astype(dtype)
    return x, w, oracles.prox1d(x, w).y


# ---------------------------------------------------------------------------- CUDA against the CPU


def operands(shape, axis, per_edge, dtype):
    """Noise, one signal of ties, and weights of which some are 0."""
    r = rng(4)
    x = r.normal(size=shape)
    x[:1] = np.round(2 * x[:1])
    sizes = weight_shape(shape, axis, per_edge)
    w = 2 * r.random(sizes) * (r.random(sizes) < 0.9)
    return x.astype(dtype), w.astype(dtype)


def check(x, w, axis, solver, ulps=4):
    """Same values up to round-off of the scale, and the very same segments; y."""
    y0, gap0, *info0 = solve(x, w, solver, "cpu", axis)
    y, gap, *info = solve(x, w, solver, "cuda", axis)
    scale = np.abs(np.where(np.isfinite(x), x, 0)).max(initial=0).astype(float)
    eps = float(np.finfo(x.dtype).eps)
    y0, y = np.asarray(y0, float), np.asarray(y, float)
    assert np.allclose(y, y0, rtol=0, atol=ulps * eps * scale, equal_nan=True)
    jumps0, jumps = np.sign(np.diff(y0, axis=axis)), np.sign(np.diff(y, axis=axis))
    assert np.array_equal(jumps, jumps0, equal_nan=True)
    assert np.array_equal(info[0], info0[0])
    assert np.array_equal(info[1], info0[1])
    noise = eps * scale**2 * x.shape[axis] * 8
    assert np.allclose(gap, gap0, rtol=1e-3, atol=noise, equal_nan=True)
    return y


@pytest.mark.parametrize("dtype", MATRIX_DTYPES)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("signals", SIGNALS)
def test_cuda_solves_as_the_cpu_does(signals, solver, per_edge, dtype):
    shape, axis = SIGNALS[signals]
    check(*operands(shape, axis, per_edge, dtype), axis, SOLVERS[solver])


@pytest.mark.parametrize("n", [60, 200, 900, 1200, 33_000])
@pytest.mark.parametrize("solver", ONE_EACH)
def test_bad_signals_stay_alone(solver, n):
    """A NaN, an infinity or a bad weight: that signal is NaN, its neighbours are exact."""
    if solver != "direct" and n > 1200:
        n = 2000
    x, w = rng(5).normal(size=(5, n)).astype("float32"), np.full((5, n - 1), 0.5, "float32")
    clean = check(x, w, 1, SOLVERS[solver])
    x[1, n // 2], x[2, n - 1], w[3, 7] = np.nan, -np.inf, -1
    y, gap, iterations, converged = solve(x, w, SOLVERS[solver])
    assert np.array_equal(np.isnan(y).all(1), [False, True, True, True, False])
    assert np.array_equal(y[[0, 4]], clean[[0, 4]].astype("float32"))
    assert np.array_equal(np.isnan(gap[:, 0]), [False, True, True, True, False])
    assert np.array_equal(converged[:, 0], [True, False, False, False, True])
    assert np.array_equal(iterations[1:4, 0], [0, 0, 0])


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("per_edge", [False, True])
def test_bad_signals_poison_only_themselves(per_edge, axis, solver, dtype, platform):
    """In tiles and in vectors, where the last of 43 signals is repeated to fill one."""
    x, w = steps(43, 21).astype(dtype), rng(1).random((43, 20 if per_edge else 1)).astype(dtype)
    bad_x, bad_w = x.copy(), w.copy()
    bad_x[3, 0], bad_x[17, 20], bad_x[18, 9] = np.nan, np.inf, -np.inf
    bad_w[5, 0], bad_w[42, -1] = np.nan, -0.5

    def prox(x, w):
        x, w = (x, w) if axis == 1 else (x.T, w.T)
        (y,) = bind("prox1d", x, w, axis=axis, solver=SOLVERS[solver], platform=platform)
        return y if axis == 1 else y.T

    clean, y = prox(x, w), prox(bad_x, bad_w)
    bad = np.isin(np.arange(43), [3, 17, 18, 5, 42])
    assert np.isfinite(clean).all()
    assert np.isnan(y[bad]).all()
    assert np.array_equal(y[~bad], clean[~bad])


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_lam_zero_is_the_identity_bit_for_bit(solver, dtype, platform):
    x = np.concatenate([np.repeat(rng(2).normal(size=(5, 9)), 3, 1), rng(3).normal(size=(5, 27))])
    x[0, :4] = [0.0, -0.0, 1e-40, 1e4]
    x = x.astype(dtype)
    for size in (1, 26):
        for axis, v in ((1, x), (0, x.T)):
            w = np.zeros(weight_shape(v.shape, axis, size > 1), dtype)
            (y,) = bind("prox1d", v, w, axis=axis, solver=SOLVERS[solver], platform=platform)
            assert np.ascontiguousarray(v).tobytes() == y.tobytes()


@pytest.mark.unsanitized
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("n", [50, 150, 600, 1200])
def test_zero_weights_return_x_and_huge_ones_the_mean(n, solver, dtype):
    x = np.round(3 * rng(6).normal(size=(3, n))).astype(dtype) + np.asarray(0.1, dtype)
    w = np.array([[0], [np.inf], [1e30]], dtype)
    y = check(x, w, 1, EXACT[solver])
    assert np.array_equal(y[0].astype(dtype), x[0])
    assert np.unique(y[1]).size == np.unique(y[2]).size == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", ONE_EACH)
@pytest.mark.parametrize("n", [16, 150, 600, 1200, 33_000])
def test_sums_beyond_the_range(n, solver, dtype):
    """Samples up to the largest number: solved as a small copy is, with a gap that is no NaN."""
    if n > 1200 and (solver != "direct" or dtype == "float64"):
        n = 2000
    largest, small = float(np.finfo(dtype).max), 0.5 ** (np.finfo(dtype).maxexp - 4)
    x = (largest * rng(8).choice([-1.0, -0.25, 0.7, 1.0], size=(4, n))).astype(dtype)
    w = np.array([[0], [0.03 * largest], [0.9 * largest], [np.inf]], dtype)
    y, gap, *_ = solve(x, w, SOLVERS[solver])
    scale = x.dtype.type(small)
    y_small, *_ = solve(x * scale, w * scale, SOLVERS[solver])
    error = np.asarray(y, np.float64) * small - np.asarray(y_small, np.float64)
    assert np.abs(error).max() <= 2 * np.finfo(dtype).eps * largest * small
    assert not np.isnan(gap).any()


@pytest.mark.unsanitized
def test_values_near_the_largest_double():
    x, w = rng(8).normal(size=(3, 200)) * 1e300, np.full((3, 1), 3e299)
    for name in ("taut string", "decomposition", "backtracking"):
        y0, y = (solve(x, w, SOLVERS[name], platform)[0] for platform in PLATFORMS)
        assert np.isfinite(y).all()
        assert np.allclose(y / 1e300, y0 / 1e300, rtol=0, atol=1e-14)


@pytest.mark.unsanitized
@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("n", [50, 150, 600, 1200])
def test_edges_of_weight_zero_are_cuts(n, solver):
    """Parts with the same mean but for round-off: each is solved alone, so as on the CPU."""
    x = rng(12).permuted(np.broadcast_to(rng(13).normal(size=(5, 1, 5)), (5, n // 5, 5)), axis=2)
    w = np.where(np.arange(1, n) % 5 == 0, 0, 9.0) * np.ones((5, 1))
    both = x.reshape(5, n).astype("float32"), w.astype("float32")
    y0, y = (solve(*both, EXACT[solver], platform)[0] for platform in PLATFORMS)
    assert np.array_equal(y, y0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", ["direct", "taut string"])
@pytest.mark.parametrize(("n", "lam"), [(1024, 1e4), (1500, 1e3)])
def test_ramps_are_handed_over(n, lam, solver, dtype):
    """The taut string is quadratic on them: its iteration budget ends it, decomposition goes on."""
    x = np.stack([np.arange(n), np.sin(np.arange(n) / 500) * 100]).astype(dtype)
    check(x, np.full((2, 1), lam, dtype), 1, EXACT[solver])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [200, 1000, 1500, 33_000])
def test_exponential_range_is_finished_serially(n, dtype):
    """More passes than the kernels do in parallel."""
    x = np.zeros((1, n), dtype)
    x[0, :200] = 2.0 ** np.arange(-100, 100)
    for lam in (0, 1e-20):
        y = check(x, np.full((1, 1), lam, dtype), 1, EXACT["decomposition"])
        if lam == 0:
            assert np.array_equal(y, x)


# ---------------------------------------------------------------------------- one long signal


@pytest.mark.parametrize("kind", ["walk", "ramp", "sine", "ties", "edges", "strided"])
def test_one_long_signal_over_the_grid(kind):
    r, n = rng(7), 33_001
    x = {
        "ramp": np.linspace(0, 1000, n),
        "sine": 100 * np.sin(np.arange(n) / 5000),
        "ties": np.round(r.normal(size=n)),
    }.get(kind, np.cumsum(r.normal(size=n)))
    x, w = x.astype("float32")[None], np.full((1, 1), 20, "float32")
    if kind == "edges":
        w = (r.random((1, n - 1)) * (r.random((1, n - 1)) < 0.8)).astype("float32")
    if kind == "strided":
        x, w = np.concatenate([x, -x]).T.copy(), np.array([[20, 30]], "float32")
    check(x, w, 0 if kind == "strided" else 1, EXACT["direct"])


@pytest.mark.parametrize("kind", ["ramp", pytest.param("sine", marks=pytest.mark.nightly)])
def test_a_longer_signal_of_many_passes(kind):
    """More binary splits than the passes of the grid: blocks finish."""
    n = 150_000
    x = np.linspace(0, 1000, n) if kind == "ramp" else 100 * np.sin(np.arange(n) / 30_000)
    check(x.astype("float32")[None], np.full((1, 1), 20, "float32"), 1, EXACT["direct"])


@pytest.mark.nightly
@pytest.mark.unsanitized
def test_more_tiles_and_chunks_than_a_scan_has_threads():
    """Then each thread has several of them: beyond 1,024 tiles of 4,096 samples."""
    n, w = 1024 * 4096 + 5, np.full((1, 1), 20, "float32")
    x = np.repeat(np.float32([[0, 5, 1]]), [1_400_001, 1_800_002, n - 3_200_003], axis=1)
    g = rng(9).normal(size=(1, n)).astype("float32")

    def both(platform):
        (y,) = bind("prox1d", x, w, axis=1, solver=EXACT["direct"], platform=platform)
        return y, *bind("segment_vjp", y, w, g, axis=1, platform=platform)

    expected, got = map(both, PLATFORMS)
    assert np.array_equal(got[0], expected[0])
    assert np.unique(got[0]).size == 3
    for a, b in zip(got[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------- half types

HALF_SHAPES = {name: SIGNALS[name] for name in ("tiles, last axis", "warps, strided", "block")}
HALF_SHAPES["wide block, strided"] = Signals((1100, 2), 0)  # few: it takes long in testing.ptx


@pytest.mark.unsanitized
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("solver", ONE_EACH)
@pytest.mark.parametrize("signals", HALF_SHAPES)
def test_half_types_are_the_float32_result_rounded(signals, solver, per_edge, dtype):
    shape, axis = HALF_SHAPES[signals]
    x, w = operands(shape, axis, per_edge, "float32")
    assert_rounded(x.astype(dtype), w, axis, SOLVERS[solver])


@pytest.mark.unsanitized
@pytest.mark.parametrize("dtype", HALF)
def test_one_long_signal_of_a_half_type(dtype):
    x = np.repeat(rng().normal(size=(1, 4715)), 7, 1) + 0.3 * rng(1).normal(size=(1, 33_005))
    assert_rounded(x.astype(dtype), np.full((1, 1), 0.37, np.float32), 1, EXACT["direct"])


def assert_rounded(x, w, axis, solver):
    params = {"axis": axis, "solver": solver, "platform": "cuda"}
    (y,), (single,) = bind("prox1d", x, w, **params), bind("prox1d", np.float32(x), w, **params)
    assert y.dtype == x.dtype
    assert np.array_equal(y.view(np.uint16), single.astype(x.dtype).view(np.uint16))


@pytest.mark.unsanitized
@pytest.mark.parametrize("dtype", HALF)
def test_every_16_bit_pattern_is_stored_as_it_was_read(dtype):
    """λ = 0 gives x bit for bit; infinities and NaN make their own signal NaN."""
    x = np.arange(65536, dtype=np.uint16).view(np.dtype(dtype)).reshape(-1, 1)
    w = np.zeros((65536, 1), np.float32)
    (y,) = bind("prox1d", x, w, axis=1, solver=EXACT["direct"], platform="cuda")
    finite = np.isfinite(x.astype(np.float32))
    assert np.array_equal(y.view(np.uint16)[finite], x.view(np.uint16)[finite])
    assert np.all(np.isnan(y.astype(np.float32)[~finite]))


# ---------------------------------------------------------------------------- rare paths


@pytest.mark.cpu_only
def test_data_that_take_too_many_passes_are_finished_serially():
    """A pass of the decomposition cuts off the largest two of these 200 samples."""
    x = 16.0 ** np.arange(-100, 100)[None]
    w = np.full((1, 1), x.min())
    got, expected = (
        bind("prox1d", x, w, axis=1, solver=jaxtv.Direct("decomposition"), platform=p)[0]
        for p in ("cuda", "cpu")
    )
    np.testing.assert_array_equal(got, expected)


@pytest.mark.cpu_only
def test_ties_that_joining_makes_are_joined_on_the_whole_device():
    """There is one tie before the first pass; joining it makes another, and then one thread looks for more."""
    tie = (
        8 * 256 * np.finfo(float).eps
    )  # is_tie_at in parallel_decomposition.cuh, next to a sample of 1e6
    levels = np.repeat([0.9, 0, 1.1, 0], [30_000, 1000, 1000, 1000])
    x = np.append(1 + tie * levels, 1e6)[None]
    (y,) = bind("prox1d", x, np.full((1, 1), 1e-12), axis=1, solver=jaxtv.Direct(), platform="cuda")
    joined = np.cumsum([0, 32_000, 1000, 1])
    assert [np.ptp(y[0, a:b]) for a, b in itertools.pairwise(joined)] == [0, 0, 0]
    assert np.unique(y).size == 3


# ---------------------------------------------------------------------------- scratch, errors


@pytest.mark.cpu_only
@pytest.mark.parametrize("n", [1000, 1025, 32_768, 10**8, 2**31 + 5, 10**10])
@pytest.mark.parametrize("signals", [1, 64, 65])
def test_scratch_of_sizes_that_no_test_can_run(signals, n):
    """Bytes per sample of every kernel; the 64-bit formulas do not overflow."""
    least = {"direct": 9, "taut string": 1, "decomposition": 9, "backtracking": 26}
    for method, name in enumerate(least):
        got = emulator.scratch_bytes("jaxtv_prox1d", (n, signals), [0], 4, method)
        expected = least[name] * n * signals
        if n <= 1024 and name != "taut string":
            assert got == 8
        elif n >= 32_768 and least[name] == 9 and signals <= 64:  # the whole device
            assert expected < got <= 1.2 * expected
        else:
            assert got == expected


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("n", "solver"),
    [(1200, "decomposition"), (300, "taut string"), (1200, "backtracking"), (33_000, "direct")],
)
def test_too_little_scratch_is_an_error(n, solver):
    x, w = np.ones((1, n), np.float32), np.ones((1, 1), np.float32)
    method = ["direct", "taut string", "decomposition", "backtracking"].index(solver)
    attributes = {"axis": 1, "method": method, "tol": 1e-6, "max_iterations": 5, "line_search": 0}
    enough = emulator.scratch_bytes("jaxtv_prox1d", (n,), [0], 4, method)

    def run(size):
        results = [(x.shape, x.dtype), ((size,), np.uint8)]
        return call("jaxtv_prox1d", [x, w], results, attributes, "cuda")

    run(enough)
    with pytest.raises(HandlerError, match="scratch is too small"):
        run(8)
