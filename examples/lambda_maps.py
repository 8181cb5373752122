"""Learn where to smooth: a small network predicts one λ per edge for the 2D TV prox.

    python examples/lambda_maps.py [--small]

One half of a photo trains, the other half is only looked at in the end. Three results are compared
there: the noisy picture, the prox with one λ for all edges (the best one on the training half), and
the prox with the λ map, a function of the noisy picture alone.
"""

import argparse
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import skimage
from flax import nnx
from jax import Array

import jaxtv

NOISE = 0.1


class LambdaMap(nnx.Module):
    """Noisy pictures (N, H, W) to a pair of λ arrays, (N, H-1, W) and (N, H, W-1)."""

    def __init__(self, init_lam: float, rngs: nnx.Rngs, width: int = 16):
        sizes = ((1, width), (width, width))
        self.hidden = nnx.List([nnx.Conv(*io, (5, 5), rngs=rngs) for io in sizes])
        # It starts as the constant map of the best scalar.
        start = nnx.initializers.constant(float(np.log(np.expm1(init_lam))))
        zeros = nnx.initializers.zeros
        self.head = nnx.Conv(width, 2, (3, 3), kernel_init=zeros, bias_init=start, rngs=rngs)

    def __call__(self, noisy: Array) -> tuple[Array, Array]:
        """One channel per axis; the λ of an edge is the mean of its two pixels."""
        features = noisy[..., None]
        for layer in self.hidden:
            features = nnx.relu(layer(features))
        down, right = jnp.moveaxis(nnx.softplus(self.head(features)), -1, 0)
        return (down[:, 1:] + down[:, :-1]) / 2, (right[..., 1:] + right[..., :-1]) / 2


class Result(NamedTuple):
    """PSNR in dB on the half that was not trained on."""

    noisy: float
    scalar: float
    map: float


def psnr(image: Array, clean: Array) -> float:
    """Peak signal-to-noise ratio in dB, for values in [0, 1]."""
    return float(-10 * jnp.log10(jnp.mean((image - clean) ** 2)))


def best_scalar(noisy: Array, clean: Array) -> float:
    """The λ of a fine grid whose prox is closest to the clean picture."""
    grid = np.geomspace(0.02, 0.3, 40)
    return max(grid, key=lambda lam: psnr(jaxtv.prox_tv2d(noisy, float(lam)), clean))


def train(clean: Array, init_lam: float, crop: int, steps: int, key: Array) -> LambdaMap:
    """Fits the map to random crops with fresh noise."""
    model = LambdaMap(init_lam, nnx.Rngs(0))
    schedule = optax.cosine_decay_schedule(3e-3, steps)
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, key):
        at, noise = jax.random.split(key)
        corners = jax.random.randint(at, (8, 2), 0, jnp.array(clean.shape) - crop + 1)
        target = jax.vmap(lambda c: jax.lax.dynamic_slice(clean, c, (crop, crop)))(corners)
        noisy = target + NOISE * jax.random.normal(noise, target.shape)

        def loss(model):
            return jnp.mean((jaxtv.prox_tv2d(noisy, model(noisy), axes=(1, 2)) - target) ** 2)

        optimizer.update(model, nnx.grad(loss)(model))

    for k in jax.random.split(key, steps):
        step(model, optimizer, k)
    return model


def main(argv: list[str] | None = None) -> Result:
    """Trains, prints, and returns the three numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="fewer pixels and steps, for CI")
    small = parser.parse_args(argv).small

    photo = jnp.asarray(skimage.data.camera(), jnp.float32) / 255
    photo = photo[::2, ::2] if small else photo
    halves = jnp.split(photo, 2, axis=1)
    keys = jax.random.split(jax.random.key(0), 3)
    noisy = [half + NOISE * jax.random.normal(k, half.shape) for half, k in zip(halves, keys)]

    lam = best_scalar(noisy[0], halves[0])
    model = train(halves[0], lam, *((32, 250) if small else (64, 600)), key=keys[2])
    result = Result(
        psnr(noisy[1], halves[1]),
        psnr(jaxtv.prox_tv2d(noisy[1], lam), halves[1]),
        psnr(jaxtv.prox_tv2d(noisy[1][None], model(noisy[1][None]), axes=(1, 2))[0], halves[1]),
    )
    print(f"noisy              {result.noisy:6.2f} dB")
    print(f"one λ = {lam:.3f}      {result.scalar:6.2f} dB")
    print(f"λ map, per edge    {result.map:6.2f} dB")
    return result


if __name__ == "__main__":
    main()
