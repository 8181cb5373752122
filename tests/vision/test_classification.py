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
from jaxtv.vision.tasks import classification

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


def test_dropout_is_a_setting():
    rates = []
    for dropout in (None, 0.0):
        settings = settings_of(TASK, "smoke", {"dropout": dropout})
        model = nnx.eval_shape(lambda s=settings: TASK.build("baseline", s, nnx.Rngs(0)))
        rates.append((model.input_dropout.rate, model.dropout.rate))
    assert rates == [(0.2, 0.5), (0, 0)]
    with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\), got 1"):
        settings_of(TASK, "smoke", {"dropout": 1.0})


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


def test_larger_images_are_cropped():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, size=(200, 9, 11, 3), dtype=np.uint8)
    out = augment.augment(x, rng, side=8)
    places = set()
    for i, crop in enumerate(out):
        candidates = {(a, b): x[i, a : a + 8, b : b + 8] for a in range(2) for b in range(4)}
        candidates |= {(a, b, 1): c[:, ::-1] for (a, b), c in candidates.items()}
        places |= {place for place, c in candidates.items() if np.array_equal(crop, c)}
    assert len(places) == 16
    assert augment.augment(x, rng, side=9).shape == x.shape


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


def load_npz(tmp_path, x, y, **more):
    path = tmp_path / "data.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y, **more)
    return TASK.load(path, settings_of(TASK, "small"))


PIXELS, LABELS = arrays(np.random.default_rng(0), 40)


@pytest.mark.parametrize(
    ("x", "y", "right"),
    [
        (PIXELS, LABELS[:, None], PIXELS),
        (PIXELS, LABELS.astype(float), PIXELS),
        (PIXELS / 255, LABELS, PIXELS),
        (PIXELS.astype(np.float32), LABELS, PIXELS),
        (PIXELS.astype(int), LABELS, PIXELS),
        (PIXELS[..., 0], LABELS, np.repeat(PIXELS[..., :1], 3, -1)),
        (PIXELS[..., :1], LABELS, np.repeat(PIXELS[..., :1], 3, -1)),
        (PIXELS.transpose(0, 3, 1, 2), LABELS, PIXELS),
    ],
)
def test_an_npz_whose_meaning_is_clear_is_read(tmp_path, x, y, right):
    data = load_npz(tmp_path, x, y)
    for found, expected in zip(data.test, (right, LABELS)):
        np.testing.assert_array_equal(found, expected)
    assert [a.dtype for a in data.test] == [np.uint8, np.int32]


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (PIXELS, LABELS[:30], r"y_train is int64 \(30,\); expected .* 40 pictures"),
        (PIXELS, np.eye(10)[LABELS], r"y_train is float64 \(40, 10\)"),
        (PIXELS, LABELS - 1, "y_train has the label -1; expected 0 and up"),
        (PIXELS, LABELS + 0.5, "y_train has the label"),
        (PIXELS, np.where(LABELS == 3, np.inf, LABELS), "y_train has the label inf"),
        (PIXELS, np.where(LABELS == 3, 2e9, LABELS), "the label 2000000000; expected less than"),
        (PIXELS, np.where(LABELS == 3, 77, LABELS), "has 78 classes; train with --classes 78"),
        (PIXELS.astype(float) - 128, LABELS, "x_train has values from -128"),
        (np.where(PIXELS > 9, np.nan, 0), LABELS, "x_train has values from nan"),
        (PIXELS.astype(np.uint16) * 257, LABELS, "x_train has values from 0 to 65535"),
        (PIXELS > 9, LABELS, "x_train is bool"),
        ((PIXELS > 9).astype(np.uint8), LABELS, "x_train has whole numbers of 0 and 1 alone"),
        (PIXELS[:, :, :, :2], LABELS, "x_train has shape"),
        (PIXELS.reshape(40, -1), LABELS, r"x_train is uint8 \(40, 3072\)"),
        (PIXELS[:0], LABELS[:0], "x_train is"),
    ],
)
def test_an_npz_of_something_else_is_named(tmp_path, x, y, match):
    with pytest.raises(DataError, match=match) as error:
        load_npz(tmp_path, x, y)
    assert str(tmp_path / "data.npz") in str(error.value)


