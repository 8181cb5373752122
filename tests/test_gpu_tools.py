"""What runs on a GPU machine only, run here: its scripts, and the switches of the build."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest
import simt_platform

pytestmark = [pytest.mark.once, pytest.mark.host]
ROOT = simt_platform.ROOT


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
    kernels = simt_platform.library(request.config.cache.mkdir("simt"))
    kernels.jaxtv_simt_recorded.restype = simt_platform.ctypes.c_char_p
    with simt_platform.using(simt):
        kernels.jaxtv_simt_record()
        script("scripts/sanitizer_run.py").main()
    ran = {line.split()[0] for line in kernels.jaxtv_simt_recorded().decode().splitlines()}
    sources = "".join(f.read_text() for f in (ROOT / "cuda").glob("*.cu"))
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
    monkeypatch.setattr(simt_platform, "on_gpu", lambda: True)
    monkeypatch.setattr(conftest._ffi, "REGISTERED", registered)
    monkeypatch.setattr(conftest._ffi, "FALLBACK", fallback)
    if message is None:
        conftest.require_cuda()
    else:
        with pytest.raises(pytest.UsageError, match=message):
            conftest.require_cuda()


# ---------------------------------------------------------------------------- build


def test_cuda_without_nvcc_is_a_clear_error(tmp_path):
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=path)
    command = [cmake, "-S", ROOT, "-B", tmp_path, "-DJAXTV_CUDA=ON"]
    env = os.environ | {"CUDACXX": str(tmp_path / "nvcc")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "JAXTV_CUDA=ON needs the CUDA toolkit" in " ".join(done.stderr.split())
