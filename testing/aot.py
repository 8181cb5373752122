"""Compiles jaxtv for an H100 by XLA's CUDA compiler, on a machine without a GPU or a driver.

Every primitive, its derivatives, vmap, half types, on one device and on eight. Checked is what XLA makes of the calls:
the expected custom calls, no copies of arrays, no collectives, and memory for temporaries. Nothing is executed.

Needs jaxtv built with JAXTV_CUDA=ON, nvcc's folder (CUDA_HOME, or from PATH), and the CUDA plugin of this jax, best in
a folder of its own, as an environment that has it counts as one with a GPU:

    python -m pip install --target PLUGINS --no-deps jax-cuda13-plugin==VERSION jax-cuda13-pjrt==VERSION
    PYTHONPATH=PLUGINS python -m testing.aot
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

import jaxtv
from jaxtv import _native

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
FLAG = r"= pred\[\] all-reduce(?:-start)?\("
COLLECTIVES = r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("


@dataclasses.dataclass(frozen=True)
class Case:
    """A function of one array, and what XLA should make of it.

    Attributes:
        function: compiled by `jax.jit`.
        shape, dtype: of the array.
        calls: how often each target is called, without the prefix "jaxtv_".
        temporary: the most memory for temporaries, in arrays of that shape and dtype.
        devices: more than one: the array is sharded along its first axis.
        loop: a JAX loop calls them: how often, and copies of what it carries, are not checked.
        flags: all-reduces of one flag, by which loops over a sharded batch end.
    """

    function: Callable[[jax.Array], Any]
    shape: tuple[int, ...]
    calls: Mapping[str, int]
    temporary: float
    dtype: str = "float32"
    devices: int = 1
    loop: bool = False
    flags: int = 0


DIRECT, NEWTON = jaxtv.Direct(), jaxtv.ProjectedNewton()
DYKSTRA, ACCELERATED = jaxtv.Dykstra(4), jaxtv.AcceleratedDykstra(tol=1e-5)


def prox1d(solver: Any = DIRECT, lam: Any = 0.5, **options: Any) -> Callable:
    """`prox_tv1d` along the last axis."""
    return lambda x: jaxtv.prox_tv1d(x, lam, solver=solver, **options)


def prox2d(solver: Any = DYKSTRA) -> Callable:
    """`prox_tv2d` of (batch, rows, columns)."""
    return lambda x: jaxtv.prox_tv2d(x, 0.5, axes=(-2, -1), solver=solver)


def weighted() -> Callable:
    """`prox_tv1d` with data weights that depend on x, some of them 0."""
    return lambda x: jaxtv.prox_tv1d(x, 0.5, data_weight=jax.nn.relu(x))


def isotropic(x: jax.Array) -> jax.Array:
    """`prox_tv_isotropic` of (batch, rows, columns)."""
    return jaxtv.prox_tv_isotropic(x, 0.5, axes=(-2, -1))


def grad(f: Callable) -> Callable:
    """The gradient of a function of its result."""
    return jax.grad(lambda x: jnp.sum(f(x) ** 2))


def jvp(f: Callable) -> Callable:
    """The derivative of f at x in the direction x."""
    return lambda x: jax.jvp(f, (x,), (x,))[1]


def in_lam(axis_size: int) -> Callable:
    """The gradient of the 1D prox in one λ per signal."""
    lam = jnp.full((axis_size, 1), 0.5, "float32")
    return lambda x: jax.grad(lambda w: jnp.sum(jaxtv.prox_tv1d(x, w) ** 2))(lam)


def hvp(f: Callable) -> Callable:
    """A Hessian times x."""
    return lambda x: jax.jvp(grad(f), (x,), (x,))[1]


CASES: dict[str, Case] = {
    "1D rows": Case(prox1d(), (256, 32, 32), {"prox1d": 1}, 0.1),
    "1D warp per signal": Case(prox1d(), (64, 200), {"prox1d": 1}, 0.1),
    "1D windows": Case(prox1d(), (64, 1024), {"prox1d": 1}, 0.1),
    "1D wide": Case(prox1d(), (2, 5000), {"prox1d": 1}, 2.4),
    "1D grid": Case(prox1d(), (1, 40_000), {"prox1d": 1}, 2.6),
    "1D float64": Case(prox1d(), (64, 64), {"prox1d": 1}, 0.1, "float64"),
    "1D taut string": Case(prox1d(jaxtv.Direct("taut_string")), (64, 64), {"prox1d": 1}, 0.1),
    "1D Newton": Case(prox1d(NEWTON), (64, 64), {"prox1d": 1}, 0.1),
    "1D with info": Case(prox1d(return_info=True), (64, 64), {"prox1d_info": 1}, 0.1),
    "1D bfloat16": Case(prox1d(), (64, 64), {"prox1d": 1}, 0.2, "bfloat16"),
    "1D float16": Case(prox1d(), (64, 64), {"prox1d": 1}, 0.2, "float16"),
    "1D JVP": Case(jvp(prox1d()), (256, 32, 32), {"prox1d": 1, "segment_jvp": 1}, 1.3),
    "1D gradient": Case(grad(prox1d()), (256, 32, 32), {"prox1d": 1, "segment_vjp": 1}, 2.2),
    "1D gradient in λ": Case(in_lam(64), (64, 200), {"prox1d": 1, "segment_vjp": 1}, 3.1),
    "1D gradient, bfloat16": Case(
        grad(prox1d()),
        (64, 64),
        {"dykstra_with_codes": 1, "dykstra_vjp": 1},
        7,
        "bfloat16",
    ),
    "1D Hessian": Case(
        hvp(prox1d()), (64, 64), {"prox1d": 1, "segment_jvp": 1, "segment_vjp": 1}, 3
    ),
    "1D vmap": Case(jax.vmap(prox1d()), (7, 33), {"prox1d": 1}, 1),
    "1D data weights": Case(weighted(), (64, 200), {"prox1d_data_weight": 1}, 20, loop=True),
    "1D data weights, gradient": Case(
        grad(weighted()),
        (64, 200),
        {"prox1d_data_weight": 1, "segment_jvp": 1, "segment_vjp": 1},
        30,
        loop=True,  # the scans that find missing samples copy
    ),
    "2D images": Case(prox2d(), (8, 64, 64), {"dykstra": 1}, 0.1),
    "2D passes": Case(prox2d(), (1, 600, 600), {"dykstra": 1}, 3.1),
    "2D half": Case(prox2d(), (8, 64, 64), {"dykstra": 1}, 0.1, "float16"),
    "2D JVP": Case(jvp(prox2d()), (8, 64, 64), {"dykstra_with_codes": 1, "dykstra_jvp": 1}, 2),
    "2D gradient": Case(
        grad(prox2d()), (8, 64, 64), {"dykstra_with_codes": 1, "dykstra_vjp": 1}, 3
    ),
    "2D vmap": Case(
        jax.vmap(grad(prox2d())),
        (2, 4, 64, 64),
        {"dykstra_with_codes": 1, "dykstra_vjp": 1},
        3,
    ),
    "2D converged, gradient": Case(
        grad(prox2d(ACCELERATED)),
        (4, 32, 32),
        {"prox1d": 1, "components_jvp": 1, "components_vjp": 1},
        40,
        loop=True,
    ),
    "isotropic": Case(isotropic, (4, 64, 64), {"isotropic_steps": 1}, 12),
    "isotropic, vmap": Case(jax.vmap(isotropic), (2, 4, 64, 64), {"isotropic_steps": 1}, 12),
    "isotropic, float64": Case(isotropic, (4, 64, 64), {"isotropic_steps": 1}, 12, "float64"),
    "isotropic, half": Case(isotropic, (4, 64, 64), {"isotropic_steps": 1}, 24, "bfloat16"),
    "isotropic, gradient": Case(
        grad(isotropic),
        (4, 32, 32),
        {"isotropic_steps": 1, "components_jvp": 1, "components_vjp": 1},
        40,
        loop=True,
    ),
    # XLA copies the state once per round of a loop that has a collective.
    "8 devices: isotropic": Case(
        isotropic, (8, 64, 64), {"isotropic_steps": 1}, 2, devices=8, loop=True, flags=1
    ),
    "8 devices: 1D": Case(prox1d(), (256, 32), {"prox1d": 1}, 0.1, devices=8),
    "8 devices: 1D gradient": Case(
        grad(prox1d()), (256, 32), {"prox1d": 1, "segment_vjp": 1}, 1, devices=8
    ),
    "8 devices: 2D JVP": Case(
        jvp(prox2d()), (8, 64, 64), {"dykstra_with_codes": 1, "dykstra_jvp": 1}, 1, devices=8
    ),
    "8 devices: 2D gradient": Case(
        grad(prox2d()), (8, 64, 64), {"dykstra_with_codes": 1, "dykstra_vjp": 1}, 1, devices=8
    ),
}


def compiled(case: Case) -> jax.stages.Compiled:
    """The case's function, compiled for as many H100s as it asks for."""
    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name="h100",
        target_config=H100,
        topology=f"1x1x{case.devices}",
    )
    mesh = topologies.make_mesh(topology, (case.devices,), ("batch",))
    spec = jax.P("batch") if case.devices > 1 else jax.P()
    sharding = jax.NamedSharding(mesh, spec)
    x = jax.ShapeDtypeStruct(case.shape, case.dtype, sharding=sharding)
    return jax.jit(case.function).lower(x).compile()


