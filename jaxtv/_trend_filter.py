"""Trend filtering: fits of piecewise polynomials whose knots the data choose.

**Problem.** Order k penalises the total variation of the k-th divided difference Δy: the minimum of
|y - x|^2 / 2 + λ |DΔy|_1 (Kim, Koh, Boyd & Gorinevsky 2009; Tibshirani 2014).

**Solver.** The ADMM of Ramdas & Tibshirani (2016), over y and α = Δy: one banded solve with
I + ρΔ^TΔ and one `prox_tv1d` an iteration. ρ starts at λ, in units in which samples and gaps are
about one, and is balanced by the residuals (Boyd et al. 2011, 3.4.1). The prox leaves a scaled dual
u = -D^T v with |v| <= λ / ρ. So x + ρΔ^T u is the primal of a feasible dual, and every iterate has
a duality gap.

**Polish and derivative.** Where Dα is not 0 there is a knot, of known sign s. Let P project onto
the piecewise polynomials with these knots. Then y = P(x - Δ^T D^T(s λ)), exact once the knots are,
and its derivative is dy = P(dx - Δ^T D^T(s dλ)). P is a least-squares fit, computed by an
information filter along the signal whose state is the polynomial (value and differences) at one
sample. A knot eliminates the highest difference. Solving with D_I D_I^T of the other edges gives
the same P, but loses all digits on long segments: its condition number grows as their length to
the power of 2k + 2.

Signals are on the last axis. `_divided_differences.py` has the solves.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxtv import _arguments, _overflow, _primitive
from jaxtv._divided_differences import (
    Differences,
    Factored,
    differences_of,
    factorise,
    limit_dual,
    norm,
    polynomial_fit,
    projection,
    total,
    transposed_diff,
)
from jaxtv._dtypes import compute_dtype
from jaxtv._elements import choose, floats
from jaxtv._prox import Info, empty_info
from jaxtv._solvers import Direct

# ---------------------------------------------------------------------- ADMM

_ROUNDING = 8.0  # times eps: of the polynomial that fits best, relative to max|x|
_RELAXATION = 1.7  # Boyd et al. 2011, 3.4.3
_BLOCK = 10  # iterations, at least, with the same ρ


class _Problem(NamedTuple):
    """Samples without their polynomial fit, at most 1 in size; λ has size 1 along the last axis."""

    x: Array
    lam: Array
    differences: Differences
    tol: float
    max_iterations: int

    def gap(self, y: Array, state: _State) -> tuple[Array, Array]:
        """The duality gap of y with the dual of the state, and the objective of y.

        The prox makes λ|Dα| + ρ<u, α> = 0. Subtracting it leaves terms that vanish with Δy - α.
        """
        dy = self.differences(y)
        jump = jnp.abs(jnp.diff(dy))
        excess = self.lam * total(jump - jnp.abs(jnp.diff(state.alpha)))
        excess += state.rho * total(state.u * (dy - state.alpha))
        rest = y - self.x - state.rho * self.differences.transpose(state.u)
        objective = self.lam * total(jump) + total((y - self.x) ** 2) / 2
        return jnp.maximum(excess + total(rest * rest) / 2, 0), objective

    def is_solved(self, gap: Array, objective: Array) -> Array:
        # Rounding y to its type leaves jumps of Δy in every segment. Measured: a tenth of this.
        eps = jnp.finfo(gap.dtype).eps
        roundoff = self.x.shape[-1] * eps * (self.lam + eps)
        return gap <= self.tol * objective + roundoff


class _State(NamedTuple):
    """`y`, `alpha` and `u` are as in the module's docstring; the others have size 1."""

    y: Array
    alpha: Array
    u: Array
    rho: Array
    imbalance: Array  # what ρ should be multiplied by
    iterations: Array
    active: Array


def _ratio(a: Array, b: Array) -> Array:
    """Positive and finite, also where a and b are 0."""
    tiny = jnp.finfo(a.dtype).tiny
    return jnp.maximum(a, tiny) / jnp.maximum(b, tiny)


