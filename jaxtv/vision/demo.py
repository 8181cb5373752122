"""`jaxtv demo`: learn λ on one half of a photo, measure on the other, in about a minute.

Three models are trained at once on random crops of the lower half of scikit-image's astronaut:

* TV-smooth: one `TVLayer` that removes Gaussian noise; all it can learn is λ;
* TV-sharp: one `TVLayer(mode="sharp")` that undoes a Gaussian blur; likewise;
* a small residual network with a TV layer at its input and its output (paper, Eq. 14), which
  removes the same noise.

Everything reported and drawn is from the upper half with noise of a seed not seen in training.
"""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import skimage
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from jaxtv._prox import prox_tv2d
from jaxtv.nnx import TVLayer
from jaxtv.vision.files import replacing

BATCH, CROP = 8, 48
BLUR = 2.0  # sigma in pixels of the blur that TV-sharp undoes
SHOWN = (slice(0, 224), slice(112, 336))  # the part of the evaluated half that is drawn
LEARNING_RATES = {"raw_lam": 0.03, "weights": 3e-3}
LAMBDAS = {
    "TV-smooth": lambda model: model.smooth.lam,
    "TV-sharp": lambda model: model.sharp.lam,
    "network, input": lambda model: model.network.tv_in.lam,
    "network, output": lambda model: model.network.tv_out.lam,
}


