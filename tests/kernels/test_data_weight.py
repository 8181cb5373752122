"""The kernels of the 1D prox with data weights: CUDA's against the CPU's, on NumPy arrays."""

import numpy as np
import pytest

import jaxtv
from testing.callframe import HandlerError, bind, call
from testing.generators import MATRIX_DTYPES, SIGNALS, rng, weight_shape


def operands(shape, axis, per_edge, dtype):
    """Noise, one signal of ties; masses of very different sizes, and some samples without one,
    which infinite weights join to others; weights of which some are 0.
    """
    r = rng(4)
    x = r.normal(size=shape)
    x[:1] = np.round(2 * x[:1])
    mass = 10 ** r.uniform(-2, 0, shape)
    w = 2 * r.random(weight_shape(shape, axis, per_edge)) * 0.3
    if per_edge and shape[axis] > 1:
        w *= r.random(w.shape) < 0.9
        missing = r.random(w.shape) < 0.3  # joined to the sample after it
        w = np.where(missing, np.inf, w)
        pad = [(0, int(a == axis)) for a in range(len(shape))]
        mass = np.where(np.pad(missing, pad), 0, mass)
    return x.astype(dtype), mass.astype(dtype), w.astype(dtype)


def solve(x, mass, w, axis, platform):
    (y,) = bind("prox1d_data_weight", x, mass, w, axis=axis, platform=platform)
    return y


def check(x, mass, w, axis):
    """The same values up to round-off, and the very same segments; y."""
    cpu, cuda = (solve(x, mass, w, axis, platform).astype(float) for platform in ("cpu", "cuda"))
    scale = np.abs(np.where(np.isfinite(x), x, 0)).max(initial=0).astype(float)
    atol = 8 * np.finfo(x.dtype).eps * scale
    np.testing.assert_allclose(cuda, cpu, rtol=0, atol=atol)
    np.testing.assert_array_equal(
        np.sign(np.diff(cuda, axis=axis)), np.sign(np.diff(cpu, axis=axis))
    )
    return cuda


@pytest.mark.parametrize("dtype", MATRIX_DTYPES)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("signals", SIGNALS)
def test_cuda_solves_as_the_cpu_does(signals, per_edge, dtype):
    shape, axis = SIGNALS[signals]
    check(*operands(shape, axis, per_edge, dtype), axis)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("n", [33, 300, 1200])
def test_without_data_weights_it_is_the_prox(n, platform):
    """Masses of 1: the values of `prox1d`, whose kernels are others."""
    x, w = rng(2).normal(size=(4, n)), np.full((4, 1), 0.7)
    (y,) = bind("prox1d", x, w, axis=1, solver=jaxtv.Direct(), platform="cpu")
    np.testing.assert_allclose(solve(x, np.ones_like(x), w, 1, platform), y, atol=1e-13)


@pytest.mark.parametrize("n", [33, 300, 1200])
def test_bad_signals_stay_alone(n):
    """A NaN, an infinity, a bad weight or a bad mass: that signal is NaN, the others are exact."""
    x, mass, w = operands((7, n), 1, False, "float32")
    w = np.broadcast_to(w, (7, n - 1)).copy()
    clean = check(x, mass, w, 1)
    x[1, n // 2], x[2, n - 1], w[3, 7] = np.nan, -np.inf, -1
    mass[4, 5], mass[5, 0] = -1, np.inf
    y = check(x, mass, w, 1)
    np.testing.assert_array_equal(np.isnan(y).all(1), [False, *[True] * 5, False])
    np.testing.assert_array_equal(y[[0, 6]], clean[[0, 6]])


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_wrong_calls_are_refused(platform):
    x = np.zeros((3, 5), "float32")
    scratch = [((3, 45), "uint8")] if platform == "cuda" else []
    for mass, w, message in (
        (x[:, :4], x[:, :1], "shape"),
        (x.astype(float), x[:, :1], "dtype"),
        (x, x[:, :3], "wrong size along the prox axis"),
    ):
        with pytest.raises(HandlerError, match=message):
            call(
                "jaxtv_prox1d_data_weight",
                [x, mass, w],
                [(x.shape, x.dtype), *scratch],
                {"axis": 1},
                platform,
            )
