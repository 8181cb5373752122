"""Calls that no user makes: at the FFI targets, from many threads, across fork and exit; a soak.

python -m reliability.hostile PART NUMBER: one part, in the process that it might kill.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import oracles

import jaxtv
from jaxtv import _ffi
from reliability import ROOT
from reliability.result import Result

SHAPE = (3, 4, 6)
DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool", "bfloat16", "complex64")
INTEGERS = (-(2**63), -7, -1, 0, 1, 2, 3, 9)  # no large ones: 2^62 sweeps are no error
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
        lambda x, lam: jaxtv.prox_tv1d(x, lam, axis=1),
        lambda x, lam: jaxtv.prox_tv1d(x, lam, return_info=True)[0],
        lambda x, lam: jaxtv.prox_tv2d(x, lam, axes=(1, 2)),
        lambda x, lam: jaxtv.prox_tv2d(x, lam, axes=(1, 2), solver=jaxtv.AcceleratedDykstra()),
    ]
    jax.ffi.ffi_lowering = recording
    for f in proxes:
        jax.jit(f).lower(x, lam)
        jax.jit(lambda x, lam, f=f: jax.jvp(f, (x, lam), (x, lam))).lower(x, lam)
        jax.jit(lambda x, lam, f=f: jax.vjp(f, x, lam)[1](x)).lower(x, lam)
    jax.ffi.ffi_lowering = lowering
    if missing := set(_ffi.REGISTERED["cpu"]) - set(calls):
        raise RuntimeError(f"no call recorded of {missing}")
    return [calls[name] for name in sorted(calls)]


def spoil_array(r, arrays: list) -> list:
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


def spoil_attribute(r, attributes: dict) -> dict:
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


def spoiled(r, call: dict) -> dict:
    """The call with one to three things wrong (or, by chance, only different)."""
    call = dict(call)
    for _ in range(r.integers(1, 4)):
        part = r.choice(["ins", "outs", "attributes"])
        if part == "attributes":
            call[part] = spoil_attribute(r, call[part])
        elif call[part]:
            call[part] = spoil_array(r, call[part])
    return call


def make(r, call: dict) -> bool:
    """Whether the call was accepted; an error is what is hoped for."""
    outs = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in call["outs"])
    ins = [jnp.asarray(r.normal(size=shape) * 3).astype(dtype) for shape, dtype in call["ins"]]
    try:
        jax.block_until_ready(jax.ffi.ffi_call(call["name"], outs)(*ins, **call["attributes"]))
    except (jax.errors.JaxRuntimeError, TypeError, ValueError):
        return False
    return True


def target_calls(number: int) -> str:
    """Random wrong calls straight at the targets; the seed of each is on stderr before it is made.

    After all of them the library must still be right.
    """
    calls, accepted = good_calls(), 0
    for seed in range(number):
        r = np.random.default_rng(seed)
        call = spoiled(r, calls[seed % len(calls)])
        print(seed, call, file=sys.stderr, flush=True)
        accepted += make(r, call)
    right(0)
    return f"{number - accepted} errors, {accepted} accepted"


def right(seed: int, solve=jaxtv.prox_tv1d) -> None:
    """Solves a batch and compares it with the oracle.

    Raises:
        AssertionError: it is wrong.
    """
    x = np.random.default_rng(seed).normal(size=(8, 40))
    got = np.asarray(solve(jnp.asarray(x), 0.5))
    np.testing.assert_allclose(got, oracles.prox1d(x, 0.5).y, rtol=0, atol=1e-12)


def threads(number: int) -> str:
    """`number` calls from 16 Python threads."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(right, range(number)))
    return f"{number} calls from 16 threads right"


def devices(number: int) -> str:
    """`number` calls under pmap on 8 virtual devices."""
    if jax.device_count() != 8:
        raise RuntimeError(f"{jax.device_count()} devices")
    mapped = jax.pmap(lambda x: jaxtv.prox_tv1d(x, 0.5))
    for seed in range(number):
        right(seed, lambda x, lam: mapped(x))
    return f"{number} pmap calls on 8 devices right"


def fork(number: int) -> str:
    """Children forked after the kernels ran leave cleanly, and the parent goes on."""
    context = multiprocessing.get_context("fork")
    for seed in range(number):
        right(seed)
        child = context.Process(target=time.sleep, args=(0,))
        child.start()
        child.join(60)
        if child.exitcode != 0:
            raise RuntimeError(f"the child's exit status is {child.exitcode}")
        right(seed)
    return f"{number} forks clean"


def leave(number: int) -> str:
    """The interpreter ends while `number` results are still being computed."""
    x = jnp.ones((2000, 500)).at[:, ::7].set(0)
    held = [jax.jit(jaxtv.prox_tv1d)(x, 0.5 + i) for i in range(number)]
    return f"left with {len(held)} results pending"


def resident() -> int:
    """Resident bytes of this process."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def soak(seconds: int) -> str:
    """Calls of every kind for so long; the memory at the end is that after the first fifth.

    Raises:
        RuntimeError: it has grown by more than 16 MiB.
    """
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64, 64)))
    f = jax.jit(jax.value_and_grad(lambda x, lam: jnp.sum(jaxtv.prox_tv2d(x, lam, axes=(1, 2)))))
    start, calls, before = time.monotonic(), 0, 0
    while (passed := time.monotonic() - start) < seconds:
        right(calls % 10)
        jax.block_until_ready(f(image, 0.1 + calls % 7))
        calls += 1
        if passed < seconds / 5:
            before = resident()
    growth = (resident() - before) / 2**20
    if growth > 16:
        raise RuntimeError(f"{growth:.1f} MiB more after {calls} calls")
    return f"{calls} calls in {seconds} s: {growth:+.1f} MiB resident from {before / 2**20:.0f}"


PARTS = {p.__name__: p for p in (target_calls, threads, devices, fork, leave, soak)}


def in_process(part: str, number: int, limit: int) -> tuple[str, list[str]]:
    """What the part says, and its failure: a crash, a hang, a wrong result."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    flags = os.environ.get("XLA_FLAGS", "")
    if part == "devices":
        flags += " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "reliability.hostile", part, str(number)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired as hang:
        return "", [f"{part}: no end in {limit} s: {(hang.stderr or b'')[-500:]!r}"]
    if done.returncode:
        return "", [f"{part}: exit status {done.returncode}: {done.stderr[-1000:]}"]
    return done.stdout.strip(), []


def hostile(cases: int, seconds: int) -> Result:
    """Every part in a process of its own, `cases` wrong calls and a soak of `seconds`."""
    few = min(cases, 200)
    numbers = {"target_calls": cases, "threads": few, "devices": few, "soak": seconds}
    said, failures = [], []
    for part in PARTS:
        text, failed = in_process(part, numbers.get(part, 5), 300 + cases + 2 * seconds)
        said.append(text or f"{part} failed")
        failures += failed
    return Result(
        "wrong calls at the FFI targets, 16 threads, 8 devices, fork, exit, memory",
        f"{cases:,} wrong calls",
        "; ".join(said),
        failures,
    )


def main() -> None:
    """Runs one part and prints what it says."""
    jax.config.update("jax_enable_x64", True)
    print(PARTS[sys.argv[1]](int(sys.argv[2])))


if __name__ == "__main__":
    main()
