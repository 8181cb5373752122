"""Every check of an argument, once: the same mistake raises the same error everywhere.

Functions, layers and solver objects call these before anything is lowered. An error names the
argument, what came and what is accepted; a check returns the argument in the form that is computed
with. Which solver fits how many axes is in `_solvers.fitting_solver`.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxtv._dtypes import SAMPLES, compute_dtype

Lam = ArrayLike | Sequence[ArrayLike]

# ---------------------------------------------------------------------------- arrays


def float_array(x: ArrayLike, name: str) -> Array:
    """`x` as an array of one of the supported float dtypes."""
    array = any_array(x, name)
    if array.dtype.name not in SAMPLES:
        raise _not_floats(getattr(x, "dtype", array.dtype), name)
    return array


def float_or_complex(x: ArrayLike, name: str) -> Array:
    """`x` as an array of one of the supported float dtypes, complex64 or complex128."""
    array = any_array(x, name)
    return array if jnp.iscomplexobj(array) else float_array(x, name)


def any_array(x: ArrayLike, name: str) -> Array:
    """`x` as an array, from any byte order and memory layout."""
    x = _plain(x, name)
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError) as error:
        dtype = getattr(x, "dtype", None)
        if dtype is None:
            raise TypeError(f"`{name}` must be an array, got {type(x).__name__}.") from error
        raise _not_floats(dtype, name) from error


def _not_floats(dtype: Any, name: str) -> TypeError:
    remedy = f"Convert it first, e.g. {name}.astype(jnp.float32)."
    if jnp.issubdtype(dtype, jnp.complexfloating):
        remedy = f"Use its parts: {name}.real and {name}.imag."
    return TypeError(
        f"`{name}` must be float32, float64, bfloat16 or float16, got {dtype}. {remedy}"
    )


def _plain(x: Any, name: str) -> Any:
    """`x`, a NumPy array in the byte order of this machine; a masked array is an error."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"`{name}` must be an array without a mask, got a masked array. Use "
            f"{name}.filled(value), or in the functions that have it `data_weight=~{name}.mask`."
        )
    if isinstance(x, np.ndarray | np.generic) and not x.dtype.isnative:
        return x.astype(x.dtype.newbyteorder("="))
    return x


def same_shape(y: ArrayLike, x: Array, name: str) -> Array:
    """`y` as a float array of x's dtype; it must have the shape of x."""
    y = float_array(y, name)
    if y.shape != x.shape:
        raise ValueError(f"`{name}` must be shaped as x, {x.shape}, got {y.shape}.")
    return y.astype(x.dtype)


def start_duals(init_dual: Sequence[ArrayLike] | None, x: Array, count: int) -> tuple[Array, ...]:
    """`count` arrays shaped as x, zeros where there is no start."""
    if init_dual is None:
        return tuple(jnp.zeros_like(x) for _ in range(count))
    shapes = [np.shape(v) for v in init_dual]
    if shapes != [x.shape] * count:
        raise ValueError(
            f"`init_dual` must have {count} array(s) shaped as x, {x.shape}, got {shapes}."
        )
    checked = float_or_complex if jnp.iscomplexobj(x) else float_array
    return tuple(checked(v, "init_dual").astype(x.dtype) for v in init_dual)


# ---------------------------------------------------------------------------- axes


def integer(value: Any, name: str) -> int:
    """An integer of Python, NumPy or JAX, for example an axis."""
    try:
        return operator.index(value)
    except TypeError:
        hint = " Under jit, name it in static_argnames." if isinstance(value, Tracer) else ""
        raise TypeError(f"`{name}` must be an integer, got {value!r}.{hint}") from None


def named_axes(axes: Any) -> tuple[int, ...]:
    """One axis or several as a tuple, at least one, none twice."""
    one = hasattr(axes, "__index__") and np.ndim(axes) == 0
    if isinstance(axes, np.ndarray) and axes.ndim == 1:
        axes = axes.tolist()
    if isinstance(axes, str) or not (isinstance(axes, Sequence) or one):
        raise TypeError(f"`axes` must be an integer or a sequence of integers, got {axes!r}.")
    axes = (axes,) if one else axes
    if not axes:
        raise ValueError("`axes` must name at least one axis, got ().")
    return _distinct(tuple(integer(a, "axes") for a in axes))


def resolve_axes(axes: Sequence[int], x: Array, name: str = "axes") -> tuple[int, ...]:
    """The axes of x counted from its first one; each must be whole on every device."""
    for a in axes:
        if not -x.ndim <= a < x.ndim:
            raise ValueError(f"`{name}` {a} is out of range for an array of {x.ndim} dimensions.")
    resolved = tuple(a % x.ndim for a in axes)
    _distinct(axes, resolved)
    _unsharded(resolved, x, "x")
    return resolved


