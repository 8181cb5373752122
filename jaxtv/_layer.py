"""What the two Flax layers share: argument checks, λ and its parameter, the forward pass."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype

from jaxtv._prox import prox_tv
from jaxtv._solvers import Direct, Dykstra, Solver1D, SolverND


def normalize_axes(axes: int | Sequence[int]) -> tuple[int, ...]:
    """`axes` as a tuple of distinct integers, at least one."""
    named = tuple(axes) if isinstance(axes, Sequence) else (axes,)
    if not named or len(set(named)) < len(named) or not all(isinstance(a, int) for a in named):
        raise ValueError(
            f"`axes` must be an integer or a sequence of distinct integers, got {axes!r}."
        )
    return named


def resolve_solver(
    axes: tuple[int, ...], solver: Solver1D | SolverND | None
) -> Solver1D | SolverND:
    """The given solver if it fits the number of axes; for None `Direct()` or `Dykstra(4)`."""
    if solver is None:
        return Direct() if len(axes) == 1 else Dykstra(iterations=4)
    if isinstance(solver, Solver1D) and len(axes) > 1:
        raise ValueError(
            f"`solver` must solve over {len(axes)} axes for `axes={axes}`, got the 1D solver "
            f"{solver!r}. Use `Dykstra(inner={solver!r})`."
        )
    if not isinstance(solver, Solver1D | SolverND):
        raise TypeError(f"`solver` must be a solver object such as Dykstra(4), got {solver!r}.")
    if isinstance(solver, SolverND) and len(axes) == 1:
        raise ValueError(
            f"`solver` must be a 1D solver (Direct or ProjectedNewton) "
            f"for the single axis of `axes={axes}`, got {solver!r}."
        )
    return solver


def check_mode(mode: str) -> None:
    """Raises ValueError unless `mode` is "smooth" or "sharp"."""
    if mode not in ("smooth", "sharp"):
        raise ValueError(f'`mode` must be "smooth" or "sharp", got {mode!r}.')


def check_init_lam(init_lam: float, trainable: bool) -> None:
    """Raises ValueError unless λ can start at `init_lam`."""
    if not isinstance(init_lam, numbers.Real) or not init_lam >= 0:
        raise ValueError(f"`init_lam` must be a number >= 0, got {init_lam!r}.")
    if trainable and not 0 < init_lam < math.inf:
        raise ValueError(
            f"`init_lam` must be positive and finite when `trainable=True`, got {init_lam!r}: the "
            "parameter is the inverse softplus of λ, which is not finite there, so that λ could "
            "never change. Use a small positive value, or `trainable=False` for a constant λ."
        )


def inverse_softplus(lam: float) -> float:
    """λ̃ with softplus(λ̃) = log(1 + exp λ̃) = λ, accurate for tiny and for large λ > 0."""
    if lam < math.log(2.0):
        return lam + math.log(-math.expm1(-lam))
    return lam + math.log1p(-math.exp(-lam))


def apply(
    x: jax.Array,
    lam: jax.Array | float,
    *,
    axes: tuple[int, ...],
    mode: str,
    channel_axis: int,
    solver: Solver1D | SolverND,
    dtype: jax.typing.DTypeLike | None,
) -> jax.Array:
    """Eq. 3 (smooth) or Eq. 4 (sharp) of the paper on x of any rank, for λ of shape () or (C,)."""
    x = jnp.asarray(x)
    trained = isinstance(lam, jax.Array)
    dtype = canonicalize_dtype(x, lam if trained else None, dtype=dtype)
    x = x.astype(dtype)
    if trained:
        # λ keeps float32 for half types: the prox itself computes in float32.
        lam = lam.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
        lam = _along_channels(lam, x, axes, channel_axis)
    y = prox_tv(x, lam, axes=axes, solver=solver)
    return 2 * x - y if mode == "sharp" else y


def check_channel_axis(x: jax.Array, axes: tuple[int, ...], channel_axis: int) -> None:
    """Raises ValueError unless `channel_axis` is an axis of x and not one of `axes`."""
    if not -x.ndim <= channel_axis < x.ndim:
        raise ValueError(f"`channel_axis` {channel_axis} is out of range for x of shape {x.shape}.")
    if channel_axis % x.ndim in [axis % x.ndim for axis in axes]:
        raise ValueError(
            f"`channel_axis` must not be one of `axes` when `per_channel=True`, got "
            f"channel_axis={channel_axis} and axes={axes} for x of shape {x.shape}."
        )


def _along_channels(
    lam: jax.Array, x: jax.Array, axes: tuple[int, ...], channel_axis: int
) -> jax.Array:
    """λ of shape (C,) reshaped to lie along `channel_axis` of x; λ of shape () as it is."""
    if lam.ndim == 0:
        return lam
    check_channel_axis(x, axes, channel_axis)
    if x.shape[channel_axis] != lam.size:
        raise ValueError(
            f"x must have {lam.size} channels on axis {channel_axis}, one for each λ, got x of "
            f"shape {x.shape}."
        )
    return jnp.expand_dims(lam, [a for a in range(x.ndim) if a != channel_axis % x.ndim])
