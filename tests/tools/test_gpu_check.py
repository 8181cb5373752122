"""scripts/gpu_check.sh without a GPU: stages that fail, and a rehearsal of all of it with stand-ins for the GPU's tools."""

import functools
import os
import shutil
import subprocess

import pytest

from testing import ROOT

STAGES = (
    "module",
    "graphs",
    "tests",
    "memcheck",
    "racecheck",
    "initcheck",
    "synccheck",
    "benchmark",
)
NVIDIA_SMI = '[ "$1" = --query-gpu=name ] && echo NVIDIA H200 || echo 9.0'
SANITIZER = 'while [ "$1" != python3 ]; do shift; done; exec "$@"'


def stand_in(folder, name, script):
    """A program on PATH in place of a tool."""
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def check(folder, site=None):
    """The exit status of gpu_check.sh in a copy of the checkout, its lines, and verdicts by stage."""
    checkout, tools = folder / "checkout", folder / "tools"
    checkout.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    if site is not None:
        shutil.copytree(site, checkout / "build/gpu/site")
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "OUT": str(folder / "out"),
        "TMPDIR": str(folder),
    }
    (folder / "out").mkdir()
    done = subprocess.run(
        ["bash", "scripts/gpu_check.sh"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    verdicts = dict(line.split(maxsplit=1) for line in lines[-len(STAGES) - 1 : -1])
    assert tuple(verdicts) == STAGES, done.stdout + done.stderr
    return done.returncode, lines, verdicts


@pytest.fixture
def tools(tmp_path):
    """Stand-ins for all programs: Python does nothing, and does not do it in `fails`."""

    def make(fails="nothing", module=0):
        folder = tmp_path / "tools"
        folder.mkdir()
        stand_in(folder, "nvidia-smi", NVIDIA_SMI)
        stand_in(folder, "compute-sanitizer", f'[ "$2" = {fails} ] && exit 9; {SANITIZER}')
        python = f'case "$*" in *{fails}*) echo "FAILED by the test"; exit 3;; *) echo ran;; esac'
        stand_in(folder, "python3", python)
        make = "mkdir -p build/gpu/site/jaxtv; touch build/gpu/site/jaxtv/_cuda.so"
        stand_in(folder, "cmake", f"echo cmake ran; {make}; exit {module}")
        return tmp_path

    return make


def test_all_stages_run_and_the_table_is_last(tools):
    status, lines, verdicts = check(tools())
    assert status == 0, lines
    assert all(verdict.startswith("ok ") for verdict in verdicts.values())
    assert lines[-1].endswith("s in all")


@pytest.mark.parametrize(
    ("fails", "stage"),
    [("racecheck", "racecheck"), ("tests/kernels", "tests"), ("benchmarks/gpu.py", "benchmark")],
)
def test_a_stage_that_fails_takes_no_other_along(tools, fails, stage):
    status, lines, verdicts = check(tools(fails))
    assert status == 1, lines
    for name in STAGES:
        assert verdicts[name].startswith("FAILED" if name == stage else "ok "), lines


def test_without_a_module_nothing_else_runs(tools):
    status, lines, verdicts = check(tools(module=1))
    assert status == 1
    assert verdicts.pop("module").startswith("FAILED")
    assert set(verdicts.values()) == {"NOT RUN"}
    assert "cmake ran" in "\n".join(lines)


# ---------------------------------------------------------------------------- rehearsal

PACKAGES = (
    "jax==0.11.2 flax optax orbax-checkpoint pytest pytest-xdist hypothesis scikit-image nanobind"
)
# JAX says that it has a GPU; the CPU kernels run.
SITE = 'import os, jax\njax.default_backend = lambda: "gpu"\n'
# Few tests, and small benchmarks; compute-sanitizer's runs do nothing.
PYTHON = """
case "$*" in
  *"-m pytest"*) set -- "$@" -k "test_half or test_signal" ;;
  *benchmarks/gpu.py*) set -- "$@" --smoke ;;
esac
exec {python} "$@"
"""


@pytest.mark.nightly
def test_rehearsal(tmp_path):
    """With Python 3.12, jax 0.11.2, and a module for sm_90 that is built before and travels."""
    system = shutil.which("python3.12")
    if system is None or shutil.which("nvcc") is None:
        pytest.skip("needs python3.12 and nvcc")
    python = tmp_path / "venv/bin/python"
    run = functools.partial(subprocess.run, check=True, cwd=ROOT)
    run([system, "-m", "venv", tmp_path / "venv"])
    run([python, "-m", "pip", "install", "-q", *PACKAGES.split()])
    run(["bash", "scripts/gpu_module.sh"], env={**os.environ, "PYTHON": str(python)})
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "sitecustomize.py").write_text(SITE)
    folder = tmp_path / "tools"
    folder.mkdir()
    stand_in(folder, "nvidia-smi", NVIDIA_SMI)
    stand_in(folder, "compute-sanitizer", "echo $2 ran")
    stand_in(folder, "python3", PYTHON.format(python=python))
    status, lines, verdicts = check(tmp_path, site=ROOT / "build/gpu/site")
    assert status == 0, "\n".join(lines)
    assert all(verdict.startswith("ok ") for verdict in verdicts.values())
    assert "the module that came along" in (tmp_path / "out/module.txt").read_text()
    assert int(lines[-1].split()[0]) <= 420
