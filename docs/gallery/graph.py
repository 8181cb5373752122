import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial import Delaunay

import jaxtv

rng = np.random.default_rng(0)
points = rng.uniform(size=(1500, 2))
triangles = Delaunay(points).simplices
pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
graph = jaxtv.Graph(np.unique(np.sort(pairs, axis=1), axis=0), num_nodes=1500)
clean = np.hypot(*(points - 0.5).T) < 0.3
noisy = np.float32(clean + 0.5 * rng.normal(size=1500))
result = jaxtv.prox_graph_tv(noisy, 0.5, graph)

figure, axes = plt.subplots(1, 2, figsize=(6, 3.2), layout="constrained")
for ax, values, title in zip(axes, (noisy, result), ("noisy", "prox_graph_tv, λ = 0.5")):
    ax.tripcolor(*points.T, triangles, values, shading="gouraud", vmin=-0.3, vmax=1.3)
    ax.set(title=title, xticks=[], yticks=[], aspect="equal")
figure.savefig("graph.webp")
