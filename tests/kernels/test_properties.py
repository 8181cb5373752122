"""Properties of the exact 1D kernels of the CPU on arbitrary data (hypothesis)."""

import functools

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

import jaxtv
from testing import oracles
from testing.callframe import bind
from testing.generators import DTYPES, EXACT

SIZES = (1, 2, 3, 5, 8, 17)
BATCH = 6
EPS = {"float64": 2.0**-52, "float32": 2.0**-23}

pytestmark = [
    pytest.mark.parametrize("dtype", DTYPES),
    pytest.mark.parametrize("solver", EXACT),
]


@st.composite
def problems(draw, weighted=None):
    """(x, w): arbitrary, tied and constant stretches; λ per signal or weights per edge, zero and
    infinity included.
    """
    n = draw(st.sampled_from(SIZES))
    values = draw(
        st.sampled_from(
            [
                st.floats(-1e3, 1e3, width=32, allow_subnormal=False),
                st.integers(-3, 3).map(float),
                st.sampled_from([-1e6, -1.0, 0.0, 1e-3, 1.0, 1e6]),
            ]
        )
    )
    x = draw(hnp.arrays(np.float64, (BATCH, n), elements=values))
    weights = st.one_of(
        st.floats(0, 1e3, width=32, allow_subnormal=False),
        st.integers(0, 3).map(float),
        st.sampled_from([0.0, 1e6]),
    )
    edges = max(n - 1, 1) if (draw(st.booleans()) if weighted is None else weighted) else 1
    return x, draw(hnp.arrays(np.float64, (BATCH, edges), elements=weights))


duality_gap = jax.jit(functools.partial(jaxtv.duality_gap, axes=-1))


def prox(x, w, solver, dtype, axis=1):
    operands = (np.asarray(v, dtype) for v in (x, w))
    return bind("prox1d", *operands, axis=axis, solver=EXACT[solver])[0]


def as_edges(x, w):
    """One λ per signal and one weight per edge alike; a single sample has no edge."""
    return oracles.full_weights(x, w if x.shape[-1] > 1 else w[:, :0])


def unit(x, dtype):
    """Rounding of one signal: n eps max|x|, with room for the association of the sums."""
    n = x.shape[-1]
    return 4 * n * EPS[dtype] * np.abs(x).max(-1, keepdims=True) + np.finfo(dtype).tiny


@given(problem=problems())
def test_optimality(problem, solver, dtype):
    """Dual feasible, complementary, a gap <= 1e-10 relative (float64): a certificate, no oracle
    involved.
    """
    x, w = (v.astype(dtype) for v in problem)
    y = prox(x, w, solver, dtype)
    u = oracles.dual(x, y)
    room = x.shape[-1] * unit(x, dtype)
    assert np.all(np.abs(u[:, -1:]) <= room)
    assert np.all(np.abs(u[:, :-1]) <= as_edges(x, w) + room)
    gap = oracles.gap(x, y, as_edges(x, w))
    energy = np.square(x.astype(np.float64)).sum(-1) + np.finfo(dtype).tiny
    assert np.all(np.abs(gap) <= (1e-10 if dtype == "float64" else 1e-4) * energy)
    certificate = duality_gap(x, y, w)
    assert np.all(np.abs(certificate) <= (1e-10 if dtype == "float64" else 1e-4) * energy)


@given(problem=problems())
def test_oracle(problem, solver, dtype):
    x, w = (v.astype(dtype) for v in problem)
    y = prox(x, w, solver, dtype)
    exact = oracles.prox1d(x, as_edges(x, w), exact=True)
    assert np.all(np.abs(y - exact.y) <= unit(x, dtype))


@given(problem=problems())
def test_constant_segments_are_exactly_equal(problem, solver, dtype):
    """Nothing is almost joined: an edge that the exact solution joins with room to spare has equal
    ends.
    """
    x, w = (v.astype(dtype) for v in problem)
    y = prox(x, w, solver, dtype)
    exact = oracles.prox1d(x, as_edges(x, w), exact=True)
    slack = as_edges(x, w) - np.abs(oracles.dual(x, exact.y)[:, :-1])
    joined = ~exact.cut & (slack > x.shape[-1] * unit(x, dtype))
    assert not np.any(joined & (np.diff(y) != 0))


