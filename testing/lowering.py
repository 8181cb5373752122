"""What the library's functions are lowered to, for the tests of one process."""

import contextlib

import jax

from jaxtv import _native

# Part of the keys of JAX's caches: no implementation sees what was compiled for another one, and nothing
# has to be compiled again.
implementation = jax.make_user_context("kernels")


@contextlib.contextmanager
def plain_jax(on=True):
    """Lowers every primitive to plain JAX, as on a platform without kernels."""
    if not on:
        yield
        return
    before, _native.FALLBACK = _native.FALLBACK, True
    try:
        with implementation("plain JAX"):
            yield
    finally:
        _native.FALLBACK = before
