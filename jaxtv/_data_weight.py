"""Proxes with a weight a >= 0 for every sample: 1/2 sum_i a_i (y_i - x_i)^2 + TV(y).

**One axis.** A sample counts as often as its weight says (include/jaxtv/data_weight.hpp). A weight
of 0 marks a missing sample. A run of missing samples acts as one edge between the known samples on
its two sides, with the least of the run's edge weights. The solution may jump there, at the first
edge that has this weight; missing samples at an end copy the nearest known one. `_joined` says this
to the kernels by infinite weights, which join each missing sample to a known one.

Names: x, a, w, y as above; `seen` marks samples with a > 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxtv import _fallback, _overflow, _primitive

# ---------------------------------------------------------------------- one axis


def prox1d(x: Array, a: Array, w: Array, *, axis: int) -> Array:
    """Exact weighted prox along `axis`; a is shaped as x, w normalised (`_primitive.py`)."""
    return _solved(x, a, w, axis)[0]


def prox1d_info(x: Array, a: Array, w: Array, *, axis: int) -> tuple[Array, Array]:
    """(y, duality gap), the gap without `axis`: 1/2 sum a (y - y*)^2 is at most that."""
    y, problem, scale = _solved(x, a, w, axis)
    x, joined, a, w = problem
    factor, (x, joined, w) = _overflow.scaled_for_squares((axis,), x, joined, w)
    operands = (jnp.moveaxis(v, axis, -1) for v in (x, joined, jax.lax.stop_gradient(a), w))
    gap = _fallback.data_weight_gap(*operands)[..., 0]
    return y, _overflow.unscaled_square(gap, factor) * jnp.squeeze(scale, axis)


def _solved(
    x: Array, a: Array, w: Array, axis: int
) -> tuple[Array, tuple[Array, Array, Array, Array], Array]:
    """(y, (x, y, a, w) of the problem that a kernel has solved, the scale of a and w in it)."""
    a, (w,), scale = normalised(a, (w,), (axis,))
    source = None
    if not all_seen(a):
        x, a, w, source = _joined(x, a, w, axis)
    joined = _primitive.prox1d_data_weight(x, a, w, axis=axis)
    y = joined if source is None else jnp.take_along_axis(joined, source, axis=axis)
    return y, (x, joined, a, w), scale


def all_seen(a: Array) -> bool:
    """Whether it is known, outside of `jit`, that no sample is missing."""
    return not isinstance(a, Tracer) and bool(jnp.all(a > 0))


def normalised(
    a: Array, ws: Sequence[Array], axes: Sequence[int]
) -> tuple[Array, list[Array], Array]:
    """(a, ws) divided by a power of two, which is last: then the largest a is in [1, 2)."""
    largest = jnp.max(jax.lax.stop_gradient(a), axes, keepdims=True)
    usual = (largest > 0) & jnp.isfinite(largest)
    exponent = jnp.frexp(jnp.where(usual, largest, 1))[1]
    scale = jnp.ldexp(jnp.ones_like(largest), exponent - 1)
    return a / scale, [w / scale for w in ws], scale


def with_known(x: Array, seen: Array, axes: Sequence[int]) -> Array:
    """X with a known sample at missing ones, 0 if none is known: any of them will do."""
    return jnp.where(seen, x, near_mean(x, seen, axes))


def near_mean(x: Array, seen: Array, axes: Sequence[int]) -> Array:
    """The known sample next to the mean, so none of a few outliers; 0 if none is known."""
    x = jax.lax.stop_gradient(x)
    total = lambda v: jnp.sum(v, axes, keepdims=True)
    share = seen.astype(x.dtype) / jnp.maximum(total(seen.astype(x.dtype)), 1)
    mean = total(jnp.where(seen, x * share, 0))
    above = jnp.min(jnp.where(seen & (x >= mean), x, jnp.inf), axes, keepdims=True)
    below = jnp.max(jnp.where(seen & (x < mean), x, -jnp.inf), axes, keepdims=True)
    nearest = jnp.where(above - mean < mean - below, above, below)
    return jnp.where(jnp.isfinite(nearest), nearest, 0)


def _joined(x: Array, a: Array, w: Array, axis: int) -> tuple[Array, Array, Array, Array | None]:
    """(x, a, w, source): the problem with its missing samples joined to known ones.

    A missing sample is joined to the next known one, or to the last one of all. Its value is then
    y[source]; None where that is y itself.
    """
    seen = a != 0  # NaN is seen, and makes the signal NaN
    bad = jnp.any(~(w >= 0), axis, keepdims=True)  # the edges of missing samples included
    x = with_known(x, seen, (axis,))
    a = jnp.where(seen, a, (~jnp.any(seen, axis, keepdims=True)).astype(a.dtype))
    n, source = x.shape[axis], None
    if n == 1:
        return x, a, w, source
    before = jax.lax.slice_in_dim(seen, 0, n - 1, axis=axis)
    after = jax.lax.slice_in_dim(seen, 1, n, axis=axis).astype(jnp.int32)
    between = before & (jax.lax.cummax(after, axis=axis, reverse=True) > 0)
    if w.shape[axis] == n - 1 and n > 2:
        w, source = _least_of_runs(w, seen, axis)
    return x, a, jnp.where(bad, jnp.nan, jnp.where(between, w, jnp.inf)), source


def _least_of_runs(w: Array, seen: Array, axis: int) -> tuple[Array, Array]:
    """(w, source): at the first edge after each known sample the least weight up to the next one.

    `source`: of each sample, the one whose value it has when the jump is at that first edge: the
    known sample before it if the least weight comes after it.
    """
    w, seen = jnp.moveaxis(w, axis, -1), jnp.moveaxis(seen, axis, -1)
    edge, sample = _places(w), _places(seen)

    def smaller(right, left):  # in the order of the scan, which comes from the right
        (v, i, _), (u, j, last) = right, left
        take = ~last & (v < u)
        return jnp.where(take, v, u), jnp.where(take, i, j), last | right[2]

    values = jax.lax.stop_gradient(w), edge, seen[..., 1:]
    _, first, _ = _fallback._scan(smaller, values, (jnp.inf, 0, False), reverse=True)
    at_known = jnp.pad(first, [(0, 0)] * (w.ndim - 1) + [(0, 1)])
    jump, known = _fallback._fill((at_known, sample), seen)
    # Before the first known sample both are 0; after the last one there is no jump.
    copies = ~seen & (sample <= jump) & _seen(seen) & _seen(seen, reverse=True)
    source = jnp.where(copies, known, sample)
    w = jnp.take_along_axis(w, first, axis=-1)
    return jnp.moveaxis(w, -1, axis), jnp.moveaxis(source, -1, axis)


def _places(v: Array) -> Array:
    """The index along the last axis, with v's sharding and manual axes."""
    return jnp.zeros_like(v, jnp.int32) + jax.lax.broadcasted_iota(jnp.int32, v.shape, v.ndim - 1)


