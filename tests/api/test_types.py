"""Results have types. Pyright checks `assert_type` (it reads this file in the gate); running the
same lines shows that the values are what the types say.
"""

from importlib import resources
from typing import assert_type

import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxtv
from jaxtv import Info

x = np.ones((2, 3), np.float32)
solver = jaxtv.AcceleratedDykstra()
Dual = tuple[Array, ...]


def test_package_is_typed():
    assert (resources.files("jaxtv") / "py.typed").is_file()


def test_one_axis():
    assert_type(jaxtv.prox_tv1d(x, 0.5), Array)
    assert_type(jaxtv.prox_tv1d(x, 0.5, return_info=False), Array)
    y, info = assert_type(jaxtv.prox_tv1d(x, 0.5, return_info=True), tuple[Array, Info])
    assert isinstance(y, Array)
    assert isinstance(info, Info)
    assert_type(info.gap, Array)


def test_two_axes():
    assert_type(jaxtv.prox_tv2d(x, (0.5, 0.5)), Array)
    y, info = assert_type(jaxtv.prox_tv2d(x, 0.5, return_info=True), tuple[Array, Info])
    assert isinstance(y, Array)
    assert isinstance(info, Info)


def test_an_option_that_is_known_at_run_time_only():
    for return_info in map(bool, (0, 1)):
        out = jaxtv.prox_tv2d(x, 0.5, return_info=return_info)
        assert_type(out, Array | tuple[Array, Info])
        assert isinstance(out, tuple) == return_info


def test_any_axes():
    assert_type(jaxtv.prox_tv(x, 0.5, axes=0), Array)
    assert_type(jaxtv.prox_tv(x, 0.5, axes=0, return_info=True), tuple[Array, Info])
    start = jaxtv.prox_tv(x, 0.5, axes=(0, 1), solver=solver, return_dual=True)
    y, dual = assert_type(start, tuple[Array, Dual])
    assert isinstance(y, Array)
    assert isinstance(dual, tuple)
    again = jaxtv.prox_tv(
        x, 0.5, axes=(0, 1), solver=solver, init_dual=dual, return_dual=True, return_info=True
    )
    y, info, dual = assert_type(again, tuple[Array, Info, Dual])
    assert isinstance(info, Info)
    assert isinstance(dual, tuple)


def test_capabilities_that_stand_on_the_prox():
    assert_type(jaxtv.prox_fused_lasso(x, 0.5, 0.1, axes=1), Array)
    assert_type(jaxtv.project_tv_ball(x, 0.5, axes=1), Array)
    out = jaxtv.denoise_discrepancy(x + x * np.arange(3), 0.5, axes=1, return_info=True)
    y, info = assert_type(out, tuple[Array, Info])
    assert isinstance(info, Info)
    assert_type(jaxtv.degrees_of_freedom(y, 0.5, axes=1), Array)
    assert_type(jaxtv.sure(x, x, 0.5, 0.5, axes=1), Array)
    assert_type(jaxtv.select_lam(x, axes=1, criterion="discrepancy"), Array)


def test_functionals_layers_and_the_reference():
    assert_type(jaxtv.total_variation(x, axes=(0, 1)), Array)
    assert_type(jaxtv.duality_gap(x, x, 0.5, axes=1), Array)
    assert_type(jaxtv.max_lambda(x, 1), Array)
    layer = jaxtv.nnx.TVLayer(axes=-1)
    assert_type(layer(jnp.asarray(x)), Array)
    assert_type(layer.lam, Array)
    assert_type(jaxtv.reference.prox_tv1d(x, 0.5), Array)
    assert_type(jaxtv.reference.prox_tv2d(x, 0.5), Array)