def _unsharded(axes: Sequence[int], x: Array, name: str) -> None:
    """On a mesh with Explicit axes JAX gathers nothing by itself."""
    spec = jax.typeof(x).sharding.spec  # names Explicit mesh axes only
    sharded = [a for a in axes if a < len(spec) and spec[a] is not None]
    if sharded:
        whole = jax.P(*(None if a in axes else s for a, s in enumerate(spec)))
        raise ValueError(
            f"`{name}` must not be sharded along axis {sharded[0]}, which is one of the prox, got "
            f"the sharding {spec}: every device solves whole signals. Gather that axis, for "
            f"example by jax.sharding.reshard({name}, {whole}), and shard other axes."
        )


def _distinct(axes: Sequence[int], resolved: Sequence[int] | None = None) -> tuple[int, ...]:
    if len(set(resolved or axes)) != len(axes):
        raise ValueError(f"`axes` must be distinct, got {tuple(axes)}.")
    return tuple(axes)


def image_axes(axes: Any, X: Array) -> tuple[int, ...]:
    """Two axes. None is for a matrix: an X of more dimensions must name them."""
    if axes is not None:
        axes = named_axes(axes)
        if len(axes) != 2:
            raise ValueError(f"`axes` must name two axes, got {axes!r}.")
    elif X.ndim > 2:
        raise ValueError(
            f"`axes` must be given for X of {X.ndim} dimensions, got X of shape {X.shape}: "
            "axes=(-2, -1) for (..., H, W), axes=(-3, -2) for (..., H, W, C)."
        )
    return axes or (-2, -1)


def channel_axis(axis: int, x: Array, axes: Sequence[int]) -> int:
    """The axis of the channels, which is none of `axes`, counted from the first one of x."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"`channel_axis` {axis} is out of range for x of shape {x.shape}.")
    if axis % x.ndim in resolve_axes(axes, x):
        raise ValueError(
            f"`channel_axis` must not be one of `axes` when `per_channel=True`, got "
            f"channel_axis={axis} and axes={tuple(axes)} for x of shape {x.shape}."
        )
    return axis % x.ndim


def coupled_channel_axis(axis: Any, x: Array, axes: Sequence[int]) -> int:
    """The axis whose channels share their edges, counted from the first one of x."""
    axis = integer(axis, "channel_axis")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"`channel_axis` {axis} is out of range for x of shape {x.shape}.")
    if axis % x.ndim in axes:
        raise ValueError(
            f"`channel_axis` must not be one of `axes`, got channel_axis={axis} and "
            f"axes={tuple(axes)} for x of shape {x.shape}."
        )
    _unsharded((axis % x.ndim,), x, "x")
    return axis % x.ndim


def num_channels(x: Array, axis: int, wanted: int) -> None:
    """As many channels as there are λ."""
    if x.shape[axis] != wanted:
        raise ValueError(
            f"x must have {wanted} channels on axis {axis - x.ndim}, one for each λ, got x of "
            f"shape {x.shape}."
        )


# ---------------------------------------------------------------------------- λ


def weights(lam: Lam, x: Array, axes: Sequence[int]) -> tuple[Array, ...]:
    """One weight array per axis: the shape of x with size 1 or n-1 along the axis.

    Its dtype is the one that x is computed in.
    """
    if isinstance(lam, tuple | list):
        if len(lam) != len(axes):
            where = " for one axis" if len(axes) == 1 else ""
            raise ValueError(
                "`lam` must be a number, an array, or a tuple with one entry per axis "
                f"({len(axes)}); got {len(lam)} entries{where}."
            )
        return tuple(_broadcast(_as_lam(w, x), x, a, (a,)) for w, a in zip(lam, axes))
    lam = _as_lam(lam, x)  # converted once: a half-precision λ adds its gradients in float32
    return tuple(_broadcast(lam, x, a, axes) for a in axes)


def _as_lam(lam: Any, x: Array) -> Array:
    return _as_float(lam, "lam", x, _not_negative)


def _as_float(value: Any, name: str, x: Array, check: Callable[[Any, str], None]) -> Array:
    """A number or a float array, in the dtype that x is computed in; checked if concrete.

    A number is one of Python, NumPy or JAX, an integer too.
    """
    value = _plain(value, name)
    dtype = getattr(value, "dtype", None)
    if dtype is None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise TypeError(f"`{name}` must be a number or an array, got {type(value).__name__}.")
    whole_number = np.shape(value) == () and getattr(dtype, "kind", None) in ("i", "u")
    if dtype is not None and not whole_number and not _is_float(dtype):
        raise TypeError(f"`{name}` must be a float array, got {dtype}: use {name}.astype(x.dtype).")
    # A traced value is not known yet: a bad one then makes its signals NaN.
    if not isinstance(value, Tracer):
        check(value, name)
    return jnp.asarray(value).astype(compute_dtype(x.dtype))


def _is_float(dtype: Any) -> bool:
    """Whether it is a float type that JAX knows; NumPy's long double is none."""
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize <= 8


