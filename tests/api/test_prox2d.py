"""prox_tv2d and prox_tv against the NumPy Dykstra oracle and PyPI prox_tv."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from testing import oracles
from testing.generators import DTYPES, EXACT, HALF, NEWTON, rng

SOLVERS = EXACT | NEWTON
AXES = (-2, -1)

# Of max|x|: K sweeps add up the errors of 2K one-dimensional solutions (1e-7 and 1e-16 each) on
# data of that size.
TOLERANCE = {"float64": 1e-12, "float32": 2e-6}


def image(*shape, seed=0):
    """Blocks of 4 x 4 with noise."""
    r = rng(seed)
    coarse = r.normal(size=[max(1, -(-n // 4)) if n > 3 else n for n in shape])
    for axis, n in enumerate(shape):
        coarse = np.repeat(coarse, 4 if n > 3 else 1, axis).take(range(n), axis)
    return coarse + 0.3 * r.normal(size=shape)


def oracle(x, lams, axes, iterations):
    """Over every batch element at once; `axes` as the user names them: the last one is swept
    first.
    """
    return oracles.dykstra(x, lams[::-1], axes[::-1], iterations)


def assert_close(y, y_exact, dtype):
    assert y.dtype == dtype
    error = np.abs(np.asarray(y, np.float64) - y_exact).max()
    assert error <= TOLERANCE[dtype] * np.abs(y_exact).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("iterations", [1, 2, 4, 5])
@pytest.mark.parametrize("shape", [(9, 13), (2, 3, 8, 8), (1, 6), (6, 1), (1, 1), (3, 33, 17)])
def test_oracle(shape, iterations, dtype):
    x = image(*shape).astype(dtype)
    y = jaxtv.prox_tv2d(jnp.asarray(x), 0.5, axes=AXES, solver=jaxtv.Dykstra(iterations))
    assert_close(y, oracle(x, (0.5, 0.5), AXES, iterations), dtype)


def test_the_default_is_four_sweeps():
    x = jnp.asarray(image(8, 9), jnp.float32)
    assert np.array_equal(jaxtv.prox_tv2d(x, 0.3), jaxtv.prox_tv2d(x, 0.3, solver=jaxtv.Dykstra(4)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axes", [(-2, -1), (-1, -2), (-3, -2), (1, 2), (0, 3), (3, 0), (0, 1)])
def test_axes_and_their_order(axes, dtype):
    x = image(6, 7, 8, 5).astype(dtype)
    lams = (0.2, 0.9)
    y = jax.jit(lambda x: jaxtv.prox_tv2d(x, lams, axes=axes))(jnp.asarray(x))
    lams = tuple(np.asarray(v, dtype) for v in lams)
    assert_close(y, oracle(x, lams, axes, 4), dtype)


@pytest.mark.parametrize("axes", [(-3, -2, -1), (0, 1, 2), (2, 0, 1), (-1,), (0, 1, 2, 3)])
def test_any_number_of_axes(axes):
    x = image(5, 6, 4, 7).astype(np.float32)
    solver = jaxtv.Dykstra(3) if len(axes) > 1 else jaxtv.Direct()
    y = jaxtv.prox_tv(jnp.asarray(x), 0.3, axes=axes, solver=solver)
    lams = (np.float32(0.3),) * len(axes)
    assert_close(y, oracle(x, lams, axes, 3), "float32")


def test_two_axes_by_prox_tv_are_prox_tv2d():
    x = jnp.asarray(image(5, 9, 11), jnp.float32)
    assert np.array_equal(jaxtv.prox_tv(x, 0.4, axes=AXES), jaxtv.prox_tv2d(x, 0.4, axes=AXES))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["channel", "image", "edges", "mixed"])
def test_lam(kind, dtype):
    """NHWC; a tuple holds one λ per axis in the order of `axes`."""
    r = rng(3)
    x = image(3, 8, 9, 4).astype(dtype)
    lam = {
        "channel": r.random(4),
        "image": r.random((3, 1, 1, 1)),
        "edges": (r.random((3, 7, 9, 4)), r.random((3, 8, 8, 4))),
        "mixed": (np.asarray(0.3), r.random((8, 1))),
    }[kind]
    lams = tuple(v.astype(dtype) for v in (lam if isinstance(lam, tuple) else (lam, lam)))
    arg = tuple(map(jnp.asarray, lams)) if isinstance(lam, tuple) else jnp.asarray(lams[0])
    y = jaxtv.prox_tv2d(jnp.asarray(x), arg, axes=(-3, -2))
    assert_close(y, oracle(x, lams, (-3, -2), 4), dtype)


@pytest.mark.parametrize("inner", SOLVERS)
def test_inner_solver(inner):
    x = image(2, 15, 18).astype(np.float32)
    y = jaxtv.prox_tv2d(
        jnp.asarray(x), 0.5, axes=AXES, solver=jaxtv.Dykstra(4, inner=SOLVERS[inner])
    )
    y_exact = oracle(x, (0.5, 0.5), (-2, -1), 4)
    if inner in NEWTON:  # exact up to sqrt(tol * objective) per pass
        assert np.abs(np.asarray(y) - y_exact).max() <= 1e-2
    else:
        assert_close(y, y_exact, "float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_peer(prox_tv, iterations, dtype):
    """prox_tv's Dykstra does the columns first: the paper's rows come first in the transpose."""
    x = image(16, 21).astype(dtype)
    y = jaxtv.prox_tv2d(jnp.asarray(x), 0.25, solver=jaxtv.Dykstra(iterations))
    peer = prox_tv.tv1_2d(x.astype(np.float64).T, 0.25, method="pd", max_iters=iterations).T
    assert_close(y, peer, dtype)


@pytest.mark.parametrize("dtype", HALF)
def test_half_types_are_the_float32_solution_rounded(dtype):
    x = jnp.asarray(image(2, 9, 9)).astype(dtype)
    y = jaxtv.prox_tv2d(x, 0.5, axes=AXES)
    assert y.dtype == x.dtype
    assert np.array_equal(y, jaxtv.prox_tv2d(x.astype(jnp.float32), 0.5, axes=AXES).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_lam_zero_and_infinity(dtype):
    x = image(2, 9, 12).astype(dtype)
    assert_close(jaxtv.prox_tv2d(jnp.asarray(x), 0.0, axes=AXES), x.astype(np.float64), dtype)
    mean = np.broadcast_to(x.astype(np.float64).mean((-2, -1), keepdims=True), x.shape)
    assert_close(jaxtv.prox_tv2d(jnp.asarray(x), np.inf, axes=AXES), mean, dtype)
    rows = np.broadcast_to(x.astype(np.float64).mean(-1, keepdims=True), x.shape)
    assert_close(jaxtv.prox_tv2d(jnp.asarray(x), (0.0, np.inf), axes=AXES), rows, dtype)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_images_poison_only_themselves(bad):
    x = jnp.asarray(image(5, 9, 11), jnp.float32)
    lam = jnp.full((5, 1, 1), 0.4, jnp.float32)
    prox = jax.jit(partial(jaxtv.prox_tv2d, axes=AXES))
    clean = np.asarray(prox(x, lam))
    y = np.asarray(prox(x.at[1, 4, 5].set(bad), lam.at[3].set(-1.0)))
    assert np.isnan(y[[1, 3]]).all()
    assert np.array_equal(y[[0, 2, 4]], clean[[0, 2, 4]])


@pytest.mark.parametrize("shape", [(0, 5, 6), (3, 0, 6), (3, 5, 0)])
def test_empty(shape):
    assert jaxtv.prox_tv2d(jnp.zeros(shape), 1.0, axes=AXES).shape == shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_info_and_convergence(dtype):
    x = jnp.asarray(image(4, 12, 10), dtype)
    prox = partial(jaxtv.prox_tv2d, axes=AXES)
    gaps = []
    for iterations in (1, 4, 400):
        y, info = prox(x, 0.3, solver=jaxtv.Dykstra(iterations), return_info=True)
        assert {field.shape for field in info} == {(4,)}
        assert np.all(np.asarray(info.iterations) == iterations)
        gaps.append(np.asarray(info.gap))
    assert np.all(gaps[0] > gaps[2])
    energy = np.sum(np.square(np.asarray(x)), (-2, -1))
    assert np.all(np.abs(gaps[2]) <= 1e-4 * energy)
    peer_like = oracles.dykstra(np.asarray(x), (0.3, 0.3), (-1, -2), 400)
    assert_close(y, peer_like, dtype) if dtype == "float64" else None


@pytest.mark.parametrize("iterations", [1, 4, 6])
@pytest.mark.parametrize("differentiate_lam", [False, True])
def test_residual_is_two_bits_per_pixel_and_pass(iterations, differentiate_lam):
    """What the backward pass keeps alive of a 2D prox: whole bytes of four passes, nothing of x's
    size.
    """
    x = jnp.asarray(image(3, 32, 40), jnp.float32)

    def residual(x, lam):
        f = lambda *a: jaxtv.prox_tv2d(*a, axes=AXES, solver=jaxtv.Dykstra(iterations))
        if differentiate_lam:
            return jax.vjp(f, x, lam)[1]
        return jax.vjp(lambda x: f(x, lam), x)[1]

    kept = jax.tree.leaves(jax.eval_shape(residual, x, jnp.float32(0.5)))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in kept)
    planes = -(-2 * iterations // 4)
    per_signal = 0 if differentiate_lam else x.size // 32 + x.size // 40  # zeros for tangents of λ
    assert size <= planes * x.size + x.dtype.itemsize * per_signal + 64


@pytest.mark.parametrize("axes", [(1, 2), (2, 1)])
def test_a_bad_channel_leaves_the_other_channels_alone(axes):
    """Channels last: an image is one channel of one batch element."""
    x = jnp.asarray(rng(5).normal(size=(2, 6, 5, 3)), jnp.float32)
    clean = np.asarray(jaxtv.prox_tv2d(x, 0.2, axes=axes))
    bad = np.array(jaxtv.prox_tv2d(x.at[1, 2, 3, 1].set(jnp.nan), 0.2, axes=axes))
    assert np.isnan(bad[1, :, :, 1]).all()
    bad[1, :, :, 1] = clean[1, :, :, 1]
    assert np.array_equal(bad, clean)
    lam = jnp.asarray([0.2, -1.0, 0.2], jnp.float32)
    y = np.asarray(jax.jit(lambda lam: jaxtv.prox_tv2d(x, lam, axes=axes))(lam))
    assert np.isnan(y[..., 1]).all()
    assert np.array_equal(y[..., [0, 2]], clean[..., [0, 2]])


def test_info_at_infinite_lam():
    x = jnp.asarray(rng(6).normal(size=(3, 6, 5)), jnp.float32)
    y, info = jaxtv.prox_tv2d(x, np.inf, axes=AXES, return_info=True)
    assert np.allclose(y, x.mean((1, 2), keepdims=True), atol=1e-6)
    assert np.array_equal(info.iterations, [4, 4, 4])
    assert info.converged.all()


def by_passes(x, lam, axes, iterations):
    """Dykstra's iteration from one-dimensional proxes, each of which starts afresh."""
    order = axes[::-1]
    proxes = [jax.jit(partial(jaxtv.prox_tv1d, axis=axis)) for axis in order]
    states = [np.zeros_like(x) for _ in order]  # x - 0 is x, bit for bit
    for _ in range(iterations):
        for i, prox in enumerate(proxes):
            a = x
            for j, state in enumerate(states):
                a = a if j == i else a - state
            z = np.asarray(prox(a, lam))
            states[i] = a - z
    return z


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [
        ("noise", (45, 300), (0, 1)),
        ("smooth", (300, 45), (0, 1)),
        ("ties", (2, 33, 40, 5), (1, 2)),
        ("channels", (2, 33, 40, 24), (1, 2)),
        ("noise", (14, 20, 24), (0, 1, 2)),
    ],
)
def test_sweeps_that_repair_cuts_have_the_bits_of_those_that_start_afresh(kind, shape, axes, dtype):
    x, lam = image(*shape), 0.4
    if kind == "smooth":
        x, lam = x.cumsum(0).cumsum(1) / 30, 0.1
    if kind == "ties":
        x = np.rint(2 * x)
    if (
        kind == "channels"
    ):  # a λ for each, among them 0 and ∞; values far apart; one without a solution
        lam = np.where(np.arange(24) % 8 == 3, 0, np.geomspace(0.01, 10, 24)).astype(dtype)
        lam[-1] = np.inf
        x *= np.geomspace(1e-3, 1e6, 24)
        x[0, 5, 6, 7] = np.nan
    x = x.astype(dtype)
    y = jaxtv.prox_tv(jnp.asarray(x), lam, axes=axes, solver=jaxtv.Dykstra(5))
    np.testing.assert_array_equal(y, by_passes(x, lam, axes, 5))
