"""Pure-JAX lowering of every primitive, for platforms without kernels (TPU, Metal, ROCm, ...).

One plain function per primitive, to be given to `mlir.lower_fun`; operands, results and
parameters are those of the primitive. The exact 1D solver is the threshold decomposition
(Hochbaum 2001; Chambolle & Darbon 2009) in its data-parallel form: a round is a handful of scans
along the signal, so that there is no serial loop over samples, no gather and no scatter. All
signals of a batch go through a round together, a signal that has finished is frozen, and its
result therefore does not depend on its neighbours in the batch.

Conventions of this file: the axis of the prox is moved to the end; `n` samples have `n - 1`
edges, edge `e` joins samples `e` and `e + 1`. `head` / `tail` mark the first / last sample of
each region. An edge array padded to `n` entries on its left (right) holds at each sample the
value of the edge before (after) it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

# ---------------------------------------------------------------------------------- scans


def _pad_left(edges: Array, value: float = 0) -> Array:
    return jnp.pad(edges, [(0, 0)] * (edges.ndim - 1) + [(1, 0)], constant_values=value)


def _pad_right(edges: Array, value: float = 0) -> Array:
    return jnp.pad(edges, [(0, 0)] * (edges.ndim - 1) + [(0, 1)], constant_values=value)


def _scan(combine, values: tuple, identity: tuple, *, reverse: bool = False) -> tuple:
    """Inclusive scan along the last axis in log2(n) doubling steps.

    `combine(earlier, later)` joins neighbouring pieces, in scan order. A loop over the shift keeps
    the program small: `jax.lax.associative_scan` makes it ten times as long to compile.
    """
    n, axis = values[0].shape[-1], values[0].ndim - 1

    def shifted(v, fill, by):
        pad = [(0, 0)] * axis + [(0, n) if reverse else (n, 0)]
        padded = jnp.pad(v, pad, constant_values=fill)
        return jax.lax.dynamic_slice_in_dim(padded, by if reverse else n - by, n, axis)

    def step(k, state):
        by = jnp.left_shift(jnp.int32(1), k.astype(jnp.int32))
        moved = tuple(shifted(v, fill, by) for v, fill in zip(state, identity, strict=True))
        return combine(moved, state)

    return jax.lax.fori_loop(0, (n - 1).bit_length(), step, values)


def _fill(values: Sequence[Array], marks: Array, *, reverse: bool = False) -> tuple:
    """Give every sample the values of the nearest marked sample at or before it (after it)."""

    def nearest(far, near):
        *u, _ = far
        *v, marked = near
        return *(jnp.where(marked, q, p) for p, q in zip(u, v, strict=True)), far[-1] | marked

    identity = (*(False if v.dtype == bool else 0 for v in values), False)
    return _scan(nearest, (*values, marks), identity, reverse=reverse)[:-1]


def _region_sums(values: Sequence[Array], head: Array) -> tuple:
    """Running sums that start anew at each head: at a region's tail, the sums over the region."""

    def add(left, right):
        *u, _ = left
        *v, start = right
        return *(jnp.where(start, q, p + q) for p, q in zip(u, v, strict=True)), left[-1] | start

    return _scan(add, (*values, head), (*(0 for _ in values), False))[:-1]


def _then(first, second):
    """Compose two functions m -> min(max(m + a, lo), hi); `first` is applied first."""
    a1, lo1, hi1 = first
    a2, lo2, hi2 = second
    lo = jnp.minimum(jnp.maximum(lo1 + a2, lo2), hi2)
    hi = jnp.minimum(jnp.maximum(hi1 + a2, lo2), hi2)
    return a1 + a2, lo, hi


# ------------------------------------------------------------------------- exact 1D solver


class _Regions(NamedTuple):
    """Solution of a batch of signals (last axis) as regions of constant value."""

    value: Array  # (..., n) value of the region of each sample
    cut: Array  # (..., n - 1) bool, edges between regions
    pull: Array  # (..., n - 1) the dual s_e w_e of each cut edge, 0 on the others


def _region_values(
    x: Array, reference: Array, cut: Array, pull: Array
) -> tuple[Array, Array, Array]:
    """Mean of each region, adjusted by the duals of the two cuts that bound it.

    The sum is over differences to `reference` at the region's head: with the value of an earlier
    round there, this is a step of iterative refinement. Returns at each sample (value, gain,
    left): gain is value - x before the value is rounded, so that its sums do not drift, and left
    the dual on the left of the region.
    """
    head, tail = _pad_left(cut, True), _pad_right(cut, True)
    left, ref = _fill((_pad_left(pull), reference), head)
    total, count = _region_sums((x - ref, jnp.ones_like(x, jnp.int32)), head)
    offset = (total + (_pad_right(pull) - left)) / count.astype(x.dtype)
    (offset,) = _fill((offset,), tail, reverse=True)
    value = jnp.clip(ref + offset, x.min(-1, keepdims=True), x.max(-1, keepdims=True))
    return value, (ref - x) + offset, left


