"""`jaxtv.nnx.TVLayer`: the total-variation layer for Flax NNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtv import _arguments, _layer
from jaxtv._solvers import FGP, Solver1D, SolverND

__all__ = ["TVLayer"]


class TVLayer(nnx.Module):
    """Total-variation smoothing or sharpening as a layer with a learned λ (Eqs. 3 and 4).

    The output has x's shape. "smooth" returns `prox(x, λ)`, "sharp" returns `2x - prox(x, λ)`.
    λ = softplus(λ̃); the parameter λ̃ is `raw_lam`, of shape (), or (num_channels,) with
    `per_channel`. `layer.lam` reads λ. At λ = 0 the layer is the identity.

    Args:
        axes: the axes TV runs over; the default is height and width of (..., H, W, C). Use
            `axes=(-2, -1), channel_axis=-3` for (..., C, H, W). One integer gives the 1D layer, in
            (..., H, W, C) -2 along rows and -3 along columns.
        mode: "smooth" or "sharp".
        per_channel: one λ for each channel, rather than one for all; needs `num_channels` unless λ
            is a constant.
        channel_axis: where the channels are; read only if `per_channel`.
        init_lam: λ before training. It is on the scale of x.
        trainable: False keeps λ = `init_lam` as a constant, without a parameter; 0 is allowed.
        solver: if None, `Dykstra(4)` for several axes and `Direct()` for one; `FGP()` if
            `isotropic`.
        isotropic: the prox of isotropic TV (`prox_tv_isotropic`), of every channel by itself.
        dtype: dtype of the computation and the result; None promotes x with the parameter.
        param_dtype: dtype of the parameter.
        num_channels: C, for `per_channel`.
        rngs: taken like any NNX layer does, and not used: nothing here is random.

    Raises:
        TypeError: `axes` or `channel_axis` are no integers, `init_lam` is no number, or a `solver`
            that does not fit the number of axes, or `isotropic`.
        ValueError: an unknown `mode`; repeated `axes`; an `init_lam` below 0, or not in (0, ∞) when
            trainable; `per_channel` without `num_channels`; at the call, a `channel_axis` among the
            `axes`, or not of size `num_channels`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> layer = jaxtv.nnx.TVLayer(per_channel=True, num_channels=3, init_lam=0.5)
        >>> layer(jnp.ones((1, 8, 8, 3))).shape
        (1, 8, 8, 3)
        >>> layer.lam.round(3)
        Array([0.5, 0.5, 0.5], dtype=float32)
    """

    def __init__(
        self,
        axes: int | Sequence[int] = (-3, -2),
        mode: Literal["smooth", "sharp"] = "smooth",
        per_channel: bool = False,
        channel_axis: int = -1,
        init_lam: float = 0.05,
        trainable: bool = True,
        solver: Solver1D | SolverND | FGP | None = None,
        isotropic: bool = False,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        *,
        num_channels: int | None = None,
        rngs: nnx.Rngs | None = None,
    ):
        _arguments.choice(mode, "mode", ("smooth", "sharp"))
        init_lam = _arguments.init_lam(init_lam, trainable)
        self.axes = _arguments.named_axes(axes)
        self.mode = mode
        self.per_channel = per_channel
        self.channel_axis = _arguments.integer(channel_axis, "channel_axis")
        self.init_lam = init_lam
        self.trainable = trainable
        self.solver = _layer.fitting_solver(solver, len(self.axes), isotropic)
        self.dtype = dtype
        self.param_dtype = param_dtype
        if trainable:
            shape = _parameter_shape(per_channel, num_channels)
            raw_lam = jnp.full(shape, _layer.inverse_softplus(init_lam), param_dtype)
            self.raw_lam = nnx.Param(raw_lam)

    @property
    def lam(self) -> jax.Array:
        """λ: shape (), or (C,) for a trainable λ per channel."""
        if not self.trainable:
            return jnp.asarray(self.init_lam, self.param_dtype)
        return jax.nn.softplus(self.raw_lam[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        """The TV prox of x (sharp: 2x minus it), same shape as x."""
        return _layer.apply(
            x,
            self.lam if self.trainable else self.init_lam,
            axes=self.axes,
            mode=self.mode,
            channel_axis=self.channel_axis,
            solver=self.solver,
            dtype=self.dtype,
        )


def _parameter_shape(per_channel: bool, num_channels: int | None) -> tuple[int, ...]:
    if not per_channel:
        return ()
    if num_channels is None:
        raise ValueError("`num_channels` must be given when `per_channel=True`.")
    return (_arguments.count(num_channels, "num_channels"),)
