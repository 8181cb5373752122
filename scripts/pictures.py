"""Draws the pictures of single features for the pages.

python scripts/pictures.py [NAME ...]     writes docs/images/NAME.png (extra `demo`)
"""

from __future__ import annotations

import argparse
import pathlib

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import jaxtv

IMAGES = pathlib.Path(__file__).parents[1] / "docs" / "images"


def panels(columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, columns))
    for ax in axes:
        ax.grid(alpha=0.3)
    return figure, axes


def fused_lasso() -> Figure:
    """Pulses on a zero ground: TV alone, and with absolute values and a lower bound."""
    clean = np.zeros(200)
    for start, end, height in ((30, 50, 2.0), (90, 96, 1.5), (130, 170, 1.0)):
        clean[start:end] = height
    x = jnp.asarray(clean + 0.35 * np.random.default_rng(0).normal(size=200), jnp.float32)
    results = {
        "prox_tv1d, λ = 1": jaxtv.prox_tv1d(x, 1.0),
        "prox_fused_lasso, λ = 1, ℓ₁ = 0.15, lower = 0": jaxtv.prox_fused_lasso(
            x, 1.0, 0.15, axes=0, lower=0.0
        ),
    }
    figure, axes = panels(2)
    for ax, (title, y) in zip(axes, results.items()):
        ax.plot(x, ".", color="0.7", markersize=3)
        ax.plot(clean, color="0.4", linewidth=1, linestyle="--", label="clean")
        ax.step(np.arange(200), y, where="mid", label=f"{int(jnp.sum(y == 0))} of 200 are zero")
        ax.set(title=title, xlabel="sample", ylim=(-1.1, 2.9))
        ax.legend(loc="upper right")
    return figure


def isotropic() -> Figure:
    """A disc of two colours: anisotropic, isotropic, and isotropic with coupled channels."""
    rows, columns = np.indices((64, 64)) - 31.5
    disc, left = np.hypot(rows, columns) < 24, columns < 0
    clean = np.stack([disc, disc & left, 1 - 0.7 * disc], axis=-1)
    x = jnp.asarray(clean + 0.35 * np.random.default_rng(0).normal(size=clean.shape), jnp.float32)
    solver = jaxtv.AcceleratedDykstra(tol=1e-5)
    results = {
        "noisy": x,
        "prox_tv2d, λ = 0.5": jaxtv.prox_tv2d(x, 0.5, axes=(0, 1), solver=solver),
        "prox_tv_isotropic, λ = 0.7": jaxtv.prox_tv_isotropic(x, 0.7, axes=(0, 1)),
        "channel_axis=-1, λ = 1": jaxtv.prox_tv_isotropic(x, 1.0, axes=(0, 1), channel_axis=-1),
    }
    figure, axes = panels(len(results))
    for ax, (title, y) in zip(axes, results.items()):
        ax.imshow(np.clip(y, 0, 1), interpolation="nearest")
        ax.set(title=title, xticks=[], yticks=[])
    return figure


PICTURES = {"fused_lasso": fused_lasso, "isotropic": isotropic}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    for name in parser.parse_args().names or PICTURES:
        PICTURES[name]().savefig(IMAGES / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