def _labels(gain: Array, left: Array, w: Array, cut: Array, pull: Array) -> Array:
    """Minimise each region's sum_i z_i gain_i + sum_e w_e |z_{e+1} - z_e| over z in {0, 1}^n.

    This is a two-state Viterbi pass. Its messages are kept relative to `left`, the dual on the
    left of their region: next to a large weight their differences survive in float32.
    """
    head, tail = _pad_left(cut, True), _pad_right(cut, True)
    before, after = _pad_left(w), _pad_right(w)
    lo = jnp.where(head, gain, gain + (-before - left))
    hi = jnp.where(head, gain, gain + (before - left))
    _, message, _ = _scan(_then, (gain, lo, hi), (0, -jnp.inf, jnp.inf))
    one = message < jnp.where(tail, _pad_right(pull) - left, -after - left)
    decided = one | tail | (message > after - left)
    return _fill((one,), decided, reverse=True)[0]


def _decompose(x: Array, w: Array) -> _Regions:
    """Split regions at their own adjusted mean until no label changes.

    Every round but the last cuts an edge, so there are at most n + 1. There are at least two: the
    second refines the values of the first.
    """

    def one_round(state):
        value, cut, pull, rounds, active = state
        new_value, gain, left = _region_values(x, value, cut, pull)
        z = _labels(gain, left, w, cut, pull)
        z0, z1 = z[..., :-1], z[..., 1:]
        new = (z0 != z1) & ~cut & active
        new_pull = jnp.where(new, jnp.where(z1, w, -w), pull)
        changed = jnp.any(new, axis=-1, keepdims=True) | (rounds == 0)
        value = jnp.where(active, new_value, value)
        return value, cut | new, new_pull, rounds + active.astype(jnp.int32), changed

    cut = w == 0  # decouples exactly
    rounds = jnp.zeros_like(x[..., :1], jnp.int32)
    state = (x, cut, jnp.zeros_like(w), rounds, rounds == 0)
    value, cut, pull, *_ = jax.lax.while_loop(lambda s: jnp.any(s[-1]), one_round, state)
    return _Regions(value, cut, pull)


def _pool_ties(regions: _Regions) -> _Regions:
    """Fuse neighbours whose values rounding has made equal or put in the wrong order.

    The duals of the cut between them cancel, so the value of the union is the plain mean of the
    values. Afterwards every cut with a positive weight is a jump of its own sign.
    """

    def violated(value, cut, pull):
        jump = value[..., 1:] - value[..., :-1]
        against = jnp.where(pull > 0, jump <= 0, jump >= 0)
        return cut & (pull != 0) & against

    def fuse(state):
        value, cut, pull, bad = state
        cut, pull = cut & ~bad, jnp.where(bad, 0, pull)
        value, *_ = _region_values(value, value, cut, jnp.zeros_like(pull))
        return value, cut, pull, violated(value, cut, pull)

    value, cut, pull = regions
    state = (value, cut, pull, violated(value, cut, pull))
    value, cut, pull, _ = jax.lax.while_loop(lambda s: jnp.any(s[-1]), fuse, state)
    return _Regions(value, cut, pull)


def _solve(x: Array, w: Array) -> tuple[_Regions, Array]:
    """Exact prox of finite signals `x` (last axis); `w` has 1 or n - 1 entries there.

    Returns the regions and the weights per edge, cut down to a bound that no dual can reach
    (|u_e| <= n * range / 2), so that infinite weights are finite from here on.
    """
    n = x.shape[-1]
    bound = n * (x.max(-1, keepdims=True) - x.min(-1, keepdims=True))
    w = jnp.minimum(jnp.broadcast_to(w, (*x.shape[:-1], n - 1)), bound)
    return _pool_ties(_decompose(x, w)), w


# -------------------------------------------------------------------------- 1D primitives


