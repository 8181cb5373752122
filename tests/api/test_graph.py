"""prox_graph_tv: values against threshold decomposition by cuts, derivatives against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxtv
from testing import oracles

TIGHT = jaxtv.AcceleratedDykstra(tol=1e-13)


def random_graph(n=12, m=26, seed=0):
    """Two parts without an edge between them, node 0 alone, and some edges twice."""
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.integers(1, n, (2 * m, 2)))
    same_part = (edges[:, 0] < n // 2) == (edges[:, 1] < n // 2)
    return jaxtv.Graph(edges[same_part & (edges[:, 0] != edges[:, 1])][:m], n)


def eight_neighbours(side):
    index = np.arange(side * side).reshape(side, side)
    pairs = [
        (index[:, :-1], index[:, 1:]),
        (index[:-1], index[1:]),
        (index[:-1, :-1], index[1:, 1:]),
        (index[:-1, 1:], index[1:, :-1]),
    ]
    return np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in pairs])


GRAPH = random_graph()


def data(graph=GRAPH, rows=4, seed=0):
    """(x, a weight for each edge of each row): some are 0; those of the last row are ∞ or 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, graph.num_nodes))
    lam = rng.uniform(0.05, 0.6, (rows, len(graph.edges)))
    lam[rng.random(lam.shape) < 0.15] = 0
    lam[-1] = np.where(lam[-1] > 0.3, np.inf, 0)
    return x, lam


@pytest.mark.parametrize(
    "edges", [GRAPH.edges, eight_neighbours(12), [(0, i) for i in range(1, 8)]]
)
def test_forests_are_paths_that_cover_every_edge_once(edges):
    edges = np.asarray(edges)
    graph = jaxtv.Graph(edges, edges.max() + 1)
    forests = graph._forests
    degree = np.bincount(edges.ravel()).max()
    assert degree / 2 <= graph.num_forests <= degree
    rows = [forests.rows(slice(0, 1)), forests.rows(slice(1, None))]
    assert [len(forests.nodes[r]) for r in rows] == [
        forests.split,
        len(forests.nodes) - forests.split,
    ]
    for items in forests.items:  # every node once in each forest
        np.testing.assert_array_equal(forests.nodes.ravel()[items], np.arange(graph.num_nodes))
    row, at = np.nonzero(forests.edges >= 0)
    neighbours = np.stack([forests.nodes[row, at], forests.nodes[row, at + 1]], 1)
    links = forests.edges[row, at]
    np.testing.assert_array_equal(np.sort(neighbours), np.sort(edges[links]))
    np.testing.assert_array_equal(forests.edges.ravel()[forests.links], np.arange(len(edges)))
    assert (forests.edges >= 0).sum() == len(edges)


def test_pictures_with_eight_neighbours_need_four_forests():
    assert jaxtv.Graph(eight_neighbours(20), 400).num_forests == 4


def test_values_are_those_of_cuts():
    x, lam = data()
    y, info = jaxtv.prox_graph_tv(x, lam, GRAPH, solver=TIGHT, return_info=True)
    exact = [oracles.prox_graph_tv(v, w, GRAPH.edges) for v, w in zip(x, lam)]
    np.testing.assert_allclose(y, exact, atol=1e-12)  # the components are the same
    assert info.converged.all()
    assert info.gap.shape == (4,)
    np.testing.assert_allclose(y[:, 0], x[:, 0], rtol=1e-15)  # no edge leads there


def test_picture_equals_the_converged_prox_over_its_axes():
    """Also a loose tolerance, λ for each of a batch, and another axis."""
    side, lam = 6, jnp.array([0.2, 0.4])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(side * side, 2)))
    graph = jaxtv.Graph(eight_neighbours(side)[: 2 * side * (side - 1)], side * side)
    solver = jaxtv.AcceleratedDykstra(tol=1e-4)
    y, info = jaxtv.prox_graph_tv(x, lam, graph, axis=0, solver=solver, return_info=True)
    images = x.reshape(side, side, 2)
    exact = jaxtv.prox_tv(images, lam, axes=(0, 1), solver=TIGHT).reshape(x.shape)
    distance = jnp.linalg.norm(y - exact, axis=0)
    assert info.converged.all()
    assert (distance <= jnp.sqrt(2 * info.gap)).all()


def test_derivatives():
    """Gradient (reverse mode) and its derivative (forward over reverse) in x and λ."""
    x, lam = (jnp.asarray(v[:2]) for v in data(seed=1))
    lam = lam + 0.02  # no weight of 0, where the derivative is one-sided
    rng = np.random.default_rng(1)
    tangents = tuple(jnp.asarray(rng.normal(size=v.shape)) for v in (x, lam))
    solve = lambda x, lam: jaxtv.prox_graph_tv(x, lam, GRAPH, solver=TIGHT)
    loss = lambda *args: jnp.sum(solve(*args) ** 2) / 2
    gradient, change = jax.jit(
        lambda primals, tangents: jax.jvp(jax.grad(loss, argnums=(0, 1)), primals, tangents)
    )((x, lam), tangents)
    step = 1e-6
    ahead, behind = (solve(x + s * tangents[0], lam + s * tangents[1]) for s in (step, -step))
    y, ty = solve(x, lam), (ahead - behind) / (2 * step)
    inner = lambda a, b: sum(jnp.vdot(p, q) for p, q in zip(a, b))
    np.testing.assert_allclose(inner(gradient, tangents), jnp.vdot(y, ty), rtol=1e-7)
    # The Jacobian J is piecewise constant, so the gradient J^T y changes by J^T J t.
    np.testing.assert_allclose(inner(change, tangents), jnp.vdot(ty, ty), rtol=1e-7)


