import matplotlib.pyplot as plt
import numpy as np

import jaxtv

rng = np.random.default_rng(5)
levels = np.cumsum(rng.choice([-1, 1], 10) * rng.uniform(0.7, 1.4, 10))
clean = np.repeat(levels, rng.integers(20, 80, 10))
x = np.float32(clean + 0.3 * rng.normal(size=clean.size))
y = np.asarray(jaxtv.prox_tv1d(x, 2.0))
changes = np.flatnonzero(np.abs(np.diff(y)) > 0.2) + 1  # elsewhere y is exactly constant

figure, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
ax.plot(x, ".", color="0.7", markersize=3)
ax.step(np.arange(x.size), y, where="mid")
ax.vlines(changes, *ax.get_ylim(), color="C3", linewidth=0.8, linestyle="--")
ax.set(title=f"{len(changes)} change points found, of 9", xlabel="sample")
figure.savefig("change_points.webp")
