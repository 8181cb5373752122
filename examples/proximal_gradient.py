"""Proximal gradient for users of JAXopt: deconvolution and tomography, with a λ that is learned.

    pip install optimistix && python examples/proximal_gradient.py [--small]

Minimises ½‖A y − b‖² + λ TV(y), with anisotropic and with isotropic TV. A is a motion blur, or a
parallel-beam Radon transform from few views; its adjoint is `jax.linear_transpose`. FISTA with
restart finds the minimiser y(λ). There y = step(y), and optimistix differentiates this equation by
the implicit function theorem. optax learns λ on one picture with that derivative; the PSNR is of
another picture.
"""

import argparse
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optax
import optimistix
import skimage
from jax import Array

import jaxtv

PROX_TOL = 1e-9  # relative gap: a derivative needs more than a picture does
STEP_TOL = 1e-7  # relative change by a step of FISTA

PROXES = {
    "prox_tv2d": functools.partial(jaxtv.prox_tv2d, solver=jaxtv.AcceleratedDykstra(PROX_TOL)),
    "prox_tv_isotropic": functools.partial(
        jaxtv.prox_tv_isotropic, axes=(0, 1), solver=jaxtv.FGP(PROX_TOL)
    ),
}


class Operator(NamedTuple):
    """A linear map, its adjoint, and the step of proximal gradient, 1/‖A‖²."""

    forward: Callable[[Array], Array]
    adjoint: Callable[[Array], Array]
    tau: Array


class Problem(NamedTuple):
    """Pictures and what an operator measured of them: one to learn λ, one to test it.

    `before` is what one would have of the second without TV.
    """

    operator: Operator
    train: tuple[Array, Array]
    test: tuple[Array, Array]
    before: Array


class Result(NamedTuple):
    """PSNR in dB of the test picture; the derivative of the loss by `grad` and by differences."""

    lam: float
    before: float
    after: float
    by_grad: float
    by_differences: float


class State(NamedTuple):
    """The iterate of FISTA, the extrapolated point and its momentum."""

    y: Array
    z: Array
    t: Array
    change: Array
    steps: Array


def fista(step: Callable[[Array], Array], start: Array, max_steps: int = 5000) -> Array:
    """The fixed point of a proximal gradient step. Momentum restarts when it points uphill."""

    def accelerated(s: State) -> State:
        y = step(s.z)
        uphill = jnp.vdot(s.z - y, y - s.y) > 0
        t = jnp.where(uphill, 1.0, (1 + jnp.sqrt(1 + 4 * s.t**2)) / 2)
        z = y + jnp.where(uphill, 0.0, (s.t - 1) / t) * (y - s.y)
        change = jnp.linalg.norm(y - s.z) / jnp.linalg.norm(y)
        return State(y, z, t, change, s.steps + 1)

    one = jnp.ones((), start.dtype)
    unfinished = lambda s: (s.change > STEP_TOL) & (s.steps < max_steps)
    first = State(start, start, one, one, jnp.int32(0))
    return jax.lax.while_loop(unfinished, accelerated, first).y


def minimiser(operator: Operator, prox: Callable, b: Array, log_lam: Array) -> Array:
    """The y of least ½‖A y − b‖² + λ TV(y), with its implicit derivative in λ."""
    A, adjoint, tau = operator

    def step(y: Array, log_lam: Array) -> Array:
        return prox(y - tau * adjoint(A(y) - b), tau * jnp.exp(log_lam))

    found = fista(lambda y: step(y, jax.lax.stop_gradient(log_lam)), tau * adjoint(b))
    return optimistix.fixed_point(
        step,
        optimistix.FixedPointIteration(rtol=100 * STEP_TOL, atol=100 * STEP_TOL),
        found,  # so it ends after a step
        log_lam,
        adjoint=optimistix.ImplicitAdjoint(lineax.BiCGStab(rtol=1e-4, atol=1e-9, max_steps=20_000)),
    ).value


def learn(problem: Problem, prox: Callable, start: float, updates: int) -> Result:
    """λ by Adam on its logarithm, with derivatives through the solver."""
    (clean, b), (test_clean, test_b) = problem.train, problem.test
    solve = functools.partial(minimiser, problem.operator, prox)
    loss = jax.jit(lambda log_lam: jnp.mean((solve(b, log_lam) - clean) ** 2))
    slope = jax.jit(jax.grad(loss))

    log_lam, h = jnp.log(start), 1e-3
    differences = (loss(log_lam + h) - loss(log_lam - h)) / (2 * h)
    derivatives = float(slope(log_lam)), float(differences)

    optimizer = optax.adam(optax.cosine_decay_schedule(0.2, updates))
    state = optimizer.init(log_lam)
    for _ in range(updates):
        change, state = optimizer.update(slope(log_lam), state)
        log_lam = optax.apply_updates(log_lam, change)

    after = jax.jit(solve)(test_b, log_lam)
    quality = psnr(problem.before, test_clean), psnr(after, test_clean)
    return Result(float(jnp.exp(log_lam)), *quality, *derivatives)


