import matplotlib.pyplot as plt
import numpy as np
import skimage

import jaxtv

photo = np.float32(skimage.data.camera()[60:220, 150:310] / 255)
pictures = {
    "photo": photo,
    "anisotropic": jaxtv.prox_tv2d(photo, 0.3, solver=jaxtv.AcceleratedDykstra()),
    "isotropic": jaxtv.prox_tv_isotropic(photo, 0.4, axes=(0, 1)),
}

figure, axes = plt.subplots(1, 3, figsize=(6, 2.3), layout="constrained")
for ax, (title, picture) in zip(axes, pictures.items()):
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig("isotropic.webp")
