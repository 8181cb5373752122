"""The pure-JAX lowering, forced on this machine, gives what the kernels give."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from testing.lowering import plain_jax


def data(shape=(3, 12, 5), seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


def both(f, *args):
    """Results of f from the kernels and from the fallback."""
    f = jax.jit(f)
    native = f(*args)
    with plain_jax():
        lowered = f.lower(*args)
        assert "jaxtv_" not in lowered.as_text(), "the fallback still calls a kernel"
        return native, lowered.compile()(*args)


def check(f, *args):
    native, fallback = both(f, *args)
    tol = 1e-12 if jax.config.jax_enable_x64 else 2e-6
    for a, b in zip(jax.tree.leaves(native), jax.tree.leaves(fallback)):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=tol, atol=tol)
        else:
            np.testing.assert_array_equal(a, b)


def with_derivatives(f):
    """The solution, alone and beside its derivatives, its VJP and its JVP: one program to compile."""

    def everything(x, lam, t):
        y, pull = jax.vjp(f, x, lam)
        return f(x, lam), y, pull(2 * y), jax.jvp(f, (x, lam), (t, lam))

    return everything


@pytest.mark.parametrize(
    ("precision", "axis", "per_edge"),
    [("x64", 0, False), ("x64", 1, True), ("x64", 2, False), ("float32", 1, True)],
    indirect=["precision"],
)
def test_prox1d_and_its_derivatives(axis, per_edge):
    x = data()
    n = x.shape[axis]
    lam = jnp.abs(data((n - 1,) + (1,) * (2 - axis), 1)) if per_edge else jnp.asarray(0.3, float)
    check(with_derivatives(partial(jaxtv.prox_tv1d, axis=axis)), x, lam, data(seed=2))


def test_data_weight_and_its_derivatives():
    """Weights that depend on x, so that all three are differentiated; some samples are missing."""
    lam = jnp.abs(data((11, 1), 1))
    f = lambda x, lam: jaxtv.prox_tv1d(x, lam, axis=1, data_weight=jnp.maximum(x + 0.5, 0))
    loss = lambda *args: jnp.sum(f(*args) ** 2)
    check(lambda *args: (f(*args), jax.grad(loss, argnums=(0, 1))(*args)), data(), lam)


def test_info():
    check(lambda x: jaxtv.prox_tv1d(x, 0.3, axis=1, return_info=True), data())


def test_info_of_newton():
    """The fallback solves exactly; its step count is not Newton's."""
    newton = jaxtv.ProjectedNewton()
    f = lambda x: jaxtv.prox_tv1d(x, 0.3, axis=1, solver=newton, return_info=True)
    (y, info), (fallback_y, fallback_info) = both(f, data())
    np.testing.assert_allclose(y, fallback_y, atol=1e-5)
    assert info.converged.all()
    assert fallback_info.converged.all()


@pytest.mark.parametrize(
    ("precision", "axes"),
    [("x64", (1, 2)), ("x64", (-3, -2)), ("x64", (0, 1, 2)), ("float32", (1, 2))],
    indirect=["precision"],
)
def test_dykstra_and_its_derivatives(axes):
    f = partial(jaxtv.prox_tv, axes=axes, solver=jaxtv.Dykstra(iterations=3))
    check(with_derivatives(f), data(), jnp.asarray(0.3, float), data(seed=2))


def test_vmap_and_second_order():
    x = data((4, 7))
    f = lambda x: jnp.sum(jaxtv.prox_tv1d(x, 0.3) ** 3)
    check(jax.vmap(jax.hessian(f)), x)


def test_other_platforms_lower_to_plain_jax():
    f = jax.jit(jax.grad(lambda x: jnp.sum(jaxtv.prox_tv2d(x, 0.3) ** 2)))
    text = f.trace(data((8, 8))).lower(lowering_platforms=("tpu",)).as_text()
    assert "jaxtv_" not in text
    assert "custom_call" not in text


def test_environment_variable_forces_the_fallback():
    code = (
        "import jax, jax.numpy as jnp, jaxtv\n"
        "f = jax.jit(lambda x: jaxtv.prox_tv1d(x, 1.0))\n"
        "x = jnp.asarray([0.0, 4.0])\n"
        "assert 'jaxtv_' not in f.lower(x).as_text()\n"
        "print(f(x))"
    )
    env = os.environ | {"JAXTV_FALLBACK": "1"}
    run = subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[1. 3.]"
