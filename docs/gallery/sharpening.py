import matplotlib.pyplot as plt
import numpy as np
import skimage

import jaxtv

image = np.float32(skimage.data.coffee()[100:356, 200:456] / 255)
sharp = 2 * image - jaxtv.prox_tv2d(image, 0.15, axes=(0, 1))  # TVLayer(mode="sharp")

figure, axes = plt.subplots(1, 2, figsize=(6, 3.2), layout="constrained")
for ax, picture, title in zip(axes, (image, sharp), ("photo", "2x − prox, λ = 0.15")):
    ax.imshow(np.clip(picture, 0, 1))
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig("sharpening.webp")