def _iterate(problem: _Problem, system: Factored, state: _State) -> _State:
    _, alpha, u, rho, *_ = state
    differences = problem.differences
    # A correction of y, not y itself: its rounding errors vanish with it.
    pull = differences.transpose(alpha + u - differences(state.y))
    y = state.y + system.solve(problem.x - state.y + rho * pull)
    dy = differences(y)
    relaxed = _RELAXATION * dy + (1 - _RELAXATION) * alpha
    alpha = _primitive.prox1d(relaxed - u, problem.lam / rho, axis=u.ndim - 1, solver=Direct())
    u = u + (alpha - relaxed)

    # Relative residuals. Where Δy vanishes, u keeps ρ from growing without end.
    size = jnp.maximum(jnp.maximum(norm(dy), norm(alpha)), 0.01 * norm(u))
    primal = _ratio(norm(dy - alpha), size)
    moved, pull = (differences.transpose(v) for v in (alpha - state.alpha, u))
    dual = _ratio(norm(moved), norm(pull))
    new = _State(
        y=y,
        alpha=alpha,
        u=u,
        rho=rho,
        imbalance=jnp.sqrt(_ratio(primal, dual)),
        iterations=state.iterations + 1,
        active=state.active,
    )
    going = ~problem.is_solved(*problem.gap(y, new)) & (new.iterations < problem.max_iterations)
    # Gaps of very different sizes can be too much for float32: the last finite state is kept.
    finite = jnp.isfinite(norm(y)) & jnp.isfinite(norm(u))
    new = choose(finite, new._replace(active=going), state._replace(active=jnp.zeros_like(finite)))
    return choose(state.active, new, state)


