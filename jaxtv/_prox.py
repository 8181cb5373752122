"""The public prox functions: check arguments, normalise axes and λ, bind the primitives."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxtv import _primitive
from jaxtv._solvers import AcceleratedDykstra, Direct, Dykstra, Solver1D, SolverND

Lam = ArrayLike | Sequence[ArrayLike]

_FLOATS = ("float32", "float64", "bfloat16", "float16")


class Info(NamedTuple):
    """What a solver says about its result, one entry per batch element (x without the prox axes).

    Attributes:
        gap: duality gap g, a certificate: ‖y − y*‖² ≤ 2g. Float, in the dtype that was computed in.
        iterations: int32. Newton steps of `ProjectedNewton`, sweeps of `Dykstra` and
            `AcceleratedDykstra`, 1 for the exact
            1D solvers, 0 where the signal is not finite.
        converged: bool. `ProjectedNewton`: the gap is within `tol` of the objective. Exact 1D
            solvers: the result is finite. `Dykstra`, which makes a fixed number of sweeps: the gap
            is at most 1e-5 of the objective.
    """

    gap: Array
    iterations: Array
    converged: Array


def prox_tv1d(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axis: int = -1,
    solver: Solver1D = Direct(),  # noqa: B008 (frozen)
    return_info: bool = False,
) -> Any:
    r"""Prox of 1D total variation along one axis (paper, Eq. 1).

    Computes $\arg\min_y\,\tfrac12\|y-x\|^2 + \sum_e \lambda_e |y_{e+1}-y_e|$ for every signal along
    `axis`. Differentiable in x and λ in both modes and at any order; the Jacobian is the paper's
    Eq. 8, evaluated as segment means.

    Args:
        x: array (..., n, ...) of float32, float64, bfloat16 or float16. Half types are computed in
            float32 and returned as they came. A signal with a NaN or an infinity becomes NaN.
        lam: λ ≥ 0 in the units of x; broadcasts against x with size 1 (one λ per signal) or n-1
            (one weight per edge) along `axis`. λ = 0 gives x bit for bit, λ = inf the mean. Under
            `jit` a negative or NaN λ makes its signals NaN.
        axis: the axis of the signals.
        solver: `Direct()` or `ProjectedNewton()`.
        return_info: also return an `Info`.

    Returns:
        y, shaped and typed as x; with `return_info` the pair (y, Info).

    Raises:
        TypeError: x or `lam` is not a float array, or `solver` is not a 1D solver.
        ValueError: `axis` is out of range, `lam` does not fit, or a concrete λ is negative or NaN.
    """
    return _prox1d(x, lam, _as_axis(axis, "axis"), "axis", solver, return_info)


def prox_tv2d(
    X: ArrayLike,
    lam: Lam,
    *,
    axes: Sequence[int] = (-2, -1),
    solver: SolverND = Dykstra(iterations=4),  # noqa: B008 (frozen)
    return_info: bool = False,
) -> Any:
    r"""Prox of anisotropic 2D total variation over two axes (paper, Eq. 2 and Algorithm 1).

    Approximates $\arg\min_Y\,\tfrac12\|Y-X\|^2 + \lambda_0\|D_0Y\|_1 + \lambda_1\|D_1Y\|_1$ by a
    fixed number of Dykstra sweeps; the last of `axes` is solved first (rows first, as the paper).
    The derivative is that of the unrolled sweeps; it needs 2 bits per pixel and pass. With
    `AcceleratedDykstra` it is the solution itself, to a tolerance, and its derivative.

    Args:
        X: array with the two `axes` anywhere, e.g. (..., H, W) or (N, H, W, C) with
            `axes=(-3, -2)`; dtypes as for `prox_tv1d`. An image with a NaN or an infinity becomes
            NaN, no other one changes.
        lam: λ ≥ 0, an array that broadcasts against X with size 1 along both axes (a shape (C,) is
            per channel when channels are last), or a pair, one entry per axis in the order of
            `axes`; an entry has size 1 or n-1 along its own axis.
        axes: the two axes.
        solver: `Dykstra(iterations=K, inner=...)`, or `AcceleratedDykstra(tol=...)` for the
            solution itself, with its implicit derivative.
        return_info: also return an `Info`.

    Returns:
        Y, shaped and typed as X; with `return_info` the pair (Y, Info).

    Raises:
        TypeError: X or `lam` is not a float array, or `solver` is a 1D solver.
        ValueError: `axes` or `lam` do not fit X, or a concrete λ is negative or NaN.
    """
    axes = _as_axes(axes)
    if len(axes) != 2:
        raise ValueError(f"`axes` must name two axes, got {axes!r}.")
    return prox_tv(X, lam, axes=axes, solver=solver, return_info=return_info)


def prox_tv(
    x: ArrayLike,
    lam: Lam,
    *,
    axes: int | Sequence[int],
    solver: Solver1D | SolverND | None = None,
    return_info: bool = False,
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: bool = False,
) -> Any:
    r"""Prox of anisotropic total variation over any number of axes.

    Computes $\arg\min_y\,\tfrac12\|y-x\|^2 + \sum_a \sum_e \lambda_{a,e} |(D_a y)_e|$. One axis is
    solved exactly (`prox_tv1d`), more by cyclic Dykstra, the last of `axes` first, or to
    convergence by `AcceleratedDykstra`.

    `AcceleratedDykstra` can start where another solve ended, at a similar x and λ. The state is
    explicit, as in optax:

        y, dual = prox_tv(x, lam, axes=axes, solver=solver, return_dual=True)
        z, dual = prox_tv(x2, lam2, axes=axes, solver=solver, init_dual=dual, return_dual=True)

    Args:
        x: array of float32, float64, bfloat16 or float16.
        lam: as for `prox_tv1d` and `prox_tv2d`.
        axes: one axis or several distinct ones.
        solver: a 1D solver for one axis (default `Direct()`), `Dykstra` or `AcceleratedDykstra`
            for more (default `Dykstra(iterations=4)`).
        return_info: also return an `Info`.
        init_dual: for `AcceleratedDykstra`, where to start: the dual of a solve with the same
            `axes`, one array shaped as x for each of them but the last. Any values will do (a
            non-finite one counts as 0). The solution does not depend on it beyond `tol`, and so
            it has no derivative.
        return_dual: for `AcceleratedDykstra`, also return such a dual; it has no derivative.

    Returns:
        y, shaped and typed as x; with `return_info` or `return_dual` the tuple of y, Info, dual,
        without what was not asked for.

    Raises:
        TypeError: x or `lam` is not a float array, `solver` does not fit the number of axes, or a
            dual was given to, or asked of, a solver without one.
        ValueError: `axes`, `lam` or `init_dual` do not fit x, or a concrete λ is negative or NaN.
    """
    axes = _as_axes(axes)
    if isinstance(solver, AcceleratedDykstra) and len(axes) > 1:
        y, info, dual = _converged(x, lam, axes, solver, init_dual)
        out = (y, *([info] if return_info else []), *([dual] if return_dual else []))
        return out if len(out) > 1 else y
    if init_dual is not None or return_dual:
        raise TypeError(
            f"`init_dual` and `return_dual` need `solver=AcceleratedDykstra(...)` and two axes or "
            f"more, got solver={solver!r} and axes={axes!r}."
        )
    if len(axes) == 1:
        return _prox1d(x, lam, axes[0], "axes", Direct() if solver is None else solver, return_info)
    solver = Dykstra(iterations=4) if solver is None else solver
    if not isinstance(solver, SolverND):
        raise TypeError(
            f"`solver` must be Dykstra or AcceleratedDykstra for {len(axes)} axes, got {solver!r}. "
            "A 1D solver goes inside it: Dykstra(inner=...)."
        )
    return _prox(x, lam, axes, "axes", solver, return_info)


def _prox1d(x, lam, axis: int, axis_name: str, solver, return_info: bool):
    if not isinstance(solver, Solver1D):
        raise TypeError(
            "`solver` must be a 1D solver (Direct or ProjectedNewton) "
            f"for one axis, got {solver!r}. Dykstra solves two and more: prox_tv2d or prox_tv."
        )
    return _prox(x, lam, (axis,), axis_name, solver, return_info)


def _prox(x, lam, axes: tuple[int, ...], axes_name: str, solver, return_info: bool):
    x = as_float_array(x, "x")
    axes = resolve_axes(axes, x.ndim, axes_name)
    ws = normalise_lam(lam, x, axes)
    # Info certifies the result before it is rounded to a half type.
    work = x.astype(_primitive.compute_dtype(x.dtype)) if return_info else x
    if work.size == 0:
        y, info = work, _empty_info(work, axes)
    elif isinstance(solver, Dykstra):
        y, info = _dykstra(work, ws, axes, solver, return_info)
    elif return_info:
        y, *rest = _primitive.prox1d_info(work, ws[0], axis=axes[0], solver=solver)
        info = Info(*(jnp.squeeze(r, axes[0]) for r in rest))
    else:
        y, info = _primitive.prox1d(work, ws[0], axis=axes[0], solver=solver), None
    y = y.astype(x.dtype)
    return (y, info) if return_info else y


def _dykstra(x, ws, axes, solver: Dykstra, return_info: bool):
    order = axes[::-1]  # the last axis is swept first: rows, then columns
    y = _primitive.dykstra(
        x, ws[::-1], axes=order, iterations=solver.iterations, inner=solver.inner
    )
    if not return_info:
        return y, None
    # x - y is dual feasible by construction, and so this is a certificate (see duality_gap).
    unit, (small_x, small_y, *small_ws) = without_overflow(axes, x, y, *ws)
    gap, objective = feasible_gap(small_x, small_y, small_ws, axes)
    finite = jnp.all(jnp.isfinite(y), axis=axes)
    iterations = jnp.where(finite, jnp.int32(solver.iterations), jnp.int32(0))
    return y, Info(gap / unit / unit, iterations, finite & (gap <= 1e-5 * objective))


def _converged(x, lam, axes, solver: AcceleratedDykstra, init_dual):
    x = as_float_array(x, "x")
    axes = resolve_axes(axes, x.ndim)
    work = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
    ws = normalise_lam(lam, work, axes)
    dual = _start(work, len(axes) - 1, init_dual)
    if work.size == 0:
        return x, _empty_info(work, axes), dual
    y, gap, iterations, converged, *dual = _primitive.converged(
        work, dual, ws[::-1], axes=axes[::-1], solver=solver
    )
    info = Info(*(jnp.squeeze(v, axes) for v in (gap, iterations, converged)))
    return y.astype(x.dtype), info, tuple(dual)


def _start(x: Array, count: int, init_dual) -> tuple[Array, ...]:
    if init_dual is None:
        return tuple(jnp.zeros_like(x) for _ in range(count))
    shapes = [np.shape(v) for v in init_dual]
    if shapes != [x.shape] * count:
        raise ValueError(
            f"`init_dual` must have {count} array(s) shaped as x, {x.shape}, got {shapes}."
        )
    return tuple(as_float_array(v, "init_dual").astype(x.dtype) for v in init_dual)


def without_overflow(axes, x, *others) -> tuple[Array, list[Array]]:
    """A power of two per element, shaped as it, and all arrays times that.

    It is 1 but for elements with samples whose squares, or sums of these, would overflow.
    """
    x, *others = jax.lax.stop_gradient((x, *others))
    exponent = jnp.finfo(x.dtype).maxexp
    large = jnp.max(jnp.abs(x), axis=axes, keepdims=True) > 2.0 ** (3 * exponent // 8)
    unit = jnp.where(large, 2.0 ** -(5 * exponent // 8), 1.0).astype(x.dtype)
    return jnp.squeeze(unit, axes), [v * unit for v in (x, *others)]


def feasible_gap(x, y, ws, axes) -> tuple[Array, Array]:
    """Duality gap Σ w|Dy| − ⟨x − y, y⟩ of a y with x − y dual feasible, and the objective there."""
    x, y, ws = jax.lax.stop_gradient((x, y, ws))
    # No dual exceeds Σ|x − mean|: with weights cut down to that, λ = inf has a finite gap.
    enough = jnp.sum(jnp.abs(x - jnp.mean(x, axis=axes, keepdims=True)), axis=axes, keepdims=True)
    tv = weighted_variation(y, [jnp.minimum(w, enough) for w in ws], axes)
    centred = y - jnp.mean(y, axis=axes, keepdims=True)
    gap = tv - jnp.sum((x - y) * centred, axis=axes)
    return jnp.maximum(gap, 0), tv + 0.5 * jnp.sum((x - y) ** 2, axis=axes)


def weighted_variation(x, ws, axes) -> Array:
    """Σ w|Dx| over all edges of the given axes, per batch element; an edge without a jump is 0."""
    total = jnp.zeros((), x.dtype)
    for w, axis in zip(ws, axes):
        jump = jnp.abs(jnp.diff(x, axis=axis))
        total = total + jnp.sum(jnp.where(jump == 0, 0, w * jump), axis=axes)
    return total


def _empty_info(x, axes) -> Info:
    shape = tuple(d for i, d in enumerate(x.shape) if i not in axes)
    return Info(jnp.zeros(shape, x.dtype), jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool))


# ---------------------------------------------------------------------------- argument checks


def as_float_array(x: ArrayLike, name: str) -> Array:
    """`x` as an array of one of the supported float dtypes, or a TypeError that names it."""
    dtype = getattr(x, "dtype", None)
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be an array, got {type(x).__name__}.") from error
    if x.dtype.name not in _FLOATS:
        raise TypeError(
            f"`{name}` must be float32, float64, bfloat16 or float16, got {dtype or x.dtype}. "
            f"Convert it first, e.g. {name}.astype(jnp.float32)."
        )
    return x


def _as_axis(axis: Any, name: str) -> int:
    try:
        return operator.index(axis)
    except TypeError:
        hint = " Under jit, name it in static_argnames." if isinstance(axis, Tracer) else ""
        raise TypeError(f"`{name}` must be an integer, got {axis!r}.{hint}") from None


def _as_axes(axes: Any) -> tuple[int, ...]:
    if isinstance(axes, str) or not (isinstance(axes, Sequence) or hasattr(axes, "__index__")):
        raise TypeError(f"`axes` must be an integer or a sequence of integers, got {axes!r}.")
    axes = axes if isinstance(axes, Sequence) else (axes,)
    if not axes:
        raise ValueError("`axes` must name at least one axis, got ().")
    return tuple(_as_axis(a, "axes") for a in axes)


def resolve_axes(axes: Sequence[int], ndim: int, name: str = "axes") -> tuple[int, ...]:
    """Non-negative axes; ValueError where one is out of range or named twice."""
    for a in axes:
        if not -ndim <= a < ndim:
            raise ValueError(f"`{name}` {a} is out of range for an array of {ndim} dimensions.")
    out = tuple(a % ndim for a in axes)
    if len(set(out)) != len(out):
        raise ValueError(f"`{name}` must be distinct, got {tuple(axes)}.")
    return out


def normalise_lam(lam: Lam, x: Array, axes: Sequence[int]) -> tuple[Array, ...]:
    """One weight array per axis: shape of x but for size 1 or n-1 along the axis.

    Its dtype is that of x, float32 for half types.
    """
    if isinstance(lam, tuple | list):
        if len(lam) != len(axes):
            where = " for one axis" if len(axes) == 1 else ""
            raise ValueError(
                "`lam` must be a number, an array, or a tuple with one entry per axis "
                f"({len(axes)}); got {len(lam)} entries{where}."
            )
        return tuple(_weights(_as_lam(w, x), x, a, (a,)) for w, a in zip(lam, axes))
    lam = _as_lam(lam, x)  # converted once: a half-precision λ adds its gradients in float32
    return tuple(_weights(lam, x, a, axes) for a in axes)


def _weights(lam: Array, x: Array, axis: int, prox_axes: Sequence[int]) -> Array:
    shape, n = np.shape(lam), x.shape[axis]
    if n <= 1 and len(prox_axes) == 1 and 0 in shape:  # no edges, no weights: λ plays no part
        lam, shape = jnp.zeros((), lam.dtype), ()
    padded = (1,) * (x.ndim - len(shape)) + shape
    edges = max(n - 1, 1)
    sizes = {a: {1, edges} if len(prox_axes) == 1 else {1} for a in prox_axes}
    fits = len(shape) <= x.ndim and all(
        have in sizes.get(a, {1, want}) for a, (have, want) in enumerate(zip(padded, x.shape))
    )
    if not fits:
        along = f"1 or {edges}" if len(prox_axes) == 1 else "1"
        hint = "" if len(prox_axes) == 1 else " For a weight per edge pass a tuple, one per axis."
        raise ValueError(
            f"`lam` of shape {shape} does not fit x of shape {x.shape}: it must broadcast against "
            f"x with size {along} along axis {', '.join(map(str, prox_axes))}.{hint}"
            f"{_reshape_hint(shape, x.shape, prox_axes)}"
        )
    return jnp.reshape(lam, padded) + jnp.zeros_like(_template(x, axis, padded[axis]), lam.dtype)


def _reshape_hint(lam: Sequence[int], x: Sequence[int], prox_axes: Sequence[int]) -> str:
    """How to pass one λ for each entry of a batch axis, if `lam` is that many numbers."""
    batch = (a for a in range(len(x)) if a not in prox_axes and lam == (x[a],))
    axis = next(batch, None)
    if axis is None:
        return ""
    wanted = (lam[0], *(1 for _ in x[axis + 1 :]))
    return f" One λ for each entry of axis {axis}: lam.reshape{wanted}."


def _template(x: Array, axis: int, size: int) -> Array:
    """Array shaped as the weights that inherits x's sharding and manual (shard_map) axes."""
    if x.size == 0:
        return jnp.empty([size if a == axis else d for a, d in enumerate(x.shape)], x.dtype)
    return jax.lax.slice_in_dim(x, 0, size, axis=axis)


def _as_lam(lam: Any, x: Array) -> Array:
    """λ in the dtype that x is computed in; a number or a float array, >= 0 if concrete."""
    lam = int(lam) if isinstance(lam, np.integer) else lam
    dtype = getattr(lam, "dtype", None)
    number = isinstance(lam, int | float) and not isinstance(lam, bool)
    if dtype is None and not number:
        raise TypeError(f"`lam` must be a number or an array, got {type(lam).__name__}.")
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"`lam` must be a float array, got {dtype}: use lam.astype(x.dtype).")
    # A traced λ is not known yet: a bad one then makes its signals NaN.
    if not isinstance(lam, Tracer) and np.any(~(np.asarray(lam, np.float64) >= 0)):
        raise ValueError(f"`lam` must be >= 0 and not NaN, got {_brief(lam)}.")
    return jnp.asarray(lam).astype(_primitive.compute_dtype(x.dtype))


def _brief(lam) -> str:
    values = np.asarray(lam, np.float64)
    return str(values) if values.ndim == 0 else f"an array with minimum {values.min()}"
