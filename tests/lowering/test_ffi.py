"""The native module: version guard, registration, and calls that bypass the Python checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from jaxtv import _cpu, _lowering, _native

SOLVER = {"method": 0, "tol": 1e-6, "max_iterations": 10, "line_search": 0}


def test_version_guard():
    runtime = _native.runtime_api_version()
    assert tuple(_cpu.ffi_api_version) <= runtime
    _native.check_api_version("m", runtime, runtime)
    for newer in [(runtime[0], runtime[1] + 1), (runtime[0] + 1, 0)]:
        with pytest.raises(ImportError, match="rebuild jaxtv"):
            _native.check_api_version("m", newer, runtime)


def test_missing_kernels_say_how_to_build(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jaxtv._cpu", None)
    monkeypatch.delattr(jaxtv, "_cpu")
    with pytest.raises(ImportError, match="pip install -e"):
        _native._load_cpu()


def test_status_names_every_kernel():
    status = _native.status()["cpu"]
    assert "jaxtv_prox1d" in status["kernels"]
    assert len(status["kernels"]) == 13
    assert status["instruction set"] in ("baseline", "avx2", "avx512")


def test_sharding_rule_text():
    rule = _lowering.sharding_rule([(8, 5), (8, 1)], [(8, 5)], 1)
    assert rule == (
        "#sdy.op_sharding_rule<([i, j], [i, k])->([i, l]) {i=8, j=5, k=1, l=5} "
        "need_replication={j, k, l}, custom>"
    )
    many = _lowering.sharding_rule([(2,) * 20], [(2,) * 20], 0)
    assert "z_1" in many


@pytest.mark.parametrize("shape", [(2, 2**31), (2**31, 2)])
def test_an_axis_longer_than_an_int32_has_no_sharding_rule_and_lowers(shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    text = jax.jit(lambda x: jaxtv.prox_tv1d(x, 0.5)).lower(x).as_text()
    assert "jaxtv_" in text
    assert "sdy.sharding_rule" not in text


def call(target, out, *args, **attributes):
    ints = {k: np.int64(v) for k, v in attributes.items() if isinstance(v, int)}
    return jax.ffi.ffi_call(target, out)(*args, **(attributes | ints))


def like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


X = jnp.zeros((3, 6), jnp.float32)
W = jnp.ones((3, 1), jnp.float32)


@pytest.mark.parametrize(
    ("w", "axis", "solver", "message"),
    [
        (jnp.ones((3, 2), jnp.float32), 1, {}, "wrong size along the prox axis"),
        (jnp.ones((2, 1), jnp.float32), 1, {}, "differ in shape"),
        (jnp.ones((3,), jnp.float32), 1, {}, "differ in rank"),
        (jnp.ones((3, 1), jnp.float16), 1, {}, "differ in dtype"),
        (W, 2, {}, "axis out of range"),
        (W, -1, {}, "axis out of range"),
        (W, 1, {"method": 9}, "unknown method"),
        (W, 1, {"line_search": 2}, "unknown line search"),
        (W, 1, {"max_iterations": 0}, "bad solver options"),
        (W, 1, {"max_iterations": 2**31}, "bad solver options"),
    ],
)
def test_wrong_calls_of_the_1d_target_are_errors(w, axis, solver, message):
    with pytest.raises(Exception, match=message):
        call("jaxtv_prox1d", like(X), X, w, axis=axis, **(SOLVER | solver)).block_until_ready()


def test_wrong_dtype_and_results_are_errors():
    integers = jnp.zeros((3, 6), jnp.int32)
    with pytest.raises(Exception, match="float32 or float64"):
        call("jaxtv_prox1d", like(X), integers, W, axis=1, **SOLVER).block_until_ready()
    short = jax.ShapeDtypeStruct((3, 5), jnp.float32)
    with pytest.raises(Exception, match="differ in shape"):
        call("jaxtv_prox1d", short, X, W, axis=1, **SOLVER).block_until_ready()


@pytest.mark.parametrize(
    ("axes", "masks", "message"),
    [
        ((0, 0), (2, 3, 6), "axes must differ"),
        ((0, 5), (2, 3, 6), "axis out of range"),
        ((1, 0), (1, 3, 6), "wrong shape of edge codes"),
    ],
)
def test_wrong_calls_of_the_dykstra_target_are_errors(axes, masks, message):
    out = (like(X), jax.ShapeDtypeStruct(masks, jnp.uint8))
    ws = (jnp.ones((1, 6), jnp.float32), W)
    with pytest.raises(Exception, match=message):
        jax.block_until_ready(
            call(
                "jaxtv_dykstra_with_codes",
                out,
                X,
                *ws,
                axes=np.asarray(axes),
                iterations=4,
                **SOLVER,
            )
        )


def test_an_empty_axis_is_an_error():
    """Its weight would have no gradient; XLA does not even make calls without any result."""
    empty = jnp.zeros((3, 0), jnp.float32)
    out = (like(empty), like(W))
    with pytest.raises(Exception, match="axis is empty"):
        jax.block_until_ready(call("jaxtv_segment_vjp", out, empty, W, empty, axis=1))


@pytest.mark.parametrize("method", range(4))
def test_signals_of_one_sample_have_no_edges(method):
    """No weight is read where there is none."""
    x, w = jnp.ones((3, 1), jnp.float32), jnp.ones((3, 0), jnp.float32)
    y = call("jaxtv_prox1d", like(x), x, w, axis=1, **(SOLVER | {"method": method}))
    np.testing.assert_array_equal(y, x)


def test_a_start_beyond_all_reason_does_no_harm():
    """In float32 it overflows when it is scaled as the samples are."""
    x = jnp.asarray([[1.0, 3.0], [2.0, 5.0]], jnp.float32) * 1e-20
    lam = jnp.full((1, 1), 1e-21, jnp.float32)
    ones = lambda *shape: jnp.ones(shape, jnp.float32) * lam[0, 0]
    out = (
        like(x),
        *(jax.ShapeDtypeStruct((), t) for t in (jnp.float32, jnp.int32, jnp.bool_)),
        like(x),
        jax.ShapeDtypeStruct((1, *x.shape), jnp.uint8),
    )
    y, gap, *_ = call(
        "jaxtv_converged",
        out,
        x,
        jnp.full_like(x, 1e30),
        ones(1, 2),
        ones(2, 1),
        axes=np.asarray((0, 1)),
        gap_tol=np.float64(1e-6),
        sweeps=np.int64(50),
        **SOLVER,
    )
    assert np.isfinite(y).all()
    assert np.isfinite(gap)
