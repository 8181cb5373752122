"""Export a network with TV layers, and serve it from a process that has neither Flax nor its code.

    python examples/serving.py export FOLDER
    python examples/serving.py serve FOLDER

One artefact per platform, for any batch size. The CUDA one needs no GPU to be made; it calls the
CUDA kernels if this jaxtv has them, and is pure JAX otherwise. Whoever loads one needs only
`import jaxtv`, which registers the kernels.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

import jaxtv

SIZE = 32
PLATFORMS = ("cpu", "cuda")


def denoiser():
    """A function of images (N, SIZE, SIZE, 3), its parameters within."""
    from flax import nnx

    class Denoiser(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.enter = jaxtv.nnx.TVLayer(per_channel=True, num_channels=3, init_lam=0.1)
            self.conv = nnx.Conv(3, 3, (3, 3), rngs=rngs)
            self.along_rows = jaxtv.nnx.TVLayer(axes=-2, init_lam=0.05)

        def __call__(self, x):
            x = self.enter(x)
            return x + 0.1 * self.along_rows(self.conv(x))

    return jax.jit(Denoiser(nnx.Rngs(0)).__call__)


def export(folder: Path) -> None:
    """Writes `denoiser.PLATFORM.jax` and one example with its result."""
    f = denoiser()
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, SIZE, SIZE, 3), np.float32)
    # JAX promises nothing of custom calls over time; these ones keep their attributes and layout.
    ours = ("jaxtv_prox1d", "jaxtv_dykstra")
    checks = [jax.export.DisabledSafetyCheck.custom_call(target) for target in ours]
    for platform in PLATFORMS:
        exported = jax.export.export(f, platforms=[platform], disabled_checks=checks)(images)
        calls = [name for name in ours if f"@{name}(" in exported.mlir_module()]
        path = folder / f"denoiser.{platform}.jax"
        path.write_bytes(exported.serialize())
        print(f"{path.name}: {path.stat().st_size:,} bytes, kernels: {', '.join(calls) or 'none'}")
    x = np.random.default_rng(0).normal(size=(5, SIZE, SIZE, 3)).astype(np.float32)
    np.savez(folder / "example.npz", x=x, y=np.asarray(f(x)))


def serve(folder: Path) -> None:
    """Loads the artefact of this machine's platform, and answers batches of several sizes."""
    platform = "cuda" if jax.default_backend() == "gpu" else "cpu"
    blob = bytearray((folder / f"denoiser.{platform}.jax").read_bytes())
    f = jax.jit(jax.export.deserialize(blob).call)
    example = np.load(folder / "example.npz")
    for size in (1, 2, 5):
        y = f(example["x"][:size])
        np.testing.assert_allclose(y, example["y"][:size], rtol=1e-5, atol=1e-5)
        print(f"{platform}: batch of {size} served")


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["export", "serve"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    {"export": export, "serve": serve}[options.command](options.folder)


if __name__ == "__main__":
    main()
