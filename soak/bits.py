"""The same bits for any number of threads, any split of the batch, and every run.

python -m soak.bits CASES: a line with the digest of every case, for the threads it has.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv
from soak.result import Result
from testing import ROOT

SAME = 10


@functools.lru_cache(4)
def kind(number: int):
    """The compiled function (x, w, g) -> (y, its pullback of g), and the shapes of x and w."""
    r = np.random.default_rng(number)
    if number % 4 == 3:
        solver = jaxtv.AcceleratedDykstra(tol=1e-4) if r.random() < 0.5 else jaxtv.Dykstra(8)
        rows = int(r.integers(2, 12))
        shapes = (rows, *(int(n) for n in r.integers(2, 60, size=2))), (rows, 1, 1)
        prox = lambda x, w: jaxtv.prox_tv2d(x, w, axes=(1, 2), solver=solver)
    else:
        exact = (jaxtv.Direct(), jaxtv.Direct("decomposition"), jaxtv.Direct("taut_string"))
        solver = exact[r.integers(3)]
        rows, n = int(r.integers(2, 400)), int(r.integers(1, 601))
        shapes = (rows, n), (rows, 1 if r.random() < 0.5 else n - 1)
        prox = lambda x, w: jaxtv.prox_tv1d(x, w, solver=solver)

    def results(x, w, g):
        y, pull = jax.vjp(prox, x, w)
        return y, *pull(g)

    return jax.jit(results), shapes, str(r.choice(["float32", "float64"]))


def problem(seed: int):
    """A function of arrays with one leading axis, and these; `SAME` seeds share the function."""
    results, (shape, lam_shape), dtype = kind(seed // SAME)
    r = np.random.default_rng(seed)
    scale = r.choice([1.0, 255.0, 1e4])
    x = scale * (r.integers(0, 5, size=shape) + r.normal(size=shape) * r.choice([0.0, 0.3]))
    arrays = x, scale * r.exponential(0.5, size=lam_shape), r.normal(size=shape)
    return results, tuple(jnp.asarray(a, dtype) for a in arrays)


def raw(results) -> tuple[bytes, ...]:
    """The bits of every array."""
    return tuple(np.asarray(a).tobytes() for a in results)


def differences(results, arrays, seed: int) -> list[str]:
    """What differs between two runs, or between the batch and its two parts."""
    whole = results(*arrays)
    found = [] if raw(results(*arrays)) == raw(whole) else [f"seed {seed}: two runs"]
    at = int(np.random.default_rng(seed // SAME).integers(1, len(arrays[0])))
    parts = results(*(a[:at] for a in arrays)), results(*(a[at:] for a in arrays))
    joined = [np.concatenate([np.asarray(a), np.asarray(b)]) for a, b in zip(*parts, strict=True)]
    return found if raw(joined) == raw(whole) else [*found, f"seed {seed}: split at {at}"]


def digests(cases: int, threads: int) -> list[str]:
    """The digests of the cases in a process that has `threads` cores."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    command = ["taskset", "-c", cores, sys.executable, "-m", "soak.bits", str(cases)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return out.stdout.split()


def bitwise(cases: int) -> Result:
    """1 against 2 threads in processes of their own; runs and splits in this one."""
    one, two = digests(cases, 1), digests(cases, 2)
    if len(one) != cases or len(two) != cases:
        raise RuntimeError(f"{len(one)} and {len(two)} digests of {cases} cases")
    failures = [f"seed {seed}: threads" for seed in range(cases) if one[seed] != two[seed]]
    for seed in range(cases):
        if seed % 100 == 0:
            jax.clear_caches()
        failures += differences(*problem(seed), seed)
    return Result(
        "same bits of y and its gradients: 1 and 2 threads, two runs, a batch and its parts",
        f"{cases:,} batches, 1D and 2D, float32 and float64",
        f"{len(failures)} differences",
        failures,
    )


def main() -> None:
    """Prints the digests."""
    jax.config.update("jax_enable_x64", True)
    for seed in range(int(sys.argv[1])):
        if seed % 100 == 0:
            jax.clear_caches()
        results, arrays = problem(seed)
        print(hashlib.sha256(b"".join(raw(results(*arrays)))).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
