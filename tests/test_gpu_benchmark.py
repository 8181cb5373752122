"""The GPU benchmark and the reports of scripts/, run without a GPU."""

import importlib.util
import json
import os
import subprocess
import sys
import types

import pytest
import simt_platform

ROOT = simt_platform.ROOT
pytestmark = pytest.mark.once


def script(path):
    spec = importlib.util.spec_from_file_location("script", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["script"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_every_case_runs_on_tiny_shapes(tmp_path):
    output = tmp_path / "new" / "cpu.json"
    command = [sys.executable, "-P", ROOT / "benchmarks/gpu.py", "--platform=cpu", "--smoke"]
    done = subprocess.run(
        [*command, "--output", output],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(output.read_text())
    benchmark = script("benchmarks/gpu.py")
    assert list(report["cases"]) == [case.name for case in benchmark.CASES]
    for case in benchmark.CASES:
        result = report["cases"][case.name]
        if len(case.axes) == 1 and case.dtype == "float32":
            assert result["max_gap"] < 1e-3  # of values up to 100
        for name in benchmark.PASSES:
            assert result[name]["us"] > 0
            assert result[name]["copy_us"] > 0
            assert ("target" in result[name]) == (name in case.targets)
    assert ("forward_backward_us" in report["paper"]) != ("error" in report["paper"])


def test_no_gpu_is_said_at_once():
    command = [sys.executable, "-P", ROOT / "benchmarks/gpu.py"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no gpu: JAX runs on cpu" in done.stderr


def profile(durations, line="Stream #13(Compute)", plane="/device:GPU:0"):
    space = types.SimpleNamespace
    events = [space(start_ns=1e3 * i, duration_ns=1e3 * d) for i, d in enumerate(durations)]
    return space(planes=[space(name=plane, lines=[space(name=line, events=events)])])


def test_the_time_of_a_call_is_that_of_its_kernels():
    benchmark = script("benchmarks/gpu.py")

    def median(profile, runs):
        return benchmark.per_call(benchmark.device_events(profile), runs)

    calls = [1, 2, 1, 3, 1, 90]  # two kernels in each of three calls
    assert median(profile(calls), 3) == (4, "profiler")
    assert median(profile([1, 2, 3, 4, 5]), 2) == (7.5, "profiler, mean")
    assert median(profile(calls, line="XLA Ops"), 3) is None
    assert median(profile(calls, plane="/host:CPU"), 3) is None


LOG = """
  ptxas info    : 0 bytes gmem
  ptxas info    : Compiling entry function '_Z{n}{name}v' for 'sm_90'
  ptxas info    : Function properties for _Z{n}{name}v
      16 bytes stack frame, {spills} bytes spill stores, 0 bytes spill loads
  ptxas info    : Used 77 registers, used 1 barriers, 128 bytes cumulative stack size
"""


@pytest.mark.parametrize(("spills", "status"), [(0, 0), (8, 1)])
def test_spills_fail_the_report(tmp_path, capsys, spills, status):
    log = tmp_path / "build.log"
    log.write_text(
        LOG.format(n=4, name="rows", spills=0) + LOG.format(n=5, name="block", spills=spills)
    )
    report = script("scripts/ptxas_report.py")
    assert report.main([str(log)]) == status
    assert f"   77 {spills:6d}     16  block" in capsys.readouterr().out


def test_a_log_without_kernels_fails_the_report(tmp_path):
    (tmp_path / "log").write_text("nothing was compiled")
    with pytest.raises(SystemExit, match="no kernels"):
        script("scripts/ptxas_report.py").main([str(tmp_path / "log")])
