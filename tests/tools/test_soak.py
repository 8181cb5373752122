"""Every reliability check at a small size, and that each would notice a broken result."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv
from soak import (
    accuracy,
    arm,
    bits,
    calls,
    features,
    fuzz,
    huge_arrays,
    memory,
    misuse,
    platforms,
    sanitizers,
    trends_and_graphs,
)
from soak.result import finding
from testing import ROOT, long_double, oracles, random_batches

pytestmark = [pytest.mark.nightly, pytest.mark.cpu_only]


def test_the_solver_of_the_checks_is_the_oracle():
    r = np.random.default_rng(0)
    for n in (1, 2, 50, 301):
        x, w = r.normal(size=(8, n)), r.exponential(size=(8, n - 1))
        w = np.where(r.random(w.shape) < 0.2, r.choice([0.0, np.inf], w.shape), w)
        np.testing.assert_allclose(
            long_double.prox1d(x, w), oracles.prox1d(x, w).y, rtol=0, atol=1e-13
        )


def test_random_batches_are_right_and_a_perturbed_one_is_not():
    for seed in range(12):
        b = random_batches.batch(seed, samples=4000)
        y = random_batches.solve(b, accuracy.SOLVERS[seed % 3])
        assert accuracy.Tally().add(b, y) == 0
        broken = y.copy()
        dtype = random_batches.compute_dtype(b.dtype)
        eps = float(jnp.finfo(b.dtype).eps) if b.dtype != dtype else 0
        broken[0, 0] -= (
            np.copysign(2 * random_batches.TOLERANCE[dtype] + eps, broken[0, 0]) * b.scale[0, 0]
        )
        assert accuracy.Tally().add(b, broken) == 1
        broken[0, 0] = np.nan
        assert accuracy.Tally().add(b, broken) == 1


def test_poisoned_rows_are_nan_and_disturb_no_other_one():
    for seed in range(12):
        b = random_batches.batch(seed, samples=4000)
        poisoned, bad = random_batches.poisoned(b, seed)
        good = np.isfinite(poisoned.x).all(1) & (poisoned.w >= 0).all(1)
        assert np.array_equal(~good, bad)
        y, z = (random_batches.solve(a, accuracy.SOLVERS[seed % 3]) for a in (b, poisoned))
        assert accuracy.disturbed(y, z, bad) == 0
        assert accuracy.disturbed(y, y, bad) == bad.sum()
        assert accuracy.disturbed(np.nextafter(y, np.inf), z, bad) == (~bad).sum()


def test_failures_have_their_seeds(monkeypatch):
    monkeypatch.setattr(accuracy, "solve", lambda b, solver: np.full_like(b.x, 7.0))
    assert accuracy.random(100).failures[0].startswith("seed 0:")


def test_segments_are_right_and_a_joined_or_wrong_one_is_noticed():
    assert accuracy.segments(1500).failures == []
    x, lam, g = accuracy.rows_with_segments(0, 1.0, rows=40)
    y = long_double.prox1d(x, oracles.full_weights(x, lam))
    sign = np.sign(np.diff(y))
    gx = accuracy.means(sign != 0, g)
    glam = -(sign * np.diff(gx)).sum(1, keepdims=True)
    assert accuracy.compare_segments(x, lam, g, y, gx, glam)[::2] == (
        0,
        pytest.approx(0, abs=1e-12),
    )
    row, edge = np.argwhere(np.abs(np.diff(y)) > 1e-3)[0]
    joined = y.copy()
    joined[row, edge] = joined[row, edge + 1]
    assert accuracy.compare_segments(x, lam, g, joined, gx, glam)[0] == 1
    assert accuracy.compare_segments(x, lam, g, y, gx + 1e-3, glam)[2] > 1e-5
    assert accuracy.compare_segments(x, lam, g, y, gx, glam + 1)[2] > 1e-5


def test_bits_are_the_same_and_a_last_bit_is_noticed(monkeypatch):
    assert bits.bitwise(3).failures == []
    results, arrays = bits.problem(0)
    split = lambda x, w, g: (results(x, w, g)[0] + len(x),)
    assert len(bits.differences(split, arrays, 0)) == 1
    calls = iter(range(9))
    drifting = lambda x, w, g: (np.asarray(x) * 0 + next(calls),)
    assert any("two runs" in text for text in bits.differences(drifting, arrays, 0))
    monkeypatch.setattr(bits, "digests", lambda cases, threads: [str(threads)] * cases)
    assert bits.bitwise(1).failures == ["seed 0: threads"]


def test_platforms_agree_and_an_ulp_is_noticed():
    assert platforms.platforms(2).failures == []
    for dtype, bits_of in (("float32", np.float32), ("float64", np.float64)):
        y = np.array([[1.5, 0.25, 0.0]])
        b = random_batches.Batch(dtype, y, np.zeros((1, 1)), -1)
        assert platforms.ulps(b, y, y) == 0
        assert platforms.ulps(b, y, np.nextafter(y.astype(bits_of), 2).astype(float)) == 1
        assert platforms.ulps(b, y, y * np.nan) == np.inf


def test_misuse_are_errors_and_the_library_lives():
    result = misuse.misuse(40, seconds=2)
    assert result.failures == []
    assert int(result.result.split(" of ")[0]) > 20


def test_a_wrong_call_that_is_served_and_a_right_one_that_is_not_are_noticed(monkeypatch):
    assert all(calls.valid(call, call) for call in calls.good_calls())
    monkeypatch.setattr(misuse, "make", lambda r, call: True)
    with pytest.raises(RuntimeError, match="seed 0: wrong, but served"):
        misuse.target_calls(1)
    monkeypatch.setattr(misuse, "make", lambda r, call: False)
    monkeypatch.setattr(calls, "corrupted", lambda r, call: call)
    with pytest.raises(RuntimeError, match="seed 0: right, but refused"):
        misuse.target_calls(1)


def test_memory_that_never_ends_and_results_that_the_limit_changed_are_noticed(monkeypatch):
    monkeypatch.setattr(memory, "SIDE", 8)
    monkeypatch.setattr(memory, "programs", lambda: {"f": lambda x: x})
    monkeypatch.setattr(memory, "limited", lambda f, x, left: np.asarray(x))
    with pytest.raises(RuntimeError, match="f: 0 of 3 failed, 0 wrong"):
        memory.exhaust(3)
    results = iter([None, 0])
    monkeypatch.setattr(memory, "limited", lambda f, x, left: next(results))
    with pytest.raises(RuntimeError, match="f: 1 of 2 failed, 1 wrong"):
        memory.exhaust(2)

    def fails(x):
        raise jax.errors.JaxRuntimeError("INTERNAL: not for lack of memory")

    monkeypatch.undo()
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        memory.limited(fails, 0, 1 << 30)


def test_long_arrays_are_right_and_a_wrong_sample_is_noticed(monkeypatch):
    size = 1 << 14
    n = 5 * size + 8
    assert huge_arrays.huge_arrays(n, samples_of_tile=size).failures == []
    solution = huge_arrays.optimum(huge_arrays.tile(size), 8)
    y = np.concatenate([solution[0], *[solution[1]] * 3, solution[2]])
    assert huge_arrays.error(y, solution) == 0
    for at in (0, size - 1, size, 3 * size, n - 1):
        broken = y.copy()
        broken[at] += 1
        assert huge_arrays.error(broken, solution) == pytest.approx(1)
        broken[at] = np.nan
        assert huge_arrays.error(broken, solution) == np.inf
    monkeypatch.setattr(huge_arrays, "available", lambda: 0)
    with pytest.raises(MemoryError):
        huge_arrays.huge_arrays(n)


def test_findings_of_the_fuzzer_are_noticed(tmp_path):
    target = tmp_path / "target"
    for status, count in ((0, 5), (1, 5), (0, 0)):
        lines = f"#1 INITED cov: 7 ft: 8\\nstat::number_of_executed_units: {count}"
        target.write_text(f"#!/bin/sh\nprintf '{lines}' >&2\nexit {status}\n")
        target.chmod(0o755)
        result = fuzz.fuzz(target, 1, tmp_path)
        assert bool(result.failures) == (status == 1 or count == 0)
        assert result.result.startswith(f"{count} calls, 7 edges covered")


def test_crashes_hangs_and_wrong_results_are_noticed(monkeypatch):
    exits = misuse.in_process("threads", -1, 60)  # nothing to do: no failure
    assert exits == ("-1 calls from 16 threads right", [])
    assert "exit status" in misuse.in_process("no such part", 1, 60)[1][0]
    assert "no end in" in misuse.in_process("soak", 60, 1)[1][0]
    with pytest.raises(AssertionError):
        misuse.right(0, lambda x, lam: x)
    grown = iter(range(0, 10**12, 2**25))
    monkeypatch.setattr(misuse, "resident", lambda: next(grown))
    with pytest.raises(RuntimeError, match="MiB more"):
        misuse.soak(1)


def test_converged_arrays_are_right_and_a_perturbed_one_is_not():
    assert accuracy.converged(2).failures == []
    x, lam = accuracy.image(0)
    y = long_double.prox2d(x, lam)
    assert max(accuracy.converged_errors(x, lam, 1e-6, y, True)) < 1
    gap, distance = accuracy.converged_errors(x, lam, 1e-6, y + 0.1 * np.abs(x).max(), True)
    assert gap > 2
    assert distance > 1
    assert np.inf in accuracy.converged_errors(x, lam, 1e-6, y, False)


def test_fused_lassos_are_right_and_a_perturbed_one_is_not(monkeypatch):
    assert features.fused_lasso(2000).failures == []
    right = features._fused
    monkeypatch.setattr(features, "_fused", lambda *args: right(*args).at[7].add(1e-6))
    assert features.fused_lasso(1).failures[0].startswith("seed 0:")


def test_isotropic_results_are_right_and_a_perturbed_one_is_not():
    assert features.isotropic(3).failures == []
    x, lam, options = features._isotropic_case(0)
    y, dual = jaxtv.prox_tv_isotropic(jnp.asarray(x), lam, **options, return_dual=True)
    gap, excess = features.isotropic_errors(x, np.asarray(y), dual, lam, **options)
    assert gap <= 1e-5
    assert features.isotropic_errors(x, np.asarray(y) + 0.1, dual, lam, **options)[0] > 1e-5
    assert features.isotropic_errors(x, y, [1.1 * u for u in dual], lam, **options)[1] > excess


def test_tv_balls_are_right_and_a_perturbed_one_is_not(monkeypatch):
    assert features.tv_ball(1000).failures == []
    right = features._constrained["ball"]

    def perturbed(x, bound):
        y, info = right(x, bound)
        return y.at[7].add(1e-6), info

    monkeypatch.setitem(features._constrained, "ball", perturbed)
    assert features.tv_ball(1).failures[0].startswith("seed 0:")


def test_selection_is_right_and_another_lam_is_noticed(monkeypatch):
    assert features.selection(50).failures == []
    right = features._select
    monkeypatch.setattr(features, "_select", lambda x, sigma: 2 * right(x, sigma))
    assert features.selection(1).failures[0].startswith("seed 0:")


@pytest.mark.parametrize("batch", [trends_and_graphs.trends, trends_and_graphs.graphs])
def test_trends_and_graphs_are_right_and_perturbed_ones_are_not(batch):
    solved = batch(0, rows=2)
    assert trends_and_graphs.compared([solved])[::2] == (2, [])
    perturbed = solved._replace(y=solved.y + 1e-3 * np.abs(solved.x).max())
    unsolved = solved._replace(info=solved.info._replace(converged=np.zeros(2, bool)))
    for wrong in (perturbed, unsolved):
        assert len(trends_and_graphs.compared([wrong])[2]) == 1


def test_command_writes_the_page_and_keeps_other_results(tmp_path):
    other = {"what": "a | b", "cases": "1", "result": "", "failures": ["seed 9"], "command": "c"}
    (tmp_path / "reliability.json").write_text(json.dumps({"converged": other}))
    command = [sys.executable, "-m", "soak", "segments", "--cases", "500", "--output"]
    subprocess.run([*command, str(tmp_path)], cwd=ROOT, check=True)
    results = json.loads((tmp_path / "reliability.json").read_text())
    text = (tmp_path / "reliability.md").read_text()
    assert results["converged"] == other
    assert results["segments"]["failures"] == []
    assert results["segments"]["result"].replace("|", "\\|") in text
    assert "a \\| b" in text
    assert "`converged`: seed 9" in text


@pytest.fixture(autouse=True)
def fresh_programs():
    """The other tests' programs are not held beside those of the many shapes here."""
    yield
    jax.clear_caches()


