import matplotlib.pyplot as plt
import numpy as np
import skimage

import jaxtv

photo = np.float32(skimage.data.camera()[60:220, 150:310] / 255)
known = np.float32(np.random.default_rng(0).random(photo.shape) < 0.3)  # 0 = missing
solver = jaxtv.AcceleratedDykstra(tol=1e-4)
result = jaxtv.prox_tv2d(known * photo, 0.01, data_weight=known, solver=solver)

figure, axes = plt.subplots(1, 2, figsize=(6, 3.2), layout="constrained")
for ax, image, title in zip(axes, (known * photo, result), ("30 % of the pixels", "data_weight")):
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig("inpainting.webp")
