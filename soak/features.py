"""Capabilities that stand on the prox, compared with conditions of optimality."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv
from soak.result import Result
from testing import long_double

ROWS = 500  # of one batch


def _rows(seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Noise on steps, float64, and one λ for each row; ten seeds share a shape."""
    n = int(np.random.default_rng(seed // 10).integers(2, 300))
    r = np.random.default_rng(seed)
    steps = np.cumsum(r.normal(size=(ROWS, n)) * (r.random((ROWS, n)) < 0.1), axis=1)
    return r, steps + 0.3 * r.normal(size=(ROWS, n)), 10 ** r.uniform(-2, 1, (ROWS, 1))


@jax.jit
def _fused(x, lam, l1, lower, upper):
    return jaxtv.prox_fused_lasso(x, lam, l1, axes=1, lower=lower, upper=upper)


def fused_violation(x, y, lam, l1, lower, upper) -> np.ndarray:
    """How far y is from optimal, for each row: the least dual that balances every sample.

    The penalty of a sample has the subgradients [low, high] at y. Then x - y - v = Dᵀu with v
    between them, so that u lies in a tube of sums, and within ±λ, at ±λ where y jumps. The tube is
    walked from both ends in float64; what is returned is the largest excess.
    """
    tiny = 1e-12
    low = np.where(y <= lower + tiny, -np.inf, np.where(y > tiny, l1, -l1))
    high = np.where(y >= upper - tiny, np.inf, np.where(y < -tiny, -l1, l1))
    least, most = np.zeros((2, len(x), 1))
    excess = np.zeros(len(x))
    jump = np.diff(y, axis=1)
    for i in range(x.shape[1]):
        residual = (y - x)[:, i : i + 1]
        least, most = least + residual + low[:, i : i + 1], most + residual + high[:, i : i + 1]
        if i < x.shape[1] - 1:
            at = np.abs(jump[:, i : i + 1]) > tiny
            sign = np.sign(jump[:, i : i + 1])
            floor, ceiling = np.where(at, sign * lam, -lam), np.where(at, sign * lam, lam)
        else:
            floor = ceiling = np.zeros((len(x), 1))
        excess = np.maximum(excess, np.maximum(least - ceiling, floor - most)[:, 0])
        least, most = np.clip(least, floor, ceiling), np.clip(most, floor, ceiling)
    return excess


def fused_lasso(cases: int, seed: int = 0) -> Result:
    """Random l1 and bounds, some of them absent; rows until there are `cases`."""
    failures, total, worst = [], 0, 0.0
    while total < cases:
        r, x, lam = _rows(seed)
        size = np.abs(x).max(1, keepdims=True)
        l1 = np.where(r.random((ROWS, 1)) < 0.2, 0.0, size * 10 ** r.uniform(-3, 0, (ROWS, 1)))
        ends = np.sort(size * r.normal(size=(2, ROWS, 1)), axis=0)
        absent = r.random((2, ROWS, 1)) < 0.3
        lower, upper = np.where(absent, [[[-np.inf]], [[np.inf]]], ends)
        y = np.asarray(_fused(*map(jnp.asarray, (x, lam, l1, lower, upper))))
        error = fused_violation(x, y, lam, l1, lower, upper) / size[:, 0]
        outside = ((y < lower) | (y > upper)).any(1)
        wrong = int((~(error <= 1e-11) | outside).sum())
        if wrong:
            failures.append(f"seed {seed}: {x.shape}, {wrong} rows, violation {error.max():.1e}")
            print(failures[-1], flush=True)
        worst, total, seed = max(worst, error.max()), total + len(x), seed + 1
    return Result(
        "prox_fused_lasso: optimality conditions, with and without bounds, in float64",
        f"{total:,} signals",
        f"every y within its bounds; conditions violated by at most {worst:.1e} max|x|",
        failures,
    )


def _isotropic_case(seed: int) -> tuple[np.ndarray, float, dict]:
    """Steps and noise, 2D or 3D, some with coupled channels; ten seeds share a shape."""
    r = np.random.default_rng(seed // 10)
    coupled = bool(r.integers(2))
    shape = tuple(r.integers(1, 14, 2 + r.integers(2) + coupled))
    spatial = tuple(range(len(shape) - coupled))
    r = np.random.default_rng(seed)
    steps = sum(np.indices(shape)) > sum(shape) / 2 - 1
    scale = 10 ** r.uniform(-3, 3)
    options = {"axes": spatial, "channel_axis": -1 if coupled else None}
    return scale * (steps + 0.3 * r.normal(size=shape)), scale * 10 ** r.uniform(-2, 0), options


def isotropic_errors(x, y, dual, lam, *, axes, channel_axis) -> tuple[float, float]:
    """The gap of y, less round-off, over the objective; how far the dual is beyond its bound."""
    norm = lambda v: np.sqrt(np.sum(np.square(v), (0,) if channel_axis is None else (0, -1)))
    rest, jumps = x, []
    for u, a in zip(dual, axes, strict=True):
        forward = np.take(u, range(x.shape[a] - 1), a)
        rest = rest + np.diff(forward, axis=a, prepend=0, append=0)
        last = np.take(y, [-1], a)
        jumps.append(np.diff(y, axis=a, append=last))
    objective = np.sum((x - y) ** 2) / 2 + lam * norm(np.stack(jumps)).sum()
    gap = objective - (np.sum(x**2) - np.sum(rest**2)) / 2 - 1e-14 * np.sum(x**2)
    return max(gap, 0) / max(objective, 1e-300), norm(np.stack(dual)).max() / lam - 1


def isotropic(cases: int, seed: int = 0, tol: float = 1e-6) -> Result:
    """`prox_tv_isotropic` in float64, certified in NumPy from its dual."""
    failures, worst, beyond = [], 0.0, -1.0
    for current in range(seed, seed + cases):
        x, lam, options = _isotropic_case(current)
        y, info, dual = jaxtv.prox_tv_isotropic(
            jnp.asarray(x),
            lam,
            **options,
            solver=jaxtv.FGP(tol, 20_000),
            return_info=True,
            return_dual=True,
        )
        gap, excess = isotropic_errors(x, np.asarray(y), dual, lam, **options)
        if not (gap <= tol + 1e-12 and excess <= 1e-12 and info.converged):
            failures.append(
                f"seed {current}: {x.shape}, gap {gap:.1e}, dual beyond by {excess:.1e}"
            )
            print(failures[-1], flush=True)
        worst, beyond = max(worst, gap), max(beyond, excess)
    return Result(
        "prox_tv_isotropic: duality gap from its result and its dual, in float64",
        f"{cases:,} arrays, 2D and 3D, with and without coupled channels, tol {tol:g}",
        f"gap ≤ {worst:.2g} of the objective; no dual beyond its bound by more than "
        f"{max(beyond, 0):.1g} of it",
        failures,
    )


def _optimal(x, y, lam) -> np.ndarray:
    """How far each row y is from prox_tv(x, lam), relative to max|x|, by message passing."""
    best = long_double.prox1d(x, np.broadcast_to(lam, (len(x), x.shape[1] - 1)))
    return np.abs(y - best).max(1) / np.abs(x).max(1)


def _multiplier(x, y) -> np.ndarray:
    """The λ of which y is the prox: the largest dual, which every jump has."""
    return np.abs(np.cumsum(y - x, axis=1)[:, :-1]).max(1, keepdims=True)


_constrained = {
    "ball": jax.jit(lambda x, bound: jaxtv.project_tv_ball(x, bound, axes=1, return_info=True)),
    "discrepancy": jax.jit(
        lambda x, bound: jaxtv.denoise_discrepancy(x, bound, axes=1, return_info=True)
    ),
}


def constraint_errors(name: str, x, y, bound) -> tuple[np.ndarray, np.ndarray]:
    """(relative error of the constraint, distance from the prox at the λ that y tells), per row."""
    if name == "ball":
        value = np.abs(np.diff(y, axis=1)).sum(1)
    else:
        value = np.sqrt(np.mean((y - x) ** 2, axis=1))
    return np.abs(value / bound[:, 0] - 1), _optimal(x, y, _multiplier(x, y))


def tv_ball(cases: int, seed: int = 0) -> Result:
    """project_tv_ball and denoise_discrepancy in turn; rows until there are `cases`."""
    failures, total, worst, most = [], 0, np.zeros(2), 0
    while total < cases:
        r, x, _ = _rows(seed)
        name = ("ball", "discrepancy")[seed % 2]
        limit = np.abs(np.diff(x, axis=1)).sum(1) if name == "ball" else x.std(1)
        bound = limit[:, None] * r.uniform(0.01, 0.99, (len(x), 1))
        y, info = _constrained[name](jnp.asarray(x), jnp.asarray(bound))
        errors = np.stack(constraint_errors(name, x, np.asarray(y), bound))
        wrong = int((~(errors <= 1e-9).all(0) | ~np.asarray(info.converged)).sum())
        if wrong:
            failures.append(f"seed {seed}: {name} {x.shape}, {wrong} rows, {errors.max(1)}")
            print(failures[-1], flush=True)
        worst = np.maximum(worst, errors.max(1))
        most = max(most, int(info.iterations.max()))
        total, seed = total + len(x), seed + 1
    return Result(
        "project_tv_ball and denoise_discrepancy: the constraint, and message passing at their λ",
        f"{total:,} signals, float64",
        f"constraint met to {worst[0]:.1e}, y to {worst[1]:.1e} max|x|, in at most {most} steps",
        failures,
    )


_select = jax.jit(lambda x, sigma: jaxtv.select_lam(x, sigma, axes=1))


def risks(x, sigma, lams) -> np.ndarray:
    """SURE over Nσ², for each λ and row, by message passing; one λ for all rows, or one each."""
    rows = []
    for lam in lams:
        y = long_double.prox1d(x, np.broadcast_to(lam, (len(x), x.shape[1] - 1)))
        df = 1 + (np.abs(np.diff(y, axis=1)) > 1e-10).sum(1)
        rows.append(((y - x) ** 2).mean(1) / sigma[:, 0] ** 2 - 1 + 2 * df / x.shape[1])
    return np.stack(rows)


def selection(cases: int, seed: int = 0) -> Result:
    """select_lam by SURE, compared with the best of 60 λ by message passing."""
    failures, total, worst = [], 0, -np.inf
    while total < cases:
        r = np.random.default_rng(seed)
        sigma = 10 ** r.uniform(-2, 0, (50, 1))
        clean = np.cumsum(r.normal(size=(50, 200)) * (r.random((50, 200)) < 0.05), axis=1)
        x = clean + sigma * r.normal(size=clean.shape)
        lam = np.asarray(_select(jnp.asarray(x), jnp.asarray(sigma)))
        best = risks(x, sigma, sigma * np.geomspace(0.02, 100, 60)[:, None, None]).min(0)
        excess = (risks(x, sigma, [lam])[0] - best).max()
        if not excess <= 0.05:
            failures.append(f"seed {seed}: the risk is {excess:.2g} Nσ² above the best")
            print(failures[-1], flush=True)
        worst, total, seed = max(worst, excess), total + len(x), seed + 1
    return Result(
        "select_lam: Stein's risk at its λ, compared with the best of 60 λ by message passing",
        f"{total:,} signals, float64",
        f"at most {worst:.1e} Nσ² above the best (0.05 allowed)",
        failures,
    )
