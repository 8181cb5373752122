"""Total variation, its certificate, and the λ from which on the prox is constant."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxtv import _arguments, _overflow, _primitive
from jaxtv._arguments import Lam
from jaxtv._dtypes import compute_dtype
from jaxtv._prox import bounded_weights, prox_tv, times_jump, weighted_variation
from jaxtv._solvers import AcceleratedDykstra, Dykstra


def total_variation(x: ArrayLike, lam: Lam = 1.0, *, axes: int | Sequence[int]) -> Array:
    r"""Anisotropic total variation $\sum_a\sum_e \lambda_{a,e}|(D_a x)_e|$ per batch element.

    Args:
        x: array of float32, float64, bfloat16 or float16.
        lam: as for `prox_tv`.
        axes: the axes whose neighbours are compared.

    Returns:
        Array shaped as x without `axes`, in the units of λ x. Half types are summed, and returned,
        in float32.

    Raises:
        TypeError, ValueError: as `prox_tv`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([[0.0, 0.0, 4.0], [0.0, 0.0, 4.0]])
        >>> jaxtv.total_variation(x, axes=(0, 1))
        Array(8., dtype=float32)
        >>> jaxtv.total_variation(x, 0.5, axes=1)  # of each row
        Array([2., 2.], dtype=float32)
    """
    x, resolved, ws = _checked(x, lam, axes)
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

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([0.0, 0.0, 4.0, 4.0])
        >>> jaxtv.duality_gap(x, jaxtv.prox_tv1d(x, 1.0), 1.0, axes=0)
        Array(0., dtype=float32)
        >>> jaxtv.duality_gap(x, x, 1.0, axes=0)
        Array(4., dtype=float32)
    """
    x, resolved, ws = _checked(x, lam, axes)
    y = _arguments.same_shape(y, x, "y")
    if x.size == 0:
        return jnp.sum(x, resolved)
    factor, (x, y, *ws) = _overflow.scaled_for_squares(resolved, x, y, *ws)
    gap = _gap_1d(x, y, ws[0], *resolved) if len(resolved) == 1 else _gap_nd(x, y, ws, resolved)
    return _overflow.unscaled_square(gap, factor)


def _gap_nd(x: Array, y: Array, ws: Sequence[Array], axes: tuple[int, ...]) -> Array:
    ws = bounded_weights(x, ws, axes)
    order, solver = axes[::-1], AcceleratedDykstra(tol=1e-6)
    zeros = [jnp.zeros_like(x) for _ in order[1:]]
    duals = _primitive.converged(x, zeros, ws[::-1], axes=order, solver=solver)[4:]
    rest = x - sum(duals)
    r = _primitive.prox1d(rest, ws[-1], axis=order[0], solver=solver.inner)
    centred = y - jnp.mean(y, axis=axes, keepdims=True)
    gap = weighted_variation(y, ws, axes) - jnp.sum((x - r) * centred, axis=axes)
    return jnp.maximum(gap + 0.5 * jnp.sum((y - r) ** 2, axis=axes), 0)


def _gap_1d(x: Array, y: Array, w: Array, axis: int) -> Array:
    cumulative = jnp.cumsum(y - x, axis=axis)
    edges = jax.lax.slice_in_dim(cumulative, 0, max(x.shape[axis] - 1, 0), axis=axis)
    u = jnp.clip(edges, -w, w) if edges.size else edges
    jump = jnp.diff(y, axis=axis)
    variation = times_jump(w - u * jnp.sign(jump), jump)
    pad = [(0, 0)] * x.ndim
    before, after = list(pad), list(pad)
    before[axis], after[axis] = (1, 0), (0, 1)
    residual = y - (x - jnp.pad(u, before) + jnp.pad(u, after))
    return jnp.sum(variation, axis=axis) + 0.5 * jnp.sum(residual**2, axis=axis)


def max_lambda(x: ArrayLike, axes: int | Sequence[int]) -> Array:
    r"""Smallest λ whose prox is constant, per batch element.

    One axis: $\lambda_{\max}=\max_e|\sum_{j\le e}(x_j-\bar x)|$. More axes: Dinkelbach's method
    on $\lambda_{\max}=\max_y\langle x-\bar x, y\rangle/\mathrm{TV}(y)$. In each step y is the prox
    at the present λ (64 Dykstra sweeps), and the next λ is the best ratio of y and 32 of its level
    sets. λ climbs, never exceeds λ_max, and stops where a step gains less than 1e-6 of it.

    Args:
        x: array of float32, float64, bfloat16 or float16.
        axes: the axes of the prox.

    Returns:
        Array shaped as x without `axes`, in the units and dtype of x (half types: float32). It has
        no derivative for two and more axes.

    Raises:
        TypeError, ValueError: as `prox_tv`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([0.0, 0.0, 4.0, 4.0])
        >>> jaxtv.max_lambda(x, 0)
        Array(4., dtype=float32)
        >>> jaxtv.prox_tv1d(x, 4.0)
        Array([2., 2., 2., 2.], dtype=float32)
    """
    x, resolved, _ = _checked(x, 0.0, axes)
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
        variation = weighted_variation(y, _arguments.weights(1.0, y, axes), axes)
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


def _checked(x, lam, axes) -> tuple[Array, tuple[int, ...], tuple[Array, ...]]:
    """(x in the dtype that it is computed in, the axes counted from the first, weights)."""
    x = _arguments.float_array(x, "x")
    resolved = _arguments.resolve_axes(_arguments.named_axes(axes), x)
    x = x.astype(compute_dtype(x.dtype))
    return x, resolved, _arguments.weights(lam, x, resolved)
