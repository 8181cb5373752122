"""The examples of docs/scaling.md, in processes of their own: what they compute and what they send."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from testing import ROOT

EXAMPLES = ROOT / "examples"
WIDTH = 16  # of examples/distributed_training.py
PARAMETERS = 9 * (WIDTH + WIDTH**2 + WIDTH) + 2 * WIDTH + 1 + 4  # kernels, biases, λ

pytestmark = [pytest.mark.nightly, pytest.mark.cpu_only]


def run(*arguments):
    """Standard output of a new process, which has neither this one's flags nor its devices."""
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Results of three runs on 8 devices: one process, two, and two with FSDP."""
    folder = tmp_path_factory.mktemp("training")
    runs = {"one": ["--processes", 1], "two": ["--processes", 2], "fsdp": ["--fsdp"]}
    for name, options in runs.items():
        output = ["--output", folder / f"{name}.json"]
        run(EXAMPLES / "distributed_training.py", "--steps", 3, *options, *output)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in runs}


def shapes(result, name):
    """Shapes of the results of all collectives of that name."""
    found = [c for c in result["collectives"] if c[0] == name]
    return Counter(tuple(shape) for _, shapes, _ in found for shape in shapes)


@pytest.mark.parametrize("name", ["two", "fsdp"])
def test_numbers_are_those_of_one_process(training, name):
    one, other = training["one"], training[name]
    assert len(one["parameters"]) == PARAMETERS
    # The order in which eight float32 gradients are added is another one.
    np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-6)
    np.testing.assert_allclose(other["parameters"], one["parameters"], atol=2e-6)
    assert len(set(one["losses"])) == 3


def test_data_parallel_sends_the_gradients_once(training):
    (collective,) = training["two"]["collectives"]
    name, _, size = collective
    assert name == "all-reduce"
    assert size == 4 * (PARAMETERS + 4 + 1)  # each λ in two parts, one per axis; and the loss


def test_fsdp_gathers_weights_and_never_activations(training):
    result = training["fsdp"]
    assert {c[0] for c in result["collectives"]} <= {"all-gather", "all-reduce", "reduce-scatter"}
    gathered = shapes(result, "all-gather")
    weights = {(3, 3, 1, WIDTH), (3, 3, WIDTH, WIDTH), (3, 3, WIDTH, 1), (WIDTH,)}
    assert gathered.keys() == weights
    reduced = shapes(result, "all-reduce") + shapes(result, "reduce-scatter")
    assert max(np.prod(shape) for shape in reduced) <= 9 * WIDTH**2


@pytest.fixture(scope="module")
def costs():
    """Collectives and bytes that each device sends, by case, as examples/sharded_prox.py prints."""
    lines = run(EXAMPLES / "sharded_prox.py").splitlines()[1:]
    rows = (re.fullmatch(r"(.*?) +([\d,]+) each  (.*)", line).groups() for line in lines)
    return {name: (int(size.replace(",", "")), steps) for name, size, steps in rows}


@pytest.mark.parametrize(
    "name", ["images over the batch", "their gradient", "images over channels, shard_map"]
)
def test_batch_axes_cost_nothing(costs, name):
    assert costs[name][1] == "none"


@pytest.mark.parametrize(
    "name", ["images over channels", "images along rows", "volume along the prox"]
)
def test_xla_gathers_whole_signals(costs, name):
    share, steps = costs[name]
    assert steps == f"all-gather {7 * share:,}"


def test_all_to_all_sends_each_sample_twice(costs):
    share, steps = costs["volume, by all-to-all"]
    assert steps == ", ".join([f"all-to-all {share * 7 // 8:,}"] * 2)


def test_serving_needs_jaxtv_only(tmp_path):
    written = run(EXAMPLES / "serving.py", "export", tmp_path)
    assert re.search(r"denoiser\.cpu\.jax: .* kernels: jaxtv_prox1d, jaxtv_dykstra\n", written)
    assert (tmp_path / "denoiser.cuda.jax").exists()
    served = run(
        "-c",
        "import runpy, sys; sys.argv = ['serving.py', 'serve', sys.argv[1]]\n"
        f"runpy.run_path({str(EXAMPLES / 'serving.py')!r}, run_name='__main__')\n"
        "print('flax' in sys.modules)",
        tmp_path,
    )
    assert re.findall(r"batch of (\d)", served) == ["1", "2", "5"]
    assert served.endswith("False\n")


def test_the_table_on_paper_is_that_of_its_formula():
    page = (ROOT / "docs/scaling.md").read_text()
    (code,) = re.findall(r"```python\n(PARAMETERS.*?)```", page, re.S)
    names = {"np": np}
    exec(code, names)
    assert len(names["rows"]) == 5
    assert all(row in page for row in names["rows"])
