"""The CUDA kernels of the 1D prox, run without a GPU (testing/emulator) beside the CPU's, and lowered."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from jaxtv import _lowering, _native, _primitive
from testing import emulator
from testing.generators import rng

SOLVERS = {
    "direct": jaxtv.Direct(),
    "taut string": jaxtv.Direct("taut_string"),
    "decomposition": jaxtv.Direct("decomposition"),
    "newton": jaxtv.ProjectedNewton(),
    "parallel search": jaxtv.ProjectedNewton(line_search="parallel"),
}
SHAPES = [  # shape, axis: every kernel, contiguous and strided, tiles that hang over
    ((0, 5), 1),
    ((5, 1), 1),
    ((7, 2), 1),
    ((150, 33), 1),
    ((3, 20, 9), 1),
    ((2, 100, 3), 1),
    ((70, 2, 40), 0),
    ((3, 300), 1),
    ((2, 700), 1),
    ((700, 2), 0),
    ((3, 1500), 1),
    ((1500, 9), 0),
]


def operands(shape, axis, edge, dtype):
    """Noise, one signal of ties, and weights of which some are 0."""
    r = rng(4)
    x = r.normal(size=shape)
    x[:1] = np.round(2 * x[:1])
    sizes = [d if i != axis else (max(1, d - 1) if edge else 1) for i, d in enumerate(shape)]
    w = 2 * r.random(sizes) * (r.random(sizes) < 0.9)
    return x.astype(dtype), w.astype(dtype)


def solve_both(simt, x, w, axis, solver):
    """(y, gap, iterations, converged) of the CPU and of the CUDA kernels."""

    def f(x, w):
        return _primitive.prox1d_info(x, w, axis=axis, solver=solver)

    expected = jax.jit(f)(x, w)
    with emulator.using():
        lowered = jax.jit(lambda *a: f(*a)).lower(x, w)
        assert simt["jaxtv_prox1d_info"] in lowered.as_text()
        return expected, lowered.compile()(x, w)


def check(simt, x, w, axis, solver, ulps=4):
    """Same values up to round-off of the scale, and the very same segments."""
    (y0, gap0, *info0), (y, gap, *info) = solve_both(simt, x, w, axis, solver)
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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_kernels_solve_as_those_of_the_cpu(simt, shape, axis, name, edge, dtype):
    check(simt, *operands(shape, axis, edge, dtype), axis, SOLVERS[name])


@pytest.mark.parametrize("n", [60, 200, 900, 1200, 33_000])
@pytest.mark.parametrize("name", ["direct", "taut string", "decomposition", "newton"])
def test_bad_signals_stay_alone(simt, name, n):
    """A NaN, an infinity or a bad weight: that signal is NaN, its neighbours are exact."""
    if name in ("newton", "taut string") and n > 1200:
        n = 2000
    r = rng(5)
    x, w = r.normal(size=(5, n)).astype("float32"), np.full((5, n - 1), 0.5, "float32")
    clean = check(simt, x, w, 1, SOLVERS[name])
    x[1, n // 2], x[2, n - 1], w[3, 7] = np.nan, -np.inf, -1
    (_, *_), (y, gap, iterations, converged) = solve_both(simt, x, w, 1, SOLVERS[name])
    assert np.array_equal(np.isnan(y).all(1), [False, True, True, True, False])
    assert np.array_equal(np.asarray(y)[[0, 4]], clean[[0, 4]].astype("float32"))
    assert np.array_equal(np.isnan(gap[:, 0]), [False, True, True, True, False])
    assert np.array_equal(converged[:, 0], [True, False, False, False, True])
    assert np.array_equal(np.asarray(iterations)[1:4, 0], [0, 0, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["direct", "taut string", "decomposition"])
@pytest.mark.parametrize("n", [50, 150, 600, 1200])
def test_zero_weights_return_x_and_huge_ones_the_mean(simt, n, name, dtype):
    x = np.round(3 * rng(6).normal(size=(3, n))).astype(dtype) + np.asarray(0.1, dtype)
    w = np.array([[0], [np.inf], [1e30]], dtype)
    y = check(simt, x, w, 1, SOLVERS[name])
    assert np.array_equal(y[0].astype(dtype), x[0])
    assert np.unique(y[1]).size == np.unique(y[2]).size == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["direct", "taut string", "decomposition", "newton"])
@pytest.mark.parametrize("n", [16, 150, 600, 1200, 33_000])
def test_sums_beyond_the_range(simt, n, name, dtype):
    """Samples up to the largest number: solved as a small copy is, with a gap that is no NaN."""
    if n > 1200 and name != "direct":
        n = 2000
    largest, small = float(np.finfo(dtype).max), 0.5 ** (np.finfo(dtype).maxexp - 4)
    x = (largest * rng(8).choice([-1.0, -0.25, 0.7, 1.0], size=(4, n))).astype(dtype)
    w = np.array([[0], [0.03 * largest], [0.9 * largest], [np.inf]], dtype)
    _, (y, gap, *_) = solve_both(simt, x, w, 1, SOLVERS[name])
    scale = x.dtype.type(small)
    _, (y_small, *_) = solve_both(simt, x * scale, w * scale, 1, SOLVERS[name])
    error = np.asarray(y, np.float64) * small - np.asarray(y_small, np.float64)
    assert np.abs(error).max() <= 2 * np.finfo(dtype).eps * largest * small
    assert not np.isnan(gap).any()


@pytest.mark.parametrize("name", ["direct", "taut string", "decomposition"])
@pytest.mark.parametrize("n", [50, 150, 600, 1200])
def test_edges_of_weight_zero_are_cuts(simt, n, name):
    """Parts with the same mean but for round-off: each is solved alone, so as on the CPU."""
    x = rng(12).permuted(np.broadcast_to(rng(13).normal(size=(5, 1, 5)), (5, n // 5, 5)), axis=2)
    w = np.where(np.arange(1, n) % 5 == 0, 0, 9.0) * np.ones((5, 1))
    operands = x.reshape(5, n).astype("float32"), w.astype("float32")
    (y0, *_), (y, *_) = solve_both(simt, *operands, 1, SOLVERS[name])
    assert np.array_equal(y, y0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["direct", "taut string"])
@pytest.mark.parametrize(("n", "lam"), [(1024, 1e4), (1500, 1e3)])
def test_ramps_are_handed_over(simt, n, lam, name, dtype):
    """The taut string is quadratic on them: the trip budget ends it, decomposition goes on."""
    x = np.stack([np.arange(n), np.sin(np.arange(n) / 500) * 100]).astype(dtype)
    check(simt, x, np.full((2, 1), lam, dtype), 1, SOLVERS[name])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [200, 1000, 1500, 33_000])
def test_exponential_range_is_finished_serially(simt, n, dtype):
    """More rounds than the kernels do in parallel."""
    x = np.zeros((1, n), dtype)
    x[0, :200] = 2.0 ** np.arange(-100, 100)
    for lam in (0, 1e-20):
        y = check(simt, x, np.full((1, 1), lam, dtype), 1, jaxtv.Direct("decomposition"))
        if lam == 0:
            assert np.array_equal(y, x)


@pytest.mark.parametrize("kind", ["walk", "ramp", "sine", "ties", "edges", "strided"])
def test_one_long_signal_over_the_grid(simt, kind):
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
    check(simt, x, w, 0 if kind == "strided" else 1, jaxtv.Direct())


@pytest.mark.parametrize("kind", ["ramp", "sine"])
def test_a_longer_signal_of_many_rounds(simt, kind):
    """More binary splits than the rounds of the grid: blocks finish."""
    n = 150_000
    x = np.linspace(0, 1000, n) if kind == "ramp" else 100 * np.sin(np.arange(n) / 30_000)
    check(simt, x.astype("float32")[None], np.full((1, 1), 20, "float32"), 1, jaxtv.Direct())


def test_more_tiles_and_chunks_than_a_scan_has_threads(simt):
    """Then each thread has several of them: beyond 1,024 tiles of 4,096 samples."""
    n, w = 1024 * 4096 + 5, np.full((1, 1), 20, "float32")
    x = np.repeat(np.float32([[0, 5, 1]]), [1_400_001, 1_800_002, n - 3_200_003], axis=1)
    g = rng(9).normal(size=(1, n)).astype("float32")

    def both(x, w, g):
        y = _primitive.prox1d(x, w, axis=1, solver=jaxtv.Direct())
        return y, *_primitive._segment_vjp_p.bind(y, w, g, axis=1)

    expected = both(x, w, g)
    with emulator.using():
        got = both(x, w, g)
    assert np.array_equal(got[0], expected[0])
    assert np.unique(got[0]).size == 3
    for a, b in zip(got[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.cpu_only
@pytest.mark.parametrize("n", [1000, 1025, 32_768, 10**8, 2**31 + 5, 10**10])
@pytest.mark.parametrize("signals", [1, 64, 65])
def test_workspaces_of_sizes_that_no_test_can_run(signals, n):
    """The kernels' 64-bit formulas do not overflow, and Python asks for at least as much."""
    library = emulator.library()
    for method, name in enumerate(["direct", "taut string", "decomposition", "newton"]):
        needed = library.emulator_workspace(method, signals, n)
        given = _lowering.WORKSPACES["jaxtv_prox1d"](
            [(n, signals)], axis=0, solver=SOLVERS[name], itemsize=4
        )
        assert needed >= 0
        assert needed <= given <= 1.2 * needed + 300 * signals + 8
        assert name != "newton" or n <= 1024 or needed == 26 * n * signals