def problems(case: Case, hlo: str, temporary: int) -> list[str]:
    """What is wrong with the compiled code of a case: its text, and its bytes of temporaries."""
    found = []
    calls = collections.Counter(re.findall(r'custom_call_target="jaxtv_(\w+)"', hlo))
    if set(calls) != set(case.calls) or (
        not case.loop and calls != collections.Counter(case.calls)
    ):
        found.append(f"calls {dict(calls)} in place of {dict(case.calls)}")
    # Copies of constants are what loops start from.
    copies = re.findall(r"^.* copy(?:-start)?\((?!%constant).*$", hlo, re.M)
    if copies and not case.loop:
        found.append(f"{len(copies)} copies: {[copy.strip() for copy in copies]}")
    collectives, flags = re.findall(COLLECTIVES, hlo), re.findall(FLAG, hlo)
    if len(collectives) > len(flags) or len(flags) > case.flags:
        found.append(f"collectives: {collectives}")
    size = math.prod(case.shape) * jnp.dtype(case.dtype).itemsize
    if temporary > case.temporary * size + 1024:
        found.append(f"{temporary} bytes of temporaries, {temporary / size:.2f} arrays")
    return found


def missing() -> str:
    """Why nothing can be compiled here; empty if it can."""
    if "cuda" not in _native.REGISTERED:
        return "jaxtv is built without CUDA kernels (JAXTV_CUDA=ON)"
    plugins = {e.name: e.dist for e in importlib.metadata.entry_points(group="jax_plugins")}
    if not any("cuda" in name for name in plugins):
        return f"jax's CUDA plugin is not installed (jax-cuda13-plugin=={jax.__version__})"
    if not (cuda_home() / "bin" / "ptxas").exists():
        return "no CUDA toolkit: neither CUDA_HOME nor nvcc on PATH leads to one"
    return ""


