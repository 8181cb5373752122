"""Independent oracles in NumPy: nothing here is shared with the library.

1D: forward message passing over the knots of the derivative of the value function (Johnson 2013;
Kolmogorov, Pock & Rolinek 2016), either in float64 or, `exact=True`, in rational numbers. It only
has to find the structure (which edges jump, and which way); the values are then the KKT means,
each summed with `math.fsum`, i.e. rounded once.
"""

import math
from collections import deque
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.sparse


class Solution(NamedTuple):
    """y (n,) float64; sign (n-1,) of the jump at each edge; cut (n-1,): jumps and zero weights."""

    y: np.ndarray
    sign: np.ndarray
    cut: np.ndarray


def solve1d(x, w, exact=False):
    """argmin 1/2 |y-x|^2 + sum_e w_e |y_{e+1} - y_e|; x (n,), w scalar or (n-1,), inf allowed."""
    x = np.asarray(x, np.float64)
    n = len(x)
    w = np.broadcast_to(np.asarray(w, np.float64), (n - 1,))
    # |u_e| <= sum |y - x| <= n * range, so a weight above that acts like infinity.
    w = np.minimum(w, 2 * n * np.ptp(x) + 1)
    shift = x[0]
    centred = [Fraction(v) - Fraction(shift) for v in x] if exact else list(x - shift)
    bounds = [Fraction(v) for v in w] if exact else list(w)
    lo, hi = _clamps(centred, bounds)
    sign, cut = _backtrack(lo, hi, bounds)
    return Solution(_segment_means(x, w, sign, cut), sign, cut)


def _clamps(x, w):
    """Where the derivative f_i of every message crosses -w_i and +w_i (f_{n-1}: zero).

    f is piecewise linear and increasing. `knots` holds (position, change of slope, change of
    intercept) from left to right; (a, b) is its leftmost, (c, d) its rightmost line.
    """
    n = len(x)
    one = x[0] * 0 + 1
    knots = deque()
    a = c = one
    b = d = -x[0]
    lo, hi = [], []
    for i in range(n):
        bound = w[i] if i < n - 1 else x[0] * 0
        while knots and a * knots[0][0] + b < -bound:
            _, da, db = knots.popleft()
            a, b = a + da, b + db
        lo.append((-bound - b) / a)
        if i == n - 1:
            break
        while knots and c * knots[-1][0] + d > bound:
            _, da, db = knots.pop()
            c, d = c - da, d - db
        hi.append((bound - d) / c)
        # clamp to [-bound, bound], then add (t - x_{i+1})
        if bound == 0:
            knots.clear()
            a, b, c, d = one, -x[i + 1], one, -x[i + 1]
            continue
        knots.appendleft((lo[i], a, b + bound))
        knots.append((hi[i], -c, bound - d))
        a, b = one, -bound - x[i + 1]
        c, d = one, bound - x[i + 1]
    return lo, hi


def _backtrack(lo, hi, w):
    n = len(lo)
    sign = np.zeros(n - 1, np.int8)
    cut = np.zeros(n - 1, bool)
    y = lo[n - 1]
    for i in range(n - 2, -1, -1):
        if y > hi[i]:
            y, sign[i] = hi[i], 1
        elif y < lo[i]:
            y, sign[i] = lo[i], -1
        cut[i] = sign[i] != 0 or w[i] == 0
    return sign, cut


def _segment_means(x, w, sign, cut):
    n = len(x)
    y = np.empty(n)
    start = 0
    for end in range(n):
        if end < n - 1 and not cut[end]:
            continue
        terms = list(x[start : end + 1])
        if end < n - 1:
            terms.append(w[end] * sign[end])
        if start > 0:
            terms.append(-w[start - 1] * sign[start - 1])
        y[start : end + 1] = math.fsum(terms) / (end + 1 - start)
        start = end + 1
    return y


def full_weights(x, w, axis=-1):
    """w broadcast against x with n-1 edges along `axis`; w of size 1 along it is one weight per
    signal.
    """
    x = np.asarray(x)
    w = np.asarray(w, np.float64)
    edges = list(x.shape)
    edges[axis] = max(x.shape[axis] - 1, 0)
    return np.broadcast_to(w, edges)


