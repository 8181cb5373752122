"""The prox of isotropic, vectorial and complex total variation: its layout around the primitive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxtv import _arguments, _primitive
from jaxtv._dtypes import compute_dtype
from jaxtv._prox import Dual, Info
from jaxtv._solvers import FGP, fitting_isotropic


@overload
def prox_tv_isotropic(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axes: int | Sequence[int],
    channel_axis: int | None = None,
    solver: FGP = ...,
    return_info: Literal[False] = False,
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: Literal[False] = False,
) -> Array: ...
@overload
def prox_tv_isotropic(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axes: int | Sequence[int],
    channel_axis: int | None = None,
    solver: FGP = ...,
    return_info: Literal[True],
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: Literal[False] = False,
) -> tuple[Array, Info]: ...
@overload
def prox_tv_isotropic(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axes: int | Sequence[int],
    channel_axis: int | None = None,
    solver: FGP = ...,
    return_info: Literal[False] = False,
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: Literal[True],
) -> tuple[Array, Dual]: ...
@overload
def prox_tv_isotropic(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axes: int | Sequence[int],
    channel_axis: int | None = None,
    solver: FGP = ...,
    return_info: Literal[True],
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: Literal[True],
) -> tuple[Array, Info, Dual]: ...
@overload
def prox_tv_isotropic(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axes: int | Sequence[int],
    channel_axis: int | None = None,
    solver: FGP = ...,
    return_info: bool = False,
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: bool = False,
) -> Array | tuple[Array, Info] | tuple[Array, Dual] | tuple[Array, Info, Dual]: ...
def prox_tv_isotropic(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    axes: int | Sequence[int],
    channel_axis: int | None = None,
    solver: FGP = FGP(),  # noqa: B008 (frozen)
    return_info: bool = False,
    init_dual: Sequence[ArrayLike] | None = None,
    return_dual: bool = False,
) -> Array | tuple[Array, Info] | tuple[Array, Dual] | tuple[Array, Info, Dual]:
    r"""Prox of isotropic total variation along any axes, with channels coupled if you want.

    Computes $\arg\min_y\,\tfrac12\|y-x\|^2 + \sum_p \lambda_p \|(Dy)_p\|_2$, where $(Dy)_p$ has the
    forward differences of pixel p along every one of `axes`. A difference that would leave the
    array is 0, as in scikit-image. With `channel_axis` the norm covers all channels, which then
    share their edges (vectorial TV, Bresson & Chan 2008). A complex x is two such channels.

    Differentiable in x and λ, in forward and reverse mode: the implicit derivative of the solution,
    by conjugate gradients on the components of constant value.

    Args:
        x: array of float32, float64, bfloat16 or float16 (half types are computed in float32),
            complex64 or complex128. An element of the batch with a NaN or an infinity becomes NaN.
        lam: λ ≥ 0, a number or an array that broadcasts against x, of size 1 along `channel_axis`.
            Along `axes` it has size 1 (one λ per image, or per channel if they are not coupled) or
            the size of x (one λ per pixel). λ = 0 gives x bit for bit, λ = inf the mean.
        axes: the axes whose differences are taken together.
        channel_axis: the axis of the channels to couple, or None. All other axes are batch.
        solver: `FGP(tol=..., max_iterations=...)`.
        return_info: also return an `Info`; batch elements are x without `axes` and `channel_axis`.
        init_dual: where to start, the dual of a solve with the same `axes`: one array shaped as x
            for each of them. Any values will do. It has no derivative.
        return_dual: also return such a dual; it has no derivative.

    Returns:
        y, shaped and typed as x. With `return_info` the pair (y, Info), with `return_dual` the pair
        (y, dual), with both (y, Info, dual).

    Raises:
        TypeError: x or `lam` is not an array of such a type, or `solver` is not an `FGP`.
        ValueError: `axes`, `channel_axis`, `lam` or `init_dual` do not fit x, or a concrete λ is
            negative or NaN.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
        >>> jaxtv.prox_tv_isotropic(x, 1.0, axes=(0, 1)).round(2)
        Array([[0.5, 0.5, 3.5, 3.5],
               [0.5, 0.5, 3.5, 3.5]], dtype=float32)
        >>> colour = jnp.stack([x, 2 * x], axis=-1)
        >>> y, info = jaxtv.prox_tv_isotropic(
        ...     colour, 1.0, axes=(0, 1), channel_axis=-1, return_info=True
        ... )
        >>> y.shape, info.gap.shape
        ((2, 4, 2), ())
    """
    solver = fitting_isotropic(solver)
    x = _arguments.float_or_complex(x, "x")
    layout = _layout(x, axes, channel_axis)
    lam = _arguments.pixel_weights(lam, x, layout.spatial, layout.channel)
    work = x if jnp.iscomplexobj(x) else x.astype(compute_dtype(x.dtype))
    start = _arguments.start_duals(init_dual, work, len(layout.spatial))
    if x.size == 0:
        y, info, dual = x, _empty_info(x, layout), start
    else:
        y, *info, dual = _solve(x, lam, start, layout, solver)
        info = Info(*info)
    if return_dual:
        return (y, info, dual) if return_info else (y, dual)
    return (y, info) if return_info else y


class _Layout(NamedTuple):
    """The axes of x, counted from the first one."""

    batch: tuple[int, ...]
    channel: int | None
    spatial: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        channel = () if self.channel is None else (self.channel,)
        return (*self.batch, *channel, *self.spatial)

    @property
    def canonical_axes(self) -> tuple[int, ...]:
        """Of channels and pixels, in the layout that the primitive takes."""
        first = len(self.batch)
        return tuple(range(first, first + 1 + len(self.spatial)))

    def to_canonical(self, v: Array) -> Array:
        """A real or complex array as a real one of (batch..., channels, spatial...)."""
        v = jnp.transpose(v, self.order)
        first = len(self.batch)
        v = jnp.expand_dims(v, first) if self.channel is None else v
        if jnp.iscomplexobj(v):
            return jnp.concatenate([v.real, v.imag], first)
        return v.astype(compute_dtype(v.dtype))

    def from_canonical(self, v: Array, like: Array) -> Array:
        """The inverse, in the type of `like`."""
        first = len(self.batch)
        if jnp.iscomplexobj(like):
            real, imaginary = jnp.split(v, 2, first)
            v = jax.lax.complex(real, imaginary)
        v = jnp.squeeze(v, first) if self.channel is None else v
        return jnp.transpose(v, _inverse(self.order)).astype(like.dtype)


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _layout(x: Array, axes: int | Sequence[int], channel_axis: int | None) -> _Layout:
    spatial = _arguments.resolve_axes(_arguments.named_axes(axes), x)
    channel = None
    if channel_axis is not None:
        channel = _arguments.coupled_channel_axis(channel_axis, x, spatial)
    batch = tuple(a for a in range(x.ndim) if a not in spatial and a != channel)
    return _Layout(batch, channel, spatial)


def _solve(x: Array, lam: Array, start: Dual, layout: _Layout, solver: FGP):
    """(y, gap, iterations, converged, dual) in the layout and type of x."""
    axes = layout.canonical_axes
    y, *rest = _primitive.isotropic(
        layout.to_canonical(x),
        layout.to_canonical(lam),
        [layout.to_canonical(v) for v in start],
        axes=axes,
        solver=solver,
    )
    info, dual = rest[:3], rest[3:]
    return (
        layout.from_canonical(y, x),
        *(jnp.squeeze(v, axes) for v in info),
        tuple(layout.from_canonical(v, u) for v, u in zip(dual, start, strict=True)),
    )


def _empty_info(x: Array, layout: _Layout) -> Info:
    shape = tuple(x.shape[a] for a in layout.batch)
    gap = jnp.zeros(shape, compute_dtype(x.dtype))
    return Info(gap, jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool))
