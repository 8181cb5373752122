"""DnCNN with TV layers, its data and its metric."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage
from flax import nnx
from PIL import Image

import jaxtv
from jaxtv.vision import reproduce
from jaxtv.vision.metrics.errors import psnr
from jaxtv.vision.networks.dncnn import from_convolutions
from jaxtv.vision.readers import denoising as reader
from jaxtv.vision.readers import photos
from jaxtv.vision.readers.weights import read_dncnn
from jaxtv.vision.task import DataError, apply, get_task, settings_of
from jaxtv.vision.tasks import denoising

pytestmark = pytest.mark.float32
TASK = get_task("denoising")
SMOKE = settings_of(TASK, "smoke")


def random_photo(rng, height=40, width=56):
    return rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def test_at_the_start_the_network_is_its_two_tv_layers(untrained):
    """R ends in zeros, so y = prox(prox(x)); Eq. 14."""
    x = jax.random.uniform(jax.random.key(0), (2, 24, 24, 3))
    once = jaxtv.prox_tv2d(x, 0.01, axes=(1, 2))
    twice = jaxtv.prox_tv2d(once, 0.01, axes=(1, 2))
    np.testing.assert_allclose(apply(untrained("denoising", "tv"), x), twice, atol=1e-6)
    np.testing.assert_array_equal(apply(untrained("denoising", "baseline"), x), x)


def test_the_papers_network_has_the_published_size():
    """17 convolutions of width 64: 1.5% more than 556k weights, by the layers' sizes."""
    model = nnx.eval_shape(lambda: TASK.build("tv", settings_of(TASK, "paper"), nnx.Rngs(0)))
    count = sum(int(np.prod(p.shape)) for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
    convolutions = (3 * 64 * 9 + 64) + 15 * (64 * 64 * 9 + 64) + (64 * 3 * 9 + 3)
    assert count == convolutions + 15 * 2 * 64 + 2


def test_psnr_is_scikit_images():
    rng = np.random.default_rng(0)
    a, b = random_photo(rng), random_photo(rng)
    assert psnr(a, b) == pytest.approx(skimage.metrics.peak_signal_noise_ratio(b, a))
    assert psnr(a, a) == np.inf
    assert psnr(np.full((2, 2, 3), 10, np.uint8), np.full((2, 2, 3), 11, np.uint8)) == (
        pytest.approx(20 * np.log10(255))
    )


# σ = 25, means over the sets: the published weights, which have 20 convolutions and no batch norm.
RELEASED = {"CBSD68": 31.31, "Kodak24": 32.25, "McMaster": 32.49}


@pytest.mark.skipif(
    not os.environ.get("JAXTV_DNCNN"),
    reason="weights and pictures may not be copied: $JAXTV_DNCNN names a folder with "
    "color_sigma=25.mat of cszn/DnCNN and any of CBSD68/, Kodak24/, McMaster/; needs h5py",
)
def test_released_weights_reach_the_published_psnr():
    folder = Path(os.environ["JAXTV_DNCNN"])
    model = from_convolutions(read_dncnn(folder / "color_sigma=25.mat"))
    tests = {name: folder / name for name in RELEASED if (folder / name).is_dir()}
    assert tests
    tests = {name: photos.read_folder(path) for name, path in tests.items()}
    found = denoising.scores(model, tests, 25.0)
    for name in tests:
        assert found[f"psnr/{name}"] == pytest.approx(RELEASED[name], abs=0.02), name


def test_the_noise_of_a_test_picture_is_always_the_same_and_as_strong_as_asked():
    image = np.full((200, 200, 3), 128, np.uint8)
    a, b = denoising.noisy(image, 25, 3), denoising.noisy(image, 25, 3)
    np.testing.assert_array_equal(a, b)
    assert np.std(a) * 255 == pytest.approx(25, rel=0.01)
    assert not np.array_equal(a, denoising.noisy(image, 25, 4))


def test_a_model_that_does_nothing_scores_the_noise(untrained):
    data = TASK.load(None, SMOKE)
    found = TASK.evaluate(untrained("denoising", "baseline"), data, SMOKE)
    # Black and white pixels lose half of their noise by clipping.
    assert found["psnr/test"] == pytest.approx(20 * np.log10(255 / 25), abs=1)
    assert found["psnr"] == found["psnr/test"]


def test_crops_are_aligned_parts_of_their_photos():
    rng = np.random.default_rng(0)
    photo = random_photo(rng)
    stack = np.stack([photo, 255 - photo])
    data = photos.Crops("", [stack], 16, 8, lambda crops, chosen, rng: {"crops": crops})
    (batch,) = data.epoch(rng, 8)
    crops = batch["crops"]
    assert crops.shape == (8, 2, 16, 16, 3)
    np.testing.assert_array_equal(crops[:, 0] + crops[:, 1], np.full((8, 16, 16, 3), 255.0))
    windows = np.lib.stride_tricks.sliding_window_view(photo, (16, 16, 3)).reshape(-1, 16, 16, 3)
    for crop in crops[:, 0]:
        turns = [np.rot90(c, k) for c in (crop, crop[:, ::-1]) for k in range(4)]
        assert any((windows == turn).all(axis=(1, 2, 3)).any() for turn in turns)


def test_a_folder_is_read_and_kodak_is_cut_to_its_centre(tmp_path):
    rng = np.random.default_rng(0)
    for name, size in (("photos_cc0", (64, 60)), ("kodak24", (768, 512)), ("CBSD68", (50, 40))):
        (tmp_path / name).mkdir()
        Image.fromarray(random_photo(rng, size[1], size[0])).save(tmp_path / name / "a.png")
    train, tests = reader.read(tmp_path)
    assert len(train) == 1
    assert {k: v[0].shape for k, v in tests.items()} == {
        "CBSD68": (40, 50, 3),
        "Kodak24": (500, 500, 3),
    }


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ((), "has the folders \\(none\\); denoising needs train or photos_cc0"),
        (("train",), "and one of CBSD68, Kodak24, McMaster, test"),
        (("train", "test"), "has no picture"),
    ],
)
def test_bad_folders_are_named(tmp_path, names, match):
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=match):
        reader.read(tmp_path)


def test_photos_smaller_than_the_crops_are_named():
    with pytest.raises(DataError, match="`size` 4096 is more than the"):
        TASK.load(None, settings_of(TASK, "smoke", {"size": 4096}))


def test_a_network_learns_from_the_embedded_photos(trained):
    run = trained("denoising")
    assert "psnr/test" in run.printed
    losses = [float(r.split(",")[1]) for r in (run.folder / "log.csv").read_text().splitlines()[1:]]
    assert losses[-1] < (25 / 255) ** 2  # better than the noise itself


def test_loss_is_the_mean_squared_error():
    batch = {"noisy": jnp.zeros((1, 8, 8, 3)), "clean": jnp.full((1, 8, 8, 3), 0.5)}
    assert float(TASK.loss(lambda x: x, batch)) == 0.25


def test_table_6_has_a_number_for_test_sets_that_the_paper_has_not(untrained):
    model = untrained("denoising", "baseline")
    metrics = TASK.evaluate(model, TASK.load(None, SMOKE), SMOKE)
    results = {"runs": {"σ=25": {"baseline": [{"metrics": metrics, "lambdas": {}}]}}}
    row, not_run = reproduce.rows_of(TASK.tables["table6"], results)
    assert row[2::2] == ["—", "—", "—", f"{metrics['psnr/test']:.2f}", "—"]
    assert not_run[:4] == ["σ=50", "baseline", "—", "27.95"]
