"""Long signals on the CPU: windows of one signal, joined at cuts, give the bits of the serial
solver.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from jaxtv import _native
from testing.generators import DTYPES, rng

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="a kernel of the CPU")

N = 20_011  # 19 windows and a rest


def _signals():
    r, k = rng(3), np.arange(N)
    jumps = r.normal(size=N) * (r.random(N) < 1 / 8)
    noise = r.normal(size=N)
    return {
        "walk": np.cumsum(noise),
        "steps": np.cumsum(jumps) + 0.3 * noise,
        "noise": noise,
        "integers": r.integers(0, 4, N).astype(float),
        "integer walk": np.cumsum(r.integers(-1, 2, N)).astype(float),
        "saw": k % 7.0,
        "long saw": k % 3000 / 10,
        "ramp": k / 100,
        "sine": np.sin(2e-3 * k),
        "noisy sine": np.sin(2e-3 * k) + 0.3 * noise,
        "constant": np.full(N, 3.7),
        "step at a seam": (k >= 2048) + 0.0,
        "loud then quiet": noise * np.where(k < N // 2, 1e6, 1e-6),
        "quiet then loud": noise * np.where(k < N - 100, 1e-6, 1e6),
        "tiny beside huge": np.where(k == 9000, 1e14, noise),
        "huge at the end": np.where(k == N - 1, 1e14, np.round(noise, 2)),
        "powers of two": noise * 2.0 ** (k % 41 - 20),
        "rising powers of two": noise * 2.0 ** (k / 400 - 25),
        "offset": 1e4 + noise,
        "large offset": 1e6 + r.integers(0, 4, N),
    }


SIGNALS = _signals()


def _same(x, lam, **options):
    """Both solutions, bit for bit: -0 is not 0."""
    lam = jnp.asarray(lam, x.dtype)
    long = np.asarray(jaxtv.prox_tv1d(x, lam, **options))
    serial = np.asarray(jaxtv.prox_tv1d(x, lam, solver=jaxtv.Direct("taut_string"), **options))
    bits = f"u{x.dtype.itemsize}"
    different = np.flatnonzero(long.view(bits) != serial.view(bits))
    nan = np.isnan(long.ravel()[different]) & np.isnan(serial.ravel()[different])
    assert nan.all(), (different[~nan][:5], (~nan).sum())
    return long


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SIGNALS)
def test_same_bits(name, dtype):
    x = jnp.asarray(SIGNALS[name], dtype)
    for lam in (0, 1e-3, 0.3, 1, 20, 1e3, 1e9, np.inf):
        _same(x, lam)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [4096, 4097, 5119, 5120, 8191])
def test_lengths(n, dtype):
    for name in ("walk", "steps", "integers"):
        for lam in (0.3, 20):
            _same(jnp.asarray(SIGNALS[name][:n], dtype), lam)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, N), 1), ((N, 5), 0), ((2, N, 3), 1), ((9, 32768), 1)]
)
def test_batches_and_edge_weights(shape, axis, dtype):
    r = rng(5)
    noise = r.normal(size=shape)
    edges = tuple(s - (a == axis) for a, s in enumerate(shape))
    weights = r.exponential(2, edges)
    integers = r.integers(0, 4, shape)
    holes = weights * (r.random(edges) < 0.9)
    for name, x in {"noise": noise, "walk": noise.cumsum(axis), "ties": integers}.items():
        x = jnp.asarray(x, dtype)
        _same(x, 5.0, axis=axis)
        _same(x, weights, axis=axis)
        if name != "ties":  # equal values on both sides of a weight 0 may share a segment or not
            _same(x, holes, axis=axis)
        _same(x, r.exponential(10, [1 if a == axis else s for a, s in enumerate(shape)]), axis=axis)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [100_000, 1_000_003])
def test_strings(n, dtype):
    """λ for which the strings of many windows couple, run on over windows, or give up."""
    r, k = rng(6), np.arange(n)
    noise = r.normal(size=n)
    signals = {
        "noise": noise,
        "walk": np.cumsum(noise),
        "integers": r.integers(0, 4, n).astype(float),
        "rare jumps": np.cumsum(noise * (r.random(n) < 1e-4)) + 0.1 * noise,
        "steep at the end": 0.1 * noise + np.maximum(0, k - 0.8 * n),
    }
    for x in signals.values():
        for lam in (3, 20, 80):
            _same(jnp.asarray(x, dtype), lam)


def _paths(x, lam, **options):
    """How many of the signals were solved by coupled strings, and how many by windows."""
    before = _native._cpu.long_signals()
    _same(jnp.asarray(x), lam, **options)
    return tuple(np.subtract(_native._cpu.long_signals(), before))


def test_paths():
    """Strings where they are the faster, windows for all else; short signals by neither."""
    noise = rng(6).normal(size=100_000).astype(np.float32)
    strings, windows = (1, 0), (0, 1)
    assert _paths(noise, 10.0) == strings
    assert _paths(noise, 80.0) == strings
    assert _paths(noise, 2.0) == windows  # short segments
    assert _paths(noise, 1e4) == windows  # a segment longer than the signal
    assert _paths(np.arange(noise.size, dtype=np.float32), 10.0) == windows  # smooth
    assert _paths(np.stack([noise, noise]), 10.0) == (2, 0)
    assert _paths(noise.reshape(-1, 2), 10.0, axis=0) == (0, 2)  # not side by side
    assert _paths(noise, np.full(noise.size - 1, 3, np.float32)) == windows  # a weight per edge
    poisoned = noise.copy()
    poisoned[5] = np.nan
    assert _paths(poisoned, 3.0) == windows
    assert _paths(noise[:2000], 3.0) == (0, 0)


def test_strings_that_give_up():
    """A sample of its edges says strings, but the signal is a ramp wherever it does not look."""
    n = 100_000
    x = np.arange(n, dtype=np.float32)
    for i in range(64):
        begin = i * (n - 32) // 64
        x[begin : begin + 33] = x[begin] + 5 * (np.arange(33) % 2)
    assert _paths(x, 100.0) == (0, 1)


DIGEST = """
import hashlib
import numpy as np
import jaxtv
from jaxtv import _native
x = np.random.default_rng(6).normal(size=200_000)
for dtype in ("float32", "float64"):
    for lam in (10, 30):
        y = np.asarray(jaxtv.prox_tv1d(x.astype(dtype), lam))
        print(hashlib.sha256(y.tobytes()).hexdigest())
