"""All-CNN-C, its data, and the corruptions."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
from flax import nnx
from PIL import Image

from jaxtv.vision import corruptions
from jaxtv.vision.readers import augment, labelled, shapes
from jaxtv.vision.readers import classification as reader
from jaxtv.vision.task import DataError, apply, get_task, settings_of

pytestmark = pytest.mark.float32
TASK = get_task("classification")


# ---------------------------------------------------------------------------- model


def test_the_papers_network_has_the_published_size():
    """All-CNN-C has about 1.4 M parameters (Springenberg et al. 2015); TV layers add one each."""
    paper = settings_of(TASK, "paper")
    count = {}
    for variant in TASK.variants:
        model = nnx.eval_shape(lambda v=variant: TASK.build(v, paper, nnx.Rngs(0)))
        count[variant] = sum(
            int(np.prod(p.shape)) for p in jax.tree.leaves(nnx.state(model, nnx.Param))
        )
    convolutions = 3 * 96 * 9 + 2 * 96 * 96 * 9 + 96 * 192 * 9 + 2 * 192 * 192 * 9 + 192 * 192 * 9
    convolutions += 192 * 192 + 192 * 10 + 3 * 96 + 5 * 192 + 10
    norms = 2 * (3 * 96 + 5 * 192)
    assert count["baseline"] == convolutions + norms
    assert 1.3e6 < count["baseline"] < 1.45e6
    assert count["tv-smooth"] == count["tv-sharp"] == count["baseline"] + 3


def test_the_variants_start_from_the_same_weights_and_are_the_baseline_at_lam_zero(untrained):
    x = jnp.asarray(augment.normalise(shapes.random_shapes(4, 32, np.random.default_rng(0))[0]))
    outputs = {}
    for variant in TASK.variants:
        model = untrained("classification", variant)
        outputs[variant] = np.asarray(apply(model, x))
        for block in model.blocks:
            if block.tv is not None:
                block.tv.raw_lam[...] = jnp.asarray(-1e4)  # softplus: 0
        np.testing.assert_allclose(apply(model, x), outputs["baseline"], atol=1e-6)
    assert np.abs(outputs["tv-smooth"] - outputs["baseline"]).max() > 1e-4
    assert np.abs(outputs["tv-sharp"] - outputs["tv-smooth"]).max() > 1e-4


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights():
    settings = settings_of(TASK, "smoke", {"precision": "bfloat16"})
    build = lambda: TASK.build("tv-smooth", settings, nnx.Rngs(0))
    x = jnp.zeros((8, 32, 32, 3))
    program = jax.make_jaxpr(lambda x: build()(x))(x)
    assert "bf16[8,32,32,8] = conv_general_dilated" in str(program)
    assert [a.dtype for a in program.out_avals] == [jnp.float32]
    weights = jax.tree.leaves(nnx.state(nnx.eval_shape(build), nnx.Param))
    assert {w.dtype for w in weights} == {jnp.dtype("float32")}


def test_a_network_learns_the_embedded_shapes(trained):
    run = trained("classification")
    assert "corrupted/jpeg_compression" in run.printed
    rows = (run.folder / "log.csv").read_text().splitlines()
    assert rows[0].startswith("epoch,loss,accuracy,lam/blocks.0.tv")


# ---------------------------------------------------------------------------- data


def arrays(rng, n=12):
    return rng.integers(0, 256, size=(n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, size=n)


def test_an_epoch_has_each_image_once_and_repeats_for_the_same_generator():
    rng = np.random.default_rng(0)
    x = np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None, None, None], (16, 32, 32, 3))
    part = (x, np.arange(16, dtype=np.int32))
    data = labelled.Labelled("", [], part, part, part)
    batches = list(data.epoch(rng, 4))
    labels = np.concatenate([b["label"] for b in batches])
    assert sorted(labels) == list(range(16))
    for batch in batches:  # constant images: shifts and mirrors keep them
        np.testing.assert_allclose(
            batch["image"][:, 0, 0, 0], (batch["label"] / 255 - 0.5) * 4, atol=1e-6
        )
    again = list(data.epoch(np.random.default_rng(0), 4))
    np.testing.assert_array_equal(again[0]["label"], batches[0]["label"])


def test_augmentation_shifts_and_mirrors_whole_images():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, size=(50, 9, 9, 3), dtype=np.uint8)
    out = augment.augment(x, rng, shift=1)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    for i, image in enumerate(out):
        candidates = [padded[i, a : a + 9, b : b + 9] for a in range(3) for b in range(3)]
        candidates += [c[:, ::-1] for c in candidates]
        assert any(np.array_equal(image, c) for c in candidates)


def write_cifar(folder, rng, binary):
    folder.mkdir()
    content = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        x, y = arrays(rng)
        planes = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        if binary:
            rows = np.concatenate([y[:, None].astype(np.uint8), planes], axis=1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            pickled = {b"data": planes, b"labels": y.tolist()}
            (folder / name).write_bytes(pickle.dumps(pickled, protocol=2))
        content[name] = (x, y)
    return content


@pytest.mark.parametrize("binary", [False, True])
def test_cifar_is_read(tmp_path, binary):
    content = write_cifar(tmp_path / "data", np.random.default_rng(0), binary)
    data = reader.read(tmp_path / "data")
    np.testing.assert_array_equal(data.test[0], content["test_batch"][0])
    np.testing.assert_array_equal(data.test[1], content["test_batch"][1])
    np.testing.assert_array_equal(data.train[0][:12], content["data_batch_1"][0])
    assert len(data.train[0]) + len(data.validation[0]) == 60


def test_a_pickle_can_not_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    write_cifar(tmp_path / "data", np.random.default_rng(0), binary=False)
    (tmp_path / "data" / "test_batch").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="does not belong in a data file"):
        reader.read(tmp_path / "data")


def test_folders_of_pictures_are_read(tmp_path):
    for part in ("train", "test"):
        for i, name in enumerate(("cats", "dogs")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for j in range(10):
                Image.new("RGB", (32, 32), (100 * i, j, 0)).save(folder / f"{j}.png")
    data = reader.read(tmp_path)
    assert data.classes == ["cats", "dogs"]
    np.testing.assert_array_equal(data.train[0][:, 0, 0, 0], 100 * data.train[1])
    assert len(data.train[0]) == 18
    assert len(data.test[0]) == 20
    few = TASK.load(tmp_path, settings_of(TASK, "small", {"limit": 8}))
    assert len(few.test[0]) == 8
    assert set(few.test[1]) == {0, 1}  # though the files are sorted by class
    np.testing.assert_array_equal(few.test[0][:, 0, 0, 0], 100 * few.test[1])
    assert few.description.endswith("20 pictures, 8 of them, 8 to test")


def test_published_corruptions_are_used_where_they_are(tmp_path):
    rng = np.random.default_rng(0)
    write_cifar(tmp_path / "data", rng, binary=True)
    published = tmp_path / "CIFAR-10-C"
    published.mkdir()
    labels = rng.integers(0, 10, size=50000).astype(np.uint8)
    np.save(published / "labels.npy", labels)
    images = np.lib.format.open_memmap(published / "fog.npy", "w+", np.uint8, (50000, 32, 32, 3))
    images[20000] = 7
    x, y = reader.read(tmp_path / "data").corrupted("fog", 3)
    assert x[0].min() == 7
    np.testing.assert_array_equal(y, labels[20000:30000])
    with pytest.raises(DataError, match=r"snow\.npy is missing"):
        reader.read(tmp_path / "data").corrupted("snow", 1)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda p: None, "not laid out as classification data"),
        (lambda p: (p / "test_batch.bin").write_bytes(b"short"), "is missing: `jaxtv data fetch"),
        (lambda p: (p / "clothing32.npz").write_bytes(b"damaged"), r"can not be read as \.npz"),
        (lambda p: np.savez(p / "clothing32.npz", x_train=np.zeros(1)), "lacks x_test, y_test"),
    ],
)
def test_bad_data_is_named(tmp_path, make, match):
    make(tmp_path)
    with pytest.raises(DataError, match=match):
        reader.read(tmp_path)


# ---------------------------------------------------------------------------- corruptions


@pytest.fixture(scope="module")
def photos():
    return shapes.random_shapes(24, 32, np.random.default_rng(3))[0]


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_a_corruption_keeps_the_shape_repeats_and_grows_with_severity(photos, name):
    out = [corruptions.corrupt(name, photos, s) for s in corruptions.SEVERITIES]
    assert all(o.shape == photos.shape and o.dtype == np.uint8 for o in out)
    np.testing.assert_array_equal(out[0], corruptions.corrupt(name, photos, 1))
    error = [np.mean((o.astype(float) - photos) ** 2) for o in out]
    assert error[0] > 0
    if name != "elastic_transform":  # its published constants trade one deformation for another
        assert error[4] > error[0]


def test_noise_has_the_published_strength():
    gray = np.full((50, 32, 32, 3), 128, np.uint8)
    for severity, sigma in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), 1):
        noisy = corruptions.corrupt("gaussian_noise", gray, severity) / 255
        assert noisy.std() == pytest.approx(sigma, rel=0.02)
    for severity, photons in enumerate((500, 250, 100, 75, 50), 1):
        noisy = corruptions.corrupt("shot_noise", gray, severity) / 255
        assert noisy.std() == pytest.approx(np.sqrt(0.502 / photons), rel=0.02)
    for severity, amount in enumerate((0.01, 0.02, 0.03, 0.05, 0.07), 1):
        noisy = corruptions.corrupt("impulse_noise", gray, severity)
        assert np.mean(noisy != 128) == pytest.approx(amount, rel=0.1)


def test_contrast_and_brightness_by_hand():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, :16] = 200
    low = corruptions.corrupt("contrast", image, 5)
    assert set(np.unique(low)) == {(100 - 15), (100 + 15)}
    bright = corruptions.corrupt("brightness", image, 3)
    assert set(np.unique(bright)) == {int(0.15 * 255), int(200 + 0.15 * 255)}


def test_motion_blur_spreads_a_point_to_one_side():
    image = np.zeros((32, 32, 1))
    image[16, 16] = 1
    out = corruptions.motion(image, radius=6, sigma=2, degrees=0)[..., 0]
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    np.testing.assert_allclose(out[16, 4:17][::-1], weights / weights.sum())
    assert out.sum() == pytest.approx(1)


@pytest.mark.parametrize("factor", [1, 1.07, 1.25, 2.25])
def test_zoom_is_scipys_linear_zoom_of_the_centre(factor):
    x = np.random.default_rng(0).random((2, 32, 32, 3))
    part = int(np.ceil(32 / factor))
    first = (32 - part) // 2
    centre = x[:, first : first + part, first : first + part]
    large = ndi.zoom(centre, (1, factor, factor, 1), order=1)
    trim = (large.shape[1] - 32) // 2
    expected = large[:, trim : trim + 32, trim : trim + 32]
    np.testing.assert_allclose(corruptions.zoom(x, factor), expected, atol=1e-12)


def test_defocus_is_the_box_of_a_disk():
    image = np.zeros((1, 33, 33, 3))
    image[0, 16, 16] = 1
    out = corruptions.defocus_blur(image, 3, None)[0, ..., 0]  # radius 1: five pixels
    expected = ndi.convolve(np.zeros((33, 33)), np.ones((3, 3)))
    expected[16, 15:18] = expected[15:18, 16] = 0.2
    np.testing.assert_allclose(out, expected, atol=1e-4)  # the rim is smoothed by sigma 0.2


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("rain", np.zeros((1, 32, 32, 3), np.uint8), 1), "`name`"),
        (("fog", np.zeros((1, 32, 32, 3), np.uint8), 6), "`severity`"),
        (("fog", np.zeros((1, 32, 32, 3)), 1), "`images`"),
    ],
)
def test_bad_arguments_are_named(arguments, match):
    with pytest.raises(ValueError, match=match):
        corruptions.corrupt(*arguments)
