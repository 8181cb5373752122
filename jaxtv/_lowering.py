"""Lower primitives to the native kernels, with their sharding rules and CUDA scratch."""

from __future__ import annotations

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
    """Text of an `sdy.op_sharding_rule` for the shapes of a call's operands and results.

    The first `num_batch_dims` dims may be sharded, all in the same way. All others are replicated.
    """
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


def _missing_cuda(target: str) -> RuntimeError:
    return RuntimeError(
        f"{target}: this jax has its CUDA plugin, but jaxtv has no CUDA kernels. Install them: "
        f"{_native.install_cuda()}. Or set JAXTV_FALLBACK=1 to run the slow implementation in "
        "pure JAX."
    )


# ---------------------------------------------------------------------------- lowering


def _native_target(platform: str, target: str, has_kernel: bool) -> str | None:
    """The FFI target to call; None for plain JAX: it was asked for, or there is no kernel.

    Raises:
        RuntimeError: jax runs on CUDA here but the kernels, or this one, were not built.
    """
    if _native.FALLBACK:
        return None
    if platform == "cpu" and EMULATED:
        return EMULATED.get(target)
    if not has_kernel:
        return None
    if platform == "cuda" and "cuda" not in _native.REGISTERED and _native.jax_cuda() is not None:
        raise _missing_cuda(target)
    if platform not in _native.REGISTERED:
        return None
    if target not in _native.REGISTERED[platform]:
        built = ", ".join(_native.REGISTERED[platform])
        raise RuntimeError(
            f"{target} is not among the {platform} kernels of this build of jaxtv ({built}): the "
            "native module is older than the Python code. Build it again with `pip install .`, "
            "or set JAXTV_FALLBACK=1."
        )
    return target


def native_lowering(
    target: str,
    fallback: Callable,
    in_float32: Callable,
    num_batch_dims: Callable[..., int],
    attributes: Callable[..., dict[str, Any]],
    in_place: dict[int, int],
    platform: str,
    has_kernel: bool,
) -> Callable:
    """Lowering rule that calls an FFI target and tells XLA how it may be sharded.

    Whether kernels are used is decided when the rule runs, not when it is made. `fallback` is the
    primitive in plain JAX. The CPU kernels know no half types: `in_float32` binds the primitive
    again, in float32. `in_place`: operands that the kernel updates -> the results they become.

    XLA keeps a batch-sharded call free of collectives only if all three hold: the target is
    registered as batch partitionable (`_native.py`), the call has the attribute `num_batch_dims`,
    and it has a sharding rule. Sizes in a rule are int32, so a call with a longer axis has no rule.
    """

    def rule(ctx, *args, **params):
        native = _native_target(platform, target, has_kernel)
        if native is None:
            return mlir.lower_fun(fallback, multiple_results=True)(ctx, *args, **params)
        emulated = native != target
        on_cuda = platform == "cuda" or emulated
        if not on_cuda and any(is_half(a.dtype) for a in ctx.avals_in):
            return mlir.lower_fun(in_float32, multiple_results=True)(ctx, *args, **params)
        batch, results = num_batch_dims(**params), len(ctx.avals_out)
        if on_cuda:
            scratch_bytes = _native.SCRATCH_BYTES["emulated" if emulated else "cuda"]
            method = int(attributes(**params).get("method", 0))
            ctx = _with_scratch(ctx, target, scratch_bytes, batch, method, **params)
        lower = jax.ffi.ffi_lowering(
            native, extra_attributes=_sharding(ctx, batch), operand_output_aliases=in_place
        )
        return lower(ctx, *args, **attributes(**params))[:results]  # without the scratch

    return rule


def _with_scratch(
    ctx,
    target: str,
    scratch_bytes: Callable[..., int],
    batch: int,
    method: int,
    *,
    axis: int | None = None,
    axes: Sequence[int] = (),
    edge: Sequence[bool] = (),
    **_,
):
    """The context of a call with one more result: the scratch of its CUDA kernels.

    The kernels do not allocate. Their scratch is an array of uint8 of shape [batch dims..., bytes];
    C++ says how many bytes (cuda/scratch.hpp). The first result of every primitive has the shape of
    the samples.
    """
    y = ctx.avals_out[0]
    shape = y.shape[batch:]
    if not all(isinstance(d, int) for d in shape):
        raise ValueError(
            f"{target}: got samples of shape {y.shape}. On CUDA only the dimensions before the "
            "first prox axis may be symbolic: the kernels' scratch follows from the others."
        )
    core_axes = [a - batch for a in ((axis,) if axis is not None else axes)]
    size = scratch_bytes(target, list(shape), core_axes, y.dtype.itemsize, method, list(edge))
    scratch = y.update(shape=(*y.shape[:batch], size), dtype=np.dtype("uint8"))
    return ctx.replace(avals_out=[*ctx.avals_out, scratch])


def _sharding(ctx, batch: int) -> dict[str, Any] | None:
    """Attributes that keep a call with sharded batch dims free of collectives.

    None without batch dims, or if a size is symbolic or does not fit into int32.
    """
    operands, results = ([aval.shape for aval in avals] for avals in (ctx.avals_in, ctx.avals_out))
    sizes = (d for shape in (*operands, *results) for d in shape)
    if batch == 0 or not all(isinstance(d, int) and d < 2**31 for d in sizes):
        return None
    rule = sharding_rule(operands, results, batch)
    return {
        "mhlo.frontend_attributes": mlir.ir_attribute({"num_batch_dims": str(batch)}),
        "sdy.sharding_rule": ir.Attribute.parse(rule),
    }