def cuda_home() -> pathlib.Path:
    """The folder of the CUDA toolkit; of nvcc's own, which may be a script on PATH."""
    if "CUDA_HOME" in os.environ:
        return pathlib.Path(os.environ["CUDA_HOME"])
    if nvcc := shutil.which("nvcc"):
        command = [nvcc, "--dryrun", "-x", "cu", os.devnull, "-o", os.devnull]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        if here := re.search(r"^#\$ _HERE_=(.*)$", told, re.M):
            return pathlib.Path(here[1]).parent
    return pathlib.Path("/usr/local/cuda")


def main() -> None:
    """Compile all cases; the exit status is 1 if one has a problem, 2 if nothing can be compiled."""
    if reason := missing():
        print(reason, file=sys.stderr)
        raise SystemExit(2)
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    flags = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
    os.environ["XLA_FLAGS"] = f"--xla_gpu_cuda_data_dir={cuda_home()} {flags}"
    jax.config.update("jax_enable_x64", True)
    wrong = 0
    for name, case in CASES.items():
        start = time.perf_counter()
        code = compiled(case)
        temporary = code.memory_analysis().temp_size_in_bytes
        found = problems(case, code.as_text(), temporary)
        wrong += bool(found)
        verdict = "; ".join(found) or "ok"
        print(
            f"{name:24} {temporary:9d} B  {time.perf_counter() - start:4.1f} s  {verdict}",
            flush=True,
        )
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
