"""Released networks: their files, and what TV and the plain alternatives add to them."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage
from PIL import Image

from jaxtv.vision import commands, training
from jaxtv.vision.metrics.paired import paired_difference, shown
from jaxtv.vision.networks.dncnn import from_convolutions
from jaxtv.vision.readers.weights import read_dncnn
from jaxtv.vision.released import denoising, fine_tuned_dncnn
from jaxtv.vision.released.parts import Parts
from jaxtv.vision.task import DataError, apply

h5py = pytest.importorskip("h5py")  # GPU machines need not have it (gpu_check.sh)

pytestmark = pytest.mark.float32

TUNED = (fine_tuned_dncnn.FROZEN, fine_tuned_dncnn.ALONE, fine_tuned_dncnn.JOINT)


def write_dncnn(path, convolutions):
    """As MatConvNet's file of version 7.3 has them: arrays transposed, behind references."""
    with h5py.File(path, "w") as file:
        references = []
        for i, (kernel, bias) in enumerate(convolutions):
            for kind in ("conv", "relu")[: 1 if i == len(convolutions) - 1 else 2]:
                layer = file.create_group(f"layer{len(references)}")
                layer["type"] = np.array([[ord(c)] for c in kind], np.uint16)
                arrays = {"kernel": kernel.T, "bias": bias[:, None].T}
                for name, array in arrays.items():
                    layer[name] = array
                layer["weights"] = np.array([[layer[n].ref] for n in arrays], h5py.ref_dtype)
                references.append([layer.ref])
        file["net/layers"] = np.array(references, h5py.ref_dtype)


def random_weights(widths=(3, 4, 4, 3), side=3):
    rng = np.random.default_rng(0)
    normal = lambda *shape: 0.1 * rng.standard_normal(shape).astype(np.float32)
    return [(normal(side, side, i, o), normal(o)) for i, o in itertools.pairwise(widths)]


def test_a_released_dncnn_subtracts_the_noise_that_it_predicts(tmp_path):
    weights = random_weights()
    write_dncnn(tmp_path / "a.mat", weights)
    x = np.random.default_rng(1).random((1, 9, 8, 3), np.float32)
    y = jnp.asarray(x)
    for i, (kernel, bias) in enumerate(weights):
        y = jax.lax.conv_general_dilated(
            y, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ) + bias.reshape(1, 1, 1, -1)
        y = jnp.maximum(y, 0) if i < len(weights) - 1 else y
    model = from_convolutions(read_dncnn(tmp_path / "a.mat"))
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(apply(model, jnp.asarray(x)), x - y, atol=1e-5)


def not_finite():
    weights = random_weights()
    weights[1][1][0] = np.nan
    return weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, "is missing.*github.com/cszn/DnCNN.*no licence is stated.*color_sigma=25.mat"),
        ("text", "can not be read.*github.com/cszn/DnCNN"),
        (random_weights((1, 4, 1)), "no colour DnCNN: its convolutions have the shapes .*1, 4"),
        (random_weights(side=5), "no colour DnCNN"),
        (random_weights((3, 3))[:0], "no colour DnCNN"),
        (not_finite(), "weights that are not finite"),
    ],
)
def test_weights_that_are_missing_or_damaged_are_named(tmp_path, weights, message):
    path = tmp_path / "color_sigma=25.mat"
    if weights == "text":
        path.write_text("no weights")
    elif weights is not None:
        write_dncnn(path, weights)
    with pytest.raises(DataError, match=message):
        read_dncnn(path)


# ---------------------------------------------------------------------------- differences


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    rng = np.random.default_rng(0)
    theirs = rng.normal(size=400)
    ours = theirs + 0.5 + rng.normal(scale=2, size=400)
    found, low, high = paired_difference(ours, theirs)
    assert found == pytest.approx(np.mean(ours - theirs))
    error = np.std(ours - theirs, ddof=1) / 20
    assert (found - low, high - found) == pytest.approx((1.96 * error, 1.96 * error), rel=0.08)


def test_what_all_pictures_share_leaves_no_doubt():
    theirs = np.random.default_rng(0).random(50)
    found = paired_difference(theirs + 0.25, theirs)
    assert found == pytest.approx((0.25, 0.25, 0.25))
    assert shown(found) == "+0.25 [+0.25, +0.25]"
    with pytest.raises(ValueError, match="`theirs` has 50 pictures, `ours` 49"):
        paired_difference(theirs[:49], theirs)


