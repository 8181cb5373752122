"""The same mistake is the same error, from the functions and from both layers: type and message."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxtv

X = np.zeros((2, 5, 6, 3), np.float32)


def of_functions(x=X, lam=0.1, axes=(-3, -2), **options):
    jaxtv.prox_tv(x, lam, axes=axes, **options)


def of_linen(x=X, lam=0.1, **options):
    layer = jaxtv.linen.TVLayer(init_lam=lam, trainable=False, **options)
    layer.apply({}, x)


def of_nnx(x=X, lam=0.1, **options):
    jaxtv.nnx.TVLayer(init_lam=lam, trainable=False, **options)(x)


def of_two_axes(x=X, lam=0.1, axes=(-3, -2), **options):
    jaxtv.prox_tv2d(x, lam, axes=axes, **options)


def error_of(call, arguments):
    with pytest.raises((TypeError, ValueError)) as caught:
        call(**arguments)
    return type(caught.value), str(caught.value)


MISTAKES = {
    "axes in words": ({"axes": "hw"}, TypeError),
    "fractional axis": ({"axes": 1.5}, TypeError),
    "fractional axes": ({"axes": (0.0, 1.0)}, TypeError),
    "no axis": ({"axes": ()}, ValueError),
    "axis twice": ({"axes": (-2, -2)}, ValueError),
    "axis by two names": ({"axes": (2, -2)}, ValueError),
    "axis out of range": ({"axes": (1, 4)}, ValueError),
    "axis far below": ({"axes": -5}, ValueError),
    "Direct on two axes": ({"solver": jaxtv.Direct()}, TypeError),
    "ProjectedNewton on three": (
        {"axes": (0, 1, 2), "solver": jaxtv.ProjectedNewton()},
        TypeError,
    ),
    "Dykstra on one axis": ({"axes": -2, "solver": jaxtv.Dykstra()}, TypeError),
    "AcceleratedDykstra on one axis": (
        {"axes": (1,), "solver": jaxtv.AcceleratedDykstra()},
        TypeError,
    ),
    "solver in words": ({"solver": "dykstra"}, TypeError),
    "a class as solver": ({"solver": jaxtv.Dykstra}, TypeError),
    "solver in words on one axis": ({"axes": -2, "solver": "direct"}, TypeError),
    "masked": ({"x": np.ma.array(X, mask=X == 0)}, TypeError),
    "complex": ({"x": X.astype(np.complex64)}, TypeError),
    "objects": ({"x": X.astype(object)}, TypeError),
    "no array": ({"x": "picture"}, TypeError),
    "too few dimensions": ({"x": X[0, 0, 0]}, ValueError),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_functions_and_layers_agree(mistake):
    arguments, error = MISTAKES[mistake]
    expected = error_of(of_functions, arguments)
    assert expected[0] is error
    assert error_of(of_linen, arguments) == expected
    assert error_of(of_nnx, arguments) == expected
    axes = arguments.get("axes", (-3, -2))
    if isinstance(axes, tuple) and len(axes) == 2:
        kind, message = error_of(of_two_axes, arguments)  # its argument is called X
        assert (kind, re.sub(r"\bX\b", "x", message)) == expected


@pytest.mark.parametrize("axes", [None, (-3, -2)])
def test_prox_tv1d_has_the_errors_of_one_axis(axes):
    """`axes` there is `axis` here; the solver has one name."""
    solver = jaxtv.Dykstra()
    expected = error_of(of_functions, {"axes": 1, "solver": solver})
    assert error_of(lambda **o: jaxtv.prox_tv1d(X, 0.1, **o), {"solver": solver}) == expected
    _, message = error_of(of_functions, {"axes": 9})
    assert error_of(lambda **o: jaxtv.prox_tv1d(X, 0.1, **o), {"axis": 9}) == (
        ValueError,
        message.replace("`axes`", "`axis`"),
    )


@pytest.mark.parametrize("lam", [-0.1, float("nan"), np.float32(-3), -1])
def test_a_bad_lam_is_a_bad_init_lam(lam):
    error, message = error_of(of_functions, {"lam": lam})
    expected = (error, message.replace("`lam`", "`init_lam`"))
    assert error is ValueError
    for layer in (of_linen, of_nnx, _trainable_linen, _trainable_nnx):
        assert error_of(layer, {"lam": lam}) == expected


@pytest.mark.parametrize("lam", ["0.1", None, True, 1j, (0.1, 0.2)])
def test_a_lam_that_is_no_number(lam):
    """A tuple is one λ per axis to the functions; a layer has one λ."""
    expected = TypeError, f"`init_lam` must be a number, got {type(lam).__name__}."
    assert error_of(of_linen, {"lam": lam}) == expected
    assert error_of(of_nnx, {"lam": lam}) == expected
    if not isinstance(lam, tuple):
        _, message = error_of(of_functions, {"lam": lam})
        assert message == f"`lam` must be a number or an array, got {type(lam).__name__}."


def _trainable_linen(lam):
    jaxtv.linen.TVLayer(init_lam=lam).init(jax.random.key(0), jnp.asarray(X))


def _trainable_nnx(lam):
    jaxtv.nnx.TVLayer(init_lam=lam)


LAYER_MISTAKES = {
    "mode": ({"mode": "sharpen"}, ValueError),
    "mode none": ({"mode": None}, ValueError),
    "lam that cannot change": ({"init_lam": 0.0}, ValueError),
    "infinite lam": ({"init_lam": np.inf}, ValueError),
    "channels on an axis of the prox": ({"per_channel": True, "channel_axis": -2}, ValueError),
    "channels out of range": ({"per_channel": True, "channel_axis": 7}, ValueError),
    "fractional channel axis": ({"per_channel": True, "channel_axis": 0.5}, TypeError),
}


@pytest.mark.parametrize("mistake", LAYER_MISTAKES)
def test_layers_agree(mistake):
    arguments, error = LAYER_MISTAKES[mistake]

    def linen():
        jaxtv.linen.TVLayer(**arguments).init(jax.random.key(0), jnp.asarray(X))

    def by_nnx():
        channels = {"num_channels": 3} if arguments.get("per_channel") else {}
        jaxtv.nnx.TVLayer(**arguments, **channels, rngs=nnx.Rngs(0))(jnp.asarray(X))

    expected = error_of(linen, {})
    assert expected[0] is error
    assert error_of(by_nnx, {}) == expected
