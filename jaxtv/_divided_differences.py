"""Linear algebra along signals: divided differences, and what trend filtering solves with them.

Signals are on the last axis. All is linear recurrences, for O(n) time. A recurrence is computed in
about √n chunks, which advance side by side, and needs √n steps twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

# ---------------------------------------------------------------------- divided differences


class Differences(NamedTuple):
    """Δ, the divided differences of order `len(gaps)`.

    Entry j of `gaps` has n - 1 - j numbers, and size 1 along the other axes.
    """

    gaps: tuple[Array, ...]

    def __call__(self, y: Array) -> Array:
        for gap in self.gaps:
            y = jnp.diff(y) / gap
        return y

    def transpose(self, u: Array) -> Array:
        for gap in self.gaps[::-1]:
            u = transposed_diff(u / gap)
        return u

    def gram_bands(self) -> list[Array]:
        """The diagonal of Δ^TΔ and those below it, each with n entries; entry i is of row i."""
        rows = [jnp.ones_like(_pad(self.gaps[0], 0, 1))]  # the coefficients of each row of Δ
        for gap in self.gaps:
            zero = jnp.zeros_like(rows[0])
            pairs = zip([zero, *rows], [*rows, zero])
            rows = [(before[..., 1:] - here[..., :-1]) / gap for before, here in pairs]
        order = len(self.gaps)
        products = lambda band: [
            _pad(rows[j] * rows[j - band], j, order - j) for j in range(band, order + 1)
        ]
        return [jnp.sum(jnp.stack(products(band)), axis=0) for band in range(order + 1)]


def transposed_diff(u: Array) -> Array:
    """D^T u."""
    return -jnp.diff(_pad(u, 1, 1))


def _pad(v: Array, before: int, after: int, value: float = 0) -> Array:
    return jnp.pad(v, [(0, 0)] * (v.ndim - 1) + [(before, after)], constant_values=value)


def differences_of(spacing: Array, order: int) -> Differences:
    """From the distances of neighbouring samples, of the rank of the signals."""
    centres = (spacing[..., 1:] + spacing[..., :-1]) / 2  # the gaps between first differences
    return Differences((spacing, centres)[:order])


def limit_dual(x: Array, differences: Differences) -> Array:
    """The u of Δ^T u = -x, for an x that is orthogonal to polynomials."""
    u = -x
    for gap in differences.gaps:
        u = -gap * jnp.cumsum(u, axis=-1)[..., :-1]
    return u


def total(v: Array) -> Array:
    return jnp.sum(v, axis=-1, keepdims=True)


def norm(v: Array) -> Array:
    return jnp.sqrt(total(v * v))


# ---------------------------------------------------------------------- linear recurrences


def _times(a: Array, b: Array) -> Array:
    """Products of small matrices on the first two axes, or of matrices and vectors."""
    if b.ndim < a.ndim:
        return jnp.sum(a * b[None], axis=1)
    return jnp.sum(a[:, :, None] * b[None], axis=1)


class _Recurrence(NamedTuple):
    """s_i = A_i s_{i-1} + b_i along the last axis, in chunks that advance side by side.

    `steps` has the matrices A (size of a chunk, d, d, ..., chunks), `products` the product of those
    of a chunk up to each of them.
    """

    steps: Array
    products: Array

    @classmethod
    def of(cls, steps: Array) -> _Recurrence:
        """From the matrices, (d, d, ..., n)."""
        steps = _chunked(steps)

        def multiply(product, step):
            product = _times(step, product)
            return product, product

        products = jax.lax.scan(multiply, steps[0], steps[1:])[1]
        return cls(steps, jnp.concatenate([steps[:1], products]))

    def __call__(self, b: Array) -> Array:
        """All states, (d, ..., n); the one before the first is 0."""
        n = b.shape[-1]
        b = _chunked(b)

        def advance(s, step):
            s = _times(step[0], s) + step[1]
            return s, s

        states = jax.lax.scan(advance, b[0], (self.steps[1:], b[1:]))[1]
        states = jnp.concatenate([b[:1], states])
        # The state before each chunk, from the last states of the chunks.
        ends = tuple(jnp.moveaxis(v[-1], -1, 0) for v in (self.products, states))
        cross = lambda s, end: (_times(end[0], s) + end[1], s)
        before = jax.lax.scan(cross, jnp.zeros_like(ends[1][0]), ends)[1]
        before = jnp.moveaxis(before, 0, -1)
        states += jax.vmap(lambda p: _times(p, before))(self.products)
        states = jnp.moveaxis(states, 0, -1)
        return states.reshape(*states.shape[:-2], -1)[..., :n]


def _chunked(v: Array) -> Array:
    """(..., n) as (size of a chunk, ..., chunks), with zeros at the end."""
    n = v.shape[-1]
    size = math.isqrt(n - 1) + 1
    v = _pad(v, 0, -n % size)
    return jnp.moveaxis(v.reshape(*v.shape[:-1], -1, size), -1, 0)


# ---------------------------------------------------------------------- banded solve


class Factored(NamedTuple):
    """LDL^T of I + ρΔ^TΔ."""

    forward: _Recurrence
    backward: _Recurrence
    pivots: Array

    def solve(self, b: Array) -> Array:
        z = self.forward(self._state(b))[0] / self.pivots
        return jnp.flip(self.backward(self._state(jnp.flip(z, -1)))[0], -1)

    def _state(self, b: Array) -> Array:
        return jnp.stack([b, *[jnp.zeros_like(b)] * (self.forward.steps.shape[1] - 1)])


def factorise(differences: Differences, rho: Array) -> Factored:
    """`rho` has size 1 along the last axis."""
    order = len(differences.gaps)
    bands = [rho * band for band in differences.gram_bands()]
    rows = [jnp.moveaxis(v, -1, 0) for v in (1 + bands[0], *bands[1:], 0 * bands[0])][:3]

    def row(before, a):
        (p1, p2, l1), (a0, a1, a2) = before, a
        l2 = a2 / p2
        l1 = (a1 - a2 * l1) / p1
        pivot = jnp.maximum(a0 - l1 * l1 * p1 - l2 * a2, 1)  # as it is without rounding
        return (pivot, p1, l1), (pivot, l1, l2)

    one = jnp.ones_like(rows[0][0])
    pivots, *lower = jax.lax.scan(row, (one, one, 0 * one), tuple(rows))[1]
    pivots, *lower = (jnp.moveaxis(v, 0, -1) for v in (pivots, *lower))
    ahead = [_pad(v[..., j:], 0, j) for j, v in enumerate(lower, 1)]
    return Factored(
        _Recurrence.of(_companion(lower[:order])),
        _Recurrence.of(jnp.flip(_companion(ahead[:order]), -1)),
        pivots,
    )


def _companion(lower: Sequence[Array]) -> Array:
    """Matrices of s_i = b_i - sum_j lower_j s_{i-j}."""
    zero, one = jnp.zeros_like(lower[0]), jnp.ones_like(lower[0])
    below = [[one if j == i else zero for j in range(len(lower))] for i in range(len(lower) - 1)]
    return jnp.stack([jnp.stack(r) for r in ([-v for v in lower], *below)])


# ---------------------------------------------------------------------- projections


class Projection(NamedTuple):
    """P, the least-squares fit of piecewise polynomials with given knots; symmetric.

    The state is the polynomial at a sample: its value and its divided differences there. The
    information filter and its knots do not depend on the data; see `projection`.
    """

    back: Array  # (k + 1, k + 1, ..., n - 1) from the state at i + 1 to that at i
    forward: _Recurrence
    backward: _Recurrence
    top_variance: Array  # (..., n - 1) 1 / information of the highest difference at a knot, or 0
    information: Array  # (k + 1, k + 1, ...) of all samples on the last state

    def __call__(self, v: Array) -> Array:
        # P is its own pseudo-inverse, and its own transpose.
        apply = lambda matvec, b: matvec(b)
        return jax.lax.custom_linear_solve(self._refined, v, apply, symmetric=True)

    def _refined(self, v: Array) -> Array:
        """A fit and the fit of its residual, which float32 needs."""
        refine = lambda _, y: y + self._fit(v - y)
        return jax.lax.fori_loop(0, 2, refine, jnp.zeros_like(v))

    def _fit(self, v: Array) -> Array:
        info = self.forward(jnp.stack([v, *[jnp.zeros_like(v)] * (len(self.back) - 1)]))
        top = jnp.sum(self.back[:, -1] * info[..., :-1], axis=0) * self.top_variance
        last = _solve(self.information, info[..., -1])
        b = jnp.concatenate([self.back[:, -1] * top[None], last[..., None]], axis=-1)
        return jnp.flip(self.backward(jnp.flip(b, -1))[0], -1)


def projection(differences: Differences, knots: Array) -> Projection:
    """The projection with `knots` (..., n - k - 1): bool, edges where Δy may jump."""
    edges = differences.gaps[0].shape[-1]
    knots = _pad(knots, 0, edges - knots.shape[-1])
    back = _backwards(differences, knots)
    one = jnp.zeros_like(back[..., 0]).at[0, 0].set(1)  # what a sample tells of its own state

    def step(information, edge):
        back, knot = edge
        moved = _times(jnp.swapaxes(back, 0, 1), _times(information, back))
        ratio, rest = _eliminated(moved)
        rest = jnp.pad(rest, [(0, 1), (0, 1)] + [(0, 0)] * (rest.ndim - 2))
        out = jnp.where(knot[None, None], rest, moved) + one
        return out, (jnp.where(knot[None], ratio, 0), jnp.where(knot, 1 / moved[-1, -1], 0))

    along = (jnp.moveaxis(back, -1, 0), jnp.moveaxis(knots, -1, 0))
    information, (ratio, top_variance) = jax.lax.scan(step, one, along)
    ratio, top_variance = (jnp.moveaxis(v, 0, -1) for v in (ratio, top_variance))
    # A knot multiplies by [I, -ratio; 0, 0].
    last_column = jnp.concatenate([-ratio, jnp.where(knots, 0, jnp.ones_like(ratio[0]))[None]])
    moved = jnp.swapaxes(back, 0, 1)
    steps = jnp.concatenate([moved[:-1], jnp.zeros_like(moved[-1:])])
    steps = steps + last_column[:, None] * moved[-1:]
    return Projection(
        back,
        _Recurrence.of(_pad(steps, 1, 0)),
        _Recurrence.of(_pad(jnp.flip(jnp.swapaxes(steps, 0, 1), -1), 1, 0)),
        top_variance,
        information,
    )


def _backwards(differences: Differences, knots: Array) -> Array:
    """The matrices `Projection.back`, for each of `knots`.

    A difference at i + 1 is that at i plus a gap times the next higher one; this is the inverse.
    """
    one = jnp.ones_like(knots, differences.gaps[0].dtype)
    rows = [[*[0 * one] * len(differences.gaps), one]]
    for i, gap in reversed(list(enumerate(differences.gaps))):
        gap = _pad(gap, 0, one.shape[-1] - gap.shape[-1], value=1)
        rows.insert(0, [-gap * v for v in rows[0]])
        rows[0][i] = one
    return jnp.stack([jnp.stack(row) for row in rows])


def _eliminated(a: Array) -> tuple[Array, Array]:
    """(ratio, Schur complement) of eliminating the last variable of a symmetric matrix."""
    ratio = a[:-1, -1] / a[-1:, -1]
    return ratio, a[:-1, :-1] - ratio[:, None] * a[-1:, :-1]


def _solve(a: Array, b: Array) -> Array:
    """Solve with small positive definite matrices on the first two axes."""
    if len(b) == 1:
        return b / a[0]
    ratio, rest = _eliminated(a)
    low = _solve(rest, b[:-1] - ratio * b[-1:])
    top = b[-1] / a[-1, -1] - jnp.sum(ratio * low, axis=0)
    return jnp.concatenate([low, top[None]])


def polynomial_fit(x: Array, spacing: Array, order: int) -> Array:
    """The nearest polynomial, by orthogonal ones; each sum twice, for the rounding of the first."""
    t = _pad(jnp.cumsum(spacing, axis=-1) / total(spacing), 1, 0)
    basis: list[Array] = []
    for degree in range(order + 1):
        v = (t - 0.5) ** degree
        for b in 2 * basis:
            v = v - total(b * v) * b
        basis.append(v / norm(v))
    fit = jnp.zeros_like(x)
    for b in 2 * basis:
        fit = fit + total(b * (x - fit)) * b
    return fit
