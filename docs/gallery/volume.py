import matplotlib.pyplot as plt
import numpy as np

import jaxtv

z, y, x = np.indices((32, 64, 64)) - np.array([15.5, 31.5, 31.5])[:, None, None, None]
clean = 0.5 * (z**2 + y**2 + x**2 < 400) + 0.5 * (4 * z**2 + (y - 8) ** 2 + (x + 5) ** 2 < 80)
noisy = np.float32(clean + 0.5 * np.random.default_rng(0).normal(size=clean.shape))
solver = jaxtv.AcceleratedDykstra(tol=1e-4)
volumes = {
    "noisy": noisy,
    "slice by slice": jaxtv.prox_tv(noisy, 0.7, axes=(1, 2), solver=solver),
    "in 3D": jaxtv.prox_tv(noisy, 0.45, axes=(0, 1, 2), solver=solver),
}

figure, axes = plt.subplots(2, 3, figsize=(6, 3.5), layout="constrained", height_ratios=[2, 1])
for (top, bottom), (title, volume) in zip(axes.T, volumes.items()):
    top.imshow(volume[16], cmap="gray", vmin=-0.2, vmax=1.2)
    bottom.imshow(volume[:, 36], cmap="gray", vmin=-0.2, vmax=1.2)
    top.set(title=title, xticks=[], yticks=[])
    bottom.set(xticks=[], yticks=[])
figure.savefig("volume.webp")