@given(problem=problems(), shift=st.sampled_from([-4096.0, -1.0, 0.5, 1000.0]))
def test_shift(problem, shift, solver, dtype):
    x, w = (v.astype(dtype) for v in problem)
    moved = x + np.asarray(shift, dtype)
    y = prox(x, w, solver, dtype)
    assert np.all(
        np.abs(prox(moved, w, solver, dtype) - (y + shift))
        <= 2 * unit(moved, dtype) + 2 * unit(x, dtype)
    )


@given(problem=problems(), scale=st.sampled_from([-1.0, 2.0**-20, 0.5, 4.0, 2.0**20]))
def test_scale_by_a_power_of_two_is_exact(problem, scale, solver, dtype):
    x, w = (v.astype(dtype) for v in problem)
    y = prox(x, w, solver, dtype)
    scaled = prox(scale * x, np.abs(scale) * w, solver, dtype)
    assert np.all(np.abs(scaled - scale * y) <= unit(scale * x, dtype))


@given(problem=problems())
def test_reversal(problem, solver, dtype):
    x, w = (v.astype(dtype) for v in problem)
    y = prox(x, w, solver, dtype)
    assert np.all(
        np.abs(prox(x[:, ::-1], w[:, ::-1], solver, dtype)[:, ::-1] - y) <= 2 * unit(x, dtype)
    )


@given(problem=problems(), data=st.data())
def test_order_is_preserved(problem, data, solver, dtype):
    """x <= x' implies prox(x) <= prox(x')."""
    x, w = (v.astype(dtype) for v in problem)
    bumps = hnp.arrays(np.float64, x.shape, elements=st.sampled_from([0.0, 0.0, 1e-3, 1.0, 50.0]))
    above = (x + data.draw(bumps)).astype(dtype)
    room = unit(x, dtype) + unit(above, dtype)
    assert np.all(prox(x, w, solver, dtype) <= prox(above, w, solver, dtype) + room)


@given(problem=problems())
def test_mean_and_range_are_kept(problem, solver, dtype):
    x, w = (v.astype(dtype) for v in problem)
    y = prox(x, w, solver, dtype).astype(np.float64)
    room = unit(x, dtype)
    mean = x.astype(np.float64).mean(-1, keepdims=True)
    assert np.all(np.abs(y.mean(-1, keepdims=True) - mean) <= room)
    assert np.all(y <= x.max(-1, keepdims=True) + room)
    assert np.all(y >= x.min(-1, keepdims=True) - room)


@given(problem=problems(), other=problems())
def test_nonexpansive(problem, other, solver, dtype):
    x, w = (v.astype(dtype) for v in problem)
    z = np.resize(other[0], x.shape).astype(dtype)
    room = np.sqrt(x.shape[-1]) * (unit(x, dtype) + unit(z, dtype))[:, 0]
    apart = np.linalg.norm(prox(x, w, solver, dtype) - prox(z, w, solver, dtype), axis=-1)
    assert np.all(apart <= np.linalg.norm(x - z, axis=-1) * (1 + 1e-6) + room)


@given(problem=problems())
def test_equal_weights_are_a_scalar(problem, solver, dtype):
    x, w = (v.astype(dtype) for v in problem)
    lam = w[:, :1]
    edges = np.repeat(lam, max(x.shape[-1] - 1, 1), 1)
    y = prox(x, lam, solver, dtype)
    assert np.all(np.abs(prox(x, edges, solver, dtype) - y) <= 2 * unit(x, dtype))


@given(problem=problems())
def test_a_signal_does_not_see_its_batch(problem, solver, dtype):
    """Bit for bit, wherever it stands in the batch; and along a strided axis as along a contiguous
    one.
    """
    x, w = (v.astype(dtype) for v in problem)
    y = prox(x, w, solver, dtype)
    assert np.array_equal(prox(np.roll(x, 1, 0), np.roll(w, 1, 0), solver, dtype), np.roll(y, 1, 0))
    strided = prox(x.T, w.T, solver, dtype, axis=0)
    assert np.all(np.abs(strided.T - y) <= 2 * unit(x, dtype))


@given(problem=problems())
def test_projection_of_the_derivative(problem, solver, dtype):
    """P is a symmetric projection: applying it twice is applying it once, and constants pass."""
    x, w = (v.astype(dtype) for v in problem)
    y = prox(x, w, solver, dtype)

    def project(t):
        return bind("segment_jvp", y, w, t, np.zeros_like(w), axis=1)[0]

    t = np.cos(np.arange(x.size)).reshape(x.shape).astype(dtype)
    once = project(t)
    assert np.allclose(project(once), once, atol=100 * EPS[dtype])
    assert np.allclose(project(np.ones_like(t)), 1, atol=100 * EPS[dtype])
