import matplotlib.pyplot as plt
import numpy as np

import jaxtv

t = np.linspace(0, 1, 240)
clean = np.interp(t, [0, 0.3, 0.5, 0.8, 1], [0, 0.6, 0.1, 0.4, 1])
x = np.float32(clean + 0.08 * np.random.default_rng(0).normal(size=t.size))
fits = {
    "prox_tv1d, λ = 0.7": jaxtv.prox_tv1d(x, 0.7),
    "trend_filter, λ = 10": jaxtv.trend_filter(x, 10.0),
}

figure, axes = plt.subplots(1, 2, figsize=(6, 3), layout="constrained", sharey=True)
for ax, (title, fit) in zip(axes, fits.items()):
    ax.plot(t, x, ".", color="0.7", markersize=3)
    ax.plot(t, fit)
    ax.set(title=title)
figure.savefig("trend.webp")
