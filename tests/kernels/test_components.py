"""Means over connected components on NumPy arrays: against the definition, and CUDA's against the CPU's."""

import fractions

import numpy as np
import pytest

from testing import emulator
from testing.callframe import HandlerError, bind, call
from testing.generators import ARRAYS, HALF, MATRIX_DTYPES, rng, weight_shape

PLATFORMS = ["cpu", "cuda"]
INSIDE, JUMP_UP, JUMP_DOWN, SEPARATE = range(4)
IMAGES = {name: arrays for name, arrays in ARRAYS.items() if len(arrays.axes) > 1}


def packed(codes, shape, axes):
    """Edge codes from a code array per axis: 4 axes to a plane."""
    planes = np.zeros((-(-len(axes) // 4), *shape), np.uint8)
    for i, code in enumerate(codes):
        planes[i // 4] |= np.asarray(code, np.uint8) << 2 * (i % 4)
    return np.ascontiguousarray(np.moveaxis(planes, 0, min(axes)))


def codes_of(joined, r):
    """The given edges are inside; of the others any code, also after the last sample of a signal."""
    return [np.where(edges, INSIDE, r.integers(1, 4, edges.shape)) for edges in joined]


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
    "mostly separate": random_edges(0.3),
    "half": random_edges(0.5),
    "mostly joined": random_edges(0.8),
    "one component": random_edges(2.0),
    "singletons": random_edges(-1.0),
    "checkerboard": checkerboard,
}


def tangents(shape, axes, per_edge, dtype, r):
    tx = r.normal(size=shape).astype(dtype)
    return tx, [r.normal(size=weight_shape(shape, a, per_edge)).astype(dtype) for a in axes]


def derivatives(codes, tx, tws, axes, platform="cuda"):
    """The JVP of (tx, tws), and the VJP of tx as a cotangent, in x and in the weights."""
    edge = tuple(w.shape[a] != 1 for a, w in zip(axes, tws, strict=True))
    jvp = bind("components_jvp", codes, tx, *tws, axes=axes, platform=platform)
    return jvp + bind("components_vjp", codes, tx, axes=axes, edge=edge, platform=platform)


def check(joined, shape, axes, per_edge, dtype):
    r = rng(3)
    codes = packed(codes_of(joined, r), shape, axes)
    tx, tws = tangents(shape, axes, per_edge, dtype, r)
    expected, got = (derivatives(codes, tx, tws, axes, platform) for platform in PLATFORMS)
    summed = [1 if per_edge else max(1, shape[a]) for a in axes]
    for a, b, n in zip(got, expected, [1, 1, *summed], strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=16 * n * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", MATRIX_DTYPES)
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("arrays", IMAGES)
def test_cuda_averages_as_the_cpu_does(arrays, pattern, per_edge, dtype):
    shape, axes = IMAGES[arrays]
    check(PATTERNS[pattern](shape, axes, rng(2)), shape, axes, per_edge, dtype)


@pytest.mark.parametrize("shape", [(40, 40), (37, 90)])
@pytest.mark.parametrize("pattern", ["spiral", "half", "one component"])
def test_components_of_many_blocks(pattern, shape):
    make = spiral if pattern == "spiral" else PATTERNS[pattern]
    check(make(shape, (0, 1), rng(2)), shape, (0, 1), False, "float64")


@pytest.mark.cpu_only
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.unsanitized)])
def test_labels_do_not_depend_on_which_thread_is_first(threads):
    """Lanes take turns at random where they use labels, also of blocks on two CPU threads.

    In a row that is one component, threads walk over labels whose owners have stored their root.
    """
    joined = [np.full((48, 48), a == 1) for a in (0, 1)]
    for seed in (1, 2, 3):
        with emulator.random_turns(seed, threads):
            check(joined, (48, 48), (0, 1), False, "float64")


@pytest.mark.unsanitized
@pytest.mark.parametrize("dtype", HALF)
def test_half_types_are_the_float32_result_rounded(dtype):
    shape, axes, r = (2, 9, 8), (1, 2), rng(4)
    codes = packed(codes_of(PATTERNS["half"](shape, axes, r), r), shape, axes)
    tx, tws = tangents(shape, axes, True, "float32", r)
    half = tx.astype(dtype)
    got, want = (derivatives(codes, v, tws, axes) for v in (half, np.float32(half)))
    assert [a.dtype for a in got] == [dtype, dtype, "float32", "float32"]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b.astype(a.dtype))


