"""Which collectives a sharded prox needs and how many bytes they move: from the compiled text.

    python examples/sharded_prox.py [--devices 8]

Sharded over batch axes a prox needs none (over axes behind its own, inside `shard_map`). Sharded
along one of its own axes XLA gathers whole signals; an all-to-all before and after moves less.
"""

import argparse
import functools
import os
import re
from typing import NamedTuple

if __name__ == "__main__":  # before JAX starts: as many virtual CPU devices as asked for
    PARSER = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    PARSER.add_argument("--devices", type=int, default=8)
    COUNT = PARSER.parse_args().devices
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={COUNT}"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxtv

WIDTH = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "u32": 4, "s32": 4, "f32": 4, "f64": 8}
INSTRUCTION = re.compile(
    r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(-start)?\("
)
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One instruction of a compiled program.

    Attributes:
        name: "all-gather" and so on.
        shapes: of its results on each device.
        bytes: of these results.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int

    def sent(self, devices: int) -> float:
        """Bytes that each device sends, by the usual ring algorithms."""
        share = (devices - 1) / devices
        factor = {"all-reduce": 2 * share, "reduce-scatter": devices - 1, "collective-permute": 1}
        return self.bytes * factor.get(self.name, share)


def collectives(text: str) -> list[Collective]:
    """The collectives in the text of a program: `jitted.lower(...).compile().as_text()`."""
    return [
        _collective(name, ARRAY.findall(result), start)
        for result, name, start in INSTRUCTION.findall(text)
    ]


def _collective(name: str, arrays: list[tuple[str, str]], start: str) -> Collective:
    arrays = arrays[len(arrays) // 2 :] if start else arrays  # (operands, results)
    shapes = tuple(tuple(map(int, filter(None, dims.split(",")))) for _, dims in arrays)
    size = sum(WIDTH[dtype] * int(np.prod(s)) for (dtype, _), s in zip(arrays, shapes))
    return Collective(name, shapes, size)


def volume_prox(volume: jax.Array, mesh: jax.sharding.Mesh) -> jax.Array:
    """Prox along axis 0 of a volume sharded there: each device solves whole signals of its own."""

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    def local(slab: jax.Array) -> jax.Array:
        signals = jax.lax.all_to_all(slab, "data", split_axis=1, concat_axis=0, tiled=True)
        y = jaxtv.prox_tv1d(signals, 0.5, axis=0)
        return jax.lax.all_to_all(y, "data", split_axis=0, concat_axis=1, tiled=True)

    return local(volume)


def channel_prox(images: jax.Array, mesh: jax.sharding.Mesh) -> jax.Array:
    """2D prox of (N, H, W, C) sharded over C: XLA follows leading axes only, `shard_map` any."""
    spec = P(None, None, None, "data")
    prox = lambda x: jaxtv.prox_tv2d(x, 0.5, axes=(1, 2))
    return jax.shard_map(prox, mesh=mesh, in_specs=spec, out_specs=spec)(images)


def main() -> dict[str, list[Collective]]:
    """Prints and returns the collectives of each case; all results are those of one device."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(16, 32, 32, 8)).astype(np.float32)
    volume = rng.normal(size=(64, 32, 32)).astype(np.float32)
    prox2d = lambda x: jaxtv.prox_tv2d(x, 0.5, axes=(1, 2))
    prox1d = lambda x: jaxtv.prox_tv1d(x, 0.5, axis=0)
    slope = jax.grad(lambda x: jnp.sum(prox2d(x) ** 2))
    channels = P(None, None, None, "data")
    by_shard_map = lambda x: channel_prox(x, mesh)
    moved = lambda x: volume_prox(x, mesh)
    cases = {
        "images over the batch": (images, P("data"), prox2d, prox2d),
        "their gradient": (images, P("data"), slope, slope),
        "images over channels": (images, channels, prox2d, prox2d),
        "images over channels, shard_map": (images, channels, by_shard_map, prox2d),
        "images along rows": (images, P(None, "data"), prox2d, prox2d),
        "volume along the prox": (volume, P("data"), prox1d, prox1d),
        "volume, by all-to-all": (volume, P("data"), moved, prox1d),
    }
    found = {}
    print(f"{mesh.size} devices; bytes that each one sends")
    for name, (x, spec, sharded, plain) in cases.items():
        placed = jax.device_put(x, NamedSharding(mesh, spec))
        np.testing.assert_allclose(jax.jit(sharded)(placed), plain(x), rtol=1e-5, atol=1e-5)
        found[name] = collectives(jax.jit(sharded).lower(placed).compile().as_text())
        steps = [f"{c.name} {c.sent(mesh.size):,.0f}" for c in found[name]]
        print(f"{name:32} {x.nbytes // mesh.size:>8,} each  {', '.join(steps) or 'none'}")
    return found


if __name__ == "__main__":
    main()
