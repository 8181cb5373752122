"""What the two Flax layers share: λ and its parameter, the forward pass."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype

from jaxtv import _arguments, _solvers
from jaxtv._isotropic import prox_tv_isotropic
from jaxtv._prox import prox_tv
from jaxtv._solvers import FGP, Solver1D, SolverND


def inverse_softplus(lam: float) -> float:
    """λ̃ with softplus(λ̃) = log(1 + exp λ̃) = λ, accurate for tiny and for large λ > 0."""
    if lam < math.log(2.0):
        return lam + math.log(-math.expm1(-lam))
    return lam + math.log1p(-math.exp(-lam))


def fitting_solver(
    solver: Solver1D | SolverND | FGP | None, num_axes: int, isotropic: bool
) -> Solver1D | SolverND | FGP:
    """The solver of a layer, the default one for None."""
    if isotropic:
        return _solvers.fitting_isotropic(solver)
    return _solvers.fitting_solver(solver, num_axes)


def apply(
    x: jax.Array,
    lam: jax.Array | float,
    *,
    axes: tuple[int, ...],
    mode: str,
    channel_axis: int,
    solver: Solver1D | SolverND | FGP,
    dtype: jax.typing.DTypeLike | None,
) -> jax.Array:
    """Eq. 3 (smooth) or Eq. 4 (sharp) of the paper on x of any rank, for λ of shape () or (C,)."""
    x = _arguments.any_array(x, "x")  # an integer one too, as in the layers of Flax
    trained = isinstance(lam, jax.Array)
    dtype = canonicalize_dtype(x, lam if trained else None, dtype=dtype)
    x = x.astype(dtype)
    if trained:
        # λ keeps float32 for half types: the prox itself computes in float32.
        lam = lam.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
        lam = _along_channels(lam, x, axes, channel_axis)
    if isinstance(solver, FGP):
        y = prox_tv_isotropic(x, lam, axes=axes, solver=solver)
    else:
        y = prox_tv(x, lam, axes=axes, solver=solver)
    return 2 * x - y if mode == "sharp" else y


def _along_channels(
    lam: jax.Array, x: jax.Array, axes: tuple[int, ...], channel_axis: int
) -> jax.Array:
    """λ of shape (C,) reshaped to lie along `channel_axis` of x; λ of shape () as it is."""
    if lam.ndim == 0:
        return lam
    if lam.ndim > 1:  # such as λ̃ of another package
        raise ValueError(f"`raw_lam` must have shape () or (num_channels,), got {lam.shape}.")
    channels = _arguments.channel_axis(channel_axis, x, axes)
    _arguments.num_channels(x, channels, lam.size)
    return jnp.expand_dims(lam, [a for a in range(x.ndim) if a != channels])
