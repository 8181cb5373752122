"""The examples do at small size what they say."""

import importlib.util
from pathlib import Path

import jax
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"

pytestmark = [pytest.mark.f32, pytest.mark.host]


def run(name):
    """What `python examples/NAME.py --small` computes, under JAX's own settings."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return module.main(["--small"])


ELSEWHERE = {"distributed_training", "serving", "sharded_prox"}  # tests/test_many_machines.py


def test_every_example_is_here():
    names = {f"test_{path.stem}" for path in FOLDER.glob("*.py") if path.stem not in ELSEWHERE}
    assert names == {name for name in globals() if name in names} != set()


def test_lambda_maps():
    result = run("lambda_maps")
    assert result.scalar > result.noisy + 4
    assert result.map > result.scalar + 0.15


def test_deblurring():
    results = run("deblurring")
    assert results["deblurring"].after > results["deblurring"].before + 2
    assert results["inpainting"].after > results["inpainting"].before + 1.5
    for result in results.values():
        assert 0 < result.steps < 500
        assert result.sweeps < 0.6 * result.cold_sweeps