def test_labels_beyond_the_named_classes_and_another_size_are_named(tmp_path):
    with pytest.raises(DataError, match=r"y_train|y_test has the label .; expected 0 to 2"):
        load_npz(tmp_path, PIXELS, LABELS, classes=["a", "b", "c"])
    with pytest.raises(DataError, match=r"classes is int64 \(\); expected \(classes,\)"):
        load_npz(tmp_path, PIXELS, LABELS, classes=np.int64(10))
    with pytest.raises(DataError, match="lacks y_validation"):
        load_npz(tmp_path, PIXELS, LABELS, x_validation=PIXELS)
    path = tmp_path / "sizes.npz"
    np.savez(path, x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:, :9], y_test=LABELS)
    with pytest.raises(DataError, match="one size"):
        reader.read(path)


def test_right_labels_in_a_column_are_all_right(tmp_path, untrained):
    """As keras.datasets.cifar10.load_data() has them."""
    model = untrained("classification", "baseline")
    y = np.asarray(classification.predict(model, jnp.asarray(augment.normalise(PIXELS))))
    data = load_npz(tmp_path, PIXELS, y[:, None])
    assert classification.accuracy(model, *data.test) == 100


@pytest.mark.parametrize("binary", [False, True])
def test_cifars_labels_are_checked(tmp_path, binary):
    write_cifar(tmp_path / "data", np.random.default_rng(0), binary)
    file = tmp_path / "data" / ("test_batch.bin" if binary else "test_batch")
    if binary:
        file.write_bytes(b"\x0a" + file.read_bytes()[1:])
    else:
        pickled = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}
        file.write_bytes(pickle.dumps(pickled, protocol=2))
    with pytest.raises(DataError, match="labels has the label 10; expected 0 to 9"):
        reader.read(tmp_path / "data")


def test_hidden_entries_are_no_data(tmp_path):
    for part in ("train", "test"):
        for name in ("cats", "dogs"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / part / name / "0.png")
            (tmp_path / part / name / "._0.png").write_bytes(b"a fork of the Macintosh")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    data = reader.read(tmp_path)
    assert data.classes == ["cats", "dogs"]
    assert len(data.test[0]) == 2


def test_folders_without_pictures_or_of_other_sizes_are_named(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part / "cats").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "cats" / "0.png")
    with pytest.raises(DataError, match=r"test has no picture in its folders \(cats\)"):
        reader.read(tmp_path)
    Image.new("RGB", (9, 8)).save(tmp_path / "test" / "cats" / "0.png")
    with pytest.raises(DataError, match=r"train/ has pictures of \(8, 8\), test/ \(8, 9\)"):
        reader.read(tmp_path)
    Image.new("RGB", (9, 8)).save(tmp_path / "train" / "cats" / "1.png")
    with pytest.raises(DataError, match=r"one size, found \[\(8, 8\), \(8, 9\)\]"):
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


# What follows computes the published code's results one image at a time, as make_cifar_c.py does.


def roughness(cloud):
    steps = [np.mean(np.diff(cloud, axis=axis) ** 2) for axis in (0, 1)]
    return sum(steps) / cloud.var()