def _seen(seen: Array, *, reverse: bool = False) -> Array:
    """Whether a sample is seen at or before each one; with `reverse`, at or after it."""
    return jax.lax.cummax(seen.astype(jnp.int32), axis=seen.ndim - 1, reverse=reverse) > 0


# ---------------------------------------------------------------------- Dykstra


def dykstra(
    x: Array, a: Array, ws: Sequence[Array], *, axes: tuple[int, ...], iterations: int
) -> Array:
    """Dykstra's sweeps in the metric of a; `axes` in sweep order. a = 0 makes an element NaN."""
    wrong = jnp.any(~((a > 0) & jnp.isfinite(a)), axes, keepdims=True)
    a, ws, _ = normalised(a, ws, axes)
    original, weights = x, ws
    x, ws, bad, scale = _fallback.sanitise(x, ws, axes)
    bad = bad | wrong
    a = jnp.where(bad, 1, jnp.maximum(a, jnp.finfo(a.dtype).tiny))

    def sweep(state, _):
        duals, _ = state
        z = x
        for i, axis in enumerate(axes):
            rest = _fallback._pass_input(x, duals, i)
            z = _primitive.prox1d_data_weight(rest, a, ws[i], axis=axis)
            duals = (*duals[:i], rest - z, *duals[i + 1 :])
        return (duals, z), None

    start = (tuple(jnp.zeros_like(x) for _ in axes), x)
    (_, y), _ = jax.lax.scan(sweep, start, length=iterations)
    y = _overflow.within_range(y * scale)
    y = jnp.where(_fallback.all_zero(weights, axes), original, y)
    return jnp.where(bad, jnp.nan, y)
