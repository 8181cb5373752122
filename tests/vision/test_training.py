"""The training loop, on a sixth task, which is one file."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxtv.vision import commands, processes, reproduce, tasks, training
from jaxtv.vision.task import Column, Table, get_task, settings_of

WITH_SIXTH = [*tasks.__path__, str(Path(__file__).parent / "sixth_task")]
with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tasks, "__path__", WITH_SIXTH)
    from jaxtv.vision.tasks.steps import Lines, Steps

pytestmark = pytest.mark.float32
QUIET = Console(quiet=True)
CORES = sorted(getattr(os, "sched_getaffinity", lambda _: ())(0))
pins_cores = pytest.mark.skipif(not CORES, reason="the system can not pin processes")


@pytest.fixture(autouse=True)
def _sixth_task(monkeypatch):
    monkeypatch.setattr(tasks, "__path__", WITH_SIXTH)
    with jax.default_prng_impl("threefry2x32"):  # the same on one device and on eight
        yield


def run_of(variant="tv", seed=0, **changes):
    return training.Run("steps", variant, settings_of(Steps(), "smoke", changes), seed, "steps")


def train(folder, run):
    return training.train(Steps(), run, Lines(), folder, QUIET)


def test_a_run_leaves_its_log_its_result_and_a_model_to_load(tmp_path):
    result = train(tmp_path, run_of())
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert result["lambdas"]["lam/tv"] > 0.05
    assert result["parameters"] == 2
    task, run, model = training.load(tmp_path)
    assert run == run_of()
    assert task.evaluate(model, Lines(), run.settings) == result["metrics"]


def test_a_run_that_is_killed_goes_on_and_ends_where_it_would_have(tmp_path, monkeypatch):
    """Weights, Adam's moments, dropout's random state and the order of data all come back."""
    whole = train(tmp_path / "whole", run_of())

    saves = []

    def killed(manager, epochs, model, optimizer):
        training_save(manager, epochs, model, optimizer)
        saves.append(epochs)
        if epochs == 2:
            raise KeyboardInterrupt

    training_save = training.save
    monkeypatch.setattr(training, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", run_of())
    assert not (tmp_path / "killed" / "result.json").exists()
    monkeypatch.setattr(training, "save", training_save)
    resumed = train(tmp_path / "killed", run_of())
    assert saves == [1, 2]
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["lambdas"] == whole["lambdas"]
    losses = [
        [row["loss"] for row in csv.DictReader((tmp_path / name / "log.csv").open())]
        for name in ("whole", "killed")
    ]
    assert losses[0] == losses[1]


def test_seeds_differ_and_repeat(tmp_path):
    results = [train(tmp_path / str(i), run_of(seed=s))["metrics"] for i, s in enumerate((0, 0, 1))]
    assert results[0] == results[1] != results[2]


def test_a_folder_of_another_run_is_refused(tmp_path):
    train(tmp_path, run_of())
    with pytest.raises(ValueError, match="holds another run \\(seed differ"):
        train(tmp_path, run_of(seed=1))


def test_a_run_of_an_older_version_goes_on(tmp_path):
    """Its `run.json` lacks settings that are newer; they have their defaults."""
    run_of().write(tmp_path)
    path = tmp_path / "run.json"
    fields = json.loads(path.read_text())
    del fields["settings"]["dropout"]
    path.write_text(json.dumps(fields))
    run_of().write(tmp_path)
    assert training.Run.read(tmp_path) == run_of()


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        training.load(tmp_path)


def test_a_run_without_checkpoint_is_named(tmp_path):
    run_of().write(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        training.load(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    class Broken(Lines):
        def draw(self, rng, n):
            return {k: v * np.nan for k, v in super().draw(rng, n).items()}

    with pytest.raises(FloatingPointError, match="epoch 1 is nan"):
        training.train(Steps(), run_of(), Broken(), tmp_path, QUIET)


def test_too_large_a_batch_is_named(tmp_path):
    with pytest.raises(ValueError, match="`batch_size` 128 is more"):
        train(tmp_path, run_of(batch_size=128))


@pytest.mark.parametrize(
    ("change", "match"),
    [({"epochs": 0}, "`epochs`"), ({"learning_rate": -1.0}, "`learning_rate`")],
)
def test_settings_are_checked(change, match):
    with pytest.raises(ValueError, match=match):
        settings_of(Steps(), "smoke", change)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="`task` must be one of classification"):
        get_task("nothing")
    with pytest.raises(ValueError, match="`preset` must be one of smoke"):
        settings_of(Steps(), "paper")
    with pytest.raises(ValueError, match="`what` must be one of"):
        reproduce.find("table77")


def test_reproduce_runs_what_is_missing_and_prints_the_papers_numbers(tmp_path, monkeypatch):
    task, table = reproduce.find("table9")
    settings = {"": settings_of(task, "smoke")}
    arguments = (task, "smoke", settings, None, tmp_path, 2, QUIET)
    first = reproduce.run_all(*arguments)
    monkeypatch.setattr(training, "train", None)  # a second call must not train
    assert reproduce.run_all(*arguments) == first
    text = reproduce.markdown(table, first)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert lines[0] == ["", "variant", "MSE", "paper", "λ"]
    assert [line[1] for line in lines[2:]] == ["baseline", "tv"]
    assert [line[3] for line in lines[2:]] == ["1", "0"]
    each = [r["metrics"]["mse"] for r in first["runs"][""]["tv"]]
    assert lines[3][2] == f"{np.mean(each):.3f} ± {np.std(each, ddof=1):.3f}"


def test_reproduce_trains_several_runs_at_once(tmp_path, monkeypatch):
    """Here in this process: a run that is done is left alone, the others become what they were."""
    task, _ = reproduce.find("table9")
    arguments = (task, "smoke", {"": settings_of(task, "smoke")}, None)
    one_by_one = reproduce.run_all(*arguments, tmp_path / "a", 2, QUIET)
    first = reproduce.folder_of(tmp_path / "b", task, "smoke", "", "baseline", 0)
    shutil.copytree(reproduce.folder_of(tmp_path / "a", task, "smoke", "", "baseline", 0), first)
    done = []

    def in_this_process(function, calls, pins):
        assert pins == [4, 6]
        for i, call in enumerate(calls):
            yield i, function(*call)
            done.append(call[-1])

    monkeypatch.setattr(processes, "cores", lambda: [4, 6])
    monkeypatch.setattr(processes, "each_on_a_core", in_this_process)
    at_once = reproduce.run_all(*arguments, tmp_path / "b", 2, QUIET)
    assert len(done) == 3
    assert first not in done
    for variant, results in one_by_one["runs"][""].items():
        assert [r["metrics"] for r in at_once["runs"][""][variant]] == [
            r["metrics"] for r in results
        ]


@pins_cores
def test_calls_run_on_one_core_each_and_their_errors_come_back():
    pins = CORES[:2]
    found = dict(processes.each_on_a_core(os.sched_getaffinity, [(0,)] * 4, pins))
    assert sorted(found) == [0, 1, 2, 3]
    assert all(len(core) == 1 and core <= set(pins) for core in found.values())
    with pytest.raises(ValueError, match="invalid literal"):
        list(processes.each_on_a_core(int, [("1",), ("x",)], pins))
    assert sorted(os.sched_getaffinity(0)) == CORES


@pins_cores
def test_runs_share_cores_on_one_cpu_alone(monkeypatch):
    assert processes.cores() == []  # eight devices here
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert processes.cores() == CORES


@pytest.mark.nightly
@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores to pin processes to")
def test_runs_in_processes_have_the_numbers_of_one_process(tmp_path):
    def results(name, pins):
        less = ("--seeds", "1", "--limit", "2", "--width", "4", "--depth", "3")
        command = [sys.executable, "-m", "jaxtv.cli", "reproduce", "table6"]
        done = subprocess.run(
            [*command, "--preset", "smoke", *less, "--output", str(tmp_path / name)],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"XLA_FLAGS": ""},
            preexec_fn=lambda: os.sched_setaffinity(0, pins),
        )
        found = json.loads((tmp_path / name / "table6-smoke.json").read_text())
        runs = [r for group in found["runs"].values() for v in group.values() for r in v]
        return done.stdout, [(r["metrics"], r["lambdas"]) for r in runs]

    printed, at_once = results("two", set(CORES[:2]))
    assert "2 at once, each on one core" in printed
    printed, one_by_one = results("one", {CORES[0]})
    assert "at once" not in printed
    assert at_once == one_by_one


def test_every_group_of_a_table_has_its_settings():
    task, table = reproduce.find("table6")
    overrides = {"epochs": 7, "noise": None}  # None: not given
    settings = reproduce.settings_by_group(task, table, "smoke", overrides)
    assert {group: (s.noise, s.epochs) for group, s in settings.items()} == {
        "σ=25": (25.0, 7),
        "σ=50": (50.0, 7),
    }


def test_a_table_of_many_metrics_has_a_row_for_each():
    """Each cell beside the paper's of the same variant and metric; one seed has no deviation."""
    columns = [Column(f"m{i}", f"m{i}", {"a": f"a{i}", "b": f"b{i}"}) for i in range(5)]
    result = lambda start: {
        "metrics": {f"m{i}": float(start + i) for i in range(5)},
        "lambdas": {} if start == 10 else {"lam/tv": 0.5},
    }
    results = {"runs": {"": {"a": [result(10)], "b": [result(20)]}}}
    lines = reproduce.lines_of(Table("T", tuple(columns)), results)
    assert lines[0] == ["", "a", "paper", "b", "paper"]
    assert lines[1:6] == [
        [f"m{i}", f"{10 + i}.00", f"a{i}", f"{20 + i}.00", f"b{i}"] for i in range(5)
    ]
    assert lines[6] == ["λ", "—", "", "0.5", ""]
    upright = reproduce.lines_of(Table("T", tuple(columns[:4])), results)
    assert [len(line) for line in upright] == [11] * 3


