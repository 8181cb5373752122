"""Digests of every public function's output, to compare a change with the code before it.

    python -m soak.digests OUT.json [--platform cpu | emulator] [--kinds 70]
    python -m soak.digests OUT.json --compare BEFORE.json
    JAXTV_FALLBACK=1 python -m soak.digests OUT.json       # the plain-JAX implementation

A kind is a function with its shapes, dtype and options; each kind gets ten random batches. The file
maps "kind/batch" to a digest of all its outputs. With --compare the exit status is 1 where a digest
differs, and the first of those are printed. Both runs must use the same machine and the same jax.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np

import jaxtv
from testing import emulator

BATCHES = 10  # of a kind
SOLVERS = (
    jaxtv.Direct(),
    jaxtv.Direct(kernel="taut_string"),
    jaxtv.Direct(kernel="decomposition"),
    jaxtv.ProjectedNewton(),
    jaxtv.ProjectedNewton(line_search="parallel", max_iterations=20),
)
DTYPES = ("float32", "float32", "float64", "bfloat16", "float16")


class Kind(NamedTuple):
    """A compiled function of random operands, and how to draw them."""

    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    lam_from: int  # operands from here on are λ: not negative


def _sizes(r: np.random.Generator, rank: int, most: int, axis: int | None = None, n: int = 0):
    shape = [int(d) for d in r.integers(1, most, size=rank)]
    if axis is not None:
        shape[axis] = n
    return tuple(shape)


def _derivatives(prox: Callable) -> Callable:
    """The value with its VJP and JVP in all operands; the cotangent is the first operand rolled."""

    def function(*operands):
        out, vjp = jax.vjp(prox, *operands)
        _, tangent = jax.jvp(prox, operands, tuple(jnp.flip(v) for v in operands))
        return out, vjp(jnp.roll(out, 1)), tangent

    return function


def _one_axis(r: np.random.Generator, small: bool) -> Kind:
    lengths = (1, 2, 3, 17, 33, 100, 257, 300, 700) if small else (1, 2, 7, 33, 100, 600, 5000)
    n, rank = int(r.choice(lengths)), int(r.integers(1, 4))
    axis = int(r.integers(rank))
    solver = SOLVERS[r.integers(len(SOLVERS))]
    shape = _sizes(r, rank, 12 if small else 40, axis, n)
    per_edge = n > 1 and r.random() < 0.5
    lam = tuple(
        (n - 1 if per_edge else 1) if a == axis else (d if r.random() < 0.7 else 1)
        for a, d in enumerate(shape)
    )
    prox = lambda x, w: jaxtv.prox_tv1d(x, w, axis=axis, solver=solver)
    info = lambda x, w: jaxtv.prox_tv1d(x, w, axis=axis, solver=solver, return_info=True)
    both = lambda x, w: (_derivatives(prox)(x, w), info(x, w))
    return Kind(f"1D {shape} {axis} {solver}", both, (shape, lam), str(r.choice(DTYPES)), 1)


def _dykstra(r: np.random.Generator, small: bool) -> Kind:
    rank = int(r.integers(2, 5))
    count = int(r.integers(2, min(rank, 3) + 1))
    axes = tuple(int(a) for a in r.permutation(rank)[:count])
    shape = _sizes(r, rank, 14 if small else 40)
    inner = SOLVERS[r.integers(len(SOLVERS))]
    solver = jaxtv.Dykstra(int(r.integers(1, 6)), inner=inner)
    lams = tuple(
        tuple(
            (d if a not in axes else 1)
            if a != axis
            else (d - 1 if d > 1 and r.random() < 0.4 else 1)
            for a, d in enumerate(shape)
        )
        for axis in axes
    )
    prox = lambda x, *ws: jaxtv.prox_tv(x, ws, axes=axes, solver=solver)
    info = lambda x, *ws: jaxtv.prox_tv(x, ws, axes=axes, solver=solver, return_info=True)
    both = lambda x, *ws: (_derivatives(prox)(x, *ws), info(x, *ws))
    return Kind(f"Dykstra {shape} {axes} {solver}", both, (shape, *lams), str(r.choice(DTYPES)), 1)


def _converged(r: np.random.Generator, small: bool) -> Kind:
    rank = int(r.integers(2, 4))
    axes = tuple(int(a) for a in r.permutation(rank)[: int(r.integers(2, rank + 1))])
    shape = _sizes(r, rank, 9 if small else 24)
    solver = jaxtv.AcceleratedDykstra(tol=float(r.choice([1e-2, 1e-4])), max_iterations=50)
    lam = tuple(1 if a in axes else d for a, d in enumerate(shape))
    prox = lambda x, w: jaxtv.prox_tv(x, w, axes=axes, solver=solver)

    def both(x, w):
        options = {"axes": axes, "solver": solver, "return_info": True, "return_dual": True}
        return _derivatives(prox)(x, w), jaxtv.prox_tv(x, w, **options)

    name = f"converged {shape} {axes} {solver}"
    return Kind(name, both, (shape, lam), str(r.choice(["float32", "float64"])), 1)


def _functional(r: np.random.Generator, small: bool) -> Kind:
    rank = int(r.integers(1, 4))
    axes = tuple(int(a) for a in r.permutation(rank)[: int(r.integers(1, min(rank, 2) + 1))])
    shape = _sizes(r, rank, 9 if small else 24)
    lam = tuple(1 if a in axes else d for a, d in enumerate(shape))

    def everything(x, y, w):
        variation = lambda x, w: jaxtv.total_variation(x, w, axes=axes)
        value, vjp = jax.vjp(variation, x, w)
        return value, vjp(value), jaxtv.duality_gap(x, y, w, axes=axes), jaxtv.max_lambda(x, axes)

    name = f"functional {shape} {axes}"
    return Kind(name, everything, (shape, shape, lam), str(r.choice(["float32", "float64"])), 2)


def _layer(r: np.random.Generator, small: bool) -> Kind:
    shape = _sizes(r, 4, 7 if small else 16)
    options: dict[str, Any] = {
        "axes": ((-3, -2), -2, -3)[r.integers(3)],
        "mode": str(r.choice(["smooth", "sharp"])),
        "per_channel": bool(r.random() < 0.5),
        "init_lam": float(r.choice([0.05, 0.7])),
    }
    linen = jaxtv.linen.TVLayer(**options)
    nnx = jaxtv.nnx.TVLayer(**options, num_channels=shape[-1])
    graph, state = flax.nnx.split(nnx)

    def everything(x):
        variables = linen.init(jax.random.key(0), x)
        first = jax.value_and_grad(lambda v, x: jnp.sum(linen.apply(v, x) ** 2), (0, 1))
        second = jax.value_and_grad(lambda s, x: jnp.sum(flax.nnx.merge(graph, s)(x) ** 2), (0, 1))
        return linen.apply(variables, x), first(variables, x), second(state, x)

    return Kind(f"layer {shape} {options}", everything, (shape,), "float32", 1)


FAMILIES = (_one_axis, _dykstra, _one_axis, _functional, _dykstra, _converged, _layer)


def kind(number: int, small: bool) -> Kind:
    """The kind of this number; its family follows from the number, all else is random."""
    r = np.random.default_rng(number)
    return FAMILIES[number % len(FAMILIES)](r, small)


def operands(k: Kind, seed: int) -> tuple[jax.Array, ...]:
    """Noise, steps, ties or large samples; λ of 0, infinite and ordinary; now and then a NaN."""
    r = np.random.default_rng(seed)
    scale = float(r.choice([1.0, 1.0, 255.0, 1e4]))
    out = []
    for i, shape in enumerate(k.shapes):
        if i < k.lam_from:
            x = r.integers(0, 5, size=shape) + r.normal(size=shape) * r.choice([0.0, 0.3, 3.0])
            x = np.where(r.random(shape) < 1e-3 * (seed % 3), np.nan, scale * x)
        else:
            x = scale * r.exponential(0.5, size=shape) * (r.random(shape) < 0.9)
            x = np.where(r.random(shape) < 0.02, np.inf, x)
        out.append(jnp.asarray(x, k.dtype))
    return tuple(out)


def _bytes(value: jax.Array) -> bytes:
    """Its bits; every NaN counts as the same."""
    value = np.asarray(value)
    if jnp.issubdtype(value.dtype, jnp.floating):
        value = np.where(np.isnan(value), np.array(np.nan, value.dtype), value)
    return value.tobytes()


def digests(kinds: int, small: bool) -> dict[str, str]:
    """The digest of every batch of every kind, by name."""
    out = {}
    for number in range(kinds):
        k = kind(number, small)
        function = jax.jit(k.function)
        for i in range(BATCHES):
            leaves = jax.tree.leaves(function(*operands(k, number * BATCHES + i)))
            found = hashlib.sha256(b"".join(map(_bytes, leaves))).hexdigest()[:16]
            out[f"{number}/{i} {k.name} {k.dtype}"] = found
        jax.clear_caches()
        print(f"{number + 1} of {kinds}: {k.name}", flush=True)
    return out


def main() -> None:
    """Writes the file, compares."""
    parser = argparse.ArgumentParser(prog="python -m soak.digests", description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--platform", choices=("cpu", "emulator"), default="cpu")
    parser.add_argument("--kinds", type=int, default=70)
    parser.add_argument("--compare", type=pathlib.Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    emulated, platform = options.platform == "emulator", contextlib.nullcontext()
    if emulated:
        platform = emulator.using()
    small = emulated or "JAXTV_FALLBACK" in os.environ
    with platform:
        found = digests(options.kinds, small)
    options.out.write_text(json.dumps(found, indent=0) + "\n")
    if options.compare is not None:
        before = json.loads(options.compare.read_text())
        pairs = zip(found, before.values(), found.values(), strict=True)
        differ = [name for name, then, now in pairs if then != now]
        print(*differ[:20], f"{len(differ)} of {len(found)} batches differ", sep="\n")
        raise SystemExit(bool(differ))


if __name__ == "__main__":
    main()
