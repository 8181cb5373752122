"""What is timed. `build(x, lam, axes, **options)` gives a function of no arguments that solves the
problem once and returns when it is done.

Each one imports its package itself, so that a worker in another environment can use this file too.
Peers get x float32 with its one prox axis last and contiguous, or one image.
"""

from __future__ import annotations

import numpy as np

# ---------------------------------------------------------------------------- jaxtv


def _jaxtv(axes, solver=None, sweeps=4, tol=None):
    import jaxtv

    solver = getattr(jaxtv, solver)() if solver else jaxtv.Direct()
    if tol is not None:
        solver = jaxtv.AcceleratedDykstra(tol=tol)
    elif len(axes) > 1:
        solver = jaxtv.Dykstra(iterations=sweeps, inner=solver)
    return lambda x, lam: jaxtv.prox_tv(x, lam, axes=axes, solver=solver)


def jaxtv_forward(x, lam, axes, **options):
    import jax

    prox = _jaxtv(axes, **options)
    x = jax.numpy.asarray(x)
    forward = jax.jit(lambda x: prox(x, lam))
    return lambda: forward(x).block_until_ready()


def jaxtv_backward(x, lam, axes, **options):
    """The pullback to x and λ alone: what it keeps of the forward pass is made before."""
    import jax

    prox = _jaxtv(axes, **options)
    x = jax.numpy.asarray(x)
    pullback = jax.jit(jax.vjp(prox, x, jax.numpy.asarray(lam, x.dtype))[1])
    g = jax.numpy.ones_like(x)
    return lambda: jax.block_until_ready(pullback(g))[0]


def jaxtv_total(x, lam, axes, **options):
    """The prox and its VJP in x and λ at a cotangent of ones, in one jitted function."""
    import jax

    prox = _jaxtv(axes, **options)
    x = jax.numpy.asarray(x)
    lam, g = jax.numpy.asarray(lam, x.dtype), jax.numpy.ones_like(x)

    @jax.jit
    def both(x, lam, g):
        y, pullback = jax.vjp(prox, x, lam)
        return pullback(g), y

    return lambda: jax.block_until_ready(both(x, lam, g))[0][0]


def copy(x, lam, axes):
    """x + 1 through JAX: the memory floor, with the same buffers read and written."""
    import jax

    x = jax.numpy.asarray(x)
    add = jax.jit(lambda x: x + 1)
    return lambda: add(x).block_until_ready()


# ---------------------------------------------------------------------------- peers, 1D


def c_loop(x, lam, axes, threads=1):
    from benchmarks import scalar

    out = np.empty_like(x)
    return lambda: scalar.solve("loop_f32", x, lam, out, min(threads, len(x)))


def _each_row(x, solve):
    rows = list(x.astype(np.float64))
    return lambda: np.stack([solve(row) for row in rows])


def prox_tv_rows(x, lam, axes, method):
    from benchmarks.environments import prox_tv

    module = prox_tv()
    return _each_row(x, lambda row: module.tv1_1d(row, lam, method=method))


def skimage_chambolle_rows(x, lam, axes, iterations=200):
    from skimage.restoration import denoise_tv_chambolle

    return _each_row(
        x, lambda row: denoise_tv_chambolle(row, weight=lam, max_num_iter=iterations, eps=2e-4)
    )


def pyproximal_rows(x, lam, axes, iterations=100):
    import pyproximal

    prox = pyproximal.TV(dims=x.shape[-1:], sigma=1.0, niter=iterations, rtol=1e-6)
    return _each_row(x, lambda row: prox.prox(row, lam))


def _cvxpylayer(x, lam):
    """A layer for one row of x (through DIFFCP) and its arguments for all of them."""
    import cvxpy
    import jax
    from cvxpylayers.jax import CvxpyLayer

    jax.config.update("jax_enable_x64", True)
    y, data = cvxpy.Variable(x.shape[1:]), cvxpy.Parameter(x.shape[1:])
    weight = cvxpy.Parameter(1, nonneg=True)
    jumps = [cvxpy.diff(y, axis=axis) for axis in range(y.ndim)]
    variation = sum(cvxpy.norm1(cvxpy.vec(jump, order="C")) for jump in jumps)
    objective = cvxpy.Minimize(cvxpy.sum_squares(y - data) / 2 + weight * variation)
    layer = CvxpyLayer(cvxpy.Problem(objective), parameters=[data, weight], variables=[y])
    arguments = (jax.numpy.asarray(x, "float64"), jax.numpy.full((len(x), 1), float(lam)))
    return layer, arguments


