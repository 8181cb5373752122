"""The public prox functions: normalise axes and λ, bind the primitives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxtv import _arguments, _data_weight, _data_weight_nd, _overflow, _primitive
from jaxtv._arguments import Lam
from jaxtv._dtypes import compute_dtype
from jaxtv._solvers import (
    AcceleratedDykstra,
    Direct,
    Dykstra,
    Solver1D,
    SolverND,
    check_data_weight,
    fitting_1d,
    fitting_solver,
)

Dual = tuple[Array, ...]


class Info(NamedTuple):
    """What a solver says about its result, one entry per batch element (x without the prox axes).

    Attributes:
        gap: duality gap g, a certificate: ‖y − y*‖² ≤ 2g, in the units of x squared. With a
            `data_weight` a, Σ aᵢ(yᵢ − y*ᵢ)² ≤ 2g. Its dtype is the one that was computed in: x's,
            float32 for half types.
        iterations: int32. Newton steps of `ProjectedNewton`, sweeps of `Dykstra` and
            `AcceleratedDykstra`, 1 for `Direct`, 0 where the signal is not finite. Steps of the
            search for λ in `project_tv_ball` and `denoise_discrepancy`.
        converged: bool. `ProjectedNewton` and `AcceleratedDykstra`: the gap is within `tol` of the
            objective. `Direct`: the result is finite. `Dykstra`, which makes a fixed number of
            sweeps: the gap is at most 1e-5 of the objective.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
        >>> y, info = jaxtv.prox_tv1d(x, 1.0, return_info=True)
        >>> info.gap
        Array([0., 0.], dtype=float32)
        >>> info.converged
        Array([ True,  True], dtype=bool)
    """

    gap: Array
    iterations: Array
    converged: Array


@overload
def prox_tv1d(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axis: int = -1,
    solver: Solver1D = ...,
    data_weight: ArrayLike | None = None,
    return_info: Literal[False] = False,
) -> Array: ...
@overload
def prox_tv1d(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axis: int = -1,
    solver: Solver1D = ...,
    data_weight: ArrayLike | None = None,
    return_info: Literal[True],
) -> tuple[Array, Info]: ...
@overload
def prox_tv1d(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axis: int = -1,
    solver: Solver1D = ...,
    data_weight: ArrayLike | None = None,
    return_info: bool,
) -> Array | tuple[Array, Info]: ...
def prox_tv1d(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axis: int = -1,
    solver: Solver1D = Direct(),  # noqa: B008 (frozen)
    data_weight: ArrayLike | None = None,
    return_info: bool = False,
) -> Array | tuple[Array, Info]:
    r"""Prox of 1D total variation along one axis (paper, Eq. 1).

    Computes $\arg\min_y\,\tfrac12\|y-x\|^2 + \sum_e \lambda_e |y_{e+1}-y_e|$ for every signal along
    `axis`. Differentiable in x and λ, in forward and reverse mode, at any order. The Jacobian is
    Eq. 8 of the paper (Yeh, Hu, Ren & Schwing, CVPR 2022), evaluated as segment means.

    Args:
        x: array (..., n, ...) of float32, float64, bfloat16 or float16. Half types are computed in
            float32. A signal with a NaN or an infinity becomes NaN.
        lam: λ ≥ 0 in the units of x; broadcasts against x with size 1 (one λ per signal) or n-1
            (one weight per edge) along `axis`. λ = 0 gives x bit for bit, λ = inf the mean. Under
            `jit` a negative or NaN λ makes its signals NaN.
        axis: the axis of the signals.
        solver: `Direct()` or `ProjectedNewton()`.
        data_weight: a ≥ 0, the weight of each sample: minimises $\tfrac12\sum_i a_i(y_i-x_i)^2$
            plus total variation, and is differentiable in a too. A float array that broadcasts
            against x, or a mask of bools, True where the sample is known. Where a = 0 the sample
            is missing: x there plays no part, and may be NaN. docs/nd-and-weights.md says what y
            is there. `solver` must be `Direct()`.
        return_info: also return an `Info`.

    Returns:
        y, shaped and typed as x; with `return_info` the pair (y, Info).

    Raises:
        TypeError: x, `lam` or `data_weight` is not a float array, `solver` is not a 1D solver, or
            does not go with `data_weight`.
        ValueError: `axis` is out of range, `lam` or `data_weight` does not fit, a concrete λ is
            negative or NaN, or a concrete `data_weight` is negative, infinite or NaN.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([0.0, 0.0, 4.0, 4.0])
        >>> jaxtv.prox_tv1d(x, 1.0)
        Array([0.5, 0.5, 3.5, 3.5], dtype=float32)
        >>> jax.jacobian(jaxtv.prox_tv1d, argnums=1)(x, 1.0)
        Array([ 0.5,  0.5, -0.5, -0.5], dtype=float32, weak_type=True)
        >>> jaxtv.prox_tv1d(x, jnp.array([1.0, 0.0, 1.0]))  # one weight per edge
        Array([0., 0., 4., 4.], dtype=float32)
        >>> known = jnp.array([True, False, True, True])
        >>> jaxtv.prox_tv1d(x, 1.0, data_weight=known)  # 1, -, 4 - 1/2, 4 - 1/2
        Array([1. , 3.5, 3.5, 3.5], dtype=float32)
    """
    axes = (_arguments.integer(axis, "axis"),)
    return _prox(x, lam, axes, "axis", fitting_1d(solver), return_info, data_weight)


@overload
def prox_tv2d(
    X: ArrayLike,
    lam: Lam,
    *,
    axes: Sequence[int] | None = None,
    solver: SolverND = ...,
    data_weight: ArrayLike | None = None,
    return_info: Literal[False] = False,
) -> Array: ...
@overload
def prox_tv2d(
    X: ArrayLike,
    lam: Lam,
    *,
    axes: Sequence[int] | None = None,
    solver: SolverND = ...,
    data_weight: ArrayLike | None = None,
    return_info: Literal[True],
) -> tuple[Array, Info]: ...
@overload
def prox_tv2d(
    X: ArrayLike,
    lam: Lam,
    *,
    axes: Sequence[int] | None = None,
    solver: SolverND = ...,
    data_weight: ArrayLike | None = None,
    return_info: bool,
) -> Array | tuple[Array, Info]: ...
def prox_tv2d(
    X: ArrayLike,
    lam: Lam,
    *,
    axes: Sequence[int] | None = None,
    solver: SolverND = Dykstra(iterations=4),  # noqa: B008 (frozen)
    data_weight: ArrayLike | None = None,
    return_info: bool = False,
) -> Array | tuple[Array, Info]:
    r"""Prox of anisotropic 2D total variation over two axes (paper, Eq. 2 and Algorithm 1).

    Approximates $\arg\min_Y\,\tfrac12\|Y-X\|^2 + \lambda_0\|D_0Y\|_1 + \lambda_1\|D_1Y\|_1$ by a
    fixed number of Dykstra sweeps. The last of `axes` is solved first (rows first, as in the
    paper). The derivative differentiates the unrolled sweeps; it stores 2 bits per pixel and pass.
    `AcceleratedDykstra` gives the solution itself, to a tolerance, and its derivative.

    Args:
        X: array with the two `axes` anywhere, e.g. (..., H, W) or (N, H, W, C) with
            `axes=(-3, -2)`; dtypes as for `prox_tv1d`. An image with a NaN or an infinity becomes
            NaN, no other image changes.
        lam: λ ≥ 0, an array that broadcasts against X with size 1 along both axes (a shape (C,) is
            per channel when channels are last), or a pair, one entry per axis in the order of
            `axes`; an entry has size 1 or n-1 along its own axis.
        axes: the two axes. None is for a matrix; an X of more dimensions must name them.
        solver: `Dykstra(iterations=K, inner=...)`, or `AcceleratedDykstra(tol=...)` for the
            solution itself, with its implicit derivative.
        data_weight: as for `prox_tv`.
        return_info: also return an `Info`.

    Returns:
        Y, shaped and typed as X; with `return_info` the pair (Y, Info).

    Raises:
        TypeError: X, `lam` or `data_weight` is not a float array, or `solver` is a 1D solver.
        ValueError: X has more than two dimensions and `axes` is None; `axes`, `lam` or
            `data_weight` do not fit X; a concrete λ or `data_weight` is negative or NaN.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> X = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
        >>> jaxtv.prox_tv2d(X, 1.0)
        Array([[0.5, 0.5, 3.5, 3.5],
               [0.5, 0.5, 3.5, 3.5]], dtype=float32)
        >>> images = jnp.stack([X, X], axis=-1)[None]  # (N, H, W, C)
        >>> jaxtv.prox_tv2d(images, jnp.array([1.0, 2.0]), axes=(-3, -2)).shape  # λ per channel
        (1, 2, 4, 2)
    """
    X = _arguments.float_array(X, "X")
    axes = _arguments.image_axes(axes, X)
    return prox_tv(
        X, lam, axes=axes, solver=solver, data_weight=data_weight, return_info=return_info
    )


@overload
def prox_tv(
    x: ArrayLike,
    lam: Lam,
    *,
    axes: int | Sequence[int],
    solver: Solver1D | SolverND | None = None,
    data_weight: ArrayLike | None = None,
    return_info: Literal[False] = False,
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: Literal[False] = False,
) -> Array: ...
@overload
def prox_tv(
    x: ArrayLike,
    lam: Lam,
    *,
    axes: int | Sequence[int],
    solver: Solver1D | SolverND | None = None,
    data_weight: ArrayLike | None = None,
    return_info: Literal[True],
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: Literal[False] = False,
) -> tuple[Array, Info]: ...
@overload
def prox_tv(
    x: ArrayLike,
    lam: Lam,
    *,
    axes: int | Sequence[int],
    solver: Solver1D | SolverND | None = None,
    data_weight: ArrayLike | None = None,
    return_info: Literal[False] = False,
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: Literal[True],
) -> tuple[Array, Dual]: ...
@overload
def prox_tv(
    x: ArrayLike,
    lam: Lam,
    *,
    axes: int | Sequence[int],
    solver: Solver1D | SolverND | None = None,
    data_weight: ArrayLike | None = None,
    return_info: Literal[True],
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: Literal[True],
) -> tuple[Array, Info, Dual]: ...
@overload
def prox_tv(
    x: ArrayLike,
    lam: Lam,
    *,
    axes: int | Sequence[int],
    solver: Solver1D | SolverND | None = None,
    data_weight: ArrayLike | None = None,
    return_info: bool,
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: Literal[False] = False,
) -> Array | tuple[Array, Info]: ...
@overload
def prox_tv(
    x: ArrayLike,
    lam: Lam,
    *,
    axes: int | Sequence[int],
    solver: Solver1D | SolverND | None = None,
    data_weight: ArrayLike | None = None,
    return_info: bool = False,
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: bool = False,
) -> Array | tuple[Array, Info] | tuple[Array, Dual] | tuple[Array, Info, Dual]: ...
def prox_tv(
    x: ArrayLike,
    lam: Lam,
    *,
    axes: int | Sequence[int],
    solver: Solver1D | SolverND | None = None,
    data_weight: ArrayLike | None = None,
    return_info: bool = False,
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: bool = False,
) -> Array | tuple[Array, Info] | tuple[Array, Dual] | tuple[Array, Info, Dual]:
    r"""Prox of anisotropic total variation over any number of axes.

    Computes $\arg\min_y\,\tfrac12\|y-x\|^2 + \sum_a \sum_e \lambda_{a,e} |(D_a y)_e|$. One axis is
    solved exactly (`prox_tv1d`), more by cyclic Dykstra, the last of `axes` first, or to
    convergence by `AcceleratedDykstra`. It can start where another solve ended, at a similar x and
    λ; the state is explicit, as in optax.

    Args:
        x: array of float32, float64, bfloat16 or float16.
        lam: as for `prox_tv1d` and `prox_tv2d`.
        axes: one axis or several distinct ones.
        solver: a 1D solver for one axis (default `Direct()`), `Dykstra` or `AcceleratedDykstra`
            for more (default `Dykstra(iterations=4)`).
        data_weight: a ≥ 0, the weight of each sample, as for `prox_tv1d`. Over several axes
            `Dykstra` needs a > 0, as it divides by it, and its derivative stores the result of
            every pass. `AcceleratedDykstra` takes a = 0 too. It then iterates by alternating
            directions, with the same certificate and tolerance.
        return_info: also return an `Info`.
        init_dual: for `AcceleratedDykstra`, where to start: the dual of a solve with the same
            `axes`, one array shaped as x for each of them but the last. Any values will do (a
            non-finite one counts as 0). The solution does not depend on it beyond `tol`, and so
            it has no derivative.
        return_dual: for `AcceleratedDykstra`, also return such a dual; it has no derivative.

    Returns:
        y, shaped and typed as x. With `return_info` the pair (y, Info), with `return_dual` the pair
        (y, dual), with both (y, Info, dual).

    Raises:
        TypeError: x, `lam` or `data_weight` is not a float array, `solver` does not fit the number
            of axes or `data_weight`, or `init_dual` or `return_dual` is used with another solver
            than `AcceleratedDykstra`.
        ValueError: `axes`, `lam`, `data_weight` or `init_dual` do not fit x, a concrete λ is
            negative or NaN, or a concrete `data_weight` is negative, infinite, NaN, or 0 with
            `Dykstra`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
        >>> jaxtv.prox_tv(x, (0.0, 1.0), axes=(0, 1))
        Array([[0.5, 0.5, 3.5, 3.5],
               [0.5, 0.5, 3.5, 3.5]], dtype=float32)
        >>> options = {"axes": (0, 1), "solver": jaxtv.AcceleratedDykstra(tol=1e-6)}
        >>> y, dual = jaxtv.prox_tv(x, 1.0, **options, return_dual=True)
        >>> y, info = jaxtv.prox_tv(x, 1.0, **options, init_dual=dual, return_info=True)
        >>> info.converged
        Array(True, dtype=bool)
    """
    axes = _arguments.named_axes(axes)
    solver = fitting_solver(solver, len(axes))
    if isinstance(solver, AcceleratedDykstra) and data_weight is not None:
        if init_dual is not None or return_dual:
            raise TypeError("`init_dual` and `return_dual` do not go with `data_weight`.")
        return _converged_weighted(x, lam, axes, solver, data_weight, return_info)
    if isinstance(solver, AcceleratedDykstra):
        y, info, dual = _converged(x, lam, axes, solver, init_dual)
        if return_dual:
            return (y, info, dual) if return_info else (y, dual)
        return (y, info) if return_info else y
    if init_dual is not None or return_dual:
        raise TypeError(
            f"`init_dual` and `return_dual` need `solver=AcceleratedDykstra(...)` and two axes or "
            f"more, got solver={solver!r} and axes={axes!r}."
        )
    return _prox(x, lam, axes, "axes", solver, return_info, data_weight)


def _prox(
    x: ArrayLike,
    lam: Lam,
    axes: tuple[int, ...],
    axes_name: str,
    solver: Solver1D | Dykstra,
    return_info: bool,
    data_weight: ArrayLike | None,
) -> Array | tuple[Array, Info]:
    x = _arguments.float_array(x, "x")
    axes = _arguments.resolve_axes(axes, x, axes_name)
    ws = _arguments.weights(lam, x, axes)
    # Info certifies the result before it is rounded to a half type.
    work = x.astype(compute_dtype(x.dtype)) if return_info or data_weight is not None else x
    a = None
    if data_weight is not None:
        check_data_weight(solver)
        a = _arguments.data_weight(data_weight, x, axes, isinstance(solver, Dykstra))
    if work.size == 0:
        y, info = work, empty_info(work, axes)
    elif a is not None:
        y, info = _weighted(work, ws, a, axes, solver, return_info)
    elif isinstance(solver, Dykstra):
        y, info = _dykstra(work, ws, axes, solver, return_info)
    elif return_info:
        y, *rest = _primitive.prox1d_info(work, ws[0], axis=axes[0], solver=solver)
        info = Info(*(jnp.squeeze(r, axes[0]) for r in rest))
    else:
        y, info = _primitive.prox1d(work, ws[0], axis=axes[0], solver=solver), None
    y = y.astype(x.dtype)
    return y if info is None or not return_info else (y, info)


def _weighted(
    x: Array,
    ws: tuple[Array, ...],
    a: Array,
    axes: tuple[int, ...],
    solver: Solver1D | Dykstra,
    return_info: bool,
) -> tuple[Array, Info | None]:
    if isinstance(solver, Dykstra):
        y = _data_weight.dykstra(x, a, ws[::-1], axes=axes[::-1], iterations=solver.iterations)
        return y, _dykstra_info(x, y, ws, axes, solver, a) if return_info else None
    if not return_info:
        return _data_weight.prox1d(x, a, ws[0], axis=axes[0]), None
    y, gap = _data_weight.prox1d_info(x, a, ws[0], axis=axes[0])
    solved = jnp.all(jnp.isfinite(y), axis=axes)
    return y, Info(jnp.where(solved, gap, jnp.nan), solved.astype(jnp.int32), solved)


def _dykstra(
    x: Array, ws: tuple[Array, ...], axes: tuple[int, ...], solver: Dykstra, return_info: bool
) -> tuple[Array, Info | None]:
    order = axes[::-1]  # the last axis is swept first: rows, then columns
    y = _primitive.dykstra(
        x, ws[::-1], axes=order, iterations=solver.iterations, inner=solver.inner
    )
    return y, _dykstra_info(x, y, ws, axes, solver) if return_info else None


def _dykstra_info(
    x: Array,
    y: Array,
    ws: tuple[Array, ...],
    axes: tuple[int, ...],
    solver: Dykstra,
    a: ArrayLike = 1.0,
) -> Info:
    # a (x - y) is dual feasible by construction, and so this is a certificate (see duality_gap).
    factor, (small_x, small_y, *small_ws) = _overflow.scaled_for_squares(axes, x, y, *ws)
    gap, objective = _feasible_gap(small_x, small_y, small_ws, axes, a)
    finite = jnp.all(jnp.isfinite(y), axis=axes)
    iterations = jnp.where(finite, jnp.int32(solver.iterations), jnp.int32(0))
    converged = finite & (gap <= 1e-5 * objective)
    return Info(_overflow.unscaled_square(gap, factor), iterations, converged)


def _converged(
    x: ArrayLike,
    lam: Lam,
    axes: tuple[int, ...],
    solver: AcceleratedDykstra,
    init_dual: Sequence[ArrayLike] | None,
) -> tuple[Array, Info, Dual]:
    x = _arguments.float_array(x, "x")
    axes = _arguments.resolve_axes(axes, x)
    work = x.astype(compute_dtype(x.dtype))
    ws = _arguments.weights(lam, work, axes)
    dual = _arguments.start_duals(init_dual, work, len(axes) - 1)
    if work.size == 0:
        return x, empty_info(work, axes), dual
    y, gap, iterations, converged, *dual = _primitive.converged(
        work, dual, ws[::-1], axes=axes[::-1], solver=solver
    )
    info = Info(*(jnp.squeeze(v, axes) for v in (gap, iterations, converged)))
    return y.astype(x.dtype), info, tuple(dual)


def _converged_weighted(
    x: ArrayLike,
    lam: Lam,
    axes: tuple[int, ...],
    solver: AcceleratedDykstra,
    data_weight: ArrayLike,
    return_info: bool,
) -> Array | tuple[Array, Info]:
    check_data_weight(solver)
    x = _arguments.float_array(x, "x")
    axes = _arguments.resolve_axes(axes, x)
    ws = _arguments.weights(lam, x, axes)
    a = _arguments.data_weight(data_weight, x, axes, none_missing=False)
    work = x.astype(compute_dtype(x.dtype))
    if work.size == 0:
        return (x, empty_info(work, axes)) if return_info else x
    y, info = _data_weight_nd.converged(work, a, ws[::-1], axes[::-1], solver)
    y = y.astype(x.dtype)
    return (y, Info(*(jnp.squeeze(v, axes) for v in info))) if return_info else y


def bounded_weights(
    x: Array, ws: Sequence[Array], axes: tuple[int, ...], a: ArrayLike = 1.0
) -> list[Array]:
    """Weights cut down to a bound that no dual exceeds: λ = inf has a finite gap.

    The bound is Σ a|x − c| for any c between the least and the largest sample.
    """
    away = a * jnp.abs(x - jnp.mean(x, axis=axes, keepdims=True))
    bound = jnp.sum(away, axis=axes, keepdims=True)
    return [jnp.minimum(w, bound) for w in ws]


def _feasible_gap(
    x: Array, y: Array, ws: Sequence[Array], axes: tuple[int, ...], a: ArrayLike
) -> tuple[Array, Array]:
    """Duality gap Σ w|Dy| − ⟨a(x − y), y⟩ where a(x − y) is dual feasible, and the objective."""
    tv = weighted_variation(y, bounded_weights(x, ws, axes, a), axes)
    centred = y - jnp.mean(y, axis=axes, keepdims=True)
    gap = tv - jnp.sum(a * (x - y) * centred, axis=axes)
    return jnp.maximum(gap, 0), tv + 0.5 * jnp.sum(a * (x - y) ** 2, axis=axes)


def weighted_variation(x: Array, ws: Sequence[Array], axes: tuple[int, ...]) -> Array:
    """Σ w|Dx| over all edges of the given axes, per batch element; an edge without a jump is 0."""
    total = jnp.zeros((), x.dtype)
    for w, axis in zip(ws, axes):
        total = total + jnp.sum(times_jump(w, jnp.diff(x, axis=axis)), axis=axes)
    return total


@jax.custom_jvp
def times_jump(w: Array, jump: Array) -> Array:
    """The product w · |jump|, and 0 where nothing jumps, whatever the weight: ∞ · 0 is NaN."""
    return jnp.where(jump == 0, 0, _of_jumps(w, jump) * jnp.abs(jump))


@times_jump.defjvp
def _times_jump_jvp(primals, tangents):
    (w, jump), (tw, t_jump) = primals, tangents
    by_w = jnp.where(jump == 0, 0, tw * jnp.abs(jump))
    by_jump = jnp.where(jump == 0, 0, _of_jumps(w, jump) * (jnp.sign(jump) * t_jump))
    return times_jump(w, jump), by_w + by_jump


def _of_jumps(w: Array, jump: Array) -> Array:
    return jnp.where(jump == 0, 0, w)


def empty_info(x: Array, axes: tuple[int, ...]) -> Info:
    shape = tuple(d for i, d in enumerate(x.shape) if i not in axes)
    return Info(jnp.zeros(shape, x.dtype), jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool))
