"""Converged N-D prox and its derivative in plain JAX, over 1D passes that the caller hands in.

**Solver.** With one dual p_a per axis the prox is y = x - sum_a p_a at the minimum of
|x - sum_a p_a|^2 / 2. The first axis is eliminated: its pass gives p_0 for all others exactly.
Accelerated gradient descent (FISTA; Beck & Teboulle 2009) with step 1/(d-1) runs on the other
d - 1, with gradient restart (O'Donoghue & Candes 2015). For two axes that is accelerated Dykstra
(Chambolle & Pock 2015). One iteration solves every axis once.

**Polish** replaces an iterate by its means over components. A 1D pass tells exactly which of its
edges are inside a segment, and the dual of every other edge is exactly +-w. Take the graph of all
edges that are inside a segment of some pass. On a component C of it the mean of the iterate is
mean_C(x) + sum_{edges leaving C} (+-w) / |C|, whatever the duals inside C are. So if C is a
component of the solution, that mean is the solution, to round-off. An early iterate joins too much:
some of its edges will not be inside in the end.

**Smoothing** serves early iterates. With two axes y is the result of the last pass, so it has no
small jumps along the last axis, but many along the first. One more pass along the first axis, with
weights a hundredth as large or so, removes these and halves the gap.

**Stop.** Duals and y give a certificate, the duality gap; y is good enough if it is at most `tol`
times the value of the dual. For a loose tol (1e-4 or more) y is the iterate, or the smoothed one.
For a smaller tol it is the polished one: y is then constant on the components that the passes tell.
The gap is asked for at iterations that the gaps so far suggest. On the CPU late iterations of a
large image leave out the tiles whose part in the gap is small (cpu/converged/tiles.hpp).

**Derivative.** As Eq. 8 of the paper in 1D, with connected components in place of segments:
dy = P(dx - sum_a D_a^T(s_a dw_a)), P the mean over components, s the sign of each jump. Both come
from the last passes, whether y is polished or not: inner edges of a pass are joined, the others
have the sign of their jump in it.

**Data weights** a > 0 change the metric: all of this holds with <p, y> = sum a p y, norms to match,
and the weighted 1D prox and means of the caller. A pass leaves p with a p a dual.

Arrays keep the layout of x; `axes` are in sweep order. Sums over a component run in the fixed
order of a sort by label: no atomics, the same bits every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxtv import _accelerated, _edge_codes, _outliers, _overflow
from jaxtv._elements import choose, flat, unflat
from jaxtv._fallback import all_zero, sanitise, segment_means

# ---------------------------------------------------------------------- connected components


def _lowest_neighbour(
    label: Array, inside: Sequence[Array], like: Array, axes: Sequence[int]
) -> Array:
    """(batch..., N): the least label of each sample and its neighbours across inner edges."""
    label = unflat(label, like, axes)
    lowest, none = label, 2**31 - 1
    for edge, axis in zip(inside, axes, strict=True):
        n = like.shape[axis]
        left = jax.lax.slice_in_dim(label, 0, n - 1, axis=axis)
        right = jax.lax.slice_in_dim(label, 1, n, axis=axis)
        least = jnp.where(edge, jnp.minimum(left, right), jnp.int32(none))
        for at in (0, 1):
            pad = [(0, 0)] * like.ndim
            pad[axis] = (at, 1 - at)
            lowest = jnp.minimum(lowest, jnp.pad(least, pad, constant_values=none))
    return flat(lowest, axes)


def component_labels(inside: Sequence[Array], like: Array, axes: Sequence[int]) -> Array:
    """(batch..., N) int32: the first sample, in flat order, of the component of each sample.

    `inside` (size n - 1 along its axis) has the inner edges of each axis. One step hooks every
    tree to the smallest label next to it and then halves the depth of the trees; minima commute,
    so the result does not depend on the order of the scatter.
    """

    def hook(label, lowest):
        return label.at[label].min(lowest)

    for _ in range(like.ndim - len(axes)):
        hook = jax.vmap(hook)

    def step(state):
        label, _ = state
        new = hook(label, _lowest_neighbour(label, inside, like, axes))
        for _ in range(2):
            new = jnp.take_along_axis(new, new, axis=-1)
        return new, jnp.any(new != label)

    samples = flat(like, axes)
    first = jax.lax.broadcasted_iota(jnp.int32, samples.shape, samples.ndim - 1)
    first = first + jnp.zeros_like(samples, jnp.int32)  # inherits sharding and manual axes
    return jax.lax.while_loop(lambda s: s[1], step, step((first, None)))[0]


def component_means(v: Array, inside: Sequence[Array], axes: Sequence[int]) -> Array:
    """P v: the mean of v over the connected component of each sample."""
    return unflat(means_of_labels(flat(v, axes), component_labels(inside, v, axes)), v, axes)


def means_of_labels(v: Array, labels: Array) -> Array:
    """The mean of v over the samples with the same label, along the last axis."""
    order = jnp.argsort(labels, axis=-1, stable=True)
    by_label = jnp.take_along_axis(labels, order, axis=-1)
    values = jnp.take_along_axis(v, order, axis=-1)
    means = segment_means(values, by_label[..., 1:] == by_label[..., :-1])
    return jnp.take_along_axis(means, jnp.argsort(order, axis=-1), axis=-1)


# ---------------------------------------------------------------------- derivative


def components_jvp(edge_codes: Array, tx: Array, *tws: Array, axes: tuple[int, ...]) -> Array:
    """`jaxtv_components_jvp`: P(tx - sum_a D_a^T(s_a tw_a)) from the codes of the solution."""
    inside, signs = _edge_codes.unpack(edge_codes, axes, tx.dtype)
    for sign, tw, axis in zip(signs, tws, axes, strict=True):
        pad = [(0, 0)] * tx.ndim
        pad[axis] = (1, 1)
        tx = tx + jnp.diff(jnp.pad(sign * tw, pad), axis=axis)
    return component_means(tx, inside, axes)


def components_vjp(
    edge_codes: Array, g: Array, *, axes: tuple[int, ...], edge: tuple[bool, ...]
) -> tuple[Array, ...]:
    """`jaxtv_components_vjp`: (P g, -s_a D_a P g, ...), the transpose of `components_jvp`."""
    inside, signs = _edge_codes.unpack(edge_codes, axes, g.dtype)
    gx = component_means(g, inside, axes)
    gws = []
    for sign, axis, per_edge in zip(signs, axes, edge, strict=True):
        gw = -sign * jnp.diff(gx, axis=axis)
        gws.append(gw if per_edge else jnp.sum(gw, axis, keepdims=True))
    return gx, *gws


# ---------------------------------------------------------------------- solver

# From this tolerance on smoothing takes the weights times `tol` to this power.
_SMOOTHING_POWER = 0.7

Pass = tuple[Array, Array]  # the solution along one axis, and its dual


class _Problem(NamedTuple):
    """Centred samples of a size about one, their weights, and how the caller solves with them."""

    x: Array
    ws: list[Array]
    axes: tuple[int, ...]
    roundoff: Array  # per element: how large rounding alone may make the gap of an iterate
    tol: float
    max_iterations: int
    prox1d: Callable[[Array, Array, int], Array]  # of (samples, weights, axis)
    means: Callable[[Array, Sequence[Array]], Array]  # P, of (array, edges inside components)
    mass: Array | None  # the data weights, if any

    def total(self, v: Array) -> Array:
        """The sum over each element, of a product of samples or duals, in the metric."""
        return self._sum(v if self.mass is None else self.mass * v)

    def _sum(self, v: Array) -> Array:
        return jnp.sum(v, self.axes, keepdims=True)

    def passes(self, point: Sequence[Array]) -> list[Pass]:
        """Solve every axis once.

        The first axis solves x minus the duals in `point`, with the result z. Each other axis
        solves its dual in `point` plus z / (d - 1), which is the gradient step.
        """
        rest = self.x
        for v in point:
            rest = rest - v
        z = self.prox1d(rest, self.ws[0], self.axes[0])
        passes = [(z, rest - z)]
        for v, w, axis in zip(point, self.ws[1:], self.axes[1:]):
            a = v + passes[0][0] / (len(self.axes) - 1)
            z = self.prox1d(a, w, axis)
            passes.append((z, a - z))
        return passes

    def excess(self, y: Array, passes: Sequence[Pass]) -> Array:
        """Sum over the axes of TV(y) - <p, y>, by terms that vanish where y is the pass's z."""
        out = jnp.zeros_like(self.total(y))
        for (z, p), w, axis in zip(passes, self.ws, self.axes):
            jump = jnp.abs(jnp.diff(y, axis=axis)) - jnp.abs(jnp.diff(z, axis=axis))
            out = out + self._sum(w * jump) - self.total(p * (y - z))
        return out

    def duals(self, passes: Sequence[Pass]) -> tuple[Array, ...]:
        return tuple(p for _, p in passes[1:])

    def primal(self, passes: Sequence[Pass]) -> Array:
        y = self.x
        for _, p in passes:
            y = y - p
        return y

    def better(self, y: Array, passes: Sequence[Pass]) -> Array:
        """What polish makes of y, or smoothing if `tol` is loose."""
        return self.smooth(y) if _accelerated.is_loose(self.tol) else self.polish(y, passes)

    def polish(self, y: Array, passes: Sequence[Pass]) -> Array:
        """The means of y over components that the passes tell."""
        inside = [
            (jnp.diff(z, axis=axis) == 0) & (w > 0)
            for (z, _), w, axis in zip(passes, self.ws, self.axes)
        ]
        return self.means(y, inside)

    def smooth(self, y: Array) -> Array:
        """Y after a pass with small weights along each axis along which it is no pass's result."""
        share = min(1.0, self.tol**_SMOOTHING_POWER)
        for w, axis in list(zip(self.ws, self.axes))[: 1 if len(self.axes) == 2 else None]:
            y = self.prox1d(y, share * w, axis)
        return y

    def edge_codes(self, passes: Sequence[Pass]) -> tuple[Array, ...]:
        """Those of every pass, shaped as x."""
        zipped = zip(passes, self.ws, self.axes)
        return tuple(_edge_codes.encode(z, w, axis) for (z, _), w, axis in zipped)


