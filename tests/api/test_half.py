"""bfloat16 and float16: float32 inside, rounded where they are written.

XLA converts for the CPU kernels. The CUDA kernels take half types as they are: tests/kernels, and these
tests at night, on the emulator.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from jaxtv import _dtypes
from testing.generators import HALF
from testing.lowering import plain_jax

SOLVERS = (
    jaxtv.Direct(),
    jaxtv.Direct("taut_string"),
    jaxtv.Direct("decomposition"),
    jaxtv.ProjectedNewton(),
)


def data(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    steps = np.repeat(rng.normal(size=(*shape[:-1], -(-shape[-1] // 7))), 7, axis=-1)
    return jnp.asarray(steps[..., : shape[-1]] + 0.3 * rng.normal(size=shape), dtype)


def bits(x):
    return np.asarray(x).view(np.uint16)


# What the kernels differ by: a tile of rows, a warp, a block, blocks in global memory, one signal.
SHAPES = [(70, 33), (3, 200), (2, 700), (2, 1500), (5, 40, 6)]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_1d_is_the_float32_result_rounded(dtype, shape, solver):
    x, axis = data(dtype, shape), 1
    y = jaxtv.prox_tv1d(x, 0.37, axis=axis, solver=solver)
    full = jaxtv.prox_tv1d(x.astype(jnp.float32), 0.37, axis=axis, solver=solver)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(bits(y), bits(full.astype(dtype)))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("shape", [(2, 20, 24), (1, 300, 20)], ids=["fused", "passes"])
def test_2d_and_its_derivatives_are_the_float32_ones_rounded(dtype, per_edge, shape):
    x, t = data(dtype, shape), data(dtype, shape, seed=1)
    rng = np.random.default_rng(2)
    sizes = [(shape[0], shape[1] - 1, shape[2]), (shape[0], shape[1], shape[2] - 1)]
    lam = tuple(jnp.asarray(rng.uniform(0.1, 0.5, size=s), jnp.float32) for s in sizes)
    lam = lam if per_edge else jnp.float32(0.3)

    def results(x, t):
        f = lambda x, lam: jaxtv.prox_tv2d(x, lam, axes=(-2, -1))
        y, ty = jax.jvp(lambda x: f(x, lam), (x,), (t,))
        _, pull = jax.vjp(f, x, lam)
        return y, ty, *pull(t)

    results = jax.jit(results)
    y, ty, gx, glam = results(x, t)
    full = results(x.astype(jnp.float32), t.astype(jnp.float32))
    assert {y.dtype, ty.dtype, gx.dtype} == {x.dtype}
    for half, single in zip((y, ty, gx), full):
        np.testing.assert_array_equal(bits(half), bits(single.astype(dtype)))
    for half, single in zip(jax.tree.leaves(glam), jax.tree.leaves(full[3])):
        assert half.dtype == jnp.float32
        np.testing.assert_array_equal(half, single)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("shape", [(70, 33), (2, 700)], ids=str)
def test_1d_derivatives_are_those_of_the_float32_solution(dtype, shape):
    x, t = data(dtype, shape), data(dtype, shape, seed=1)

    def results(x, t):
        lam = jnp.float32(0.37)
        _, ty = jax.jvp(jaxtv.prox_tv1d, (x, lam), (t, jnp.float32(1)))
        _, pull = jax.vjp(jaxtv.prox_tv1d, x, lam)
        return ty, *pull(t)

    results = jax.jit(results)
    ty, gx, glam = results(x, t)
    full = results(x.astype(jnp.float32), t.astype(jnp.float32))
    assert glam.dtype == jnp.float32
    np.testing.assert_array_equal(bits(ty), bits(full[0].astype(dtype)))
    np.testing.assert_array_equal(bits(gx), bits(full[1].astype(dtype)))
    np.testing.assert_allclose(glam, full[2], rtol=1e-5)


@pytest.mark.parametrize("dtype", HALF)
def test_segments_that_rounding_joins_stay_apart_in_the_derivative(dtype):
    """Two plateaus 1 and 1 + eps/4 round to the same value; the Jacobian still has two blocks."""
    eps = float(jnp.finfo(dtype).eps)
    x = jnp.asarray([1.0, 1.0, 1.0, 1 + eps, 1 + eps, 1 + eps], dtype)
    lam = jnp.float32(3 * eps * 0.3)  # brings the two up to 0.4 eps together, not into one
    y = jaxtv.prox_tv1d(x, lam)
    single = jaxtv.prox_tv1d(x.astype(jnp.float32), lam)
    assert len(np.unique(single)) == 2
    assert len(np.unique(np.asarray(y, np.float32))) in (1, 2)
    jacobian = np.asarray(jax.jacrev(jaxtv.prox_tv1d)(x, lam), np.float32)
    expected = np.kron(np.eye(2), np.full((3, 3), 1 / 3))
    np.testing.assert_allclose(jacobian, expected, atol=2 * eps)


@pytest.mark.parametrize("dtype", HALF)
def test_every_16_bit_pattern_is_stored_as_it_was_read(dtype):
    """λ = 0 gives x bit for bit: infinities and NaN make their own signal NaN."""
    x = jnp.asarray(np.arange(65536, dtype=np.uint16).view(jnp.dtype(dtype))).reshape(-1, 1)
    y = np.asarray(jaxtv.prox_tv1d(x, 0.0))
    finite = np.isfinite(np.asarray(x, np.float32))
    normal = finite & (np.abs(np.asarray(x, np.float32)) >= 2.0**-126)  # XLA flushes denormals
    np.testing.assert_array_equal(bits(y)[normal], bits(x)[normal])
    assert np.all(np.isnan(np.asarray(y, np.float32)[~finite]))


@pytest.mark.parametrize("dtype", HALF)
def test_transformations(dtype):
    x = data(dtype, (3, 4, 9))
    f = lambda x: jaxtv.prox_tv1d(x, 0.2)
    np.testing.assert_array_equal(bits(jax.vmap(f)(x)), bits(f(x)))
    np.testing.assert_array_equal(bits(jax.jit(f)(x)), bits(f(x)))
    once = jax.grad(lambda x: jnp.sum(f(x).astype(jnp.float32) ** 2))
    assert once(x).dtype == x.dtype
    hessian = jax.hessian(lambda x: jnp.sum(f(x).astype(jnp.float32) ** 2))(x[0, 0])
    jacobian = np.asarray(jax.jacfwd(f)(x[0, 0]), np.float32)
    np.testing.assert_allclose(np.asarray(hessian, np.float32), 2 * jacobian, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", HALF)
def test_info_is_of_the_result_before_rounding(dtype):
    x = data(dtype, (4, 30))
    y, info = jaxtv.prox_tv1d(x, 0.3, return_info=True)
    full, expected = jaxtv.prox_tv1d(x.astype(jnp.float32), 0.3, return_info=True)
    np.testing.assert_array_equal(bits(y), bits(full.astype(dtype)))
    np.testing.assert_array_equal(info.gap, expected.gap)
    assert info.gap.dtype == jnp.float32


@pytest.mark.parametrize("dtype", HALF)
def test_the_fallback_computes_in_float32_too(dtype):
    x = data(dtype, (2, 5, 8))

    @jax.jit
    def results(x):
        f = lambda x, lam: jaxtv.prox_tv2d(jaxtv.prox_tv1d(x, lam), lam, axes=(-2, -1))
        y, pull = jax.vjp(f, x, jnp.float32(0.2))
        return y, *pull(y)

    with plain_jax():
        y, gx, glam = results(x)
    assert (y.dtype, gx.dtype, glam.dtype) == (x.dtype, x.dtype, jnp.float32)
    for a, b in zip((y, gx), results(x)):
        np.testing.assert_array_equal(bits(a), bits(b))


def test_only_half_types_are_computed_in_another():
    kinds = {d: _dtypes.compute_dtype(jnp.dtype(d)) for d in (*HALF, "float32", "float64")}
    assert kinds == {
        "bfloat16": "float32",
        "float16": "float32",
        "float32": "float32",
        "float64": "float64",
    }