def prox1d(x, w, axis=-1, exact=False):
    """`solve1d` of every signal of x along `axis`, as one Solution of arrays shaped like x."""
    x = np.asarray(x, np.float64)
    rows = np.moveaxis(x, axis, -1)
    weights = np.moveaxis(full_weights(x, w, axis), axis, -1)
    batch, n = rows.shape[:-1], rows.shape[-1]
    y = np.empty(rows.shape)
    sign = np.zeros(weights.shape, np.int8)
    cut = np.zeros(weights.shape, bool)
    for index in np.ndindex(*batch):
        if n:
            y[index], sign[index], cut[index] = solve1d(rows[index], weights[index], exact)
    return Solution(*(np.moveaxis(field, -1, axis) for field in (y, sign, cut)))


def dual(x, y, axis=-1):
    """u_e = sum_{j<=e} (y_j - x_j), and the same for e = n-1, which must be 0."""
    return np.cumsum(np.asarray(y, np.float64) - np.asarray(x, np.float64), axis)


def kkt_violation(x, y, w, axis=-1):
    """The largest violation of the optimality conditions: balance, dual feasibility,
    complementarity of the jumps.
    """
    x, y = (np.moveaxis(np.asarray(v, np.float64), axis, -1) for v in (x, y))
    w = full_weights(x, np.moveaxis(np.asarray(w, np.float64), axis, -1) if np.ndim(w) else w)
    u = dual(x, y)
    jump = np.sign(np.diff(y, axis=-1))
    finite = np.where(np.isinf(w), 0, w)
    parts = (
        np.abs(u[..., -1:]),
        np.maximum(np.abs(u[..., :-1]) - w, 0),
        np.where(
            jump != 0, np.abs(u[..., :-1] - finite * jump) + np.where(np.isinf(w), np.inf, 0), 0
        ),
    )
    return max((float(part.max()) for part in parts if part.size), default=0.0)