def operator(forward: Callable[[Array], Array], side: int) -> Operator:
    """The adjoint comes from JAX, the norm from power iteration."""
    transpose = jax.linear_transpose(forward, jnp.zeros((side, side)))
    adjoint = lambda b: transpose(b)[0]
    v = jnp.ones((side, side))
    for _ in range(30):
        v = adjoint(forward(v / jnp.linalg.norm(v)))
    return Operator(forward, adjoint, 1 / jnp.linalg.norm(v))


def radon(image: Array, angles: Array) -> Array:
    """Parallel-beam projections, (angles, side): sums along the rows of the turned picture."""
    middle = (len(image) - 1) / 2
    along, across = jnp.meshgrid(*2 * [jnp.arange(len(image)) - middle], indexing="ij")

    def project(angle: Array) -> Array:
        i = along * jnp.cos(angle) + across * jnp.sin(angle)
        j = across * jnp.cos(angle) - along * jnp.sin(angle)
        points = [i + middle, j + middle]
        return jax.scipy.ndimage.map_coordinates(image, points, order=1).sum(axis=0)

    return jax.vmap(project)(angles)


def ellipses(side: int, rng: np.random.Generator) -> Array:
    """Ten random ellipses in a disc."""
    rows, columns = np.meshgrid(*2 * [np.linspace(-1, 1, side)], indexing="ij")
    image = 0.2 * (np.hypot(rows, columns) < 0.9)
    for _ in range(10):
        (i, j), (a, b) = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.08, 0.3, 2)
        image += rng.uniform(-0.2, 0.4) * (np.hypot((rows - i) / a, (columns - j) / b) < 1)
    return jnp.clip(image, 0, 1)


def tomography(side: int, rng: np.random.Generator) -> Problem:
    """Few views; noise of 1 % of a ray through white. Without TV: filtered back-projection."""
    angles = jnp.pi * jnp.arange(side // 4) / (side // 4)
    op = operator(lambda image: radon(image, angles), side)
    phantom = skimage.data.shepp_logan_phantom()
    phantom = jnp.asarray(skimage.transform.resize(phantom, (side, side), anti_aliasing=True))
    train, test = (measure(op, clean, 0.01 * side, rng) for clean in (ellipses(side, rng), phantom))
    ramp = jnp.abs(jnp.fft.fftfreq(side))
    filtered = jnp.fft.ifft(jnp.fft.fft(test[1]) * ramp).real
    return Problem(op, train, test, op.adjoint(filtered) * jnp.pi / len(angles))


def deconvolution(side: int, rng: np.random.Generator) -> Problem:
    """A diagonal motion blur of seven pixels, with noise. Without TV: the blurred picture."""
    kernel = jnp.eye(7) / 7
    op = operator(lambda image: jax.scipy.signal.convolve(image, kernel, mode="same"), side)
    photo = jnp.asarray(skimage.data.camera() / 255)
    crops = (photo[i : i + 2 * side : 2, j : j + 2 * side : 2] for i, j in ((100, 300), (60, 190)))
    train, test = (measure(op, clean, 0.05, rng) for clean in crops)
    return Problem(op, train, test, before=test[1])


def measure(op: Operator, clean: Array, noise: float, rng: np.random.Generator):
    """A picture, and what the operator sees of it, with Gaussian noise."""
    b = op.forward(clean)
    return clean, b + noise * rng.normal(size=b.shape)


def psnr(image: Array, clean: Array) -> float:
    """Peak signal-to-noise ratio in dB, for values in [0, 1]."""
    return float(-10 * jnp.log10(jnp.mean((image - clean) ** 2)))


def main(argv: list[str] | None = None) -> dict[tuple[str, str], Result]:
    """Both problems with both kinds of TV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small pictures, for CI")
    small = parser.parse_args(argv).small
    side, updates, results = (32, 3, {}) if small else (48, 12, {})
    with jax.enable_x64(True):
        for make, start in ((deconvolution, 0.03), (tomography, 3.0)):
            problem = make(side, np.random.default_rng(0))
            for name, prox in PROXES.items():
                r = results[make.__name__, name] = learn(problem, prox, start, updates)
                print(
                    f"{make.__name__:13} {name:17} λ = {r.lam:.2g}: "
                    f"{r.before:.2f} -> {r.after:.2f} dB; derivative in log λ at the start: "
                    f"{r.by_grad:.6g}, by differences {r.by_differences:.6g}",
                    flush=True,
                )
    return results


if __name__ == "__main__":
    main()