def means(v, platform, joined=None):
    """Of 2D values, over one component unless told otherwise."""
    axes = (0, 1)
    joined = joined or [np.ones(v.shape, bool)] * 2
    codes = packed(codes_of(joined, rng(5)), v.shape, axes)
    zeros = [np.zeros(weight_shape(v.shape, a, False), v.dtype) for a in axes]
    return bind("components_jvp", codes, v, *zeros, axes=axes, platform=platform)[0]


@pytest.mark.unsanitized
@pytest.mark.parametrize("scale", [1.0, 1e300, 2.0**1023, 1e-280])
def test_a_mean_is_right_to_the_last_bit(scale):
    """Also where a sum in double overflows or has lost all its digits."""
    r = rng(6)
    v = r.uniform(-1, 1, (9, 33)) * scale
    for values in (v, v * 10.0 ** r.integers(-12, 1, v.shape), np.full_like(v, v[0, 0])):
        exact = sum(map(fractions.Fraction, values.ravel())) / values.size
        error = abs(fractions.Fraction(means(values, "cuda")[0, 0]) - exact)
        largest = fractions.Fraction(np.abs(values).max())
        assert error <= abs(exact) / 2**53 + largest / 2**60
    assert np.all(means(np.full_like(v, v[0, 0]), "cuda") == v[0, 0])


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_component(bad, platform):
    v = rng(7).normal(size=(12, 12))
    joined = checkerboard(v.shape, (0, 1), None)
    clean = means(v, platform, joined)
    v[4, 5] = bad
    poisoned = means(v, platform, joined)
    tile = np.zeros(v.shape, bool)
    tile[3:6, 3:6] = True
    assert not np.isfinite(poisoned[tile]).any()
    assert np.array_equal(poisoned[~tile], clean[~tile])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_bits_do_not_depend_on_where_in_the_batch(platform):
    """Other warps, other lanes, another order of the atomics: the same sums."""
    shape, axes, r = (5, 13, 11), (1, 2), rng(8)
    codes = packed(codes_of(PATTERNS["mostly joined"](shape, axes, r), r), shape, axes)
    tx, tws = tangents(shape, axes, False, "float64", r)
    batch = derivatives(codes, tx, tws, axes, platform)
    for b in range(5):
        one = slice(b, b + 1)
        alone = derivatives(codes[one], tx[one], [w[one] for w in tws], axes, platform)
        for together, single in zip(batch, alone, strict=True):
            assert np.array_equal(together[one], single)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_empty_axis_is_refused(platform):
    """prox_tv does not call the kernels for it."""
    codes, g = np.zeros((2, 1, 0, 3), np.uint8), np.zeros((2, 0, 3))
    with pytest.raises(Exception, match="axis is empty"):
        bind("components_vjp", codes, g, axes=(1, 2), edge=(False, False), platform=platform)


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes": 100}, "scratch is too small"),
        ({"axes": [0]}, "two axes at least"),
        ({"axes": [0, 2]}, "axis out of range"),
        ({"axes": [1, 1]}, "axes must differ"),
        ({"codes": np.zeros((1, 4, 4), np.uint8)}, "wrong shape of edge codes"),
        ({"codes": np.zeros((1, 4, 5), np.int32)}, "edge codes must be uint8"),
        ({"tws": 1}, "one weight operand per axis"),
        ({"dtype": np.int32}, "dtype must be"),
    ],
)
def test_wrong_calls_are_errors(change, message):
    x = np.zeros((4, 5), change.get("dtype", np.float32))
    tws = [np.zeros((1, 5), np.float32), np.zeros((4, 1), np.float32)][: change.get("tws", 2)]
    results = [(x.shape, x.dtype), ((change.get("bytes", 10**4),), np.uint8)]
    codes = change.get("codes", np.zeros((1, 4, 5), np.uint8))
    axes = {"axes": np.asarray(change.get("axes", [0, 1]), np.int64)}
    with pytest.raises(HandlerError, match=message):
        call("jaxtv_components_jvp", [codes, x, *tws], results, axes, "cuda")
