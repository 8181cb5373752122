"""The pure-JAX lowering, forced on this machine, gives what the kernels give."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from jaxtv import _native

SOLVERS = [
    jaxtv.Direct(),
    jaxtv.Direct("taut_string"),
    jaxtv.Direct("decomposition"),
    jaxtv.ProjectedNewton(),
]


def data(shape=(3, 12, 5), seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


def both(monkeypatch, f, *args):
    """Results of f from the kernels and from the fallback (fresh functions, so fresh lowerings)."""
    native = jax.jit(lambda *a: f(*a))(*args)
    with monkeypatch.context() as patch:
        patch.setattr(_native, "FALLBACK", True)
        lowered = jax.jit(lambda *a: f(*a)).lower(*args)
        assert "jaxtv_" not in lowered.as_text(), "the fallback still calls a kernel"
        return native, lowered.compile()(*args)


def check(monkeypatch, f, *args):
    native, fallback = both(monkeypatch, f, *args)
    tol = 1e-12 if jax.config.jax_enable_x64 else 2e-6
    for a, b in zip(jax.tree.leaves(native), jax.tree.leaves(fallback)):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=tol, atol=tol)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.both_precisions
@pytest.mark.parametrize(("axis", "per_edge"), [(0, False), (1, True), (2, False)])
def test_prox1d_and_its_derivatives(monkeypatch, axis, per_edge):
    x = data()
    n = x.shape[axis]
    lam = jnp.abs(data((n - 1,) + (1,) * (2 - axis), 1)) if per_edge else jnp.asarray(0.3, float)
    f = lambda x, lam: jaxtv.prox_tv1d(x, lam, axis=axis)
    loss = lambda x, lam: jnp.sum(f(x, lam) ** 2)
    check(monkeypatch, f, x, lam)
    check(monkeypatch, jax.grad(loss, (0, 1)), x, lam)
    check(monkeypatch, lambda x, lam, t: jax.jvp(f, (x, lam), (t, lam)), x, lam, data(seed=2))


@pytest.mark.parametrize("solver", SOLVERS[:3])
def test_info(monkeypatch, solver):
    f = lambda x: jaxtv.prox_tv1d(x, 0.3, axis=1, solver=solver, return_info=True)
    check(monkeypatch, f, data())


def test_info_of_newton(monkeypatch):
    """The fallback solves exactly; its step count is not Newton's."""
    f = lambda x: jaxtv.prox_tv1d(x, 0.3, axis=1, solver=SOLVERS[3], return_info=True)
    (y, info), (fallback_y, fallback_info) = both(monkeypatch, f, data())
    np.testing.assert_allclose(y, fallback_y, atol=1e-5)
    assert info.converged.all()
    assert fallback_info.converged.all()


@pytest.mark.both_precisions
@pytest.mark.parametrize("axes", [(1, 2), (-3, -2), (0, 1, 2)])
def test_dykstra_and_its_derivatives(monkeypatch, axes):
    x, t = data(), data(seed=2)
    lam = jnp.asarray(0.3, float)
    f = lambda x, lam: jaxtv.prox_tv(x, lam, axes=axes, solver=jaxtv.Dykstra(iterations=3))
    check(monkeypatch, f, x, lam)
    check(monkeypatch, jax.grad(lambda x, lam: jnp.sum(f(x, lam) ** 2), (0, 1)), x, lam)
    check(monkeypatch, lambda x, lam: jax.jvp(f, (x, lam), (t, lam)), x, lam)


def test_vmap_and_second_order(monkeypatch):
    x = data((4, 7))
    f = lambda x: jnp.sum(jaxtv.prox_tv1d(x, 0.3) ** 3)
    check(monkeypatch, jax.vmap(jax.hessian(f)), x)


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
