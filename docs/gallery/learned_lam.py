import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxtv

rng = np.random.default_rng(0)
clean = np.repeat(rng.normal(size=(50, 8)), 25, axis=1)  # 50 signals of 200 samples
noisy = np.float32(clean + 0.4 * rng.normal(size=clean.shape))
loss = lambda log_lam: jnp.mean((jaxtv.prox_tv1d(noisy, jnp.exp(log_lam)) - clean) ** 2)

path = [jnp.log(0.05)]
for _ in range(25):
    path.append(path[-1] - 8 * jax.grad(loss)(path[-1]))  # exact derivative

figure, (left, right) = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
grid = jnp.linspace(-3.5, 2, 60)
left.plot(jnp.exp(grid), [loss(log_lam) for log_lam in grid])
left.plot(jnp.exp(jnp.array(path)), [loss(log_lam) for log_lam in path], "o-", markersize=3)
left.set(xscale="log", xlabel="λ", title="squared error and steps")
right.plot(noisy[0], ".", color="0.7", markersize=3)
right.plot(jaxtv.prox_tv1d(noisy[0], jnp.exp(path[-1])))
right.set(title=f"λ = {jnp.exp(path[-1]):.2f}", xlabel="sample")
figure.savefig("learned_lam.webp")