class DenoisingNetwork(nnx.Module):
    """Residual convolutions between two TV layers: y = prox(R(x̃) + x̃), x̃ = prox(x) (Eq. 14)."""

    def __init__(self, width: int = 32, depth: int = 3, *, rngs: nnx.Rngs):
        hidden = [nnx.Conv(3 if i == 0 else width, width, (3, 3), rngs=rngs) for i in range(depth)]
        self.tv_in = TVLayer(init_lam=0.01)
        self.hidden = nnx.List(hidden)
        # Zero weights: training starts from R = 0, the two TV layers alone.
        self.last = nnx.Conv(width, 3, (3, 3), kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.tv_out = TVLayer(init_lam=0.01)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Denoises (..., H, W, 3)."""
        smoothed = self.tv_in(x)
        residual = smoothed
        for conv in self.hidden:
            residual = nnx.relu(conv(residual))
        return self.tv_out(smoothed + self.last(residual))


class Models(nnx.Module):
    """The three models of the demo; they share nothing but the training loop."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.smooth = TVLayer(init_lam=0.01)
        self.sharp = TVLayer(mode="sharp", init_lam=0.01)
        self.network = DenoisingNetwork(rngs=rngs)


def gaussian(image: np.ndarray | jax.Array, sigma: float) -> jax.Array:
    """Gaussian convolution of (H, W, 3) by scikit-image."""
    blurred = skimage.filters.gaussian(np.asarray(image), sigma, channel_axis=-1)
    return jnp.asarray(blurred, jnp.float32)


def psnr(image: jax.Array, clean: jax.Array) -> float:
    """Peak signal-to-noise ratio in dB of an image in [0, 1], clipped to that range."""
    return float(-10 * jnp.log10(jnp.mean((jnp.clip(image, 0, 1) - clean) ** 2)))


def add_noise(clean: jax.Array, noise: float, seed: int) -> jax.Array:
    """Clean plus white Gaussian noise of standard deviation `noise`, not clipped."""
    return clean + noise * jax.random.normal(jax.random.key(seed), clean.shape)


def best_gaussian(noisy: jax.Array, clean: jax.Array) -> tuple[float, jax.Array]:
    """The sigma whose convolution comes closest to the clean picture, and its result."""
    sigmas = [float(sigma) for sigma in np.arange(0.4, 3.0, 0.1)]
    best = max(sigmas, key=lambda sigma: psnr(gaussian(noisy, sigma), clean))
    return best, gaussian(noisy, best)


# ---------------------------------------------------------------------------- training


def random_crops(key: jax.Array, pictures: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The same `BATCH` random squares, half of them mirrored, out of each (H, W, 3) picture."""
    keys = jax.random.split(key, 3)
    height, width, _ = pictures[0].shape
    tops = jax.random.randint(keys[0], (BATCH,), 0, height - CROP + 1)
    lefts = jax.random.randint(keys[1], (BATCH,), 0, width - CROP + 1)
    flips = jax.random.bernoulli(keys[2], shape=(BATCH,))

    def crop(picture, top, left, flip):
        square = jax.lax.dynamic_slice(picture, (top, left, 0), (CROP, CROP, 3))
        return jnp.where(flip, square[:, ::-1], square)

    return tuple(jax.vmap(crop, (None, 0, 0, 0))(p, tops, lefts, flips) for p in pictures)


def losses(
    model: Models, clean: jax.Array, noisy: jax.Array, blurred: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum of the three mean squared errors, and the three."""
    outputs = (model.smooth(noisy), model.sharp(blurred), model.network(noisy))
    errors = jnp.stack([jnp.mean((output - clean) ** 2) for output in outputs])
    return jnp.sum(errors), errors


@nnx.jit
def train_step(
    model: Models,
    optimizer: nnx.Optimizer,
    key: jax.Array,
    noise: float,
    clean: jax.Array,
    blurred: jax.Array,
) -> jax.Array:
    """One step on fresh crops with fresh noise; returns the three errors."""
    crop_key, noise_key = jax.random.split(key)
    clean, blurred = random_crops(crop_key, (clean, blurred))
    noisy = clean + noise * jax.random.normal(noise_key, clean.shape)
    (_, errors), grads = nnx.value_and_grad(losses, has_aux=True)(model, clean, noisy, blurred)
    optimizer.update(model, grads)
    return errors


def make_optimizer(model: Models) -> nnx.Optimizer:
    """Adam, faster for λ̃ than for weights, both times a `decay` that is set from outside."""

    def labels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "raw_lam" if "raw_lam" in jax.tree_util.keystr(path) else "weights",
            params,
        )

    @optax.inject_hyperparams
    def adam(decay):
        return optax.partition(
            {name: optax.adam(rate * decay) for name, rate in LEARNING_RATES.items()}, labels
        )

    return nnx.Optimizer(model, adam(decay=1.0), wrt=nnx.Param)


def train(
    clean: jax.Array, *, noise: float, seconds: float, seed: int, console: Console
) -> tuple[Models, dict[str, list[float]]]:
    """Trains for `seconds`, compilation included; returns the models and λ after each step."""
    model = Models(rngs=nnx.Rngs(seed))
    optimizer = make_optimizer(model)
    blurred = gaussian(clean, BLUR)
    key = jax.random.key(seed)
    history = {name: [float(read(model))] for name, read in LAMBDAS.items()}
    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.description}"))
    start = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("compiling", total=seconds)
        while (elapsed := time.perf_counter() - start) < seconds:
            # Annealed by the clock, so that any machine ends with a small step.
            decay = (1 + math.cos(math.pi * elapsed / seconds)) / 2
            optimizer.opt_state.hyperparams["decay"][...] = jnp.float32(decay)
            key, step_key = jax.random.split(key)
            errors = train_step(model, optimizer, step_key, noise, clean, blurred)
            for name, read in LAMBDAS.items():
                history[name].append(float(read(model)))
            progress.update(task, completed=elapsed, description=describe(errors, history))
        progress.update(task, completed=seconds)
    return model, history


def describe(errors: jax.Array, history: dict[str, list[float]]) -> str:
    """The progress line: step, loss, λ and PSNR of the last batch."""
    smooth, _, network = -10 * np.log10(np.asarray(errors))
    steps, lam = len(history["TV-smooth"]) - 1, history["TV-smooth"][-1]
    return (
        f"step {steps:4d}  loss {float(errors.sum()):.4f}  λ {lam:.4f}  "
        f"PSNR: TV-smooth {smooth:.1f}, network {network:.1f} dB"
    )


# ---------------------------------------------------------------------------- evaluation


@dataclasses.dataclass
class Panel:
    """One restored (or degraded) picture and what to call it."""

    title: str
    image: jax.Array
    psnr: float


