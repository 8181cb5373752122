"""Draws the pictures of single features for the pages.

python scripts/pictures.py [NAME ...]     writes docs/images/NAME.png (extra `demo`)
"""

from __future__ import annotations

import argparse
import pathlib

import jax
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


def noisy_steps(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """(clean, noisy) signals of 400 samples."""
    rng = np.random.default_rng(1)
    clean = np.repeat(rng.normal(size=10), 40)
    return clean, (clean + sigma * rng.normal(size=400)).astype(np.float32)


def select_lam() -> Figure:
    """Stein's estimate and the true error against λ, for two noise levels."""
    figure, axes = panels(2)
    for ax, sigma in zip(axes, (0.2, 0.6)):
        clean, x = noisy_steps(sigma)
        lams = sigma * np.geomspace(0.03, 60, 150, dtype=np.float32)
        y = jaxtv.prox_tv1d(jnp.broadcast_to(x, (150, 400)), lams[:, None])
        estimate = jaxtv.sure(jnp.broadcast_to(x, y.shape), y, sigma, lams[:, None], axes=1)
        ax.semilogx(lams, np.sum((y - clean) ** 2, axis=1), label="squared error")
        ax.semilogx(lams, estimate, label="estimate: sure")
        for criterion, style in (("sure", "-"), ("discrepancy", ":")):
            chosen = float(jaxtv.select_lam(x, axes=0, criterion=criterion)[0])
            ax.axvline(chosen, color="0.4", linestyle=style, label=f'select_lam, "{criterion}"')
        ax.set(title=f"σ = {sigma}", xlabel="λ", ylim=np.multiply([-0.12, 1.1], 400 * sigma**2))
    axes[1].legend(loc="upper left", fontsize="small")
    return figure


def tv_ball() -> Figure:
    """Projections of one signal, and TV(y) against λ with the steps that find one of them."""
    clean, x = noisy_steps(0.3)
    figure, axes = panels(2)
    axes[0].plot(x, ".", color="0.7", markersize=3)
    axes[0].plot(clean, color="0.4", linewidth=1, linestyle="--", label="clean")
    for radius in (4.0, 10.0, 20.0):
        y = jaxtv.project_tv_ball(x, radius, axes=0)
        axes[0].step(np.arange(400), y, where="mid", label=f"radius {radius:g}")
    axes[0].set(title="project_tv_ball", xlabel="sample")
    axes[0].legend(fontsize="small")

    def step(lam):
        """(TV, the next λ for the radius 10)."""
        prox = lambda lam: jaxtv.prox_tv1d(x, lam)
        y, q = jax.jvp(prox, (lam,), (1.0,))
        variation = jaxtv.total_variation(y, axes=0)
        return float(variation), float(lam + (variation - 10) / jnp.sum(q**2))

    lams = np.geomspace(0.02, 8, 200)
    axes[1].loglog(lams, [step(float(lam))[0] for lam in lams], label="TV(y)")
    lam, steps = 0.0, []
    for _ in range(6):
        lam = step(lam)[1]
        steps.append((lam, step(lam)[0]))
    axes[1].loglog(*zip(*steps), "o", label="Newton steps")
    axes[1].axhline(10, color="0.4", linestyle="--", label="radius 10")
    axes[1].set(title="the λ of radius 10", xlabel="λ")
    axes[1].legend()
    return figure


def data_weight() -> Figure:
    """A signal with a noisy and a missing part; a picture of which most pixels are missing."""
    r = np.random.default_rng(0)
    sigma = np.where((np.arange(400) >= 220) & (np.arange(400) < 300), 0.6, 0.15)
    known = (np.arange(400) < 90) | (np.arange(400) >= 150)
    clean, _ = noisy_steps(0.0)
    x = jnp.asarray(np.where(known, clean + sigma * r.normal(size=400), np.nan), jnp.float32)
    a = jnp.asarray(known * (0.15 / sigma) ** 2, jnp.float32)
    figure, axes = panels(3)
    axes[0].plot(x, ".", color="0.7", markersize=3)
    axes[0].plot(clean, color="0.4", linewidth=1, linestyle="--", label="clean")
    for label, weight in (("only a mask", known), ("weights 1/σ²", a)):
        y = jaxtv.prox_tv1d(x, 0.7, data_weight=weight)
        axes[0].step(np.arange(400), y, where="mid", label=label)
    axes[0].set(title="prox_tv1d", xlabel="sample")
    axes[0].legend(fontsize="small")

    rows, columns = np.mgrid[:96, :96]
    image = 0.4 * (rows > 60) + 0.6 * (np.hypot(rows - 36, columns - 40) < 24)
    noisy, known = image + 0.1 * r.normal(size=image.shape), r.random(image.shape) < 0.3
    options = {"solver": jaxtv.AcceleratedDykstra(tol=1e-4), "data_weight": known}
    filled = jaxtv.prox_tv2d(np.where(known, noisy, np.nan), 0.12, **options)
    for ax, title, shown in (
        (axes[1], "30 % of the pixels", np.where(known, noisy, np.nan)),
        (axes[2], "prox_tv2d", filled),
    ):
        ax.imshow(shown, cmap="gray", vmin=-0.1, vmax=1.1)
        ax.set(title=title, xticks=[], yticks=[])
        ax.grid(False)
    return figure


def trend_filter() -> Figure:
    """Two lines and an arc: fits of order 0, 1 and 2."""
    t = np.linspace(0, 1, 240)
    lines = np.where(t < 0.35, t, 0.77 - 1.2 * t)
    clean = np.where(t < 0.6, lines, 0.93 - 22 * (t - 0.8) ** 2)
    x = jnp.asarray(clean + 0.12 * np.random.default_rng(0).normal(size=240), jnp.float32)
    results = {
        "prox_tv1d, λ = 1": jaxtv.prox_tv1d(x, 1.0),
        "trend_filter, order = 1, λ = 10": jaxtv.trend_filter(x, 10.0),
        "trend_filter, order = 2, λ = 100": jaxtv.trend_filter(x, 100.0, order=2),
    }
    figure, axes = panels(3)
    for ax, (title, y) in zip(axes, results.items()):
        ax.plot(x, ".", color="0.7", markersize=3)
        ax.plot(clean, color="0.4", linewidth=1, linestyle="--")
        ax.plot(y)
        ax.set(title=title, xlabel="sample")
    return figure


def neighbours(side: int, diagonals: bool) -> tuple[jaxtv.Graph, np.ndarray]:
    """The graph of a square picture. Its weights make an outline cost its length.

    With diagonals that holds in 8 directions: an upright outline of length 1 cuts one straight and
    two diagonal edges, a diagonal outline of length √2 cuts two and two.
    """
    index = np.arange(side * side).reshape(side, side)
    pairs, weights = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:])], [1, 1]
    if diagonals:
        pairs += [(index[:-1, :-1], index[1:, 1:]), (index[:-1, 1:], index[1:, :-1])]
        weights = [2**0.5 - 1] * 2 + [1 - 0.5**0.5] * 2
    edges = [np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs]
    lam = np.concatenate([np.full(len(e), w, np.float32) for e, w in zip(edges, weights)])
    return jaxtv.Graph(np.concatenate(edges), side * side), lam


def graph_tv() -> Figure:
    """A disc, smoothed with 4 and with 8 neighbours."""
    side = 64
    rows, columns = np.indices((side, side)) - (side - 1) / 2
    clean = (np.hypot(rows, columns) < 22).astype(float)
    x = jnp.asarray(clean + 0.4 * np.random.default_rng(0).normal(size=clean.shape), jnp.float32)
    results = {"noisy": x}
    for diagonals in (False, True):
        graph, lam = neighbours(side, diagonals)
        y = jaxtv.prox_graph_tv(x.ravel(), 1.2 * lam, graph).reshape(side, side)
        results[f"{8 if diagonals else 4} neighbours, λ = 1.2"] = y
    figure, axes = panels(3)
    for ax, (title, y) in zip(axes, results.items()):
        ax.imshow(y, cmap="gray", vmin=-0.2, vmax=1.2)
        ax.set(title=title)
        ax.axis("off")
    return figure


PICTURES = {
    f.__name__: f
    for f in (fused_lasso, isotropic, select_lam, tv_ball, data_weight, trend_filter, graph_tv)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    for name in parser.parse_args().names or PICTURES:
        PICTURES[name]().savefig(IMAGES / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
