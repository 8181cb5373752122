"""Arrays of float32 and of the half types give the same bits with x64 enabled and without it.

JAX's default is without. So what other tests show of such arrays, in the run with x64, holds there too.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from testing.generators import EXACT, HALF, NEWTON, rng, steps
from testing.lowering import plain_jax

SOLVERS = EXACT | NEWTON


def assert_same_bits(f, *args):
    """`args`: NumPy arrays and numbers, which each run makes arrays of."""
    runs = []
    for x64 in (True, False):
        with jax.enable_x64(x64):
            leaves = jax.tree.leaves(jax.jit(partial(f))(*jax.tree.map(jnp.asarray, args)))
            runs.append([(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in leaves])
    assert runs[0] == runs[1]
    assert runs[0]


def with_derivatives(prox, x, lam):
    """The solution, what certifies it, and the derivatives in x and λ, forward and reverse."""
    y, pull, info = jax.vjp(partial(prox, return_info=True), x, lam, has_aux=True)
    tangent = jax.jvp(prox, (x, lam), (jnp.flip(x), lam))[1]
    return y, info, pull(jnp.flip(y)), tangent


def check_one_axis(shape, axis, per_edge, solver, dtype):
    x = steps(40, 33).ravel()[: np.prod(shape)].reshape(shape).astype(jnp.dtype(dtype))
    lam_shape = list(shape)
    lam_shape[axis] = shape[axis] - 1 if per_edge else 1
    lam = (0.8 * rng(1).random(lam_shape)).astype(jnp.dtype(dtype))
    prox = partial(jaxtv.prox_tv1d, axis=axis, solver=solver)
    assert_same_bits(partial(with_derivatives, prox), x, lam)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("shape", "axis"), [((40, 33), 1), ((33, 40), 0), ((3, 9, 4, 5), -2)])
@pytest.mark.parametrize("per_edge", [False, True])
def test_one_axis(shape, axis, per_edge, solver):
    check_one_axis(shape, axis, per_edge, SOLVERS[solver], "float32")


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("per_edge", [False, True])
def test_half_types(per_edge, dtype):
    check_one_axis((33, 40), 0, per_edge, jaxtv.Direct(), dtype)


@pytest.mark.parametrize("inner", ["direct", "backtracking"])
@pytest.mark.parametrize("solver", [jaxtv.Dykstra, jaxtv.AcceleratedDykstra])
@pytest.mark.parametrize("axes", [(1, 2), (3, 1), (1, 2, 3)])
def test_several_axes(axes, solver, inner):
    x = steps(2 * 9 * 8, 5).reshape(2, 9, 8, 5).astype(np.float32)
    prox = partial(jaxtv.prox_tv, axes=axes, solver=solver(inner=SOLVERS[inner]))
    assert_same_bits(partial(with_derivatives, prox), x, np.float32(0.3))


@pytest.mark.parametrize("lam", [0.3, 2, 20.0])
def test_a_long_signal_and_a_number(lam):
    def values(x):
        derivatives = with_derivatives(jaxtv.prox_tv1d, x, jnp.float32(lam))
        return derivatives, jaxtv.prox_tv1d(x, lam), jaxtv.prox_tv2d(x.reshape(100, -1), lam)

    assert_same_bits(values, np.cumsum(steps(1, 30_000).ravel()).astype(np.float32))


def test_values_of_the_objective():
    x = steps(12, 14).astype(np.float32)
    lam = np.float32(0.4)
    axes = (0, 1)

    def values(x, lam):
        y = jaxtv.prox_tv2d(x, lam)
        gap = jaxtv.duality_gap(x, y, lam, axes=axes), jaxtv.duality_gap(x, y, lam, axes=-1)
        return jaxtv.total_variation(y, lam, axes=axes), gap, jaxtv.max_lambda(x, axes)

    assert_same_bits(values, x, lam)


def test_plain_jax():
    x = steps(12, 14).astype(np.float32)
    with plain_jax():
        assert_same_bits(jaxtv.prox_tv1d, x, np.float32(0.4))