def test_the_commands_train_evaluate_and_reproduce(tmp_path, capsys):
    commands.train("steps", "tv", "smoke", output=tmp_path / "run")
    assert "λ" in capsys.readouterr().out or (tmp_path / "run" / "result.json").exists()
    commands.evaluate(tmp_path / "run")
    assert "mse" in capsys.readouterr().out
    commands.reproduce("table9", "smoke", output=tmp_path, seeds=1)
    assert (tmp_path / "table9-smoke.md").read_text().startswith("|  | variant | MSE")
    assert json.loads((tmp_path / "table9-smoke.json").read_text())["preset"] == "smoke"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: commands.train("steps", "wrong", "smoke", output=p), "`variant` must be one of"),
        (lambda p: commands.train("steps", "tv", "smoke", data=p / "x", output=p), "is not there"),
        (lambda p: commands.evaluate(p), "is not the folder of a run"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, call, message):
    with pytest.raises(SystemExit, match=message):
        call(tmp_path)


def test_training_over_eight_devices_gives_the_numbers_of_one(tmp_path):
    """Batches are sharded over all devices; a process with one device gets the same loss."""
    assert len(training.batch_sharding(16).device_set) == 8
    eight = train(tmp_path / "eight", run_of("baseline"))
    script = (
        "import importlib.util, sys, pathlib\n"
        f"spec = importlib.util.spec_from_file_location('steps', {str(__file__)!r})\n"
        "steps = importlib.util.module_from_spec(spec); sys.modules['steps'] = steps\n"
        "spec.loader.exec_module(steps)\n"
        "steps.train(pathlib.Path(sys.argv[1]), steps.run_of('baseline'))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "one")]
    subprocess.run(command, check=True, env=os.environ | {"XLA_FLAGS": ""})
    one = json.loads((tmp_path / "one" / "result.json").read_text())
    assert eight["devices"].startswith("8")
    assert one["devices"].startswith("1")
    np.testing.assert_allclose(one["metrics"]["mse"], eight["metrics"]["mse"], rtol=1e-5)


def test_a_batch_that_does_not_divide_over_the_devices_is_named(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(ValueError, match="`batch_size` 16 is no multiple of the 3 devices"):
        training.batch_sharding(16)
