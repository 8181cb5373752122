"""Automatic sharding over 8 virtual devices: right numbers, and no collective where none is needed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxtv

COLLECTIVES = r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
pytestmark = pytest.mark.cpu_only  # eight devices
SHAPE = (8, 6, 10, 4)  # NHWC
LAM = np.float32(0.3)

ONE_D = lambda x: jaxtv.prox_tv1d(x, LAM, axis=1)
TWO_D = lambda x: jaxtv.prox_tv2d(x, LAM, axes=(-3, -2))
NEWTON = lambda x: jaxtv.prox_tv1d(x, LAM, axis=-1, solver=jaxtv.ProjectedNewton())
PROXES = pytest.mark.parametrize("prox", [ONE_D, TWO_D, NEWTON], ids=["1d", "2d", "newton"])


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def images(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def collectives(f, *args):
    text = jax.jit(f).lower(*args).compile().as_text()
    assert "jaxtv_" in text, "the kernels were not called"
    return re.findall(COLLECTIVES, text)


TRANSFORMS = {
    "forward": lambda f: lambda x, t: f(x),
    "jvp": lambda f: lambda x, t: jax.jvp(f, (x,), (t,)),
    "vjp": lambda f: lambda x, t: jax.vjp(f, x)[1](t),
    "vmap": lambda f: lambda x, t: jax.vmap(lambda x: f(x[None])[0])(x),
    "vmap of vjp": lambda f: (
        lambda x, t: jax.vmap(lambda x, t: jax.vjp(lambda x: f(x[None])[0], x)[1](t))(x, t)
    ),
}


@PROXES
@pytest.mark.parametrize("name", TRANSFORMS)
def test_batch_sharded_has_no_collective(mesh, prox, name):
    f = TRANSFORMS[name](prox)
    want = f(images(), images(1))
    x, t = (jax.device_put(a, NamedSharding(mesh, P("data"))) for a in (images(), images(1)))
    assert collectives(f, x, t) == []
    got = jax.jit(f)(x, t)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert a.sharding.is_equivalent_to(x.sharding, a.ndim)
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_second_batch_dimension_and_two_mesh_axes():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    x = jax.device_put(images(), NamedSharding(mesh, P("a", "b")))
    f = jax.grad(lambda x: jnp.sum(jaxtv.prox_tv1d(x, LAM, axis=-2) ** 2))
    assert collectives(f, x) == []
    np.testing.assert_allclose(jax.jit(f)(x), f(images()), rtol=1e-6, atol=1e-6)


@PROXES
@pytest.mark.parametrize(
    "spec", [P(None, "data"), P(None, None, "data"), P(None, None, None, "data")]
)
def test_any_other_sharding_gives_right_numbers(mesh, prox, spec):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    x = jax.device_put(images(), NamedSharding(mesh, spec))
    f = jax.value_and_grad(lambda x: jnp.sum(prox(x) ** 2))
    got, want = jax.jit(f)(x), f(images())
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("per_channel", [False, True])
def test_data_parallel_step_has_one_all_reduce(mesh, per_channel):
    """The gradients of all parameters, λ among them, travel in a single all-reduce."""

    def loss(params, x):
        lam = jax.nn.softplus(params["lam"])
        y = jaxtv.prox_tv2d(x * params["gain"], lam, axes=(-3, -2))
        return jnp.mean((y - 1.0) ** 2)

    def step(params, x):
        grads = jax.grad(loss)(params, x)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    lam = jnp.zeros((4,) if per_channel else (), jnp.float32)
    params = {"lam": lam, "gain": jnp.ones((1, 1, 1, 4), jnp.float32)}
    want = step(params, images())
    x = jax.device_put(images(), NamedSharding(mesh, P("data")))
    placed = jax.device_put(params, NamedSharding(mesh, P()))
    assert collectives(step, placed, x) == ["all-reduce"]
    got = jax.jit(step)(placed, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
