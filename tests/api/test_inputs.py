"""Arrays of any byte order and memory layout, and numbers of Python, NumPy and JAX."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

import jaxtv
from testing.generators import rng

X = rng().normal(size=(6, 8)).astype(np.float32)


def unaligned(x):
    """The same values, each sample one byte off."""
    pairs = np.zeros(x.shape, [("byte", "u1"), ("sample", x.dtype)])
    pairs["sample"] = x
    return pairs["sample"]


LAYOUTS = {
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "little-endian": lambda x: x.astype(x.dtype.newbyteorder("<")),
    "Fortran order": np.asfortranarray,
    "reversed": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "every second": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "unaligned": unaligned,
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_samples_and_weights(layout, dtype):
    x, w = X.astype(dtype), np.abs(X[:, 1:]).astype(dtype)
    expected = jaxtv.prox_tv1d(x, w)
    other = LAYOUTS[layout]
    np.testing.assert_array_equal(jaxtv.prox_tv1d(other(x), other(w)), expected)
    np.testing.assert_array_equal(
        jaxtv.prox_tv(other(x), (0.3, other(w)), axes=(0, 1)),
        jaxtv.prox_tv(x, (0.3, w), axes=(0, 1)),
    )
    layer = jaxtv.nnx.TVLayer(axes=(0, 1), trainable=False, init_lam=0.3)
    np.testing.assert_array_equal(layer(other(x)), layer(x))
    gap = jaxtv.duality_gap(other(x), other(np.asarray(expected)), other(w), axes=1)
    np.testing.assert_array_equal(gap, jaxtv.duality_gap(x, expected, w, axes=1))


def test_one_sample_for_all():
    """An array without strides."""
    x = np.broadcast_to(np.float32(3), (4, 5))
    np.testing.assert_array_equal(jaxtv.prox_tv1d(x, 1.0), x)


def test_big_endian_start():
    options = {"axes": (0, 1), "solver": jaxtv.AcceleratedDykstra()}
    _, dual = jaxtv.prox_tv(X, 0.3, **options, return_dual=True)
    start = [np.asarray(v).astype(">f4") for v in dual]
    z = jaxtv.prox_tv(X, 0.3, **options, init_dual=start)
    np.testing.assert_array_equal(z, jaxtv.prox_tv(X, 0.3, **options, init_dual=dual))


SCALARS = {
    "Python": lambda v: v,
    "NumPy": lambda v: np.asarray(v)[()],
    "NumPy, no dimension": np.asarray,
    "NumPy, 32 bits": lambda v: (np.int32 if isinstance(v, int) else np.float32)(v),
    "JAX": jnp.asarray,
}


@pytest.mark.parametrize("kind", SCALARS)
@pytest.mark.parametrize("lam", [2, 0.5])
def test_lam_of_any_kind(kind, lam):
    number = SCALARS[kind](lam)
    expected = jaxtv.prox_tv1d(X, lam)
    np.testing.assert_array_equal(jaxtv.prox_tv1d(X, number), expected)
    np.testing.assert_array_equal(jax.jit(jaxtv.prox_tv1d)(X, number), expected)
    pair = (number, number)
    np.testing.assert_array_equal(
        jaxtv.prox_tv(X, pair, axes=(0, 1)), jaxtv.prox_tv(X, lam, axes=(0, 1))
    )
    assert jaxtv.total_variation(X, number, axes=1).dtype == X.dtype


@pytest.mark.parametrize("kind", SCALARS)
def test_axes_of_any_kind(kind):
    number = SCALARS[kind]
    np.testing.assert_array_equal(
        jaxtv.prox_tv1d(X, 0.5, axis=number(0)), jaxtv.prox_tv1d(X, 0.5, axis=0)
    )
    np.testing.assert_array_equal(
        jaxtv.prox_tv(X, 0.5, axes=(number(0), number(1))), jaxtv.prox_tv(X, 0.5, axes=(0, 1))
    )


def test_axes_of_an_array():
    axes = np.array([0, 1])
    assert jaxtv.nnx.TVLayer(axes=axes).axes == jaxtv.linen.TVLayer(axes=axes).axes == (0, 1)
    with pytest.raises(TypeError, match=r"`axes` must be an integer, got 0\.5"):
        jaxtv.prox_tv(X, 0.5, axes=axes + 0.5)


@pytest.mark.parametrize("kind", SCALARS)
def test_solvers_of_any_kind(kind):
    """Their fields are Python's numbers, so that solvers stay hashable and equal."""
    number = SCALARS[kind]
    for solver, other in (
        (jaxtv.Dykstra(4), jaxtv.Dykstra(number(4))),
        (jaxtv.ProjectedNewton(0.25, 9), jaxtv.ProjectedNewton(number(0.25), number(9))),
        (jaxtv.AcceleratedDykstra(0.5, 7), jaxtv.AcceleratedDykstra(number(0.5), number(7))),
    ):
        assert solver == other
        assert hash(solver) == hash(other)
        assert repr(solver) == repr(other)


@pytest.mark.parametrize("kind", SCALARS)
def test_layers_of_any_kind(kind):
    number = SCALARS[kind]
    arguments = {
        "axes": (number(0), number(1)),
        "init_lam": number(0.25),
        "channel_axis": number(-1),
        "per_channel": True,
    }
    x = jnp.asarray(X)[..., None]
    layer = jaxtv.linen.TVLayer(**arguments)
    variables = layer.init(jax.random.key(0), x)
    expected = jaxtv.prox_tv(x, layer.bind(variables).lam, axes=(0, 1))
    np.testing.assert_array_equal(jax.jit(layer.apply)(variables, x), expected)
    assert hash(layer) == hash(jaxtv.linen.TVLayer(**arguments))
    other = jaxtv.nnx.TVLayer(**arguments, num_channels=number(1))
    np.testing.assert_array_equal(nnx.jit(lambda layer, x: layer(x))(other, x), expected)
    constant = jaxtv.nnx.TVLayer(init_lam=number(0.25), trainable=False, axes=0)
    np.testing.assert_array_equal(constant(X), jaxtv.prox_tv1d(X, 0.25, axis=0))


def test_bfloat16_numbers():
    lam = ml_dtypes.bfloat16(0.25)
    np.testing.assert_array_equal(jaxtv.prox_tv1d(X, lam), jaxtv.prox_tv1d(X, 0.25))
    assert jaxtv.ProjectedNewton(tol=lam) == jaxtv.ProjectedNewton(tol=0.25)
    assert jaxtv.nnx.TVLayer(init_lam=lam).init_lam == 0.25


@pytest.mark.parametrize("value", [4.0, np.float32(4), np.bool_(True), np.array([4]), "4", None])
def test_what_is_no_integer(value):
    with pytest.raises(ValueError, match="`iterations` must be an integer >= 1"):
        jaxtv.Dykstra(value)
