"""Calls that no user makes: at the FFI targets, from many threads, across fork and exit; a soak.

python -m soak.misuse PART NUMBER: one part, in the process that it might kill.
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

import jaxtv
from soak import calls, memory
from soak.result import Result
from testing import ROOT, oracles


def make(r, call: dict) -> bool:
    """Whether the target served the call; else it gave an error."""
    outs = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in call["outs"])
    ins = [jnp.asarray(r.normal(size=shape) * 3).astype(dtype) for shape, dtype in call["ins"]]
    # XLA leaves out a call whose results are empty, unless it is said to have an effect. Without a
    # new jit, a call that equals an earlier one but for the type of an integer would be that one.
    target = jax.ffi.ffi_call(call["name"], outs, has_side_effect=True)
    try:
        jax.block_until_ready(jax.jit(lambda *a: target(*a, **call["attributes"]))(*ins))
    except (jax.errors.JaxRuntimeError, TypeError, ValueError):
        return False
    return True


def target_calls(number: int) -> str:
    """Random wrong calls straight at the targets; the seed of each is on stderr before it is made.

    Those that by chance are right must be served. After all of them the library must be right.

    Raises:
        RuntimeError: a wrong call was served, or a right one was not.
    """
    good, right_ones, failures = calls.good_calls(), 0, []
    for seed in range(number):
        r = np.random.default_rng(seed)
        call = calls.corrupted(r, good[seed % len(good)])
        print(seed, call, file=sys.stderr, flush=True)
        valid = calls.valid(call, good[seed % len(good)])
        right_ones += valid
        if make(r, call) != valid:
            failures.append(
                f"seed {seed}: {'right, but refused' if valid else 'wrong, but served'}"
            )
    if failures:
        raise RuntimeError("; ".join(failures))
    right(0)
    wrong = number - right_ones
    return f"{wrong} of {wrong} wrong calls refused, {right_ones} calls that stayed right served"


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


def exhaust(number: int) -> str:
    """Calls at `number` limits of the memory; the library is right before and after."""
    right(0)
    text = memory.exhaust(number)
    right(1)
    return text


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


PARTS = {p.__name__: p for p in (target_calls, threads, devices, fork, leave, exhaust, soak)}


def in_process(part: str, number: int, limit: int) -> tuple[str, list[str]]:
    """What the part says, and its failure: a crash, a hang, a wrong result."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    flags = os.environ.get("XLA_FLAGS", "")
    if part == "devices":
        flags += " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "soak.misuse", part, str(number)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired as hang:
        return "", [f"{part}: no end in {limit} s: {(hang.stderr or b'')[-500:]!r}"]
    if done.returncode:
        return "", [f"{part}: exit status {done.returncode}: {done.stderr[-1000:]}"]
    return done.stdout.strip(), []


def misuse(cases: int, seconds: int) -> Result:
    """Every part in a process of its own, `cases` wrong calls and a soak of `seconds`."""
    few = min(cases, 200)
    numbers = {"target_calls": cases, "threads": few, "devices": few, "soak": seconds}
    said, failures = [], []
    for part in PARTS:
        text, failed = in_process(part, numbers.get(part, 5), 300 + cases + 2 * seconds)
        said.append(text or f"{part} failed")
        failures += failed
    return Result(
        "changed calls at the FFI targets, 16 threads, 8 devices, fork, exit, out of memory, leaks",
        f"{cases:,} calls changed at random",
        "; ".join(said),
        failures,
    )


def main() -> None:
    """Runs one part and prints what it says."""
    jax.config.update("jax_enable_x64", True)
    print(PARTS[sys.argv[1]](int(sys.argv[2])))


if __name__ == "__main__":
    main()
