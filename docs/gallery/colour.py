import matplotlib.pyplot as plt
import numpy as np
import skimage

import jaxtv

clean = skimage.data.astronaut()[:200, 120:320] / 255
noisy = np.float32(clean + 0.2 * np.random.default_rng(0).normal(size=clean.shape))
pictures = {
    "noisy": noisy,
    "separate": jaxtv.prox_tv_isotropic(noisy, 0.25, axes=(0, 1)),
    "coupled": jaxtv.prox_tv_isotropic(noisy, 0.4, axes=(0, 1), channel_axis=-1),
}

figure, axes = plt.subplots(1, 3, figsize=(6, 2.3), layout="constrained")
for ax, (title, picture) in zip(axes, pictures.items()):
    ax.imshow(np.clip(picture, 0, 1))
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig("colour.webp")