assert _native._cpu.long_signals()[0] == 4
print(_native._cpu.isa())
"""


def test_strings_have_the_same_bits_anywhere():
    """With any number of threads, which find other cuts first, and any instruction set."""
    cores = sorted(os.sched_getaffinity(0))
    found = []
    for isa in ("baseline", "avx2", "avx512"):
        for count in {1, len(cores)}:
            command = ["taskset", "-c", ",".join(map(str, cores[:count])), sys.executable]
            environment = os.environ | {"JAXTV_ISA": isa, "JAX_ENABLE_X64": "1"}
            out = subprocess.run(
                [*command, "-c", DIGEST], env=environment, check=True, stdout=subprocess.PIPE
            )
            found.append(out.stdout.split())
    assert all(digests[:-1] == found[0][:-1] for digests in found)
    assert found[0][-1] == b"baseline"
    assert len(found[0]) == 5


@pytest.mark.parametrize("place", [0, 1023, 1024, 5000, N - 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_sample(value, place):
    x = np.stack([SIGNALS["walk"], SIGNALS["noise"]], 1).astype(np.float32)
    clean = _same(jnp.asarray(x), 2.0, axis=0)
    x[place, 1] = value
    y = _same(jnp.asarray(x), 2.0, axis=0)
    assert np.isnan(y[:, 1]).all()
    np.testing.assert_array_equal(y[:, 0], clean[:, 0])


@pytest.mark.parametrize("place", [0, 1023, 1024, 5000, N - 2])
@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_bad_edge_weight(value, place):
    x = jnp.asarray(np.stack([SIGNALS["walk"], SIGNALS["noise"]]), np.float32)
    w = np.full((2, N - 1), 2, np.float32)
    clean = _same(x, w)
    w[1, place] = value
    y = np.asarray(jax.jit(jaxtv.prox_tv1d)(x, w))
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[0], clean[0])


def test_info():
    x = jnp.asarray(np.stack([SIGNALS["walk"], SIGNALS["noise"]]), np.float32)
    y, info = jaxtv.prox_tv1d(x, 3.0, return_info=True)
    z, expected = jaxtv.prox_tv1d(x, 3.0, solver=jaxtv.Direct("taut_string"), return_info=True)
    np.testing.assert_array_equal(y, z)
    jax.tree.map(np.testing.assert_array_equal, info, expected)


@pytest.mark.parametrize("shape", [(5000, 3), (2, 6000), (4200, 6)])
def test_dykstra(shape):
    """Sweeps that keep residuals, and for the derivative the mask of the jumps."""
    x = jnp.asarray(np.cumsum(rng(9).normal(size=shape), 0), np.float32)

    def loss(x, inner):
        return jnp.sum(jnp.sin(jaxtv.prox_tv2d(x, 0.7, solver=jaxtv.Dykstra(4, inner=inner))))

    pair = [
        jax.value_and_grad(loss)(x, inner)
        for inner in (jaxtv.Direct(), jaxtv.Direct("taut_string"))
    ]
    solutions = [
        jaxtv.prox_tv2d(x, 0.7, solver=jaxtv.Dykstra(4, inner=inner))
        for inner in (jaxtv.Direct(), jaxtv.Direct("taut_string"))
    ]
    np.testing.assert_array_equal(*solutions)
    np.testing.assert_array_equal(pair[0][1], pair[1][1])


@pytest.mark.parametrize("lam", [np.nan, -1.0])
def test_bad_lam_of_one_signal(lam):
    x = jnp.asarray(np.stack([SIGNALS["walk"], SIGNALS["noise"]]), np.float32)
    y = np.asarray(jax.jit(jaxtv.prox_tv1d)(x, jnp.asarray([[3.0], [lam]], np.float32)))
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[0], _same(x, 3.0)[0])
