"""Lower primitives to the native kernels, with their sharding rules and CUDA scratch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.mlir import ir
from jax.interpreters import mlir

from jaxtv import _native
from jaxtv._dtypes import is_half

# For tests without a GPU: CPU target -> the target of its CUDA kernel, emulated on the CPU.
EMULATED: dict[str, str] = {}


# Shardy names factors i..z, then z_1, z_2, ...
def _factor(index: int) -> str:
    letters = "ijklmnopqrstuvwxyz"
    return letters[index] if index < len(letters) else f"z_{index - len(letters) + 1}"


def sharding_rule(
    operands: Sequence[tuple[int, ...]], results: Sequence[tuple[int, ...]], num_batch_dims: int
) -> str:
    """`sdy.op_sharding_rule` text: leading dims are shared batch factors, all others replicate."""
    sizes: list[int] = list(operands[0][:num_batch_dims])

    def dims(shape):
        names = [_factor(i) for i in range(num_batch_dims)]
        for size in shape[num_batch_dims:]:
            names.append(_factor(len(sizes)))
            sizes.append(size)
        return "[" + ", ".join(names) + "]"

    left = ", ".join(dims(shape) for shape in operands)
    right = ", ".join(dims(shape) for shape in results)
    factors = ", ".join(f"{_factor(i)}={size}" for i, size in enumerate(sizes))
    rule = f"({left})->({right}) {{{factors}}}"
    core = ", ".join(_factor(i) for i in range(num_batch_dims, len(sizes)))
    if core:
        rule += f" need_replication={{{core}}}"
    return f"#sdy.op_sharding_rule<{rule}, custom>"


# ---------------------------------------------------------------------------- CUDA workspaces
# CUDA handlers do not allocate: their scratch is one more result, of uint8 and shape
# [batch dims..., bytes], which the lowering adds and drops. Here are the bytes per batch element,
# by target, as a function of operand shapes, parameters and the bytes of a sample (itemsize; half
# types have states and sums of float32); the handlers check that they suffice.


def _segment_workspace(shapes: Sequence[tuple[int, ...]], *, axis: int, **_) -> int:
    """One link of 40 bytes per chunk of at least 256 samples (cuda/segments/segments.cu)."""
    y = shapes[0]
    return 8 + _links(math.prod(y[axis + 1 :]), y[axis])


def _links(signals: int, n: int) -> int:
    # Twice the chunks but one: that is none for short signals, without asking which are.
    return signals * ((n + 255) // 256 - 1) * 2 * 40


def _in_shared_memory(x: tuple[int, ...], axes: tuple[int, ...], pixel: int) -> bool:
    """Whether one kernel does all sweeps on every device: images of `pixel` bytes per sample fit.

    The least shared memory of the architectures that are built (7.5) is 64 KiB; see
    cuda/dykstra/image.cuh for the odd row pitch.
    """
    if len(axes) != 2:
        return False
    a, b = (x[axis] for axis in axes)
    return max(a * (b | 1), b * (a | 1)) <= 65536 // pixel


def _states(x: tuple[int, ...], axes: tuple[int, ...], itemsize: int) -> int:
    """A float array per axis; half types need one more."""
    arrays = len(axes) + (itemsize == 2)
    return arrays * math.prod(x[min(axes) :]) * max(itemsize, 4)


def _dykstra_derivative_workspace(
    shapes: Sequence[tuple[int, ...]], *, axes: tuple[int, ...], itemsize: int, **_
) -> int:
    """The states, and the links of one pass (cuda/dykstra/derivatives.cu)."""
    x = shapes[1]
    if _in_shared_memory(x, axes, 2 * max(itemsize, 4) + 1):
        return 8
    size = math.prod(x[min(axes) :])
    links = max(_links(size // max(1, x[a]), x[a]) for a in axes)
    return 8 + links + (_states(x, axes, itemsize) if len(axes) > 1 else 0)


def _prox1d_workspace(shapes: Sequence[tuple[int, ...]], *, axis: int, solver: Any, **_) -> int:
    """An upper bound of prox_workspace in cuda/prox1d/prox1d.cu, whatever kernel it picks."""
    x = shapes[0]
    n, signals = x[axis], math.prod(x[axis + 1 :])
    method = type(solver).__name__
    if method == "ProjectedNewton":
        return 8 + (signals * 26 * n if n > 1024 else 0)
    if method == "Direct" and solver.kernel == "taut_string":
        return 8 + (signals * n if n > 256 else 0)
    if n <= 1024:
        return 8
    grid = n + 256 + 160 * ((n + 2047) // 2048) if n >= 32768 else 0
    return 8 + signals * (9 * n + grid)


def _dykstra_workspace(
    shapes: Sequence[tuple[int, ...]], *, axes: tuple[int, ...], itemsize: int, inner: Any, **_
) -> int:
    """What the 1D kernels need, states, weights of an axis and a flag (cuda/dykstra/dykstra.cu)."""
    x, lead, size = shapes[0], min(axes), max(itemsize, 4)
    newton = type(inner).__name__ == "ProjectedNewton"
    if not newton and _in_shared_memory(x, axes, 10):
        return 8
    per_axis = [math.prod(x[lead:a]) * _prox1d_workspace([x], axis=a, solver=inner) for a in axes]
    weights = math.prod(x[lead:]) * size
    return 17 + max(per_axis) + _states(x, axes, itemsize) + weights


def _components_workspace(
    shapes: Sequence[tuple[int, ...]],
    *,
    axes: tuple[int, ...],
    edge: tuple[bool, ...] | None = None,
    **_,
) -> int:
    """A sum of 24 bytes per sample and per summed signal, and labels (cuda/components)."""
    x = shapes[1]
    size = math.prod(x[min(axes) :])
    summed = [a for a, per_edge in zip(axes, edge or ()) if not per_edge and x[a] > 1]
    return 8 + 28 * size + 24 * max((size // x[a] for a in summed), default=0)


WORKSPACES: dict[str, Callable[..., int]] = {
    "jaxtv_prox1d": _prox1d_workspace,
    "jaxtv_prox1d_info": _prox1d_workspace,
    "jaxtv_segment_jvp": _segment_workspace,
    "jaxtv_segment_vjp": _segment_workspace,
    "jaxtv_dykstra": _dykstra_workspace,
    "jaxtv_dykstra_with_codes": _dykstra_workspace,
    "jaxtv_dykstra_jvp": _dykstra_derivative_workspace,
    "jaxtv_dykstra_vjp": _dykstra_derivative_workspace,
    "jaxtv_components_jvp": _components_workspace,
    "jaxtv_components_vjp": _components_workspace,
}


def _missing_cuda(target: str) -> RuntimeError:
    return RuntimeError(
        f"{target}: this jax has its CUDA plugin, but jaxtv was built without CUDA kernels. Build "
        "them with `pip install -C cmake.define.JAXTV_CUDA=ON jaxtv --no-binary jaxtv` (needs the "
        "CUDA toolkit's nvcc; from a checkout: `pip install -C cmake.define.JAXTV_CUDA=ON .`), or "
        "set JAXTV_FALLBACK=1 to run the slow pure-JAX implementation."
    )


# ---------------------------------------------------------------------------- lowering


def _use_fallback(platform: str, target: str) -> bool:
    """Whether to lower to pure JAX: asked for, or a platform without kernels (or CUDA plugin).

    Raises:
        RuntimeError: jax runs on CUDA here but the kernels, or this one, were not built.
    """
    if _native.FALLBACK:
        return True
    if platform == "cuda" and "cuda" not in _native.REGISTERED and _native.has_cuda_plugin():
        raise _missing_cuda(target)
    if platform not in _native.REGISTERED:
        return True
    if target not in _native.REGISTERED[platform]:
        built = ", ".join(_native.REGISTERED[platform])
        raise RuntimeError(
            f"{target} is not among the {platform} kernels of this build of jaxtv ({built}): the "
            "native module is older than the Python code. Build it again with `pip install .`, "
            "or set JAXTV_FALLBACK=1."
        )
    return False


def native_lowering(
    target: str,
    fallback: Callable,
    in_float32: Callable,
    num_batch_dims: Callable[..., int],
    attributes: Callable[..., dict[str, Any]],
    platform: str = "cpu",
) -> Callable:
    """Lowering rule that calls an FFI target and tells XLA how it is sharded.

    The CPU kernels know no half types: `in_float32` binds the primitive again, in float32.

    XLA keeps a batch-sharded call free of collectives only if the target is registered as batch
    partitionable, and the call has `num_batch_dims`, and it has a sharding rule: all three. A rule
    is text whose sizes are int32, so there is none for a longer axis.
    """

    def rule(ctx, *args, **params):
        if _use_fallback(platform, target):
            return mlir.lower_fun(fallback, multiple_results=True)(ctx, *args, **params)
        emulated = EMULATED.get(target) if platform == "cpu" else None
        on_cuda = platform == "cuda" or emulated is not None
        if not on_cuda and any(is_half(a.dtype) for a in ctx.avals_in):
            return mlir.lower_fun(in_float32, multiple_results=True)(ctx, *args, **params)
        batch, results = num_batch_dims(**params), len(ctx.avals_out)
        if on_cuda and target in WORKSPACES:
            ctx = _with_workspace(ctx, target, batch, params)
        lower = jax.ffi.ffi_lowering(emulated or target, extra_attributes=_sharding(ctx, batch))
        return lower(ctx, *args, **attributes(**params))[:results]

    return rule


def _with_workspace(ctx, target: str, batch: int, params: dict[str, Any]):
    """The context of a call with one more result: the scratch of its CUDA kernels."""
    shapes, y = [aval.shape for aval in ctx.avals_in], ctx.avals_out[0]
    size = WORKSPACES[target](shapes, itemsize=y.dtype.itemsize, **params)
    scratch = y.update(shape=(*shapes[0][:batch], size), dtype=np.dtype("uint8"))
    return ctx.replace(avals_out=[*ctx.avals_out, scratch])


def _sharding(ctx, batch: int) -> dict[str, Any] | None:
    """Attributes that keep a call with sharded batch dims free of collectives."""
    operands, results = ([aval.shape for aval in avals] for avals in (ctx.avals_in, ctx.avals_out))
    sizes = (d for shape in (*operands, *results) for d in shape)
    if batch == 0 or not all(isinstance(d, int) and d < 2**31 for d in sizes):
        return None
    rule = sharding_rule(operands, results, batch)
    return {
        "mhlo.frontend_attributes": mlir.ir_attribute({"num_batch_dims": str(batch)}),
        "sdy.sharding_rule": ir.Attribute.parse(rule),
    }