# ---------------------------------------------------------------------------- denoising


@pytest.mark.parametrize(
    ("degrade", "share", "error"),
    [(denoising.poisson, 1, (100 / 255 / 20) ** 0.5), (denoising.salt_and_pepper, 0.03, None)],
)
def test_noise_is_as_strong_as_its_name_says(degrade, share, error):
    image = np.full((300, 300, 3), 100, np.uint8)
    x = degrade(image, 0)
    changed = (x != np.float32(100 / 255)).any(axis=-1)
    assert x.dtype == np.float32
    assert changed.mean() == pytest.approx(share, rel=0.05)
    if error:
        assert np.std(x) == pytest.approx(error, rel=0.01)
    else:
        assert set(np.unique(x[changed])) == {0.0, 1.0}
    np.testing.assert_array_equal(x, degrade(image, 0))
    assert not np.array_equal(x, degrade(image, 1))


def test_jpeg_is_the_file_of_that_quality(tmp_path):
    image = skimage.data.astronaut()[:40, :56]
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=10)
    expected = np.asarray(Image.open(tmp_path / "a.jpg")) / np.float32(255)
    np.testing.assert_array_equal(denoising.jpeg(image, 0), expected)


def test_parameters_are_chosen_where_they_help():
    """With a network that does nothing: smoothing helps on noise, nothing helps on no noise."""
    crops = [skimage.data.astronaut()[i : i + 32, i : i + 32] for i in (0, 100)]
    identity = lambda x: x
    noisy = [denoising.noisy(x, 50, i) for i, x in enumerate(crops)]
    chosen = denoising.choose(identity, crops, noisy)
    assert all(chosen[m] > 0 for m in chosen)
    gains = denoising.scores(identity, crops, noisy, chosen)
    for method in ("TV in front", "TV after", "Gaussian in front", "Gaussian after"):
        assert np.mean(gains[method]) > np.mean(gains[denoising.PLAIN]) + 3, method
    assert gains["degraded"] == gains[denoising.PLAIN]
    clean = [x.astype(np.float32) / 255 for x in crops]
    nothing = denoising.choose(identity, crops, clean)
    assert nothing == {name: values[0] for name, (_, values) in denoising.METHODS.items()}


def test_a_network_is_asked_once_for_each_picture():
    asked = []
    net = denoising.remembered(lambda x: asked.append(x) or x + 1)
    first, second = np.zeros((2, 3, 3, 3), np.float32)
    second[-1, -1, -1] = 1
    for x in (first, second, first):
        np.testing.assert_array_equal(net(x), x + 1)
    assert len(asked) == 2


def test_a_network_that_knows_one_noise_gets_the_input_scaled_to_it():
    """It shrinks by what it expects; a larger noise, scaled down by s, is what it expects."""
    expected = lambda x: np.where(np.abs(x) > 0.1, x, 0)
    method, values = denoising.METHODS["input scaled"]
    x = np.float32([[[0.15, 0.15, 0.9]]])
    np.testing.assert_allclose(method(expected, x, 0.5), [[[0, 0, 0.9]]])
    assert values[0] == 1


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """A folder of weights and one of pictures; two cases and two methods."""
    weights, data = tmp_path / "weights", tmp_path / "data"
    weights.mkdir()
    for sigma in (25, 50):
        write_dncnn(weights / f"color_sigma={sigma}.mat", random_weights())
    photo = skimage.data.astronaut()
    for folder in ("train", "CBSD68", "McMaster"):
        (data / folder).mkdir(parents=True)
        for i in range(2):
            part = photo[40 * i : 40 * i + 24, 100:124]
            Image.fromarray(part).save(data / folder / f"{i}.png")
    names = ("σ = 35, trained for 25", "σ = 50, as trained")
    monkeypatch.setattr(denoising, "CASES", {name: denoising.CASES[name] for name in names})
    kept = {
        name: (method, (values[0], values[-1]))
        for name, (method, values) in denoising.METHODS.items()
        if name in ("TV in front", "Gaussian after")
    }
    monkeypatch.setattr(denoising, "METHODS", kept)
    return weights, data


