"""The isotropic prox and its derivative in plain JAX: fast gradient projection on the dual.

**Problem.** min_y |y - x|^2 / 2 + sum_p w_p |(Dy)_p|, where (Dy)_p has the forward differences of
pixel p along every axis and in every channel, 0 after the last sample. Arrays are shaped (batch...,
channels, spatial...), and `axes` are those of the channels and the spatial ones. w has one channel,
and either the spatial sizes of x or 1 along them.

**Solver.** The dual u has one array shaped as x for each spatial axis, |u_p| <= w_p, and y = x -
D^T u. Projected gradient with Nesterov's extrapolation (Beck & Teboulle 2009), step 1 / (4 d), and
gradient restart (O'Donoghue & Candes 2015). The gap sum_p (w_p |(Dy)_p| - <(Dy)_p, u_p>) has no
negative term, and every element of the batch stops by itself.

**Derivative.** A pixel whose dual is inside its ball has (Dy)_p = 0 and joins its samples to one
component. Elsewhere n_p = (Dy)_p / |(Dy)_p| and H_p = w_p / |(Dy)_p| (I - n_p n_p^T). With P the
mean over components, dy solves (I + P D^T H D) dy = P (dx - D^T (n dw)) among the arrays that are
constant on components. The operator is self-adjoint and positive there: conjugate gradients, with
its diagonal as preconditioner. Differentiated once more it gives second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxtv import _overflow
from jaxtv._elements import choose
from jaxtv._fallback import all_zero, sanitise

Dual = tuple[Array, ...]  # one array shaped as x for each spatial axis


def differences(y: Array, axes: Sequence[int]) -> Dual:
    """D y: forward differences along each spatial axis, 0 at its last sample."""
    return tuple(_pad(jnp.diff(y, axis=a), a, 0, 1) for a in axes[1:])


def divergence(u: Dual, axes: Sequence[int]) -> Array:
    """The adjoint D^T u, for a u that is 0 at the last sample of each axis."""
    total = jnp.zeros_like(u[0])
    for v, a in zip(u, axes[1:], strict=True):
        n = v.shape[a]
        total = total + _pad(jax.lax.slice_in_dim(v, 0, n - 1, axis=a), a, 1, 0) - v
    return total


def _pad(v: Array, axis: int, before: int, after: int) -> Array:
    return jnp.pad(v, [(before, after) if a == axis else (0, 0) for a in range(v.ndim)])


def _inner(u: Dual, v: Dual, axes: Sequence[int]) -> Array:
    """<u_p, v_p> at every pixel, over spatial axes and channels."""
    return jnp.sum(sum(a * b for a, b in zip(u, v, strict=True)), axes[0], keepdims=True)


def _project(v: Dual, w: Array, axes: Sequence[int]) -> Dual:
    """The nearest u with |u_p| <= w_p."""
    norm = jnp.sqrt(_inner(v, v, axes))
    factor = jnp.where(norm > w, w / jnp.where(norm > w, norm, 1), 1)
    return tuple(factor * a for a in v)


# ---------------------------------------------------------------------- solver


class _State(NamedTuple):
    """Duals are tuples of arrays shaped as x, the others have one entry per element."""

    dual: Dual
    last_dual: Dual
    t: Array  # of Nesterov's sequence
    beta: Array  # by which the next iteration extrapolates
    gap: Array
    iterations: Array
    status: Array


_UNFINISHED, _RUNNING, _CONVERGED = 0, 1, 2


class _Packed(NamedTuple):
    """A state as `jaxtv_isotropic_steps` has it, with the batch in front.

    Of an element that runs the newest dual is the first, and the one before it is the last.
    """

    duals: Array  # (batch..., 3, axes, channels, spatial...)
    counts: Array  # int32, (batch..., 4): status, iterations, next that measures the gap, newest
    reals: Array  # (batch..., 3): t, beta, gap


def _stacked(arrays: Sequence[Array], batch: int, dtype) -> Array:
    """(batch..., k) of k arrays with one entry per element."""
    return jnp.stack([v.reshape(v.shape[:batch]).astype(dtype) for v in arrays], -1)


def _columns(stacked: Array, axes: Sequence[int]) -> list[Array]:
    """The inverse; of size 1 along all axes."""
    shape = (*stacked.shape[:-1], *(1 for _ in axes))
    return [stacked[..., i].reshape(shape) for i in range(stacked.shape[-1])]


def _pack(dual: Dual, constant: Array, axes: Sequence[int]) -> _Packed:
    """The state before the first iteration; nothing is left to do for a constant element."""
    batch = axes[0]
    newest = jnp.stack(dual, batch)
    others = jnp.zeros_like(newest)
    zero = 0 * constant.astype("int32")
    one = zero + 1
    status = jnp.where(constant, _CONVERGED, _RUNNING)
    return _Packed(
        jnp.stack([newest, others, others], batch),
        _stacked([status, constant, one, zero], batch, np.dtype("int32")),
        _stacked([one, zero, zero], batch, newest.dtype),
    )


def _unpack(packed: _Packed, axes: Sequence[int]) -> _State:
    batch = axes[0]
    buffers = [tuple(jnp.unstack(v, axis=batch)) for v in jnp.unstack(packed.duals, axis=batch)]
    status, iterations, _, newest = _columns(packed.counts, axes)
    t, beta, gap = _columns(packed.reals, axes)
    dual = choose(newest == 0, buffers[0], choose(newest == 1, buffers[1], buffers[2]))
    return _State(dual, buffers[2], t, beta, gap, iterations, status)


class _Problem(NamedTuple):
    """Centred samples of a size about one, and finite weights."""

    x: Array
    w: Array
    axes: tuple[int, ...]
    tol: float
    max_iterations: int

    @property
    def step(self) -> float:
        return 1 / (4 * (len(self.axes) - 1))  # |D|^2 <= 4 d

    def total(self, v: Array) -> Array:
        """The sum over each element."""
        return jnp.sum(v, self.axes, keepdims=True)

    def primal(self, u: Dual) -> Array:
        return self.x - divergence(u, self.axes)

    def gap(self, y: Array, u: Dual) -> tuple[Array, Array]:
        """Duality gap of y = primal(u), and the objective at y."""
        jump = differences(y, self.axes)
        variation = self.w * jnp.sqrt(_inner(jump, jump, self.axes))
        gap = self.total(variation - _inner(jump, u, self.axes))
        objective = self.total(variation) + self.total((self.x - y) ** 2) / 2
        return jnp.maximum(gap, 0), objective

    def joined(self, y: Array, u: Dual) -> Array:
        """The pixels where a gradient step from u stays inside the ball: (Dy)_p is 0."""
        jump = differences(y, self.axes)
        v = tuple(a + self.step * b for a, b in zip(u, jump, strict=True))
        bound = self.w * (1 + 4 * jnp.finfo(y.dtype).eps)
        return (jnp.sqrt(_inner(v, v, self.axes)) <= bound) & (self.w > 0)


def _iterate(problem: _Problem, state: _State) -> _State:
    extrapolated = lambda v, last: v + state.beta * (v - last)
    point = tuple(map(extrapolated, state.dual, state.last_dual))
    jump = differences(problem.primal(point), problem.axes)
    stepped = tuple(a + problem.step * b for a, b in zip(point, jump, strict=True))
    dual = _project(stepped, problem.w, problem.axes)

    gap, objective = problem.gap(problem.primal(dual), dual)
    iterations = state.iterations + 1
    going = jnp.where(iterations < problem.max_iterations, _RUNNING, _UNFINISHED)

    back = tuple(a - b for a, b in zip(point, dual, strict=True))
    moved = tuple(a - b for a, b in zip(dual, state.dual, strict=True))
    restart = problem.total(_inner(back, moved, problem.axes)) > 0
    t = jnp.where(restart, 1, (1 + jnp.sqrt(1 + 4 * state.t**2)) / 2)
    new = _State(
        dual=dual,
        last_dual=state.dual,
        t=t,
        beta=jnp.where(restart, 0, (state.t - 1) / t),
        gap=gap,
        iterations=iterations,
        status=jnp.where(gap <= problem.tol * objective, _CONVERGED, going).astype("int32"),
    )
    return choose(state.status == _RUNNING, new, state)


def steps(
    x: Array, w: Array, *packed: Array, axes: tuple[int, ...], tol: float, max_iterations: int
) -> tuple[Array, ...]:
    """`jaxtv_isotropic_steps`: iterations of every element, here all; updates a `_Packed`.

    x is centred and of a size about one, w is finite.
    """
    before = _Packed(*packed)
    problem = _Problem(x, w, axes, tol, max_iterations)
    running = lambda state: jnp.any(state.status == _RUNNING)
    state = jax.lax.while_loop(running, partial(_iterate, problem), _unpack(before, axes))
    batch = axes[0]
    newest = (state.status, state.iterations, *_columns(before.counts, axes)[2:3])
    return (
        jnp.broadcast_to(jnp.expand_dims(jnp.stack(state.dual, batch), batch), before.duals.shape),
        _stacked([*newest, jnp.zeros_like(state.status)], batch, np.dtype("int32")),
        _stacked([state.t, state.beta, state.gap], batch, x.dtype),
    )


def solve(
    x: Array,
    w: Array,
    *start: Array,
    axes: tuple[int, ...],
    tol: float,
    max_iterations: int,
    steps: Callable[..., Sequence[Array]],
) -> tuple[Array, ...]:
    """`jaxtv_isotropic`: (y, gap, iterations, converged, *dual, joined).

    `start` is a dual, of any values: it is projected. `joined` (uint8, shaped as w with the spatial
    sizes of x) marks the pixels that join their samples. An element is done when its gap is at most
    `tol` times its objective, and is frozen then. `steps` is called until all are.
    """
    original, weight = x, w
    x, (w,), bad, scale = sanitise(x, [w], axes)
    # Scale x to about one, by a power of two: squares do not underflow.
    exponent = jnp.frexp(jnp.max(jnp.abs(x), axes, keepdims=True))[1]
    unscaled = lambda v: jnp.ldexp(v * scale, exponent)  # scale * 2^exponent may overflow
    x, w = jnp.ldexp(x, -exponent), jnp.ldexp(w, -exponent)
    mean = jnp.mean(x, axes[1:], keepdims=True)
    x = x - mean

    flat = _dual_of_a_constant(x, axes)
    constant = jnp.all(jnp.sqrt(_inner(flat, flat, axes)) <= w, axes, keepdims=True)
    problem = _Problem(x, _bounded(w, x, axes), axes, tol, max_iterations)
    dual = tuple(jnp.ldexp(v / scale, -exponent) for v in start)
    dual = choose(constant, flat, _feasible(dual, problem.w, axes))

    go_on = partial(steps, x, problem.w, axes=axes, tol=tol, max_iterations=max_iterations)
    packed = jax.lax.while_loop(
        lambda packed: jnp.any(packed.counts[..., 0] == _RUNNING),
        lambda packed: _Packed(*go_on(*packed)),
        _pack(dual, constant, axes),
    )
    state = _unpack(packed, axes)

    y = jnp.where(constant, 0, problem.primal(state.dual))
    joined = (problem.joined(y, state.dual) | constant) & ~bad & (w > 0)
    y = _overflow.within_range(unscaled(y + mean))
    y = jnp.where(bad, jnp.nan, jnp.where(all_zero([weight], axes), original, y))
    return (
        y,
        jnp.where(bad, jnp.nan, unscaled(unscaled(state.gap))),
        jnp.where(bad, 0, state.iterations),
        (state.status == _CONVERGED) & ~bad,
        *(unscaled(v) for v in state.dual),
        joined.astype(jnp.uint8),
    )


def _dual_of_a_constant(x: Array, axes: Sequence[int]) -> Dual:
    """A dual u with D^T u = x for an x of mean 0: sums along one axis after the other."""
    dual, rest = [], x
    for a in axes[1:]:
        mean = jnp.mean(rest, a, keepdims=True)
        sums = -jnp.cumsum(rest - mean, a)
        inner = jax.lax.slice_in_dim(sums, 0, x.shape[a] - 1, axis=a)
        dual.append(jnp.broadcast_to(_pad(inner, a, 0, 1), x.shape))
        rest = mean
    return tuple(dual)


def _bounded(w: Array, x: Array, axes: Sequence[int]) -> Array:
    """Weights cut down to a bound above which none has a jump: λ = inf has a finite gap."""
    size = (len(axes) - 1) * x.shape[axes[0]]
    bound = size * jnp.sum(jnp.abs(x), axes, keepdims=True)
    return jnp.minimum(w, jnp.where(bound > 0, bound, 1))


def _feasible(u: Dual, w: Array, axes: Sequence[int]) -> Dual:
    """The dual that is nearest to u, whatever is in it; a value that is not finite counts as 0."""
    largest = jnp.finfo(w.dtype).max ** 0.25  # whose squares add up within the range
    edges = []
    for v, a in zip(u, axes[1:], strict=True):
        v = jnp.where(jnp.isfinite(v), jnp.clip(v, -largest, largest), 0)
        edges.append(_pad(jax.lax.slice_in_dim(v, 0, v.shape[a] - 1, axis=a), a, 0, 1))
    return _project(tuple(edges), w, axes)


# ---------------------------------------------------------------------- derivative


def tangent(
    y: Array,
    w: Array,
    joined: Array,
    tx: Array,
    tw: Array,
    *,
    axes: tuple[int, ...],
    means: Callable[[Array], Array],
) -> Array:
    """The tangent of y. `means` is P, the mean over the components of `joined`."""
    # Powers of two, exact: norms of jumps stay in range.
    largest = jnp.max(jnp.where(jnp.isfinite(y), jnp.abs(y), 0), axes, keepdims=True)
    exponent = jax.lax.stop_gradient(jnp.frexp(largest)[1])
    y, w = means(jnp.ldexp(y, -exponent)), jnp.ldexp(w, -exponent)
    jump = differences(y, axes)
    square = _inner(jump, jump, axes)
    free = (joined == 0) & (square > 0)
    norm = jnp.sqrt(jnp.where(free, square, 1))
    normal = tuple(jnp.where(free, v / norm, 0) for v in jump)
    stiffness = jnp.where(free, jnp.where(free, w, 0) / norm, 0)

    def stiff(g: Dual) -> Dual:  # H g
        along = _inner(normal, g, axes)
        return tuple(stiffness * (v - n * along) for v, n in zip(g, normal, strict=True))

    def matvec(v: Array) -> Array:
        return v + means(divergence(stiff(differences(v, axes)), axes))

    rhs = means(tx - divergence(tuple(n * tw for n in normal), axes))
    diagonal = 1 + means(_diagonal(jump, normal, stiffness, axes))
    solver = partial(_conjugate_gradients, diagonal=diagonal, axes=axes)
    solution = jax.lax.custom_linear_solve(matvec, rhs, solver, symmetric=True)
    return means(solution)  # as it is; the transpose so hands the solver what P leaves alone


def _diagonal(jump: Dual, normal: Dual, stiffness: Array, axes: Sequence[int]) -> Array:
    """The diagonal of D^T H D, of edges between two components; without its mixed terms."""
    total = jnp.zeros_like(jump[0])
    for v, n, a in zip(jump, normal, axes[1:], strict=True):
        edge = jnp.where(v != 0, stiffness * (1 - n * n), 0)
        after = jax.lax.slice_in_dim(edge, 0, edge.shape[a] - 1, axis=a)
        total = total + edge + _pad(after, a, 1, 0)
    return total


_MOST_STEPS = 2000  # a system that needs more comes from an iterate far from the solution


class _Krylov(NamedTuple):
    solution: Array
    residual: Array
    direction: Array
    square: Array  # of the preconditioned residual, per element
    active: Array


def _conjugate_gradients(
    matvec: Callable[[Array], Array], rhs: Array, *, diagonal: Array, axes: tuple[int, ...]
) -> Array:
    """Solves every element by itself, to eps^(2/3) of the right-hand side."""

    def dot(a, b):
        return jnp.sum(a * b, axes, keepdims=True)

    target = float(jnp.finfo(rhs.dtype).eps) ** (4 / 3) * dot(rhs, rhs / diagonal)

    def step(loop):
        steps, state = loop
        image = matvec(state.direction)
        length = _quotient(state.square, dot(state.direction, image))
        residual = state.residual - length * image
        scaled = residual / diagonal
        square = dot(residual, scaled)
        new = _Krylov(
            solution=state.solution + length * state.direction,
            residual=residual,
            direction=scaled + _quotient(square, state.square) * state.direction,
            square=square,
            active=square > target,
        )
        return steps + 1, choose(state.active, new, state)

    first = rhs / diagonal
    square = dot(rhs, first)
    start = _Krylov(jnp.zeros_like(rhs), rhs, first, square, square > target)
    going = lambda loop: jnp.any(loop[1].active) & (loop[0] < _MOST_STEPS)
    return jax.lax.while_loop(going, step, (jnp.int32(0), start))[1].solution


def _quotient(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
