"""Every JAX transformation, alone and combined, against a plain loop or a dense Jacobian."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxtv

pytestmark = pytest.mark.both_precisions
N = 9


def rows(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def prox1d(x, lam):
    return jaxtv.prox_tv1d(x, lam)


def prox2d(x, lam):
    """One image, so that all functions here map vectors to vectors."""
    return jaxtv.prox_tv2d(x.reshape(3, 3), lam, solver=jaxtv.Dykstra(3)).reshape(-1)


def newton(x, lam):
    return jaxtv.prox_tv1d(x, lam, solver=jaxtv.ProjectedNewton())


PROXES = pytest.mark.parametrize("prox", [prox1d, prox2d, newton])
LAM = jnp.float32(0.4)


@functools.cache
def jacobian(prox):
    """Dense Jacobians in x and λ at rows(N) and LAM, from one JVP per basis vector: no other
    transformation.
    """
    x, zero = rows(N), jnp.float32(0)
    tangent = jax.jit(lambda tx, tlam: jax.jvp(prox, (x, LAM), (tx, tlam))[1])
    columns = [tangent(jnp.asarray(b), zero) for b in np.eye(N, dtype=np.float32)]
    return np.stack(columns, 1), np.asarray(tangent(jnp.zeros_like(x), jnp.float32(1)))


def close(a, b, tol=3e-6):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tol, atol=tol)


def same(a, b):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# ---- jit, vmap, control flow


@PROXES
def test_jit_and_disable_jit(prox):
    x = rows(N)
    y = prox(x, LAM)
    same(jax.jit(prox)(x, LAM), y)
    with jax.disable_jit():
        same(prox(x, LAM), y)
        same(jax.grad(lambda x: prox(x, LAM).sum())(x).shape, x.shape)


@PROXES
@pytest.mark.parametrize("in_axes", [(0, None), (1, None), (None, 0), (0, 0), (-1, 0)])
def test_vmap_in_axes(prox, in_axes):
    x_axis, lam_axis = in_axes
    lams = jnp.linspace(0.1, 0.9, 4, dtype=jnp.float32)
    x = rows(N) if x_axis is None else jnp.moveaxis(rows(4, N), 0, x_axis)
    lam = LAM if lam_axis is None else lams
    got = jax.vmap(prox, in_axes)(x, lam)
    take = lambda a, axis, i: a if axis is None else jnp.take(a, i, axis)
    want = jnp.stack([prox(take(x, x_axis, i), take(lam, lam_axis, i)) for i in range(4)])
    same(got, want)


@PROXES
def test_nested_vmap_and_out_axes(prox):
    x, lams = rows(2, 3, N), jnp.asarray([0.2, 0.5, 0.8], jnp.float32)
    got = jax.vmap(jax.vmap(prox, (0, 0), 1), (0, None))(x, lams)
    want = jnp.stack([jnp.stack([prox(x[i, j], lams[j]) for j in range(3)], 1) for i in range(2)])
    same(got, want)


def test_vmap_of_grad_and_grad_of_vmap():
    x, lams = rows(4, N), jnp.linspace(0.1, 0.9, 4, dtype=jnp.float32)
    loss = lambda x, lam: jnp.sum(prox1d(x, lam) ** 2)
    per_row = jax.vmap(jax.grad(loss, (0, 1)))(x, lams)
    summed = jax.grad(lambda x, lam: jax.vmap(loss)(x, lam).sum(), (0, 1))(x, lams)
    close(per_row[0], summed[0])
    close(per_row[1], summed[1])


@PROXES
def test_scan_cond_while_map(prox):
    x = rows(5, N)
    want = jnp.stack([prox(r, LAM) for r in x])
    same(jax.lax.scan(lambda c, r: (c, prox(r, LAM)), 0, x)[1], want)
    same(jax.lax.map(lambda r: prox(r, LAM), x), want)
    branch = jax.jit(lambda p, r: jax.lax.cond(p, lambda r: prox(r, LAM), lambda r: r, r))
    same(branch(True, x[0]), want[0])
    same(branch(False, x[0]), x[0])
    body = lambda s: (s[0] + 1, prox(s[1], LAM))
    same(jax.lax.while_loop(lambda s: s[0] < 2, body, (0, x[0]))[1], prox(prox(x[0], LAM), LAM))
    same(jax.lax.fori_loop(0, 2, lambda _, r: prox(r, LAM), x[0]), prox(prox(x[0], LAM), LAM))


@PROXES
def test_grad_through_scan_and_remat(prox):
    x = rows(N)

    def unrolled(x, lam):
        return jnp.sum(prox(prox(x, lam), lam) ** 2)

    def scanned(x, lam):
        return jnp.sum(jax.lax.scan(lambda r, _: (prox(r, lam), None), x, None, length=2)[0] ** 2)

    want = jax.grad(unrolled, (0, 1))(x, LAM)
    for f in (scanned, jax.checkpoint(unrolled), jax.jit(scanned)):
        got = jax.grad(f, (0, 1))(x, LAM)
        close(got[0], want[0])
        close(got[1], want[1])


# ---- derivatives, both modes


@PROXES
@pytest.mark.parametrize("jac", [jax.jacfwd, jax.jacrev])
def test_jacfwd_jacrev(prox, jac):
    x = rows(N)
    want_x, want_lam = jacobian(prox)
    got_x, got_lam = jac(prox, (0, 1))(x, LAM)
    close(got_x, want_x)
    close(got_lam, want_lam)
    close(jax.jit(jac(prox))(x, LAM), want_x)


@PROXES
def test_linearize_vjp_linear_transpose(prox):
    x, t = rows(N), rows(N, seed=1)
    want_x, want_lam = jacobian(prox)
    y, f = jax.linearize(prox, x, LAM)
    same(y, prox(x, LAM))
    close(f(t, jnp.float32(0.5)), want_x @ t + 0.5 * want_lam)
    _, pull = jax.vjp(prox, x, LAM)
    gx, glam = pull(t)
    close(gx, want_x.T @ t)
    close(glam, want_lam @ t)
    (back,) = jax.linear_transpose(lambda v: f(v, jnp.float32(0)), x)(t)
    close(back, want_x.T @ t)


@PROXES
@pytest.mark.parametrize("wrt", [0, 1])
def test_derivative_in_one_argument_only(prox, wrt):
    x = rows(N)
    want = jacobian(prox)[wrt]
    close(jax.jacrev(prox, wrt)(x, LAM), want)
    close(jax.jacfwd(prox, wrt)(x, LAM), want)


@PROXES
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev])
def test_hessians_in_all_orders(prox, outer, inner):
    x = rows(N)
    loss = lambda x, lam: jnp.sum(prox(x, lam) ** 3) / 3
    y = np.asarray(prox(x, LAM))
    jac_x, jac_lam = jacobian(prox)
    # the prox is piecewise affine: H = Jᵀ diag(2 y) J
    (xx, xl), (lx, ll) = jax.jit(outer(inner(loss, (0, 1)), (0, 1)))(x, LAM)
    close(xx, jac_x.T @ np.diag(2 * y) @ jac_x, 2e-5)
    close(xl, jac_x.T @ (2 * y * jac_lam), 2e-5)
    close(lx, jac_x.T @ (2 * y * jac_lam), 2e-5)
    close(ll, jac_lam @ (2 * y * jac_lam), 2e-5)


@PROXES
def test_jvp_of_vjp_and_vjp_of_jvp(prox):
    x, t, g = rows(N), rows(N, seed=1), rows(N, seed=2)
    jac, _ = jacobian(prox)
    pull = lambda g: jax.vjp(lambda x: prox(x, LAM), x)[1](g)[0]
    close(jax.jvp(pull, (g,), (t,))[1], jac.T @ t)
    push = lambda t: jax.jvp(lambda x: prox(x, LAM), (x,), (t,))[1]
    close(jax.vjp(push, t)[1](g)[0], jac.T @ g)


@PROXES
def test_info_has_no_derivative_but_passes_through(prox):
    del prox
    x = rows(2, N)

    def f(x):
        y, info = jaxtv.prox_tv1d(x, 0.4, return_info=True)
        return jnp.sum(y) + jnp.sum(info.gap)

    close(jax.grad(f)(x), jax.grad(lambda x: jnp.sum(jaxtv.prox_tv1d(x, 0.4)))(x))


# ---- export


@pytest.mark.parametrize("differentiate", [False, True])
def test_export_and_reload(differentiate):
    f = jax.grad(lambda x: prox2d(x, LAM).sum()) if differentiate else lambda x: prox2d(x, LAM)
    x = rows(N)
    targets = ["jaxtv_dykstra", "jaxtv_dykstra_with_codes", "jaxtv_dykstra_vjp"]
    checks = [jax.export.DisabledSafetyCheck.custom_call(t) for t in targets]
    blob = jax.export.export(jax.jit(f), disabled_checks=checks)(x).serialize()
    close(jax.export.deserialize(blob).call(x), f(x))


def test_export_with_polymorphic_batch():
    (b,) = jax.export.symbolic_shape("b")
    check = jax.export.DisabledSafetyCheck.custom_call("jaxtv_prox1d")
    spec = jax.ShapeDtypeStruct((b, N), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: prox1d(x, 0.4)), disabled_checks=[check])(spec)
    x = rows(5, N)
    same(jax.export.deserialize(exported.serialize()).call(x), prox1d(x, 0.4))


def export_symbolic(f, sizes, *targets, platform="cpu"):
    """Export `f` of float32 images with symbolic sizes, say "b, h, 9", where "h >= 2" is needed."""
    constraints = [f"{size} >= 2" for size in "hw" if size in sizes]
    shape = jax.export.symbolic_shape(sizes, constraints=constraints)
    checks = [jax.export.DisabledSafetyCheck.custom_call(t) for t in targets]
    spec = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.export.export(jax.jit(f), platforms=[platform], disabled_checks=checks)(spec)


@pytest.mark.parametrize(
    ("solver", "targets"),
    [
        (jaxtv.Dykstra(2), ["jaxtv_dykstra_with_codes", "jaxtv_dykstra_vjp"]),
        (jaxtv.AcceleratedDykstra(), ["jaxtv_converged", "jaxtv_components_vjp"]),
    ],
)
def test_export_with_symbolic_height_and_width(solver, targets):
    f = jax.grad(lambda x: jnp.sum(jaxtv.prox_tv2d(x, 0.4, axes=(1, 2), solver=solver) ** 2))
    exported = export_symbolic(f, "b, h, w", *targets)
    served = jax.export.deserialize(exported.serialize()).call
    for shape in [(1, 2, 2), (2, 7, 4)]:
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
        close(served(x), f(x))


def test_sizes_that_plain_jax_takes_as_symbols():
    """Other dimensions than the prox axes; the error says so."""
    columns = lambda x: jaxtv.prox_tv1d(x, 0.4, axis=1)
    export_symbolic(columns, "b, 7, w", platform="tpu")
    with pytest.raises(ValueError, match="prox axes may not be symbolic, got h"):
        export_symbolic(columns, "b, h, 9", platform="tpu")
    with pytest.raises(ValueError, match="prox axes may not be symbolic, got w"):
        export_symbolic(lambda x: jaxtv.prox_tv2d(x, 0.4, axes=(1, 2)), "b, 7, w", platform="tpu")


# ---- shard_map, pmap, meshes


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("replicated_lam", [False, True])
def test_shard_map_outside_grad(mesh, replicated_lam):
    x, lams = rows(8, N), jnp.linspace(0.1, 0.9, 8, dtype=jnp.float32)
    lam, spec = (LAM, P()) if replicated_lam else (lams, P("data"))

    def local(x, lam):
        return jaxtv.prox_tv1d(x, lam if replicated_lam else lam[:, None])

    f = jax.shard_map(local, mesh=mesh, in_specs=(P("data"), spec), out_specs=P("data"))
    loss = lambda f: lambda x, lam: jnp.sum(f(x, lam) ** 2)
    same(jax.jit(f)(x, lam), local(x, lam))
    for got, want in zip(jax.grad(loss(f), (0, 1))(x, lam), jax.grad(loss(local), (0, 1))(x, lam)):
        close(got, want, 1e-5)


@pytest.mark.parametrize("wrt", [(0,), (1,), (0, 1)])
def test_grad_inside_shard_map(mesh, wrt):
    x = rows(8, N)

    def local(x, lam):
        grads = jax.grad(lambda x, lam: jnp.sum(jaxtv.prox_tv1d(x, lam) ** 2), wrt)(x, lam)
        return tuple(g if g.ndim else g[None] for g in grads)

    specs = tuple(P("data") if i == 0 else P() for i in wrt)  # λ's gradient is summed by JAX
    f = jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P()), out_specs=specs)
    for got, want in zip(f(x, LAM), local(x, LAM)):
        close(got, want, 1e-5)


def test_jvp_and_two_dims_inside_shard_map(mesh):
    x, t = rows(8, 4, 4), rows(8, 4, 4, seed=1)

    def local(x, t):
        return jax.jvp(lambda x: jaxtv.prox_tv2d(x, 0.3, axes=(1, 2)), (x,), (t,))[1]

    f = jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    close(f(x, t), local(x, t))


@pytest.mark.cpu_only
def test_pmap():
    x = rows(8, 3, N)
    same(jax.pmap(lambda x: prox1d(x, 0.4))(x), prox1d(x, 0.4))
    grads = jax.pmap(jax.grad(lambda x: jnp.sum(prox1d(x, 0.4) ** 2)))(x)
    close(grads, jax.grad(lambda x: jnp.sum(prox1d(x, 0.4) ** 2))(x))


@pytest.mark.cpu_only
@pytest.mark.parametrize("transform", ["forward", "grad", "vmap", "two axes"])
def test_explicit_mesh(transform):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    fs = {
        "forward": lambda x: jaxtv.prox_tv1d(x, 0.4),
        "grad": jax.grad(lambda x: jnp.sum(jaxtv.prox_tv1d(x, 0.4) ** 2)),
        "vmap": jax.vmap(lambda x: jaxtv.prox_tv1d(x, 0.4)),
        "two axes": jax.grad(lambda x: jnp.sum(jaxtv.prox_tv2d(x, 0.4, axes=(1, 2)) ** 2)),
    }
    f, x = fs[transform], rows(8, 4, N)
    want = f(x)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, jax.NamedSharding(mesh, P("data")))
        got = jax.jit(f)(sharded)
        assert jax.typeof(got).sharding.spec[0] == "data"
        close(got, want)


def test_donation_and_in_place():
    f = jax.jit(partial(jaxtv.prox_tv1d, lam=0.4), donate_argnums=0)
    want = prox1d(rows(4, N), 0.4)
    same(f(rows(4, N)), want)
