"""`jaxtv.linen.TVLayer`: the total-variation layer for Flax linen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtv import _arguments, _layer
from jaxtv._solvers import FGP, Solver1D, SolverND

__all__ = ["TVLayer"]


class TVLayer(nn.Module):
    """Total-variation smoothing or sharpening as a layer with a learned λ (Eqs. 3 and 4).

    The output has x's shape. "smooth" returns `prox(x, λ)`, "sharp" returns `2x - prox(x, λ)`.
    λ = softplus(λ̃); the parameter λ̃ is named `raw_lam` and has shape (), or (C,) with
    `per_channel`, C being read off x. At λ = 0 the layer is the identity.

    λ is read back by `layer.bind(variables).lam`, or, for a layer inside another module, by
    `jax.nn.softplus(params["TVLayer_0"]["raw_lam"])`.

    Attributes:
        axes: the axes TV runs over; the default is height and width of (..., H, W, C). Use
            `axes=(-2, -1), channel_axis=-3` for (..., C, H, W). One integer gives the 1D layer, in
            (..., H, W, C) -2 along rows and -3 along columns.
        mode: "smooth" or "sharp".
        per_channel: one λ for each channel, rather than one for all.
        channel_axis: where the channels are; read only if `per_channel`.
        init_lam: λ before training. It is on the scale of x.
        trainable: False keeps λ = `init_lam` as a constant, without a parameter; 0 is allowed.
        solver: if None, `Dykstra(4)` for several axes and `Direct()` for one; `FGP()` if
            `isotropic`.
        isotropic: the prox of isotropic TV (`prox_tv_isotropic`), of every channel by itself.
        dtype: dtype of the computation and the result; None promotes x with the parameter.
        param_dtype: dtype of the parameter.

    Raises:
        TypeError: `axes` or `channel_axis` are no integers, `init_lam` is no number, or a `solver`
            that does not fit the number of axes, or `isotropic`.
        ValueError: an unknown `mode`; repeated `axes`; an `init_lam` below 0, or not in (0, ∞) when
            trainable; at the call, a `channel_axis` among the `axes`.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.ones((1, 8, 8, 3))
        >>> layer = jaxtv.linen.TVLayer(per_channel=True, init_lam=0.5)
        >>> variables = layer.init(jax.random.key(0), x)
        >>> layer.apply(variables, x).shape
        (1, 8, 8, 3)
        >>> layer.bind(variables).lam.round(3)
        Array([0.5, 0.5, 0.5], dtype=float32)
    """

    axes: int | Sequence[int] = (-3, -2)
    mode: Literal["smooth", "sharp"] = "smooth"
    per_channel: bool = False
    channel_axis: int = -1
    init_lam: float = 0.05
    trainable: bool = True
    solver: Solver1D | SolverND | FGP | None = None
    isotropic: bool = False
    dtype: jax.typing.DTypeLike | None = None
    param_dtype: jax.typing.DTypeLike = jnp.float32

    def __post_init__(self):
        _arguments.choice(self.mode, "mode", ("smooth", "sharp"))
        self.init_lam = _arguments.init_lam(self.init_lam, self.trainable)
        self.channel_axis = _arguments.integer(self.channel_axis, "channel_axis")
        self.axes = _arguments.named_axes(self.axes)
        _layer.fitting_solver(self.solver, len(self.axes), self.isotropic)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The TV prox of x (sharp: 2x minus it), same shape as x."""
        x = _arguments.any_array(x, "x")
        axes = _arguments.named_axes(self.axes)
        if self.per_channel:
            _arguments.channel_axis(self.channel_axis, x, axes)
        return _layer.apply(
            x,
            self._create_lam(x) if self.trainable else self.init_lam,
            axes=axes,
            mode=self.mode,
            channel_axis=self.channel_axis,
            solver=_layer.fitting_solver(self.solver, len(axes), self.isotropic),
            dtype=self.dtype,
        )

    def _create_lam(self, x: jax.Array) -> jax.Array:
        raw_lam = self.param(
            "raw_lam",
            nn.initializers.constant(_layer.inverse_softplus(self.init_lam)),
            (x.shape[self.channel_axis],) if self.per_channel else (),
            self.param_dtype,
        )
        return nn.softplus(raw_lam)

    @property
    def lam(self) -> jax.Array:
        """λ of a bound layer: shape (), or (C,) for a trainable λ per channel."""
        if not self.trainable:
            return jnp.asarray(self.init_lam, self.param_dtype)
        raw_lam = self.get_variable("params", "raw_lam")
        if raw_lam is None:
            raise ValueError("`lam` needs a layer with parameters: `layer.bind(variables).lam`.")
        return nn.softplus(raw_lam)