def cvxpylayers_forward(x, lam, axes):
    single = len(axes) == 2
    layer, arguments = _cvxpylayer(x[None] if single else x, lam)
    return lambda: np.asarray(layer(*arguments)[0])[0 if single else slice(None)]


def cvxpylayers_backward(x, lam, axes):
    import jax

    layer, arguments = _cvxpylayer(x, lam)
    (y,), pullback = jax.vjp(layer, *arguments)
    g = jax.numpy.ones_like(y)
    return lambda: jax.block_until_ready(pullback((g,)))[0]


def scico_prox(x, lam, axes):
    import jax
    from scico.functional import AnisotropicTVNorm

    norm = AnisotropicTVNorm(axes=axes, input_shape=x.shape)
    x = jax.numpy.asarray(x)
    prox = jax.jit(lambda x: norm.prox(x, lam))
    return lambda: prox(x).block_until_ready()


def fastprox_forward(x, lam, axes):
    """All threads; the result goes into an array that is there before the clock runs."""
    import fastprox

    out = np.empty_like(x)
    return lambda: fastprox.tv1d(x, lam, out=out)


def fastprox_total(x, lam, axes):
    """The prox and its VJP in x and λ at a cotangent of ones."""
    import fastprox

    prox, y, gx, g = fastprox.TV1D(), np.empty_like(x), np.empty_like(x), np.ones_like(x)

    def call():
        _, context = prox.prox(x, lam, keep=True, out=y)
        prox.vjp(context, g, out=gx)
        return gx

    return call


# ---------------------------------------------------------------------------- peers, 2D


def fastprox_image(x, lam, axes, tol):
    import fastprox

    return lambda: fastprox.tv_aniso(x, lam, tol=tol, max_iter=10_000)[0]


def fastprox_graph(x, lam, axes, diagonals=False, tol=0.0):
    """An image over its grid by maximal flows, in float64; exact with `tol` 0."""
    import fastprox

    from benchmarks.problems import grid

    prox, nodes = fastprox.GraphTV(x.size, *grid(x.shape, diagonals)), x.astype(np.float64).ravel()
    return lambda: prox.solve(nodes, lam, tol=tol)[0].reshape(x.shape)


def deepinv_tv(x, lam, axes, **options):
    """TVDenoiser on the CPU, by default with its stop. x is an image, or rows of images."""
    import torch
    from deepinv.models import TVDenoiser

    denoiser, images = TVDenoiser(**options), torch.from_numpy(x)
    images = images[None, None] if len(axes) == 2 else images[:, None, None]

    def call():
        denoiser.restart = True
        with torch.no_grad():
            return denoiser(images, lam).numpy().reshape(x.shape)

    return call


def prox_tv_image(x, lam, axes, method, iterations, threads):
    from benchmarks.environments import prox_tv

    module, image = prox_tv(), x.astype(np.float64)
    options = {"method": method, "max_iters": iterations, "n_threads": threads}
    return lambda: module.tv1_2d(image, lam, **options)


def skimage_chambolle(x, lam, axes, iterations=200, eps=2e-4, dtype="float64"):
    from skimage.restoration import denoise_tv_chambolle

    image = x.astype(dtype)
    return lambda: denoise_tv_chambolle(image, weight=lam, max_num_iter=iterations, eps=eps)


def skimage_bregman(x, lam, axes, iterations=100):
    from skimage.restoration import denoise_tv_bregman

    image, options = x.astype(np.float64), {"max_num_iter": iterations, "isotropic": False}
    return lambda: denoise_tv_bregman(image, weight=1 / lam, **options)


def pyproximal_image(x, lam, axes, iterations=100):
    import pyproximal

    prox = pyproximal.TV(dims=x.shape, sigma=1.0, niter=iterations, rtol=1e-6)
    image = x.astype(np.float64).ravel()
    return lambda: prox.prox(image, lam).reshape(x.shape)


