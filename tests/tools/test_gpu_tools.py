"""What runs on a GPU machine only, run here: its scripts, and the switches of the build."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig

import jax
import jax.numpy as jnp
import pytest

import jaxtv
from jaxtv import _native, _primitive
from testing import emulator

pytestmark = pytest.mark.cpu_only
ROOT = emulator.ROOT


def script(path):
    """A script of the repository as a module."""
    name = path.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------- sanitizers


def test_the_sanitizers_see_every_kernel(simt, request):
    kernels = emulator.library(request.config.cache.mkdir("simt"))
    kernels.jaxtv_simt_recorded.restype = emulator.ctypes.c_char_p
    with emulator.using(simt):
        kernels.jaxtv_simt_record()
        script("scripts/sanitizer_run.py").main()
    ran = {line.split()[0] for line in kernels.jaxtv_simt_recorded().decode().splitlines()}
    sources = "".join(f.read_text() for f in (ROOT / "cuda").rglob("*.cu"))
    written = set(re.findall(r"__global__ void (?:__launch_bounds__\(.*\)\)?\s+)?(\w+)\(", sources))
    assert ran == written - {"fill_zero"}  # no public function solves an empty array


# ---------------------------------------------------------------------------- the run on a GPU


def collect(**environment):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/test_readme.py"]
    env = os.environ | environment
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_require_cuda_fails_where_tests_would_run_on_the_cpu():
    assert collect().returncode == 0
    done = collect(JAXTV_REQUIRE_CUDA="1")
    assert done.returncode == 4
    assert "JAX sees no CUDA device" in done.stderr


@pytest.mark.parametrize(
    ("registered", "fallback", "message"),
    [
        ({"cpu": ()}, False, "built without CUDA kernels"),
        ({"cpu": (), "cuda": ()}, True, "JAXTV_FALLBACK"),
        ({"cpu": (), "cuda": ()}, False, None),
    ],
)
def test_require_cuda_fails_without_the_kernels(monkeypatch, registered, fallback, message):
    conftest = script("tests/conftest.py")
    monkeypatch.setattr(emulator, "on_gpu", lambda: True)
    monkeypatch.setattr(conftest._native, "REGISTERED", registered)
    monkeypatch.setattr(conftest._native, "FALLBACK", fallback)
    if message is None:
        conftest.require_cuda()
    else:
        with pytest.raises(pytest.UsageError, match=message):
            conftest.require_cuda()


# ---------------------------------------------------------------------------- gpu_check.sh

STAND_IN = """#!/bin/bash
# Every tool that gpu_check.sh calls; $FAIL, $HANG, $STUCK and $KILL name a stage.
stage=none
case "${0##*/} $*" in
  timeout*) exec "$TIMEOUT" "${@:1:4}" 1 "$([ "$HANG$STUCK" ] && echo 1 || echo 60)" "${@:7}" ;;
  nvidia-smi*name*) echo "NVIDIA H100 80GB" ;;
  nvidia-smi*) echo 9.0 ;;
  cmake*--install*) mkdir -p build/gpu/site ;;
  cmake*-S*) stage=build ;;
  compute-sanitizer*) stage=$2 ;;
  *"-m pytest "*) stage=tests ;;
  *benchmarks/gpu.py*) stage=benchmark; echo '{"cases": {}}' > "$4" ;;
esac
[ "$stage" = none ] || echo "what $stage says"
case "$stage" in
  "$FAIL") echo "FAILED $stage: the reason"; exit 3 ;;
  "$HANG") exec sleep 60 ;;
  "$STUCK") trap '' INT; exec sleep 60 ;;
  "$KILL") kill -KILL $$ ;;