def gap(x, y, w):
    """sum_e w_e |y_{e+1} - y_e| - <x - y, y - mean y>, over the last axis, in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    jumps = np.abs(np.diff(y, axis=-1))
    w = full_weights(x, w)
    penalty = np.where(jumps > 0, np.where(jumps > 0, w, 0) * jumps, 0)
    return penalty.sum(-1) - ((x - y) * (y - y.mean(-1, keepdims=True))).sum(-1)


class Edges(NamedTuple):
    """Which edges of the float64 solution any solver in a given precision must join, and which it
    must not.
    """

    jump: np.ndarray
    join: np.ndarray

    def wrong(self, y, sign):
        """Where y contradicts: a joined pair that differs, a jump that is missing or has the wrong
        sign.
        """
        found = np.sign(np.diff(np.asarray(y, np.float64), axis=-1))
        return (self.jump & (found != sign)) | (self.join & (found != 0))

    @property
    def tied(self):
        """Signals with an edge that rounding may decide: a jump, or a slack |u| < w, below 8 ulp
        of max|x|.
        """
        return ~(self.jump | self.join).all(-1)


def decided_edges(x, w, solution, dtype):
    """`Edges` along the last axis; an edge with w = 0 is only ever decided by its jump."""
    ulp = 8 * np.finfo(dtype).eps * np.abs(x).max(-1, keepdims=True)
    slack = full_weights(x, w) - np.abs(dual(x, solution.y)[..., :-1])
    jump = np.abs(np.diff(solution.y, axis=-1)) > ulp
    return Edges(jump & (solution.sign != 0), ~solution.cut & (slack > ulp))


def dykstra(x, ws, axes, iterations):
    """The paper's Algorithm 1 for any number of axes, in sweep order: 1D exact proxes of the data
    less the other duals.
    """
    x = np.asarray(x, np.float64)
    duals = [np.zeros_like(x) for _ in axes]
    for _ in range(iterations):
        for i, (axis, w) in enumerate(zip(axes, ws, strict=True)):
            a = x - sum(p for j, p in enumerate(duals) if j != i)
            y = prox1d(a, w, axis).y
            duals[i] = a - y
    return y


def jacobians(sign, cut):
    """The literal Eq. 8-9 of the paper, corrected (constant column, indices), for one signal:
    (dy/dx, dy/dw_e).

    L: lower triangular ones; S: {first column} and the columns behind each cut; M = L_S (L_S^T
    L_S)^-1.
    """
    n = len(sign) + 1
    columns = np.concatenate([[0], 1 + np.flatnonzero(cut)])
    lower = np.tril(np.ones((n, n)))[:, columns]
    m = lower @ np.linalg.inv(lower.T @ lower)
    by_edge = np.zeros((len(columns), n - 1))
    by_edge[1:][np.arange(len(columns) - 1), columns[1:] - 1] = sign[columns[1:] - 1]
    return m @ lower.T, -m @ by_edge


def pullback(solution, g):
    """(g_x, g_w) of the cotangent g (..., n) through `jacobians`, signal by signal along the last
    axis; g_w per edge.
    """
    gx, gw = np.empty(g.shape), np.empty(solution.sign.shape)
    for index in np.ndindex(*g.shape[:-1]):
        dx, dw = jacobians(solution.sign[index], solution.cut[index])
        gx[index], gw[index] = g[index] @ dx, g[index] @ dw
    return gx, gw


def directional(f, point, direction, step):
    """Central difference of f at `point` (tuple of arrays) along `direction` (likewise)."""
    plus = f(*(p + step * d for p, d in zip(point, direction, strict=True)))
    minus = f(*(p - step * d for p, d in zip(point, direction, strict=True)))
    return (np.asarray(plus) - np.asarray(minus)) / (2 * step)


def unbroadcast(g, shape):
    """Sum g over what was broadcast from `shape`, size 1 along an axis included."""
    shape = tuple(shape)
    g = g.sum(tuple(range(g.ndim - len(shape))))
    ones = tuple(i for i, d in enumerate(shape) if d == 1 and g.shape[i] != 1)
    return g.sum(ones, keepdims=True).reshape(shape)


def dykstra_pullback(x, lam, g, iterations):
    """(g_x, g_lam) of K sweeps on one image (H, W), rows first: the dense Jacobian of every pass,
    chained forwards.
    """
    x = np.asarray(x, np.float64)
    size = x.size
    eye = np.eye(size + 1)[:size]  # derivative of x in (x, lam)
    duals, d_duals = [np.zeros_like(x)] * 2, [np.zeros_like(eye)] * 2
    for step in range(2 * iterations):
        i, axis = step % 2, 1 - step % 2
        a, da = x - duals[1 - i], eye - d_duals[1 - i]
        solution = prox1d(a, lam, axis)
        y, dy = solution.y, np.empty_like(da)
        index = np.moveaxis(np.arange(size).reshape(x.shape), axis, -1)
        signs, cuts = (np.moveaxis(v, axis, -1) for v in solution[1:])
        for row, sign, cut in zip(index, signs, cuts):
            dx, dw = jacobians(sign, cut)
            dy[row] = dx @ da[row]
            dy[row, -1] += dw.sum(1)
        duals[i], d_duals[i] = a - y, da - dy
    pulled = g.ravel() @ dy
    return pulled[:-1].reshape(x.shape), pulled[-1]


class SolutionND(NamedTuple):
    """y float64 and the number of the component of each sample, both shaped as x."""

    y: np.ndarray
    component: np.ndarray

    def average(self, v):
        """P v: the means of v over the components."""
        sums = np.bincount(self.component.ravel(), np.ravel(v))
        return (sums / np.bincount(self.component.ravel()))[self.component]

    def pullback(self, g, axes):
        """(P g, -s D P g for each axis), per edge."""
        gx = self.average(g)
        return gx, [-np.sign(np.diff(self.y, axis=a)) * np.diff(gx, axis=a) for a in axes]


def prox_nd(x, ws, axes, mass=None):
    """Exact prox of one small array, all of whose axes are prox axes: threshold decomposition
    (Hochbaum 2001) with a linear program for every cut. `mass`: data weights, 0 for a missing x.

    A region R has the value t = mean of x over it, adjusted by the known jumps that leave it. If
    some set z in R has sum_z (t - x) + w(boundary of z in R) < 0, the solution is above t on z and
    below on the rest.
    """
    x = np.asarray(x, np.float64)
    index = np.arange(x.size).reshape(x.shape)
    ends, weights = [], []
    for axis, w in zip(axes, ws, strict=True):
        low, high = (np.delete(index, end, axis).ravel() for end in (-1, 0))
        ends.append(np.stack([low, high], 1))
        weights.append(full_weights(x, w, axis).ravel())
    mass = np.ones(x.shape) if mass is None else mass
    y, component = _prox_on_edges(
        x.ravel(), np.concatenate(ends), np.concatenate(weights), mass.ravel()
    )
    return SolutionND(y.reshape(x.shape), component.reshape(x.shape))


def prox_graph_tv(x, lam, edges):
    """`prox_nd` of the samples x at the nodes of a graph; lam is one number, or one per edge."""
    weights = np.broadcast_to(np.asarray(lam, np.float64), len(edges))
    return _prox_on_edges(np.asarray(x, np.float64), edges, weights, np.ones(len(x)))[0]


def _prox_on_edges(x, ends, weights, mass):
    """(y, component of each sample)."""
    weights = np.minimum(weights, mass.sum() * np.ptp(x))
    adjusted, y = mass * x, np.empty(x.size)
    component = np.empty(x.size, int)
    regions, final = [np.arange(x.size)], 0
    while regions:
        region = regions.pop()
        inside = np.isin(ends, region).all(1) & (weights > 0)
        t = math.fsum(adjusted[region]) / math.fsum(mass[region])
        z = _cut(
            mass[region] * t - adjusted[region],
            np.searchsorted(region, ends[inside]),
            weights[inside],
        )
        if z is None:
            y[region], component[region], final = t, final, final + 1
            continue
        parts = region[z], region[~z]
        high = np.isin(ends[inside], parts[0])
        for (i, j), w, (a, b) in zip(ends[inside], weights[inside], high):
            adjusted[i] += w * (int(b) - int(a))
            adjusted[j] += w * (int(a) - int(b))
        regions += parts
    return y, component


def _cut(cost, edges, weights):
    """argmin over sets z of sum_z cost + weights of the edges that leave z; None if that is 0."""
    n, m = len(cost), len(edges)
    if n == 1:
        return None
    row = np.arange(m)
    incidence = scipy.sparse.coo_matrix(
        (np.repeat([1.0, -1.0], m), (np.tile(row, 2), edges.T.ravel())), (m, n)
    )
    slack = -scipy.sparse.identity(m)
    result = scipy.optimize.linprog(
        np.concatenate([cost, weights]),
        A_ub=scipy.sparse.bmat([[incidence, slack], [-incidence, slack]]) if m else None,
        b_ub=np.zeros(2 * m) if m else None,
        bounds=[(0, 1)] * n + [(0, None)] * m,
        method="highs",
    )
    assert result.success, result.message
    z = result.x[:n] > 0.5
    return None if result.fun > -1e-9 * np.abs(cost).sum() or z.all() or not z.any() else z


def trend_filter(x, lam, spacing, order):
    """argmin 1/2 |y-x|^2 + lam |Dy|_1 by active sets on the dual (scipy's BVLS).

    D are the differences of divided differences of samples that are `spacing` apart.
    """
    d = np.eye(len(x))
    for gap in (spacing, (spacing[1:] + spacing[:-1]) / 2)[:order]:
        d = np.diff(d, axis=0) / gap[:, None]
    d = np.diff(d, axis=0)
    if lam == 0:
        return np.array(x)
    u = np.linalg.lstsq(d.T, x, rcond=None)[0]  # the dual for lam = inf
    bound = min(lam, 2 * np.abs(u).max())
    options = {"method": "bvls", "tol": 1e-15, "max_iter": 100 * len(x)}  # not its default, len(d)
    dual = scipy.optimize.lsq_linear(d.T, x, (-bound, bound), **options)
    assert dual.success, dual.message
    return x - d.T @ dual.x
