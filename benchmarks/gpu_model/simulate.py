"""What the 1D solvers do on the benchmarks' data: trips, cuts, rounds, and steps of windows."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

import jaxtv


def noisy_steps(signals: int, n: int) -> np.ndarray:
    """Data as in benchmarks/gpu.py: a step of 1 and noise of 0.5."""
    return 0.5 * np.random.default_rng(0).normal(size=(signals, n)) + (np.arange(n) >= n / 2)


class Trips(NamedTuple):
    """Of the taut string, in a warp of 32 neighbouring signals, mean over warps."""

    per_sample: float  # of the worst lane
    cutting: float  # the share of these in which some lane cuts
    ends: float  # the share of samples at which some signal is cut at last


@functools.cache
def trips_of(n: int, lam: float, signals: int = 1024) -> Trips:
    """On noisy steps."""
    return string_of(noisy_steps(signals, n), lam)


def string_of(x: np.ndarray, lam: float) -> Trips:
    """The same steps as include/jaxtv/certified.hpp, all rows at once, but without a budget."""
    signals, n = x.shape
    row = np.arange(signals)
    at, trips = np.ones(signals, int), np.zeros(signals, int)
    cutting, cuts = np.zeros(signals // 32), np.zeros((signals, n), bool)
    low, high = np.zeros(signals, int), np.zeros(signals, int)
    vmin, vmax, count = x[:, 0] - lam, x[:, 0] + lam, np.ones(signals)
    p, q = np.zeros(signals), np.zeros(signals)
    while (live := at < n).any():
        trips += live
        i = np.minimum(at, n - 1)
        a, b = p + (x[row, i] - vmin), q + (x[row, i] - vmax)
        limit = np.where(i < n - 1, -2 * lam, -lam)
        down, up = live & (a < limit), live & (b > -limit)
        cut = down | up
        cutting += cut.reshape(-1, 32).any(axis=1)
        cuts[cut, np.where(down, low, high)[cut]] = True
        i = np.where(cut, np.where(down, low, high) + 1, i)
        first = x[row, np.minimum(i, n - 1)]
        vmin = np.where(cut, first + np.where(down, 0, -2 * lam), vmin)
        vmax = np.where(cut, vmin + 2 * lam, vmax)
        a, b, count = (np.where(cut, 0, v) for v in (a, b, count))
        count = count + 1
        vmin, vmax = vmin + np.maximum(a, 0) / count, vmax + np.minimum(b, 0) / count
        low, high = np.where(a >= 0, i, low), np.where(b <= 0, i, high)
        p, q = np.minimum(a, 0), np.maximum(b, 0)
        at = np.where(live, i + 1, at)
    worst = trips.reshape(-1, 32).max(axis=1)
    ends = cuts.reshape(-1, 32, n).any(axis=1)
    return Trips(*(float(v) for v in (worst.mean() / n, (cutting / worst).mean(), ends.mean())))


class Decomposed(NamedTuple):
    """What the decomposition of signals (cuda/rounds.cuh, but for ties) does."""

    rounds: np.ndarray  # of each signal
    starts: np.ndarray  # which samples start a segment; the place behind the last does too
    cutting: float  # of the steps of a round, how many have a cut in some lane after it


def decomposed(x: np.ndarray, lam: float) -> Decomposed:
    """Decomposes each row by a warp."""
    signals, n = x.shape
    each = -(-n // 32) | 1  # samples of a lane
    lanes = np.zeros((signals, 32 * each), bool)
    shares = []
    jump = np.zeros((signals, n + 1), int)  # before each sample; 2: not a jump, but an end
    jump[:, 0] = jump[:, n] = 2
    rounds, going = np.zeros(signals, int), np.ones(signals, bool)
    while going.any():
        rounds += going
        dual = lam * np.where(jump == 2, 0, jump)
        mean = np.empty_like(x)
        for row, ends in enumerate(jump != 0):
            edges = np.flatnonzero(ends)
            size = np.diff(edges)
            total = np.add.reduceat(x[row], edges[:-1]) + np.diff(dual[row, edges])
            mean[row] = np.repeat(total / size, size)
        by, message = mean - x, np.empty_like(x)
        last = np.zeros(signals)
        for i in range(n):
            start = np.where(jump[:, i] != 0, dual[:, i], np.clip(last, -lam, lam))
            message[:, i] = last = start + by[:, i]
        slack = 1e-12 * (lam + abs(mean) + abs(x))
        label, new = np.zeros(signals, int), np.zeros_like(jump)
        for i in reversed(range(n)):
            end = jump[:, i + 1] != 0
            own = np.where(message[:, i] > lam + slack[:, i], 0, label)
            own = np.where(message[:, i] < -lam - slack[:, i], 1, own)
            own = np.where(end, message[:, i] - dual[:, i + 1] < -slack[:, i], own)
            new[:, i + 1] = np.where(end, 0, label - own)
            label = own
        jump += new
        lanes[:, : n - 1] = jump[:, 1:n] != 0
        shares.append(lanes[going].reshape(-1, 32, each).any(axis=1).mean())
        going = new.any(axis=1)
    return Decomposed(rounds, jump != 0, float(np.mean(shares)))


WINDOW, HALO, AT_ONCE, WARP_SIGNALS = 65, 48, 4, 2  # of cuda/windows.cuh, signals of n = 1024


def windows_of(starts: np.ndarray) -> np.ndarray:
    """Of a warp's worst window: steps of the three searches for cuts, and samples to certify.

    As certify_window in cuda/windows.cuh; mean over warps.
    """
    signals, n = starts.shape[0], starts.shape[1] - 1
    steps = []
    for row in starts:
        cuts = np.flatnonzero(row) - 1  # the edges, from -1 to n - 1
        for begin in range(0, n, WINDOW):
            end = min(begin + WINDOW, n)
            before = cuts[cuts < begin].max()
            inside = cuts[(cuts >= begin) & (cuts < end)]
            if inside.size == 0:
                steps.append((begin - before, end - begin, 0, 0))
                continue
            last = inside.max()
            following = min(cuts[cuts > last], default=last)
            steps.append((begin - before, end - last, following - last, following - before))
    return np.reshape(steps, (signals // WARP_SIGNALS, -1, 4)).max(axis=1).mean(axis=0)


class Noise(NamedTuple):
    """The benchmarks' noisy signals of 1,024 samples, by decomposition and by windows."""

    decomposed: Decomposed
    steps: np.ndarray  # windows_of
    trips: float  # per sample, as a window sees more than it has
    cutting: float


