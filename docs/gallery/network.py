import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import skimage
from flax import nnx

import jaxtv

clean = skimage.data.camera()[60:188, 150:278, None] / 255
noisy = np.float32(clean + 0.15 * np.random.default_rng(0).normal(size=clean.shape))


rngs, tv = nnx.Rngs(0), jaxtv.nnx.TVLayer(init_lam=0.05)
first, last = nnx.Conv(1, 8, (3, 3), rngs=rngs), nnx.Conv(8, 1, (3, 3), rngs=rngs)
model = nnx.Sequential(first, tv, last)
optimizer = nnx.Optimizer(model, optax.adam(2e-2), wrt=nnx.Param)
step = nnx.jit(nnx.grad(lambda model: jnp.mean((model(noisy) - clean) ** 2)))
for _ in range(150):
    optimizer.update(model, step(model))

features = first(noisy)
titles = "noisy", "output", "a feature", f"after the TV layer, λ = {tv.lam:.2f}"
pictures = noisy, model(noisy), features, tv(features)
figure, axes = plt.subplots(2, 2, figsize=(6, 6.4), layout="constrained")
for ax, title, picture in zip(axes.flat, titles, pictures):
    ax.imshow(picture[..., 0], cmap="gray")
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig("network.webp")
