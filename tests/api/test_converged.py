"""AcceleratedDykstra: the converged prox over two and more axes, its certificate and its implicit
derivative, against an exact float64 solver and finite differences.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.csgraph
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxtv
from jaxtv import _converged
from testing import oracles
from testing.lowering import plain_jax


@pytest.fixture
def lowering(request):
    with plain_jax(request.param == "plain JAX"):
        yield request.param


# Compiling the algorithm in plain JAX takes many seconds.
each_lowering = pytest.mark.parametrize(
    ("precision", "lowering"),
    [("x64", "kernels"), ("float32", "kernels"), ("x64", "plain JAX")],
    indirect=True,
)


SCALES = [1.0, 255.0, 1e4]


def is_x64():
    return jax.config.jax_enable_x64


def tight(**options):
    """Tight enough for exact components."""
    return jaxtv.AcceleratedDykstra(tol=1e-13 if is_x64() else 1e-7, **options)


def solve(x, lam, axes, solver=None, **options):
    return jaxtv.prox_tv(x, lam, axes=axes, solver=solver or tight(), **options)


def data(shape, seed=0, scale=1.0):
    """Steps and noise in the dtype of the run."""
    rng = np.random.default_rng(seed)
    steps = sum(np.indices(shape)) > sum(shape) / 2 - 1
    return ((steps + 0.3 * rng.normal(size=shape)) * scale).astype(float if is_x64() else "f4")


def per_edge(shape, axis, seed, zeros=False):
    rng = np.random.default_rng(seed)
    size = [n - (a == axis) for a, n in enumerate(shape)]
    w = rng.uniform(0.05, 0.4, size)
    return np.where(rng.random(size) < 0.2, 0, w) if zeros else w


def lams(shape, kind):
    axes = range(len(shape))
    if kind == "one":
        return 0.25
    if kind == "per axis":
        return tuple(0.15 + 0.1 * a for a in axes)
    return tuple(per_edge(shape, a, a, zeros=kind == "edges with zeros") for a in axes)


KINDS = ["one", "per axis", "edges", "edges with zeros"]
SHAPES = [(9, 11), (2, 13), (16, 1), (4, 5, 6), (3, 3, 3, 3)]


@functools.cache
def exact(shape, kind, x64):
    lam = lams(shape, kind)
    axes = tuple(range(len(shape)))
    ws = lam if isinstance(lam, tuple) else [lam] * len(shape)
    return oracles.prox_nd(data(shape), ws, axes)


def cast(lam, x, scale=1.0):
    return jax.tree.map(lambda w: jnp.asarray(np.asarray(w) * scale, x.dtype), lam)


@functools.partial(jax.jit, static_argnames="axes")
def solution_and_gradient(x, lam, g, axes):
    y, pull = jax.vjp(lambda x, lam: solve(x, lam, axes), x, lam)
    return y, *pull(g)


@pytest.mark.both_precisions
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_solution_and_gradient_are_exact_at_any_scale(shape, kind, scale):
    """y, its components, and the pullback in x and λ, against the float64 oracle."""
    axes = tuple(range(len(shape)))
    want = exact(shape, kind, is_x64())
    x = jnp.asarray(data(shape) * np.asarray(scale, data(shape).dtype))
    lam = cast(lams(shape, kind), x, scale)
    g = data(shape, seed=3)
    y, gx, glam = solution_and_gradient(x, lam, jnp.asarray(g), axes)
    eps = float(jnp.finfo(x.dtype).eps)
    np.testing.assert_allclose(y, want.y * scale, rtol=0, atol=20 * eps * np.abs(x).max())
    flat = np.unique(np.asarray(y), return_inverse=True)[1]
    pairs = np.unique(np.stack([flat.ravel(), want.component.ravel()]), axis=1)
    assert len(np.unique(pairs[1])) == pairs.shape[1], "a component is not constant"

    want_x, want_w = want.pullback(g, axes)
    near = {"rtol": 0, "atol": 200 * eps}
    np.testing.assert_allclose(gx, want_x, **near)
    if kind == "one":
        np.testing.assert_allclose(glam, sum(w.sum() for w in want_w), **near)
    else:
        for got, w in zip(glam, want_w, strict=True):
            np.testing.assert_allclose(got, w.sum() if got.ndim == 0 else w, **near)


LAM_SHAPES = [
    (1, 1, 1, 1),
    (3,),
    (2, 1, 1, 1),
    (2, 1, 1, 3),
    ((2, 1, 6, 3), (5, 1, 1)),
    ((4, 1, 1), (5, 5, 3)),
    ((1,), (2, 5, 5, 3)),
]


@pytest.mark.parametrize("shape", LAM_SHAPES, ids=str)
def test_derivative_against_finite_differences(shape):
    """Both modes, λ of every shape; NHWC with the channels and images as batch."""
    x = jnp.asarray(data((2, 5, 6, 3)))
    rng = np.random.default_rng(1)
    make = lambda size: jnp.asarray(rng.uniform(0.1, 0.4, size))
    lam = tuple(map(make, shape)) if isinstance(shape[0], tuple) else make(shape)
    f = lambda x, lam: solve(x, lam, (1, 2))
    direction = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape)), (x, lam))
    step = 1e-6
    move = lambda t: jax.tree.map(lambda v, d: v + t * d, (x, lam), direction)
    difference = (f(*move(step)) - f(*move(-step))) / (2 * step)
    pushed = jax.jvp(f, (x, lam), direction)[1]
    np.testing.assert_allclose(pushed, difference, rtol=0, atol=1e-7)
    g = jnp.asarray(rng.normal(size=x.shape))
    pulled = jax.vjp(f, x, lam)[1](g)
    inner = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(pulled), jax.tree.leaves(direction)))
    np.testing.assert_allclose(inner, jnp.vdot(g, pushed), rtol=1e-12)


@pytest.mark.both_precisions
@pytest.mark.parametrize("iterations", [1, 3])
def test_a_gap_is_a_certificate_before_convergence(iterations):
    shape = (9, 11)
    x, want = jnp.asarray(data(shape)), exact(shape, "one", is_x64())
    solver = jaxtv.AcceleratedDykstra(tol=1e-7, max_iterations=iterations)
    y, info = solve(x, 0.25, (0, 1), solver, return_info=True)
    assert not info.converged
    assert info.iterations == iterations
    distance = np.sum((np.asarray(y) - want.y) ** 2)
    assert 0 < distance <= 2 * info.gap
    objective = lambda y: (
        0.5 * np.sum((x - y) ** 2) + 0.25 * sum(np.abs(np.diff(y, axis=a)).sum() for a in (0, 1))
    )
    assert info.gap >= (objective(np.asarray(y)) - objective(want.y)) * (1 - 1e-4)


@pytest.mark.both_precisions
@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-5])
def test_tolerance_is_met_and_reported(tol):
    x = jnp.asarray(data((3, 24, 20, 2)))
    solver = jaxtv.AcceleratedDykstra(tol=tol)
    y, info = solve(x, 0.2, (1, 2), solver, return_info=True)
    assert info.gap.shape == info.iterations.shape == info.converged.shape == (3, 2)
    assert info.converged.all()
    objective = 0.5 * jnp.sum((x - y) ** 2, (1, 2)) + jaxtv.total_variation(y, 0.2, axes=(1, 2))
    assert np.all(info.gap <= tol * objective * (1 + 1e-5))
    better = solve(x, 0.2, (1, 2))
    assert np.all(jnp.sum((y - better) ** 2, (1, 2)) <= 2 * info.gap)


@pytest.mark.both_precisions
def test_iterations_stop_per_element():
    """A smooth image stops sooner than a noisy one, and both where they stop alone."""
    x = jnp.asarray(np.stack([data((16, 16)), data((16, 16), 1, 5.0), np.zeros((16, 16), "f4")]))
    _, info = solve(x, 0.3, (1, 2), return_info=True)
    alone = [solve(v, 0.3, (0, 1), return_info=True)[1] for v in x]
    np.testing.assert_array_equal(info.iterations, [i.iterations for i in alone])
    assert len(set(info.iterations.tolist())) == 3
    assert info.iterations[2] == 1


@each_lowering
def test_batch_mates_change_no_bit(lowering):
    """Images and channels, one of them slow, one NaN, one infinite, one with a bad λ."""
    x = np.stack([data((12, 10, 3), seed) for seed in range(3)])
    lam = np.full((3, 1, 1, 3), 0.2, x.dtype)
    f = jax.jit(lambda x, lam: solve(x, lam, (1, 2), return_info=True))
    want, info = f(x, lam)
    poisoned, bad = x.copy(), lam.copy()
    poisoned[0, 3, 4, 1], poisoned[1, 0, 0, 0], bad[2, 0, 0, 2] = np.nan, np.inf, -1
    poisoned[2, :, :, 0] = data((12, 10), 9, 100.0)
    got, got_info = f(poisoned, bad)
    touched = np.zeros((3, 3), bool)
    touched[[0, 1, 2], [1, 0, 2]] = True
    assert np.isnan(np.moveaxis(got, -1, 1)[touched]).all()
    assert np.isnan(got_info.gap[touched]).all()
    assert not got_info.converged[touched].any()
    assert not got_info.iterations[touched].any()
    touched[2, 0] = True
    for a, b in ((np.moveaxis(got, -1, 1), np.moveaxis(want, -1, 1)), *zip(got_info, info)):
        np.testing.assert_array_equal(np.asarray(a)[~touched], np.asarray(b)[~touched])


@pytest.mark.both_precisions
def test_one_thread_or_many_give_the_same_bits():
    """A batch is spread over threads, a single image uses them inside."""
    x = jnp.asarray(data((9, 160, 200)))
    solver = jaxtv.AcceleratedDykstra(tol=1e-4)
    many = solve(x, 0.2, (1, 2), solver)
    np.testing.assert_array_equal(many[4], solve(x[4], 0.2, (0, 1), solver))


def least_objective(x, ws, dual):
    """A lower bound of the optimum from the dual of axis 0, after a check that it is one."""
    flow = np.cumsum(np.asarray(dual, float), 0)
    assert np.all(np.abs(flow[:-1]) <= np.asarray(ws[0]) + 2e-5)
    assert np.all(np.abs(flow[-1]) <= 2e-5)
    y = np.asarray(jaxtv.prox_tv1d(x - dual, ws[1], axis=1), float)
    return 0.5 * np.sum(np.asarray(x, float) ** 2 - y**2)


@pytest.mark.both_precisions
@pytest.mark.parametrize("kind", ["one", "edges"])
def test_late_iterations_solve_a_part_of_an_image(kind):
    """Noise in a corner is still to be solved when most tiles of the image are held."""
    rng = np.random.default_rng(0)
    x = data((300, 260))
    x[80:, 70:] = np.round(x[80:, 70:]) + 0.02 * rng.normal(size=(220, 190))
    lam = 0.2 if kind == "one" else tuple(per_edge(x.shape, a, a, zeros=True) for a in (0, 1))
    x, lam = jnp.asarray(x), cast(lam, jnp.asarray(x))
    tol = 1e-9 if is_x64() else 1e-6
    solver = jaxtv.AcceleratedDykstra(tol=tol)

    def prox(x):
        y, *rest = solve(x, lam, (0, 1), solver, return_info=True, return_dual=True)
        return y, rest

    y, pull, (info, dual) = jax.vjp(prox, x, has_aux=True)
    assert info.converged
    assert info.iterations > 16
    ws = lam if kind == "edges" else [np.full((1, 1), lam)] * 2
    objective = 0.5 * np.sum(np.asarray(x - y, float) ** 2)
    objective += sum(np.sum(w * np.abs(np.diff(y, axis=a))) for a, w in enumerate(ws))
    gap = objective - least_objective(x, ws, dual[0])
    assert gap <= (tol + 4 * float(jnp.finfo(x.dtype).eps)) * objective
    (mean,) = pull(jnp.asarray(data(x.shape, 5)))
    for a, w in enumerate(ws):  # y is constant on the components of the derivative
        inside = (np.diff(mean, axis=a) == 0) & (np.asarray(w) > 0)
        assert np.mean(inside) > 0.3
        assert np.all(np.diff(y, axis=a)[inside] == 0)
    if kind == "one":  # each on one thread
        np.testing.assert_array_equal(solve(jnp.stack([x, x]), lam, (1, 2), solver)[1], y)


@each_lowering
def test_extreme_lambda(lowering):
    x = jnp.asarray(data((6, 7, 3)))
    for axes in ((0, 1), (0, 1, 2)) if lowering == "kernels" else ((0, 1),):
        f = jax.jit(lambda x, lam, axes=axes: solve(x, lam, axes, return_info=True))
        mean = np.broadcast_to(np.mean(np.asarray(x), axes, np.float64, keepdims=True), x.shape)
        largest = jnp.expand_dims(jaxtv.max_lambda(x, axes), axes)
        np.testing.assert_array_equal(f(x, 0 * largest)[0], x)
        for lam in (1.01 * largest, *(jnp.full_like(largest, v) for v in (1e6, np.inf))):
            y, info = f(x, lam)
            np.testing.assert_allclose(y, mean, rtol=1e-6)
            assert info.converged.all()
            assert np.all(y == y[(slice(1),) * 2])


def test_no_edges_and_nothing():
    x = jnp.ones((1, 1, 2))
    np.testing.assert_array_equal(solve(x, 0.3, (0, 1)), x)
    y, info = solve(jnp.ones((0, 4, 4)), 0.3, (1, 2), return_info=True)
    assert y.shape == (0, 4, 4)
    assert info.gap.shape == (0,)


@each_lowering
def test_huge_and_tiny_values(lowering):
    """Scaling by a power of two scales every bit; the largest floats do not overflow."""
    x, lam = jnp.asarray(data((10, 12))), jnp.asarray(0.25, data((1, 1)).dtype)
    y = solve(x, lam, (0, 1))
    for k in (-60, 126):
        factor = jnp.asarray(2.0**k, x.dtype)
        scaled = solve(x * factor, lam * factor, (0, 1))
        np.testing.assert_allclose(
            scaled / factor, y, rtol=1e-6 if lowering == "plain JAX" else 0, atol=0
        )


def test_inner_solvers_agree():
    x = jnp.asarray(data((9, 11)))
    want = solve(x, 0.25, (0, 1))
    for inner in (jaxtv.Direct("taut_string"), jaxtv.Direct("decomposition")):
        got, info = solve(x, 0.25, (0, 1), tight(inner=inner), return_info=True)
        np.testing.assert_allclose(got, want, atol=1e-6)
        assert info.converged


@pytest.mark.parametrize(
    ("precision", "shape", "axes"),
    [
        ("x64", (2, 9, 8, 3), (1, 2)),
        ("x64", (5, 4, 6), (2, 0, 1)),
        ("x64", (2, 2, 3, 2, 3, 2), range(1, 6)),
        ("float32", (2, 9, 8, 3), (1, 2)),
    ],
    indirect=["precision"],
)
def test_kernels_and_plain_jax_agree(shape, axes):
    """In five axes the masks have two planes."""
    x, t = jnp.asarray(data(shape)), jnp.asarray(data(shape, 1))
    lam = tuple(0.1 + 0.05 * a for a in range(len(axes)))

    @jax.jit
    def everything(x, lam):
        y, pull, info = jax.vjp(
            lambda x, lam: solve(x, lam, axes, return_info=True), x, lam, has_aux=True
        )
        tangent = jax.jvp(lambda *a: solve(*a, axes), (x, lam), (t, lam))[1]
        return (y, pull(t), tangent), info.iterations

    with plain_jax():
        plain, plain_iterations = everything(x, lam)
    native, iterations = everything(x, lam)
    tol = 1e-12 if is_x64() else 1e-5
    for a, b in zip(jax.tree.leaves(native), jax.tree.leaves(plain)):
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol)
    if is_x64():
        assert np.abs(iterations - plain_iterations).max() <= 2


@each_lowering
def test_acceleration(lowering):
    """Far fewer iterations than without momentum."""
    x = jnp.asarray(data((40, 40), scale=3.0))
    _, info = solve(x, 1.0, (0, 1), jaxtv.AcceleratedDykstra(tol=1e-6), return_info=True)
    assert info.converged
    assert info.iterations <= 60  # 51; without momentum 271


@pytest.mark.parametrize(
    ("precision", "lowering", "axes"),
    [("x64", "kernels", (0, 1)), ("x64", "kernels", (1, 0)), ("x64", "plain JAX", (0, 1))],
    indirect=["precision", "lowering"],
)
def test_edges_without_weight_hold_nothing_together(lowering, axes):
    """Repeated samples on both sides of a zero weight: the derivative is I, not a mean."""
    x = jnp.ones((3, 4))
    lam = tuple(jnp.zeros((2, 4) if a == 0 else (3, 3)).at[0, 0].set(0.1) for a in axes)
    jacobian = jax.jit(jax.jacrev(lambda x: solve(x, lam, axes)))(x).reshape(12, 12)
    want = np.eye(12)
    want[np.ix_([0, 1, 4], [0, 1, 4])] = 1 / 3
    np.testing.assert_allclose(jacobian, want, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (40, 40)])
def test_labels_of_plain_jax_are_the_components(shape):
    """Random mazes, where labels have far to travel."""
    rng = np.random.default_rng(0)
    for density in (0.3, 0.5, 0.7):
        edges = [rng.random([n - (a == i) for i, n in enumerate(shape)]) < density for a in (0, 1)]
        v = jnp.asarray(data(shape))
        got = np.asarray(_converged.component_labels([jnp.asarray(e) for e in edges], v, (0, 1)))
        index = np.arange(v.size).reshape(shape)
        low, high = (
            np.concatenate([np.delete(index, end, a)[e] for a, e in enumerate(edges)])
            for end in (-1, 0)
        )
        graph = scipy.sparse.coo_matrix((np.ones(len(low)), (low, high)), (v.size, v.size))
        component = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
        want = np.unique(component, return_index=True)[1][component]
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("precision", ["x64"], indirect=True)
@pytest.mark.parametrize("tol", [1e-2, 1e-3])
def test_derivative_at_a_loose_tolerance_is_that_of_the_last_passes(tol):
    """y has jumps inside the components that the passes tell; the derivative is their mean."""
    x, g = jnp.asarray(data((24, 20))), jnp.asarray(data((24, 20), 5))
    y, pull = jax.vjp(lambda x: solve(x, 0.2, (0, 1), jaxtv.AcceleratedDykstra(tol=tol)), x)
    (mean,) = pull(g)
    inside = [np.diff(mean, axis=a) == 0 for a in (0, 1)]
    assert any(np.any(np.diff(y, axis=a)[i] != 0) for a, i in enumerate(inside))
    np.testing.assert_allclose(pull(mean)[0], mean, rtol=0, atol=1e-14)
    (best,) = jax.vjp(lambda x: solve(x, 0.2, (0, 1)), x)[1](g)
    assert np.linalg.norm(mean - best) <= 0.5 * np.linalg.norm(best)


# ---- warm start, gap of any y


@pytest.mark.both_precisions
@pytest.mark.parametrize("axes", [(0, 1), (0, 1, 2)])
def test_warm_start(axes):
    """From its own dual a solve stops at once; from a neighbour's it is sooner; from anything it is
    right.
    """
    x = jnp.asarray(data((14, 12, 3)))
    solver = jaxtv.AcceleratedDykstra(tol=1e-6)
    f = jax.jit(
        lambda x, lam, dual=None: solve(
            x, lam, axes, solver, return_info=True, init_dual=dual, return_dual=True
        )
    )
    y, cold, dual = f(x, 0.25)
    assert len(dual) == len(axes) - 1
    again, info, _ = f(x, 0.25, dual)
    assert np.all(info.iterations <= 3)
    np.testing.assert_allclose(again, y, atol=2e-3)
    near = x + 1e-3 * jnp.asarray(data(x.shape, 7))
    assert np.sum(f(near, 0.251, dual)[1].iterations) < np.sum(f(near, 0.251)[1].iterations)
    junk = tuple(jnp.full_like(x, 5).at[0, 0].set(jnp.nan) for _ in dual)
    far, info, _ = f(x, 0.25, junk)
    assert info.converged.all()
    rounding = x.size * (4 * jnp.finfo(x.dtype).eps) ** 2
    assert np.all(np.sum((far - y) ** 2, axes) <= 4 * (info.gap + cold.gap) + rounding)
    np.testing.assert_array_equal(solve(x, 0.25, axes, solver, return_dual=True)[1][0], dual[0])


@each_lowering
def test_warm_start_from_the_largest_numbers(lowering):
    """No dual is so large: a start is cut down to what one can be, so that no sum is inf."""
    x = jnp.asarray(data((6, 5, 3), scale=0.1))
    solver = jaxtv.AcceleratedDykstra(tol=1e-6)
    f = jax.jit(
        lambda x, start: solve(x, 0.025, (0, 1, 2), solver, return_info=True, init_dual=start)
    )
    y, _ = f(x, (jnp.zeros_like(x),) * 2)
    far, info = f(x, (jnp.full_like(x, jnp.finfo(x.dtype).max),) * 2)
    assert info.converged
    np.testing.assert_allclose(far, y, atol=2e-4)


@pytest.mark.both_precisions
def test_warm_start_leaves_derivatives_alone():
    x = jnp.asarray(data((9, 8)))
    _, dual = solve(x, 0.25, (0, 1), return_dual=True)
    loss = lambda x, dual: jnp.sum(solve(x, 0.25, (0, 1), init_dual=dual) ** 2)
    gx, gdual = jax.grad(loss, (0, 1))(x, dual)
    np.testing.assert_allclose(gx, jax.grad(loss)(x, None), rtol=1e-5, atol=1e-6)
    assert not np.any(gdual[0])
    carried = jax.grad(lambda x: jnp.sum(solve(x, 0.25, (0, 1), return_dual=True)[1][0]))(x)
    assert not np.any(carried)


def test_bad_duals():
    x, dual = jnp.ones((4, 5)), (jnp.zeros((4, 5)),)
    for bad in ((), (jnp.zeros((5, 4)),), dual * 2):
        with pytest.raises(ValueError, match="init_dual"):
            solve(x, 0.1, (0, 1), init_dual=bad)
    for options in ({"init_dual": dual}, {"return_dual": True}):
        with pytest.raises(TypeError, match="AcceleratedDykstra"):
            jaxtv.prox_tv(x, 0.1, axes=(0, 1), **options)
        with pytest.raises(TypeError, match="AcceleratedDykstra"):
            jaxtv.prox_tv(x, 0.1, axes=0, **options)


@pytest.mark.both_precisions
@pytest.mark.parametrize("axes", [(-2, -1), (0, 1, 2)])
def test_duality_gap_is_a_certificate_for_any_y(axes):
    """Also where x - y is no feasible dual: noise, the mean, another prox."""
    x = jnp.asarray(data((4, 6, 5)))
    lam = 0.3
    best = solve(x, lam, axes)
    others = [
        x,
        best,
        jnp.full_like(x, 0.5),
        best + 0.01 * jnp.asarray(data(x.shape, 8)),
        solve(x, 0.1, axes),
        jaxtv.prox_tv(x, lam, axes=axes, solver=jaxtv.Dykstra(1)),
    ]

    def objective(y):
        return 0.5 * jnp.sum((x - y) ** 2, axes) + jaxtv.total_variation(y, lam, axes=axes)

    for y in others:
        gap = jaxtv.duality_gap(x, y, lam, axes=axes)
        excess = objective(y) - objective(best)
        slack = 4e-6 * objective(best)
        assert np.all(0.5 * jnp.sum((y - best) ** 2, axes) <= gap + slack)
        assert np.all(np.abs(gap - excess) <= slack)


# ---- transformations


def test_transformations():
    x = jnp.asarray(data((4, 7, 6)))
    lam = jnp.asarray([0.1, 0.2, 0.3, 0.4], x.dtype)
    f = jax.jit(lambda x, lam: solve(x, lam, (0, 1)))
    alone = jnp.stack([f(v, w) for v, w in zip(x, lam)])
    np.testing.assert_array_equal(jax.jit(jax.vmap(f))(x, lam), alone)
    np.testing.assert_array_equal(jax.jit(jax.vmap(f, (2, None), 2))(x, lam[0]), f(x, lam[0]))
    loss = lambda x, lam: jnp.sum(f(x, lam) ** 3)
    grads = jax.jit(jax.vmap(jax.grad(loss, (0, 1))))(x, lam)
    one = jax.jit(jax.grad(loss, (0, 1)))(x[1], lam[1])
    np.testing.assert_allclose(grads[0][1], one[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grads[1][1], one[1], rtol=1e-5)
    remat = jax.jit(jax.grad(jax.checkpoint(loss), (0, 1)))(x[1], lam[1])
    np.testing.assert_array_equal(remat[0], one[0])
    forward = jax.jit(jax.jacfwd(loss, (0, 1)))(x[1], lam[1])
    np.testing.assert_allclose(forward[0], one[0], rtol=1e-5, atol=1e-6)
    step = lambda v, w: (f(v, w), jnp.sum(v))
    looped, _ = jax.jit(lambda x, lam: jax.lax.scan(step, x, lam))(x[0], lam)
    want = x[0]
    for w in lam:
        want = f(want, w)
    np.testing.assert_allclose(looped, want, rtol=1e-6, atol=1e-7)


def test_hessian():
    """d²/dx² of |prox|²/2 is P (the prox is piecewise affine): symmetric, all ways."""
    x = jnp.asarray(data((3, 4)))
    f = lambda x: 0.5 * jnp.sum(solve(x, 0.25, (0, 1)) ** 2)
    hessians = [
        jax.jit(a(b(f)))(x).reshape(12, 12)
        for a in (jax.jacfwd, jax.jacrev)
        for b in (jax.jacfwd, jax.jacrev)
    ]
    P_ = jax.jit(jax.jacrev(lambda x: solve(x, 0.25, (0, 1))))(x).reshape(12, 12)
    for h in hessians:
        np.testing.assert_allclose(h, P_ @ P_, atol=1e-6)


@each_lowering
def test_shard_map(lowering):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    x = jnp.asarray(data((8, 6, 5)))
    f = lambda x, lam: solve(x, lam, (1, 2), jaxtv.AcceleratedDykstra(tol=1e-5))
    inside = jax.shard_map(f, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    lam = jnp.asarray(0.2, x.dtype)

    def everything(f):
        y, pull = jax.vjp(f, x, lam)
        return y, *pull(2 * y)

    got, want = (jax.jit(everything, static_argnums=0)(g) for g in (inside, f))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[2], want[2], rtol=1e-5)


def test_batch_sharded_has_no_collective():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = data((8, 6, 5))
    placed = jax.device_put(x, NamedSharding(mesh, P("data")))
    f = lambda x: solve(x, x.dtype.type(0.2), (1, 2), jaxtv.AcceleratedDykstra(tol=1e-5))
    for g in (f, lambda x: jax.vjp(f, x)[1](x), lambda x: jax.jvp(f, (x,), (x,))):
        compiled = jax.jit(g).lower(placed).compile()
        assert "jaxtv_" in compiled.as_text()
        assert "all-" not in compiled.as_text()
        for a, b in zip(jax.tree.leaves(compiled(placed)), jax.tree.leaves(g(x))):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_other_platforms_are_plain_jax():
    f = jax.jit(jax.grad(lambda x: jnp.sum(solve(x, 0.3, (0, 1)) ** 2)))
    traced = f.trace(jnp.asarray(data((8, 8))))
    assert "custom_call" not in traced.lower(lowering_platforms=("tpu",)).as_text()


# ---- layers, arguments


@pytest.mark.parametrize("flavour", ["linen", "nnx"])
def test_layers(flavour):
    from flax import nnx

    x = jnp.asarray(data((2, 8, 6, 3)).astype(np.float32))
    options = {"solver": jaxtv.AcceleratedDykstra(), "init_lam": 0.2, "per_channel": True}
    if flavour == "linen":
        layer = jaxtv.linen.TVLayer(**options)
        variables = layer.init(jax.random.key(0), x)
        y, g = (
            layer.apply(variables, x),
            jax.grad(lambda v: jnp.sum(layer.apply(v, x) ** 2))(variables),
        )
    else:
        layer = jaxtv.nnx.TVLayer(**options, num_channels=3)
        y, g = layer(x), nnx.grad(lambda m: jnp.sum(m(x) ** 2))(layer)
    want = solve(x, jnp.full(3, 0.2, x.dtype), (1, 2), jaxtv.AcceleratedDykstra())
    np.testing.assert_allclose(y, want, atol=1e-6)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(g))


def test_bad_arguments():
    for options in ({"tol": -1.0}, {"tol": np.inf}, {"max_iterations": 0}, {"max_iterations": 1.5}):
        with pytest.raises(ValueError, match=next(iter(options))):
            jaxtv.AcceleratedDykstra(**options)
    with pytest.raises(TypeError, match="inner"):
        jaxtv.AcceleratedDykstra(inner=jaxtv.Dykstra())
    x = jnp.ones((4, 4))
    with pytest.raises(TypeError, match="1D solver"):
        jaxtv.prox_tv1d(x, 0.1, solver=jaxtv.AcceleratedDykstra())
    with pytest.raises(TypeError, match="1D solver"):
        jaxtv.prox_tv(x, 0.1, axes=0, solver=jaxtv.AcceleratedDykstra())
    assert hash(jaxtv.AcceleratedDykstra()) == hash(jaxtv.AcceleratedDykstra(tol=1e-5))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types(dtype):
    x = jnp.asarray(data((9, 11)), dtype)
    y, pull = jax.vjp(lambda x: solve(x, 0.25, (0, 1), jaxtv.AcceleratedDykstra(tol=1e-7)), x)
    want = solve(x.astype(jnp.float32), 0.25, (0, 1), jaxtv.AcceleratedDykstra(tol=1e-7))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, want.astype(dtype))
    assert pull(jnp.ones_like(y))[0].dtype == dtype


def test_wrong_calls_of_the_targets_are_refused():
    """Straight at the targets."""
    x = jnp.zeros((4, 5), jnp.float32)
    masks = jnp.zeros((1, 4, 5), jnp.uint8)
    w = jnp.zeros((1, 1), jnp.float32)
    axes = np.asarray([0, 1])

    def call(name, shapes, *operands, axes=axes):
        results = [jax.ShapeDtypeStruct(*s) for s in shapes]
        return jax.ffi.ffi_call(name, results)(*operands, axes=axes)

    like, tw = ((4, 5), jnp.float32), (jnp.zeros((1, 5)), jnp.zeros((4, 1)))
    tw = tuple(v.astype(jnp.float32) for v in tw)
    np.testing.assert_array_equal(call("jaxtv_components_jvp", [like], masks, x, *tw)[0], x)
    wrong = [
        (masks[:, :3], x, *tw),
        (masks.astype(jnp.int32), x, *tw),
        (masks, x, tw[0]),
        (masks, x, w, w),
        (masks, x, *(v.astype(jnp.bfloat16) for v in tw)),
    ]
    for operands in wrong:
        with pytest.raises(jax.errors.JaxRuntimeError, match="jaxtv"):
            jax.block_until_ready(call("jaxtv_components_jvp", [like], *operands))
    for bad in ([0], [0, 0], [0, 2], [-1, 0]):
        with pytest.raises(jax.errors.JaxRuntimeError, match="jaxtv"):
            call("jaxtv_components_jvp", [like], masks, x, *tw, axes=np.asarray(bad))
    with pytest.raises(jax.errors.JaxRuntimeError, match="jaxtv"):
        call("jaxtv_components_vjp", [like, like, like], masks, x)
