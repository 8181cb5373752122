"""A small run of every kernel and its derivatives, for compute-sanitizer."""

import jax
import jax.numpy as jnp

import jaxtv


def main() -> None:
    x = jax.random.normal(jax.random.key(0), (3, 40, 9, 2))
    long = jax.random.normal(jax.random.key(1), (2, 5000))
    edges = jax.random.uniform(jax.random.key(2), (40 - 1, 1, 1))
    solvers = [
        jaxtv.Direct(),
        jaxtv.TautString(),
        jaxtv.Decomposition(),
        jaxtv.ProjectedNewton(),
        jaxtv.ProjectedNewton(line_search="parallel"),
    ]
    for solver in solvers:
        for axis in (1, 2, 3):
            f = lambda x, axis=axis, solver=solver: jnp.sum(
                jaxtv.prox_tv1d(x, 0.3, axis=axis, solver=solver) ** 2
            )
            jax.block_until_ready(jax.grad(f)(x))
        jax.block_until_ready(jaxtv.prox_tv1d(long, 2.0, solver=solver, return_info=True))
    jax.block_until_ready(jax.grad(lambda w: jaxtv.prox_tv1d(x, w, axis=1).std())(edges))
    for axes in ((1, 2), (2, 3), (1, 2, 3)):
        f = lambda x, axes=axes: jnp.sum(jaxtv.prox_tv(x, 0.3, axes=axes) ** 2)
        jax.block_until_ready(jax.jit(jax.hessian(lambda t, f=f: f(t * x)))(jnp.float32(1)))
    print("ran")


if __name__ == "__main__":
    main()
