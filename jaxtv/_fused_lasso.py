"""The sparse fused lasso with bounds: total variation, absolute values and a box in one prox.

Let φ be convex and the same for every sample. Then prox_{TV+Σφ} = prox_φ ∘ prox_TV, for any graph
and any edge weights (Friedman, Hastie, Höfling & Tibshirani 2007; Yu 2013). The reason: prox_φ is
monotone, so no jump of y changes its sign, and the dual of y stays optimal.

The certificate of prox_TV holds here too. Let y have the gap g with the dual u, z = prox_φ(y), and
r = x − Dᵀu. Every edge term w|Dz| − uDz is at most that of y, because prox_φ is monotone and
1-Lipschitz. The other terms of the gap are h(z) − min h with h(t) = ½‖t − r‖² + Σφ(t). They are at
most ½‖y − r‖², because y − r is a subgradient of the 1-strongly convex h at z. So the gap of z is
at most g.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxtv import _arguments
from jaxtv._arguments import Lam
from jaxtv._dtypes import compute_dtype
from jaxtv._prox import Info, prox_tv
from jaxtv._solvers import Solver1D, SolverND


@overload
def prox_fused_lasso(
    x: ArrayLike,
    lam: Lam,
    l1: ArrayLike = ...,
    *,
    axes: int | Sequence[int],
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    solver: Solver1D | SolverND | None = None,
    return_info: Literal[False] = False,
) -> Array: ...
@overload
def prox_fused_lasso(
    x: ArrayLike,
    lam: Lam,
    l1: ArrayLike = ...,
    *,
    axes: int | Sequence[int],
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    solver: Solver1D | SolverND | None = None,
    return_info: Literal[True],
) -> tuple[Array, Info]: ...
@overload
def prox_fused_lasso(
    x: ArrayLike,
    lam: Lam,
    l1: ArrayLike = ...,
    *,
    axes: int | Sequence[int],
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    solver: Solver1D | SolverND | None = None,
    return_info: bool,
) -> Array | tuple[Array, Info]: ...
def prox_fused_lasso(
    x: ArrayLike,
    lam: Lam,
    l1: ArrayLike = 0.0,
    *,
    axes: int | Sequence[int],
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    solver: Solver1D | SolverND | None = None,
    return_info: bool = False,
) -> Array | tuple[Array, Info]:
    r"""Prox of total variation plus absolute values, within bounds (sparse fused lasso).

    Computes $\arg\min_y\,\tfrac12\|y-x\|^2+\sum_a\sum_e\lambda_{a,e}|(D_ay)_e|+\ell_1\|y\|_1$ over
    all y with lower ≤ y ≤ upper (Tibshirani, Saunders, Rosset, Zhu & Knight 2005). It is `prox_tv`,
    then soft thresholding by ℓ₁, then a clip: exact if the solver is (Friedman et al. 2007).
    Differentiable in x, λ, `l1` and both bounds, in forward and reverse mode, at any order.

    Args:
        x: array of float32, float64, bfloat16 or float16. Half types are computed in float32.
        lam: as for `prox_tv`.
        l1: ℓ₁ ≥ 0 in the units of x, a number or one per batch element: an array that broadcasts
            against x with size 1 along `axes`. `l1=inf` gives 0, or the bound nearest to it.
        axes: one axis or several distinct ones.
        lower: least value of y, as `l1` a number or one per batch element; None for no bound.
        upper: largest value of y, likewise.
        solver: as for `prox_tv`.
        return_info: also return an `Info`. Its gap is the gap of the TV step, which bounds the gap
            of y. So ‖y − y*‖² ≤ 2 gap.

    Returns:
        y, shaped and typed as x; with `return_info` the pair (y, Info). Under `jit` a negative or
        NaN `l1`, or a `lower` above `upper`, makes its batch elements NaN.

    Raises:
        TypeError: as `prox_tv`; `l1`, `lower` or `upper` is not a number or a float array.
        ValueError: as `prox_tv`; `l1`, `lower` or `upper` does not fit x, a concrete one is NaN or
            infinite on the wrong side, `l1` is negative, or `lower` is above `upper`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([0.0, 0.0, 4.0, 4.0])
        >>> jaxtv.prox_fused_lasso(x, 1.0, 1.0, axes=0)
        Array([0. , 0. , 2.5, 2.5], dtype=float32)
        >>> jaxtv.prox_fused_lasso(x, 1.0, axes=0, lower=1.0, upper=3.0)
        Array([1., 1., 3., 3.], dtype=float32)
    """
    x = _arguments.float_array(x, "x")
    axes = _arguments.resolve_axes(_arguments.named_axes(axes), x)
    l1 = _arguments.not_negative(l1, "l1", x, axes)
    lower, upper = _arguments.bounds(lower, upper, x, axes)
    work = x.astype(compute_dtype(x.dtype))
    out = prox_tv(work, lam, axes=axes, solver=solver, return_info=return_info)
    y, info = out if isinstance(out, tuple) else (out, None)
    y = _clip(_soft_threshold(y, l1), lower, upper)
    y = jnp.where((l1 >= 0) & (lower <= upper), y, jnp.nan).astype(x.dtype)
    return y if info is None else (y, info)


def _soft_threshold(y: Array, l1: Array) -> Array:
    """Without a kink at l1 = 0, where its derivative in y is 1; NaN stays NaN."""
    inside = jnp.where(l1 > 0, y - y, y)
    return jnp.where(y > l1, y - l1, jnp.where(y < -l1, y + l1, inside))


def _clip(y: Array, lower: Array, upper: Array) -> Array:
    """`jnp.clip`, whose derivative at a bound is 1/2; this one is 1, as within the bounds."""
    return jnp.where(y < lower, lower, jnp.where(y > upper, upper, y))
