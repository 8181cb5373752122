"""Samples near the end of their type: one rule for all that is computed in plain JAX.

Sums and squares of samples leave the range of their type before the samples do. An element of the
batch with a sample beyond a limit is therefore computed with at another size, and its result is
taken back. The factor is a power of two: it is exact but for samples that are far below the
round-off of the largest one. Every other element keeps its bits: its factor is 1.

    computed             what overflows                 limit      factor
    solutions            sums of samples, dual states   2^(e/2)    2^-(e/2)
    gaps, objectives     sums of squares                2^(3e/8)   2^-(5e/8)

2^e is the end of the type: e is 128 for float32 and 1024 for float64. Scaled samples are below
2^(e/2), or 2^(3e/8). So 2^(e/2) samples, or 2^(e/4) squares, add up within the range: at least 2^64
and 2^32 of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array


def scale_of_sums(x: Array, axes: Sequence[int]) -> Array:
    """What each element (size 1 along `axes`) is divided by before it is solved."""
    scale = 2.0 ** (jnp.finfo(x.dtype).maxexp // 2)
    largest = jnp.max(jnp.abs(x), axes, keepdims=True, initial=0)
    return jnp.where(largest > scale, jnp.full_like(largest, scale), 1)


def within_range(y: Array) -> Array:
    """Y cut off at the largest finite number, which iterates and round-off may exceed."""
    largest = jnp.finfo(y.dtype).max
    return jnp.clip(y, -largest, largest)


def scaled_for_squares(axes: Sequence[int], x: Array, *others: Array) -> tuple[Array, list[Array]]:
    """The factor of each element (without `axes`), and all arrays times it, without derivatives.

    A gap of the scaled arrays is that of the given ones times the square of the factor.
    """
    arrays = jax.lax.stop_gradient((x, *others))
    exponent = jnp.finfo(x.dtype).maxexp
    largest = jnp.max(jnp.abs(arrays[0]), axis=axes, keepdims=True)
    beyond = largest > 2.0 ** (3 * exponent // 8)
    factor = jnp.where(beyond, 2.0 ** -(5 * exponent // 8), 1.0).astype(x.dtype)
    return jnp.squeeze(factor, axes), [v * factor for v in arrays]


def unscaled_square(gap: Array, factor: Array) -> Array:
    """The gap of the given arrays from the one of the scaled arrays: divided by factor².

    In two steps that XLA may not join: the square itself is 0 in the type, and 0 / 0 is NaN.
    """
    return jax.lax.optimization_barrier(gap / factor) / factor
