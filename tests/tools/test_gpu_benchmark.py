"""The GPU benchmark and the reports of scripts/, run without a GPU."""

import importlib.util
import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from testing import emulator

ROOT = emulator.ROOT


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


# ---------------------------------------------------------------------------- the paper's package


class Layer:
    """Stands in for tv_opt_layers.layers.l1_tv_1d_layer.L1TV1DLayer: its signatures, its shapes."""

    made, solved = [], []

    def __init__(
        self,
        lmbd_mode="learned",
        lmbd_init=-1,
        lmbd_zero=-1,
        num_channels=1,
        direction="row",
        dtype=None,
    ):
        assert lmbd_mode in ("learned", "fixed", "given")
        assert direction in ("row", "col")
        self.made.append((lmbd_mode, lmbd_init, num_channels, direction))

    def cuda(self):
        return self

    def __call__(self, y, input_lmbd=None, direction=None):
        assert y.data.ndim == 4
        assert y.on_device
        assert y.needs_gradient
        self.solved.append(y.data)
        return y


class Tensor:
    """Stands in for a torch.Tensor."""

    on_device = needs_gradient = False

    def __init__(self, data):
        self.data, self.backwards = data, 0

    def cuda(self):
        self.on_device = True
        return self

    def requires_grad_(self):
        self.needs_gradient = True
        return self

    def sum(self):
        return self

    def backward(self):
        self.backwards += 1


class Event:
    """Stands in for a torch.cuda.Event: the n-th measurement takes n ms."""

    measured = 0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        pass

    def elapsed_time(self, end):
        Event.measured += 1
        return Event.measured


@pytest.fixture
def papers_package(monkeypatch):
    space = types.SimpleNamespace
    cuda = space(Event=Event, synchronize=lambda: None)
    for name, content in {
        "torch": {"cuda": cuda, "from_numpy": Tensor},
        "tv_opt_layers": {},
        "tv_opt_layers.layers": {},
        "tv_opt_layers.layers.l1_tv_1d_layer": {"L1TV1DLayer": Layer},
    }.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Event, "measured", 0)
    monkeypatch.setattr(Layer, "made", [])
    monkeypatch.setattr(Layer, "solved", [])


def test_the_papers_layer_is_called_as_it_is_written(papers_package):
    benchmark = script("benchmarks/gpu.py")
    with jax.numpy_dtype_promotion("standard"):  # as where it is run
        table1 = np.asarray(benchmark.samples(benchmark.CASES[0], 0))
        assert benchmark.paper_package(runs=3) == {"forward_backward_us": 5e3}  # of 4, 5, 6 ms
    assert Layer.made == [("learned", 1.0, 1, "row")]
    assert len(Layer.solved) == 6
    for x in Layer.solved:
        assert x.shape == (8, 32, 32, 32)
        assert x.dtype == np.float32
        assert np.array_equal(x.reshape(table1.shape), table1)


def test_what_the_papers_package_raises_is_its_result(papers_package, monkeypatch):
    monkeypatch.setattr(Layer, "cuda", lambda self: 1 / 0)
    result = script("benchmarks/gpu.py").paper_package(runs=3)
    assert result == {"error": "ZeroDivisionError: division by zero"}


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
    name = "5applyIfLb0EEvv"  # apply<float, false>
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
