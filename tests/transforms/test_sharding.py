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


RING = jaxtv.Graph(np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [0, 5]]), 6)
LOOPS = {
    "isotropic": lambda x: jaxtv.prox_tv_isotropic(x, LAM, axes=(1, 2), solver=jaxtv.FGP(1e-3)),
    "trend_filter": lambda x: jaxtv.trend_filter(x, LAM, axis=1, tol=1e-3),
    "prox_graph_tv": lambda x: jaxtv.prox_graph_tv(
        x, LAM, RING, axis=1, solver=jaxtv.AcceleratedDykstra(tol=1e-3)
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param("isotropic", marks=pytest.mark.nightly), "trend_filter", "prox_graph_tv"]
)
def test_loops_run_where_their_elements_are(name):
    """In shard_map without a collective; outside of it they share numbers, to know when all are done."""
    prox, devices = LOOPS[name], jax.devices()[:2]
    x, t = (images(seed)[:4, :, :3, :1] for seed in (0, 1))
    f = lambda x, t: (lambda y, pull: (y, *pull(t)))(*jax.vjp(prox, x))
    want = jax.jit(f)(x, t)
    auto = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    inside = jax.shard_map(f, mesh=auto, in_specs=P("data"), out_specs=P("data"))
    explicit = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,), devices=devices)
    for g, mesh, most in ((inside, auto, 0), (f, explicit, 9)):
        with jax.set_mesh(mesh):
            placed = [jax.device_put(v, NamedSharding(mesh, P("data"))) for v in (x, t)]
            compiled = jax.jit(g).lower(*placed).compile()
            got = compiled(*placed)
        found, flags = (
            re.findall(pattern, compiled.as_text())
            for pattern in (COLLECTIVES, r"= \w+\[\] all-reduce(?:-start)?\(")
        )
        assert len(found) == len(flags) <= most
        for a, b in zip(got, want, strict=True):
            assert a.sharding.spec[0] == "data"
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


EXPLICIT = {
    "isotropic": LOOPS["isotropic"],
    "prox_tv1d": lambda x: jaxtv.prox_tv1d(x, LAM, axis=1),
    "prox_tv2d": TWO_D,
    "converged": lambda x: jaxtv.prox_tv(
        x, LAM, axes=(1, 2), solver=jaxtv.AcceleratedDykstra(max_iterations=2)
    ),
    "total_variation": lambda x: jaxtv.total_variation(x, axes=(1, 2)),
    "max_lambda": lambda x: jaxtv.max_lambda(x, 1),
    "layer": lambda x: jaxtv.nnx.TVLayer()(x),
}


@pytest.mark.parametrize("name", EXPLICIT)
@pytest.mark.parametrize("traced", [False, True])
def test_an_explicit_mesh_along_an_axis_of_the_prox(name, traced):
    """JAX gathers nothing there by itself: our error says what to do, and that works."""
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
    f = jax.jit(EXPLICIT[name]) if traced else EXPLICIT[name]
    with jax.set_mesh(mesh):
        x = jax.device_put(images(), NamedSharding(mesh, P("a", "b")))
        with pytest.raises(ValueError, match=r"`x` must not be sharded along axis 1.*reshard") as e:
            f(x)
        (remedy,) = re.findall(r"jax\.sharding\.reshard\(x, (P\(.*?\))\)", str(e.value))
        assert remedy == "P('a', None, None, None)"
        got = f(jax.sharding.reshard(x, P("a", None, None, None)))
        assert jax.typeof(got).sharding.spec[0] == "a"
    np.testing.assert_allclose(got, f(images()), rtol=1e-5, atol=1e-5)


def test_an_explicit_mesh_along_the_edges_of_lam():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        lam = jax.device_put(jnp.ones(8, jnp.float32), NamedSharding(mesh, P("data")))
        with pytest.raises(ValueError, match=r"`lam` must not be sharded along axis 0"):
            jaxtv.prox_tv1d(jnp.ones(9, jnp.float32), lam)