def test_a_sanitizer_that_finds_or_runs_nothing_fails():
    tests, calls = r"(\d+) passed", r"(\d+) runs"
    assert sanitizers.verdict("thread", "2000 runs", 0, calls) == ("thread: 2,000", [])
    for log, status in (("12 passed", 1), ("no tests ran", 0), ("ERROR: AddressSanitizer", -6)):
        assert len(sanitizers.verdict("address,undefined", log, status, tests)[1]) == 1


def test_other_bits_of_an_instruction_set_are_noticed():
    assert arm.compare(["a", "b"], {"avx2": ["a", "b"]}) == []
    assert arm.compare(["a", "b"], {"avx2": ["a", "c"]}) == ["avx2: seed 1"]
    assert arm.compare(["a", "b"], {"neon": ["a"]}) == ["neon: 1 of 2 cases ran"]


def test_a_finding_names_no_folder_of_the_machine():
    log = "running in /home/me\nSUMMARY: UBSan: overflow /home/me/jaxtv/cpu/serial.cpp:1 in f\n"
    log += "FAILED tests/test_prox1d.py::test_x\n12 passed"
    ours = "SUMMARY: UBSan: overflow serial.cpp:1 in f; FAILED tests/test_prox1d.py::test_x"
    assert finding(log) == ours
    assert (
        finding("CMake Error at /home/me/CMakeLists.txt:1:\n") == "CMake Error at CMakeLists.txt:1:"
    )
    assert finding("") != ""
