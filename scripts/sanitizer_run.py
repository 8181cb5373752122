"""A small run of every CUDA kernel, for compute-sanitizer (scripts/gpu_check.sh)."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv

SHORT = [(3, 40, 9, 2), (70, 33)]  # tiles of signals
LONG = [(2, 200), (2, 700), (2, 1500), (1, 33_000)]  # a warp, a block, a wide block, the grid
PARALLEL = jaxtv.ProjectedNewton(line_search="parallel")
IMAGES = [  # shape, axes: in shared memory, channels last, 3D, a long axis, too large for that
    ((2, 9, 8), (1, 2)),
    ((2, 9, 8, 5), (1, 2)),
    ((2, 5, 6, 4), (1, 2, 3)),
    ((2, 90, 2, 3), (1, 2, 3)),
    ((2, 1500, 3, 2), (1, 2, 3)),
    ((1, 160, 170), (1, 2)),
]
COLOURS = [  # shape, axes, channel axis: one to three channels, volumes, any numbers of both
    ((2, 40, 9), (1, 2), None),
    ((2, 9, 8, 2), (1, 2), 3),
    ((2, 9, 8, 3), (1, 2), 3),
    ((2, 4, 5, 6), (1, 2, 3), None),
    ((2, 5, 70), (2,), 1),
]


def run(prox, shape, lam, dtype=np.float32):
    """The prox of noise with its tangent and its adjoint."""
    random = np.random.default_rng(0)
    x, t = (random.normal(size=shape).astype(dtype) for _ in range(2))

    @jax.jit
    def everything(x, lam, t):
        y, pull = jax.vjp(prox, x, lam)
        return y, pull(t), jax.jvp(prox, (x, lam), (t, lam))

    jax.block_until_ready(everything(x, lam, t))


def per_edge(shape, axis):
    """λ of the edges along an axis, one for all signals."""
    return np.full([n - (a == axis) for a, n in enumerate(shape)], 0.3, np.float32)


def main() -> None:
    """Every solver by every kernel, λ per signal and per edge; 2D and 3D."""
    lam = np.float32(0.3)
    exact = [jaxtv.Direct(), jaxtv.Direct("taut_string"), jaxtv.Direct("decomposition")]
    for shape in SHORT + LONG:
        long = shape in LONG
        solvers = exact if shape[-1] < 2000 else exact[:1]
        for solver in solvers:
            for axis in (-1,) if long else (1, -1):
                weights = np.full(shape[axis] - 1, 0.3, np.float32)
                along = weights.reshape(
                    -1, *(1,) * (-1 - axis if axis < 0 else len(shape) - 1 - axis)
                )
                for w in (lam, along):
                    run(
                        lambda x, w, a=axis, s=solver: jaxtv.prox_tv1d(x, w, axis=a, solver=s),
                        shape,
                        w,
                    )
    for shape in LONG[:3]:
        run(lambda x, w: jaxtv.prox_tv1d(x, w, data_weight=jax.nn.relu(x + 1)), shape, lam)
    for shape in (SHORT[-1], *LONG[:3]):
        for solver in (jaxtv.ProjectedNewton(), PARALLEL):
            run(lambda x, w, s=solver: jaxtv.prox_tv1d(x, w, solver=s), shape, lam)
    taut = jaxtv.Direct("taut_string")  # longer than a tile
    run(lambda x, w: jaxtv.prox_tv1d(x, w, axis=0, solver=taut), (1500, 9), lam)
    for shape in LONG:
        x = np.ones(shape, np.float32)
        jax.block_until_ready(jaxtv.prox_tv1d(x, lam, return_info=True))
    for shape, axes in IMAGES:
        run(lambda x, w, a=axes: jaxtv.prox_tv(x, w, axes=a), shape, lam)
    converged = jaxtv.AcceleratedDykstra(max_iterations=4)
    for shape in ((2, 9, 8, 5), (2, 30, 1), (1, 33, 40)):
        for w in (lam, tuple(per_edge(shape, a) for a in (1, 2))):
            run(lambda x, w: jaxtv.prox_tv(x, w, axes=(1, 2), solver=converged), shape, w)
    for shape, axes, channel in COLOURS:
        options = {"axes": axes, "channel_axis": channel, "solver": jaxtv.FGP(max_iterations=30)}
        run(lambda x, w, o=options: jaxtv.prox_tv_isotropic(x, w, **o), shape, lam)
    for shape in (*SHORT, *LONG):
        run(lambda x, w: jaxtv.prox_tv1d(x, w), shape, lam, jnp.bfloat16)
        jax.block_until_ready(jaxtv.prox_tv1d(jnp.ones(shape, jnp.bfloat16), lam))  # no derivative
    print("ran")


if __name__ == "__main__":
    main()
