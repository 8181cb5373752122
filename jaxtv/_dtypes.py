"""The dtypes of samples, and the dtype that each is computed in."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

SAMPLES = ("float32", "float64", "bfloat16", "float16")


def is_half(dtype: Any) -> bool:
    """Whether samples of this dtype are computed in float32."""
    return dtype in (jnp.bfloat16, jnp.float16)


def compute_dtype(dtype: Any) -> Any:
    """The real dtype that samples of `dtype` are computed in, which is that of their weights."""
    if is_half(dtype):
        return np.dtype("float32")
    return jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else dtype
