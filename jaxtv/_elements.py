"""Elements of a batch: their samples as one axis, and back; a choice for each element."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array


def flat(v: Array, axes: Sequence[int]) -> Array:
    """(batch..., N): the axes of one element, in increasing order, moved to the end and joined."""
    last = tuple(range(v.ndim - len(axes), v.ndim))
    v = jnp.moveaxis(v, sorted(axes), last)
    return v.reshape(*v.shape[: last[0]], math.prod(v.shape[last[0] :]))


def unflat(v: Array, like: Array, axes: Sequence[int]) -> Array:
    """The inverse: an array shaped as `like`."""
    core = sorted(axes)
    last = tuple(range(like.ndim - len(axes), like.ndim))
    v = v.reshape(*v.shape[:-1], *(like.shape[a] for a in core))
    return jnp.moveaxis(v, last, core)


def choose(condition: Array, new, old):
    """`new` where the condition holds, else `old`; of two equal structures of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def floats(tree, dtype):
    """All arrays of a structure in a type that has tangents.

    For results of a `custom_jvp`: in `shard_map` those of integers can not have one.
    """
    return jax.tree.map(lambda v: v.astype(dtype), tree)
