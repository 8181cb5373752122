import matplotlib.pyplot as plt
import numpy as np
import skimage

import jaxtv

clean = skimage.data.camera()[60:316, 120:376] / 255
noisy = np.float32(clean + 0.1 * np.random.default_rng(0).normal(size=clean.shape))
result = jaxtv.prox_tv2d(noisy, 0.12)

figure, axes = plt.subplots(1, 2, figsize=(6, 3.2), layout="constrained")
for ax, image, title in zip(axes, (noisy, result), ("noisy", "prox_tv2d, λ = 0.12")):
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig("denoising.webp")
