"""Deblurring and inpainting: proximal gradient (FISTA) with the TV prox inside `lax.while_loop`.

    python examples/deblurring.py [--small]

Minimises ½‖A y − b‖² + λ TV(y) for a linear map A of norm ≤ 1: a blur, or a mask of known pixels.
Each step is `y = prox(z − Aᵀ(A z − b), λ)`; the whole solve is one compiled loop without a host
sync. The prox starts from the dual of the step before (`init_dual`), and stops after fewer sweeps.
"""

import argparse
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import skimage
from jax import Array

import jaxtv

SOLVER = jaxtv.AcceleratedDykstra(tol=1e-5)


class State(NamedTuple):
    """One step of FISTA: the iterate, the extrapolated point, and what the prox starts from."""

    y: Array
    z: Array
    t: Array
    dual: tuple[Array, ...]
    change: Array
    steps: Array
    sweeps: Array


class Result(NamedTuple):
    """PSNR in dB before and after, steps of FISTA, and sweeps with and without warm start."""

    before: float
    after: float
    steps: int
    sweeps: int
    cold_sweeps: int


@functools.partial(jax.jit, static_argnames=("A", "warm"))
def fista(A: Callable, b: Array, start: Array, lam: float, *, warm: bool, tol=1e-4) -> State:
    """The minimiser, once a step changes it by less than `tol` of its norm (at most 500 steps)."""
    transpose = jax.linear_transpose(A, start)

    def step(s: State) -> State:
        (gradient,) = transpose(A(s.z) - b)
        y, info, dual = jaxtv.prox_tv(
            s.z - gradient,
            lam,
            axes=(0, 1),
            solver=SOLVER,
            init_dual=s.dual if warm else None,
            return_info=True,
            return_dual=True,
        )
        t = (1 + jnp.sqrt(1 + 4 * s.t**2)) / 2
        z = y + (s.t - 1) / t * (y - s.y)
        change = jnp.linalg.norm(y - s.y) / jnp.linalg.norm(y)
        return State(y, z, t, dual, change, s.steps + 1, s.sweeps + info.iterations)

    one, zero = jnp.ones((), start.dtype), jnp.int32(0)
    first = State(start, start, one, (jnp.zeros_like(start),), one, zero, zero)
    return jax.lax.while_loop(lambda s: (s.change > tol) & (s.steps < 500), step, first)


def blur(image: Array) -> Array:
    """Gaussian of σ = 1.5 pixels, periodic: a convolution of norm 1."""
    frequencies = [jnp.fft.fftfreq(n) for n in image.shape]
    squares = frequencies[0][:, None] ** 2 + frequencies[1] ** 2
    response = jnp.exp(-2 * (jnp.pi * 1.5) ** 2 * squares)
    return jnp.fft.ifft2(jnp.fft.fft2(image) * response).real.astype(image.dtype)


def psnr(image: Array, clean: Array) -> float:
    """Peak signal-to-noise ratio in dB, for values in [0, 1]."""
    return float(-10 * jnp.log10(jnp.mean((image - clean) ** 2)))


def restore(name: str, A: Callable, b: Array, start: Array, clean: Array, lam: float) -> Result:
    """Solves with and without warm start, prints and returns the numbers."""
    end, cold = (fista(A, b, start, lam, warm=warm) for warm in (True, False))
    counts = int(end.steps), int(end.sweeps), int(cold.sweeps)
    result = Result(psnr(start, clean), psnr(end.y, clean), *counts)
    print(
        f"{name:11} {result.before:.2f} -> {result.after:.2f} dB in {result.steps} steps; "
        f"{result.sweeps} sweeps of the prox ({result.cold_sweeps} without warm start)"
    )
    return result


def main(argv: list[str] | None = None) -> dict[str, Result]:
    """Both problems on one photo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a smaller photo, for CI")
    stride = 4 if parser.parse_args(argv).small else 2
    photo = skimage.data.camera()[::stride, ::stride].astype(np.float32) / 255
    clean, rng = jnp.asarray(photo), np.random.default_rng(0)

    blurred = blur(clean) + 0.01 * rng.normal(size=photo.shape).astype(np.float32)

    known = rng.random(photo.shape) < 0.4
    nearest = scipy.ndimage.distance_transform_edt(
        ~known, return_distances=False, return_indices=True
    )
    filled = jnp.asarray(photo[tuple(nearest)])  # each missing pixel copied from the nearest known
    mask = jnp.asarray(known, jnp.float32)
    return {
        "deblurring": restore("deblurring", blur, blurred, blurred, clean, 3e-4),
        "inpainting": restore("inpainting", lambda y: mask * y, mask * clean, filled, clean, 3e-3),
    }


if __name__ == "__main__":
    main()
