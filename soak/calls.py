"""Calls of the FFI targets: one of each, how to corrupt it, and which calls are still right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv
from jaxtv import _native

SHAPE = (3, 4, 6)
DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool", "bfloat16", "complex64")
INTEGERS = (-(2**63), -7, -1, 0, 1, 2, 3, 9)  # no large ones: 2^31 - 1 sweeps are right
FLOATS = (np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-300, 1.0)


def good_calls() -> list[dict]:
    """One call of every target, recorded while the library lowers it.

    Its name, ins and outs (lists of (shape, dtype)), and attributes.
    """
    calls, lowering = {}, jax.ffi.ffi_lowering

    def recording(name, **options):
        lower = lowering(name, **options)

        def rule(ctx, *args, **attributes):
            ins, outs = (
                [(a.shape, str(a.dtype)) for a in avals] for avals in (ctx.avals_in, ctx.avals_out)
            )
            calls[name] = {"name": name, "ins": ins, "outs": outs, "attributes": attributes}
            return lower(ctx, *args, **attributes)

        return rule

    x = jnp.ones(SHAPE, jnp.float32)
    lam = jnp.float32(0.3)
    proxes = [
        lambda x, lam: jaxtv.prox_tv_isotropic(x, lam, axes=(1, 2)),
        lambda x, lam: jaxtv.prox_tv1d(x, lam, axis=1),
        lambda x, lam: jaxtv.prox_tv1d(x, lam, return_info=True)[0],
        lambda x, lam: jaxtv.prox_tv1d(x, lam, axis=1, data_weight=jnp.abs(x)),
        lambda x, lam: jaxtv.prox_tv2d(x, lam, axes=(1, 2)),
        lambda x, lam: jaxtv.prox_tv2d(x, lam, axes=(1, 2), solver=jaxtv.AcceleratedDykstra()),
    ]
    jax.ffi.ffi_lowering = recording
    for f in proxes:
        jax.jit(f).lower(x, lam)
        jax.jit(lambda x, lam, f=f: jax.jvp(f, (x, lam), (x, lam))).lower(x, lam)
        jax.jit(lambda x, lam, f=f: jax.vjp(f, x, lam)[1](x)).lower(x, lam)
    jax.ffi.ffi_lowering = lowering
    if missing := set(_native.REGISTERED["cpu"]) - set(calls):
        raise RuntimeError(f"no call recorded of {missing}")
    return [calls[name] for name in sorted(calls)]


def corrupt_array(r, arrays: list) -> list:
    """One operand or result gone, doubled, or with another shape or dtype."""
    at = int(r.integers(len(arrays)))
    shape, dtype = arrays[at]
    change = r.integers(5)
    if change == 0:
        return arrays[:at] + arrays[at + 1 :]
    if change == 1:
        return [*arrays[: at + 1], *arrays[at:]]
    if change == 2:
        return [*arrays[:at], (shape, str(r.choice(DTYPES))), *arrays[at + 1 :]]
    if change == 3:
        shape = tuple(int(n) for n in r.choice([0, 1, 2, 5, 7, 300], size=r.integers(0, 6)))
    else:
        other = int(r.choice([0, 1, 2, 5, 7, 300]))
        shape = tuple(other if r.random() < 0.5 else n for n in shape)
    return [*arrays[:at], (shape, dtype), *arrays[at + 1 :]]


def corrupt_attribute(r, attributes: dict) -> dict:
    """One attribute gone, of another type, or with a value that it may not have."""
    if not attributes:
        return {"axis": np.int64(0)}
    name = str(r.choice(sorted(attributes)))
    values = [
        np.int64(r.choice(INTEGERS)),
        np.float64(r.choice(FLOATS)),
        r.choice(INTEGERS, size=r.integers(0, 5)),
        np.int32(1),
        "text",
    ]
    rest = {k: v for k, v in attributes.items() if k != name}
    return rest if r.random() < 0.15 else rest | {name: values[r.integers(len(values))]}


def corrupted(r, call: dict) -> dict:
    """The call with one to three things wrong (or, by chance, only different)."""
    call = dict(call)
    for _ in range(r.integers(1, 4)):
        part = r.choice(["ins", "outs", "attributes"])
        if part == "attributes":
            call[part] = corrupt_attribute(r, call[part])
        elif call[part]:
            call[part] = corrupt_array(r, call[part])
    return call


# ---------------------------------------------------------------------------- what is right
# By what the targets promise, not by their code. An array is (shape, dtype).

Array = tuple[tuple[int, ...], str]
Rule = Callable[[Array], bool]

COMPONENTS = ("jaxtv_components_jvp", "jaxtv_components_vjp")
WITH_MASKS = ("jaxtv_dykstra_jvp", "jaxtv_dykstra_vjp", *COMPONENTS)
LEAST = {"axis": 0, "method": 0, "line_search": 0, "iterations": 1, "max_iterations": 1}
LEAST |= {"sweeps": 1, "tol": 0, "gap_tol": 0}
MOST = {"method": 3, "line_search": 1}


def valid_attributes(call: dict, good: dict) -> bool:
    """Whether they are those of the good call, of their types, with values in range."""
    if set(call) != set(good) or any(type(call[k]) is not type(good[k]) for k in good):
        return False
    numbers = {k: v for k, v in call.items() if k != "axes"}
    return all(LEAST[k] <= v <= MOST.get(k, math.inf) for k, v in numbers.items())


def valid_axes(name: str, x: Array, axes: Sequence[int]) -> bool:
    """Whether they are distinct axes of x with samples, as many as the target wants."""
    least = 2 if name in ("jaxtv_converged", "jaxtv_isotropic", *COMPONENTS) else 1
    rank = len(x[0])
    if name == "jaxtv_isotropic" and list(axes) != list(range(rank))[rank - len(axes) :]:
        return False
    return (
        x[1] in ("float32", "float64")
        and least <= len(axes) == len(set(axes)) <= 8
        and all(0 <= a < rank and x[0][a] > 0 for a in axes)
    )


def same(array: Array) -> Rule:
    """Only this shape and dtype."""
    return lambda a: a == array


def along(x: Array, axis: int, sizes: Sequence[int], dtype: str | None = None) -> Rule:
    """As x, but for one of these sizes along the axis."""
    shapes = [(*x[0][:axis], size, *x[0][axis + 1 :]) for size in sizes]
    return lambda a: a[0] in shapes and a[1] == (dtype or x[1])


def of_count(count: int, dtype: str) -> Rule:
    """Any shape of so many."""
    return lambda a: math.prod(a[0]) == count and a[1] == dtype


def rules(call: dict, x: Array, axes: Sequence[int]) -> tuple[list[Rule], list[Rule]]:
    """What each operand and each result has to be."""
    ins = call["ins"]
    like, weights = same(x), [along(x, a, (1, x[0][a] - 1)) for a in axes]
    twice = same(ins[1]) if len(ins) > 1 else like  # a tangent or gradient of the weight
    info = [along(x, axes[0], (1,), dtype) for dtype in (x[1], "int32", "bool")]
    elements = math.prod(size for a, size in enumerate(x[0]) if a not in axes)
    of_elements = [of_count(elements, dtype) for dtype in (x[1], "int32", "bool")]
    edges = int(call["attributes"].get("iterations", 1)) * len(axes)
    masks = of_count(math.prod(x[0]) * ((edges + 3) // 4), "uint8")  # four to a byte
    other = [like] * (len(axes) - 1)
    pixels = [(*x[0][: axes[0]], 1, *rest) for rest in (x[0][axes[0] + 1 :], (1,) * len(other))]
    pixel_weights = lambda a: a[0] in pixels and a[1] == x[1]
    joined = of_count(math.prod(x[0]) // x[0][axes[0]], "uint8")
    return {
        "jaxtv_prox1d": ([like, *weights], [like]),
        "jaxtv_prox1d_info": ([like, *weights], [like, *info]),
        "jaxtv_prox1d_data_weight": ([like, like, *weights], [like]),
        "jaxtv_segment_jvp": ([like, *weights, like, twice], [like]),
        "jaxtv_segment_vjp": ([like, *weights, like], [like, twice]),
        "jaxtv_dykstra": ([like, *weights], [like]),
        "jaxtv_dykstra_with_codes": ([like, *weights], [like, masks]),
        "jaxtv_dykstra_jvp": ([masks, like, *weights], [like]),
        "jaxtv_dykstra_vjp": ([masks, like], [like, *weights]),
        "jaxtv_components_jvp": ([masks, like, *weights], [like]),
        "jaxtv_components_vjp": ([masks, like], [like, *weights]),
        "jaxtv_converged": ([like, *other, *weights], [like, *of_elements, *other, masks]),
        "jaxtv_isotropic": ([like, pixel_weights, *other], [like, *of_elements, *other, joined]),
    }[call["name"]]


def valid(call: dict, good: dict) -> bool:
    """Whether the target promises to serve the call; `good` is one that it serves."""
    name, attributes, at = call["name"], call["attributes"], int(call["name"] in WITH_MASKS)
    if not valid_attributes(attributes, good["attributes"]) or len(call["ins"]) <= at:
        return False
    x = call["ins"][at]
    axes = [int(a) for a in attributes.get("axes", [attributes.get("axis")])]
    if not valid_axes(name, x, axes):
        return False
    pairs = zip((call["ins"], call["outs"]), rules(call, x, axes), strict=True)
    return all(
        len(arrays) == len(wanted) and all(r(a) for r, a in zip(wanted, arrays, strict=True))
        for arrays, wanted in pairs
    )