esac
"""
VERDICTS = {"FAIL": "FAILED (3)", "HANG": "OUT OF TIME", "STUCK": "OUT OF TIME", "KILL": "KILLED"}
STAGES = ["build", "tests", "memcheck", "racecheck", "initcheck", "synccheck", "benchmark"]


@pytest.fixture
def gpu_check(tmp_path):
    """Runs a copy of the script on stand-ins; returns what it did and the JSON it left."""
    root, tools = tmp_path / "checkout", tmp_path / "tools"
    for folder in (root / "scripts", root / "jaxtv", tools, tmp_path / "logs"):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "scripts/gpu_check.sh", root / "scripts")
    for name in ("timeout", "nvidia-smi", "cmake", "compute-sanitizer", "python3"):
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)
    (tmp_path / "logs/benchmark.txt").write_text("of an earlier run")

    def run(how="", stage=""):
        environment = os.environ | {
            "PATH": os.pathsep.join([str(tools), os.environ["PATH"]]),
            "TIMEOUT": shutil.which("timeout"),
            "OUT": str(tmp_path / "logs"),
            **{name: stage if name == how else "" for name in VERDICTS},
        }
        command = ["bash", root / "scripts/gpu_check.sh"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert not done.stderr
        return done, (root / "benchmarks/results/NVIDIA_H100_80GB.json").exists()

    return run


def verdicts(output):
    """Stage -> verdict, of the last lines."""
    rows = [re.split(r"\s{2,}", line) for line in output.splitlines()[-8:-1]]
    return {row[0].split()[0]: " ".join(row).split(maxsplit=1)[1] for row in rows}


def test_gpu_check_says_ok_and_leaves_the_json(gpu_check):
    done, json = gpu_check()
    assert done.returncode == 0
    assert json
    assert list(found := verdicts(done.stdout)) == STAGES
    assert all(verdict.startswith("ok ") for verdict in found.values())
    assert "-- NVIDIA_H100_80GB\nwhat benchmark says\nbuild " in done.stdout


@pytest.mark.parametrize("how", VERDICTS)
@pytest.mark.parametrize("stage", ["build", "tests", "racecheck", "benchmark"])
def test_gpu_check_says_what_went_wrong_and_goes_on(gpu_check, stage, how):
    done, json = gpu_check(how, stage)
    assert done.returncode == 1
    assert f"what {stage} says" in done.stdout
    assert ("FAILED build: the reason" in done.stdout) == ((how, stage) == ("FAIL", "build"))
    assert json == (stage != "build")
    assert "of an earlier run" not in done.stdout
    for name, verdict in verdicts(done.stdout).items():
        if name == stage:
            assert verdict.startswith(VERDICTS[how])
        else:
            assert verdict.startswith("NOT RUN" if stage == "build" else "ok ")


# ---------------------------------------------------------------------------- lowering


def test_the_accelerated_solver_lowers_to_jax_around_kernels(monkeypatch):
    monkeypatch.setitem(_native.REGISTERED, "cuda", _native.REGISTERED["cpu"])
    x, ws = jnp.ones((3, 4)), (jnp.ones((1, 4)), jnp.ones((3, 1)))
    params = {"axes": (0, 1), "gap_tol": 1e-6, "sweeps": 5, "inner": jaxtv.Direct()}
    bind = _primitive._accelerated_p.bind
    traced = jax.jit(lambda *a: bind(*a, **params)).trace(x, x, *ws)
    calls = re.findall(r"@(jaxtv_\w+)", traced.lower(lowering_platforms=("cuda",)).as_text())
    assert set(calls) == {"jaxtv_prox1d", "jaxtv_components_jvp"}
    assert "@jaxtv_converged" in traced.lower(lowering_platforms=("cpu",)).as_text()


# ---------------------------------------------------------------------------- build


def test_cuda_without_nvcc_is_a_clear_error(tmp_path):
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=path)
    command = [cmake, "-S", ROOT, "-B", tmp_path, "-DJAXTV_CUDA=ON"]
    env = os.environ | {"CUDACXX": str(tmp_path / "nvcc")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "JAXTV_CUDA=ON needs the CUDA toolkit" in " ".join(done.stderr.split())