def _block(problem: _Problem, state: _State) -> _State:
    """Iterations with one ρ, half as many as there were before, and then a better ρ."""
    system = factorise(problem.differences, state.rho)
    done = jnp.max(state.iterations, initial=0)
    end = done + jnp.maximum(_BLOCK, done // 2)
    state = jax.lax.while_loop(
        lambda s: jnp.any(s.active & (s.iterations < end)),
        partial(_iterate, problem, system),
        state,
    )
    factor = jnp.where(state.active, jnp.clip(state.imbalance, 0.1, 10), 1)
    return state._replace(rho=state.rho * factor, u=state.u / factor)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def _trend_filter(
    x: Array, lam: Array, spacing: Array, order: int, tol: float, max_iterations: int
) -> tuple[Array, Info, Array, Array]:
    """(y, Info, sign of the jump of Δy at each edge, knots) as floats, of finite x and λ >= 0."""
    problem, polynomial, exponent = _normalised(x, lam, spacing, order, tol, max_iterations)
    state = jax.lax.while_loop(
        lambda s: jnp.any(s.active), partial(_block, problem), _start(problem)
    )

    weight, differences = problem.lam, problem.differences
    sign = jnp.sign(jnp.diff(state.alpha)).astype(jnp.int8)
    knots = (sign != 0) | (lam == 0)
    pull = differences.transpose(transposed_diff(weight * sign.astype(x.dtype)))
    polished = projection(differences, knots)(problem.x - pull)
    y, gap, objective = 0 * state.y, *problem.gap(0 * state.y, state)
    for candidate in (state.y, polished):
        found = (candidate, *problem.gap(candidate, state))
        y, gap, objective = choose((found[1] <= gap) | jnp.isnan(gap), found, (y, gap, objective))
    converged = problem.is_solved(gap, objective)
    y = polynomial + jnp.ldexp(y, exponent)
    y = jnp.where(lam == 0, x, _overflow.within_range(y))
    gap = jnp.ldexp(jnp.ldexp(gap, exponent), exponent)
    return floats((y, Info(gap, state.iterations, converged), sign, knots), y.dtype)


def _normalised(
    x: Array, lam: Array, spacing: Array, order: int, tol: float, max_iterations: int
) -> tuple[_Problem, Array, Array]:
    """The problem, the polynomial that is subtracted from x, and the exponent of the scale."""
    unit = jnp.mean(spacing, axis=-1, keepdims=True)
    differences = differences_of(spacing / unit, order)
    first = _exponent(x)
    x = jnp.ldexp(x, -first)
    polynomial = polynomial_fit(x, spacing, order)
    rest = x - polynomial
    # What is a polynomial to rounding is one: noise of rounding is no signal to solve for.
    size = jnp.max(jnp.abs(rest), axis=-1, keepdims=True)
    rest = jnp.where(size > _ROUNDING * jnp.finfo(x.dtype).eps, rest, 0)
    second = _exponent(rest)
    rest = jnp.ldexp(rest, -second)
    weight = jnp.ldexp(lam, -first - second)
    for _ in range(order):  # unit² may be out of range
        weight = weight / unit
    limit = jnp.cumsum(limit_dual(rest, differences), axis=-1)[..., :-1]
    weight = jnp.minimum(weight, 2 * jnp.max(jnp.abs(limit), axis=-1, keepdims=True))
    problem = _Problem(rest, weight, differences, tol, max_iterations)
    return problem, jnp.ldexp(polynomial, first), first + second


def _exponent(v: Array) -> Array:
    """V is at most 2 to this power."""
    return jnp.frexp(jnp.max(jnp.abs(v), axis=-1, keepdims=True))[1]


def _start(problem: _Problem) -> _State:
    """The samples themselves; but 0, with its dual, where λ is so large that it is the solution."""
    x, lam = problem.x, problem.lam
    one, none = jnp.ones_like(lam), jnp.zeros_like(lam, jnp.int32)
    dy, dual = problem.differences(x), limit_dual(x, problem.differences)
    limit = _State(0 * x, 0 * dy, dual, one, one, none, none == 1)
    first = _State(x, dy, 0 * dy, jnp.where(lam > 0, lam, 1), one, none, none == 0)
    feasible = jnp.max(jnp.abs(jnp.cumsum(dual, axis=-1)[..., :-1]), axis=-1, keepdims=True) <= lam
    solved = feasible & problem.is_solved(*problem.gap(limit.y, limit))
    return choose(solved, limit, first)


@_trend_filter.defjvp
def _trend_filter_jvp(order, tol, max_iterations, primals, tangents):
    x, lam, spacing = primals
    tx, tlam, _ = tangents
    out = _trend_filter(x, lam, spacing, order, tol, max_iterations)
    *_, sign, knots = out
    differences = differences_of(spacing, order)
    pull = differences.transpose(transposed_diff(tlam * sign))
    ty = projection(differences, knots > 0)(tx - pull)
    return out, (ty, *jax.tree.map(jnp.zeros_like, out[1:]))


# ---------------------------------------------------------------------- the public function


@overload
def trend_filter(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    order: Literal[1, 2] = 1,
    axis: int = -1,
    spacing: ArrayLike | None = None,
    tol: float = 1e-6,
    max_iterations: int = 5000,
    return_info: Literal[False] = False,
) -> Array: ...
@overload
def trend_filter(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    order: Literal[1, 2] = 1,
    axis: int = -1,
    spacing: ArrayLike | None = None,
    tol: float = 1e-6,
    max_iterations: int = 5000,
    return_info: Literal[True],
) -> tuple[Array, Info]: ...
@overload
def trend_filter(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    order: Literal[1, 2] = 1,
    axis: int = -1,
    spacing: ArrayLike | None = None,
    tol: float = 1e-6,
    max_iterations: int = 5000,
    return_info: bool,
) -> Array | tuple[Array, Info]: ...
def trend_filter(
    x: ArrayLike,
    lam: ArrayLike,
    *,
    order: Literal[1, 2] = 1,
    axis: int = -1,
    spacing: ArrayLike | None = None,
    tol: float = 1e-6,
    max_iterations: int = 5000,
    return_info: bool = False,
) -> Array | tuple[Array, Info]:
    r"""Trend filtering along one axis: a piecewise linear or quadratic fit.

    Computes $\arg\min_y\,\tfrac12\|y-x\|^2 + \lambda\|D^{(k+1)}y\|_1$ for every signal, where k is
    the order (Kim, Koh, Boyd & Gorinevsky 2009; Tibshirani 2014). The knots, at which the slope
    (k = 1) or the curvature (k = 2) jumps, follow from the data and λ. ADMM (Ramdas & Tibshirani
    2016) finds the knots, up to a duality gap. The result is the least-squares fit with these
    knots. It is differentiable in x and λ, in forward and reverse mode, at any order. The
    derivatives are exact as soon as the knots are.

    Args:
        x: array (..., n, ...) of float32, float64, bfloat16 or float16, n ≥ order + 2. Half types
            are computed in float32. A signal with a NaN or an infinity becomes NaN.
        lam: λ ≥ 0, in the units of x times `spacing` to the power of `order`. A number, or
            an array that broadcasts against x with size 1 along `axis`: one λ per signal. λ = 0
            gives x, λ = inf the polynomial of degree `order` that is nearest to x. Under `jit` a
            negative or NaN λ makes its signals NaN.
        order: 1 for piecewise linear, 2 for piecewise quadratic.
        axis: the axis of the signals.
        spacing: the distances of neighbouring samples, a number or n - 1 numbers, the same for all
            signals; None is 1. For samples at times t it is `jnp.diff(t)`. The penalty is then λ
            times the total variation of the divided differences of that order. It has no
            derivative. Under `jit` a bad one makes all signals NaN. If the longest distance is 1000
            times the shortest, float32 may be too coarse, most of all for order 2. `Info` then
            says that the signal has not converged.
        tol: a signal is solved when its duality gap is at most `tol` times its objective, plus
            n λ eps max|x|, which rounding y to its type may add to the objective: in float32 that
            is often more.
        max_iterations: the most iterations; a signal that needs more is reported by
            `Info.converged`.
        return_info: also return an `Info`; its `iterations` count the steps of ADMM.

    Returns:
        y, shaped and typed as x; with `return_info` the pair (y, Info), one entry per signal.

    Raises:
        TypeError: x, `lam` or `spacing` is not a float array.
        ValueError: x has too few samples for the order, `axis` is out of range, `lam` or `spacing`
            does not fit, a concrete λ is negative or NaN, a concrete spacing is not positive and
            finite, or `order`, `tol` or `max_iterations` is not one of those above.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([0.0, 35.0, 70.0, 35.0, 0.0])
        >>> y, info = jaxtv.trend_filter(x, 7.0, return_info=True)
        >>> y.round()  # two lines
        Array([ 4., 34., 64., 34.,  4.], dtype=float32)
        >>> info.converged
        Array(True, dtype=bool)
        >>> jaxtv.trend_filter(x, jnp.inf, order=2).round()  # the nearest parabola
        Array([-2., 43., 58., 43., -2.], dtype=float32)
    """
    x = _arguments.float_array(x, "x")
    (axis,) = _arguments.resolve_axes((_arguments.integer(axis, "axis"),), x, "axis")
    degree = _arguments.trend_order(order, x.shape[axis], axis)
    work = jnp.moveaxis(x.astype(compute_dtype(x.dtype)), axis, -1)
    lam = jnp.moveaxis(_arguments.signal_lam(lam, x, axis), axis, -1)
    gaps = _arguments.spacing(spacing, work)
    tol = _arguments.tolerance(tol, "tol")
    max_iterations = _arguments.count(max_iterations, "max_iterations")
    if work.size == 0:
        return (x, empty_info(work, (work.ndim - 1,))) if return_info else x
    y, info = _finite(work, lam, gaps, degree, tol, max_iterations)
    y = jnp.moveaxis(y, -1, axis).astype(x.dtype)
    return (y, Info(*(v[..., 0] for v in info))) if return_info else y


@partial(jax.jit, static_argnums=(3, 4, 5))
def _finite(
    x: Array, lam: Array, spacing: Array, order: int, tol: float, max_iterations: int
) -> tuple[Array, Info]:
    """`_trend_filter`, with NaN for the signals that can not be solved."""
    good = jnp.all((spacing > 0) & jnp.isfinite(spacing), axis=-1, keepdims=True)
    bad = ~(jnp.all(jnp.isfinite(x), axis=-1, keepdims=True) & (lam >= 0) & good)
    x, lam = (jnp.where(bad, 0, v) for v in (x, lam))
    spacing = jax.lax.stop_gradient(jnp.where(good, spacing, 1))
    y, info, *_ = _trend_filter(x, lam, spacing, order, tol, max_iterations)
    info = Info(
        jnp.where(bad, jnp.nan, info.gap),
        jnp.where(bad, 0, info.iterations.astype(jnp.int32)),
        (info.converged > 0) & ~bad,
    )
    return jnp.where(bad, jnp.nan, y), info