def solve(
    x: Array,
    *operands: Array,
    prox1d: Callable[[Array, Array, int], Array],
    means: Callable[[Array, Sequence[Array]], Array],
    axes: tuple[int, ...],
    tol: float,
    max_iterations: int,
    mass: Array | None = None,
) -> tuple[Array, ...]:
    """`jaxtv_converged`: (y, gap, iterations, converged, *duals, edge codes of the last passes).

    `operands` are the starting duals of all axes but the first (any values: they are projected),
    then one weight array per axis; `means` is P, given the inner edges; `mass` are data weights > 0
    of a size about one, with which `prox1d` and `means` work. An element is done when its y has a
    gap of at most `tol` times the optimal value. A finished element is frozen. An element that is
    not done after `max_iterations` returns the better of its iterate and the polished one, with
    `converged` False.
    """
    others = len(axes) - 1
    original, weights = x, operands[others:]
    near, shift = _brought_near(x, weights, axes, mass)
    x, ws, bad, scale = sanitise(near, weights, axes)
    # Scale x to about one, by a power of two: the gap's squares and its tolerance do not underflow.
    exponent = jnp.frexp(jnp.max(jnp.abs(x), axes, keepdims=True))[1]
    x, *ws = (jnp.ldexp(v, -exponent) for v in (x, *ws))
    duals = (jnp.where(jnp.isfinite(v) & ~bad, v, 0) for v in operands[:others])
    start = tuple(jnp.ldexp(v / scale, -exponent) for v in duals)
    unscaled = lambda v: jnp.ldexp(v * scale, exponent)  # scale * 2^exponent may overflow
    mean = jnp.mean(x, axes, keepdims=True)

    problem, start = _centred(x - mean, ws, start, axes, tol, max_iterations, prox1d, means, mass)
    codes = problem.edge_codes([(problem.x, problem.x)] * len(axes))
    state = _accelerated.minimise(problem, start, codes)

    y = unscaled(state.y + mean)
    y = _overflow.within_range(jnp.where(shift == 0, y, y + shift))
    y = jnp.where(bad, jnp.nan, jnp.where(all_zero(weights, axes), original, y))
    gap = jnp.where(bad, jnp.nan, unscaled(unscaled(state.gap)))
    of_x = [_edge_codes.encode(original, w, a) for w, a in zip(weights, axes)]
    codes = choose(all_zero(weights, axes), of_x, list(state.codes))
    return (
        y,
        gap,
        jnp.where(bad, 0, state.iterations),
        state.converged & ~bad,
        *(unscaled(v) for v in state.dual),
        _edge_codes.pack(codes, axes),
    )


