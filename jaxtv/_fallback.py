"""Every primitive in plain JAX, for platforms without kernels (TPU, Metal, ROCm, ...).

One public function per primitive, which `mlir.lower_fun` lowers; it has the primitive's operands,
parameters and results. `_converged.py` has the primitives of the converged prox.

The exact 1D solver is threshold decomposition (Hochbaum 2001; Chambolle & Darbon 2009) in its
data-parallel form. One pass over all signals is a handful of scans along them: there is no serial
loop over samples, no gather and no scatter. A signal that has finished is frozen, so its result
does not depend on the other signals of the batch.

Conventions of this file: the axis of the prox is moved to the end. `n` samples have `n - 1`
edges; edge `e` joins samples `e` and `e + 1`. A cut is an edge between two regions. `head` and
`tail` mark the first and the last sample of each region. An edge array padded to `n` entries on
its left (right) holds at each sample the value of the edge before (after) it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxtv import _edge_codes, _overflow

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

    if not isinstance(n, int):
        raise ValueError(
            f"In plain JAX the sizes along the prox axes may not be symbolic, got {n}. Other sizes "
            "may, and with the CPU kernels all of them."
        )
    return jax.lax.fori_loop(0, (n - 1).bit_length(), step, values)


def _fill(values: Sequence[Array], marks: Array, *, reverse: bool = False) -> tuple:
    """Give every sample the values of the nearest marked sample at or before it.

    With `reverse`, at or after it.
    """

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


def _compose_clamps(first, second):
    """Compose two functions m -> min(max(m + shift, lo), hi); `first` is applied first."""
    shift1, lo1, hi1 = first
    shift2, lo2, hi2 = second
    lo = jnp.minimum(jnp.maximum(lo1 + shift2, lo2), hi2)
    hi = jnp.minimum(jnp.maximum(hi1 + shift2, lo2), hi2)
    return shift1 + shift2, lo, hi


# ------------------------------------------------------------------------- exact 1D solver


_ROUGH = 256  # of an offset, in relation to the value that it leads to


class _Regions(NamedTuple):
    """Solution of a batch of signals (last axis) as regions of constant value."""

    value: Array  # (..., n) value of the region of each sample
    cut: Array  # (..., n - 1) bool, edges between regions
    cut_dual: Array  # (..., n - 1) the dual of each cut, sign of its jump times weight; 0 elsewhere


def _region_values(
    x: Array, reference: Array, cut: Array, cut_dual: Array, mass: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """Mean of each region, adjusted by the duals of the two cuts that bound it.

    With `mass`, the data weights of the samples, means and excess are weighted by it.

    The sum is over differences to `reference` at the region's head: with the value of an earlier
    pass there, this is a step of iterative refinement. Returns at each sample (value, excess,
    head_dual, rough): excess is value - x before the value is rounded, so that its sums do not
    drift, head_dual the dual on the left of the region, and rough whether the reference was so much
    larger that its round-off is seen in the value: of a region that contained an outlier before.
    """
    head, tail = _pad_left(cut, True), _pad_right(cut, True)
    head_dual, ref = _fill((_pad_left(cut_dual), reference), head)
    if mass is None:
        total, count = _region_sums((x - ref, jnp.ones_like(x, jnp.int32)), head)
    else:
        total, count = _region_sums((mass * (x - ref), mass), head)
    offset = (total + (_pad_right(cut_dual) - head_dual)) / count.astype(x.dtype)
    (offset,) = _fill((offset,), tail, reverse=True)
    value = jnp.clip(ref + offset, x.min(-1, keepdims=True), x.max(-1, keepdims=True))
    rough = (jnp.abs(offset) > _ROUGH * jnp.abs(value)) & (value != ref)
    excess = (ref - x) + offset
    return value, excess if mass is None else mass * excess, head_dual, rough


def _binary_labels(excess: Array, head_dual: Array, w: Array, cut: Array, cut_dual: Array) -> Array:
    """Minimise each region's sum_i z_i excess_i + sum_e w_e |z_{e+1} - z_e| over z in {0, 1}^n.

    Label z_i is 1 where the solution lies above the value of its region. This is a two-state
    Viterbi pass (include/jaxtv/decomposition.hpp). Its messages are kept relative to `head_dual`,
    the dual on the left of their region: next to a large weight their differences survive in
    float32.
    """
    head, tail = _pad_left(cut, True), _pad_right(cut, True)
    before, after = _pad_left(w), _pad_right(w)
    lo = jnp.where(head, excess, excess + (-before - head_dual))
    hi = jnp.where(head, excess, excess + (before - head_dual))
    _, message, _ = _scan(_compose_clamps, (excess, lo, hi), (0, -jnp.inf, jnp.inf))
    one = message < jnp.where(tail, _pad_right(cut_dual) - head_dual, -after - head_dual)
    decided = one | tail | (message > after - head_dual)
    return _fill((one,), decided, reverse=True)[0]


def _decompose(x: Array, w: Array, mass: Array | None) -> _Regions:
    """Split regions at their own adjusted mean until no label changes.

    Every pass but the last cuts an edge, or refines rough values. There are at least two passes:
    the second refines the values of the first.
    """

    def one_pass(state):
        value, cut, cut_dual, passes, active = state
        new_value, excess, head_dual, rough = _region_values(x, value, cut, cut_dual, mass)
        z = _binary_labels(excess, head_dual, w, cut, cut_dual)
        z0, z1 = z[..., :-1], z[..., 1:]
        new = (z0 != z1) & ~cut & ~rough[..., 1:] & active
        cut_dual = jnp.where(new, jnp.where(z1, w, -w), cut_dual)
        still = jnp.any(new, axis=-1, keepdims=True) | (passes == 0)
        still = still | jnp.any(rough, axis=-1, keepdims=True)
        value = jnp.where(active, new_value, value)
        return value, cut | new, cut_dual, passes + active.astype(jnp.int32), still

    cut = w == 0  # such an edge joins nothing
    passes = jnp.zeros_like(x[..., :1], jnp.int32)
    state = (x, cut, jnp.zeros_like(w), passes, passes == 0)
    value, cut, cut_dual, *_ = jax.lax.while_loop(lambda s: jnp.any(s[-1]), one_pass, state)
    return _Regions(value, cut, cut_dual)


def _pool_ties(regions: _Regions, mass: Array | None) -> _Regions:
    """Fuse neighbouring regions whose values rounding has made equal or put in the wrong order.

    The dual of the cut between them counts in both values with opposite signs, so the value of the
    union is the mean of the values over its samples. Afterwards every cut with a positive weight is
    a jump of its own sign.
    """

    def violated(value, cut, cut_dual):
        jump = value[..., 1:] - value[..., :-1]
        against = jnp.where(cut_dual > 0, jump <= 0, jump >= 0)
        return cut & (cut_dual != 0) & against

    def fuse(state):
        value, cut, cut_dual, wrong = state
        cut, cut_dual = cut & ~wrong, jnp.where(wrong, 0, cut_dual)
        value, *_ = _region_values(value, value, cut, jnp.zeros_like(cut_dual), mass)
        return value, cut, cut_dual, violated(value, cut, cut_dual)

    value, cut, cut_dual = regions
    state = (value, cut, cut_dual, violated(value, cut, cut_dual))
    value, cut, cut_dual, _ = jax.lax.while_loop(lambda s: jnp.any(s[-1]), fuse, state)
    return _Regions(value, cut, cut_dual)


def _solve(x: Array, w: Array, mass: Array | None = None) -> tuple[_Regions, Array]:
    """Exact prox of finite signals `x` (last axis); `w` has 1 or n - 1 entries there.

    `mass` are the data weights, if any, as `prox1d_data_weight` has them.

    Returns the regions, and the weights per edge, limited to a bound that no dual can reach
    (|u_e| <= n * range / 2): infinite weights are finite from here on.
    """
    w = _bounded(x, w, mass)
    return _pool_ties(_decompose(x, w, mass), mass), w


def _bounded(x: Array, w: Array, mass: Array | None) -> Array:
    """Weights per edge, limited to a bound that no dual can reach."""
    n = x.shape[-1]
    total = n if mass is None else jnp.sum(mass, -1, keepdims=True)
    bound = total * (x.max(-1, keepdims=True) - x.min(-1, keepdims=True))
    return jnp.minimum(jnp.broadcast_to(w, (*x.shape[:-1], n - 1)), bound)


# -------------------------------------------------------------------------- 1D primitives


def sanitise(x: Array, ws: Sequence[Array], axes: tuple[int, ...]):
    """Replace what cannot be solved and scale what would overflow, per element of the batch.

    Returns (x, ws, bad, scale): elements with a non-finite sample or a NaN or negative weight are
    marked in `bad` and zeroed; the others are divided by `scale` (`_overflow.py`). `axes` are the
    axes of one element; `bad` and `scale` have size 1 along them.
    """
    bad = jnp.any(~jnp.isfinite(x), axes, keepdims=True)
    for w in ws:
        bad = bad | jnp.any(~(w >= 0), axes, keepdims=True)
    x = jnp.where(bad, 0, x)
    scale = _overflow.scale_of_sums(x, axes)
    return x / scale, [jnp.where(bad, 0, w) / scale for w in ws], bad, scale


def all_zero(ws: Sequence[Array], axes: tuple[int, ...]) -> Array:
    """Elements (size 1 along `axes`) without a weight: their prox is x, bit for bit."""
    out = jnp.bool_(True)
    for w in ws:
        out = out & jnp.all(w == 0, axes, keepdims=True)
    return out


def _unjoined(w: Array, n: int) -> Array:
    """(..., n) bool: samples whose edges all have weight 0, so that y = x there."""
    zero = jnp.broadcast_to(w == 0, (*w.shape[:-1], n - 1))
    return _pad_left(zero, True) & _pad_right(zero, True)


def _gap(x: Array, w: Array, regions: _Regions, mass: Array | None = None) -> Array:
    """Duality gap (..., 1) of the regions' values with the dual they define.

    With yhat = x - D^T u the primal point of the dual u, the gap is
    sum_e (w_e - u_e sign(D_e)) |D_e| + 1/2 |y - yhat|^2: terms that are non-negative in floating
    point too, and free of cancellation.
    """
    y, cut, cut_dual = regions
    head = _pad_left(cut, True)
    (head_dual,) = _fill((_pad_left(cut_dual),), head)
    miss = y - x if mass is None else mass * (y - x)
    (change,) = _region_sums((miss,), head)
    u = jnp.where(cut, cut_dual, jnp.clip((head_dual + change)[..., :-1], -w, w))
    jump = y[..., 1:] - y[..., :-1]
    residual = miss + (_pad_left(u) - _pad_right(u))
    slack = jnp.sum((w - u * jnp.sign(jump)) * jnp.abs(jump), -1, keepdims=True)
    square = residual * residual
    if mass is not None:  # a missing sample has no residual
        square = jnp.where(mass > 0, square / jnp.where(mass > 0, mass, 1), 0)
    return slack + jnp.sum(square, -1, keepdims=True) / 2


def prox1d_info(x: Array, w: Array, *, axis: int, solver) -> tuple[Array, Array, Array, Array]:
    """`jaxtv_prox1d_info`: (y, gap, iterations, converged), the last three of size 1 along axis.

    Every solver object gets the same exact decomposition here, ProjectedNewton included, so
    `iterations` is 1. A signal with a non-finite sample or a NaN or negative weight is NaN, has a
    NaN gap, 0 iterations, and is not converged.
    """
    del solver
    original, weights = jnp.moveaxis(x, axis, -1), jnp.moveaxis(w, axis, -1)
    x, (w,), bad, scale = sanitise(original, (weights,), (original.ndim - 1,))
    regions, w = _solve(x, w)
    y = jnp.where(_unjoined(weights, x.shape[-1]), original, regions.value * scale)
    y = jnp.where(bad, jnp.nan, y)
    gap = jnp.where(bad, jnp.nan, _gap(x, w, regions) * scale * scale)
    y, gap, solved = (jnp.moveaxis(v, -1, axis) for v in (y, gap, ~bad))
    return y, gap, solved.astype(jnp.int32), solved


def prox1d(x: Array, w: Array, *, axis: int, solver) -> Array:
    """`jaxtv_prox1d`: the exact prox for every solver object (see `prox1d_info`)."""
    return prox1d_info(x, w, axis=axis, solver=solver)[0]


def prox1d_data_weight(x: Array, mass: Array, w: Array, *, axis: int) -> Array:
    """`jaxtv_prox1d_data_weight`: the exact prox with data weights.

    It minimises 1/2 sum mass (y - x)^2 + sum w |Dy|. Where a mass is 0, infinite weights must join
    the sample to one with a mass. NaN where a mass is negative or not finite, or as `prox1d`.
    """
    original, mass, weights = (jnp.moveaxis(v, axis, -1) for v in (x, mass, w))
    wrong = jnp.any(~((mass >= 0) & jnp.isfinite(mass)), -1, keepdims=True)
    mass = jnp.where(wrong, 1, mass)
    x, (w,), bad, scale = sanitise(original, (weights,), (original.ndim - 1,))
    regions, _ = _solve(x, w, mass)
    y = jnp.where(_unjoined(weights, x.shape[-1]), original, regions.value * scale)
    return jnp.moveaxis(jnp.where(bad | wrong, jnp.nan, y), -1, axis)


def data_weight_gap(x: Array, y: Array, mass: Array, w: Array) -> Array:
    """Duality gap (..., 1) of a solution y of that problem (last axis), with the dual it defines.

    1/2 sum mass (y - y*)^2 is at most that.
    """
    w = _bounded(x, w, mass)
    inside, sign = _segments(y, w)
    return _gap(x, w, _Regions(y, ~inside, sign * w), mass)


def segment_means(v: Array, inside: Array) -> Array:
    """P v: the mean over the segment of each sample; `inside` (..., n - 1) are its inner edges."""
    head, tail = _pad_left(~inside, True), _pad_right(~inside, True)
    total, count = _region_sums((v, jnp.ones_like(v, jnp.int32)), head)
    return _fill((total / count.astype(v.dtype),), tail, reverse=True)[0]


def _segments(y: Array, w: Array) -> tuple[Array, Array]:
    """(inside, sign of the jump), both (..., n - 1), of the edges of a solution."""
    left, right = y[..., :-1], y[..., 1:]
    sign = (right > left).astype(y.dtype) - (right < left).astype(y.dtype)
    return (left == right) & (w > 0), sign


def _segment_jvp(inside: Array, sign: Array, tx: Array, tw: Array) -> Array:
    """P(tx - D^T(s tw)), Eq. 8 of the paper, along the last axis."""
    dual = sign * tw  # the change of the dual of each jump
    return segment_means(tx + (_pad_right(dual) - _pad_left(dual)), inside)


def _segment_vjp(inside: Array, sign: Array, g: Array, *, edge: bool) -> tuple[Array, Array]:
    """(P g, -s D P g), the transpose of `_segment_jvp`; the second is summed unless `edge`."""
    gx = segment_means(g, inside)
    gw = -sign * (gx[..., 1:] - gx[..., :-1])
    return gx, gw if edge else jnp.sum(gw, -1, keepdims=True)


def segment_jvp(y: Array, w: Array, tx: Array, tw: Array, *, axis: int) -> Array:
    """`jaxtv_segment_jvp`: the JVP of the prox; `y` and `w` tell the segments."""
    y, w, tx, tw = (jnp.moveaxis(v, axis, -1) for v in (y, w, tx, tw))
    inside, sign = _segments(y, w)
    return jnp.moveaxis(_segment_jvp(inside, sign, tx, tw), -1, axis)


def segment_vjp(y: Array, w: Array, g: Array, *, axis: int) -> tuple[Array, Array]:
    """`jaxtv_segment_vjp`: cotangents (gx, gw) of the prox; `y` and `w` tell the segments."""
    y, w, g = (jnp.moveaxis(v, axis, -1) for v in (y, w, g))
    inside, sign = _segments(y, w)
    edge = w.shape[-1] == y.shape[-1] - 1
    gx, gw = _segment_vjp(inside, sign, g, edge=edge)
    return jnp.moveaxis(gx, -1, axis), jnp.moveaxis(gw, -1, axis)


# ---------------------------------------------------------------------- Dykstra primitives


def _pass_input(x: Array, duals: Sequence[Array], i: int) -> Array:
    """`x` minus the dual states of all axes but the i-th: what a pass on axis i solves."""
    for j, dual in enumerate(duals):
        if j != i:
            x = x - dual
    return x


def _dykstra(x, ws, *, axes, iterations, store_codes: bool) -> tuple[Array, Array]:
    """Cyclic Dykstra over the axes (for two, Algorithm 1 of the paper), as X = Y + sum_i p_i."""
    original, weights = x, ws
    x, ws, bad, scale = sanitise(x, ws, axes)
    edge_codes = _edge_codes.empty(x, axes, iterations * len(axes) if store_codes else 0)

    def sweep(k, state):
        duals, edge_codes, _ = state
        z = x
        for i, (axis, w) in enumerate(zip(axes, ws, strict=True)):
            a = _pass_input(x, duals, i)
            regions, _ = _solve(jnp.moveaxis(a, axis, -1), jnp.moveaxis(w, axis, -1))
            z = jnp.moveaxis(regions.value, -1, axis)
            duals = (*duals[:i], a - z, *duals[i + 1 :])
            if store_codes:
                code = _edge_codes.encode(z, w, axis)
                edge_codes = _edge_codes.store(edge_codes, k * len(axes) + i, code, axes)
        return duals, edge_codes, z

    state = (tuple(jnp.zeros_like(x) for _ in axes), edge_codes, x)
    _, edge_codes, y = jax.lax.fori_loop(0, iterations, sweep, state)
    y = jnp.where(all_zero(weights, axes), original, _overflow.within_range(y * scale))
    return jnp.where(bad, jnp.nan, y), edge_codes


def dykstra(x: Array, *ws: Array, axes: tuple[int, ...], iterations: int, inner) -> Array:
    """`jaxtv_dykstra`: K sweeps over the axes. Every inner solver is the exact decomposition."""
    del inner
    return _dykstra(x, ws, axes=axes, iterations=iterations, store_codes=False)[0]


def dykstra_with_codes(
    x: Array, *ws: Array, axes: tuple[int, ...], iterations: int, inner
) -> tuple[Array, Array]:
    """`jaxtv_dykstra_with_codes`: (y, edge codes of every pass), all that the derivatives need."""
    del inner
    return _dykstra(x, ws, axes=axes, iterations=iterations, store_codes=True)


def _load_segments(edge_codes: Array, index: Array, axes: Sequence[int], axis: int, dtype):
    """(inside, sign) of pass `index`, which ran along `axis`; that axis moved to the end."""
    code = jnp.moveaxis(_edge_codes.load(edge_codes, index, axes), axis, -1)
    return _edge_codes.decode(code, code.ndim - 1, dtype)


def dykstra_jvp(
    edge_codes: Array, tx: Array, *tws: Array, axes: tuple[int, ...], iterations: int
) -> Array:
    """`jaxtv_dykstra_jvp`: the linearised iteration, each prox replaced by its Jacobian."""

    def sweep(k, state):
        duals, _ = state
        z = tx
        for i, (axis, tw) in enumerate(zip(axes, tws, strict=True)):
            inside, sign = _load_segments(edge_codes, k * len(axes) + i, axes, axis, tx.dtype)
            a = _pass_input(tx, duals, i)
            z = _segment_jvp(inside, sign, jnp.moveaxis(a, axis, -1), jnp.moveaxis(tw, axis, -1))
            z = jnp.moveaxis(z, -1, axis)
            duals = (*duals[:i], a - z, *duals[i + 1 :])
        return duals, z

    state = (tuple(jnp.zeros_like(tx) for _ in axes), tx)
    return jax.lax.fori_loop(0, iterations, sweep, state)[1]


def dykstra_vjp(
    edge_codes: Array,
    g: Array,
    *,
    axes: tuple[int, ...],
    iterations: int,
    edge: tuple[bool, ...],
) -> tuple[Array, ...]:
    """`jaxtv_dykstra_vjp`: (gx, gw_1, ..., gw_d), the transpose of `dykstra_jvp`.

    docs/concepts.md derives it under "The adjoint of Dykstra's iteration", with the same names: gp
    are the cotangents of the dual states. Its "Two shortcuts" explains the start: gx = g, gp = -g.
    """
    d = len(axes)

    def sweep(k, state):
        gx, gp, gws = state
        for i in reversed(range(d)):
            index = (iterations - 1 - k) * d + i
            inside, sign = _load_segments(edge_codes, index, axes, axes[i], g.dtype)
            h = jnp.moveaxis(-gp[i], axes[i], -1)
            c, gw = _segment_vjp(inside, sign, h, edge=edge[i] and h.shape[-1] > 1)
            b = gp[i] + jnp.moveaxis(c, -1, axes[i])
            gx = gx + b
            gp = tuple(jnp.zeros_like(b) if j == i else gp[j] - b for j in range(d))
            gws = (*gws[:i], gws[i] + jnp.moveaxis(gw, -1, axes[i]), *gws[i + 1 :])
        return gx, gp, gws

    def zeros(axis, per_edge):
        size = max(g.shape[axis] - 1, 1) if per_edge else 1
        return jnp.zeros_like(jax.lax.slice_in_dim(g, 0, size, axis=axis))

    gws = tuple(zeros(axis, per_edge) for axis, per_edge in zip(axes, edge, strict=True))
    gx, _, gws = jax.lax.fori_loop(0, iterations, sweep, (g, (-g,) * d, gws))
    return gx, *gws
