"""Data-parallel and FSDP training of a network with TV layers, over one process or several.

    python examples/distributed_training.py [--processes 2] [--devices 8] [--fsdp] [--steps 5]

Starts the processes on this machine, each with its share of `--devices` virtual CPU devices; they
find one another by `jax.distributed` and reduce by gloo. On a cluster, start one process per host
with `--rank` and `--coordinator` instead. The numbers do not depend on the number of processes.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sharded_prox import Collective, collectives  # beside this file

import jaxtv

BATCH, SIZE, WIDTH = 16, 32, 16


class Net(nnx.Module):
    """A denoiser: convolutions with TV layers in front, between and behind."""

    def __init__(self, rngs: nnx.Rngs):
        pairs = ((1, WIDTH), (WIDTH, WIDTH), (WIDTH, 1))
        self.convs = nnx.List([nnx.Conv(*pair, (3, 3), rngs=rngs) for pair in pairs])
        self.tvs = nnx.List([jaxtv.nnx.TVLayer(init_lam=0.05) for _ in range(4)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (N, H, W, 1) to images."""
        x = skip = self.tvs[0](x)
        for conv, tv in zip(self.convs, self.tvs[1:]):
            x = tv(nnx.tanh(conv(x)))
        return skip - x


def batch(step: int, sharding: NamedSharding) -> tuple[jax.Array, jax.Array]:
    """Noisy and clean squares, (BATCH, SIZE, SIZE, 1): each process makes its own images only."""

    def images(index: tuple[slice, ...]) -> np.ndarray:
        both = [_image(step, number) for number in range(*index[0].indices(BATCH))]
        return np.stack(both).astype(np.float32)

    pair = jax.make_array_from_callback((BATCH, SIZE, SIZE, 2), sharding, images)
    return pair[..., :1], pair[..., 1:]


def _image(step: int, number: int) -> np.ndarray:
    rng = np.random.default_rng((step, number))
    clean = np.zeros((SIZE, SIZE))
    for top, left in rng.integers(0, SIZE // 2, size=(3, 2)):
        clean[top : top + SIZE // 2, left : left + SIZE // 2] += rng.uniform(0.2, 0.5)
    return np.stack([clean + 0.2 * rng.normal(size=clean.shape), clean], axis=-1)


def shardings(mesh: jax.sharding.Mesh, tree: Any, fsdp: bool) -> Any:
    """Replicated, or with `fsdp` every array split along its first axis that the devices divide."""

    def of(array: jax.ShapeDtypeStruct) -> NamedSharding:
        split = [a for a, size in enumerate(array.shape) if size and size % mesh.size == 0]
        spec = [None] * array.ndim
        if fsdp and split:
            spec[split[-1]] = "data"
        return NamedSharding(mesh, P(*spec))

    return jax.tree.map(of, tree)


def train(steps: int, fsdp: bool) -> dict[str, Any]:
    """Losses, the trained parameters, and the collectives of the compiled step."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    optimizer = optax.adam(1e-3)
    graph, _ = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))), nnx.Param)

    def init():
        params = nnx.state(Net(nnx.Rngs(0)), nnx.Param)
        return params, optimizer.init(params)

    placed = shardings(mesh, jax.eval_shape(init), fsdp)
    state = jax.jit(init, out_shardings=placed)()  # no device ever has all of it

    def loss(params, noisy, clean):
        return jnp.mean((nnx.merge(graph, params)(noisy) - clean) ** 2)

    def step(state, noisy, clean):
        params, moments = state
        value, grads = jax.value_and_grad(loss)(params, noisy, clean)
        updates, moments = optimizer.update(grads, moments, params)
        return value, (optax.apply_updates(params, updates), moments)

    data = NamedSharding(mesh, P("data"))
    replicated = NamedSharding(mesh, P())
    jitted = jax.jit(step, out_shardings=(replicated, placed), donate_argnums=0)
    compiled = jitted.lower(state, *batch(0, data)).compile()
    losses = []
    for number in range(steps):
        value, state = compiled(state, *batch(number, data))
        losses.append(float(value))
    flat = jax.jit(lambda p: [jnp.ravel(a) for a in jax.tree.leaves(p)], out_shardings=replicated)
    trained = np.concatenate([np.asarray(a) for a in flat(state[0])])
    found = collectives(compiled.as_text())
    return {"losses": losses, "parameters": trained.tolist(), "collectives": found}


def summary(found: list[Collective]) -> str:
    """How many collectives of each kind, and their bytes."""
    names = sorted({c.name for c in found})
    parts = [(name, [c.bytes for c in found if c.name == name]) for name in names]
    return ", ".join(f"{len(sizes)} {name} of {sum(sizes):,} bytes" for name, sizes in parts)


def spawn(options: argparse.Namespace) -> None:
    """Runs this file once per process, and fails if one of them does."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    share = options.devices // options.processes
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={share}"
    ranks = [
        subprocess.Popen(
            [sys.executable, *sys.argv, "--rank", str(rank), "--coordinator", coordinator],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        )
        for rank in range(options.processes)
    ]
    codes = [rank.wait() for rank in ranks]
    if any(codes):
        raise SystemExit("a process failed")


def main() -> None:
    """Parses, then spawns or trains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices", type=int, default=8, help="of all processes together")
    parser.add_argument("--fsdp", action="store_true", help="shard parameters and moments too")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON of the run")
    parser.add_argument("--rank", type=int, help="of this process; others are started elsewhere")
    parser.add_argument("--coordinator", help="HOST:PORT of rank 0")
    options = parser.parse_args()
    if options.rank is None:
        spawn(options)
        return
    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(options.coordinator, options.processes, options.rank)
    result = train(options.steps, options.fsdp)
    if options.rank == 0:
        print(f"{options.processes} × {jax.local_device_count()} devices")
        print("losses:", *(f"{loss:.5f}" for loss in result["losses"]))
        print(f"a step: {summary(result['collectives'])}")
        if options.output:
            options.output.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