# ---------------------------------------------------------------------------- other problems


def jaxtv_isotropic(x, lam, axes, tol):
    import jax

    import jaxtv

    solver, x = jaxtv.FGP(tol, max_iterations=20_000), jax.numpy.asarray(x)
    prox = jax.jit(lambda x: jaxtv.prox_tv_isotropic(x, lam, axes=axes, solver=solver))
    return lambda: prox(x).block_until_ready()


def fastprox_isotropic(x, lam, axes, tol):
    import fastprox

    return lambda: fastprox.tv_iso(x, lam, tol=tol, max_iter=20_000)[0]


def jaxtv_graph(x, lam, axes, tol):
    """An image over its grid with diagonals."""
    import jax

    import jaxtv
    from benchmarks.problems import grid

    edges, weights = grid(x.shape, diagonals=True)
    graph, solver = jaxtv.Graph(edges, x.size), jaxtv.AcceleratedDykstra(tol=tol)
    nodes, weights = jax.numpy.asarray(x.ravel()), jax.numpy.asarray(lam * weights, x.dtype)
    prox = jax.jit(lambda x, w: jaxtv.prox_graph_tv(x, w, graph, solver=solver))
    return lambda: prox(nodes, weights).block_until_ready().reshape(x.shape)


def jaxtv_trend(x, lam, axes, order, tol=1e-6, dtype="float32"):
    import jax

    import jaxtv

    x = jax.numpy.asarray(x, dtype)
    fit = jax.jit(lambda x: jaxtv.trend_filter(x, lam, order=order, tol=tol))
    return lambda: fit(x).block_until_ready()


def cvxpy_trend(x, lam, axes, order, solver, **options):
    """With a warm start a second solve would be none."""
    import cvxpy
    import scipy.sparse

    difference = scipy.sparse.eye(x.size, format="csr")
    for _ in range(order + 1):
        difference = difference[1:] - difference[:-1]
    y = cvxpy.Variable(x.size)
    objective = cvxpy.sum_squares(y - x[0]) / 2 + lam * cvxpy.norm1(difference @ y)
    problem = cvxpy.Problem(cvxpy.Minimize(objective))

    def call():
        problem.solve(solver=solver, warm_start=False, **options)
        return y.value[None]

    return call


def trendfilter_trend(x, lam, axes):
    """It has no factor ½. Its module for plots needs a file that its wheel lacks."""
    import sys
    import types

    sys.modules["trendfilter.bokeh_theme"] = types.ModuleType("trendfilter.bokeh_theme")
    from trendfilter import trend_filter

    signal, times = x[0].astype(np.float64), np.arange(x.size)
    return lambda: trend_filter(times, signal, alpha_2=2 * lam, l_norm=1)["y_fit"][None]


def cyl1tf_trend(x, lam, axes, tol):
    import cyl1tf

    signal = x[0].astype(np.float64)
    return lambda: cyl1tf.calc_fit(signal, scale=lam, toler=tol)[None]


# ---------------------------------------------------------------------------- λ by itself


def jaxtv_selected(x, lam, axes, sigma=None, criterion="sure"):
    """The image, denoised with the λ of `select_lam`; the argument `lam` is not used."""
    import jax

    import jaxtv

    def denoise(x):
        lam = jaxtv.select_lam(x, sigma, axes=axes, criterion=criterion)
        solver = jaxtv.AcceleratedDykstra(tol=1e-4)
        return jaxtv.prox_tv2d(x, lam, axes=axes, solver=solver)

    denoise, x = jax.jit(denoise), jax.numpy.asarray(x)
    return lambda: denoise(x).block_until_ready()


def skimage_calibrated(x, lam, axes, candidates):
    """denoise_tv_chambolle with the best of so many weights; the argument `lam` is not used."""
    from skimage.restoration import calibrate_denoiser, denoise_tv_chambolle

    weights = {"weight": np.geomspace(0.02, 0.5, candidates)}

    def call():
        _, (tried, losses) = calibrate_denoiser(x, denoise_tv_chambolle, weights, extra_output=True)
        return denoise_tv_chambolle(x, **tried[int(np.argmin(losses))])

    return call
