"""λ by itself: degrees of freedom, Stein's unbiased risk estimate, and the λ that they choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxtv import _arguments, _converged
from jaxtv._arguments import Lam
from jaxtv._dtypes import compute_dtype
from jaxtv._prox import prox_tv
from jaxtv._solvers import fitting_exact
from jaxtv._tv_ball import Problem, Solver, discrepancy, find_lam, of_size_one

Criterion = Literal["sure", "discrepancy"]

# The risk of a signal jumps with λ. So λ is searched on a grid of ratios, and again on grids
# between the neighbours of its best, whose middle it is. Over several axes a solve takes long and
# the risk is smoother, so these grids are coarser.
_GRIDS, _GRIDS_OF_IMAGES = (36, 9, 9), (18, 7, 7)
_AT_ONCE = 9  # λ that one call solves
_LARGE = 1e6  # times max|x|: noise in which x is nothing


def degrees_of_freedom(y: ArrayLike, lam: Lam, *, axes: int | Sequence[int]) -> Array:
    r"""Degrees of freedom of y = `prox_tv(x, lam, axes=axes)`: the number of its components.

    The trace of the Jacobian ∂y/∂x, whose mean over the noise is the degrees of freedom of the fit
    (Tibshirani & Taylor 2012). One axis: the number of segments. More axes: the number of connected
    components of equal value. Edges of weight 0 join nothing.

    Args:
        y: a solution, of float32, float64, bfloat16 or float16. Rounding to a half type joins
            segments, so count on a result in float32.
        lam: the λ of the prox, as for `prox_tv`.
        axes: the axes of the prox.

    Returns:
        int32 array shaped as y without `axes`.

    Raises:
        TypeError, ValueError: as `prox_tv`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 1.0, 2.0, 3.0]])
        >>> jaxtv.degrees_of_freedom(jaxtv.prox_tv1d(x, 0.5), 0.5, axes=1)
        Array([2, 4], dtype=int32)
    """
    y = _arguments.float_array(y, "y")
    axes = _arguments.resolve_axes(_arguments.named_axes(axes), y)
    y = y.astype(compute_dtype(y.dtype))
    return _components(y, _arguments.weights(lam, y, axes), axes)


def _components(y: Array, ws: Sequence[Array], axes: tuple[int, ...]) -> Array:
    if y.size == 0:
        return jnp.zeros([d for a, d in enumerate(y.shape) if a not in axes], jnp.int32)
    inside = [(jnp.diff(y, axis=a) == 0) & (w > 0) for w, a in zip(ws, axes)]
    if len(axes) == 1:
        return y.shape[axes[0]] - jnp.sum(inside[0], axes, dtype=jnp.int32)
    labels = _converged.component_labels(inside, y, axes)
    first = jax.lax.broadcasted_iota(jnp.int32, labels.shape, labels.ndim - 1)
    return jnp.sum(labels == first, axis=-1, dtype=jnp.int32)


def sure(
    x: ArrayLike, y: ArrayLike, sigma: ArrayLike, lam: Lam, *, axes: int | Sequence[int]
) -> Array:
    r"""Stein's unbiased estimate of the squared error of y = `prox_tv(x, lam, axes=axes)`.

    $\|y-x\|^2-N\sigma^2+2\sigma^2\,\mathrm{df}$ for x = clean + white Gaussian noise of standard
    deviation σ. Over the noise, its mean equals the mean of ‖y − clean‖² (Stein 1981). No clean
    signal is needed. N counts the samples of a batch element, df is `degrees_of_freedom`.

    Args:
        x: input of the prox, float32, float64, bfloat16 or float16.
        y: the solution, shaped as x.
        sigma: σ > 0 in the units of x, a number or one per batch element: an array that broadcasts
            against x with size 1 along `axes`.
        lam: the λ of the prox, as for `prox_tv`.
        axes: the axes of the prox.

    Returns:
        Array shaped as x without `axes`, in the units of x squared (half types: float32). The
        derivative holds df constant.

    Raises:
        TypeError, ValueError: as `prox_tv`; ValueError where y is not shaped as x, `sigma` does not
            fit, or a concrete σ is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([0.0, 0.2, 4.0, 4.2])
        >>> y = jaxtv.prox_tv1d(x, 0.5)
        >>> jaxtv.sure(x, y, 0.1, 0.5, axes=0).round(2)
        Array(0.29, dtype=float32)
    """
    x = _arguments.float_array(x, "x")
    axes = _arguments.resolve_axes(_arguments.named_axes(axes), x)
    x = x.astype(compute_dtype(x.dtype))
    y = _arguments.same_shape(y, x, "y")
    sigma = _arguments.positive(sigma, "sigma", x, axes)
    sigma = jnp.where(sigma > 0, sigma, jnp.nan)
    return _sure(x, y, sigma, _arguments.weights(lam, x, axes), axes)


def _sure(x: Array, y: Array, sigma: Array, ws: Sequence[Array], axes: tuple[int, ...]) -> Array:
    df = _components(y, ws, axes).astype(x.dtype)
    error = jnp.sum((y - x) ** 2 - sigma**2, axes)
    return error + 2 * jnp.squeeze(sigma, axes) ** 2 * df


def select_lam(
    x: ArrayLike,
    sigma: ArrayLike | None = None,
    *,
    axes: int | Sequence[int],
    criterion: Criterion = "sure",
    lams: ArrayLike | None = None,
) -> Array:
    r"""The λ that suits the noise in x, for each batch element.

    - `"sure"` minimises `sure`, an estimate of ‖y − clean‖², on a grid of ratios between σ/100 and
      a λ whose prox is constant, which is then refined around its best.
    - `"discrepancy"` is the λ with ‖y − x‖² = Nσ² (Morozov's principle), to round-off: the λ of
      `denoise_discrepancy`. It smooths more than the least error does.

    Args:
        x: array of float32, float64, bfloat16 or float16; clean + white Gaussian noise.
        sigma: standard deviation σ > 0 of the noise in the units of x, a number or one per batch
            element: an array that broadcasts against x with size 1 along `axes`. None estimates
            it: the median of the absolute differences of neighbours, over 0.6745 √2. That is 0 if
            most neighbours are equal, and too large if most differ for another reason.
        axes: the axes of the prox.
        criterion: "sure" or "discrepancy".
        lams: candidates, a 1D array of numbers ≥ 0. One of them is chosen, without refinement: the
            one with the least `sure`, or the largest one with ‖y − x‖² ≤ Nσ² (if there is none,
            the smallest).

    Returns:
        λ of size 1 along `axes`: fits `prox_tv(x, lam, axes=axes)` as it is. float32 for half
        types. With two and more axes the prox is solved by `AcceleratedDykstra(tol=1e-6)`, and a λ
        whose solve does not converge is not chosen; λ is NaN if none does, or under `jit` if σ is
        not positive. Where x has a NaN or an infinity λ is 0, and the prox is NaN as with any λ.
        The λ of "discrepancy" without `lams` has a derivative in x and σ, the others have none.

    Raises:
        TypeError, ValueError: as `prox_tv`; ValueError where `sigma` does not fit or a concrete σ
            is not positive, `criterion` is unknown, or `lams` is no 1D array of numbers ≥ 0.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> clean = jnp.repeat(jnp.array([0.0, 3.0, 1.0]), 50)
        >>> x = clean + 0.5 * jax.random.normal(jax.random.key(0), (150,))
        >>> lam = jaxtv.select_lam(x, 0.5, axes=0)
        >>> y = jaxtv.prox_tv1d(x, lam)
        >>> jnp.mean((y - clean) ** 2) < 0.1 * jnp.mean((x - clean) ** 2)
        Array(True, dtype=bool)
        >>> jaxtv.select_lam(x, 0.5, axes=0, lams=jnp.array([0.1, 2.0, 100.0]))
        Array([2.], dtype=float32)
    """
    x = _arguments.float_array(x, "x")
    axes = _arguments.resolve_axes(_arguments.named_axes(axes), x)
    _arguments.choice(criterion, "criterion", ("sure", "discrepancy"))
    x = x.astype(compute_dtype(x.dtype))
    sigma = None if sigma is None else _arguments.positive(sigma, "sigma", x, axes)
    lams = None if lams is None else _arguments.candidates(lams, "lams", x)
    if x.size == 0:
        return jnp.zeros([1 if a in axes else d for a, d in enumerate(x.shape)], x.dtype)
    finite = jnp.all(jnp.isfinite(x), axes, keepdims=True)
    lam = _select(jnp.where(finite, x, 0), sigma, axes, criterion, lams)
    return jnp.where(finite, lam, 0)


def _select(
    x: Array,
    sigma: Array | None,
    axes: tuple[int, ...],
    criterion: Criterion,
    lams: Array | None,
) -> Array:
    """`select_lam` of a finite x and checked arguments."""
    if sigma is None:
        sigma = jnp.maximum(_noise(x, axes), float(jnp.finfo(x.dtype).tiny))
    solver = fitting_exact(None, len(axes))
    problem, exponent = of_size_one(Problem(x, sigma, discrepancy, axes, solver))
    if criterion == "discrepancy" and lams is None:
        return jnp.ldexp(find_lam(problem, sigma > 0).lam, exponent)
    x, sigma, lams = jax.lax.stop_gradient((problem.x, problem.bound, lams))
    sigma = jnp.where(sigma > 0, jnp.minimum(sigma, _LARGE), jnp.nan)
    score = partial(_score, criterion, x, sigma, axes, solver)
    if lams is None:
        grids = _GRIDS if len(axes) == 1 else _GRIDS_OF_IMAGES
        return jnp.ldexp(_search(score, grids, sigma / 100, _constant_from(x, axes)), exponent)
    ones = jnp.ones_like(jnp.max(x, axes, keepdims=True))
    lams = _leading(lams, x) * ones[None]
    return _best(lambda lam: score(jnp.ldexp(lam, -exponent)), lams)[1]


def _score(
    criterion: Criterion, x: Array, sigma: Array, axes: tuple[int, ...], solver: Solver, lam: Array
) -> Array:
    """The best λ has the least of it; inf where the prox has not converged."""
    y, info = prox_tv(x, lam, axes=axes, solver=solver, return_info=True)
    if criterion == "sure":
        score = jnp.expand_dims(_sure(x, y, sigma, _arguments.weights(lam, x, axes), axes), axes)
    else:
        excess = jnp.sum(1 - ((y - x) / sigma) ** 2, axes, keepdims=True)
        score = jnp.where(excess >= 0, -lam, lam)  # the largest, or else the smallest
    return jnp.where(jnp.expand_dims(info.converged, axes), score, jnp.inf)


def _best(score: Callable[[Array], Array], lams: Array) -> tuple[Array, Array]:
    """(which of the λ along axis 0 has the least score, that λ); NaN if no score is below inf."""
    scores = jax.lax.map(score, lams, batch_size=_AT_ONCE)
    index = jnp.argmin(scores, axis=0, keepdims=True)
    take = lambda v: jnp.take_along_axis(v, index, axis=0)[0]
    return index[0], jnp.where(take(scores) < jnp.inf, take(lams), jnp.nan)


def _search(
    score: Callable[[Array], Array], grids: Sequence[int], low: Array, high: Array
) -> Array:
    """The λ of the least score between two λ of each element; see `_GRIDS`."""
    lam, start, end = low, jnp.zeros_like(low), jnp.ones_like(low)
    for size in grids:
        steps = _leading(jnp.arange(size, dtype=low.dtype) / (size - 1), low)
        t = start[None] + steps * (end - start)[None]
        index, lam = _best(score, low[None] ** (1 - t) * high[None] ** t)
        neighbours = (jnp.clip(index + i, 0, size - 1).astype(low.dtype) for i in (-1, 1))
        start, end = (start + i / (size - 1) * (end - start) for i in neighbours)
    return lam


def _leading(values: Array, like: Array) -> Array:
    """1D values along a new axis before those of `like`."""
    return values.reshape(-1, *(1 for _ in like.shape))


def _constant_from(x: Array, axes: tuple[int, ...]) -> Array:
    """A λ whose prox is constant, of size 1 along `axes`; `max_lambda` for one axis.

    The sums of x minus its mean along one axis are a dual along it that leaves the means of that
    axis; what is left of them goes along the next one.
    """
    bound = jnp.zeros_like(jnp.max(x, axes, keepdims=True))
    for axis in axes:
        mean = jnp.mean(x, axis, keepdims=True)
        dual = jnp.cumsum(x - mean, axis)
        bound = jnp.maximum(bound, jnp.max(jnp.abs(dual), axes, keepdims=True))
        x = mean
    return bound


def _noise(x: Array, axes: tuple[int, ...]) -> Array:
    """σ from the median absolute difference of neighbours, of size 1 along `axes`."""
    last = tuple(range(-len(axes), 0))
    jumps = [jnp.moveaxis(jnp.abs(jnp.diff(x, axis=a)), axes, last) for a in axes]
    flat = jnp.concatenate([j.reshape(*j.shape[: last[0]], -1) for j in jumps], axis=-1)
    median = jnp.median(flat, axis=-1) if flat.shape[-1] else jnp.sum(flat, axis=-1)
    return jnp.expand_dims(median / (0.6745 * math.sqrt(2)), axes)
