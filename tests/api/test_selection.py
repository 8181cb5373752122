"""degrees_of_freedom, sure, select_lam: the Jacobian's trace, means over noise, brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.csgraph
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxtv
from testing import oracles
from testing.generators import HALF, rng

TIGHT = jaxtv.AcceleratedDykstra(tol=1e-12)
select = jax.jit(jaxtv.select_lam, static_argnames=("axes", "criterion"))


def noisy(batch=5, n=60, seed=0):
    """(x, clean, σ) with a noise level for each row."""
    r = rng(seed)
    clean = np.repeat(r.normal(size=(batch, n // 10)), 10, axis=1)
    sigma = np.geomspace(0.1, 1, batch)[:, None]
    return clean + sigma * r.normal(size=clean.shape), clean, sigma


@pytest.mark.parametrize("lam", ["one", "with zeros"])
def test_degrees_of_freedom_are_the_trace_of_the_jacobian(lam):
    x = jnp.asarray(rng(1).normal(size=12)).at[7].set(0.0).at[8].set(0.0)
    lam = 0.4 if lam == "one" else jnp.asarray([0.4, 0, 0.4, 0.4, 0, 0.4, 0.4, 0, 0.4, 0.4, 0.4])
    prox = lambda x: jaxtv.prox_tv1d(x, lam)
    df = jaxtv.degrees_of_freedom(prox(x), lam, axes=0)
    assert df.dtype == jnp.int32
    np.testing.assert_allclose(df, np.trace(jax.jacobian(prox)(x)), rtol=1e-12)


def number_of_components(y):
    """By SciPy, of a NumPy array."""
    grid = np.arange(y.size).reshape(y.shape)
    ends = [
        (np.delete(grid, 0, a)[same], np.delete(grid, -1, a)[same])
        for a in range(y.ndim)
        for same in [np.diff(y, axis=a) == 0]
    ]
    i, j = (np.concatenate(e) for e in zip(*ends))
    graph = scipy.sparse.coo_matrix((np.ones(len(i)), (i, j)), (y.size, y.size))
    return scipy.sparse.csgraph.connected_components(graph)[0]


@pytest.mark.parametrize("shape", [(6, 7), (3, 4, 3)], ids=str)
def test_degrees_of_freedom_of_more_axes(shape):
    """Two arrays in one batch."""
    axes = tuple(range(len(shape)))
    y = np.round(rng(2).normal(size=(*shape, 2)) * [1.0, 0.4])
    df = jax.jit(lambda y, lam: jaxtv.degrees_of_freedom(y, lam, axes=axes))
    assert df(y, 0.1).tolist() == [number_of_components(y[..., i]) for i in (0, 1)]
    assert df(y, 0.0).tolist() == [y[..., 0].size] * 2


def test_the_mean_of_sure_is_that_of_the_error():
    """4,000 draws of the noise: within four standard errors, and not by chance."""
    clean = np.repeat([0.0, 2.0, 1.0], 8)
    sigma = 0.5
    x = jnp.asarray(clean + sigma * rng(3).normal(size=(4000, 24)))
    y = jaxtv.prox_tv1d(x, 0.6)
    estimate = np.asarray(jaxtv.sure(x, y, sigma, 0.6, axes=1))
    error = np.sum((np.asarray(y) - clean) ** 2, 1)
    difference = estimate - error
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(4000)
    assert 4 * difference.std() / np.sqrt(4000) < 0.1 * error.mean()


def risks(x, sigma, lam):
    """SURE of each row by the oracle."""
    s = oracles.prox1d(x, np.full((len(x), 1), lam))
    df = 1 + (s.sign != 0).sum(1)
    return ((s.y - x) ** 2).sum(1) - x.shape[1] * sigma[:, 0] ** 2 + 2 * sigma[:, 0] ** 2 * df


def test_sure_of_candidates_by_brute_force():
    x, _, sigma = noisy()
    lams = np.geomspace(0.01, 10, 12)
    table = np.stack([risks(x, sigma, lam) for lam in lams])
    lam = select(x, sigma, axes=1, lams=lams)
    assert lam.shape == (5, 1)
    np.testing.assert_array_equal(lam[:, 0], lams[table.argmin(0)])
    y = jaxtv.prox_tv1d(x, lam)
    np.testing.assert_allclose(jaxtv.sure(x, y, sigma, lam, axes=1), table.min(0), atol=1e-10)


def test_sure_without_candidates_is_as_good_as_a_fine_grid():
    x, clean, sigma = noisy()
    table = np.stack([risks(x, sigma, lam) for lam in np.geomspace(0.01, 30, 120)])
    lam = np.asarray(select(x, sigma, axes=1))
    chosen = np.diag([risks(x, sigma, v) for v in lam[:, 0]])
    assert np.all(chosen <= table.min(0) + 0.02 * 60 * sigma[:, 0] ** 2)
    before, after = (((v - clean) ** 2).sum(1) for v in (x, jaxtv.prox_tv1d(x, lam)))
    assert np.all(after < 0.6 * before)


def test_discrepancy():
    """‖y - x‖² = Nσ², its candidates, and its derivative."""
    x, _, sigma = noisy()
    f = lambda x, sigma: select(x, sigma, axes=1, criterion="discrepancy")
    lam = f(x, sigma)
    y = np.asarray(jaxtv.prox_tv1d(x, lam))
    np.testing.assert_allclose(np.mean((y - x) ** 2, 1, keepdims=True), sigma**2, rtol=1e-10)
    np.testing.assert_allclose(y, jaxtv.denoise_discrepancy(x, sigma, axes=1), atol=1e-12)
    lams = np.asarray([0.5, 0.2, 50.0, 2.0])
    chosen = np.asarray(select(x, sigma, axes=1, criterion="discrepancy", lams=lams))
    allowed = np.where(lams <= np.asarray(lam), lams, 0).max(1, keepdims=True)
    np.testing.assert_array_equal(chosen, np.where(allowed > 0, allowed, 0.2))
    direction = rng(5).normal(size=x.shape), rng(6).normal(size=sigma.shape) * sigma
    arrays = [tuple(map(jnp.asarray, v)) for v in ((x, sigma), direction)]
    _, slope = jax.jit(lambda p, t: jax.jvp(f, p, t))(*arrays)
    difference = oracles.directional(f, (x, sigma), direction, 1e-7)
    np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("criterion", ["sure", "discrepancy"])
def test_images_and_an_estimated_noise_level(criterion):
    """Two images of one batch, each with a σ of its own, which is estimated."""
    r = rng(7)
    clean = np.where(np.add.outer(np.arange(24), np.arange(20)) > 20, 1.0, 0.0)[..., None]
    sigma = np.asarray([0.1, 0.3])
    x = jnp.asarray(clean + sigma * r.normal(size=(24, 20, 2)), jnp.float32)
    lam = select(x, axes=(0, 1), criterion=criterion)
    assert lam.shape == (1, 1, 2)
    assert lam.dtype == jnp.float32
    y = np.asarray(jaxtv.prox_tv(x, lam, axes=(0, 1), solver=TIGHT))
    error = np.mean((y - clean) ** 2, (0, 1))
    assert np.all(error < (0.2 if criterion == "sure" else 0.5) * sigma**2)
    if criterion == "discrepancy":
        estimated = np.sqrt(np.mean((y - x) ** 2, (0, 1)))
        np.testing.assert_allclose(estimated, sigma, rtol=0.1)


def test_vmap_sharding_and_other_dtypes():
    x = jnp.asarray(noisy(8)[0])
    want = select(x, 0.3, axes=1)
    one = functools.partial(jaxtv.select_lam, sigma=0.3, axes=0)
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(x), want, rtol=1e-12)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(x, NamedSharding(mesh, P("data")))
    np.testing.assert_allclose(select(sharded, 0.3, axes=1), want, rtol=1e-12)
    assert "all-gather" not in select.lower(sharded, 0.3, axes=1).compile().as_text()
    for dtype in HALF:
        assert select(x.astype(dtype), 0.3, axes=1).dtype == jnp.float32


def test_degenerate_inputs():
    """A constant, one sample, nothing, and values that are not numbers."""
    for criterion in ("sure", "discrepancy"):
        f = functools.partial(select, axes=1, criterion=criterion)
        assert not np.any(f(jnp.ones((2, 5))))
        assert f(jnp.ones((2, 1))).shape == (2, 1)
        assert f(jnp.ones((0, 4))).shape == (0, 1)
        x = jnp.asarray(noisy()[0]).at[1, 3].set(jnp.nan)
        sigma = jnp.asarray([[0.1], [0.1], [-1.0], [0.1], [0.1]])
        lam = f(x, sigma)
        assert np.isnan(lam[:, 0]).tolist() == [False, False, True, False, False]
        lam = lam.at[2].set(0.1)  # a NaN that is known would be an error
        assert np.isnan(jaxtv.prox_tv1d(x, lam)).all(1).tolist() == [False, True, *[False] * 3]
    assert np.isfinite(f(x)).all()  # with an estimated noise level too


X = np.zeros((4, 6), np.float32)
WRONG = {
    "no noise": ({"sigma": 0.0}, ValueError, r"`sigma` must be > 0.*0\.0"),
    "noise per sample": ({"sigma": X + 1}, ValueError, r"`sigma`.*\(4, 6\).*axis 1"),
    "criterion": ({"criterion": "gcv"}, ValueError, "`criterion`.*sure.*discrepancy.*gcv"),
    "lams negative": ({"lams": np.float32([1, -2])}, ValueError, "`lams`.*-2"),
    "lams of two dimensions": ({"lams": X}, ValueError, r"`lams` must be a 1D array.*\(4, 6\)"),
    "no lams": ({"lams": X[0, :0]}, ValueError, "`lams`.*not empty"),
    "integers": ({"x": X.astype(int)}, TypeError, "`x`.*int64"),
    "axes": ({"axes": 2}, ValueError, "`axes` 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    options, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        jaxtv.select_lam(**{"x": X, "axes": 1} | options)


def test_wrong_arguments_of_sure():
    with pytest.raises(ValueError, match=r"`sigma` must be > 0 and not NaN, got -1\.0"):
        jaxtv.sure(X, X, -1.0, 0.1, axes=1)
    with pytest.raises(ValueError, match="`y`"):
        jaxtv.sure(X, X[0], 1.0, 0.1, axes=1)
    with pytest.raises(ValueError, match="`lam`"):
        jaxtv.degrees_of_freedom(X, -0.1, axes=1)
    assert np.isnan(jax.jit(lambda s: jaxtv.sure(X, X, s, 0.1, axes=1))(-1.0)).all()