def test_values_near_the_largest_double(simt):
    x = rng(8).normal(size=(3, 200)) * 1e300
    for name in ("taut string", "decomposition", "newton"):
        (y0, *_), (y, *_) = solve_both(simt, x, np.full((3, 1), 3e299), 1, SOLVERS[name])
        assert np.isfinite(y).all()
        assert np.allclose(y / 1e300, y0 / 1e300, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("n", "solver", "attributes"),
    [
        (1200, "decomposition", 2),
        (300, "taut string", 1),
        (1200, "newton", 3),
        (33_000, "direct", 0),
    ],
)
def test_a_small_workspace_is_an_error(simt, n, solver, attributes):
    x, w = jnp.ones((1, n), jnp.float32), jnp.ones((1, 1), jnp.float32)
    enough = _lowering.WORKSPACES["jaxtv_prox1d"](
        [x.shape], axis=1, solver=SOLVERS[solver], itemsize=4
    )
    for size in (8, enough):
        results = [jax.ShapeDtypeStruct(x.shape, x.dtype), jax.ShapeDtypeStruct((size,), jnp.uint8)]
        call = jax.ffi.ffi_call(simt["jaxtv_prox1d"], results)
        options = {"axis": np.int64(1), "method": np.int64(attributes), "tol": np.float64(1e-6)}
        options |= {"max_iterations": np.int64(5), "line_search": np.int64(0)}
        if size == enough:
            jax.block_until_ready(call(x, w, **options))
        else:
            with pytest.raises(Exception, match="workspace is too small"):
                jax.block_until_ready(call(x, w, **options))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("shape", [(4, 3, 64), (2, 3, 5000)])
