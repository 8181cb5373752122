"""How far the gradients of K Dykstra sweeps, and of a loose tolerance, are from the exact one.

python -m benchmarks.gradients     prints the tables, draws docs/images/gradients.png (a minute)

Exact: the implicit derivative of `AcceleratedDykstra(tol=1e-12)` in float64. The loss is
½‖y − target‖²; λ is a weight per edge, so that its gradient is an array. Data: photo crops in
[0, 1] with noise of σ = 0.1 and the clean crop as target; white noise with white noise as target,
where nothing of the picture helps the sweeps to agree.
"""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import skimage

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import jaxtv

IMAGE = pathlib.Path(__file__).parents[1] / "docs" / "images" / "gradients.png"
SWEEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
LAMS = (0.02, 0.05, 0.1, 0.2)
NOISE_LAMS = (0.25, 0.5, 1.0)
EXACT = jaxtv.AcceleratedDykstra(tol=1e-12, max_iterations=100_000)
NAMES = ("y", "gradient in x", "gradient in λ")


def crops(count: int, side: int = 64, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """(noisy, clean) crops of a photo in [0, 1], float64."""
    rng = np.random.default_rng(0)
    photo = skimage.data.camera()[::2, ::2] / 255
    corners = rng.integers(0, photo.shape[0] - side, (count, 2))
    clean = np.stack([photo[i : i + side, j : j + side] for i, j in corners])
    return clean + noise * rng.normal(size=clean.shape), clean


def white_noise(count: int, side: int = 64) -> np.ndarray:
    """(input, target), standard normal."""
    return np.random.default_rng(0).normal(size=(2, count, side, side))


def results(solver, x, target, lam: float) -> tuple[np.ndarray, ...]:
    """Per image, flat: the prox, and the gradients in x and in λ per edge."""
    x, target = jnp.asarray(x), jnp.asarray(target, x.dtype)
    lams = tuple(jnp.full_like(jnp.diff(x, axis=axis), lam) for axis in (1, 2))

    def loss(x, lams):
        y = jaxtv.prox_tv2d(x, lams, axes=(1, 2), solver=solver)
        return 0.5 * jnp.sum((y - target) ** 2), y

    (gx, glam), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, lams)
    flat = [np.asarray(v, np.float64).reshape(len(x), -1) for v in (y, gx, *glam)]
    return flat[0], flat[1], np.concatenate(flat[2:], axis=1)


def differences(found, exact) -> np.ndarray:
    """(3, images): the relative differences of y and of the two gradients."""
    norm = lambda v: np.linalg.norm(v, axis=1)
    return np.stack([norm(f - e) / norm(e) for f, e in zip(found, exact)])


def sweeps(x, target, lams) -> np.ndarray:
    """(λ, K, 3): the differences of `Dykstra(K)`, means over the images."""
    table = []
    for lam in lams:
        exact = results(EXACT, x, target, lam)
        solved = (results(jaxtv.Dykstra(iterations=k), x, target, lam) for k in SWEEPS)
        table.append([differences(found, exact).mean(axis=1) for found in solved])
    return np.array(table)


def tolerances(x, target, lams, dtype) -> np.ndarray:
    """(tol, 2, cases): the differences of both gradients, for every image and λ, in `dtype`."""
    table = []
    for lam in lams:
        exact = results(EXACT, x, target, lam)
        solvers = (jaxtv.AcceleratedDykstra(tol, max_iterations=10_000) for tol in TOLERANCES)
        solved = (results(solver, x.astype(dtype), target, lam) for solver in solvers)
        table.append([differences(found, exact)[1:] for found in solved])
    return np.concatenate(table, axis=-1)


def draw(table: np.ndarray, path: pathlib.Path) -> None:
    """One panel each for y and the two gradients, against K."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
    for i, (axes, name) in enumerate(zip(panels, NAMES)):
        for lam, rows in zip(LAMS, table):
            axes.loglog(SWEEPS, rows[:, i], "o-", markersize=3.5, label=f"λ = {lam:g}")
        axes.set(title=name, xlabel="K, sweeps of Dykstra", ylim=(1e-5, 1.2))
        axes.set_xticks(SWEEPS[::2], [str(k) for k in SWEEPS[::2]])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("relative difference from\nthe converged prox")
    panels[-1].legend(loc="lower left")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def print_sweeps(title: str, lams, table: np.ndarray) -> None:
    for i, name in enumerate(NAMES):
        print(f"\n{title}: Dykstra(K) against the converged prox, {name}")
        print("K", *SWEEPS, sep="\t")
        for lam, rows in zip(lams, table):
            print(f"λ = {lam:g}", *(f"{100 * v:.2f} %" for v in rows[:, i]), sep="\t")


def print_tolerances(title: str, table: np.ndarray) -> None:
    print(f"\n{title}: AcceleratedDykstra(tol); largest difference in x, in λ, cases above 0.1 %")
    for tol, both in zip(TOLERANCES, table):
        x, lam = 100 * both.max(axis=1)
        cases = np.sum(both.max(axis=0) > 1e-3)
        print(f"{tol:g}", f"{x:.2f} %", f"{lam:.2f} %", f"{cases} of {both.shape[1]}", sep="\t")


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    photos, noise = crops(16), white_noise(4)
    table = sweeps(*photos, LAMS)
    draw(table, IMAGE)
    print_sweeps("photos", LAMS, table)
    print_sweeps("white noise", NOISE_LAMS, sweeps(*noise, NOISE_LAMS))
    for dtype in (np.float32, np.float64):
        print_tolerances(f"photos, {dtype.__name__}", tolerances(*photos, LAMS, dtype))


if __name__ == "__main__":
    main()