def _not_negative(value: Any, name: str) -> None:
    _check_values(value, name, lambda v: v >= 0, ">= 0")


def _check_values(value: Any, name: str, good: Callable, accepted: str) -> None:
    values = np.asarray(value, np.float64)
    bad = values[~good(values)]
    if bad.size:
        brief = str(bad[0]) if values.ndim == 0 else f"an array with {bad[0]}"
        raise ValueError(f"`{name}` must be {accepted} and not NaN, got {brief}.")


def _broadcast(lam: Array, x: Array, axis: int, prox_axes: Sequence[int]) -> Array:
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
            f"{_reshape_hint('lam', shape, x.shape, prox_axes)}"
        )
    lam = jnp.reshape(lam, padded)
    _unsharded((axis,), lam, "lam")
    return lam + jnp.zeros_like(_template(x, axis, padded[axis]), lam.dtype)


def pixel_weights(lam: ArrayLike, x: Array, axes: Sequence[int], channel: int | None) -> Array:
    """One weight per pixel: shaped as x, of size 1 along `channel`, in the dtype of computation.

    It also has size 1 along all of `axes` where λ does.
    """
    lam = _as_lam(lam, x)
    shape = np.shape(lam)
    padded = (1,) * (x.ndim - len(shape)) + shape
    sizes = [1 if a == channel else n for a, n in enumerate(x.shape)]
    if len(shape) > x.ndim or any(have not in (1, n) for have, n in zip(padded, sizes)):
        coupled = "" if channel is None else f" with size 1 along the channel axis {channel}"
        raise ValueError(
            f"`lam` of shape {shape} does not fit x of shape {x.shape}: it must broadcast against "
            f"x{coupled}.{_reshape_hint('lam', shape, x.shape, (*axes, channel))}"
        )
    lam = jnp.reshape(lam, padded)
    _unsharded(axes, lam, "lam")
    per_pixel = any(padded[a] != 1 for a in axes)
    like = x
    for a in range(x.ndim):
        if a == channel or (a in axes and not per_pixel):
            like = _template(like, a, 1)
    return lam + jnp.zeros_like(like, lam.dtype)


def signal_lam(lam: Any, x: Array, axis: int) -> Array:
    """One λ per signal along `axis`: the shape of x with size 1 there."""
    (w,) = weights(lam, x, (axis,))
    if w.shape[axis] != 1:
        raise ValueError(
            f"`lam` must be a number, or have size 1 along axis {axis} (one λ per signal), got "
            f"shape {np.shape(lam)} for x of shape {x.shape}."
        )
    return w


def _reshape_hint(
    name: str, shape: Sequence[int], x: Sequence[int], axes: Sequence[int | None]
) -> str:
    """How to pass one number for each entry of a batch axis, if `shape` is that many."""
    batch = (a for a in range(len(x)) if a not in axes and shape == (x[a],))
    axis = next(batch, None)
    if axis is None:
        return ""
    wanted = (shape[0], *(1 for _ in x[axis + 1 :]))
    one = "λ" if name == "lam" else f"`{name}`"
    return f" One {one} for each entry of axis {axis}: {name}.reshape{wanted}."


def _template(x: Array, axis: int, size: int) -> Array:
    """Array shaped as the weights that inherits x's sharding and manual (shard_map) axes."""
    if x.size == 0:
        return jnp.empty([size if a == axis else d for a, d in enumerate(x.shape)], x.dtype)
    return jax.lax.slice_in_dim(x, 0, size, axis=axis)


# ---------------------------------------------------------------------------- data weights


