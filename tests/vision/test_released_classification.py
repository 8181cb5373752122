"""The released ResNet-20: its file, its layers, and what is measured with it."""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
from flax import nnx
from rich.console import Console

from jaxtv.nnx import TVLayer
from jaxtv.vision import commands, corruptions, training
from jaxtv.vision.networks import filters
from jaxtv.vision.networks.resnet20 import DEVIATION, MEAN, ResNet20, load_state
from jaxtv.vision.readers.augment import normalise
from jaxtv.vision.readers.cifar import CIFAR
from jaxtv.vision.readers.weights import read_resnet20
from jaxtv.vision.released import classification as released
from jaxtv.vision.released import fine_tuned_resnet20
from jaxtv.vision.released.parts import Parts
from jaxtv.vision.task import DataError, apply, get_task, settings_of
from jaxtv.vision.tasks.classification import accuracy
from testing import torch_files

pytestmark = [pytest.mark.float32, pytest.mark.usefixtures("flax_broadcasts")]


@pytest.fixture(scope="module")
def state():
    """Made-up weights under the names of the released file."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)

    def norm(name, o):
        return {
            f"{name}.weight": 1 + 0.1 * normal(o),
            f"{name}.bias": 0.1 * normal(o),
            f"{name}.running_mean": 0.1 * normal(o),
            f"{name}.running_var": 1 + 0.1 * rng.random(o, np.float32),
        }

    found = {"conv1.weight": normal(16, 3, 3, 3) / 5} | norm("bn1", 16)
    i = 16
    for stage, o in enumerate((16, 32, 64), 1):
        for block in range(3):
            for k in (1, 2):
                name = f"layer{stage}.{block}"
                found[f"{name}.conv{k}.weight"] = normal(o, i, 3, 3) / np.sqrt(9 * i, dtype="f")
                found |= norm(f"{name}.bn{k}", o)
                i = o
    return found | {"linear.weight": normal(10, 64), "linear.bias": normal(10)}


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(1)
    smooth = ndi.gaussian_filter(rng.normal(size=(20, 32, 32, 3)), (0, 2, 2, 0))
    return np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8), np.arange(20, dtype=np.int32) % 10


def by_hand(state, x):
    """ResNet-20 as PyTorch computes it: channels first, padded by 1; x (N, 3, 32, 32)."""

    def conv_norm(x, conv, norm, stride):
        pads = ((1, 1), (1, 1))
        y = jax.lax.conv_general_dilated(x, state[f"{conv}.weight"], (stride, stride), pads)
        weight, bias, mean, var = (
            state[f"{norm}.{name}"][:, None, None]
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        return (y - mean) / jnp.sqrt(var + 1e-5) * weight + bias

    x = jax.nn.relu(conv_norm(x, "conv1", "bn1", 1))
    for stage in (1, 2, 3):
        for block in range(3):
            name = f"layer{stage}.{block}."
            stride = 2 if stage > 1 and block == 0 else 1
            y = jax.nn.relu(conv_norm(x, name + "conv1", name + "bn1", stride))
            y = conv_norm(y, name + "conv2", name + "bn2", 1)
            more = (y.shape[1] - x.shape[1]) // 2
            x = jnp.pad(x[:, :, ::stride, ::stride], ((0, 0), (more, more), (0, 0), (0, 0)))
            x = jax.nn.relu(x + y)
    return jnp.mean(x, axis=(2, 3)) @ state["linear.weight"].T + state["linear.bias"]


# ---------------------------------------------------------------------------- network


def test_the_network_is_pytorchs(state, pictures, tmp_path):
    torch_files.save(tmp_path / "a.th", state, zipped=False)
    model = ResNet20(rngs=nnx.Rngs(0))
    load_state(model, read_resnet20(tmp_path / "a.th"))
    model.eval()
    x = pictures[0][:4]
    scaled = (x / np.float32(255) - np.float32(MEAN)) / np.float32(DEVIATION)
    expected = jax.jit(by_hand)(state, jnp.moveaxis(jnp.asarray(scaled), -1, 1))
    np.testing.assert_allclose(apply(model, jnp.asarray(normalise(x))), expected, atol=2e-4)


def test_filters_come_before_the_first_three_norms_or_in_front(state, pictures):
    """A filter that multiplies by 2 can be undone: by the norm's statistics, or on the input."""
    double = lambda: filters.Filter(lambda x, s: x * s, 2.0)
    x = jnp.asarray(normalise(pictures[0][:4]))
    models = {
        "plain": ResNet20(rngs=nnx.Rngs(0)),
        "early": ResNet20(early=double, rngs=nnx.Rngs(0)),
        "front": ResNet20(front=double, rngs=nnx.Rngs(0)),
    }
    for model in models.values():
        load_state(model, state)
        model.eval()
    expected = apply(models["plain"], x)
    early = models["early"]
    assert np.abs(apply(early, x) - expected).max() > 0.1
    for part in (early.stem, early.blocks[0].first, early.blocks[0].second):
        part.norm.mean[...] *= 2
        part.norm.var[...] = 4 * (part.norm.var[...] + 1e-5) - 1e-5
    np.testing.assert_allclose(apply(early, x), expected, atol=2e-4)
    half = (x / 4 + 0.5) / 2
    np.testing.assert_allclose(apply(models["front"], 4 * (half - 0.5)), expected, atol=2e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "is missing.*akamaster/pytorch_resnet_cifar10.*BSD 2-Clause.*resnet20-12fca82f.th"),
        ({"linear.bias": np.zeros(100, np.float32)}, r"another network: linear.bias is \(100,\)"),
        ({"layer3.2.bn2.running_var": None}, "layer3.2.bn2.running_var is missing"),
    ],
)
def test_another_network_is_named(state, tmp_path, change, message):
    path = tmp_path / "resnet20-12fca82f.th"
    if change is not None:
        torch_files.save(path, {k: v for k, v in (state | change).items() if v is not None})
    with pytest.raises(DataError, match=message):
        read_resnet20(path)


