"""The scripts of the repository and the switches of the build, as far as they run without a GPU."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

from testing import ROOT, emulator

pytestmark = pytest.mark.cpu_only


def script(path):
    """A script of the repository as a module."""
    name = path.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.nightly
def test_the_sanitizers_see_every_kernel():
    with emulator.using(), emulator.launches() as launches:
        script("scripts/sanitizer_run.py").main()
    ran = {launch.kernel for launch in launches}
    sources = "".join(f.read_text() for f in (ROOT / "cuda").rglob("*.cu"))
    written = set(re.findall(r"__global__ void (?:__launch_bounds__\(.*\)\)?\s+)?(\w+)\(", sources))
    assert ran == written - {"fill_zero"}  # no public function solves an empty array


@pytest.mark.parametrize(
    ("gpu", "registered", "fallback", "message"),
    [
        (False, {"cpu": ()}, False, "JAX sees no CUDA device"),
        (True, {"cpu": ()}, False, "built without CUDA kernels"),
        (True, {"cpu": (), "cuda": ()}, True, "JAXTV_FALLBACK"),
        (True, {"cpu": (), "cuda": ()}, False, None),
    ],
)
def test_require_cuda_fails_without_the_kernels(monkeypatch, gpu, registered, fallback, message):
    conftest = script("tests/conftest.py")
    monkeypatch.setattr(emulator, "on_gpu", lambda: gpu)
    monkeypatch.setattr(conftest._native, "REGISTERED", registered)
    monkeypatch.setattr(conftest._native, "FALLBACK", fallback)
    if message is None:
        conftest.require_cuda()
    else:
        with pytest.raises(pytest.UsageError, match=message):
            conftest.require_cuda()


def test_cuda_without_nvcc_is_a_clear_error(tmp_path):
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=path)
    command = [cmake, "-S", ROOT, "-B", tmp_path, "-DJAXTV_CUDA=ON"]
    env = os.environ | {"CUDACXX": str(tmp_path / "nvcc")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "JAXTV_CUDA=ON needs the CUDA toolkit" in " ".join(done.stderr.split())


# ---------------------------------------------------------------------------- what ptxas says

LOG = """
  ptxas info    : 0 bytes gmem
  ptxas info    : Compiling entry function '_Z{n}{name}v' for 'sm_90'
  ptxas info    : Function properties for _Z{n}{name}v
      16 bytes stack frame, {spills} bytes spill stores, 0 bytes spill loads
  ptxas info    : Used 77 registers, used 1 barriers, 128 bytes cumulative stack size
"""


@pytest.mark.parametrize(("spills", "status"), [(0, 0), (8, 1)])
def test_spills_fail_the_ptxas_report(tmp_path, capsys, spills, status):
    log = tmp_path / "build.log"
    log.write_text(
        LOG.format(n=4, name="rows", spills=0) + LOG.format(n=5, name="block", spills=spills)
    )
    report = script("scripts/ptxas_report.py")
    assert report.main([str(log)]) == status
    assert f"   77 {spills:6d}     16  block" in capsys.readouterr().out


@pytest.mark.parametrize(("registers", "status"), [(64, 0), (65, 1)])
def test_too_many_registers_fail_the_ptxas_report(tmp_path, registers, status):
    log = tmp_path / "build.log"
    name = "13segment_meansIfLb0EEvv"  # segment_means<float, false>
    text = LOG.replace("_Z{n}{name}v", f"_Z{name}").format(spills=0)
    log.write_text(text.replace("Used 77", f"Used {registers}"))
    assert script("scripts/ptxas_report.py").main([str(log)]) == status


def test_a_kernel_without_a_report_fails(tmp_path):
    log = tmp_path / "build.log"
    whole = LOG.format(n=4, name="rows", spills=0)
    log.write_text(whole + whole.split("ptxas info    : Function")[0])
    with pytest.raises(SystemExit, match="2 kernels, but 1 reports"):
        script("scripts/ptxas_report.py").main([str(log)])


def test_a_log_without_kernels_fails_the_report(tmp_path):
    (tmp_path / "log").write_text("nothing was compiled")
    with pytest.raises(SystemExit, match="no kernels"):
        script("scripts/ptxas_report.py").main([str(tmp_path / "log")])