def data_weight(value: Any, x: Array, axes: Sequence[int], none_missing: bool) -> Array:
    """The weight >= 0 of each sample, shaped as x, in the dtype that x is computed in.

    An array of bools is a mask: True for samples that are known. `none_missing`: 0 is an error.
    """
    if getattr(value, "dtype", None) == np.bool_:
        value = any_array(value, "data_weight").astype(compute_dtype(x.dtype))
    check = _positive_for_dykstra if none_missing else _finite_not_negative
    value = _as_float(value, "data_weight", x, check)
    padded = (1,) * (x.ndim - value.ndim) + value.shape
    if value.ndim > x.ndim or any(have not in (1, n) for have, n in zip(padded, x.shape)):
        raise ValueError(
            f"`data_weight` of shape {value.shape} does not fit x of shape {x.shape}: it must "
            f"broadcast against x.{_reshape_hint('data_weight', value.shape, x.shape, axes)}"
        )
    value = jnp.reshape(value, padded)
    _unsharded(axes, value, "data_weight")
    return value + jnp.zeros_like(x, value.dtype)


def _finite_not_negative(value: Any, name: str) -> None:
    _check_values(value, name, lambda v: (v >= 0) & (v < math.inf), ">= 0 and finite")


def _positive_for_dykstra(value: Any, name: str) -> None:
    accepted = "> 0 for Dykstra, which divides by it (AcceleratedDykstra takes 0), finite"
    _check_values(value, name, lambda v: (v > 0) & (v < math.inf), accepted)


# ---------------------------------------------------------------------------- numbers per element


def not_negative(value: Any, name: str, x: Array, axes: Sequence[int]) -> Array:
    """A number >= 0 for each batch element (`_per_element`)."""
    return _per_element(value, name, x, axes, _not_negative)


def positive(value: Any, name: str, x: Array, axes: Sequence[int]) -> Array:
    """A number > 0 for each batch element (`_per_element`)."""
    return _per_element(value, name, x, axes, _positive)


def bounds(lower: Any, upper: Any, x: Array, axes: Sequence[int]) -> tuple[Array, Array]:
    """A lower and an upper bound for each batch element; None is no bound."""
    lower = -math.inf if lower is None else lower
    upper = math.inf if upper is None else upper
    below, above = (
        _per_element(lower, "lower", x, axes, _below_infinity),
        _per_element(upper, "upper", x, axes, _above_minus_infinity),
    )
    if not isinstance(lower, Tracer) and not isinstance(upper, Tracer):
        low, high = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (lower, upper)))
        if np.any(low > high):
            first = low > high
            raise ValueError(
                f"`lower` must be at most `upper`, got {low[first][0]} and {high[first][0]}."
            )
    return below, above


def candidates(lams: Any, name: str, x: Array) -> Array:
    """A 1D array of numbers >= 0, at least one."""
    lams = _as_float(lams, name, x, _not_negative)
    if lams.ndim != 1 or not lams.size:
        raise ValueError(f"`{name}` must be a 1D array, not empty, got shape {lams.shape}.")
    return lams


def _positive(value: Any, name: str) -> None:
    _check_values(value, name, lambda v: v > 0, "> 0")


def _below_infinity(value: Any, name: str) -> None:
    _check_values(value, name, lambda v: v < math.inf, "below inf")


def _above_minus_infinity(value: Any, name: str) -> None:
    _check_values(value, name, lambda v: v > -math.inf, "above -inf")


def _per_element(
    value: Any, name: str, x: Array, axes: Sequence[int], check: Callable[[Any, str], None]
) -> Array:
    """A number, or an array that broadcasts against x with size 1 along `axes`; of x's rank."""
    value = _as_float(value, name, x, check)
    shape = value.shape
    padded = (1,) * (x.ndim - len(shape)) + shape
    sizes = [{1} if a in axes else {1, size} for a, size in enumerate(x.shape)]
    if len(shape) > x.ndim or not all(have in fit for have, fit in zip(padded, sizes)):
        raise ValueError(
            f"`{name}` of shape {shape} does not fit x of shape {x.shape}: it must broadcast "
            f"against x with size 1 along axis {', '.join(map(str, axes))}."
            f"{_reshape_hint(name, shape, x.shape, axes)}"
        )
    return jnp.reshape(value, padded)


def init_lam(value: Any, trainable: bool) -> float:
    """λ of a layer before training."""
    lam = _real(value)
    if lam is None:
        raise TypeError(f"`init_lam` must be a number, got {type(value).__name__}.")
    _not_negative(lam, "init_lam")
    if trainable and not 0 < lam < math.inf:
        raise ValueError(
            f"`init_lam` must be positive and finite when `trainable=True`, got {lam!r}: the "
            "parameter is the inverse softplus of λ, which is not finite there, so that λ could "
            "never change. Use a small positive value, or `trainable=False` for a constant λ."
        )
    return lam


# ---------------------------------------------------------------------------- trend filtering