def _brought_near(
    x: Array, ws: Sequence[Array], axes: tuple[int, ...], mass: Array | None
) -> tuple[Array, Array]:
    """`_outliers.brought_near`, with data weights > 0: they hold a sample against its edges."""
    if mass is None:
        return _outliers.brought_near(x, ws, axes)
    least = jnp.min(mass, axes, keepdims=True)
    crossing = lambda far: _outliers.crossing_weights(x, ws, axes, far) / least
    return _outliers.brought_near(x, ws, axes, crossing)


def _centred(
    x, ws, start, axes, tol, max_iterations, prox1d, means, mass
) -> tuple[_Problem, tuple[Array, ...]]:
    """The problem of a centred x, and the starting duals. Limits weights and duals to bounds."""
    # No dual exceeds the sum of |x - mean|. With weights limited to it, λ = inf has a finite gap.
    bound = jnp.sum(jnp.abs(x if mass is None else mass * x), axes, keepdims=True)
    # Where that is 0 they still tell which edges join.
    ws = [jnp.minimum(w, jnp.where(bound > 0, bound, 1)) for w in ws]
    # A state is the difference of two duals, so it does not exceed twice that.
    start = tuple(jnp.clip(v, -2 * bound, 2 * bound) for v in start)
    edges = sum(
        jnp.sum(w, axes, keepdims=True) * (x.shape[a] - 1 if w.shape[a] == 1 else 1)
        for w, a in zip(ws, axes)
    )
    # Measured: rounding leaves jumps inside segments that add up to at most half of this.
    roundoff = jnp.finfo(x.dtype).eps * bound / math.prod(x.shape[a] for a in axes) * edges
    return _Problem(x, ws, axes, roundoff, tol, max_iterations, prox1d, means, mass), start
