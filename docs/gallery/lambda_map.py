import matplotlib.pyplot as plt
import numpy as np
import skimage

import jaxtv

clean = skimage.data.camera()[60:220, 150:310] / 255
noisy = np.float32(clean + 0.1 * np.random.default_rng(0).normal(size=clean.shape))
guide = skimage.filters.gaussian(noisy, 1.5)  # small λ across its edges
down, right = (0.3 * np.exp(-np.abs(np.diff(guide, axis=axis)) / 0.03) for axis in (0, 1))
pictures = {
    "noisy": noisy,
    "λ between columns": right,
    "one λ = 0.12": jaxtv.prox_tv2d(noisy, 0.12),
    "λ map": jaxtv.prox_tv2d(noisy, (np.float32(down), np.float32(right))),
}

figure, axes = plt.subplots(2, 2, figsize=(6, 6.4), layout="constrained")
for ax, (title, picture) in zip(axes.flat, pictures.items()):
    ax.imshow(picture, cmap="gray", vmin=0, vmax=0.3 if "between" in title else 1)
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig("lambda_map.webp")