def trend_order(order: Any, n: int, axis: int) -> int:
    """1 or 2, and enough samples for it."""
    order = integer(order, "order")
    if order not in (1, 2):
        raise ValueError(f"`order` must be 1 (linear) or 2 (quadratic), got {order}.")
    if n < order + 2:
        raise ValueError(
            f"`x` must have at least {order + 2} samples along axis {axis} for order={order}, got "
            f"{n}."
        )
    return order


def spacing(value: ArrayLike | None, x: Array) -> Array:
    """The distances of the samples on the last axis of x: size n - 1 there and 1 elsewhere."""
    edges = x.shape[-1] - 1
    gaps = any_array(1.0 if value is None else value, "spacing")
    if not jnp.issubdtype(gaps.dtype, jnp.floating) and not jnp.issubdtype(gaps.dtype, jnp.integer):
        raise TypeError(f"`spacing` must be a number or a float array, got {gaps.dtype}.")
    if gaps.shape not in ((), (edges,)):
        raise ValueError(
            f"`spacing` must be a number or have shape ({edges},), the distances of {edges + 1} "
            f"neighbouring samples, got shape {gaps.shape}."
        )
    if not isinstance(gaps, Tracer):
        values = np.asarray(gaps, np.float64)
        wrong = values[~((values > 0) & (values < math.inf))]
        if wrong.size:
            raise ValueError(f"`spacing` must be positive and finite, got {wrong.flat[0]}.")
    gaps = jnp.broadcast_to(gaps.astype(x.dtype), (edges,))
    return gaps.reshape((1,) * (x.ndim - 1) + (edges,))


# ---------------------------------------------------------------------------- graphs


def edges(value: ArrayLike, num_nodes: int) -> np.ndarray:
    """An int32 copy (num_edges, 2): two different nodes in each row."""
    try:
        array = np.asarray(_plain(value, "edges"))
    except ValueError as error:
        raise ValueError(f"`edges` must have shape (num_edges, 2): {error}.") from error
    array = array.reshape(0, 2).astype(int) if array.size == 0 else array
    if array.dtype.kind not in "iu":
        raise TypeError(f"`edges` must be integers, got {array.dtype}.")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"`edges` must have shape (num_edges, 2), got {array.shape}.")
    missing = np.flatnonzero(((array < 0) | (array >= num_nodes)).any(1))
    if missing.size:
        row = missing[0]
        raise ValueError(
            f"`edges` must name nodes from 0 to num_nodes - 1 = {num_nodes - 1}, got "
            f"{array[row].tolist()} in row {row}."
        )
    loops = np.flatnonzero(array[:, 0] == array[:, 1])
    if loops.size:
        row = loops[0]
        raise ValueError(
            f"`edges` must join two different nodes, got {array[row].tolist()} in row {row}."
        )
    return array.astype(np.int32)


def edge_lam(lam: Any, x: Array, axis: int, num_edges: int) -> Array:
    """λ of the rank of x, with size 1 or one for each edge of a graph along `axis`."""
    lam = _as_lam(lam, x)
    padded = (1,) * (x.ndim - lam.ndim) + lam.shape
    sizes = [(1, num_edges if a == axis else n) for a, n in enumerate(x.shape)]
    if lam.ndim > x.ndim or not all(n in allowed for n, allowed in zip(padded, sizes)):
        raise ValueError(
            f"`lam` of shape {lam.shape} does not fit x of shape {x.shape}: it must broadcast "
            f"against x with size 1 or {num_edges}, one for each edge, along axis {axis}."
        )
    lam = lam.reshape(padded)
    return lam + jnp.zeros_like(_template(x, axis, min(1, x.shape[axis])), lam.dtype)


# ---------------------------------------------------------------------------- options


def choice(value: Any, name: str, choices: Sequence[str]) -> None:
    """One of several words."""
    if value not in choices:
        *others, last = (f'"{c}"' for c in choices)
        raise ValueError(f"`{name}` must be {', '.join(others)} or {last}, got {value!r}.")


def count(value: Any, name: str) -> int:
    """An integer of at least 1."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"`{name}` must be an integer >= 1, got {value!r}.")
    return number


def tolerance(value: Any, name: str) -> float:
    """A finite number of at least 0."""
    number = _real(value)
    if number is None or not 0 <= number < math.inf:
        raise ValueError(f"`{name}` must be a finite number >= 0, got {value!r}.")
    return number


def _real(value: Any) -> float | None:
    """The float of a real number of Python, NumPy or JAX; None for everything else."""
    if isinstance(value, np.generic | np.ndarray | jax.Array) and value.ndim == 0:
        value = None if isinstance(value, Tracer) else value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    return float(value)
