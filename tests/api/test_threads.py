"""Many Python threads at once; on free-threaded builds, without the GIL."""

import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv

THREADS, CALLS = 16, 8


def test_the_native_modules_leave_the_gil_off():
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python has a GIL")
    assert not sys._is_gil_enabled()


def test_sixteen_threads_get_the_bits_of_one():
    """Eager calls, compilation in each thread, derivatives, and long signals by all of XLA's threads."""
    functions = {
        "1D": lambda x: jaxtv.prox_tv1d(x, 0.5),
        "2D": lambda x: jaxtv.prox_tv2d(x, 0.2),
        "gradient": jax.grad(lambda x: jnp.sum(jaxtv.prox_tv2d(x, 0.2) ** 2)),
        "long signal": lambda x: jaxtv.prox_tv1d(jnp.tile(x.ravel(), 20), 0.5),
    }
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(40, 50)).astype(np.float32) for _ in range(THREADS)]
    alone = [{name: np.asarray(f(x)) for name, f in functions.items()} for x in inputs]

    def work(i):
        for call in range(CALLS):
            for name, f in functions.items():
                # A new function is compiled anew.
                y = jax.jit(lambda x, f=f: f(x))(inputs[i]) if call == 0 else f(inputs[i])
                if call:
                    np.testing.assert_array_equal(y, alone[i][name], err_msg=name)
                else:
                    np.testing.assert_allclose(y, alone[i][name], rtol=1e-5, atol=1e-5)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
