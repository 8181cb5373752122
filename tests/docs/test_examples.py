"""The examples do at small size what they say."""

import importlib.util

import jax
import numpy as np
import pytest

from testing import ROOT

FOLDER = ROOT / "examples"

pytestmark = [pytest.mark.nightly, pytest.mark.float32, pytest.mark.cpu_only]


def run(name):
    """What `python examples/NAME.py --small` computes, under JAX's own settings."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return module.main(["--small"])


ELSEWHERE = {
    "distributed_training",
    "serving",
    "sharded_prox",
}  # tests/transforms/test_many_machines.py


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


def test_proximal_gradient():
    """TV gains some dB on a picture that λ was not learned on; `grad` is the slope of the loss."""
    results = run("proximal_gradient")
    assert len(results) == 4
    for result in results.values():
        assert result.after > result.before + 3
        assert result.by_grad == pytest.approx(result.by_differences, rel=0.02)


def test_pretrained_wsol():
    """A cat, of ImageNet's class 285; the layer changes the map, not what is seen."""
    without, with_tv = run("pretrained_wsol")["chelsea"]
    assert without.label == with_tv.label == 285
    assert without.probability > 0.6
    assert with_tv.probability == pytest.approx(without.probability, abs=0.01)  # means are kept
    variation = [np.abs(np.diff(one.scores)).sum() for one in (without, with_tv)]
    assert variation[1] < variation[0]
    centre = np.array([250, 120])  # of the face
    for one in (without, with_tv):
        assert (one.box[0, :2] < centre).all()
        assert (one.box[0, 2:] > centre).all()
