"""Converged N-D prox with a weight a >= 0 for every sample: missing pixels, uncertain pixels.

**Elements with a > 0** are solved by the converged prox in the metric of a (`_converged.py`).

**Elements with missing samples** can not be: its steps divide by a. They are solved by alternating
directions (Gabay & Mercier 1976; for two axes Douglas & Rachford 1956). The data term stays with
the first axis, and every other axis has its copy z_i of y. With duals p_i, step rho and
over-relaxation, where all of these proxes are 1D:

    y   = argmin  1/2 sum a (y - x)^2 + TV_0(y) + rho/2 sum_i |y - z_i + p_i/rho|^2
    z_i = prox of TV_i / rho  at  y + p_i/rho,      p_i = what it has taken away, times rho.

The samples of the first prox have the weights a + (d - 1) rho > 0. `_balanced` adapts rho (Boyd et
al. 2011, 3.4.1), for so long only, so that the iteration converges.

**Certificate.** Every pass leaves a feasible dual, p_0 of the first axis included. The solution
lies between the least and the largest known sample, so with t = clip(x - s/a), s = sum_i p_i,

    gap = sum_i (TV_i(y) - <p_i, y>) + sum_pixels (h(y) - h(t)),    h(t) = a/2 (t - x)^2 + s t,

whose terms are not negative, bounds the objective of y less its least value, and so
1/2 sum a (y - y*)^2.

**Polish and derivative** are those of the converged prox, with means weighted by a. A component
without a known sample keeps its value, and has the derivative 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxtv import _converged, _edge_codes, _overflow, _primitive
from jaxtv._accelerated import improve, is_loose
from jaxtv._data_weight import all_seen, near_mean, normalised, with_known
from jaxtv._elements import choose, floats
from jaxtv._fallback import all_zero, sanitise
from jaxtv._solvers import AcceleratedDykstra, Direct

_RELAXATION = 1.7
_RHO = 0.2
_MOST_CHANGE, _ADAPT_EVERY, _LAST_ADAPTED = 4.0, 32, 256  # measured: iterations of 16 masked images

Pass = tuple[Array, Array]  # the solution along one axis, and its dual


class _State(NamedTuple):
    """`y`, `codes`, `copies` and `duals` have the shape of x; the others size 1 along its axes."""

    copies: tuple[Array, ...]  # z of all axes but the first
    duals: tuple[Array, ...]
    rho: Array
    y: Array
    codes: tuple[Array, ...]  # of the edges of each pass
    gap: Array
    iterations: Array
    next_test: Array
    converged: Array
    active: Array


class _Problem(NamedTuple):
    x: Array  # of a size about one; at missing samples a known value
    a: Array
    ws: list[Array]
    low: Array  # the least and the largest known sample
    high: Array
    axes: tuple[int, ...]
    solver: AcceleratedDykstra

    def total(self, v: Array) -> Array:
        """The sum over each element."""
        return jnp.sum(v, self.axes, keepdims=True)

    def passes(self, state: _State) -> list[Pass]:
        """Solve every axis once."""
        rho, (first, *others) = state.rho, self.axes
        mass = self.a + len(others) * rho
        pull = sum(rho * z - p for z, p in zip(state.copies, state.duals))
        centre = (self.a * self.x + pull) / mass
        y = _primitive.prox1d_data_weight(centre, mass, self.ws[0], axis=first)
        passes = [(y, mass * (centre - y))]
        for z, p, w, axis in zip(state.copies, state.duals, self.ws[1:], others):
            at = _RELAXATION * y + (1 - _RELAXATION) * z + p / rho
            z = _primitive.prox1d(at, w / rho, axis=axis, solver=Direct())
            passes.append((z, rho * (at - z)))
        return passes

    def gap(self, y: Array, passes: Sequence[Pass]) -> Array:
        """The certificate, by terms that vanish where y is the pass's solution."""
        out = jnp.zeros_like(self.low)
        for (z, p), w, axis in zip(passes, self.ws, self.axes):
            jump = jnp.abs(jnp.diff(y, axis=axis)) - jnp.abs(jnp.diff(z, axis=axis))
            out = out + self.total(w * jump) - self.total(p * (y - z))
        s = sum(p for _, p in passes)
        best = jnp.clip(self.x - s / jnp.where(self.a > 0, self.a, 1), self.low, self.high)
        best = jnp.where(self.a > 0, best, jnp.where(s > 0, self.low, self.high))
        pixels = (y - best) * (self.a * ((y + best) / 2 - self.x) + s)
        return jnp.maximum(out + self.total(pixels), 0)

    def objective(self, y: Array) -> Array:
        variation = (
            self.total(w * jnp.abs(jnp.diff(y, axis=axis))) for w, axis in zip(self.ws, self.axes)
        )
        return self.total(self.a * (y - self.x) ** 2) / 2 + sum(variation)

    def polish(self, y: Array, passes: Sequence[Pass]) -> Array:
        """What y is on the components that the passes tell, given their duals."""
        packed = _edge_codes.pack(self.edge_codes(passes), self.axes)
        means = partial(_means, packed, axes=self.axes)
        mass = means(self.a)
        s = sum(p for _, p in passes)
        value = means(self.a * self.x - s) / jnp.where(mass > 0, mass, 1)
        return jnp.clip(jnp.where(mass > 0, value, means(y)), self.low, self.high)

    def edge_codes(self, passes: Sequence[Pass]) -> tuple[Array, ...]:
        zipped = zip(passes, self.ws, self.axes)
        return tuple(_edge_codes.encode(z, w, axis) for (z, _), w, axis in zipped)


