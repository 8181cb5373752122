"""What a solution says about the edge between two neighbours, in 2 bits, and how they are stored.

The derivatives need nothing else of a solution. Arrays of packed codes have the shape of the
samples, with the bytes of a sample as one more dimension before the first of the axes. A pass (the
solutions along one axis) has 2 bits of a byte, four passes share one: pass p has the bits
[2 (p % 4), 2 (p % 4) + 2) of byte p // 4. The code of an edge is stored with the sample before it;
the last sample of a signal has SEPARATE. include/jaxtv/edge_code.hpp is the same in C++.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

INSIDE = 0  # inside a segment: equal neighbours, joined by a weight > 0
JUMP_UP = 1  # the dual is at +weight
JUMP_DOWN = 2  # the dual is at -weight
SEPARATE = 3  # no jump and not joined: weight 0, no solution (NaN), or no edge

BITS, MASK, PASSES_PER_BYTE = 2, 3, 4


def packed_shape(shape: Sequence[int], axes: Sequence[int], passes: int) -> tuple[int, ...]:
    """Shape of the packed codes of samples of `shape`."""
    first = min(axes)
    return (*shape[:first], -(-passes // PASSES_PER_BYTE), *shape[first:])


def encode(z: Array, w: Array, axis: int) -> Array:
    """uint8 codes, shaped as z, of a solution z along `axis` with weights w."""
    zeros = jnp.zeros_like(z, jnp.uint8)  # without an edge only they have z's manual axes
    z, w = jnp.moveaxis(z, axis, -1), jnp.moveaxis(w, axis, -1)
    left, right = z[..., :-1], z[..., 1:]
    code = jnp.where(w > 0, jnp.uint8(INSIDE), jnp.uint8(SEPARATE))
    code = jnp.where(right > left, jnp.uint8(JUMP_UP), code)
    code = jnp.where(right < left, jnp.uint8(JUMP_DOWN), code)
    return zeros | _with_last_sample(jnp.moveaxis(code, -1, axis), axis)


def of_inside(inside: Array, axis: int) -> Array:
    """uint8 codes of edges (size n - 1 along `axis`) that are inside a segment or separate."""
    code = jnp.where(inside, jnp.uint8(INSIDE), jnp.uint8(SEPARATE))
    return _with_last_sample(code, axis)


def _with_last_sample(code: Array, axis: int) -> Array:
    pad = [(0, int(a == axis)) for a in range(code.ndim)]
    return jnp.pad(code, pad, constant_values=SEPARATE)


def decode(code: Array, axis: int, dtype) -> tuple[Array, Array]:
    """(inside, sign of the jump) of each edge, of size n - 1 along `axis`."""
    code = jax.lax.slice_in_dim(code, 0, code.shape[axis] - 1, axis=axis)
    sign = (code == JUMP_UP).astype(dtype) - (code == JUMP_DOWN).astype(dtype)
    return code == INSIDE, sign


def _shift(index: Array) -> Array:
    return (BITS * (index % PASSES_PER_BYTE)).astype(jnp.uint8)


def empty(x: Array, axes: Sequence[int], passes: int) -> Array:
    """Zeros for the codes of `passes` passes over x; they inherit its sharding and manual axes."""
    first = min(axes)
    one_byte = jnp.zeros_like(jnp.expand_dims(x, first), jnp.uint8)
    return jnp.repeat(one_byte, packed_shape(x.shape, axes, passes)[first], axis=first)


def store(packed: Array, index: Array, code: Array, axes: Sequence[int]) -> Array:
    """`packed` with the codes of pass `index`, whose bits were zero."""
    byte, first = index // PASSES_PER_BYTE, min(axes)
    old = jax.lax.dynamic_index_in_dim(packed, byte, first, keepdims=False)
    return jax.lax.dynamic_update_index_in_dim(packed, old | (code << _shift(index)), byte, first)


def load(packed: Array, index: Array, axes: Sequence[int]) -> Array:
    """uint8 codes of pass `index`, shaped as the samples."""
    byte, first = index // PASSES_PER_BYTE, min(axes)
    codes = jax.lax.dynamic_index_in_dim(packed, byte, first, keepdims=False)
    return (codes >> _shift(index)) & jnp.uint8(MASK)


def pack(codes: Sequence[Array], axes: Sequence[int]) -> Array:
    """The codes of one pass along each axis, packed."""
    packed = empty(codes[0], axes, len(axes))
    for index, code in enumerate(codes):
        packed = store(packed, jnp.int32(index), code, axes)
    return packed


def unpack(packed: Array, axes: Sequence[int], dtype) -> tuple[list[Array], list[Array]]:
    """(inside, sign of the jump) of the edges along each axis, from what `pack` has stored."""
    codes = [load(packed, jnp.int32(i), axes) for i in range(len(axes))]
    inside, sign = zip(*(decode(c, a, dtype) for c, a in zip(codes, axes)))
    return list(inside), list(sign)