# ---------------------------------------------------------------------------- filters


@pytest.mark.parametrize("width", [0.3, 1.0])
def test_the_gaussian_is_scipys(width):
    x = np.random.default_rng(0).random((2, 9, 14, 3), np.float32)
    expected = ndi.gaussian_filter(x, (0, width, width, 0), mode="nearest", radius=filters.RADIUS)
    found = apply(filters.Filter(filters.gaussian, width), jnp.asarray(x))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["smooth", "sharp"])
def test_a_filter_is_a_tv_layer(mode):
    x = jax.random.normal(jax.random.key(0), (2, 9, 14, 3))
    function = {"smooth": filters.tv_smooth, "sharp": filters.tv_sharp}[mode]
    found, expected = filters.Filter(function, 0.3), TVLayer(mode=mode, init_lam=0.3)
    np.testing.assert_allclose(apply(found, x), apply(expected, x), atol=1e-6)
    assert float(found.strength) == pytest.approx(0.3)
    loss = lambda layer: jnp.sum(jnp.square(layer(x)))
    both = [float(nnx.grad(loss)(layer)["raw_lam"][...]) for layer in (found, expected)]
    assert both[0] == pytest.approx(both[1], rel=1e-4)


# ---------------------------------------------------------------------------- study


def test_severities_take_turns(pictures):
    x, y = released.corrupted("contrast", pictures)
    for i in (0, 1, 7, 19):
        severity = 1 + i % 5
        same = corruptions.corrupt("contrast", pictures[0], severity)[i]
        np.testing.assert_array_equal(x[i], same)
    np.testing.assert_array_equal(y, pictures[1])
    assert released.corrupted(released.CLEAN, pictures) is pictures


def test_the_weakest_of_the_best_strengths_is_chosen():
    assert released.best({"0": [90, 50.0], "0.1": [80, 60.0], "0.3": [99, 60.0]}) == 0.1


def test_gains_by_hand(monkeypatch):
    monkeypatch.setattr(released, "GROUPS", {"noise": ("a", "b")})
    monkeypatch.setattr(released, "LEADS", (("tv", "gaussian"),))
    seeds = {"plain": ["1100", "1000"], "tv": ["1110", "1110"], "gaussian": ["1100", "1110"]}
    scores = {name: released.scores_of(of) for name, of in seeds.items()}
    np.testing.assert_array_equal(scores["plain"], [100, 50, 0, 0])
    zero = {name: np.zeros(4) for name in seeds}
    found = released.compared({"clean": scores, "a": scores, "b": zero})
    assert found["accuracy"]["clean"] == {"plain": 37.5, "tv": 75, "gaussian": 62.5}
    assert found["accuracy"]["noise"]["tv"] == 37.5
    assert found["gains"]["clean"]["tv"][0] == 37.5
    assert found["gains"]["noise"]["tv"][0] == 18.75
    assert found["leads"]["a"]["tv over gaussian"][0] == 12.5
    assert found["leads"]["b"]["tv over gaussian"] == (0, 0, 0)


@pytest.fixture
def stand_ins(state, pictures, tmp_path, monkeypatch):
    """Folder of weights and file of pictures; three corruptions, one method of one strength."""
    x, y = pictures
    torch_files.save(tmp_path / released.WEIGHTS, state, zipped=False)
    parts = {
        f"{n}_{part}": v
        for part in ("train", "validation", "test")
        for n, v in (("x", x), ("y", y))
    }
    np.savez(tmp_path / "cifar.npz", classes=np.array(CIFAR), **parts)
    conditions = ("clean", "brightness", "contrast", "pixelate")
    monkeypatch.setattr(released, "CONDITIONS", conditions)
    monkeypatch.setattr(released, "GROUPS", {"all 3": conditions[1:]})
    name = "TV-smooth before the norms"
    method = dataclasses.replace(released.METHODS[name], strengths=(0.3,))
    monkeypatch.setattr(released, "METHODS", {name: method})
    return tmp_path, tmp_path / "cifar.npz"


