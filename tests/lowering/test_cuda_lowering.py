"""What the CUDA path lowers to, on a machine without a GPU."""

import re

import jax
import jax.numpy as jnp
import pytest

import jaxtv
from jaxtv import _native, _primitive


@pytest.mark.cpu_only
def test_the_converged_solver_lowers_to_jax_around_kernels(monkeypatch):
    monkeypatch.setitem(_native.REGISTERED, "cuda", _native.REGISTERED["cpu"])
    x, ws = jnp.ones((3, 4)), (jnp.ones((1, 4)), jnp.ones((3, 1)))
    params = {"axes": (0, 1), "gap_tol": 1e-6, "sweeps": 5, "inner": jaxtv.Direct()}
    bind = _primitive._converged_p.bind
    traced = jax.jit(lambda *a: bind(*a, **params)).trace(x, x, *ws)
    calls = re.findall(r"@(jaxtv_\w+)", traced.lower(lowering_platforms=("cuda",)).as_text())
    assert set(calls) == {"jaxtv_prox1d", "jaxtv_components_jvp"}
    assert "@jaxtv_converged" in traced.lower(lowering_platforms=("cpu",)).as_text()