def evaluate(model: Models, clean: jax.Array, *, noise: float, seed: int) -> list[Panel]:
    """All pictures of the figure and the table, from a half of the photo not trained on."""
    noisy = add_noise(clean, noise, seed)
    blurred = gaussian(clean, BLUR)
    sigma, convolved = best_gaussian(noisy, clean)
    pictures = {
        f"noisy, σ = {noise:g}": noisy,
        f"Gaussian, best σ = {sigma:.1f} px": convolved,
        f"TV-smooth, learned λ = {float(model.smooth.lam):.3f}": model.smooth(noisy),
        "small network with TV layers": model.network(noisy),
        f"blurred, σ = {BLUR:g} px": blurred,
        f"TV-sharp, learned λ = {float(model.sharp.lam):.3f}": model.sharp(blurred),
    }
    return [Panel(title, image, psnr(image, clean)) for title, image in pictures.items()]


def best_lam(clean: jax.Array, *, noise: float, seed: int) -> float:
    """The λ that TV-smooth should learn on this picture: the least squared error on a grid."""
    noisy = add_noise(clean, noise, seed)

    @jax.jit
    def error(lam):
        return jnp.mean((prox_tv2d(noisy, lam, axes=(-3, -2)) - clean) ** 2)

    return min((float(lam) for lam in np.geomspace(0.3, 1.5, 40) * noise), key=error)


def time_layer(shape: tuple[int, ...], repeats: int = 7) -> tuple[float, float]:
    """Median seconds of a TV layer's forward pass, and of forward and backward together."""
    x = jax.random.uniform(jax.random.key(0), shape)
    graph, state = nnx.split(TVLayer(init_lam=0.05))

    def loss(state, x):
        return jnp.sum(nnx.merge(graph, state)(x) ** 2)

    def median(f):
        jax.block_until_ready(f(state, x))
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(f(state, x))
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    forward = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    return median(forward), median(jax.jit(jax.grad(loss, (0, 1))))


# ---------------------------------------------------------------------------- report


def draw(path: Path, panels: list[Panel], history: dict[str, list[float]], best: float) -> None:
    """The figure: six pictures with their PSNR, and λ against training steps."""
    figure = Figure(figsize=(12, 6.6))
    grid = figure.add_gridspec(
        2, 4, left=0.01, right=0.99, top=0.93, bottom=0.08, wspace=0.04, hspace=0.2
    )
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(grid[i // 4, i % 4])
        axes.imshow(np.clip(np.asarray(panel.image)[SHOWN], 0, 1), interpolation="nearest")
        axes.set_title(f"{panel.title}\n{panel.psnr:.2f} dB", fontsize=10)
        axes.axis("off")
    axes = figure.add_subplot(grid[1, 2:].subgridspec(1, 2, width_ratios=(1, 9))[1])
    for name, values in history.items():
        axes.plot(values, label=name)
    axes.axhline(best, color="C0", linestyle=":", label="TV-smooth, best by search")
    top = 1.35 * max(max(values) for values in history.values())
    axes.set(xlabel="training step", ylabel="λ", ylim=(0, top), xlim=(0, None))
    axes.set_title("the λ of every TV layer is learned", fontsize=10)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="upper right", columnspacing=1)
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as part:
        figure.savefig(part, format=path.suffix[1:], dpi=110)


def report(panels: list[Panel], console: Console) -> None:
    """Prints the PSNR table and the time of the TV layer."""
    table = Table(title="PSNR on the half not trained on")
    table.add_column("picture")
    table.add_column("dB", justify="right")
    for panel in panels:
        table.add_row(panel.title, f"{panel.psnr:.2f}")
    console.print(table)
    for shape in ((BATCH, CROP, CROP, 3), (512, 512, 3)):
        forward, both = time_layer(shape)
        console.print(
            f"TV layer, {'×'.join(map(str, shape))} float32, 4 sweeps: forward "
            f"{1e3 * forward:.1f} ms, forward and backward {1e3 * both:.1f} ms"
        )


def run(output: Path, *, seconds: float, noise: float, seed: int) -> None:
    """The whole demo: train for `seconds`, evaluate, print, write the figure to `output`."""
    console = Console()
    photo = jnp.asarray(skimage.data.astronaut() / 255, jnp.float32)
    upper, lower = jnp.split(photo, 2)
    model, history = train(lower, noise=noise, seconds=seconds, seed=seed, console=console)
    panels = evaluate(model, upper, noise=noise, seed=seed + 1)
    report(panels, console)
    draw(output, panels, history, best_lam(lower, noise=noise, seed=seed))
    console.print(f"wrote {output}")