def test_the_command_measures_and_goes_on(stand_ins, tmp_path, monkeypatch):
    weights, data = stand_ins
    measure = lambda: commands.evaluate(
        "classification", data, weights, limit=20, output=tmp_path / "out"
    )
    measure()
    path = tmp_path / "out" / "classification-released.json"
    results = json.loads(path.read_text())
    assert results["data"].endswith("20 to test")
    found = results["studies"]["frozen"]
    for method, strength in found["strengths"].items():
        clean, corrupted = found["curves"][method][f"{strength:g}"]
        assert corrupted == max(curve[1] for curve in found["curves"][method].values())
        assert 0 <= clean <= 100
        if strength == 0:
            assert found["gains"]["all 3"][method] == [0, 0, 0]
    header, *rows = released.table(results)
    assert header == ["study", "method", "strength", "clean", "all 3"]
    assert [row[1] for row in rows[:2]] == [released.PLAIN, *released.METHODS]
    assert (tmp_path / "out" / "classification-released.png").stat().st_size > 1000
    monkeypatch.setattr(released, "right", None)  # all is there: nothing is measured again
    path.unlink()
    measure()
    assert json.loads(path.read_text()) == results


@pytest.mark.nightly
def test_fine_tuning_is_paired(stand_ins, tmp_path, monkeypatch):
    weights, data = stand_ins
    names = ("network alone", "TV-smooth from 0.05")
    monkeypatch.setattr(released, "METHODS", {})
    monkeypatch.setattr(fine_tuned_resnet20.FineTuning, "variants", dict.fromkeys(names, ""))
    settings = dataclasses.replace(fine_tuned_resnet20.SETTINGS, batch_size=6)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(fine_tuned_resnet20, "SETTINGS", settings)
    commands.evaluate("classification", data, weights, limit=20, seeds=2, output=tmp_path / "out")
    results = json.loads((tmp_path / "out" / "classification-released.json").read_text())
    found = results["studies"]["fine-tuned"]
    assert found["strengths"][names[0]] == []
    assert len(found["strengths"][names[1]]) == 3
    assert all(lam != pytest.approx(0.05, abs=1e-6) for lam in found["strengths"][names[1]])
    assert [*found["gains"]["clean"]] == [names[1]]


def test_trained_networks_are_paired(stand_ins, tmp_path):
    """Runs as they are before the first step, and a seed that one variant lacks."""
    _, data = stand_ins
    task = get_task("classification")
    settings = settings_of(task, "smoke")
    for variant, seed in (*itertools.product(released.TRAINED, (0,)), ("baseline", 1)):
        folder = tmp_path / "runs" / variant / f"seed{seed}"
        run = training.Run("classification", variant, settings, seed, "")
        run.write(folder)
        with training.checkpoints(folder) as manager:
            training.save(manager, 1, *training.create(task, run, steps=1))
        training.write_json(folder / "result.json", {})
    test = released.read_cifar10(data).test
    seen = functools.cache(lambda condition: released.corrupted(condition, test))
    parts = Parts(tmp_path / "parts", {})
    found = released.trained(tmp_path / "runs", seen, parts, Console(quiet=True))
    assert found["seeds"] == 1
    assert [*found["gains"]["clean"]] == ["TV-smooth", "TV-sharp"]
    assert found["strengths"]["TV-smooth"] == pytest.approx([0.05] * 3)
    model = training.load(tmp_path / "runs" / "tv-sharp" / "seed0")[2]
    assert found["accuracy"]["contrast"]["TV-sharp"] == accuracy(model, *seen("contrast"))
    (tmp_path / "runs" / "tv-sharp" / "seed0" / "result.json").unlink()
    with pytest.raises(DataError, match=r"no seed that all variants.*tv-sharp/seedN"):
        released.trained(tmp_path / "runs", seen, parts, Console(quiet=True))


def test_fine_tuning_starts_from_the_released_weights(state):
    task = fine_tuned_resnet20.FineTuning(state)
    assert next(iter(task.variants)) == released.PLAIN
    model = task.build("TV-sharp from 0.05", fine_tuned_resnet20.SETTINGS, nnx.Rngs(0))
    kernel = state["layer3.2.conv2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.blocks[8].second.conv.kernel[...], kernel)
    assert fine_tuned_resnet20.strengths(model) == pytest.approx([0.05] * 3)


@pytest.mark.parametrize(
    ("classes", "size", "message"),
    [(["cat", "dog"], 32, "in the classes cat, dog"), (CIFAR, 28, r"pictures of \(28, 28\)")],
)
def test_other_data_is_named(stand_ins, tmp_path, classes, size, message):
    x, y = np.zeros((20, size, size, 3), np.uint8), np.arange(20) % len(classes)
    x[:, 0] = 200
    path = tmp_path / "other.npz"
    np.savez(path, classes=np.array(classes), x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match=f"{message}.*knows CIFAR-10's.*jaxtv data fetch cifar-10"):
        released.read_cifar10(path)