SEEN = WINDOW + 2 * HALO  # samples
TRIPS, MORE_TRIPS = 4, 64  # the budget in cuda/solve.cuh


@functools.cache
def noise_of_1024() -> Noise:
    """Both simulations."""
    found, trips = decomposed(noisy_steps(64, 1024), 1.0), trips_of(SEEN, 1.0)
    steps = windows_of(found.starts)
    return Noise(found, steps, trips.per_sample * SEEN / WINDOW, trips.cutting)


def windows_trips(signal: np.ndarray, lam: float) -> tuple[float, float]:
    """As trips and cutting of Noise, of a warp with copies of one signal."""
    n = signal.size
    firsts = [min(max(k - HALO, 0), n - SEEN) for k in range(0, n, WINDOW)]
    rows = np.array([signal[k : k + SEEN] for k in firsts * WARP_SIGNALS])
    trips = string_of(rows, lam)
    return min(trips.per_sample * SEEN, TRIPS * SEEN + MORE_TRIPS) / WINDOW, trips.cutting


def newton_iterations(n: int, lam: float) -> float:
    """Mean over signals, of the CPU's solver, which takes as many."""
    x = noisy_steps(1024, n).astype(np.float32)
    _, info = jaxtv.prox_tv1d(x, lam, solver=jaxtv.ProjectedNewton(), return_info=True)
    return float(np.mean(info.iterations))
