"""Fast gradient projection in NumPy, as jaxtv/_fgp.py describes it: the oracle of its CUDA kernel."""

from __future__ import annotations

import numpy as np

UNFINISHED, RUNNING, CONVERGED = range(3)


def fresh(x: np.ndarray, w: np.ndarray, start: np.ndarray | None = None) -> list[np.ndarray]:
    """The operands of `jaxtv_isotropic_steps` before the first iteration.

    Args:
        x: (elements, channels, spatial...).
        w: (elements, 1, spatial... or 1s).
        start: a feasible dual, (elements, axes, channels, spatial...); 0 if it is None.
    """
    elements, channels, *sizes = x.shape
    duals = np.zeros((elements, 3, len(sizes), channels, *sizes), x.dtype)
    if start is not None:
        duals[:, 0] = start
    counts = np.tile(np.asarray([RUNNING, 0, 1, 0], np.int32), (elements, 1))
    reals = np.tile(np.asarray([1, 0, 0], x.dtype), (elements, 1))
    return [x, w, duals, counts, reals]


def newest(duals: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The dual of each element, (elements, axes, channels, spatial...)."""
    return np.stack([dual[count[3]] for dual, count in zip(duals, counts, strict=True)])


def differences(y: np.ndarray) -> np.ndarray:
    """Forward differences of (channels, spatial...) along each spatial axis, 0 at its end."""
    return np.stack([np.diff(y, axis=a, append=y.take([-1], a)) for a in range(1, y.ndim)])


def primal(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """y = x - D^T u."""
    return x + sum(np.diff(v, axis=a + 1, prepend=0) for a, v in enumerate(u))


def solve(x: np.ndarray, w: np.ndarray, u: np.ndarray, tol: float, max_iterations: int):
    """(u, iterations, gap, converged) of one element; the gap is measured as the kernels do it."""
    step = 1 / (4 * len(u))
    last, t, beta, next_test = u, 1.0, 0.0, 1
    for iteration in range(1, max_iterations + 1):
        point = u + beta * (u - last)
        v = point + step * differences(primal(x, point))
        norm = np.sqrt(np.sum(v**2, (0, 1)))
        new = v * np.where(norm > w[0], w[0] / np.where(norm > 0, norm, 1), 1)
        uphill = np.sum((point - new) * (new - u))
        last, u = u, new
        if iteration >= next_test or iteration == max_iterations:
            y = primal(x, u)
            jump = differences(y)
            variation = np.sum(w[0] * np.sqrt(np.sum(jump**2, (0, 1))))
            gap = max(0.0, variation - np.sum(jump * u))
            if gap <= tol * (variation + np.sum((x - y) ** 2) / 2):
                return u, iteration, gap, True
            next_test = iteration + 1 + iteration // 16
        following = (1 + np.sqrt(1 + 4 * t * t)) / 2
        beta = 0.0 if uphill > 0 else (t - 1) / following
        t = 1.0 if uphill > 0 else following
    return u, max_iterations, gap, False
