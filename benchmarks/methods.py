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
    """Value and gradient in x and λ of ⟨1, prox⟩ by one jitted `value_and_grad`."""
    import jax

    prox = _jaxtv(axes, **options)
    x = jax.numpy.asarray(x)
    both = jax.jit(jax.value_and_grad(lambda x, lam: prox(x, lam).sum(), (0, 1)))
    return lambda: jax.block_until_ready(both(x, lam))[0]


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


def fastprox_graph(x, lam, axes):
    """The exact solution of an image in float64, by maximal flows on its grid."""
    import fastprox

    image, index = x.astype(np.float64), np.arange(x.size).reshape(x.shape)
    pairs = (index[:, :-1], index[:, 1:]), (index[:-1], index[1:])
    edges = np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in pairs])
    return lambda: fastprox.graph_tv(image.ravel(), edges, lam)[0].reshape(x.shape)


def deepinv_tv(x, lam, axes):
    """TVDenoiser on the CPU, with its default stop. x is an image, or rows that are images each."""
    import torch
    from deepinv.models import TVDenoiser

    denoiser, images = TVDenoiser(), torch.from_numpy(x)
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


def skimage_chambolle(x, lam, axes, iterations=200):
    from skimage.restoration import denoise_tv_chambolle

    image = x.astype(np.float64)
    return lambda: denoise_tv_chambolle(image, weight=lam, max_num_iter=iterations, eps=2e-4)


def skimage_bregman(x, lam, axes, iterations=100):
    from skimage.restoration import denoise_tv_bregman

    image, options = x.astype(np.float64), {"max_num_iter": iterations, "isotropic": False}
    return lambda: denoise_tv_bregman(image, weight=1 / lam, **options)


def pyproximal_image(x, lam, axes, iterations=100):
    import pyproximal

    prox = pyproximal.TV(dims=x.shape, sigma=1.0, niter=iterations, rtol=1e-6)
    image = x.astype(np.float64).ravel()
    return lambda: prox.prox(image, lam).reshape(x.shape)
