"""What the tests run on: every solver, the shapes that reach every kernel, and named nasty signals."""

from typing import NamedTuple

import numpy as np
import pytest

import jaxtv

DTYPES = ["float64", "float32"]
# Of the whole matrix of shapes, weights and solvers on the emulator.
MATRIX_DTYPES = ["float32", pytest.param("float64", marks=pytest.mark.sanitized)]
HALF = ["bfloat16", "float16"]

EXACT = {
    "direct": jaxtv.Direct(),
    "taut string": jaxtv.Direct("taut_string"),
    "decomposition": jaxtv.Direct("decomposition"),
}
NEWTON = {
    "backtracking": jaxtv.ProjectedNewton(),
    "parallel": jaxtv.ProjectedNewton(line_search="parallel"),
}
SOLVERS = EXACT | NEWTON


class Signals(NamedTuple):
    """Signals along one axis of an array."""

    shape: tuple[int, ...]
    axis: int


# What decides which code solves a signal: n, how many there are, and their stride. CUDA (docs/gpu.md):
# up to 64 samples tiles of signals in shared memory, one thread each; up to 256 a warp per signal;
# up to 1,024 windows of 65 samples (float32) or a block; beyond that a block in global memory, and
# for few signals of 32,768 the whole device. Its derivatives: tiles of up to 1,024 samples, then
# chunks of a signal. CPU: vectors of 4 to 16 signals, strided or transposed; single long signals.
SIGNALS = {
    "no signal": Signals((0, 5), 1),
    "one sample": Signals((5, 1), 1),
    "one edge": Signals((7, 2), 1),
    "two samples, two signals": Signals((2, 2), 1),  # fewer than a vector has lanes
    "tiles, last axis": Signals((70, 33), 1),  # several, the last one hangs over
    "full tiles": Signals((96, 32), 1),  # of a power of two
    "tiles, strided": Signals((3, 20, 9), 1),
    "tiles, first axis": Signals((6, 7, 4), 0),
    "tile wider than a row": Signals((2, 30, 33), 1),
    "three in a tile": Signals((3, 45, 2), 1),
    "warps, strided": Signals((2, 100, 3), 1),
    "warps, first axis": Signals((70, 2, 12), 0),
    "windows or a block": Signals((3, 300), 1),  # float32, float64
    "block": Signals((2, 700), 1),
    "block, strided": Signals((700, 2), 0),
    "wide block": Signals((3, 1500), 1),
    "wide block, strided": Signals((1500, 9), 0),  # 9: no multiple of a warp or of a vector
}
LONG_SIGNALS = {  # for derivatives, in several chunks
    "chunks, last axis": Signals((3, 3000), 1),
    "chunks, strided": Signals((2, 700, 9), 1),
    "chunks, few signals": Signals((1300, 3), 0),
    "chunks, many signals": Signals((1300, 20), 0),
    "one signal": Signals((20_000,), 0),
}