def test_lowering_for_cuda(monkeypatch, shape, name):
    targets = ["jaxtv_prox1d", "jaxtv_prox1d_info", "jaxtv_segment_jvp", "jaxtv_segment_vjp"]
    monkeypatch.setitem(_native.REGISTERED, "cuda", tuple(targets))
    solver, x = SOLVERS[name], jnp.ones(shape, jnp.float32)

    def lowered(f):
        return jax.jit(f).trace(x).lower(lowering_platforms=("cuda",)).as_text()

    plain = lowered(lambda x: jaxtv.prox_tv1d(x, 0.1, solver=solver))
    size = _lowering.WORKSPACES["jaxtv_prox1d"]([shape], axis=2, solver=solver, itemsize=4)
    assert "@jaxtv_prox1d(" in plain
    assert f"tensor<{shape[0]}x{shape[1]}x{size}xui8>" in plain
    assert "num_batch_dims" in plain
    info = lowered(lambda x: jaxtv.prox_tv1d(x, 0.1, solver=solver, return_info=True))
    assert "@jaxtv_prox1d_info(" in info
    gradient = lowered(jax.grad(lambda x: jnp.sum(jaxtv.prox_tv1d(x, 0.1, solver=solver) ** 2)))
    assert re.search("@jaxtv_segment_vjp", gradient)
