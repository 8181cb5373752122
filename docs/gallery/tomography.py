import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import skimage

import jaxtv

phantom = jnp.asarray(skimage.data.shepp_logan_phantom()[::4, ::4], jnp.float32)  # 100 × 100
grid = jnp.stack(jnp.meshgrid(*2 * [jnp.arange(100) - 49.5], indexing="ij"))


def view(image, angle):  # sums along the rows of the turned picture
    c, s = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.tensordot(jnp.array([[c, s], [-s, c]]), grid, 1) + 49.5
    return jax.scipy.ndimage.map_coordinates(image, list(turned), order=1).sum(0)


angles = jnp.pi * jnp.arange(20) / 20
radon = lambda image: jax.vmap(view, (None, 0))(image, angles)
back = jax.linear_transpose(radon, phantom)
data = radon(phantom) + 0.3 * np.random.default_rng(0).normal(size=(20, 100))
tau = 5e-4  # 1 / ‖radon‖²
solver = jaxtv.AcceleratedDykstra(tol=1e-4)
proxes = {
    "least squares": lambda y: y,
    "anisotropic": lambda y: jaxtv.prox_tv2d(y, 2 * tau, solver=solver),
    "isotropic": lambda y: jaxtv.prox_tv_isotropic(y, 2 * tau, axes=(0, 1)),
}


def reconstruct(prox):
    step = lambda _, y: prox(y - tau * back(radon(y) - data)[0])
    return jax.lax.fori_loop(0, 400, step, jnp.zeros_like(phantom))


figure, axes = plt.subplots(1, 3, figsize=(6, 2.3), layout="constrained")
for ax, (title, prox) in zip(axes, proxes.items()):
    ax.imshow(reconstruct(prox), cmap="gray", vmin=0, vmax=1)
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig("tomography.webp")
