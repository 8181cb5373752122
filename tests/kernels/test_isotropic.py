"""The CUDA steps of the isotropic prox on NumPy arrays, compared with NumPy and with the CPU kernel."""

import numpy as np
import pytest

from testing import emulator, fgp
from testing.callframe import HandlerError, bind, call
from testing.generators import rng

SHAPES = {  # elements, channels, sizes
    "image": (2, 1, 9, 11),
    "tiles": (1, 1, 70, 40),
    "two channels": (1, 2, 6, 35),
    "three channels": (1, 3, 7, 8),
    "many channels": (1, 5, 4, 9),
    "signals": (3, 1, 20),
    "long signal": (1, 1, 600),
    "channels of a signal": (2, 2, 13),
    "volume": (1, 1, 4, 5, 6),
    "volume in colours": (1, 2, 3, 4, 5),
    "four axes": (1, 1, 2, 3, 2, 4),
    "one row": (1, 1, 1, 7),
    "one column": (1, 1, 40, 1),
    "one pixel": (2, 1, 1, 1),
}
OPTIONS = {"tol": 1e-4, "max_iterations": 60}


def problem(shape, per_pixel=False, dtype="float64", seed=0):
    """x of a size about one, and weights; the first element takes long."""
    r = rng(seed)
    x = r.normal(size=shape)
    x -= x.mean(tuple(range(2, x.ndim)), keepdims=True)
    x[0] /= 100
    sizes = shape[2:] if per_pixel else (1,) * len(shape[2:])
    w = r.uniform(0.1, 0.5, (shape[0], 1, *sizes))
    if per_pixel:
        w[..., 0] = 0
    return x.astype(dtype), w.astype(dtype)


def axes_of(x):
    return tuple(range(1, x.ndim))


def finished(operands, platform="cuda", **options):
    """(duals, counts, reals) of calls until no element runs."""
    x, w, *state = operands
    while np.any(state[1][:, 0] == fgp.RUNNING):
        before = state[1][:, 1].copy()
        state = bind(
            *("isotropic_steps", x, w, *state),
            **{"axes": axes_of(x), "platform": platform, **(OPTIONS | options)},
        )
        assert np.all((state[1][:, 1] > before) | (state[1][:, 0] != fgp.RUNNING))
    return state