@pytest.mark.parametrize("decay", [3, 1.75])
def test_the_fog_is_as_rough_as_the_published_one(decay):
    """Its jitter falls by decay² a level."""

    def cloud(rng, n=32):
        field, step, wobble = np.zeros((n, n)), n, 100.0
        while step >= 2:
            half = step // 2
            jitter = lambda v, w=wobble: v / 4 + w * rng.uniform(-w, w, v.shape)
            corner = field[::step, ::step]
            two = corner + np.roll(corner, -1, 0)
            field[half::step, half::step] = jitter(two + np.roll(two, -1, 1))
            middle = field[half::step, half::step]
            beside = middle + np.roll(middle, 1, 0) + corner + np.roll(corner, -1, 1)
            field[::step, half::step] = jitter(beside)
            beside = middle + np.roll(middle, 1, 1) + corner + np.roll(corner, -1, 0)
            field[half::step, ::step] = jitter(beside)
            step, wobble = half, wobble / decay
        field -= field.min()
        return field / field.max()

    rngs = lambda: (np.random.default_rng(i) for i in range(60))
    right = np.mean([roughness(cloud(rng)) for rng in rngs()])
    found = np.mean([roughness(corruptions.plasma(32, decay, rng)) for rng in rngs()])
    assert found == pytest.approx(right, rel=1e-6)  # the same random numbers


def test_glass_copies_pixels():
    """`x[h, w], x[i, j] = x[i, j], x[h, w]` on rows of an array is a copy."""
    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    sigma, passes = 0.4, 2
    right = np.uint8(ndi.gaussian_filter(x / 255, (sigma, sigma, 0), mode="nearest") * 255)
    rng = np.random.default_rng(1)
    for _ in range(passes):
        for h in range(31, 1, -1):
            for w in range(31, 1, -1):
                dy, dx = rng.integers(-1, 1, size=(2, 1))[:, 0]
                right[h, w], right[h + dy, w + dx] = right[h + dy, w + dx], right[h, w]
    right = ndi.gaussian_filter(right / 255, (sigma, sigma, 0), mode="nearest")
    found = corruptions.glass_blur(x[None] / 255, 4, np.random.default_rng(1))[0]
    np.testing.assert_allclose(found, right, atol=1e-12)


def test_elastic_interpolates_twice():
    """First the affine map, mirrored at the rim, then the displacement."""
    x = np.random.default_rng(0).random((32, 32, 3))
    alpha, sigma, affine = 3.2, 0.96, 0.96
    rng = np.random.default_rng(1)
    corners = 16 + 10 * np.array([[1, 1], [-1, 1], [-1, -1]])
    moved = corners + rng.uniform(-affine, affine, size=(3, 2))
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners.astype(float))
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"), -1).astype(float)
    source = np.concatenate([grid, np.ones((32, 32, 1))], -1) @ back
    noise = lambda: (
        alpha * ndi.gaussian_filter(rng.uniform(-1, 1, (32, 32)), sigma, mode="reflect", truncate=3)
    )
    displaced = grid + np.stack([noise(), noise()], -1)
    right = np.empty_like(x)
    for c in range(3):
        mapped = ndi.map_coordinates(x[..., c], source.transpose(2, 0, 1), order=1, mode="mirror")
        right[..., c] = ndi.map_coordinates(
            mapped, displaced.transpose(2, 0, 1), order=1, mode="reflect"
        )
    found = corruptions.elastic(x, alpha, sigma, affine, np.random.default_rng(1))
    np.testing.assert_allclose(found, right, atol=1e-12)


def test_motion_blur_is_rounded_to_bytes_as_imagemagick_does():
    x = np.random.default_rng(0).random((2, 32, 32, 3))
    found = corruptions.motion_blur(x, 2, np.random.default_rng(0)) * 255
    np.testing.assert_allclose(found, np.rint(found), atol=1e-9)


def test_snow_whitens_by_opencvs_gray():
    """On a picture without flakes: the blend with 1.5 gray + 0.5."""

    class Dry:
        def normal(self, mean, std, size):
            return np.zeros(size)

        uniform = staticmethod(np.random.default_rng(0).uniform)

    x = np.random.default_rng(0).random((1, 32, 32, 3))
    gray = (0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2])[..., None]
    right = 0.8 * x + 0.2 * np.maximum(x, 1.5 * gray + 0.5)
    np.testing.assert_allclose(corruptions.snow(x, 4, Dry()), right, atol=1e-12)