def test_the_command_measures_and_writes(stand_ins, tmp_path, capsys):
    weights, data = stand_ins
    with jax.numpy_rank_promotion("allow"):
        commands.evaluate("denoising", data, weights, side=24, output=tmp_path / "out")
    results = json.loads((tmp_path / "out" / "denoising-released.json").read_text())
    assert results["data"] == "2 CBSD68, 2 McMaster"
    case = results["cases"]["σ = 35, trained for 25"]
    scores = case["sets"]["CBSD68"]
    assert all(len(values) == 2 for values in scores.values())
    for method, value in case["chosen"].items():
        if value == 0:
            assert scores[method] == scores[denoising.PLAIN]
    header, *rows = denoising.table(results)
    assert header[3:] == ["CBSD68", "McMaster", "all pictures, 95 % interval"]
    assert [row[0] for row in rows[::3]] == list(results["cases"])
    gain = np.mean(scores["TV in front"]) - np.mean(scores[denoising.PLAIN])
    assert rows[1][1::2][:2] == ["TV in front", f"{gain:+.2f}"]
    written = (tmp_path / "out" / "denoising-released.md").read_text()
    assert written.count("\n") == 2 + len(rows)
    for suffix in (".png", ".pdf"):
        assert (tmp_path / "out" / f"denoising-released{suffix}").stat().st_size > 1000
    assert "TV in front" in capsys.readouterr().out


def test_fine_tuning_trains_weights_and_lam_or_one_of_them(stand_ins, tmp_path, monkeypatch):
    weights, data = stand_ins
    changes = {"batch_size": 8, "size": 8, "limit": 2, "learning_rate": 1e-2}
    settings = dataclasses.replace(fine_tuned_dncnn.SETTINGS, **changes)
    monkeypatch.setattr(fine_tuned_dncnn, "SETTINGS", settings)
    other, name = denoising.CASES
    with jax.numpy_rank_promotion("allow"):
        commands.evaluate("denoising", data, weights, side=24, seeds=1, output=tmp_path)
    results = json.loads((tmp_path / "denoising-released.json").read_text())
    assert "trained" not in results["cases"][other]
    case = results["cases"][name]
    assert all(np.shape(case["sets"]["CBSD68"][variant]) == (2,) for variant in case["trained"])
    rows = {row[1]: row for row in denoising.table(results)[1:]}
    gain = np.mean(np.subtract(*(case["sets"]["McMaster"][v] for v in TUNED[:0:-1])))
    assert rows["fine-tuned with TV over fine-tuned without TV"][4] == f"{gain:+.2f}"
    kernel = read_dncnn(weights / "color_sigma=50.mat")[1][0]
    for variant, kept in zip(TUNED, (True, False, False)):
        folder = tmp_path / "denoising-released" / f"{name}, {variant}, seed 0"
        task = fine_tuned_dncnn.FineTuning(random_weights())
        run, model = training.load(folder, task)[1:]
        assert run.settings.noise == 50
        assert np.array_equal(model.hidden[0].kernel, kernel) == kept
        lambdas = case["trained"][variant]
        assert len(lambdas) == (0 if variant == fine_tuned_dncnn.ALONE else 2)
        assert all(0 < lam != pytest.approx(0.01, rel=1e-3) for lam in lambdas)


def test_finished_parts_are_kept_for_the_same_study(tmp_path):
    study = {"weights": "w", "side": 24}
    assert Parts(tmp_path / "a", study).get("one", lambda: {"σ": [1.5]}) == {"σ": [1.5]}
    assert Parts(tmp_path / "a", study).get("one", lambda: 1 / 0) == {"σ": [1.5]}
    with pytest.raises(ValueError, match=r"`output`.*another study \(side differ\)"):
        Parts(tmp_path / "a", study | {"side": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"what": "smoothing"}, "`what` must be one of .*denoising.* with `--weights`"),
        ({"data": None}, "`--data` is missing"),
        ({"side": -1}, "`--side` must be 0 or more, got -1"),
        ({"limit": 9}, "`--limit` is no option of denoising with `--weights`"),
        ({"weights": "elsewhere"}, "color_sigma=25.mat is missing"),
    ],
)
def test_mistakes_end_in_one_line(stand_ins, tmp_path, monkeypatch, change, message):
    monkeypatch.delenv("JAXTV_DATA", raising=False)
    weights, data = stand_ins
    given = {"what": "denoising", "data": data, "weights": weights} | change
    if change.get("weights"):
        given["weights"] = tmp_path / change["weights"]
    with pytest.raises(SystemExit, match=message):
        commands.evaluate(**given, output=tmp_path)