def _sanitise(x: Array, ws: Sequence[Array], core: tuple[int, ...]):
    """Replace what cannot be solved and scale what would overflow, per batch element.

    Returns (x, ws, bad, scale): elements with a non-finite sample or a NaN or negative weight
    are marked in `bad` and zeroed; elements of huge values are divided by the power of two
    `scale` (exact), 1 for all others. `core` are the axes of one element.
    """
    bad = jnp.any(~jnp.isfinite(x), core, keepdims=True)
    for w in ws:
        bad = bad | jnp.any(~(w >= 0), core, keepdims=True)
    x = jnp.where(bad, 0, x)
    half = 2.0 ** (jnp.finfo(x.dtype).maxexp // 2)
    largest = jnp.max(jnp.abs(x), core, keepdims=True, initial=0)
    scale = jnp.where(largest > half, jnp.full_like(largest, half), 1)
    return x / scale, [jnp.where(bad, 0, w) / scale for w in ws], bad, scale


def _free(w: Array, n: int) -> Array:
    """(..., n) bool: samples whose edges all have weight zero, so that y = x there."""
    zero = jnp.broadcast_to(w == 0, (*w.shape[:-1], n - 1))
    return _pad_left(zero, True) & _pad_right(zero, True)


def _gap(x: Array, w: Array, regions: _Regions) -> Array:
    """Duality gap (..., 1) of the regions' values with the dual they define.

    With yhat = x - D^T u the primal point of the dual u, the gap is
    sum_e (w_e - u_e sign(D_e)) |D_e| + 1/2 |y - yhat|^2: terms that are non-negative in floating
    point too, and free of cancellation.
    """
    y, cut, pull = regions
    head = _pad_left(cut, True)
    (left,) = _fill((_pad_left(pull),), head)
    (moved,) = _region_sums((y - x,), head)
    u = jnp.where(cut, pull, jnp.clip((left + moved)[..., :-1], -w, w))
    jump = y[..., 1:] - y[..., :-1]
    residual = (y - x) + (_pad_left(u) - _pad_right(u))
    slack = jnp.sum((w - u * jnp.sign(jump)) * jnp.abs(jump), -1, keepdims=True)
    return slack + jnp.sum(residual * residual, -1, keepdims=True) / 2


def prox1d_info(x: Array, w: Array, *, axis: int, solver) -> tuple[Array, Array, Array, Array]:
    """`jaxtv_prox1d_info`: (y, gap, iterations, converged), the last three of size 1 along axis.

    Every solver object gets the same exact decomposition here, ProjectedNewton included, so
    `iterations` is 1. A signal with a non-finite sample or a NaN or negative weight is NaN, has a
    NaN gap, 0 iterations, and is not converged.
    """
    del solver
    original, weights = jnp.moveaxis(x, axis, -1), jnp.moveaxis(w, axis, -1)
    x, (w,), bad, scale = _sanitise(original, (weights,), (original.ndim - 1,))
    regions, w = _solve(x, w)
    y = jnp.where(_free(weights, x.shape[-1]), original, regions.value * scale)
    y = jnp.where(bad, jnp.nan, y)
    gap = jnp.where(bad, jnp.nan, _gap(x, w, regions) * scale * scale)
    y, gap, solved = (jnp.moveaxis(v, -1, axis) for v in (y, gap, ~bad))
    return y, gap, solved.astype(jnp.int32), solved


def prox1d(x: Array, w: Array, *, axis: int, solver) -> Array:
    """`jaxtv_prox1d`: the exact prox for every solver object (see `prox1d_info`)."""
    return prox1d_info(x, w, axis=axis, solver=solver)[0]


def _segment_mean(v: Array, joined: Array) -> Array:
    """P v: the mean over the segment of each sample; `joined` (..., n - 1) are its inner edges."""
    head, tail = _pad_left(~joined, True), _pad_right(~joined, True)
    total, count = _region_sums((v, jnp.ones_like(v, jnp.int32)), head)
    return _fill((total / count.astype(v.dtype),), tail, reverse=True)[0]


def _segments(y: Array, w: Array) -> tuple[Array, Array]:
    """(joined, sign), both (..., n - 1), of the segments of a solution."""
    left, right = y[..., :-1], y[..., 1:]
    sign = (right > left).astype(y.dtype) - (right < left).astype(y.dtype)
    return (left == right) & (w > 0), sign


def _segment_jvp(joined: Array, sign: Array, tx: Array, tw: Array) -> Array:
    """P(tx - D^T(s tw)), Eq. 8 of the paper, along the last axis."""
    push = sign * tw
    return _segment_mean(tx + (_pad_right(push) - _pad_left(push)), joined)


def _segment_vjp(joined: Array, sign: Array, g: Array, *, edge: bool) -> tuple[Array, Array]:
    """(P g, -s D P g), the transpose of `_segment_jvp`; the second summed unless `edge`."""
    gx = _segment_mean(g, joined)
    gw = -sign * (gx[..., 1:] - gx[..., :-1])
    return gx, gw if edge else jnp.sum(gw, -1, keepdims=True)


def segment_jvp(y: Array, w: Array, tx: Array, tw: Array, *, axis: int) -> Array:
    """`jaxtv_segment_jvp`: the tangent of the prox, from its result `y` alone."""
    y, w, tx, tw = (jnp.moveaxis(v, axis, -1) for v in (y, w, tx, tw))
    joined, sign = _segments(y, w)
    return jnp.moveaxis(_segment_jvp(joined, sign, tx, tw), -1, axis)


def segment_vjp(y: Array, w: Array, g: Array, *, axis: int) -> tuple[Array, Array]:
    """`jaxtv_segment_vjp`: cotangents (gx, gw) of the prox, from its result `y` alone."""
    y, w, g = (jnp.moveaxis(v, axis, -1) for v in (y, w, g))
    joined, sign = _segments(y, w)
    edge = w.shape[-1] == y.shape[-1] - 1
    gx, gw = _segment_vjp(joined, sign, g, edge=edge)
    return jnp.moveaxis(gx, -1, axis), jnp.moveaxis(gw, -1, axis)


# ---------------------------------------------------------------------- Dykstra primitives

_JOINED, _UP, _DOWN, _CUT = range(4)  # code of an edge in the masks: two bits
_PER_PLANE = 4  # passes that share a byte


def _codes(z: Array, w: Array, axis: int) -> Array:
    """uint8 code of the edge after each sample along `axis`, of the solution z of a pass."""
    z, w = jnp.moveaxis(z, axis, -1), jnp.moveaxis(w, axis, -1)
    left, right = z[..., :-1], z[..., 1:]
    flat = jnp.where(w > 0, jnp.uint8(_JOINED), jnp.uint8(_CUT))
    code = jnp.where(right > left, jnp.uint8(_UP), flat)
    code = jnp.where(right < left, jnp.uint8(_DOWN), code)
    return jnp.moveaxis(_pad_right(code, _CUT), -1, axis)


def _shift(p: Array) -> Array:
    return (2 * (p % _PER_PLANE)).astype(jnp.uint8)


def _store(masks: Array, p: Array, code: Array, planes_axis: int) -> Array:
    """Add the codes of pass p to the (zero-initialised) masks."""
    plane, at = p // _PER_PLANE, planes_axis
    old = jax.lax.dynamic_index_in_dim(masks, plane, at, keepdims=False)
    return jax.lax.dynamic_update_index_in_dim(masks, old | (code << _shift(p)), plane, at)


def _load(masks: Array, p: Array, axis: int, planes_axis: int, dtype) -> tuple[Array, Array]:
    """(joined, sign) of pass p along `axis`, which is moved to the end."""
    plane = jax.lax.dynamic_index_in_dim(masks, p // _PER_PLANE, planes_axis, keepdims=False)
    code = jnp.moveaxis((plane >> _shift(p)) & jnp.uint8(3), axis, -1)[..., :-1]
    return code == _JOINED, (code == _UP).astype(dtype) - (code == _DOWN).astype(dtype)


def _without(x: Array, duals: Sequence[Array], i: int) -> Array:
    """Input of a pass on axis i: `x` minus all dual states but the i-th."""
    for j, dual in enumerate(duals):
        if j != i:
            x = x - dual
    return x


def _dykstra(x, ws, *, axes, iterations, keep: bool) -> tuple[Array, Array]:
    """Cyclic Dykstra over the axes (for two, Algorithm 1 of the paper), as X = Y + sum_i p_i."""
    first = min(axes)
    original, weights = x, ws
    x, ws, bad, scale = _sanitise(x, ws, axes)
    planes = -(-iterations * len(axes) // _PER_PLANE) if keep else 0
    masks = jnp.zeros_like(jnp.expand_dims(x, first), jnp.uint8)
    masks = jnp.repeat(masks, planes, axis=first)

    def sweep(k, state):
        duals, masks, _ = state
        z = x
        for i, (axis, w) in enumerate(zip(axes, ws, strict=True)):
            a = _without(x, duals, i)
            regions, _ = _solve(jnp.moveaxis(a, axis, -1), jnp.moveaxis(w, axis, -1))
            z = jnp.moveaxis(regions.value, -1, axis)
            duals = (*duals[:i], a - z, *duals[i + 1 :])
            if keep:
                masks = _store(masks, k * len(axes) + i, _codes(z, w, axis), first)
        return duals, masks, z

    state = (tuple(jnp.zeros_like(x) for _ in axes), masks, x)
    _, masks, y = jax.lax.fori_loop(0, iterations, sweep, state)
    largest = jnp.finfo(x.dtype).max  # the sweeps may go beyond the samples
    y = jnp.clip(y * scale, -largest, largest)
    idle = True  # no weight anywhere in the element: y is x, bit for bit
    for w in weights:
        idle = idle & jnp.all(w == 0, axes, keepdims=True)
    return jnp.where(bad, jnp.nan, jnp.where(idle, original, y)), masks


def dykstra(x: Array, *ws: Array, axes: tuple[int, ...], iterations: int, inner) -> Array:
    """`jaxtv_dykstra`: K sweeps over the axes. Every inner solver is the exact decomposition."""
    del inner
    return _dykstra(x, ws, axes=axes, iterations=iterations, keep=False)[0]


def dykstra_with_codes(
    x: Array, *ws: Array, axes: tuple[int, ...], iterations: int, inner
) -> tuple[Array, Array]:
    """`jaxtv_dykstra_with_codes`: (y, masks), the masks being all that the derivatives need."""
    del inner
    return _dykstra(x, ws, axes=axes, iterations=iterations, keep=True)


def dykstra_jvp(
    masks: Array, tx: Array, *tws: Array, axes: tuple[int, ...], iterations: int
) -> Array:
    """`jaxtv_dykstra_jvp`: the linearised iteration, each prox replaced by its Jacobian."""
    first = min(axes)

    def sweep(k, state):
        duals, _ = state
        z = tx
        for i, (axis, tw) in enumerate(zip(axes, tws, strict=True)):
            joined, sign = _load(masks, k * len(axes) + i, axis, first, tx.dtype)
            a = _without(tx, duals, i)
            z = _segment_jvp(joined, sign, jnp.moveaxis(a, axis, -1), jnp.moveaxis(tw, axis, -1))
            z = jnp.moveaxis(z, -1, axis)
            duals = (*duals[:i], a - z, *duals[i + 1 :])
        return duals, z

    state = (tuple(jnp.zeros_like(tx) for _ in axes), tx)
    return jax.lax.fori_loop(0, iterations, sweep, state)[1]


def dykstra_vjp(
    masks: Array,
    g: Array,
    *,
    axes: tuple[int, ...],
    iterations: int,
    edge: tuple[bool, ...],
) -> tuple[Array, ...]:
    """`jaxtv_dykstra_vjp`: (gx, gw_1, ..., gw_d), the transpose of `dykstra_jvp`.

    A pass on axis i maps the states (x, p) to p_i' = A - Z with A = x - sum_{j != i} p_j and
    Z = prox_i(A, w_i). With q the cotangents of the states after the pass, its adjoint is

        h = -q_i,   a = P h,   gw_i += -s (D a),   b = q_i + a,
        gx += b,    q_j -= b  (j != i),    q_i = 0  (p_i is overwritten, not read).

    The last Z is x - sum_i p_i of the final states, which starts the recursion: gx = g, q_i = -g.
    """
    first, d = min(axes), len(axes)

    def sweep(k, state):
        gx, q, gws = state
        for i in reversed(range(d)):
            p = (iterations - 1 - k) * d + i
            joined, sign = _load(masks, p, axes[i], first, g.dtype)
            h = jnp.moveaxis(-q[i], axes[i], -1)
            a, gw = _segment_vjp(joined, sign, h, edge=edge[i] and h.shape[-1] > 1)
            b = q[i] + jnp.moveaxis(a, -1, axes[i])
            gx = gx + b
            q = tuple(jnp.zeros_like(b) if j == i else q[j] - b for j in range(d))
            gws = (*gws[:i], gws[i] + jnp.moveaxis(gw, -1, axes[i]), *gws[i + 1 :])
        return gx, q, gws

    def zeros(axis, per_edge):
        size = max(g.shape[axis] - 1, 1) if per_edge else 1
        return jnp.zeros_like(jax.lax.slice_in_dim(g, 0, size, axis=axis))

    gws = tuple(zeros(axis, per_edge) for axis, per_edge in zip(axes, edge, strict=True))
    gx, _, gws = jax.lax.fori_loop(0, iterations, sweep, (g, (-g,) * d, gws))
    return gx, *gws