class Arrays(NamedTuple):
    """Arrays along several axes, in the order of the sweep."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]


# CUDA keeps an image with all its states in shared memory where it fits, about 150 x 150 samples;
# else it goes axis by axis: tiles of up to 64 samples in one launch, longer signals by the 1D
# kernels. More than four passes need a second plane of edge codes.
ARRAYS = {
    "images": Arrays((3, 7, 9), (2, 1)),
    "images, columns first": Arrays((2, 17, 40), (1, 2)),
    "channels last": Arrays((2, 6, 5, 3), (2, 1)),
    "axes apart": Arrays((9, 4, 5), (0, 2)),
    "volumes": Arrays((2, 4, 5, 6), (3, 1, 2)),
    "one axis": Arrays((2, 30), (1,)),
    "one row": Arrays((2, 1, 6), (2, 1)),
    "one column": Arrays((2, 40, 1), (1, 2)),
    "two by two": Arrays((1, 2, 2), (2, 1)),
    "five axes": Arrays((2, 2, 3, 2, 3, 2), (1, 2, 3, 4, 5)),
    "no image": Arrays((0, 4, 3), (2, 1)),
}
KERNELS_OF_DYKSTRA = {
    "in shared memory": Arrays((3, 9, 8), (2, 1)),
    "channels last": Arrays((2, 9, 8, 5), (1, 2)),
    "tiles": Arrays((2, 5, 6, 4), (3, 1, 2)),
    "a pass by the 1D kernels": Arrays((1, 70, 2, 2), (1, 2, 3)),
}
LARGE_ARRAYS = {
    "beyond shared memory": Arrays((1, 160, 170), (2, 1)),
    "beyond a tile": Arrays((2, 1500, 3, 2), (3, 2, 1)),
    "chunks": Arrays((2, 3, 700, 2), (2, 1)),
    "long and strided": Arrays((3, 9000), (1, 0)),
}


def weight_shape(shape, axis, per_edge):
    """The shape of the weights along an axis: one per edge, or one per signal."""
    size = max(1, shape[axis] - 1) if per_edge else 1
    return tuple(size if i == axis else d for i, d in enumerate(shape))


class Case(NamedTuple):
    """A named problem in float64: x (batch, n), w (batch, 1) or (batch, n-1)."""

    x: np.ndarray
    w: np.ndarray
    exact: bool = False  # solve the oracle in rational numbers: near-ties are the point of the case


def rng(seed=0):
    return np.random.default_rng(seed)


def steps(batch=64, n=48, seed=0):
    """Piecewise constant signals (jumps of about 1 every 8 samples) with noise of 0.3: like rows
    of an image.
    """
    r = rng(seed)
    jumps = r.normal(size=(batch, n)) * (r.random((batch, n)) < 1 / 8)
    return np.cumsum(jumps, 1) + 0.3 * r.normal(size=(batch, n))


def lam_max(x):
    return np.abs(np.cumsum(x - x.mean(-1, keepdims=True), -1)).max(-1, keepdims=True)


def _rows(x, lam):
    x = np.atleast_2d(np.asarray(x, np.float64))
    return x, np.broadcast_to(np.asarray(lam, np.float64), (len(x), 1)).copy()


def _case(x, lam, **options):
    return Case(*_rows(x, lam), **options)


def _every(x, lams, **options):
    """Each signal with each λ."""
    x = np.atleast_2d(np.asarray(x, np.float64))
    return _case(np.repeat(x, len(lams), 0), np.tile(lams, len(x))[:, None], **options)


def _build():
    r = rng(7)
    noise = r.normal(size=(37, 41))
    index = np.arange(64)
    ramp = np.stack([np.arange(1024.0), -np.arange(1024.0), np.arange(1024.0) / 1024])
    tied = np.repeat(r.normal(size=(5, 12)), 3, 1)
    integers = r.integers(0, 4, size=(24, 30))
    return {
        "single sample": _every(r.normal(size=(5, 1)), [0.0, 1.0, np.inf], exact=True),
        "pair": _every(
            [[0.0, 2.0], [3.0, -1.0], [1.0, 1.0]], [0.25, 0.99, 1, 1.01, 2, 5], exact=True
        ),
        "constant": _every(np.full((2, 33), [[3.7], [-0.1]]), [0.0, 1e-3, 1.0, 1e6, np.inf]),
        "zeros": _every(np.zeros((1, 17)), [0.0, 1.0, np.inf]),
        "lam zero": _case([*tied, *-tied], 0.0, exact=True),
        "lam inf": _case(noise, np.inf),
        "lam 1e30": _case(noise, 1e30),
        "lam max": _case(noise, lam_max(noise)),
        "noise": _every(noise[:8], [1e-3, 0.1, 1.0, 3.0, 30.0]),
        "mixed lam": _case(noise, r.choice([0, 1e-6, 0.05, 0.5, 5.0, 1e3, 1e30, np.inf], (37, 1))),
        "huge": _every([[3e38, -3e38] * 8, [3e38] * 8 + [-3e38] * 8], [0.0, 1.0, 1e38]),
        "denormals": _every(r.normal(size=(3, 19)) * 1e-40, [0.0, 1e-41, 1.0], exact=True),
        "integer ties": _every(integers, [0.5, 1.0, 2.0], exact=True),
        "saw": _every(np.tile([[0.0, 1.0], [0.0, 7.0]], 20), [0.2, 0.5, 1.0, 20.0], exact=True),
        "ramp": _every(ramp, [10.0, 1e2, 1e3, 1e4, 1e5]),
        "sine": _case(np.sin(np.arange(100_000) * 2e-4), 50.0),
        "random walk": _case(np.cumsum(r.normal(size=(3, 3000)), 1), 1000.0),
        "powers of two": _every([2.0**index, (-2.0) ** index], [0.0, 5.0, 2.0**40], exact=True),
        "powers of a third": _every(3.0 ** -index[None, :], [0.0, 1e-9, 0.1], exact=True),
        "1e8 beside 1e-3": _every(
            np.where(r.random((6, 40)) < 0.5, 1e8, 1e-3 * noise[:6, :40]),
            [1e-3, 1.0, 1e7],
            exact=True,
        ),
        "zero weights": Case(noise, r.exponential(size=(37, 40)) * (r.random((37, 40)) < 0.7)),
        "zero weights, ties": Case(
            integers.astype(float), r.integers(0, 3, (24, 29)).astype(float), exact=True
        ),
        "increasing weights": Case(noise, np.tile(np.arange(40) / 10, (37, 1))),
        "decreasing weights": Case(noise, np.tile(np.arange(40)[::-1] / 10, (37, 1))),
        "infinite weights": Case(noise, np.where(r.random((37, 40)) < 0.3, np.inf, 0.3)),
        "offsets": _every(steps(4, 60) + 10.0 ** index[3:7, None], [0.1, 1.0, 10.0]),
        "scale 1": _case(steps(), 0.5),
        "scale 255": _case(255 * steps(), 15.1),
        "scale 1e4": _case(1e4 * steps(), 5e3),
    }


CASES = _build()
