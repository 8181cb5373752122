"""Converged N-D prox and its derivative in plain JAX, over 1D passes that the caller hands in.

**Solver.** With one dual p_a per axis the prox is y = x - sum_a p_a at the minimum of
|x - sum_a p_a|^2 / 2. The first axis is eliminated (its pass gives p_0 for all others exactly) and
accelerated gradient descent (FISTA; Beck & Teboulle 2009) with step 1/(d-1) runs on the other
d - 1, with gradient restart (O'Donoghue & Candes 2015). For two axes that is accelerated Dykstra
(Chambolle & Pock 2015). One iteration solves every axis once.

**Polish.** A pass knows exactly which of its edges are joined, and the dual of every other edge is
exactly +-w. So on a component C of the graph of all edges that some pass has joined, the mean of
the iterate is mean_C(x) + sum_{edges leaving C} (+-w) / |C|, whatever the duals inside C still are:
if C is a component of the solution, that is the solution, to round-off. A polished y is constant
on its components, so that equality finds them again, and nothing else needs to be kept for the
derivative. It is taken if its duality gap says so.

**Derivative.** As Eq. 8 of the paper in 1D, with connected components in place of segments:
dy = P(dx - sum_a D_a^T(s_a dw_a)), P the mean over components, s the sign of each jump.

Arrays keep the layout of x; `axes` are in sweep order. Sums over a component run in the fixed
order of a sort by label: no atomics, the same bits every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxtv._fallback import _CUT, _JOINED, _codes, _load, _sanitise, _segment_mean, _store

# ---------------------------------------------------------------------- connected components


def _flat(v: Array, axes: Sequence[int]) -> Array:
    """(batch..., N): the axes of one element, in increasing order, moved to the end and joined."""
    last = tuple(range(v.ndim - len(axes), v.ndim))
    v = jnp.moveaxis(v, sorted(axes), last)
    return v.reshape(*v.shape[: last[0]], math.prod(v.shape[last[0] :]))


def _unflat(v: Array, like: Array, axes: Sequence[int]) -> Array:
    core = sorted(axes)
    last = tuple(range(like.ndim - len(axes), like.ndim))
    v = v.reshape(*v.shape[:-1], *(like.shape[a] for a in core))
    return jnp.moveaxis(v, last, core)


def _labels(joined: Sequence[Array], like: Array, axes: Sequence[int]) -> Array:
    """(batch..., N) int32: the first sample, in flat order, of the component of each sample.

    `joined` (size n - 1 along its axis) has the edges of each axis. A round hooks every tree to
    the smallest label next to it and then halves the depth of the trees; minima commute, so the
    result does not depend on the order of the scatter.
    """

    def lowest_neighbour(label):
        label = _unflat(label, like, axes)
        lowest = label
        for edge, axis in zip(joined, axes, strict=True):
            n = like.shape[axis]
            left = jax.lax.slice_in_dim(label, 0, n - 1, axis=axis)
            right = jax.lax.slice_in_dim(label, 1, n, axis=axis)
            least = jnp.where(edge, jnp.minimum(left, right), jnp.int32(2**31 - 1))
            for at in (0, 1):
                pad = [(0, 0)] * like.ndim
                pad[axis] = (at, 1 - at)
                lowest = jnp.minimum(lowest, jnp.pad(least, pad, constant_values=2**31 - 1))
        return _flat(lowest, axes)

    def hook(label, lowest):
        return label.at[label].min(lowest)

    for _ in range(like.ndim - len(axes)):
        hook = jax.vmap(hook)

    def one_round(state):
        label, _ = state
        new = hook(label, lowest_neighbour(label))
        for _ in range(2):
            new = jnp.take_along_axis(new, new, axis=-1)
        return new, jnp.any(new != label)

    flat = _flat(like, axes)
    own = jax.lax.broadcasted_iota(jnp.int32, flat.shape, flat.ndim - 1)
    own = own + jnp.zeros_like(flat, jnp.int32)  # inherits sharding and manual axes
    state = one_round((own, None))
    return jax.lax.while_loop(lambda s: s[1], one_round, state)[0]


def component_means(v: Array, joined: Sequence[Array], axes: Sequence[int]) -> Array:
    """P v: the mean of v over the connected component of each sample."""
    labels = _labels(joined, v, axes)
    order = jnp.argsort(labels, axis=-1, stable=True)
    by_label = jnp.take_along_axis(labels, order, axis=-1)
    values = jnp.take_along_axis(_flat(v, axes), order, axis=-1)
    means = _segment_mean(values, by_label[..., 1:] == by_label[..., :-1])
    back = jnp.argsort(order, axis=-1)
    return _unflat(jnp.take_along_axis(means, back, axis=-1), v, axes)


def _packed(codes: Sequence[Array], axes: Sequence[int]) -> Array:
    """Masks as of a single Dykstra sweep: 2 bits per sample and axis."""
    first = min(axes)
    planes = -(-len(axes) // 4)
    masks = jnp.repeat(jnp.zeros_like(jnp.expand_dims(codes[0], first)), planes, axis=first)
    for i, code in enumerate(codes):
        masks = _store(masks, jnp.int32(i), code, first)
    return masks


def edge_codes(y: Array, ws: Sequence[Array], axes: Sequence[int]) -> Array:
    """Masks of the solution y."""
    return _packed([_codes(y, w, axis) for w, axis in zip(ws, axes, strict=True)], axes)


def joined_codes(joined: Sequence[Array], axes: Sequence[int]) -> Array:
    """Masks of joined edges (size n - 1 along their axis), all others cut."""
    codes = []
    for edges, axis in zip(joined, axes, strict=True):
        pad = [(0, int(a == axis)) for a in range(edges.ndim)]
        code = jnp.where(edges, jnp.uint8(_JOINED), jnp.uint8(_CUT))
        codes.append(jnp.pad(code, pad, constant_values=_CUT))
    return _packed(codes, axes)


def _edges(masks: Array, axes: Sequence[int], dtype) -> tuple[list[Array], list[Array]]:
    """(joined, sign) of every axis, of size n - 1 along it."""
    loaded = [_load(masks, jnp.int32(i), a, min(axes), dtype) for i, a in enumerate(axes)]
    loaded = [[jnp.moveaxis(v, -1, a) for v in pair] for pair, a in zip(loaded, axes)]
    return [joined for joined, _ in loaded], [sign for _, sign in loaded]


def components_jvp(masks: Array, tx: Array, *tws: Array, axes: tuple[int, ...]) -> Array:
    """`jaxtv_components_jvp`: P(tx - sum_a D_a^T(s_a tw_a)) from the masks of the solution."""
    joined, signs = _edges(masks, axes, tx.dtype)
    for sign, tw, axis in zip(signs, tws, axes, strict=True):
        pad = [(0, 0)] * tx.ndim
        pad[axis] = (1, 1)
        tx = tx + jnp.diff(jnp.pad(sign * tw, pad), axis=axis)
    return component_means(tx, joined, axes)


def components_vjp(
    masks: Array, g: Array, *, axes: tuple[int, ...], edge: tuple[bool, ...]
) -> tuple[Array, ...]:
    """`jaxtv_components_vjp`: (P g, -s_a D_a P g, ...), the transpose of `components_jvp`."""
    joined, signs = _edges(masks, axes, g.dtype)
    gx = component_means(g, joined, axes)
    gws = []
    for sign, axis, per_edge in zip(signs, axes, edge, strict=True):
        gw = -sign * jnp.diff(gx, axis=axis)
        gws.append(gw if per_edge else jnp.sum(gw, axis, keepdims=True))
    return gx, *gws


# --------------------------------------------------------------------------------- solver


class _State(NamedTuple):
    """One entry per element, of size 1 along its axes, but for the arrays shaped as x."""

    point: tuple[Array, ...]  # where the gradient is taken: a dual of each axis but the first
    dual: tuple[Array, ...]
    t: Array  # FISTA's step counter
    y: Array
    gap: Array
    iterations: Array
    converged: Array
    active: Array


def _choose(mask: Array, new, old):
    return jax.tree.map(lambda a, b: jnp.where(mask, a, b), new, old)


def solve(
    x: Array,
    *operands: Array,
    prox1d: Callable[[Array, Array, int], Array],
    means: Callable[[Array, Sequence[Array]], Array],
    axes: tuple[int, ...],
    tol: float,
    max_iterations: int,
) -> tuple[Array, ...]:
    """`jaxtv_converged`: (y, gap, iterations, converged, *duals).

    `operands` are the starting duals of all axes but the first (any values: they are projected),
    then one weight array per axis; `means` is P, given the joined edges. An element is done when
    its polished y has a gap of at most `tol` times the optimal value and the plain iterate, up to
    round-off, has too. A finished element is frozen. Where that is not reached, y is the better of
    the two, and `converged` False.
    """
    d = len(axes)
    total = lambda v: jnp.sum(v, axes, keepdims=True)
    original, weights = x, operands[d - 1 :]
    x, ws, bad, scale = _sanitise(x, weights, axes)
    # To about one, by a power of two: neither the squares of the gap nor its tolerance underflow.
    exponent = jnp.frexp(jnp.max(jnp.abs(x), axes, keepdims=True))[1]
    x, *ws = (jnp.ldexp(v, -exponent) for v in (x, *ws))
    duals = (jnp.where(jnp.isfinite(v) & ~bad, v, 0) for v in operands[: d - 1])
    start = tuple(jnp.ldexp(v / scale, -exponent) for v in duals)
    back_in_size = lambda v: jnp.ldexp(v * scale, exponent)  # their product may overflow
    mean = jnp.mean(x, axes, keepdims=True)
    x = x - mean
    # No dual exceeds the sum of |x - mean|: with weights cut down to it, λ = inf has a finite gap.
    spread = total(jnp.abs(x))
    ws = [jnp.minimum(w, spread) for w in ws]
    # Nor does a state, the difference of two duals, exceed twice that: a start may be anything.
    start = tuple(jnp.clip(v, -2 * spread, 2 * spread) for v in start)
    edges = sum(total(w) * (x.shape[a] - 1 if w.shape[a] == 1 else 1) for w, a in zip(ws, axes))
    # Measured: rounding leaves jumps inside segments that add up to at most half of this.
    roundoff = jnp.finfo(x.dtype).eps * spread / math.prod(x.shape[a] for a in axes) * edges

    def excess(y, passes):
        """Sum over the axes of TV(y) - <p, y>, by terms that vanish where y is the pass's own z."""
        out = jnp.zeros_like(total(y))
        for (z, p), w, axis in zip(passes, ws, axes):
            jump = jnp.abs(jnp.diff(y, axis=axis)) - jnp.abs(jnp.diff(z, axis=axis))
            out = out + total(w * jump) - total(p * (y - z))
        return out

    def polish(y, passes):
        joined = [
            (jnp.diff(z, axis=axis) == 0) & (w > 0) for (z, _), w, axis in zip(passes, ws, axes)
        ]
        smooth = means(y, joined)
        return smooth, jnp.maximum(excess(smooth, passes) + total((smooth - y) ** 2) / 2, 0)

    def iterate(state):
        rest = x
        for v in state.point:
            rest = rest - v
        z = prox1d(rest, ws[0], axes[0])
        passes = [(z, rest - z)]
        for v, w, axis in zip(state.point, ws[1:], axes[1:]):
            a = v + passes[0][0] / (d - 1)
            z = prox1d(a, w, axis)
            passes.append((z, a - z))
        dual = tuple(p for _, p in passes[1:])
        y = x
        for _, p in passes:
            y = y - p

        gap = jnp.maximum(excess(y, passes), 0)
        tv = sum(total(w * jnp.abs(jnp.diff(y, axis=a))) for w, a in zip(ws, axes))
        optimum = tv + total((x - y) ** 2) / 2 - gap  # the dual's value: a lower bound
        iterations = state.iterations + 1
        enough = gap <= tol * optimum + roundoff
        ask = state.active & (enough | (iterations == max_iterations))
        smooth, smooth_gap = jax.lax.cond(
            jnp.any(ask), lambda: polish(y, passes), lambda: (y, jnp.full_like(gap, jnp.inf))
        )
        done = ask & enough & (smooth_gap <= tol * optimum)
        take = ask & (done | (smooth_gap <= gap))
        y, gap = _choose(take, (smooth, smooth_gap), (y, gap))

        back = sum(total((v - p) * (p - q)) for v, p, q in zip(state.point, dual, state.dual))
        t = (1 + jnp.sqrt(1 + 4 * state.t**2)) / 2
        restart = back > 0
        beta = jnp.where(restart, 0, (state.t - 1) / t)
        point = tuple(p + beta * (p - q) for p, q in zip(dual, state.dual))
        new = _State(
            point,
            dual,
            jnp.where(restart, 1, t),
            y,
            gap,
            iterations,
            done,
            ~done & (iterations < max_iterations),
        )
        return _choose(state.active, new, state)

    one = jnp.ones_like(mean)
    none = jnp.zeros_like(mean, jnp.int32)
    state = _State(start, start, one, x, 0 * one, none, none > 0, none == 0)
    state = jax.lax.while_loop(lambda s: jnp.any(s.active), iterate, state)
    largest = jnp.finfo(x.dtype).max  # which round-off may exceed
    y = jnp.clip(back_in_size(state.y + mean), -largest, largest)
    idle = True  # no weight anywhere in the element: y is x, bit for bit
    for w in weights:
        idle = idle & jnp.all(w == 0, axes, keepdims=True)
    y = jnp.where(bad, jnp.nan, jnp.where(idle, original, y))
    gap = jnp.where(bad, jnp.nan, back_in_size(back_in_size(state.gap)))
    return (
        y,
        gap,
        jnp.where(bad, 0, state.iterations),
        state.converged & ~bad,
        *(back_in_size(v) for v in state.dual),
    )
