"""Total variation, its certificate, and the λ from which on the prox is constant."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxtv import _primitive
from jaxtv._prox import (
    Lam,
    _as_axes,
    as_float_array,
    normalise_lam,
    prox_tv,
    resolve_axes,
    weighted_variation,
    without_overflow,
)
from jaxtv._solvers import AcceleratedDykstra, Dykstra


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

    More axes: the same with the dual of a converged solve (`AcceleratedDykstra(tol=1e-6)`, whose
    time it takes): with $r = x - \sum_a p_a$ the primal of the dual p,
    $g=\sum\lambda|Dy|-\langle x-r, y\rangle+\tfrac12\|y-r\|^2$, again for any y.

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
    x, resolved, ws = _arguments(x, lam, axes)
    y = as_float_array(y, "y").astype(x.dtype)
    if y.shape != x.shape:
        raise ValueError(f"`y` must be shaped as x, {x.shape}, got {y.shape}.")
    if x.size == 0:
        return jnp.sum(x, resolved)
    unit, (x, y, *ws) = without_overflow(resolved, x, y, *ws)
    gap = (
        _gap_of_any_nd(x, y, ws, resolved) if resolved[1:] else _gap_of_any(x, y, ws[0], *resolved)
    )
    return gap / unit / unit


def _gap_of_any_nd(x: Array, y: Array, ws: Sequence[Array], axes: tuple[int, ...]) -> Array:
    x, y, ws = jax.lax.stop_gradient((x, y, ws))
    # No dual exceeds Σ|x − mean|: with weights cut down to that, λ = inf has a finite gap.
    enough = jnp.sum(jnp.abs(x - jnp.mean(x, axis=axes, keepdims=True)), axis=axes, keepdims=True)
    ws = [jnp.minimum(w, enough) for w in ws]
    order, solver = axes[::-1], AcceleratedDykstra(tol=1e-6)
    zeros = [jnp.zeros_like(x) for _ in order[1:]]
    duals = _primitive.converged(x, zeros, ws[::-1], axes=order, solver=solver)[4:]
    rest = x - sum(duals)
    r = _primitive.prox1d(rest, ws[-1], axis=order[0], solver=solver.inner)
    centred = y - jnp.mean(y, axis=axes, keepdims=True)
    gap = weighted_variation(y, ws, axes) - jnp.sum((x - r) * centred, axis=axes)
    return jnp.maximum(gap + 0.5 * jnp.sum((y - r) ** 2, axis=axes), 0)


def _gap_of_any(x: Array, y: Array, w: Array, axis: int) -> Array:
    x, y, w = jax.lax.stop_gradient((x, y, w))
    cumulative = jnp.cumsum(y - x, axis=axis)
    edges = jax.lax.slice_in_dim(cumulative, 0, max(x.shape[axis] - 1, 0), axis=axis)
    u = jnp.clip(edges, -w, w) if edges.size else edges
    jump = jnp.diff(y, axis=axis)
    variation = jnp.where(jump == 0, 0, (w - u * jnp.sign(jump)) * jnp.abs(jump))
    pad = [(0, 0)] * x.ndim
    before, after = list(pad), list(pad)
    before[axis], after[axis] = (1, 0), (0, 1)
    miss = y - (x - jnp.pad(u, before) + jnp.pad(u, after))
    return jnp.sum(variation, axis=axis) + 0.5 * jnp.sum(miss**2, axis=axis)


def max_lambda(x: ArrayLike, axes: int | Sequence[int]) -> Array:
    r"""Smallest λ whose prox is constant, per batch element.

    One axis: $\lambda_{\max}=\max_e|\sum_{j\le e}(x_j-\bar x)|$. More axes: Dinkelbach's method
    on $\lambda_{\max}=\max_y\langle x-\bar x, y\rangle/\mathrm{TV}(y)$: y is the prox at the
    present λ (64 Dykstra sweeps), λ the best ratio of y and 32 of its level sets. λ climbs, never
    exceeds λ_max, and stops where a step gains less than 1e-6 of it.

    Args:
        x: array of float32, float64, bfloat16 or float16.
        axes: the axes of the prox.

    Returns:
        Array shaped as x without `axes`, in the dtype of x (half types: float32). It has no
        derivative for two and more axes.

    Raises:
        TypeError, ValueError: as `prox_tv`.
    """
    x, resolved, _ = _arguments(x, 0.0, axes)
    if x.size == 0:
        return jnp.zeros([d for a, d in enumerate(x.shape) if a not in resolved], x.dtype)
    centred = x - jnp.mean(x, axis=resolved, keepdims=True)
    if len(resolved) == 1:
        return jnp.max(jnp.abs(jnp.cumsum(centred, axis=resolved[0])), axis=resolved[0])
    return _climb_to_max_lambda(jax.lax.stop_gradient(centred), resolved)


_LEVELS = 32


def _climb_to_max_lambda(centred: Array, axes: tuple[int, ...]) -> Array:
    scale = jnp.max(jnp.abs(centred), axis=axes, keepdims=True)
    unit = jnp.where(scale > 0, centred / jnp.where(scale > 0, scale, 1), 0)

    def ratio(y):
        variation = weighted_variation(y, normalise_lam(1.0, y, axes), axes)
        inner = jnp.sum(unit * y, axis=axes)
        return jnp.where(variation > 0, inner / jnp.where(variation > 0, variation, 1), 0)

    def best_ratio(y):
        # By the coarea formula some level set of y has at least the ratio of y itself.
        low, high = (f(y, axis=axes, keepdims=True) for f in (jnp.min, jnp.max))
        levels = jnp.linspace(0, 1, _LEVELS + 2, dtype=y.dtype)[1:-1]
        sets = jax.lax.map(lambda t: ratio((y > low + t * (high - low)).astype(y.dtype)), levels)
        return jnp.maximum(ratio(y), jnp.max(sets, axis=0))

    def step(state):
        lam, _, steps = state
        y = prox_tv(unit, jnp.expand_dims(lam, axes), axes=axes, solver=Dykstra(iterations=64))
        higher = jnp.maximum(lam, best_ratio(y))
        return higher, jnp.any(higher > lam * (1 + 1e-6)), steps + 1

    state = best_ratio(unit), jnp.bool_(True), jnp.int32(0)
    lam, _, _ = jax.lax.while_loop(lambda s: s[1] & (s[2] < 64), step, state)
    return lam * jnp.squeeze(scale, axes)


def _arguments(x, lam, axes):
    x = as_float_array(x, "x")
    resolved = resolve_axes(_as_axes(axes), x.ndim)
    x = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
    return x, resolved, normalise_lam(lam, x, resolved)
