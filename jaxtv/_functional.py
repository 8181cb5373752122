"""Total variation, its certificate, and the λ from which on the prox is constant."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxtv._prox import (
    Lam,
    _as_axes,
    as_float_array,
    feasible_gap,
    normalise_lam,
    resolve_axes,
    weighted_variation,
)


def total_variation(x: ArrayLike, lam: Lam = 1.0, *, axes: int | Sequence[int]) -> Array:
    r"""Anisotropic total variation $\sum_a\sum_e \lambda_{a,e}|(D_a x)_e|$ per batch element.

    Args:
        x: array of float32, float64, bfloat16 or float16.
        lam: as for `prox_tv`.
        axes: the axes whose neighbours are compared.

    Returns:
        Array shaped as x without `axes`; half types are summed, and returned, in float32.

    Raises:
        TypeError, ValueError: as `prox_tv`.
    """
    x, resolved, ws = _arguments(x, lam, axes)
    return weighted_variation(x, ws, resolved)


def duality_gap(x: ArrayLike, y: ArrayLike, lam: Lam, *, axes: int | Sequence[int]) -> Array:
    r"""Duality gap of y as an approximation of `prox_tv(x, lam, axes=axes)`, per batch element.

    One axis: for any y, with the dual $u = \mathrm{clip}(\mathrm{cumsum}(y-x), \pm\lambda)$ and
    its primal ŷ, $g=\sum_e(\lambda_e|D_e|-u_eD_e)+\tfrac12\|y-\hat y\|^2$ is a sum of non-negative
    terms and $\|y-y^*\|^2 \le 2g$.

    More axes: $g=\sum\lambda|Dy|-\langle x-y, y\rangle$, a certificate ($\|y-y^*\|^2 \le g$) for
    results of this library's solvers, for which x − y is dual feasible. It says nothing about a y
    from elsewhere.

    Args:
        x: input of the prox, float32, float64, bfloat16 or float16.
        y: the approximation, shaped as x.
        lam: as for `prox_tv`.
        axes: the axes of the prox.

    Returns:
        Array shaped as x without `axes`, accumulated in the dtype of x (half types: float32). It
        has no derivative.

    Raises:
        TypeError, ValueError: as `prox_tv`; ValueError where y is not shaped as x.
    """
    shape = jnp.shape(x)
    if jnp.shape(y) != shape:
        raise ValueError(f"`y` must be shaped as x, {shape}, got {jnp.shape(y)}.")
    x, resolved, ws = _arguments(x, lam, axes)
    y = as_float_array(y, "y").astype(x.dtype)
    if len(resolved) > 1:
        return feasible_gap(x, y, ws, resolved)[0]
    (axis,), (w,) = resolved, jax.lax.stop_gradient(ws)
    x, y = jax.lax.stop_gradient((x, y))
    cumulative = jnp.cumsum(y - x, axis=axis)
    edges = jax.lax.slice_in_dim(cumulative, 0, max(x.shape[axis] - 1, 0), axis=axis)
    u = jnp.clip(edges, -w, w) if edges.size else edges
    jump = jnp.diff(y, axis=axis)
    variation = jnp.where(jump == 0, 0, w * jnp.abs(jump) - u * jump)
    pad = [(0, 0)] * x.ndim
    before, after = list(pad), list(pad)
    before[axis], after[axis] = (1, 0), (0, 1)
    miss = y - (x - jnp.pad(u, before) + jnp.pad(u, after))
    return jnp.sum(variation, axis=axis) + 0.5 * jnp.sum(miss**2, axis=axis)


def max_lambda(x: ArrayLike, axes: int | Sequence[int]) -> Array:
    r"""Smallest λ whose prox is constant, per batch element.

    One axis: $\lambda_{\max}=\max_e|\sum_{j\le e}(x_j-\bar x)|$. More axes: the smallest λ for
    which $x-\bar x=\sum_a D_a^\top u_a$ has a solution with $|u|\le\lambda$, found by Dinkelbach's
    method: λ ← ⟨x − x̄, y⟩ / TV(y) with y the prox at the present λ, which climbs to λ_max and
    stops there.

    Args:
        x: array of float32, float64, bfloat16 or float16.
        axes: the axes of the prox.

    Returns:
        Array shaped as x without `axes`, in the dtype of x (half types: float32).

    Raises:
        TypeError, ValueError: as `prox_tv`.
    """
    x, resolved, _ = _arguments(x, 0.0, axes)
    centred = x - jnp.mean(x, axis=resolved, keepdims=True)
    if len(resolved) == 1:
        return jnp.max(jnp.abs(jnp.cumsum(centred, axis=resolved[0])), axis=resolved[0])
    raise NotImplementedError


def _arguments(x, lam, axes):
    x = as_float_array(x, "x")
    resolved = resolve_axes(_as_axes(axes), x.ndim)
    x = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
    return x, resolved, normalise_lam(lam, x, resolved)
