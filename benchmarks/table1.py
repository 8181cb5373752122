"""Table 1 of the paper on this machine: 256×32×32 signals, a unit step with Gaussian noise, λ = 1.

Times `jaxtv` and the C++ library proxTV (called per row through its Python binding) in one run and
prints the ratio: absolute times drift on a shared machine. Usage: python benchmarks/table1.py
"""

from __future__ import annotations

import json
import pathlib
import platform
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxtv

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import peers  # noqa: E402

RUNS = 25  # as the paper
SHAPE = (256, 32, 32)


def signals() -> np.ndarray:
    step = np.repeat([0.0, 1.0], SHAPE[-1] // 2)
    return step + 0.5 * np.random.default_rng(0).normal(size=SHAPE)


def milliseconds(f) -> list[float]:
    jax.block_until_ready(f())
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        jax.block_until_ready(f())
        times.append(1e3 * (time.perf_counter() - start))
    return times


def row(name: str, times: list[float], reference: float) -> dict:
    median, mean, std = statistics.median(times), statistics.mean(times), statistics.stdev(times)
    print(f"{name:34s} {median:9.3f} {mean:9.3f} ± {std:6.3f}   {reference / median:7.1f}×")
    return {"name": name, "median_ms": median, "mean_ms": mean, "std_ms": std}


def main() -> None:
    cache = ROOT / "build" / "peers"
    cache.mkdir(parents=True, exist_ok=True)
    prox_tv = peers.prox_tv(lambda: cache)
    data = signals()
    rows = data.reshape(-1, SHAPE[-1])
    x = jnp.asarray(data, jnp.float32)
    g = jnp.ones_like(x)

    forward = jax.jit(lambda x: jaxtv.prox_tv1d(x, 1.0))

    @jax.jit
    def both(x, lam):
        # prox and gradient of <g, prox> in x and λ, through jax.grad
        return jax.value_and_grad(lambda x, lam: jnp.vdot(g, jaxtv.prox_tv1d(x, lam)), (0, 1))(
            x, lam
        )

    copy = jax.jit(lambda x: x + 1)
    peer = milliseconds(lambda: [prox_tv.tv1_1d(r, 1.0) for r in rows])
    base = statistics.median(peer)
    print(f"{platform.processor() or platform.machine()}, jax {jax.__version__}, {SHAPE}, float32")
    print(f"{'':34s} {'median':>9s} {'mean':>9s} ms {'':11s} against proxTV")
    results = [
        row("proxTV tv1_1d per row (float64)", peer, base),
        row("jaxtv forward", milliseconds(lambda: forward(x)), base),
        row("jaxtv forward + backward (x, λ)", milliseconds(lambda: both(x, 1.0)), base),
        row("x + 1 (memory floor)", milliseconds(lambda: copy(x)), base),
    ]
    median = [r["median_ms"] for r in results]
    error = max(
        float(np.abs(np.asarray(y, np.float64) - prox_tv.tv1_1d(r, 1.0)).max())
        for r, y in zip(rows[:256], np.asarray(forward(x)).reshape(-1, SHAPE[-1])[:256])
    )
    ratio = median[2] / median[1]
    print(f"forward: {median[0] / median[1]:.0f}× proxTV; forward + backward: {ratio:.2f}× forward")
    print(f"forward: {1e6 * median[1] / x.size:.2f} ns per sample; max error {error:.1e}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
