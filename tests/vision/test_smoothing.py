"""The residual network with TV layers, BenchmarkEPS' layout, WRMSE and WMAE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
from flax import nnx
from PIL import Image

import jaxtv
from jaxtv.vision.metrics.errors import weighted_errors
from jaxtv.vision.readers import smoothing as reader
from jaxtv.vision.task import DataError, apply, get_task, settings_of

pytestmark = pytest.mark.float32
TASK = get_task("smoothing")
SMOKE = settings_of(TASK, "smoke")


def test_at_the_start_the_network_is_its_last_tv_layer(untrained):
    x = 255 * jax.random.uniform(jax.random.key(0), (2, 24, 24, 3))
    smooth = jaxtv.prox_tv2d(x, 1.0, axes=(1, 2))
    np.testing.assert_allclose(apply(untrained("smoothing", "tv"), x), smooth, atol=1e-3)
    np.testing.assert_array_equal(apply(untrained("smoothing", "baseline"), x), x)


@pytest.mark.parametrize("preset", ["smoke", "small", "paper"])
def test_four_blocks_get_rows_and_columns_by_turns(preset):
    settings = settings_of(TASK, preset)
    model = nnx.eval_shape(lambda: TASK.build("tv", settings, nnx.Rngs(0)))
    layers = [block.tv for block in model.blocks if block.tv is not None]
    assert [layer.axes for layer in layers] == [(-2,), (-3,), (-2,), (-3,)]
    assert all(layer.mode == "sharp" for layer in layers)
    assert model.tv.mode == "smooth"
    assert not model.tv.per_channel
    assert len(model.blocks) == settings.depth
    baseline = nnx.eval_shape(lambda: TASK.build("baseline", settings, nnx.Rngs(0)))
    assert all(block.tv is None for block in baseline.blocks)


def test_metrics_by_hand():
    """One pixel row, two targets with weights 3/4 and 1/4."""
    targets = np.zeros((2, 1, 2, 3), np.uint8)
    targets[1] = 4
    pair = reader.Pair(np.zeros((1, 2, 3), np.uint8), targets, np.float32([0.75, 0.25]))
    y = np.full((1, 2, 3), 2, np.uint8)
    y[0, 0, 0] = 0
    # Differences to the targets: 0 once and 2 five times; -4 once and -2 five times.
    square, absolute = 0.75 * 20 + 0.25 * 36, 0.75 * 10 + 0.25 * 14
    expected = np.sqrt(square / 6), absolute / 6
    np.testing.assert_allclose(weighted_errors([y], [pair]), expected)
    literal = np.sqrt(square / (2 * 1 * 2)), absolute / (2 * 1 * 2)
    np.testing.assert_allclose(weighted_errors([y], [pair], literal=True), literal)
    both = weighted_errors([y, np.zeros_like(y)], [pair, pair])
    np.testing.assert_allclose(both[0], np.sqrt((square / 6 + 0.25 * 16) / 2))


def test_the_loss_is_the_training_version_of_wmae():
    rng = np.random.default_rng(0)
    pair = reader.Pair(
        rng.integers(0, 256, (8, 8, 3), dtype=np.uint8),
        rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8),
        np.float32([0.6, 0.4]),
    )
    batch = {
        "image": jnp.asarray(pair.image, jnp.float32)[None],
        "targets": jnp.asarray(pair.targets, jnp.float32)[None],
        "weights": jnp.asarray(pair.weights)[None],
    }
    _, wmae = weighted_errors([pair.image], [pair])
    assert float(TASK.loss(lambda x: x, batch)) * 255 == pytest.approx(wmae, rel=1e-5)


def write_benchmark(path, rng, count=5, targets=3):
    (path / "origin_images").mkdir(parents=True)
    (path / "gt_images").mkdir()
    save = lambda file: Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(
        file
    )
    for n in range(1, count + 1):
        save(path / "origin_images" / f"{n:04d}.png")
        for k in range(1, targets + 1):
            save(path / "gt_images" / f"{n:04d}_{k}.png")
    votes = rng.integers(1, 9, size=(count, targets)).astype(float)
    scipy.io.savemat(path / "weight_matrix.mat", {"weight_matrix": votes})
    return votes


def test_the_benchmark_is_read_and_each_crop_has_its_pictures_votes(tmp_path):
    rng = np.random.default_rng(0)
    votes = write_benchmark(tmp_path, rng)
    pairs = reader.read(tmp_path)
    for pair, row in zip(pairs, votes):
        np.testing.assert_allclose(pair.weights, row / row.sum(), rtol=1e-6)
        assert pair.targets.shape == (3, 40, 48, 3)
    data = TASK.load(tmp_path, SMOKE)
    assert len(data.stacks) == 4
    assert len(data.tests) == 1
    batch = next(iter(data.epoch(rng, 4)))
    assert batch["targets"].shape == (4, 3, 32, 32, 3)
    for image, weights in zip(batch["image"], batch["weights"]):
        windows = [
            np.lib.stride_tricks.sliding_window_view(p.image, (32, 32, 3)).reshape(-1, 32, 32, 3)
            for p in pairs
        ]
        turns = [np.rot90(c, k) for c in (image, image[:, ::-1]) for k in range(4)]
        owner = [any((w == t).all(axis=(1, 2, 3)).any() for t in turns) for w in windows]
        np.testing.assert_allclose(weights, pairs[owner.index(True)].weights)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda p: (p / "weight_matrix.mat").unlink(), r"weight_matrix\.mat is missing"),
        (lambda p: (p / "weight_matrix.mat").write_bytes(b"x" * 200), "can not be read"),
        (lambda p: (p / "gt_images" / "0002_3.png").unlink(), r"0002_3\.png is missing"),
        (lambda p: (p / "origin_images" / "0005.png").unlink(), "4 pictures and votes for 5"),
        (
            lambda p: Image.new("RGB", (9, 9)).save(p / "gt_images" / "0001_1.png"),
            r"0001_1\.png must have the size of",
        ),
        (
            lambda p: scipy.io.savemat(p / "weight_matrix.mat", {"w": np.zeros((5, 3))}),
            "one matrix of votes",
        ),
    ],
)
def test_a_damaged_benchmark_is_named(tmp_path, damage, match):
    write_benchmark(tmp_path, np.random.default_rng(0))
    damage(tmp_path)
    with pytest.raises(DataError, match=match):
        reader.read(tmp_path)


def test_another_layout_is_named(tmp_path):
    with pytest.raises(DataError, match="not laid out as BenchmarkEPS"):
        reader.read(tmp_path)


def test_a_network_learns_the_embedded_filters(trained):
    run = trained("smoothing")
    assert "wrmse" in run.printed
    header = (run.folder / "log.csv").read_text().splitlines()[0]
    assert "lam/tv" in header
    assert "lam/blocks.0.tv" in header
