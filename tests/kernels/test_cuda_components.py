"""Means over connected components by the CUDA kernels, in the emulation, against the CPU's."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtv import _primitive
from testing import emulator
from testing.generators import rng

JOINED, UP, DOWN, CUT = range(4)


def packed(codes, shape, axes):
    """Masks from a code array per axis: 4 axes to a plane."""
    planes = np.zeros((-(-len(axes) // 4), *shape), np.uint8)
    for i, code in enumerate(codes):
        planes[i // 4] |= np.asarray(code, np.uint8) << 2 * (i % 4)
    return np.ascontiguousarray(np.moveaxis(planes, 0, min(axes)))


def codes_of(joined, r):
    """The given edges joined, of the others any code; also after the last sample of a signal."""
    return [np.where(edges, JOINED, r.integers(1, 4, edges.shape)) for edges in joined]


def random_edges(density):
    return lambda shape, axes, r: [r.random(shape) < density for _ in axes]


def spiral(shape, axes, r):
    """A wall that winds inwards: one long component, and that between its turns."""
    inside = np.zeros(shape[:2], bool)
    at, step = [0, 0], [0, 1]
    for _ in range(shape[0] * shape[1]):
        inside[tuple(at)] = True
        ahead = [a + 2 * s for a, s in zip(at, step)]
        beyond = any(not 0 <= a - s < n for a, s, n in zip(ahead, step, shape))
        if beyond or (all(0 <= a < n for a, n in zip(ahead, shape)) and inside[tuple(ahead)]):
            step = [step[1], -step[0]]
        at = [a + s for a, s in zip(at, step)]
        if not all(0 <= a < n for a, n in zip(at, shape)) or inside[tuple(at)]:
            break
    assert np.count_nonzero(inside) > 3 * max(shape)
    return [inside == np.roll(inside, -1, a) for a in axes]


def checkerboard(shape, axes, r):
    """Tiles of 3 × 3 that touch at corners only."""
    cells = np.indices(shape) // 3
    return [np.roll(cells[a], -1, a) == cells[a] for a in axes]


PATTERNS = {
    "mostly cut": random_edges(0.3),
    "half": random_edges(0.5),
    "mostly joined": random_edges(0.8),
    "one component": random_edges(2.0),
    "singletons": random_edges(-1.0),
    "checkerboard": checkerboard,
}
ARRAYS = [  # shape, axes in sweep order
    ((7, 9), (0, 1)),
    ((3, 17, 20), (2, 1)),
    ((2, 6, 5, 3), (2, 1)),
    ((9, 4, 5), (0, 2)),
    ((4, 5, 6), (2, 0, 1)),
    ((2, 2, 3, 2, 3, 2), (1, 2, 3, 4, 5)),
    ((2, 1, 40), (1, 2)),
    ((40, 1), (0, 1)),
    ((1, 1), (0, 1)),
    ((0, 4, 3), (2, 1)),
]


def derivatives(masks, tx, tws, axes):
    """(tangent, cotangents), the latter of tx; jitted."""
    edge = tuple(w.shape[a] != 1 for a, w in zip(axes, tws))

    def both(masks, tx, *tws):
        pushed = _primitive._components_jvp_p.bind(masks, tx, *tws, axes=axes)
        return pushed + _primitive._components_vjp_p.bind(masks, tx, axes=axes, edge=edge)

    return jax.jit(both)(masks, tx, *tws)


def tangents(shape, axes, edge, dtype, r):
    sizes = [
        [d if i != a else max(1, d - 1) if edge else 1 for i, d in enumerate(shape)] for a in axes
    ]
    return r.normal(size=shape).astype(dtype), [r.normal(size=s).astype(dtype) for s in sizes]


def check(simt, joined, shape, axes, edge, dtype):
    r = rng(3)
    masks = packed(codes_of(joined, r), shape, axes)
    tx, tws = tangents(shape, axes, edge, dtype, r)
    expected = derivatives(masks, tx, tws, axes)
    with emulator.using():
        got = derivatives(masks, tx, tws, axes)
    summed = [1, 1] + [1 if edge else max(1, shape[a]) for a in axes]
    for a, b, n in zip(got, expected, summed, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=16 * n * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("shape", "axes"), ARRAYS)
def test_derivatives_are_those_of_the_cpu(simt, shape, axes, pattern, edge, dtype):
    check(simt, PATTERNS[pattern](shape, axes, rng(2)), shape, axes, edge, dtype)


@pytest.mark.parametrize("shape", [(40, 40), (37, 90)])
@pytest.mark.parametrize("pattern", ["spiral", "half", "one component"])
def test_components_of_many_blocks(simt, shape, pattern):
    make = spiral if pattern == "spiral" else PATTERNS[pattern]
    check(simt, make(shape, (0, 1), rng(2)), shape, (0, 1), False, "float64")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_are_float32_rounded(simt, dtype):
    shape, axes, r = (2, 9, 8), (1, 2), rng(4)
    masks = packed(codes_of(PATTERNS["half"](shape, axes, r), r), shape, axes)
    tx, tws = tangents(shape, axes, True, "float32", r)
    half = jnp.asarray(tx, dtype)
    with emulator.using():
        got = derivatives(masks, half, tws, axes)
        want = derivatives(masks, half.astype(jnp.float32), tws, axes)
    assert [a.dtype for a in got] == [dtype, dtype, "float32", "float32"]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b.astype(a.dtype))


def means(simt, v, joined=None):
    """Of 2D values, over one component unless told otherwise."""
    axes = (0, 1)
    joined = joined or [np.ones(v.shape, bool)] * 2
    masks = packed(codes_of(joined, rng(5)), v.shape, axes)
    zeros = [jnp.zeros([1 if i == a else n for i, n in enumerate(v.shape)], v.dtype) for a in axes]
    with emulator.using():
        return np.asarray(_primitive._components_jvp_p.bind(masks, v, *zeros, axes=axes)[0])


@pytest.mark.parametrize("scale", [1.0, 1e300, 2.0**1023, 1e-280])
def test_a_mean_is_right_to_the_last_bit(simt, scale):
    """Also where a sum in double overflows or has lost all its digits."""
    r = rng(6)
    v = r.uniform(-1, 1, (9, 33)) * scale
    for values in (v, v * 10.0 ** r.integers(-12, 1, v.shape), np.full_like(v, v[0, 0])):
        exact = sum(map(fractions.Fraction, values.ravel())) / values.size
        error = abs(fractions.Fraction(means(simt, values)[0, 0]) - exact)
        largest = fractions.Fraction(np.abs(values).max())
        assert error <= abs(exact) / 2**53 + largest / 2**60
    assert np.all(means(simt, np.full_like(v, v[0, 0])) == v[0, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_component(simt, bad):
    v = rng(7).normal(size=(12, 12))
    joined = checkerboard(v.shape, (0, 1), None)
    clean = means(simt, v, joined)
    v[4, 5] = bad
    spoilt = means(simt, v, joined)
    tile = np.zeros(v.shape, bool)
    tile[3:6, 3:6] = True
    assert np.isnan(spoilt[tile]).all()
    assert np.array_equal(spoilt[~tile], clean[~tile])


def test_bits_do_not_depend_on_where_in_the_batch(simt):
    """Other warps, other runs of lanes, another order of the atomics: the same sums."""
    shape, axes, r = (5, 13, 11), (1, 2), rng(8)
    masks = packed(codes_of(PATTERNS["mostly joined"](shape, axes, r), r), shape, axes)
    tx, tws = tangents(shape, axes, False, "float64", r)
    with emulator.using():
        batch = derivatives(masks, tx, tws, axes)
        for b in range(5):
            one = slice(b, b + 1)
            alone = derivatives(masks[one], tx[one], [w[one] for w in tws], axes)
            for together, single in zip(batch, alone, strict=True):
                assert np.array_equal(together[one], single)


def test_an_empty_axis_is_refused(simt):
    """prox_tv does not call the kernels for it."""
    shape, axes = (2, 0, 3), (1, 2)
    masks, g = np.zeros((2, 1, 0, 3), np.uint8), np.zeros(shape)
    with emulator.using(), pytest.raises(Exception, match="axis is empty"):
        _primitive._components_vjp_p.bind(masks, g, axes=axes, edge=(False, False))


@pytest.mark.cpu_only
def test_more_than_2_31_samples():
    """A batch of them is done in parts; one array of them is refused."""
    kernels = emulator.library()
    assert kernels.emulator_huge_components(2**26 + 20, 4, 8) == b""
    refused = kernels.emulator_huge_components(1, 2**16, 2**15)
    assert b"more than 2^31 - 1 samples" in refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes": 100}, "workspace is too small"),
        ({"axes": [0]}, "two axes at least"),
        ({"axes": [0, 2]}, "axis out of range"),
        ({"axes": [1, 1]}, "axes must differ"),
        ({"masks": np.zeros((1, 4, 4), np.uint8)}, "wrong shape of edge codes"),
        ({"masks": np.zeros((1, 4, 5), np.int32)}, "edge codes must be uint8"),
        ({"tws": 1}, "one weight operand per axis"),
        ({"dtype": np.int32}, "dtype must be"),
    ],
)
def test_wrong_calls_are_errors(simt, change, message):
    x = np.zeros((4, 5), change.get("dtype", np.float32))
    tws = [np.zeros((1, 5), np.float32), np.zeros((4, 1), np.float32)][: change.get("tws", 2)]
    results = [
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        jax.ShapeDtypeStruct((change.get("bytes", 10**4),), jnp.uint8),
    ]
    call = jax.ffi.ffi_call(simt["jaxtv_components_jvp"], results)
    masks, axes = change.get("masks", np.zeros((1, 4, 5), np.uint8)), change.get("axes", [0, 1])
    with pytest.raises(Exception, match=message):
        jax.block_until_ready(call(masks, x, *tws, axes=np.asarray(axes, np.int64)))
