"""PiDiNet's maps on BSDS500: how they are read, smoothed and compared."""

import json

import numpy as np
import pytest
import scipy.io
import scipy.ndimage as ndi
from PIL import Image

from jaxtv.vision import commands
from jaxtv.vision.metrics import boundaries
from jaxtv.vision.metrics.paired import paired_difference
from jaxtv.vision.released import edges

pytestmark = pytest.mark.float32


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Maps of noisy lines, and BSDS500's layout with two annotators; few thresholds and values."""
    data, weights = tmp_path / "BSDS500" / "data", tmp_path / "weights"
    for folder in ("images", "groundTruth"):
        (data / folder / "test").mkdir(parents=True)
    (weights / "table5").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(4):
        truth = np.zeros((50, 60), bool)
        truth[8:42, 12 + 8 * i] = truth[25, 8:52] = True
        edges_found = 2 * ndi.gaussian_filter(truth + 0.3 * rng.random(truth.shape), 1)
        found = np.uint8(255 * np.clip(edges_found, 0, 1))
        Image.fromarray(found).save(weights / "table5" / f"{i}.png")
        Image.fromarray(np.dstack([found] * 3)).save(data / "images" / "test" / f"{i}.jpg")
        cells = np.empty((1, 2), object)
        for k in range(2):
            cells[0, k] = {"Boundaries": np.roll(truth, k, axis=1).astype(np.uint8)}
        scipy.io.savemat(data / "groundTruth" / "test" / f"{i}.mat", {"groundTruth": cells})
    monkeypatch.setattr(edges, "THRESHOLDS", np.array([0.3, 0.5, 0.7]))
    kept = {name: (how, (1e-6, values[-1])) for name, (how, values) in edges.METHODS.items()}
    monkeypatch.setattr(edges, "METHODS", kept)
    return weights, tmp_path


def test_the_command_measures_and_writes(stand_ins, tmp_path, capsys):
    weights, data = stand_ins
    commands.evaluate("edges", data, weights, limit=3, output=tmp_path / "out")
    results = json.loads((tmp_path / "out" / "edges-released.json").read_text())
    assert results["data"] == "3 test pictures of BSDS500"
    assert results["thresholds"] == 3
    parts = [json.loads((tmp_path / f"out/edges-released/{i}.json").read_text()) for i in range(3)]
    plain = [np.array(part[edges.PLAIN]["0"]) for part in parts]
    assert results["scores"] == pytest.approx(boundaries.scores(plain))
    assert 0.5 < results["scores"]["ods"] < 1
    for method, by_value in results["gains"].items():
        values = [value for value in by_value if value != "1e-06"]
        ours = [np.array(part[method][values[0]]) for part in parts]
        for name in edges.SCORES:
            gain = boundaries.scores(ours)[name] - boundaries.scores(plain)[name]
            assert by_value[values[0]][name][0] == pytest.approx(gain, abs=1e-6)
    assert results["gains"]["Gaussian"]["1e-06"]["ods"] == [0, 0, 0]
    assert results["chosen"]["Gaussian"]["lead"] == [0, 0, 0]
    rows = edges.table(results)
    assert len(rows) == 2 + 3 * 3
    for suffix in (".png", ".pdf"):
        assert (tmp_path / "out" / f"edges-released{suffix}").stat().st_size > 1000
    assert "edges, released weights: 3 test pictures" in capsys.readouterr().out


def test_the_interval_of_ods_is_that_of_resampled_pictures():
    rng = np.random.default_rng(0)
    counts = [
        np.cumsum(rng.integers(1, 9, size=(40, 5, 4)), axis=2)[..., [0, 2, 1, 3]] for _ in "ab"
    ]
    found, low, high = paired_difference(*counts, edges.statistics(40)["ods"])
    drawn = np.random.default_rng(1).integers(0, 40, size=(400, 40))
    score = lambda chosen: boundaries.scores(chosen)["ods"]
    resampled = [score(counts[0][i]) - score(counts[1][i]) for i in drawn]
    assert found == pytest.approx(score(counts[0]) - score(counts[1]), abs=1e-6)
    assert (low, high) == pytest.approx(tuple(np.quantile(resampled, (0.025, 0.975))), abs=0.01)


def test_logits_are_smoothed_between_the_ends_of_8_bits():
    x = np.float32([[0, 0, 1, 1], [0, 0, 1, 1]])
    np.testing.assert_allclose(edges.tv_of_logits(x, 1e-6), x, atol=0.002)
    np.testing.assert_allclose(edges.tv_of_logits(x, 100), 0.5, atol=1e-4)


def lose_a_map(weights, data):
    (weights / "table5" / "1.png").unlink()


def shrink_a_map(weights, data):
    Image.fromarray(np.zeros((50, 59), np.uint8)).save(weights / "table5" / "0.png")


def lose_annotations(weights, data):
    (data / "BSDS500" / "data" / "groundTruth" / "test" / "0.mat").unlink()


def lose_the_data(weights, data):
    (data / "BSDS500").rename(data / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_a_map, r"has no 1.png. Get it from .*pidinet.*no licence.*expected: NAME.png"),
        (shrink_a_map, r"0.png must have the size of .*0.jpg, \(50, 60\)"),
        (lose_annotations, r"0.mat is missing"),
        (lose_the_data, r"has no groundTruth/. Get it from .*berkeley"),
    ],
)
def test_missing_and_damaged_files_are_named(stand_ins, tmp_path, damage, message):
    weights, data = stand_ins
    damage(weights, data)
    with pytest.raises(SystemExit, match=message):
        commands.evaluate("edges", data, weights, output=tmp_path / "out")
