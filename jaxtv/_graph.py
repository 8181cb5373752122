"""The prox of total variation over the edges of a graph.

The edges are split once, on the host, into L linear forests: sets of paths without a common node.
A forest lists all nodes, path after path. With weight 0 between the paths, its prox is one
`prox_tv1d` of the listed samples. The loop and its polish are those of the converged prox, which
`_converged.py` explains, with a forest in place of an axis. P, in polish and derivative, is the
mean over the connected components of the solution.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxtv import (
    _accelerated,
    _arguments,
    _converged,
    _edge_codes,
    _outliers,
    _overflow,
    _primitive,
)
from jaxtv._dtypes import compute_dtype
from jaxtv._elements import floats
from jaxtv._fallback import all_zero, sanitise
from jaxtv._prox import Info, empty_info
from jaxtv._solvers import AcceleratedDykstra

# ---------------------------------------------------------------------- graph


_ALL, _FIRST, _OTHERS = slice(None), slice(0, 1), slice(1, None)  # of the forests


class _Forests(NamedTuple):
    """L linear forests, each in rows that list its paths and all nodes without an edge.

    Item i of a row is joined to item i + 1 by the edge `edges[row, i]`, or not at all (-1). Rows
    end with items of padding, which are node 0 and joined to nothing, so that their dual is 0. The
    first `split` rows are those of the first forest. Each method takes and returns arrays whose
    last two axes are (rows, items), (rows, links) or (1, nodes), (1, edges).
    """

    nodes: np.ndarray  # (rows, items) of each item
    edges: np.ndarray  # (rows, items - 1)
    items: np.ndarray  # (L, N) of each node, among all rows
    links: np.ndarray  # (E,) of each edge, among all rows
    split: int

    def rows(self, forests: slice) -> slice:
        bound = {None: None, 0: 0, 1: self.split}
        return slice(bound[forests.start], bound[forests.stop])

    def listed(self, y: Array, forests: slice = _ALL) -> Array:
        """Samples of nodes in the order of the rows."""
        return y[..., 0, self.nodes[self.rows(forests)]]

    def added(self, p: Array, like: Array, forests: slice = _ALL) -> Array:
        """The sum over the forests, for each node, shaped as `like`."""
        if not p.size:  # no forests
            return jnp.zeros_like(like)
        before = (self.rows(forests).start or 0) * self.nodes.shape[1]
        p = _joined(p)
        add = lambda total, items: (total + p[..., None, items], None)
        # One gather over all forests and a sum of its results take six times as long.
        return jax.lax.scan(add, jnp.zeros_like(like), self.items[forests] - before)[0]

    def on_links(self, w: Array) -> Array:
        """Values of edges at their links, 0 where no edge is; one value is for all edges."""
        index = self.edges if w.shape[-1] != 1 else np.zeros_like(self.edges)
        linked = jnp.asarray(self.edges >= 0).reshape((1,) * (w.ndim - 2) + self.edges.shape)
        return jnp.where(linked, w[..., 0, index], 0)

    def of_edges(self, links: Array) -> Array:
        """The value of each edge's link."""
        return _joined(links)[..., self.links][..., None, :]


def _joined(v: Array) -> Array:
    return v.reshape(*v.shape[:-2], v.shape[-2] * v.shape[-1])


