"""The library's functions on the CUDA kernels through XLA: emulated, or on the GPU that is there.

The kernels themselves are tested in tests/kernels; here it is what surrounds them.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from testing import emulator
from testing.generators import EXACT, NEWTON, rng

pytestmark = pytest.mark.unsanitized

PROXES = {
    "1D": (jaxtv.prox_tv1d, (3, 4, 20)),
    "1D, axis 0": (lambda *a: jaxtv.prox_tv1d(*a, axis=0), (70, 5)),
    "Newton": (lambda *a: jaxtv.prox_tv1d(*a, solver=NEWTON["parallel"]), (3, 4, 20)),
    "info": (lambda *a: jaxtv.prox_tv1d(*a, return_info=True)[0], (3, 4, 20)),
    "2D": (lambda *a: jaxtv.prox_tv2d(*a, axes=(-2, -1)), (3, 9, 8)),
    "3D": (
        lambda *a: jaxtv.prox_tv(
            *a, axes=(-3, -2, -1), solver=jaxtv.Dykstra(2, inner=EXACT["decomposition"])
        ),
        (2, 4, 5, 6),
    ),
    "converged": (
        lambda *a: jaxtv.prox_tv2d(*a, axes=(-2, -1), solver=jaxtv.AcceleratedDykstra(tol=1e-7)),
        (2, 9, 8),
    ),
}


def cases():
    """All of them; one dtype of the converged prox, which is a JAX loop here, in the test command."""
    for name, dtype in itertools.product(PROXES, ("float32", "float64", "bfloat16", "float16")):
        nightly = name == "converged" and dtype != "float32"
        yield pytest.param(name, dtype, marks=[pytest.mark.nightly] * nightly)


@pytest.mark.parametrize(("name", "dtype"), list(cases()))
def test_values_and_derivatives_are_those_of_the_cpu(name, dtype):
    """In forward and reverse mode, under jit and remat, with one λ for all signals."""
    prox, shape = PROXES[name]
    x, t = (rng(seed).normal(size=shape).astype(dtype) for seed in range(2))
    lam = np.asarray(0.3).astype("float64" if dtype == "float64" else "float32")

    def run():
        @jax.jit
        def everything(x, lam, t):
            y, pull = jax.vjp(jax.checkpoint(prox), x, lam)
            return y, pull(t), jax.jvp(prox, (x, lam), (t, lam))[1]

        return jax.tree.leaves(everything(x, lam, t))

    with jax.default_device(jax.devices("cpu")[0]):
        expected = run()
    with emulator.using():
        got = run()
    eps = float(jnp.finfo(dtype).eps)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = 1 if a.ndim else np.sqrt(x.size)  # the gradient of λ is a sum
        np.testing.assert_allclose(a, b, rtol=32 * eps, atol=32 * eps * scale)


@pytest.mark.parametrize(
    "dtype",
    ["float32", *(pytest.param(d, marks=pytest.mark.nightly) for d in ("float64", "bfloat16"))],
)
def test_the_isotropic_prox(dtype):
    """A loop around the kernel's steps, and conjugate gradients around those of components."""
    x = rng().normal(size=(2, 9, 8)).astype(dtype)
    lam = np.asarray(0.3).astype("float64" if dtype == "float64" else "float32")

    @jax.jit
    def everything(x, lam):
        solve = lambda x, lam: jaxtv.prox_tv_isotropic(x, lam, axes=(1, 2), return_info=True)
        y, pull, info = jax.vjp(solve, x, lam, has_aux=True)
        return info, y, pull(y)

    expected_info, *expected = everything(x, lam)
    with emulator.using():
        info, *got = everything(x, lam)
    np.testing.assert_array_equal(info.iterations, expected_info.iterations)
    assert info.converged.all()
    # Conjugate gradients stop at eps^(2/3), and half types are rounded.
    tolerance = {"float64": 1e-9, "float32": 1e-4}.get(dtype, 32 * float(jnp.finfo(dtype).eps))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformations(dtype):
    x = jnp.asarray(rng().normal(size=(3, 4, 9)), dtype)
    f = lambda x: jaxtv.prox_tv1d(x, 0.2)
    squares = lambda x: jnp.sum(f(x).astype(jnp.float32) ** 2)
    with emulator.using():
        y = f(x)
        assert np.array_equal(jax.vmap(f)(x), y)
        assert np.array_equal(jax.jit(f)(x), y)
        assert np.array_equal(jax.vmap(f, 1, 1)(x), y)
        assert jax.grad(squares)(x).dtype == x.dtype
        hessian, jacobian = jax.hessian(squares)(x[0, 0]), jax.jacfwd(f)(x[0, 0])
    tolerance = {"rtol": 2e-2, "atol": 1e-2} if dtype == "bfloat16" else {"atol": 1e-6}
    np.testing.assert_allclose(np.float32(hessian), 2 * np.float32(jacobian), **tolerance)


def test_functions_run_on_the_emulated_kernels():
    """What all tests of this file stand on."""
    if emulator.on_gpu():
        return
    with emulator.using(), emulator.launches() as launches:
        jax.block_until_ready(jaxtv.prox_tv1d(jnp.ones((3, 9), jnp.float32), 0.2))
    assert {launch.kernel for launch in launches} == {"prox_rows"}
