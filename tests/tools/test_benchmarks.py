"""The benchmark suite: its solvers against the oracles, a quick run, the guard's comparison."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import gpu, history, instructions, problems, report, scalar, targets
from benchmarks.environments import Environments, NotInstalledError
from benchmarks.measure import Effort, Method, Problem, interleave, race
from testing import ROOT, long_double, oracles

pytestmark = [pytest.mark.nightly, pytest.mark.cpu_only]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """(results, page, folder) of a quick run of some chapters, by the command."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(folder)]
    chapters = ["table1", "kernels", "accuracy", "images", "scaling_n", "scaling_lam", "threads"]
    chapters += ["isotropic", "graph_tv", "trend_filter", "selection"]
    done = subprocess.run(
        [*command, "--only", *chapters], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder / "benchmarks.json").read_text())
    return results, (folder / "benchmarks.md").read_text(), folder


@pytest.mark.parametrize("lam", [0.0, 0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("n", [1, 2, 33])
def test_the_c_loop(n, lam):
    x = np.random.default_rng(0).normal(size=(20, n))
    y = oracles.prox1d(x, lam).y
    assert np.abs(scalar.solve("loop_f64", x, lam, np.empty_like(x), 2) - y).max() < 1e-12
    single = x.astype(np.float32)
    assert np.abs(scalar.solve("loop_f32", single, lam, np.empty_like(single), 1) - y).max() < 1e-4


def test_interleaving_and_its_limits():
    order = []
    samplers = [lambda: order.append("a") or 1.0, None, lambda: order.append("b") or 2.0]
    assert interleave(samplers, Effort(runs=3, seconds=9)) == [[1.0] * 3, [], [2.0] * 3]
    assert order == list("ababab")


def test_a_peer_that_is_missing_or_broken_is_in_the_records():
    problem = Problem("p", np.zeros((4, 8), np.float32), 1.0)
    methods = [
        Method("jaxtv", "jaxtv_forward"),
        Method("prox_tv nonsense", "prox_tv_rows", {"method": "nonsense"}),
        Method("scico", "scico_prox", environment="scico without an environment"),
    ]
    environments = Environments(may_install=False)
    try:
        first, broken, missing = race(environments, problem, methods, Effort(2, 0.1))
    finally:
        environments.close()
    assert first["status"] == "ok"
    assert first["ratio"] == 1
    assert first["error"] == 0
    assert broken["status"] == "failed"
    assert missing["status"] == "not installed"
    assert "scico" in missing["reason"]


@pytest.mark.parametrize("lam", [0.05, 0.5])
def test_converged_images_against_maximal_flows(lam):
    """fastprox's `graph_tv` is exact, by another method than any of ours: `tol` bounds |y - y*|."""
    x = problems.photo(272).astype(np.float64)
    x[:, 100:] += 0.1 * np.random.default_rng(0).normal(size=(272, 172))
    environments = Environments(may_install=True)

    def solution(environment, method, x, **options):
        return environments[environment].build(method, x, lam, (0, 1), options).output()

    try:
        best = solution("fastprox", "fastprox_graph", x)
        least = long_double.objective(x, best, lam, (0, 1))
        for environment, dtype, tol in (("float64", np.float64, 1e-10), ("here", np.float32, 1e-6)):
            y = solution(environment, "jaxtv_forward", x.astype(dtype), tol=tol)
            assert np.linalg.norm(y - best) <= np.sqrt(2 * tol * least)
            assert long_double.objective(x, y, lam, (0, 1)) <= (1 + 1.1 * tol) * least
    except NotInstalledError as error:
        pytest.skip(str(error))
    finally:
        environments.close()


def test_records(quick):
    results, _, _ = quick
    assert results["quick"]
    assert results["environment"]["pins"].keys() >= {"prox_tv", "scico", "cvxpylayers"}
    for records in results["chapters"].values():
        for record in records:
            assert record["status"] in ("ok", "not installed", "failed")
            if record["status"] == "ok":
                assert 0 < record["median"] < 60
                assert record["runs"] >= 1
            else:
                assert record["reason"]


def test_methods_solve_the_problem(quick):
    """A wrong scale of λ in one of the adapters would show here."""
    records = {r["method"]: r for r in quick[0]["chapters"]["table1"]}
    for name in ("jaxtv", "jaxtv ProjectedNewton", "C loop", "prox_tv dp", "prox_tv pn"):
        assert records[name]["error"] < 1e-5, name
    images = {r["method"]: r for r in quick[0]["chapters"]["images"]}
    for name in ("jaxtv Dykstra(4)", "prox_tv pd, 4 iterations", "prox_tv dr, 4 iterations"):
        assert images[name]["relative_error"] < 0.2, name
    assert images["jaxtv AcceleratedDykstra(0.0001)"]["relative_gap"] < 1e-4


def test_certified_problems_are_the_same_for_all(quick):
    chapters = quick[0]["chapters"]
    for name in ("isotropic", "graph_tv", "trend_filter"):
        for record in (r for r in chapters[name] if r["status"] == "ok"):
            assert record["optimum_error"] < 1e-4, (name, record)
            assert record["relative_error"] < 0.3, (name, record)
            if record["method"].startswith("jaxtv"):
                assert record["relative_error"] < 0.05, (name, record)


def test_page(quick):
    results, page, folder = quick
    assert "A quick run" in page
    for method in {r["method"] for r in results["chapters"]["table1"]}:
        assert f"| {method} |" in page, method
    assert "| ProxTV-TS |" in page
    assert "| 20704 ± 32 | 9932 ± 41 | 1770× |" in page
    for target in targets.judge(results["chapters"]):
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {target.what} |"))
        assert ("**not met**" in row) == (not target.met)
    figures = {p.name for p in (folder / "images").iterdir()}
    mentioned = {
        f"bench_{name}.png"
        for name in (
            *("kernels", "accuracy", "images", "isotropic"),
            *("scaling_n", "scaling_lam", "threads"),
        )
    }
    assert figures == mentioned
    assert all(f"images/{name}" in page for name in mentioned)


def test_rendering_again_gives_the_same_page(quick):
    results, page, folder = quick
    report.write(results, folder)
    assert (folder / "benchmarks.md").read_text() == page


def test_slope():
    records = [
        {"method": "a", "status": "ok", "size": n, "median": 3 * n**1.5} for n in (1, 10, 100, 1000)
    ]
    assert targets.fit_slope(records, "a", 10) == pytest.approx(1.5)
    assert targets.fit_slope(records, "a", 1000) is None


def test_guard_compares():
    known = json.loads(instructions.COUNTS.read_text())
    assert set(known["cases"]) == set(instructions.CASES)
    counts = {name: case["instructions"] for name, case in known["cases"].items()}
    assert instructions.compare(known, counts) == []
    counts["ramp"] = int(1.09 * counts["ramp"])
    assert instructions.compare(known, counts) == []
    counts["ramp"] = int(1.11 * known["cases"]["ramp"]["instructions"])
    (message,) = instructions.compare(known, counts)
    assert message.startswith("ramp: ")
    (message,) = instructions.compare(known, {"new": 1})
    assert message == "new: no count in instructions.json"


# ---------------------------------------------------------------------------- of the GPU


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
    assert list(report["cases"]) == [case.name for case in gpu.CASES]
    for case in gpu.CASES:
        result = report["cases"][case.name]
        if len(case.axes) == 1 and case.dtype == "float32":
            assert result["max_gap"] < 1e-3  # of values up to 100
        for name in gpu.PASSES:
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


def test_the_history_is_every_committed_version(tmp_path):
    def git(*arguments):
        names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *names, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "benchmarks").mkdir()
    for instructions_, name in ((200, "masks, a"), (201, "edge codes, a"), (100, "edge codes, a")):
        case = {"instructions": instructions_, "samples": 10}
        text = json.dumps({"cases": {name: case, "same": {"instructions": 7, "samples": 1}}})
        (tmp_path / "benchmarks/instructions.json").write_text(text)
        git("add", ".")
        git("commit", "-m", f"{instructions_} instructions")
    found = history.versions(tmp_path, "cpu")
    assert [v.counts["edge codes, a"] for v in found] == [20, 20.1, 10]
    rows = history.table(found).splitlines()[2:]
    assert len(rows) == 1  # one change is below the noise
    assert "100 instructions" in rows[0]
    assert "edge codes, a 20.1 → 10 |" in rows[0]
