"""The cross-check: plain JAX, slow and obvious, sharing nothing with the kernels.

Forward: a taut string (Condat 2013; Barbero & Sra 2018), one sample at a time. Backward:
`jax.custom_vjp` with the matrices of Eq. 8 and 9 of Yeh, Hu, Ren & Schwing, "Total Variation
Optimization Layers for Computer Vision" (CVPR 2022), dense Cholesky included. It is meant for
signals of up to a few hundred samples, and best in float64: the matrix of Eq. 9 has a condition
number of about 4 n^2 / pi^2. Works under `jit`, `vmap` and reverse-mode `grad`; forward mode is
not defined (`jax.custom_vjp`).

**The correction of Eq. 8 and 9.** With L the n x n lower-triangular matrix of ones, y = L z makes
z_0 the first value and z_{e+1} = (D y)_e the jumps. The paper selects the columns of L at the
non-zero entries of D y. Read literally this is off by one, since the jump at edge e is entry e+1
of z, and it lacks column 0, the constant, which carries no penalty. Here the columns are
S = {0} + {e + 1 : jump at edge e}, and the sign that goes with column 0 is 0. Edges of weight
zero count as jumps (of sign 0 if the values are equal): they hold nothing together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve
from jax.typing import ArrayLike

from jaxtv._arguments import float_array, image_axes, integer, resolve_axes

__all__ = ["prox_tv1d", "prox_tv2d"]

# ------------------------------------------------------------------ one signal: taut string


class _String(NamedTuple):
    """State of the taut string: the segment that starts at `k0` is known up to sample `k`.

    Its value lies in [vmin, vmax]; with the value vmin (vmax) the dual at edge k is umin (umax).
    `kmin` (`kmax`) is the last edge where vmin (vmax) touched its bound, and there the segment
    ends if it must be left downwards (upwards).
    """

    k: Array
    k0: Array
    kmin: Array
    kmax: Array
    vmin: Array
    vmax: Array
    umin: Array
    umax: Array
    value: Array  # (n,) value of a segment, at its last sample
    last: Array  # (n,) bool, last samples of segments


def _start(x: Array, w: Array, k: Array, from_left: Array, value: Array, last: Array) -> _String:
    """Begin a segment at sample k; `from_left` is what the edge before it adds to x_k."""
    middle = x[k] + from_left
    return _String(k, k, k, k, middle - w[k], middle + w[k], w[k], -w[k], value, last)


def _close(x: Array, w: Array, s: _String, down: Array) -> _String:
    """End the segment where it last touched the bound and begin the next one."""
    end = jnp.where(down, s.kmin, s.kmax)
    value = s.value.at[end].set(jnp.where(down, s.vmin, s.vmax))
    from_left = jnp.where(down, w[end], -w[end])
    return _start(x, w, end + 1, from_left, value, s.last.at[end].set(True))


def _extend(s: _String, w_next: Array, umin: Array, umax: Array) -> _String:
    """Take one more sample into the segment, moving vmin and vmax back inside the bounds."""
    k = s.k + 1
    count = (k - s.k0 + 1).astype(w_next.dtype)
    low, high = umin >= w_next, umax <= -w_next
    return s._replace(
        k=k,
        kmin=jnp.where(low, k, s.kmin),
        kmax=jnp.where(high, k, s.kmax),
        vmin=jnp.where(low, s.vmin + (umin - w_next) / count, s.vmin),
        vmax=jnp.where(high, s.vmax + (umax + w_next) / count, s.vmax),
        umin=jnp.minimum(umin, w_next),
        umax=jnp.maximum(umax, -w_next),
    )


def _taut_string(x: Array, w: Array) -> Array:
    """Exact prox of one finite signal (n,) with finite weights (n - 1,), n >= 2."""
    n = x.shape[0]
    w = jnp.append(w, jnp.zeros_like(x[:1]))  # nothing follows the last sample

    def step(s: _String) -> _String:
        x_next, w_next = x[s.k + 1], w[s.k + 1]
        umin, umax = s.umin + (x_next - s.vmin), s.umax + (x_next - s.vmax)
        down, up = umin < -w_next, umax > w_next
        closed, extended = _close(x, w, s, down), _extend(s, w_next, umin, umax)
        return jax.tree.map(partial(jnp.where, down | up), closed, extended)

    zero = jnp.int32(0)
    start = _start(x, w, zero, jnp.zeros_like(x[0]), x, jnp.zeros_like(x, bool))
    s = jax.lax.while_loop(lambda s: s.k < n - 1, step, start)
    value, last = s.value.at[-1].set(s.vmin), s.last.at[-1].set(True)
    index = jnp.where(last, jnp.arange(n), n)
    return value[jax.lax.cummin(index, reverse=True)]


# --------------------------------------------------------- one signal: Eq. 8 and 9, corrected


def _forward(x: Array, w: Array) -> Array:
    ok = jnp.all(jnp.isfinite(x)) & jnp.all(w >= 0)
    x, w = jnp.where(ok, x, 0), jnp.where(ok, w, 0)
    bound = x.size * (jnp.max(x) - jnp.min(x))  # no dual reaches it: infinite weights become finite
    return jnp.where(ok, _taut_string(x, jnp.minimum(w, bound)), jnp.nan)


@jax.custom_vjp
def _prox(x: Array, w: Array) -> Array:
    """Prox of one signal (n,) with one weight per edge (n - 1,), n >= 2."""
    return _forward(x, w)


def _prox_fwd(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    y = _forward(x, w)
    return y, (y, w)


def _prox_bwd(residual: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    """Vector-Jacobian product with dy/dx = M L_S^T and dy/dw_e = -M sign(D y)_e (Eq. 8).

    M = L_S (L_S^T L_S)^-1 (Eq. 9). Shapes are static: columns outside S are zeroed in L, and a
    one on the diagonal of L^T L in their place keeps it positive definite.
    """
    y, w = residual
    jump = jnp.diff(y)
    selected = jnp.append(jnp.ones(1, bool), (jump != 0) | (w == 0))
    L = jnp.tril(jnp.ones((y.size, y.size), y.dtype)) * selected[None, :].astype(y.dtype)
    gram = L.T @ L + jnp.diag((~selected).astype(y.dtype))
    mg = cho_solve(cho_factor(gram, lower=True), L.T @ g)  # M^T g
    return L @ mg, -jnp.sign(jump) * mg[1:]


_prox.defvjp(_prox_fwd, _prox_bwd)


# ------------------------------------------------------------------------------ public names


def _weights(lam: ArrayLike, x: Array, axis: int) -> Array:
    """Broadcast `lam` to one weight per edge along `axis` (negative), moved to the end."""
    lam = jnp.asarray(lam)
    lam = lam.astype(x.dtype)
    n = x.shape[axis]
    size = lam.shape[axis] if lam.ndim >= -axis else 1
    if size not in (1, n - 1):
        raise ValueError(
            f"`lam` has shape {lam.shape}: along axis {axis} of `x` of shape {x.shape} it must "
            f"have size 1 or {n - 1}"
        )
    shape = list(x.shape)
    shape[axis] = size
    w = jnp.moveaxis(jnp.broadcast_to(lam, shape), axis, -1)
    return jnp.broadcast_to(w, (*w.shape[:-1], n - 1))


def _float32_or_64(x: ArrayLike, name: str) -> Array:
    x = float_array(x, name)
    if x.dtype not in (jnp.float32, jnp.float64):
        raise TypeError(f"`{name}` must be float32 or float64 in jaxtv.reference, got {x.dtype}.")
    return x


def prox_tv1d(x: ArrayLike, lam: ArrayLike, *, axis: int = -1) -> Array:
    """Solve argmin_y 1/2 |y - x|^2 + sum_e lam_e |y_{e+1} - y_e| along one axis.

    The derivative is the vector-Jacobian product of Eq. 8 and 9 of the paper (Yeh, Hu, Ren &
    Schwing, CVPR 2022), corrected as the module's docstring says, and dense: O(n^3) per signal.

    Args:
        x: float32 or float64 array.
        lam: number or array that broadcasts against `x`, with size 1 (one weight per signal) or
            n - 1 (one per edge) along `axis`.
        axis: the axis of the signals.

    Returns:
        Array of the shape and dtype of `x`. A signal with a non-finite sample, or with a NaN or
        negative weight, is NaN.

    Raises:
        TypeError: `x` is neither float32 nor float64.
        ValueError: `axis` is out of range, or `lam` has another size along it.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> jaxtv.reference.prox_tv1d(jnp.array([0.0, 0.0, 4.0, 4.0]), 1.0)
        Array([0.5, 0.5, 3.5, 3.5], dtype=float32)
    """
    x = _float32_or_64(x, "x")
    axis = resolve_axes((integer(axis, "axis"),), x, "axis")[0] - x.ndim
    w = _weights(lam, x, axis)
    signals = jnp.moveaxis(x, axis, -1)
    n = signals.shape[-1]
    if n == 1:
        return x
    y = jax.vmap(_prox)(signals.reshape(-1, n), w.reshape(-1, n - 1))
    return jnp.moveaxis(y.reshape(signals.shape), -1, axis)


def prox_tv2d(
    X: ArrayLike,
    lam: ArrayLike | tuple[ArrayLike, ArrayLike],
    *,
    axes: Sequence[int] | None = None,
    iterations: int = 4,
) -> Array:
    """Algorithm 1 of the paper: K sweeps of Dykstra's method over rows, then columns.

    A row runs along the second of `axes` and is swept first, as in the paper. It differentiates
    the unrolled iteration.

    Args:
        X: float32 or float64 array.
        lam: one weight for both axes (size 1 along each), or a tuple with one entry for each of
            `axes`, as for `prox_tv1d`.
        axes: the two axes, columns first. None is for a matrix.
        iterations: K, the number of sweeps.

    Returns:
        Array of the shape and dtype of `X`: the result of the last pass over the columns.

    Raises:
        TypeError: `X` is neither float32 nor float64.
        ValueError: X has more than two dimensions and `axes` is None; `axes` do not fit X, or an
            entry of `lam` has a wrong size.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> X = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
        >>> jaxtv.reference.prox_tv2d(X, 1.0, iterations=4)
        Array([[0.5, 0.5, 3.5, 3.5],
               [0.5, 0.5, 3.5, 3.5]], dtype=float32)
    """
    X = _float32_or_64(X, "X")
    axes = image_axes(axes, X)
    lams = lam if isinstance(lam, tuple) else (lam, lam)
    (columns, rows), (lam_columns, lam_rows) = axes, lams

    def sweep(state, _):
        Y, P, Q = state
        Z = prox_tv1d(Y + P, lam_rows, axis=rows)
        P = P + Y - Z
        Y = prox_tv1d(Z + Q, lam_columns, axis=columns)
        Q = Q + Z - Y
        return (Y, P, Q), None

    state = (X, jnp.zeros_like(X), jnp.zeros_like(X))
    (Y, _, _), _ = jax.lax.scan(sweep, state, length=iterations)
    return Y
