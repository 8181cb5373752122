"""One training step of All-CNN-C (Springenberg et al. 2015) with and without TV layers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import jaxtv
from benchmarks.measure import Effort, describe, interleave, statistics_of
from benchmarks.worker import sample


class AllCNN(nn.Module):
    """The paper's classifier: TV layers before the batch norms of the first three blocks."""

    width: int
    mode: str | None  # None: no TV layers

    @nn.compact
    def __call__(self, x):
        width = self.width
        features = [width, width, width, *[2 * width] * 5]
        for block, channels in enumerate(features):
            stride = 2 if block in (2, 5) else 1
            size = 1 if block == 7 else 3
            padding = "VALID" if block == 6 else "SAME"
            x = nn.Conv(channels, (size, size), stride, padding, use_bias=False)(x)
            if self.mode and block < 3:
                x = jaxtv.linen.TVLayer(mode=self.mode, init_lam=0.05)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
        return nn.Conv(10, (1, 1))(x).mean((1, 2))


def _step(model: AllCNN, batch: int):
    """A training step (SGD with momentum) as a function of no arguments that keeps its state."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.random((batch, 32, 32, 3), np.float32))
    labels = jnp.asarray(random.integers(0, 10, batch))
    variables = model.init(jax.random.key(0), x)
    optimizer = optax.sgd(0.01, momentum=0.9)
    state = [variables, optimizer.init(variables["params"])]

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(variables, momentum):
        def loss(params):
            logits, changed = model.apply(
                {**variables, "params": params}, x, mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), changed

        grads, changed = jax.grad(loss, has_aux=True)(variables["params"])
        updates, momentum = optimizer.update(grads, momentum)
        return {"params": optax.apply_updates(variables["params"], updates), **changed}, momentum

    def call():
        state[:] = jax.block_until_ready(step(*state))

    return call


def training_step(bench) -> list[dict]:
    """All-CNN-C, 32×32×3 images, for two widths."""
    widths, batch = bench.choose(((32, 16), 128), ((4,), 4))
    return [record for width in widths for record in _training_step(bench, width, batch)]


def _training_step(bench, width: int, batch: int) -> list[dict]:
    """The first record, without TV layers, is what the others divide."""
    name = f"All-CNN-C, width {width}, batch {batch}"
    print(name, flush=True)
    modes = {"without TV layers": None, "TV-Smooth": "smooth", "TV-Sharp": "sharp"}
    calls = [_step(AllCNN(width, mode), batch) for mode in modes.values()]
    effort = Effort(bench.choose(15, 2), seconds=5.0)
    times = interleave([functools.partial(sample, call) for call in calls], effort)
    records = []
    for method, mine in zip(modes, times):
        record = {"problem": name, "size": width, "method": method, "note": "", "status": "ok"}
        records.append(record | {"of_rows": 1.0} | statistics_of(mine, times[0]))
        print(f"  {describe(records[-1])}", flush=True)
    return records