def test_dtypes_and_what_can_not_be_solved():
    x = np.round(data()[0] * 8) / 8  # exact in every dtype
    exact = np.stack([oracles.prox_graph_tv(v, 0.25, GRAPH.edges) for v in x])
    solve = jax.jit(lambda x, lam: jaxtv.prox_graph_tv(x, lam, GRAPH))
    for dtype, tol in (("float32", 3e-3), ("bfloat16", 3e-2)):
        batch = jnp.asarray(x, dtype)
        y = solve(batch, 0.25)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.astype(float), exact, atol=tol * np.abs(x).max())
        bad = solve(batch.at[1, 3].set(jnp.nan), 0.25)
        assert jnp.isnan(bad[1]).all()
        np.testing.assert_array_equal(bad[np.array([0, 2, 3])], y[np.array([0, 2, 3])])
    assert jnp.isnan(solve(jnp.asarray(x, "float32"), -1.0)).all()


def test_vmap_and_too_few_iterations():
    x, lam = data(rows=3)
    once = jaxtv.AcceleratedDykstra(tol=1e-13, max_iterations=1)
    solve = lambda x, lam: jaxtv.prox_graph_tv(x, lam, GRAPH, solver=once, return_info=True)
    y, info = jax.vmap(solve)(x, lam)
    assert y.shape == x.shape
    assert not info.converged[:2].any()
    np.testing.assert_array_equal(info.iterations, 1)


def test_graphs_without_edges_and_without_batch():
    x = jnp.ones((0, 4))
    graph = jaxtv.Graph([], 4)
    assert jaxtv.prox_graph_tv(x, 1.0, graph).shape == (0, 4)
    y, info = jaxtv.prox_graph_tv(jnp.arange(4.0), 1.0, graph, return_info=True)
    np.testing.assert_array_equal(y, jnp.arange(4.0))
    assert info.converged
    assert graph == jaxtv.Graph(np.zeros((0, 2), int), 4)


def test_one_forest_is_a_row_of_signals():
    graph = jaxtv.Graph([(0, 1), (1, 2), (2, 3)], 4)
    x, lam = data(graph)
    prox = lambda x, lam: jaxtv.prox_graph_tv(x, lam, graph, solver=TIGHT)
    np.testing.assert_allclose(prox(x, lam), jaxtv.prox_tv1d(x, lam), atol=1e-12)
    gx, gw = jax.grad(lambda *a: jnp.sum(jnp.sin(prox(*a))), (0, 1))(x, lam)
    hx, hw = jax.grad(lambda *a: jnp.sum(jnp.sin(jaxtv.prox_tv1d(*a))), (0, 1))(x, lam)
    np.testing.assert_allclose(gx, hx, atol=1e-12)
    np.testing.assert_allclose(gw, hw, atol=1e-12)


def test_a_graph_is_static_under_jit():
    ring = [(0, 1), (1, 2), (2, 0)]
    traces = []
    solve = jax.jit(lambda x, graph: traces.append(graph) or jaxtv.prox_graph_tv(x, 1.0, graph))
    for _ in range(2):
        solve(jnp.arange(3.0), jaxtv.Graph(ring, 3))
    assert len(traces) == 1
    assert jaxtv.Graph(ring, 3) != jaxtv.Graph(ring, 4)


def test_no_collective_when_sharded_over_the_batch():
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jax.device_put(data(rows=8)[0], NamedSharding(mesh, P("batch", None)))
    loss = lambda x: jnp.sum(jaxtv.prox_graph_tv(x, 0.25, GRAPH) ** 2)
    text = jax.jit(jax.value_and_grad(loss)).lower(x).compile().as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text


X = np.zeros((3, 12))
RING = [(0, 1), (1, 2), (2, 0)]
WRONG = {
    "missing node": (lambda: jaxtv.Graph([(0, 1), (1, 3)], 3), ValueError, r"`edges`.*\[1, 3\].*1"),
    "negative node": (lambda: jaxtv.Graph([(0, -1)], 3), ValueError, r"`edges`.*\[0, -1\]"),
    "loop": (lambda: jaxtv.Graph([(0, 1), (2, 2)], 3), ValueError, r"`edges`.*\[2, 2\] in row 1"),
    "triples": (lambda: jaxtv.Graph([(0, 1, 2)], 3), ValueError, r"`edges`.*\(num_edges, 2\)"),
    "fractions": (lambda: jaxtv.Graph([(0.0, 1.0)], 3), TypeError, "`edges` must be integers"),
    "nodes": (lambda: jaxtv.Graph(RING, 0), ValueError, "`num_nodes`"),
    "edges": (lambda: jaxtv.prox_graph_tv(X, 1.0, RING), TypeError, "`graph`"),
    "other graph": (
        lambda: jaxtv.prox_graph_tv(X, 1.0, jaxtv.Graph(RING, 3)),
        ValueError,
        "`x` must have 3 samples along axis 1",
    ),
    "negative": (lambda: jaxtv.prox_graph_tv(X, -1.0, GRAPH), ValueError, "`lam` must be >= 0"),
    "misfit": (
        lambda: jaxtv.prox_graph_tv(X, np.ones(7), GRAPH),
        ValueError,
        r"`lam` of shape \(7,\).*or 24",
    ),
    "axis": (lambda: jaxtv.prox_graph_tv(X, 1.0, GRAPH, axis=2), ValueError, "`axis` 2"),
    "solver": (
        lambda: jaxtv.prox_graph_tv(X, 1.0, GRAPH, solver=jaxtv.Dykstra()),
        TypeError,
        "`solver` must be AcceleratedDykstra",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()
