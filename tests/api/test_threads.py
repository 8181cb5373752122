"""Many Python threads at once; on free-threaded builds, without the GIL."""

import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv

THREADS, CALLS = 16, 4


def test_the_native_modules_leave_the_gil_off():
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python has a GIL")
    assert not sys._is_gil_enabled()


def test_sixteen_threads_get_the_bits_of_one():
    """Compilation at the same time, derivatives, and long signals by all of XLA's threads."""
    functions = [
        lambda x: jaxtv.prox_tv1d(x, 0.5),
        lambda x: jaxtv.prox_tv2d(x, 0.2),
        jax.grad(lambda x: jnp.sum(jaxtv.prox_tv2d(x, 0.2) ** 2)),
        lambda x: jaxtv.prox_tv1d(jnp.tile(x.ravel(), 20), 0.5),
    ]
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(40, 50)).astype(np.float32) for _ in range(THREADS)]
    alone = [[np.asarray(jax.jit(f)(x)) for f in functions] for x in inputs]

    def work(i):
        again = jax.jit(lambda x: functions[i % len(functions)](x))  # compiled by this thread
        np.testing.assert_array_equal(again(inputs[i]), alone[i][i % len(functions)])
        for _ in range(CALLS):
            for f, y in zip(functions, alone[i], strict=True):
                np.testing.assert_array_equal(jax.jit(f)(inputs[i]), y)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
