"""Samples far from all others, brought near before the converged N-D prox is solved.

cpu/converged/outliers.hpp has the mathematics and the same constants. Elements without such samples
keep every bit. Where no element has any, two passes over x find that out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxtv import _elements

_FAR = 1024.0  # times the scale
_MOST_GAPS = 16  # so many far ones at most


Crossing = Callable[[Array], Array]


def brought_near(
    x: Array, ws: Sequence[Array], axes: tuple[int, ...], crossing: Crossing | None = None
) -> tuple[Array, Array]:
    """(near, shift) with prox(x) = prox(near) + shift. `shift` is 0 for all but outliers.

    `axes` are the axes of an element, `ws` its weights. An element without a solution may become
    anything. `crossing` has the sum of the weights at each sample, shaped as x, of edges whose half
    jump is at least its argument (size 1 along `axes`); by default edges are along `axes`.
    """
    if all(x.shape[a] == 1 for a in axes):
        return x, jnp.zeros_like(x)
    moves = _clustered(x, ws, axes)
    crossing = crossing or partial(crossing_weights, x, ws, axes)
    return jax.lax.cond(
        jnp.any(moves),
        lambda: _moved(x, crossing, axes, moves),
        lambda: (x, jnp.zeros_like(x)),
    )


def _clustered(x: Array, ws: Sequence[Array], axes: tuple[int, ...]) -> Array:
    """Elements (size 1 along `axes`) that may have a far gap, without a sort.

    Edges cross every gap, so it exceeds the least weight. And the samples leave at least half of 32
    equal parts of their range empty.
    """
    low, high = (f(x, axes, keepdims=True) / 2 for f in (jnp.min, jnp.max))
    least = jnp.inf
    for w in ws:
        least = jnp.minimum(least, jnp.min(w, axes, keepdims=True, initial=jnp.inf))
    size = jnp.maximum(high - low, jnp.finfo(x.dtype).tiny)
    part = jnp.uint32(1) << ((x / 2 - low) / size * 31.9).astype(jnp.uint32)
    occupied = jax.lax.reduce(part, jnp.uint32(0), jax.lax.bitwise_or, axes).reshape(low.shape)
    few = jax.lax.population_count(occupied) <= 16
    return few & (high - low > _FAR * least) & jnp.isfinite(high - low)


def _moved(
    x: Array, crossing: Crossing, axes: tuple[int, ...], moves: Array
) -> tuple[Array, Array]:
    flat = _elements.flat(x, axes)  # (batch..., N), as all that follows; "half" spares overflow
    samples = jnp.sort(flat, -1)
    gaps = jnp.diff(samples / 2, axis=-1)
    order = jnp.argsort(gaps, -1)
    largest = jnp.take_along_axis(gaps, order, -1)  # half of each, ascending
    smaller = jnp.pad(jnp.cumsum(largest, -1)[..., :-1], [(0, 0)] * (gaps.ndim - 1) + [(1, 0)])
    order, largest, smaller = (v[..., -_MOST_GAPS:] for v in (order, largest, smaller))
    middle = flat.shape[-1] // 2
    scale = jnp.abs(samples[..., middle, None]) / 2

    least, _ = _far_gaps(largest, smaller, scale)
    weights = crossing(least.reshape([1 if a in axes else d for a, d in enumerate(x.shape)]))
    scale = scale + 2 * jnp.max(_elements.flat(weights, axes), -1, keepdims=True)
    least, step = _far_gaps(largest, smaller, scale)
    far = (largest >= least) & _elements.flat(moves, axes)

    lower, upper = (jnp.take_along_axis(samples, order + i, -1) for i in (0, 1))
    near, shift = flat, jnp.zeros_like(flat)
    for sign, side, start, entry in (
        (1, far & (order >= middle), lower, upper),
        (-1, far & (order < middle), -upper, -lower),
    ):
        beyond = side[..., None, :] & (sign * flat[..., None] >= entry[..., None, :])
        first = jnp.max(jnp.where(beyond, entry[..., None, :], -jnp.inf), -1)
        place = jnp.min(jnp.where(side, start, jnp.inf), -1, keepdims=True)
        place = place + jnp.sum(beyond, -1, x.dtype) * step  # of `first`, near
        moved = jnp.any(beyond, -1)
        near = jnp.where(moved, sign * (place + (sign * flat - first)), near)
        shift = jnp.where(moved, sign * (first - place), shift)
    return _elements.unflat(near, x, axes), _elements.unflat(shift, x, axes)


def _far_gaps(largest: Array, smaller: Array, scale: Array) -> tuple[Array, Array]:
    """The least far gap (half; infinite if there is none), and the step between clusters."""
    far = largest > _FAR * (smaller + scale)
    least = jnp.min(jnp.where(far, largest, jnp.inf), -1, keepdims=True)
    smaller = jnp.min(jnp.where(far, smaller, jnp.inf), -1, keepdims=True)
    return least, 2 * (2 * smaller + scale)


def crossing_weights(x: Array, ws: Sequence[Array], axes: tuple[int, ...], least: Array) -> Array:
    """At most so large is the sum of weights at each sample across far gaps."""
    total = jnp.zeros_like(x)
    for w, axis in zip(ws, axes, strict=True):
        crossing = jnp.where(jnp.abs(jnp.diff(x / 2, axis=axis)) >= least, w, 0)
        for at in (0, 1):
            pad = [(0, 0)] * x.ndim
            pad[axis] = (at, 1 - at)
            total = total + jnp.pad(crossing, pad)
    return total