@jax.tree_util.register_static
class Graph:
    """An undirected graph for `prox_graph_tv`; hashable, and static under `jit`.

    Its edges are split into linear forests on the host, here and once: make a graph outside of
    loops. This takes one to two seconds for 200,000 edges.

    Args:
        edges: integers (num_edges, 2), the two nodes of each edge, in any order. Two nodes may
            share several edges.
        num_nodes: how many nodes there are: 0 to num_nodes - 1.

    Attributes:
        edges: int32 NumPy array, as given.
        num_nodes: as given.
        num_forests: L. An iteration of a solve takes L calls of `prox_tv1d`. L is at least half
            the largest number of edges at a node, so hubs are slow.

    Raises:
        TypeError: `edges` is not an array of integers, or `num_nodes` no integer.
        ValueError: `edges` has another shape, an edge names a node that does not exist or joins a
            node to itself, or `num_nodes` < 1.

    Examples:
        >>> import jaxtv
        >>> ring = jaxtv.Graph([(0, 1), (1, 2), (2, 3), (3, 0)], 4)
        >>> ring
        Graph(4 edges, 4 nodes, 2 forests)
    """

    def __init__(self, edges: ArrayLike, num_nodes: int):
        self.num_nodes = _arguments.count(num_nodes, "num_nodes")
        self.edges = _arguments.edges(edges, self.num_nodes)
        self.edges.flags.writeable = False
        self._forests = _linear_forests(self.edges, self.num_nodes)
        self._key = (self.num_nodes, self.edges.tobytes())
        self._hash = hash(self._key)

    @property
    def num_forests(self) -> int:
        return len(self._forests.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Graph({len(self.edges)} edges, {self.num_nodes} nodes, {self.num_forests} forests)"


_ITEMS = 256  # of a row, at least: SIMD lanes solve rows side by side

Path = list[tuple[int, int]]  # each node, and the edge to the next one, or -1


def _linear_forests(edges: np.ndarray, num_nodes: int) -> _Forests:
    """Of paths of any length, or of short ones, which are faster, if these need no more forests."""
    short = max(_ITEMS, 4 * math.isqrt(num_nodes))
    forests = _split(edges.tolist(), num_nodes, num_nodes)
    if len(forests) > 1 and num_nodes > short:
        others = _split(edges.tolist(), num_nodes, short)
        forests = others if len(others) == len(forests) else forests
    return _in_rows(forests, len(edges), num_nodes)


def _split(ends: list[list[int]], num_nodes: int, longest: int) -> list[list[Path]]:
    """Each forest takes every remaining edge, in order, that leaves it a set of such paths."""
    forests, remaining = [], list(range(len(ends)))
    while remaining:
        taken, remaining = _linear_forest(remaining, ends, num_nodes, longest)
        forests.append(_paths(taken, ends, num_nodes))
    return forests


def _in_rows(forests: list[list[Path]], num_edges: int, num_nodes: int) -> _Forests:
    longest = max((len(path) for paths in forests for path in paths), default=1)
    width = max(longest, min(num_nodes, _ITEMS))
    packed = [_packed(paths, width) for paths in forests]
    rows = np.array([row for forest in packed for row in forest], np.int32).reshape(-1, width, 2)
    nodes, after = rows[..., 0], rows[:, :-1, 1]

    items = np.empty((len(forests), num_nodes), np.int32)
    end = 0
    for own, forest in zip(items, packed):
        begin, end = end, end + len(forest) * width
        real = begin + np.flatnonzero(nodes.ravel()[begin:end] >= 0)
        own[nodes.ravel()[real]] = real
    linked = np.flatnonzero(after.ravel() >= 0)
    links = np.empty(num_edges, np.int32)
    links[after.ravel()[linked]] = linked
    return _Forests(np.maximum(nodes, 0), after, items, links, len(packed[0]) if packed else 0)


def _linear_forest(
    candidates: list[int], ends: list[list[int]], num_nodes: int, longest: int
) -> tuple[list[int], list[int]]:
    """(edges taken, edges left). Each path end knows the far end of its path, and its length."""
    degree, other_end, length = [0] * num_nodes, list(range(num_nodes)), [1] * num_nodes
    taken, left = [], []
    for edge in candidates:
        u, v = ends[edge]
        full = degree[u] == 2 or degree[v] == 2
        if full or other_end[u] == v or length[u] + length[v] > longest:  # v closes a cycle
            left.append(edge)
            continue
        taken.append(edge)
        degree[u] += 1
        degree[v] += 1
        first, last = other_end[u], other_end[v]
        other_end[first], other_end[last] = last, first
        length[first] = length[last] = length[u] + length[v]
    return taken, left


def _paths(taken: list[int], ends: list[list[int]], num_nodes: int) -> list[Path]:
    at: list[list[int]] = [[] for _ in range(num_nodes)]
    for edge in taken:
        for node in ends[edge]:
            at[node].append(edge)
    paths, seen = [], [False] * num_nodes
    for node in range(num_nodes):
        if seen[node] or len(at[node]) == 2:  # a path begins at one of its ends
            continue
        path, edge = [], -1
        while True:
            seen[node] = True
            edge = next((e for e in at[node] if e != edge), -1)
            path.append((node, edge))
            if edge == -1:
                break
            node = sum(ends[edge]) - node
        paths.append(path)
    return paths


def _packed(paths: list[Path], width: int) -> list[Path]:
    """Rows of `width`: the longest path that is left, then the shortest ones, then padding."""
    paths = sorted(paths, key=len, reverse=True)
    rows, begin, end = [], 0, len(paths)
    while begin < end:
        row = paths[begin]
        begin += 1
        while begin < end and len(row) + len(paths[end - 1]) <= width:
            end -= 1
            row = row + paths[end]
        rows.append(row + [(-1, -1)] * (width - len(row)))
    return rows


# ---------------------------------------------------------------------- connected components


def _labels(inside: Array, edges: np.ndarray, num_nodes: int) -> Array:
    """(..., num_nodes) int32: the least node of the component of each node.

    `inside` (..., num_edges) tells the edges that join. One step hooks every tree to the smallest
    label next to it and halves its depth; minima commute, so the order of a scatter is no matter.
    """
    ends = jnp.asarray(edges)

    def hook(label, root, least):
        return label.at[root].min(least)

    for _ in inside.shape[:-1]:
        hook = jax.vmap(hook)

    def step(state):
        label, _ = state
        u, v = label[..., ends[:, 0]], label[..., ends[:, 1]]
        least = jnp.where(inside, jnp.minimum(u, v), num_nodes)
        new = hook(hook(label, u, least), v, least)
        for _ in range(2):
            new = jnp.take_along_axis(new, new, axis=-1)
        return new, jnp.any(new != label)

    first = jnp.arange(num_nodes, dtype=jnp.int32).reshape((1,) * (inside.ndim - 1) + (-1,))
    first = first + jnp.zeros_like(inside[..., :1], jnp.int32)
    return jax.lax.while_loop(lambda s: s[1], step, step((first, None)))[0]


def _component_means(v: Array, inside: Array, graph: Graph) -> Array:
    """P v: the mean of v over the connected component of each node."""
    labels = _labels(inside, graph.edges, graph.num_nodes)
    project = lambda v: _converged.means_of_labels(v, labels)
    # P is its own pseudo-inverse, and its own transpose.
    apply = lambda matvec, b: matvec(b)
    return jax.lax.custom_linear_solve(project, v, apply, symmetric=True)


# ---------------------------------------------------------------------- solver


class _Problem(NamedTuple):
    """Centred samples of a size about one. Passes are (z, p) of all forests: (..., rows, items)."""

    x: Array  # (..., 1, nodes)
    w: Array  # (..., rows, links)
    graph: Graph
    roundoff: Array
    solver: AcceleratedDykstra

    @property
    def tol(self) -> float:
        return self.solver.tol

    @property
    def max_iterations(self) -> int:
        return self.solver.max_iterations

    @property
    def forests(self) -> _Forests:
        return self.graph._forests

    def passes(self, point: Array) -> tuple[Array, Array]:
        """Solve the first forest for x minus the other duals, the others for a gradient step."""
        forests = self.forests
        rest = forests.listed(self.x - forests.added(point, self.x, _OTHERS), _FIRST)
        z = self._prox(rest, _FIRST)
        share = forests.added(z, self.x, _FIRST) / max(len(forests.items) - 1, 1)
        stepped = point + forests.listed(share, _OTHERS)
        z = jnp.concatenate([z, self._prox(stepped, _OTHERS)], axis=-2)
        return z, jnp.concatenate([rest, stepped], axis=-2) - z

    def _prox(self, v: Array, forests: slice) -> Array:
        w = self.w[..., self.forests.rows(forests), :]
        return _primitive.prox1d(v, w, axis=v.ndim - 1, solver=self.solver.inner) if v.size else v

    def total(self, v: Array) -> Array:
        return jnp.sum(v, axis=(-2, -1), keepdims=True)

    def duals(self, passes: tuple[Array, Array]) -> Array:
        return passes[1][..., self.forests.rows(_OTHERS), :]

    def primal(self, passes: tuple[Array, Array]) -> Array:
        return self.x - self.forests.added(passes[1], self.x)

    def excess(self, y: Array, passes: tuple[Array, Array]) -> Array:
        (z, p), y = passes, self.forests.listed(y)
        jump = jnp.abs(jnp.diff(y)) - jnp.abs(jnp.diff(z))
        return self.total(self.w * jump) - self.total(p * (y - z))

    def better(self, y: Array, passes: tuple[Array, Array]) -> Array:
        """The means of y over the components that the passes tell."""
        z, _ = passes
        inside = self.forests.of_edges((jnp.diff(z) == 0) & (self.w > 0))
        return _component_means(y, inside, self.graph)

    def edge_codes(self, passes: tuple[Array, Array]) -> Array:
        """Of all links."""
        z, _ = passes
        return _edge_codes.encode(z, self.w, z.ndim - 1)[..., :-1]


def _crossing_weights(x: Array, lam: Array, graph: Graph, least: Array) -> Array:
    """The sum of weights at each node, of edges whose half jump is at least `least`."""
    u, v = (x[..., graph.edges[:, i]] / 2 for i in (0, 1))
    links = graph._forests.on_links(jnp.where(jnp.abs(v - u) >= least, lam, 0))
    after, before = (jnp.pad(links, [(0, 0)] * (x.ndim - 1) + [at]) for at in ((0, 1), (1, 0)))
    return graph._forests.added(after + before, x)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _prox_graph_tv(
    x: Array, lam: Array, graph: Graph, solver: AcceleratedDykstra
) -> tuple[Array, Info, Array]:
    """(y, Info, edge codes), all floats, of x (..., 1, nodes) and λ (..., 1, edges or 1).

    As `_converged.solve`: an element that can not be solved is NaN, a finished one is frozen.
    """
    axes = (x.ndim - 2, x.ndim - 1)
    original, forests = x, graph._forests
    crossing = partial(_crossing_weights, x, lam, graph)
    near, shift = _outliers.brought_near(x, (lam,), axes, crossing)
    x, (w,), bad, scale = sanitise(near, (lam,), axes)
    exponent = jnp.frexp(jnp.max(jnp.abs(x), axes, keepdims=True))[1]
    x, w = (jnp.ldexp(v, -exponent) for v in (x, w))
    mean = jnp.mean(x, axes, keepdims=True)
    x = x - mean
    # No dual exceeds the sum of |x - mean| over its component, which is at most twice this.
    bound = 2 * jnp.sum(jnp.abs(x), axes, keepdims=True)
    w = forests.on_links(jnp.minimum(w, jnp.where(bound > 0, bound, 1)))
    edges = jnp.sum(w, axes, keepdims=True)
    roundoff = jnp.finfo(x.dtype).eps * bound / graph.num_nodes * edges
    problem = _Problem(x, w, graph, roundoff, solver)

    codes_of = lambda y: problem.edge_codes((forests.listed(y), y))
    start = jnp.zeros_like(forests.listed(x, _OTHERS))
    state = _accelerated.minimise(problem, start, codes_of(x))

    unscaled = lambda v: jnp.ldexp(v * scale, exponent)
    zero = all_zero((lam,), axes)
    y = unscaled(state.y + mean)
    y = _overflow.within_range(jnp.where(shift == 0, y, y + shift))
    y = jnp.where(bad, jnp.nan, jnp.where(zero, original, y))
    info = Info(
        jnp.where(bad, jnp.nan, unscaled(unscaled(state.gap))),
        jnp.where(bad, 0, state.iterations),
        state.converged & ~bad,
    )
    codes = forests.of_edges(jnp.where(zero, codes_of(original), state.codes))
    return floats((y, info, codes), y.dtype)


@_prox_graph_tv.defjvp
def _prox_graph_tv_jvp(graph, solver, primals, tangents):
    """Dy = P(dx - D^T(s dλ)), P the mean over components, s the sign of each jump."""
    x, lam = primals
    tx, tlam = tangents
    out = _prox_graph_tv(x, lam, graph, solver)
    codes = out[2]
    forests = graph._forests
    up, down = (codes == code for code in (_edge_codes.JUMP_UP, _edge_codes.JUMP_DOWN))
    sign = forests.on_links(up.astype(x.dtype) - down.astype(x.dtype))
    change = sign * forests.on_links(tlam)
    change = jnp.diff(jnp.pad(change, [(0, 0)] * (change.ndim - 1) + [(1, 1)]))
    ty = _component_means(tx + forests.added(change, tx), codes == _edge_codes.INSIDE, graph)
    return out, (ty, *jax.tree.map(jnp.zeros_like, out[1:]))


@partial(jax.jit, static_argnums=(2, 3))
def _solve(x: Array, lam: Array, graph: Graph, solver: AcceleratedDykstra) -> tuple[Array, Info]:
    y, info, _ = _prox_graph_tv(x, lam, graph, solver)
    return y, Info(info.gap, info.iterations.astype(jnp.int32), info.converged > 0)


# ---------------------------------------------------------------------- the public function


@overload
def prox_graph_tv(
    x: ArrayLike,
    lam: ArrayLike,
    graph: Graph,
    *,
    axis: int = -1,
    solver: AcceleratedDykstra = ...,
    return_info: Literal[False] = False,
) -> Array: ...
@overload
def prox_graph_tv(
    x: ArrayLike,
    lam: ArrayLike,
    graph: Graph,
    *,
    axis: int = -1,
    solver: AcceleratedDykstra = ...,
    return_info: Literal[True],
) -> tuple[Array, Info]: ...
@overload
def prox_graph_tv(
    x: ArrayLike,
    lam: ArrayLike,
    graph: Graph,
    *,
    axis: int = -1,
    solver: AcceleratedDykstra = ...,
    return_info: bool,
) -> Array | tuple[Array, Info]: ...
def prox_graph_tv(
    x: ArrayLike,
    lam: ArrayLike,
    graph: Graph,
    *,
    axis: int = -1,
    solver: AcceleratedDykstra = AcceleratedDykstra(),  # noqa: B008 (frozen)
    return_info: bool = False,
) -> Array | tuple[Array, Info]:
    r"""Prox of total variation over the edges of a graph.

    Computes $\arg\min_y\,\tfrac12\|y-x\|^2 + \sum_{(i,j)} \lambda_{ij} |y_j-y_i|$. The edges are
    split into linear forests, each of which is one `prox_tv1d` (Barbero & Sra 2018; Tansey & Scott
    2015 use trails); accelerated Dykstra goes over them as it does over axes (Chambolle & Pock
    2015), to a duality gap. The derivatives in x and λ are averages over the connected components
    of equal value, in forward and reverse mode, at any order; see `AcceleratedDykstra` for how
    small a `tol` they need.

    Time grows with `graph.num_forests`, and so does the number of iterations: pictures with 8
    neighbours and meshes are fast, hubs with hundreds of edges are slow.

    Args:
        x: array (..., num_nodes, ...) of float32, float64, bfloat16 or float16. Half types are
            computed in float32. A signal with a NaN or an infinity becomes NaN.
        lam: λ ≥ 0 in the units of x. A number, or an array that broadcasts against x with size 1
            (one λ per signal) or num_edges (one per edge, in the order of `graph.edges`) along
            `axis`. Under `jit` a negative or NaN λ makes its signals NaN.
        graph: the `Graph`.
        axis: the axis of the nodes.
        solver: `AcceleratedDykstra(tol=..., max_iterations=..., inner=...)`.
        return_info: also return an `Info`.

    Returns:
        y, shaped and typed as x; with `return_info` the pair (y, Info), one entry per signal.

    Raises:
        TypeError: x or `lam` is not a float array, `graph` not a `Graph`, or `solver` not an
            `AcceleratedDykstra`.
        ValueError: x does not have `graph.num_nodes` samples along `axis`, `axis` is out of range,
            `lam` does not fit, or a concrete λ is negative or NaN.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> ring = jaxtv.Graph([(0, 1), (1, 2), (2, 3), (3, 0)], 4)
        >>> x = jnp.array([0.0, 0.0, 4.0, 4.0])
        >>> jaxtv.prox_graph_tv(x, 1.0, ring)  # a jump on both sides of each pair
        Array([1., 1., 3., 3.], dtype=float32)
        >>> lam = jnp.array([1.0, 0.0, 1.0, 1.0])  # one per edge
        >>> y, info = jaxtv.prox_graph_tv(x, lam, ring, return_info=True)
        >>> y, info.converged
        (Array([0.5, 0.5, 3.5, 3.5], dtype=float32), Array(True, dtype=bool))
    """
    if not isinstance(graph, Graph):
        raise TypeError(f"`graph` must be a jaxtv.Graph, got {graph!r}.")
    if not isinstance(solver, AcceleratedDykstra):
        raise TypeError(f"`solver` must be AcceleratedDykstra(...), got {solver!r}.")
    x = _arguments.float_array(x, "x")
    (axis,) = _arguments.resolve_axes((_arguments.integer(axis, "axis"),), x, "axis")
    if x.shape[axis] != graph.num_nodes:
        raise ValueError(
            f"`x` must have {graph.num_nodes} samples along axis {axis}, one for each node of "
            f"`graph`, got x of shape {x.shape}."
        )
    lam = _arguments.edge_lam(lam, x, axis, len(graph.edges))
    work = x.astype(compute_dtype(x.dtype))
    work, lam = (jnp.moveaxis(v, axis, -1)[..., None, :] for v in (work, lam))
    if work.size == 0 or not len(graph.edges):
        return (x, empty_info(work[..., 0, :], (work.ndim - 2,))) if return_info else x
    y, info = _solve(work, lam, graph, solver)
    y = jnp.moveaxis(y[..., 0, :], -1, axis).astype(x.dtype)
    return (y, Info(*(v[..., 0, 0] for v in info))) if return_info else y