@pytest.mark.parametrize("per_pixel", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_steps_are_those_of_numpy(name, per_pixel):
    """The same iterations of every element, each with its own stop."""
    x, w = problem(SHAPES[name], per_pixel)
    duals, counts, reals = finished(fgp.fresh(x, w))
    got = fgp.newest(duals, counts)
    for e in range(len(x)):
        start = np.zeros_like(got[e])
        u, iterations, gap, converged = fgp.solve(x[e], w[e], start, *OPTIONS.values())
        status = fgp.CONVERGED if converged else fgp.UNFINISHED
        assert counts[e, :2].tolist() == [status, iterations]
        np.testing.assert_allclose(got[e], u, rtol=0, atol=1e-12)
        np.testing.assert_allclose(reals[e, 2], gap, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["image", "three channels", "volume"])
def test_the_cpu_kernel_finds_the_same(name, dtype):
    x, w = problem(SHAPES[name], True, dtype)
    duals, counts, reals = finished(fgp.fresh(x, w))
    start = [np.zeros_like(x)] * (x.ndim - 2)
    y, gap, iterations, converged, *dual, _ = bind(
        "isotropic", x, w, *start, axes=axes_of(x), **OPTIONS
    )
    np.testing.assert_array_equal(counts[:, 1], iterations.ravel())
    np.testing.assert_array_equal(counts[:, 0] == fgp.CONVERGED, converged.ravel())
    rounding = 64 * np.finfo(dtype).eps
    np.testing.assert_allclose(reals[:, 2], gap.ravel(), rtol=0.02, atol=rounding)
    got = fgp.newest(duals, counts)
    np.testing.assert_allclose(got, np.stack(dual, 1), rtol=0, atol=rounding)
    solution = np.stack([fgp.primal(*both) for both in zip(x, got)])
    np.testing.assert_allclose(solution, y, rtol=0, atol=4 * rounding)


def test_a_start_is_gone_on_from():
    x, w = problem(SHAPES["image"])
    duals, counts, _ = finished(fgp.fresh(x, w), max_iterations=1000)
    start = fgp.newest(duals, counts)
    _, again, _ = finished(fgp.fresh(x, w, start))
    assert np.all(again[:, 1] == 1)


def test_batch_mates_change_no_bit():
    """One stops in the first call and waits for the others; one never runs."""
    x, w = problem((3, 1, 9, 11))
    options = {"tol": 1e-4, "max_iterations": 200}
    together = finished(fgp.fresh(x, w), **options)
    assert together[1][2, 1] < 24 < together[1][0, 1]
    for e in range(3):
        one = slice(e, e + 1)
        alone = finished(fgp.fresh(x[one], w[one]), **options)
        np.testing.assert_array_equal(together[1][one], alone[1])
        np.testing.assert_array_equal(together[2][one], alone[2])
        got, want = (fgp.newest(*state[:2]) for state in ((together[0][one], alone[1]), alone))
        np.testing.assert_array_equal(got, want)
    operands = fgp.fresh(x, w)
    operands[3][1, 0] = fgp.CONVERGED
    *_, counts, reals = finished(operands)
    assert counts[1].tolist() == [fgp.CONVERGED, 0, 1, 0]
    assert reals[1].tolist() == [1, 0, 0]


@pytest.mark.parametrize("most", [1, 23, 24, 25])
def test_iterations_are_as_many_as_allowed(most):
    x, w = problem(SHAPES["image"])
    duals, counts, reals = finished(fgp.fresh(x, w), tol=0, max_iterations=most)
    assert counts[:, :2].tolist() == [[fgp.UNFINISHED, most]] * 2
    for e in range(2):
        u, _, gap, _ = fgp.solve(x[e], w[e], np.zeros_like(duals[e, 0]), 0, most)
        np.testing.assert_allclose(fgp.newest(duals, counts)[e], u, rtol=0, atol=1e-12)
        np.testing.assert_allclose(reals[e, 2], gap, rtol=1e-6)


@pytest.mark.cpu_only
@pytest.mark.unsanitized
def test_an_image_of_more_tiles_than_blocks():
    """Each block has several tiles."""
    x, w = problem((1, 1, 33 * 32, 33 * 32), dtype="float32")
    with emulator.launches() as launches:
        duals, counts, _ = finished(fgp.fresh(x, w), max_iterations=1, tol=0)
    assert launches[0].blocks == 1024
    u, *_ = fgp.solve(x[0], w[0], np.zeros_like(duals[0, 0]), 0, 1)
    np.testing.assert_allclose(fgp.newest(duals, counts)[0], u, rtol=0, atol=1e-6)


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes": 8}, "scratch is too small"),
        ({"axes": (1, 2)}, "axes must be the last ones"),
        ({"axes": (1, 3, 2)}, "axes must be in order"),
        ({"axes": (3,)}, "two axes at least"),
        ({1: np.ones((2, 1, 9, 1))}, "weights are one per pixel or one per element"),
        ({1: np.ones((2, 1, 1, 1), "float32")}, "operands differ in dtype"),
        ({2: np.ones((2, 3, 2, 1, 9, 10))}, "wrong state"),
        ({3: np.ones((2, 4), np.int64)}, "wrong state"),
        ({4: np.ones((2, 3), np.float32)}, "wrong state"),
        ({"in_place": {2: 0, 3: 1}}, "updated in place"),
        ({"tol": -1.0}, "bad solver options"),
        ({"max_iterations": 0}, "bad solver options"),
    ],
)
def test_wrong_calls_are_errors(change, message):
    operands = fgp.fresh(*problem(SHAPES["image"]))
    for i in range(5):
        operands[i] = change.get(i, operands[i])
    results = [(a.shape, a.dtype) for a in operands[2:]]
    results.append(((2, change.get("bytes", 1000)), np.uint8))
    attributes = {
        "axes": np.asarray(change.get("axes", (1, 2, 3)), np.int64),
        "tol": np.float64(change.get("tol", 1e-4)),
        "max_iterations": np.int64(change.get("max_iterations", 9)),
    }
    in_place = change.get("in_place", {2: 0, 3: 1, 4: 2})
    with pytest.raises(HandlerError, match=message):
        call("jaxtv_isotropic_steps", operands, results, attributes, "cuda", in_place=in_place)
