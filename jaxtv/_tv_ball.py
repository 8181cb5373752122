r"""A constraint in place of λ: a bound on TV(y), or the distance of y from x.

y(λ) = prox_tv(x, λ) solves both problems, at the λ where its constraint holds with equality. Let P
be the mean over segments (components), and s the signs of the jumps of y. As long as these do not
change, y(λ) = Px − λq with q = PDᵀs, so that

    TV(y) = TV(y₀) − (λ − λ₀) |q|²            is linear in λ,
    ‖y − x‖² = ‖y₀ − x‖² + (λ² − λ₀²) |q|²    is linear in λ².

Newton's method therefore steps to the very λ if it is on the same piece. In 1D |q|² falls as λ
grows, so the steps from λ = 0 never pass the solution. With more axes segments also split, so the
steps are kept within a bracket.

The derivative is that of one more step, with |q|² held constant: exact on the piece, at any order.
For the ball it is dy = P dx − q (⟨q, dx⟩ − dτ) / |q|².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxtv import _arguments
from jaxtv._dtypes import compute_dtype
from jaxtv._prox import Info, prox_tv, weighted_variation
from jaxtv._solvers import AcceleratedDykstra, Direct, Solver1D, fitting_exact

Solver = Solver1D | AcceleratedDykstra

_MAX_STEPS = 100

# ---------------------------------------------------------------------------- the search for λ


class Problem(NamedTuple):
    """A constraint on y(λ). Numbers of a batch element have size 1 along `axes`.

    `newton` takes the problem, y, λ and |q|². It returns a number that is positive where λ is too
    small, and the λ of the next step.
    """

    x: Array
    bound: Array  # of TV(y), or σ
    newton: Callable[[Problem, Array, Array, Array], tuple[Array, Array]]
    axes: tuple[int, ...]
    solver: Solver

    def step(self, lam: Array) -> tuple[Array, Array, Array]:
        """|q|² at λ, and what `newton` returns."""
        prox = lambda lam: prox_tv(self.x, lam, axes=self.axes, solver=self.solver)
        y, q = jax.jvp(prox, (lam,), (jnp.ones_like(lam),))
        slope = jax.lax.stop_gradient(self.total(q**2))
        return slope, *self.newton(self, y, lam, jnp.where(slope > 0, slope, 1))

    def total(self, v: Array) -> Array:
        """The sum over each batch element."""
        return jnp.sum(v, self.axes, keepdims=True)

    def variation(self, y: Array) -> Array:
        """TV(y)."""
        ones = _arguments.weights(1.0, y, self.axes)
        return jnp.expand_dims(weighted_variation(y, ones, self.axes), self.axes)


def ball(problem: Problem, y: Array, lam: Array, slope: Array) -> tuple[Array, Array]:
    """`Problem.newton` of TV(y) = bound."""
    excess = problem.variation(y) - problem.bound
    return excess, lam + excess / slope


def discrepancy(problem: Problem, y: Array, lam: Array, slope: Array) -> tuple[Array, Array]:
    """`Problem.newton` of ‖y − x‖² = N bound²."""
    x, axes = problem.x, problem.axes
    # No distance from the mean is above this bound: σ = ∞ does no more, but is not finite.
    most = 1 + jnp.max(jnp.abs(x - jnp.mean(x, axes, keepdims=True)), axes, keepdims=True)
    sigma = jnp.minimum(problem.bound, most)
    excess = problem.total(1 - ((y - x) / sigma) ** 2)
    before = lam / sigma
    square = before**2 + excess / slope
    return excess, sigma * jnp.sqrt(jnp.where(square > 0, square, before**2))


class _State(NamedTuple):
    lam: Array
    low: Array  # λ is between `low` and `high`
    high: Array
    slope: Array  # |q|² of the step before
    steps: Array
    done: Array
    active: Array


def _iterate(problem: Problem, tol: float, state: _State) -> _State:
    lam, steps = state.lam, state.steps + 1
    slope, excess, target = problem.step(lam)
    low = jnp.where(excess > 0, lam, state.low)
    high = jnp.where(excess < 0, lam, state.high)
    inside = (slope > 0) & (low <= target) & (target <= high)
    new = jnp.where(inside, target, low + (high - low) / 2)
    # λ = 0 is enough, or y is constant and no λ does more.
    solved = jnp.where(excess > 0, slope == 0, (excess == 0) | (lam == 0))
    # After two steps with one |q|² the step was on a single piece.
    settled = (jnp.abs(new - lam) <= tol * lam) | (inside & (slope == state.slope))
    bad = jnp.isnan(excess)
    done = (solved | settled) & ~bad
    new = jnp.where(solved | bad, lam, new)
    after = _State(new, low, high, slope, steps, done, ~(done | bad) & (steps < _MAX_STEPS))
    return jax.tree.map(lambda a, b: jnp.where(state.active, a, b), after, state)


def of_size_one(problem: Problem) -> tuple[Problem, Array]:
    """The problem times 2^-exponent of each element, whose sums stay in range; the exponent."""
    x = jax.lax.stop_gradient(problem.x)
    exponent = jnp.frexp(jnp.max(jnp.abs(x), problem.axes, keepdims=True))[1]
    x, bound = (jnp.ldexp(v, -exponent) for v in (problem.x, problem.bound))
    positive = jnp.maximum(bound, float(jnp.finfo(x.dtype).tiny))
    return problem._replace(x=x, bound=jnp.where(problem.bound > 0, positive, bound)), exponent


class Found(NamedTuple):
    """One entry for each batch element, of size 1 along the axes."""

    lam: Array
    equal: Array  # whether the constraint holds with equality
    steps: Array
    done: Array


def find_lam(problem: Problem, good: Array) -> Found:
    """λ of a problem, with its derivative; NaN where the bound is not `good`."""
    fixed = problem._replace(
        x=jax.lax.stop_gradient(problem.x), bound=jax.lax.stop_gradient(problem.bound)
    )
    zero = jnp.zeros_like(problem.total(fixed.x))  # inherits sharding and manual axes
    none = jnp.zeros_like(zero, jnp.int32)
    lam = jnp.where(good, zero, jnp.nan)
    state = _State(lam, zero, zero + jnp.inf, zero - 1, none, none > 0, none == 0)
    tol = 4 * float(jnp.finfo(zero.dtype).eps)
    if not isinstance(problem.solver, Direct):
        tol = max(tol, problem.solver.tol)
    state = jax.lax.while_loop(
        lambda s: jnp.any(s.active), lambda s: _iterate(fixed, tol, s), state
    )
    slope, _, target = problem.step(state.lam)
    equal = (state.lam > 0) & (slope > 0)
    return Found(jnp.where(equal, target, state.lam), equal, state.steps, state.done)


# ---------------------------------------------------------------------------- public functions


@overload
def project_tv_ball(
    x: ArrayLike,
    radius: ArrayLike,
    *,
    axes: int | Sequence[int],
    solver: Solver | None = None,
    return_info: Literal[False] = False,
) -> Array: ...
@overload
def project_tv_ball(
    x: ArrayLike,
    radius: ArrayLike,
    *,
    axes: int | Sequence[int],
    solver: Solver | None = None,
    return_info: Literal[True],
) -> tuple[Array, Info]: ...
@overload
def project_tv_ball(
    x: ArrayLike,
    radius: ArrayLike,
    *,
    axes: int | Sequence[int],
    solver: Solver | None = None,
    return_info: bool,
) -> Array | tuple[Array, Info]: ...
def project_tv_ball(
    x: ArrayLike,
    radius: ArrayLike,
    *,
    axes: int | Sequence[int],
    solver: Solver | None = None,
    return_info: bool = False,
) -> Array | tuple[Array, Info]:
    r"""Projection onto the TV ball: the nearest y to x with a total variation of at most `radius`.

    Computes $\arg\min_y\,\tfrac12\|y-x\|^2$ subject to $\sum_a\|D_ay\|_1\le\tau$ by Newton's method
    on λ, each step a prox (`jaxtv._tv_ball` has the derivation). Differentiable in x and the
    radius, in forward and reverse mode, at any order.

    Args:
        x: array of float32, float64, bfloat16 or float16. Half types are computed in float32.
        radius: τ ≥ 0 in the units of x, a number or one per batch element: an array that broadcasts
            against x with size 1 along `axes`. 0 gives the mean.
        axes: one axis or several distinct ones.
        solver: a 1D solver for one axis (default `Direct()`), `AcceleratedDykstra` for more
            (default with `tol=1e-6`).
        return_info: also return an `Info`. Its gap bounds the error of a y within the ball:
            ‖y − y*‖² ≤ 2 gap. `iterations` counts the Newton steps.

    Returns:
        y, shaped and typed as x; with `return_info` the pair (y, Info). An x within the ball comes
        back bit for bit. Under `jit` a negative or NaN radius makes its batch elements NaN.

    Raises:
        TypeError: x or `radius` is not a float array, or `solver` does not fit.
        ValueError: `axes` or `radius` do not fit x, or a concrete radius is negative or NaN.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([0.0, 0.0, 4.0, 4.0])
        >>> y = jaxtv.project_tv_ball(x, 1.0, axes=0)
        >>> y
        Array([1.5, 1.5, 2.5, 2.5], dtype=float32)
        >>> jaxtv.total_variation(y, axes=0)
        Array(1., dtype=float32)
    """
    problem, dtype = _problem(x, axes, solver, ball, "radius", radius)
    return _solution(problem, dtype, problem.bound >= 0, return_info)


@overload
def denoise_discrepancy(
    x: ArrayLike,
    sigma: ArrayLike,
    *,
    axes: int | Sequence[int],
    solver: Solver | None = None,
    return_info: Literal[False] = False,
) -> Array: ...
@overload
def denoise_discrepancy(
    x: ArrayLike,
    sigma: ArrayLike,
    *,
    axes: int | Sequence[int],
    solver: Solver | None = None,
    return_info: Literal[True],
) -> tuple[Array, Info]: ...
@overload
def denoise_discrepancy(
    x: ArrayLike,
    sigma: ArrayLike,
    *,
    axes: int | Sequence[int],
    solver: Solver | None = None,
    return_info: bool,
) -> Array | tuple[Array, Info]: ...
def denoise_discrepancy(
    x: ArrayLike,
    sigma: ArrayLike,
    *,
    axes: int | Sequence[int],
    solver: Solver | None = None,
    return_info: bool = False,
) -> Array | tuple[Array, Info]:
    r"""The least total variation within the noise: Morozov's discrepancy principle.

    Computes $\arg\min_y\,\sum_a\|D_ay\|_1$ subject to $\|y-x\|^2\le N\sigma^2$, with N samples in a
    batch element: Rudin, Osher & Fatemi's constrained problem (1992), anisotropic. It is the
    prox at the λ that `select_lam` returns for this criterion, found by Newton's method.
    Differentiable in x and σ, in forward and reverse mode, at any order.

    Args:
        x: array of float32, float64, bfloat16 or float16. Half types are computed in float32.
        sigma: standard deviation of the noise, σ > 0 in the units of x, a number or one per batch
            element: an array that broadcasts against x with size 1 along `axes`.
        axes: one axis or several distinct ones.
        solver: as for `project_tv_ball`.
        return_info: also return an `Info`. Its gap bounds the error of a y that meets the
            constraint: ‖y − y*‖² ≤ 2 gap. `iterations` counts the Newton steps.

    Returns:
        y, shaped and typed as x, with `return_info` the pair (y, Info). It is the mean if that
        meets the constraint. Under `jit` a σ that is not positive makes its batch elements NaN.

    Raises:
        TypeError: x or `sigma` is not a float array, or `solver` does not fit.
        ValueError: `axes` or `sigma` do not fit x, or a concrete σ is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([0.0, 0.0, 4.0, 4.0])
        >>> jaxtv.denoise_discrepancy(x, 0.5, axes=0)
        Array([0.5, 0.5, 3.5, 3.5], dtype=float32)
    """
    problem, dtype = _problem(x, axes, solver, discrepancy, "sigma", sigma)
    return _solution(problem, dtype, problem.bound > 0, return_info)


def _problem(x, axes, solver, newton, name: str, bound) -> tuple[Problem, jnp.dtype]:
    """The problem in the dtype that is computed in, and the dtype of x."""
    x = _arguments.float_array(x, "x")
    axes = _arguments.resolve_axes(_arguments.named_axes(axes), x)
    solver = fitting_exact(solver, len(axes))
    check = _arguments.not_negative if newton is ball else _arguments.positive
    bound = check(bound, name, x, axes)
    return Problem(x.astype(compute_dtype(x.dtype)), bound, newton, axes, solver), x.dtype


def _solution(problem: Problem, dtype: jnp.dtype, good: Array, return_info: bool):
    original, axes, solver = problem.x, problem.axes, problem.solver
    if original.size == 0:
        y = original.astype(dtype)
        return prox_tv(y, 0.0, axes=axes, solver=solver, return_info=return_info)
    problem, exponent = of_size_one(problem)
    x = problem.x
    lam, equal, steps, done = find_lam(problem, good)
    same = done & (lam == 0)
    unscaled = lambda y: jnp.where(same, original, jnp.ldexp(y, exponent)).astype(dtype)
    if not return_info:
        return unscaled(prox_tv(x, lam, axes=axes, solver=solver))
    y, info = prox_tv(x, lam, axes=axes, solver=solver, return_info=True)
    if problem.newton is ball:
        left = lam * jnp.abs(problem.variation(y) - problem.bound)
    else:
        left = jnp.abs(problem.total((y - x) ** 2 - problem.bound**2)) / 2
    each = lambda v: jnp.squeeze(v, axes)
    gap = info.gap + each(jnp.where(equal, left, 0))
    gap = jnp.ldexp(jnp.ldexp(gap, each(exponent)), each(exponent))
    return unscaled(y), Info(gap, each(steps), info.converged & each(done))
