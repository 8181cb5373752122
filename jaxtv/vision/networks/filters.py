"""TV layers and the plain alternative as layers of one kind, to be put into trained networks."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtv._layer import inverse_softplus
from jaxtv._prox import prox_tv2d

RADIUS = 6  # of the Gaussian's kernel, in pixels: enough for widths up to 1.5


class Filter(nnx.Module):
    """A filter of feature maps or pictures as a layer.

    Its strength is softplus(raw_lam), as λ of a `TVLayer`. Networks that differ in it alone are the
    same program.

    Args:
        function: from (N, H, W, C) and a strength () to the same shape.
        strength: before training, above 0.
    """

    def __init__(self, function: Callable[[jax.Array, jax.Array], jax.Array], strength: float):
        self.function = function
        self.raw_lam = nnx.Param(jnp.float32(inverse_softplus(strength)))

    @property
    def strength(self) -> jax.Array:
        """λ, or the width of a Gaussian in pixels: ()."""
        return jax.nn.softplus(self.raw_lam[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) to the same shape."""
        return self.function(x, self.strength)


def tv_smooth(x: jax.Array, lam: jax.Array) -> jax.Array:
    """The TV-smooth layer: prox(x, λ)."""
    return prox_tv2d(x, lam, axes=(-3, -2))


def tv_sharp(x: jax.Array, lam: jax.Array) -> jax.Array:
    """The TV-sharp layer: 2x - prox(x, λ)."""
    return 2 * x - prox_tv2d(x, lam, axes=(-3, -2))


def gaussian(x: jax.Array, width: jax.Array) -> jax.Array:
    """Gaussian of a standard deviation of `width` pixels; the rim is repeated outwards."""
    rows, columns = (_gaussian_matrix(side, width) for side in x.shape[-3:-1])
    return jnp.einsum("ph,...hwc,qw->...pqc", rows, x, columns)


def _gaussian_matrix(side: int, width: jax.Array) -> jax.Array:
    """One axis of `gaussian`: (side, side)."""
    offsets = jnp.arange(-RADIUS, RADIUS + 1)
    weights = jnp.exp(-0.5 * jnp.square(offsets / width))
    to = jnp.broadcast_to(jnp.arange(side)[:, None], (side, 2 * RADIUS + 1))
    come_from = jnp.clip(to + offsets[None], 0, side - 1)
    values = jnp.broadcast_to(weights / weights.sum(), to.shape)
    return jnp.zeros((side, side)).at[to, come_from].add(values)
