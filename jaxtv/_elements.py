"""The samples of one element of a batch as one axis, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
