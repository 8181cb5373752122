"""Accelerated Dykstra: one loop for the converged prox over axes and over the forests of a graph.

Accelerated gradient descent (FISTA; Beck & Teboulle 2009) with gradient restart (O'Donoghue &
Candes 2015) on the duals of all axes but one, and the stop. `_converged.py` explains both. An
element of the batch that is done is frozen, so its result does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxtv._elements import choose

_LOOSE_TOL = 1e-4


def is_loose(tol: float) -> bool:
    """Whether y need not be constant on the components that the passes tell."""
    return tol >= _LOOSE_TOL


class Problem(Protocol):
    """What is minimised, for samples of a size about one. Its passes solve every axis once."""

    @property
    def x(self) -> Array: ...
    @property
    def roundoff(self) -> Array:
        """Per element: how large rounding alone may make the gap of an iterate."""
        ...

    @property
    def tol(self) -> float: ...
    @property
    def max_iterations(self) -> int: ...
    def total(self, v: Array) -> Array:
        """The sum over each element, whose axes have size 1 then."""
        ...

    def passes(self, point: Any) -> Any:
        """Solve every axis once, of which one exactly and the others for a gradient step."""
        ...

    def duals(self, passes: Any) -> Any:
        """The new duals, structured as the point."""
        ...

    def primal(self, passes: Any) -> Array:
        """The y of the duals of all axes."""
        ...

    def excess(self, y: Array, passes: Any) -> Array:
        """Sum over the axes of TV(y) - <p, y>: the gap of the primal, by terms that vanish."""
        ...

    def better(self, y: Array, passes: Any) -> Array:
        """A y whose gap may be less."""
        ...

    def edge_codes(self, passes: Any) -> Any: ...


class State(NamedTuple):
    """`point` and `dual` are arrays, or a tuple of such; from `gap` on, and t, per element."""

    point: Any  # where the gradient is taken: duals of all axes but one
    dual: Any
    t: Array  # FISTA's step counter
    y: Array
    codes: Any  # of the edges in the last passes
    gap: Array
    iterations: Array
    next_test: Array
    converged: Array
    active: Array


def minimise(problem: Problem, start: Any, codes: Any) -> State:
    """The last state of each element, from starting duals. `codes` are those of no iteration."""
    zero = jnp.zeros_like(problem.total(problem.x))  # inherits sharding and manual axes
    none = jnp.zeros_like(zero, jnp.int32)
    state = State(start, start, zero + 1, problem.x, codes, zero, none, none, none > 0, none == 0)
    return jax.lax.while_loop(lambda s: jnp.any(s.active), partial(_iterate, problem), state)


def _iterate(problem: Problem, state: State) -> State:
    passes = problem.passes(state.point)
    dual = problem.duals(passes)
    iterations = state.iterations + 1
    y, gap, done, next_test = _test(problem, state, passes, iterations)

    moves = zip(*map(jax.tree.leaves, (state.point, dual, state.dual)))
    uphill = sum(problem.total((v - p) * (p - q)) for v, p, q in moves)
    t = (1 + jnp.sqrt(1 + 4 * state.t**2)) / 2
    restart = uphill > 0
    beta = jnp.where(restart, 0, (state.t - 1) / t)
    new = State(
        point=jax.tree.map(lambda p, q: p + beta * (p - q), dual, state.dual),
        dual=dual,
        t=jnp.where(restart, 1, t),
        y=y,
        codes=problem.edge_codes(passes),
        gap=gap,
        iterations=iterations,
        next_test=next_test,
        converged=done,
        active=~done & (iterations < problem.max_iterations),
    )
    return choose(state.active, new, state)


def _test(problem: Problem, state: State, passes: Any, iterations: Array):
    """(y, gap, done, iteration of the next test), where y is asked for; else those of before."""
    last = iterations == problem.max_iterations
    ask = state.active & ((iterations >= state.next_test) | last)
    return jax.lax.cond(
        jnp.any(ask),
        lambda: _tested(problem, state, passes, iterations, ask, last),
        lambda: (state.y, state.gap, state.converged, state.next_test),
    )


def _tested(
    problem: Problem, state: State, passes: Any, iterations: Array, ask: Array, last: Array
):
    """As `_test`.

    y is the iterate of the passes, or the better one if that has a less gap or is good enough. The
    constants are those of cpu/converged.
    """
    y, exact = problem.primal(passes), not is_loose(problem.tol)
    gap = jnp.maximum(problem.excess(y, passes), 0)
    enough = problem.tol * problem.total((problem.x - y) * (problem.x + y)) / 2  # the dual's value
    done = ask & (gap <= enough) & (not exact)
    count = iterations.astype(y.dtype)
    reach = 1 + count / 3 if exact else 2.5  # by which the better one may divide the gap
    wanted = reach * enough + problem.roundoff
    near = ask & ~done & ((gap <= wanted) | last)

    def improved():
        better = problem.better(y, passes)
        gap = problem.excess(better, passes) + problem.total((better - y) ** 2) / 2
        return better, jnp.maximum(gap, 0)

    *best, good, better_gap = improve(near, improved, y, gap, enough)
    power = (3 if exact else 2) * jnp.where(near, 2, 1)
    factor = jnp.where(near, better_gap / enough, gap / wanted) ** (1 / power)
    factor = jnp.fmin(factor, jnp.where((count < 16) & ~near, 2, 1.2))
    soonest = iterations + 1 + iterations // 16
    next_test = jnp.maximum(soonest, (count * factor + 0.5).astype(jnp.int32))
    return (
        *best,
        done | good,
        jnp.where(ask, next_test, state.next_test),
    )


def improve(
    near: Array, improved: Callable[[], tuple[Array, Array]], y: Array, gap: Array, enough: Array
) -> tuple[Array, Array, Array, Array]:
    """(y, gap, good, gap of `improved`): the improved y of elements `near`, if its gap is no worse.

    `good` are those whose gap is enough then. `improved` runs only if an element is near.
    """
    better, better_gap = jax.lax.cond(
        jnp.any(near), improved, lambda: (y, jnp.full_like(gap, jnp.inf))
    )
    good = near & (better_gap <= enough)
    take = near & (good | (better_gap <= gap))
    return *choose(take, (better, better_gap), (y, gap)), good, better_gap