def _means(packed: Array, v: Array, axes: tuple[int, ...]) -> Array:
    """P v, the means over components."""
    zeros = [jnp.zeros_like(jax.lax.slice_in_dim(v, 0, 1, axis=axis)) for axis in axes]
    return _primitive.components_jvp(packed, v, zeros, axes=axes)


def _test(problem: _Problem, state: _State, passes: Sequence[Pass], iterations: Array):
    """(y, gap, done, iteration of the next test), y an iterate or what polish makes of it."""
    y = jnp.clip(passes[0][0], problem.low, problem.high)
    tol, last = problem.solver.tol, iterations == problem.solver.max_iterations
    gap = problem.gap(y, passes)
    enough = tol * (problem.objective(y) - gap)
    ask = state.active & ((iterations >= state.next_test) | last)
    loose = ask & (gap <= enough) & is_loose(tol)
    near = ask & ~loose & ((gap <= (1 + iterations.astype(y.dtype) / 3) * enough) | last)

    def polished():
        means = problem.polish(y, passes)
        return means, problem.gap(means, passes)

    y, gap, good, _ = improve(near, polished, y, gap, enough)
    next_test = jnp.where(ask, iterations + 1 + iterations // 8, state.next_test)
    return y, gap, loose | good, next_test


def _balanced(problem: _Problem, state: _State, passes: Sequence[Pass], iterations: Array) -> Array:
    """The next step: larger where copies differ from y, smaller where they still move."""
    (y, _), *others = passes
    apart = sum(problem.total((y - z) ** 2) for z, _ in others)
    moved = sum(problem.total((z - old) ** 2) for (z, _), old in zip(others, state.copies))
    both = (apart > 0) & (moved > 0)
    ratio = jnp.sqrt(apart / jnp.where(both, moved, 1)) / state.rho
    factor = jnp.clip(jnp.sqrt(ratio), 1 / _MOST_CHANGE, _MOST_CHANGE)
    adapt = both & (iterations % _ADAPT_EVERY == 0) & (iterations <= _LAST_ADAPTED)
    return jnp.where(adapt, state.rho * factor, state.rho)


def _iterate(problem: _Problem, state: _State) -> _State:
    passes = problem.passes(state)
    iterations = state.iterations + 1
    y, gap, done, next_test = _test(problem, state, passes, iterations)
    copies, duals = zip(*passes[1:])
    rho = _balanced(problem, state, passes, iterations)
    new = _State(
        copies=copies,
        duals=duals,
        rho=rho,
        y=y,
        codes=problem.edge_codes(passes),
        gap=gap,
        iterations=iterations,
        next_test=next_test,
        converged=done,
        active=~done & (iterations < problem.solver.max_iterations),
    )
    return choose(state.active, new, state)


def _alternating(
    x: Array, a: Array, weights: Sequence[Array], axes: tuple[int, ...], solver: AcceleratedDykstra
) -> tuple[Array, ...]:
    """(y, gap, iterations, converged, edge codes) of finite x and a <= 2."""
    original = x
    x, ws, bad, scale = sanitise(x, weights, axes)
    low, high = (f(x, axes, keepdims=True) for f in (jnp.min, jnp.max))
    centre = near_mean(x, a > 0, axes)
    exponent = jnp.frexp(high - low)[1]
    x, low, high = x - centre, low - centre, high - centre
    x, low, high, *ws = (jnp.ldexp(v, -exponent) for v in (x, low, high, *ws))
    # No dual exceeds sum a |x - c|, for a c between the samples: λ = inf has a finite gap.
    bound = jnp.sum(a, axes, keepdims=True)
    ws = [jnp.minimum(w, bound) for w in ws]
    problem = _Problem(x, a, ws, low, high, axes, solver)

    one, none = jnp.ones_like(low), jnp.zeros_like(low, jnp.int32)
    others = len(axes) - 1
    codes = problem.edge_codes([(x, x)] * len(axes))
    state = _State(
        (x,) * others, (0 * x,) * others, _RHO * one, x, codes, 0 * one, none, none, none > 0, ~bad
    )
    state = jax.lax.while_loop(lambda s: jnp.any(s.active), partial(_iterate, problem), state)

    unscaled = lambda v: jnp.ldexp(v, exponent) * scale
    y = _overflow.within_range(unscaled(state.y) + centre * scale)
    alone = all_zero(weights, axes)
    of_x = problem.edge_codes([(original, original)] * len(axes))
    return (
        jnp.where(bad, jnp.nan, jnp.where(alone, original, y)),
        jnp.where(bad, jnp.nan, unscaled(unscaled(state.gap))),
        jnp.where(bad, 0, state.iterations),
        state.converged & ~bad,
        _edge_codes.pack(choose(alone, of_x, state.codes), axes),
    )


def _descent(
    x: Array, a: Array, ws: Sequence[Array], axes: tuple[int, ...], solver: AcceleratedDykstra
) -> tuple[Array, ...]:
    """The same for a > 0, by the converged prox in the metric of a."""

    def prox1d(v, w, axis):
        return _primitive.prox1d_data_weight(v, a, w, axis=axis)

    def means(v, inside):
        codes = [_edge_codes.of_inside(edges, axis) for edges, axis in zip(inside, axes)]
        packed = _edge_codes.pack(codes, axes)
        return _means(packed, a * v, axes) / _means(packed, a, axes)

    start = [jnp.zeros_like(x)] * (len(axes) - 1)
    options = {"tol": solver.tol, "max_iterations": solver.max_iterations, "mass": a}
    y, *info, codes = _converged.solve(
        x, *start, *ws, prox1d=prox1d, means=means, axes=axes, **options
    )
    return y, *info[:3], codes


@partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def _solve(
    x: Array,
    a: Array,
    ws: Sequence[Array],
    axes: tuple[int, ...],
    solver: AcceleratedDykstra,
    all_seen: bool,
) -> tuple[Array, tuple[Array, Array, Array], Array]:
    """(y, (gap, iterations, converged), edge codes) as floats; `all_seen`: known to have a > 0."""
    wrong = jnp.any(~((a >= 0) & jnp.isfinite(a)), axes, keepdims=True)
    a, ws, scale = normalised(jnp.where(wrong, 1, a), ws, axes)
    x = jnp.where(wrong, jnp.nan, x)
    if all_seen:
        y, gap, iterations, converged, codes = _descent(x, a, ws, axes, solver)
        return floats((y, (gap * scale, iterations, converged), codes), y.dtype)
    x = with_known(x, a != 0, axes)
    missing = jnp.any(a == 0, axes, keepdims=True)
    # Each way solves its elements; for it the others are constant, and done at once.
    descent = _descent(jnp.where(missing, 0, x), jnp.where(missing, 1, a), ws, axes, solver)
    alternating = _alternating(jnp.where(missing, x, 0), jnp.where(missing, a, 1), ws, axes, solver)
    *results, codes = alternating
    y, gap, iterations, converged = choose(missing, tuple(results), descent[:-1])
    codes = jnp.where(jnp.expand_dims(missing, min(axes)), codes, descent[-1])
    return floats((y, (gap * scale, iterations, converged), codes), y.dtype)


@_solve.defjvp
def _solve_jvp(axes, solver, all_seen, primals, tangents):
    """Dy = P_a(dx + da (x - y) / a - D^T(s dw) / a): weighted means over components."""
    x, a, _ = primals
    tx, ta, tws = tangents
    out = _solve(*primals, axes, solver, all_seen)
    y, codes = out[0], out[2].astype(jnp.uint8)
    miss = jnp.where(a != 0, x, y) - y  # x plays no part where a sample is missing, not even as NaN
    change = a * tx + jnp.where(a != 0, ta, 0) * miss
    change = _primitive.components_jvp(codes, change, tws, axes=axes)
    mass = _means(codes, a, axes)
    ty = jnp.where(mass != 0, change / jnp.where(mass != 0, mass, 1), 0)
    return out, (ty, *jax.tree.map(jnp.zeros_like, out[1:]))


_solve_jitted = partial(jax.jit, static_argnums=(3, 4, 5))(_solve)


def converged(
    x: Array, a: Array, ws: Sequence[Array], axes: tuple[int, ...], solver: AcceleratedDykstra
) -> tuple[Array, tuple[Array, Array, Array]]:
    """(y, (gap, iterations, converged)), the last three of size 1 along `axes`, in sweep order."""
    known = all_seen(normalised(a, (), axes)[0])
    y, (gap, iterations, done), _ = _solve_jitted(x, a, list(ws), axes, solver, known)
    return y, (gap, iterations.astype(jnp.int32), done > 0)
