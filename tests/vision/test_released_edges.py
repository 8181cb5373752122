"""PiDiNet and LDC from PyTorch's files, and what smoothing their maps of BSDS500 is measured to do."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import skimage
from PIL import Image

from jaxtv.vision import commands
from jaxtv.vision.metrics import boundaries, paired
from jaxtv.vision.metrics.paired import paired_difference
from jaxtv.vision.networks import ldc, pidinet
from jaxtv.vision.readers.weights import read_ldc, read_pidinet
from jaxtv.vision.released import edges
from jaxtv.vision.task import DataError
from testing import torch_files
from testing.torch_files import replaced, without

pytestmark = pytest.mark.float32

WIDTH, REDUCED, SIZE = 3, 2, (42, 60)


def random_state():
    rng = np.random.default_rng(0)
    state = {}

    def conv(name, o, i, side=1, bias=False):
        state[f"{name}.weight"] = rng.normal(size=(o, i, side, side)) / (side * i**0.5)
        if bias:
            state[f"{name}.bias"] = rng.normal(size=o)

    conv("init_block", WIDTH, 3, 3)
    i = WIDTH
    for s, (count, factor) in enumerate(zip((3, 4, 4, 4), (1, 2, 4, 4))):
        for b in range(count):
            name, o = f"block{s + 1}_{b + 1}", factor * WIDTH
            conv(f"{name}.conv1", i, 1, 3)
            conv(f"{name}.conv2", o, i)
            if s > 0 and b == 0:
                conv(f"{name}.shortcut", o, i, bias=True)
            i = o
        conv(f"dilations.{s}.conv1", REDUCED, i, bias=True)
        for d in range(4):
            conv(f"dilations.{s}.conv2_{d + 1}", REDUCED, REDUCED, 3)
        conv(f"attentions.{s}.conv1", 4, REDUCED, bias=True)
        conv(f"attentions.{s}.conv2", 1, 4, 3)
        conv(f"conv_reduces.{s}.conv", 1, REDUCED, bias=True)
    conv("classifier", 1, 4, bias=True)
    return state


def at(x, dy, dx):
    """Pixels (H, W, C) at an offset; 0 outside."""
    height, width = x.shape[:2]
    padded = np.pad(x, ((12, 12), (12, 12), (0, 0)))
    return padded[12 + dy : 12 + dy + height, 12 + dx : 12 + dx + width]


RING = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]  # clockwise
SQUARE = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def differences(x, kind):
    """What each of the nine weights of a kernel is multiplied by (the paper's Fig. 3)."""
    if kind == "cv":
        return [at(x, *p) for p in SQUARE]
    if kind == "cd":
        return [at(x, *p) - x for p in SQUARE]
    if kind == "ad":
        following = dict(zip(RING, RING[1:] + RING[:1])) | {(0, 0): (0, 0)}
        return [at(x, *p) - at(x, *following[p]) for p in SQUARE]
    around = [p for p in SQUARE if p != (0, 0)]
    return [0 * x, *(at(x, 2 * dy, 2 * dx) - at(x, dy, dx) for dy, dx in around)]


def reference(state, image):
    """The network on (H, W, 3) as its modules say, in float64, with literal differences."""
    mix = lambda x, name: x @ state[f"{name}.weight"][:, :, 0, 0].T + state.get(f"{name}.bias", 0)
    relu = lambda x: np.maximum(x, 0)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))

    def conv(x, name, reach=1):
        kernel = state[f"{name}.weight"].reshape(-1, x.shape[-1], 9)
        return sum(
            at(x, reach * dy, reach * dx) @ kernel[..., k].T for k, (dy, dx) in enumerate(SQUARE)
        )

    def enlarge(x):
        for axis, to in enumerate(SIZE):
            n = x.shape[axis]
            where = np.clip((np.arange(to) + 0.5) * n / to - 0.5, 0, n - 1)
            low = np.minimum(where.astype(int), n - 2)
            share = (where - low).reshape([-1 if a == axis else 1 for a in range(3)])
            x = (1 - share) * x.take(low, axis) + share * x.take(low + 1, axis)
        return x

    x = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    kernel = state["init_block.weight"].reshape(WIDTH, 3, 9)
    x = sum(part @ kernel[..., k].T for k, part in enumerate(differences(x, "cd")))
    kinds, maps = ["ad", "rd", "cv", *["cd", "ad", "rd", "cv"] * 3], []
    for s, count in enumerate((3, 4, 4, 4)):
        for b in range(count):
            name = f"block{s + 1}_{b + 1}"
            if s > 0 and b == 0:
                height, width, channels = x.shape
                x = x[: height // 2 * 2, : width // 2 * 2]
                x = x.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
            each = state[f"{name}.conv1.weight"].reshape(-1, 9)
            parts = differences(x, kinds.pop(0))
            y = mix(relu(sum(each[:, k] * part for k, part in enumerate(parts))), f"{name}.conv2")
            x = y + (mix(x, f"{name}.shortcut") if s > 0 and b == 0 else x)
        y = mix(relu(x), f"dilations.{s}.conv1")
        y = sum(conv(y, f"dilations.{s}.conv2_{d + 1}", 5 + 2 * d) for d in range(4))
        attention = conv(mix(relu(y), f"attentions.{s}.conv1"), f"attentions.{s}.conv2")
        maps.append(enlarge(mix(y * sigmoid(attention), f"conv_reduces.{s}.conv")))
    return mix(np.concatenate(maps, axis=-1), "classifier")[..., 0]


@pytest.fixture
def weights(tmp_path):
    """A file of random weights."""
    torch_files.save(tmp_path / "table5_pidinet.pth", random_state(), zipped=False, wrapped=True)
    return tmp_path / "table5_pidinet.pth"


def test_logits_are_those_of_literal_differences_of_pixels(weights):
    image = np.random.default_rng(1).random((*SIZE, 3)).astype(np.float32)
    found = pidinet.logits(read_pidinet(weights), jnp.asarray(image)[None])[0]
    expected = reference(random_state(), image)
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def random_ldc():
    """The tensors of an LDC of widths 2, 3, 4 and 5."""
    rng = np.random.default_rng(0)
    state = {}

    def conv(name, o, i, side, norm=None):
        state[f"{name}.weight"] = rng.normal(size=(o, i, side, side)) / (side * i**0.5)
        state[f"{name}.bias"] = rng.normal(size=o)
        if norm:
            for moment in ("weight", "bias", "running_mean", "running_var"):
                state[f"{norm}.{moment}"] = 0.5 + rng.random(o)

    def pair(name, norm, o, i):
        conv(f"{name}.conv1", o, i, 3, f"{name}.{norm}1")
        conv(f"{name}.conv2", o, o, 3, f"{name}.{norm}2")

    pair("block_1", "bn", 2, 3)
    pair("block_2", "bn", 3, 2)
    for b, layers, o, i in ((3, 2, 4, 3), (4, 3, 5, 4)):
        for k in range(layers):
            pair(f"dblock_{b}.denselayer{k + 1}", "norm", o, o if k else i)
    mixes = {"side_1": (3, 2), "side_2": (4, 3), "pre_dense_2": (4, 3), "pre_dense_3": (4, 3)}
    for name, (o, i) in {**mixes, "pre_dense_4": (5, 4)}.items():
        conv(f"{name}.conv", o, i, 1, f"{name}.bn")
    for b, i, scale in ((1, 2, 1), (2, 3, 1), (3, 4, 2), (4, 5, 3)):
        for k in range(scale):
            o = 1 if k == scale - 1 else 16
            conv(f"up_block_{b}.features.{3 * k}", o, i if k == 0 else 16, 1)
            conv(f"up_block_{b}.features.{3 * k + 2}", o, o, 2**scale)
    conv("block_cat.conv1", 32, 4, 3)
    conv("block_cat.conv3", 4, 32, 3)
    for name in ("weight", "bias"):
        state[f"block_cat.norm_layer1.{name}"] = 0.5 + rng.random(32)
    return state


def reference_ldc(state, image):
    """The network on (H, W, 3) as its modules say, in float64."""
    relu = lambda x: np.maximum(x, 0)
    padded = lambda x, n, value=0.0: np.pad(
        x, ((n, n), (n, n), (0, 0)), constant_values=np.float64(value)
    )

    def conv(x, name, pad=0, norm=None):
        kernel = state[f"{name}.weight"]
        side, x = kernel.shape[-1], padded(x, pad)
        height, width = np.subtract(x.shape[:2], side - 1)
        y = state[f"{name}.bias"] + sum(
            x[i : i + height, j : j + width] @ kernel[:, :, i, j].T
            for i, j in np.ndindex(side, side)
        )
        if norm:
            scale, shift, mean, variance = (
                state[f"{norm}.{moment}"]
                for moment in ("weight", "bias", "running_mean", "running_var")
            )
            y = (y - mean) / np.sqrt(variance + 1e-5) * scale + shift
        return y

    def transposed(x, name):
        kernel = state[f"{name}.weight"]
        side, (height, width) = kernel.shape[-1], x.shape[:2]
        y = np.zeros((2 * height + side - 2, 2 * width + side - 2, kernel.shape[1]))
        for i, j in np.ndindex(side, side):
            y[i : i + 2 * height : 2, j : j + 2 * width : 2][:height, :width] += (
                x @ kernel[:, :, i, j]
            )
        cut = side // 2 - 1
        return y[cut : cut + 2 * height, cut : cut + 2 * width] + state[f"{name}.bias"]

    def pool(x):
        wide = padded(x, 1, -np.inf)
        height, width = x.shape[:2]
        parts = [wide[i : i + height, j : j + width] for i, j in np.ndindex(3, 3)]
        return np.max(parts, axis=0)[::2, ::2]

    def dense(x, skip, name, layers):
        for k in range(layers):
            layer = f"{name}.denselayer{k + 1}"
            y = relu(conv(relu(x), f"{layer}.conv1", 2, f"{layer}.norm1"))
            x = (conv(y, f"{layer}.conv2", 0, f"{layer}.norm2") + skip) / 2
        return x

    def up(x, name, scale):
        for k in range(scale):
            x = relu(conv(x, f"{name}.features.{3 * k}"))
            x = transposed(x, f"{name}.features.{3 * k + 2}")
        return x

    mix = lambda x, name: conv(x, f"{name}.conv", 0, f"{name}.bn")
    height, width = image.shape[:2]
    x = np.pad(image, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    x = 255 * x[..., ::-1] - [103.939, 116.779, 123.68]
    x = relu(conv(x, "block_1.conv1", 1, "block_1.bn1"))[::2, ::2]
    one = relu(conv(x, "block_1.conv2", 1, "block_1.bn2"))
    two = relu(conv(one, "block_2.conv1", 1, "block_2.bn1"))
    two = conv(two, "block_2.conv2", 1, "block_2.bn2")
    two_sum = pool(two) + mix(one, "side_1")[::2, ::2]
    three = dense(two_sum, mix(pool(two), "pre_dense_3"), "dblock_3", 2)
    skip = mix(pool(three) + mix(pool(two), "pre_dense_2")[::2, ::2], "pre_dense_4")
    four = dense(pool(three) + mix(two_sum, "side_2")[::2, ::2], skip, "dblock_4", 3)
    blocks = ((one, 1), (two, 1), (three, 2), (four, 3))
    maps = [up(x, f"up_block_{k}", scale) for k, (x, scale) in enumerate(blocks, 1)]
    maps = np.concatenate(maps, axis=-1)
    y = conv(maps, "block_cat.conv1", 1)
    groups = y.reshape(*y.shape[:2], 4, 8)
    mean, variance = (f(groups, axis=(0, 1, 3), keepdims=True) for f in (np.mean, np.var))
    y = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(y.shape)
    scale, shift = (state[f"block_cat.norm_layer1.{name}"] for name in ("weight", "bias"))
    y = np.exp(conv(relu(y * scale + shift), "block_cat.conv3", 1))
    return ((maps * y).sum(axis=-1) / y.sum(axis=-1))[:height, :width]


@pytest.fixture
def ldc_weights(tmp_path):
    """A file of random weights."""
    path = tmp_path / "BRIND" / "11" / "11_model.pth"
    path.parent.mkdir(parents=True)
    torch_files.save(path, random_ldc(), wrapped=False)
    return path


def test_logits_of_ldc_are_those_of_its_modules(ldc_weights):
    image = np.random.default_rng(1).random((*SIZE, 3)).astype(np.float32)
    found = ldc.logits(read_ldc(ldc_weights), jnp.asarray(image)[None])[0]
    expected = reference_ldc(random_ldc(), image.astype(np.float64))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "is missing. Get it from .*hellozhuo.*research only.*table5_pidinet.pth"),
        (without("attentions.1.conv1.bias"), "another network .'attentions.1.conv1.bias'"),
        (
            replaced("block2_2.conv1.weight", (6, 1, 5, 5)),
            r"block2_2.conv1.weight is \(6, 1, 5, 5\), not \(6, 1, 3, 3\)",
        ),
        (dict.clear, "holds no network"),
    ],
)
def test_other_weights_are_refused(tmp_path, change, message):
    path = tmp_path / "table5_pidinet.pth"
    if change:
        change(state := random_state())
        torch_files.save(path, state, zipped=False, wrapped=True)
    with pytest.raises(DataError, match=message):
        read_pidinet(path)


def test_other_weights_than_ldc_are_refused(tmp_path):
    path = tmp_path / "11_model.pth"
    with pytest.raises(DataError, match=r"is missing. Get it from .*xavysp/LDC.*no licence"):
        read_ldc(path)
    torch_files.save(path, random_state())
    with pytest.raises(DataError, match=r"another network .'block_1.conv1.weight'"):
        read_ldc(path)
    torch_files.save(path, {**random_ldc(), "side_2.bn.weight": np.zeros(3)})
    with pytest.raises(DataError, match=r"side_2.bn.weight is \(3,\), not \(4,\)"):
        read_ldc(path)


def astronaut():
    """A part of scikit-image's photo, (1, 96, 128, 3)."""
    with Image.open(Path(skimage.data_dir, "astronaut.png")) as photo:
        return jnp.asarray(np.asarray(photo)[None, 40:136, 160:288, :3], jnp.float32) / 255


@pytest.mark.skipif(
    not os.environ.get("JAXTV_PIDINET"),
    reason="weights may not be copied: $JAXTV_PIDINET names a folder with table5_pidinet.pth",
)
def test_released_weights_give_the_probabilities_of_the_authors_code():
    """Of hellozhuo/pidinet in PyTorch 2.13.

    Their maps of the test pictures presumably belong to other weights: they differ from that code's
    by up to 118 grey levels (five pictures), and by 1 to 3 in the mean.
    """
    (path,) = Path(os.environ["JAXTV_PIDINET"]).rglob("table5_pidinet.pth")
    found = jax.nn.sigmoid(pidinet.logits(read_pidinet(path), astronaut()))[0]
    expected = [
        [0.82519, 0.24202, 0.07486, 0.00617, 0.01111, 0.00697, 0.18171, 0.20757],
        [0.01307, 0.05995, 0.00293, 0.00165, 0.00202, 0.01274, 0.16057, 0.06750],
        [0.05431, 0.54731, 0.15911, 0.34928, 0.33479, 0.37071, 0.42552, 0.08377],
        [0.04967, 0.17702, 0.08560, 0.01557, 0.00711, 0.03292, 0.37759, 0.78062],
        [0.66717, 0.01093, 0.00324, 0.00796, 0.02309, 0.00434, 0.06029, 0.38308],
        [0.02992, 0.20734, 0.08877, 0.11021, 0.04640, 0.01953, 0.16547, 0.81199],
    ]
    np.testing.assert_allclose(found[8::16, 8::16], expected, atol=2e-5)


@pytest.mark.skipif(
    not os.environ.get("JAXTV_LDC"),
    reason="weights may not be copied: $JAXTV_LDC names a folder with BRIND/11/11_model.pth",
)
def test_released_weights_of_ldc_give_the_probabilities_of_the_authors_code():
    """Of xavysp/LDC in PyTorch 2.13."""
    (path,) = Path(os.environ["JAXTV_LDC"]).rglob("BRIND/11/11_model.pth")
    found = jax.nn.sigmoid(ldc.logits(read_ldc(path), astronaut()))[0]
    expected = [
        [0.73067, 0.09679, 0.02047, 0.00042, 0.00027, 0.00062, 0.48864, 0.35838],
        [0.00778, 0.08188, 0.00112, 0.00014, 0.00145, 0.00325, 0.47318, 0.12366],
        [0.01031, 0.71976, 0.70930, 0.66801, 0.40184, 0.02168, 0.66751, 0.06107],
        [0.15618, 0.13562, 0.73272, 0.06940, 0.03369, 0.05130, 0.05471, 0.68460],
        [0.39184, 0.00307, 0.00701, 0.05247, 0.53770, 0.00245, 0.00168, 0.01293],
        [0.00004, 0.01666, 0.02551, 0.18611, 0.36985, 0.00412, 0.00097, 0.72912],
    ]
    np.testing.assert_allclose(found[8::16, 8::16], expected, atol=2e-5)


@pytest.fixture
def few_resamples(monkeypatch):
    """Intervals in a moment."""
    monkeypatch.setattr(paired, "RESAMPLES", 20)


@pytest.fixture
def stand_ins(weights, tmp_path, monkeypatch, few_resamples):
    """BSDS500's layout with two annotators, who mark what random weights find; few thresholds."""
    data, net = tmp_path / "BSDS500" / "data", read_pidinet(weights)
    rng, thin = np.random.default_rng(0), {}
    for part, count in (("val", 3), ("test", 4)):
        for folder in ("images", "groundTruth"):
            (data / folder / part).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
            picture = Image.fromarray(image).resize(SIZE[::-1], Image.Resampling.BICUBIC)
            picture.save(data / "images" / part / f"{i}.png")
            logits = pidinet.logits(net, jnp.asarray(picture, jnp.float32)[None] / 255)
            found = boundaries.suppress_non_maxima(np.asarray(jax.nn.sigmoid(logits[0])))
            thin[data / "groundTruth" / part / f"{i}.mat"] = found
    kept = np.concatenate([found[found > 0] for found in thin.values()])
    low, middle, high = np.quantile(kept, (0.3, 0.6, 0.9))
    for path, found in thin.items():
        truth = skimage.morphology.thin(found >= middle)
        truth[:, :9] = False  # which nobody sees
        cells = np.empty((1, 2), object)
        for k in range(2):
            cells[0, k] = {"Boundaries": truth.astype(np.uint8)}
            truth[:9] = False  # which the second one does not see
        scipy.io.savemat(path, {"groundTruth": cells})
    few = np.array([low, middle, high])
    networks = {name: net._replace(thresholds=few) for name, net in edges.NETWORKS.items()}
    monkeypatch.setattr(edges, "NETWORKS", networks)
    monkeypatch.setattr(edges, "VALIDATION", 2)
    kept = {name: (how, (1e-6, values[-1])) for name, (how, values) in edges.METHODS.items()}
    monkeypatch.setattr(edges, "METHODS", kept)
    return tmp_path


def test_the_command_measures_and_writes(stand_ins, ldc_weights, tmp_path, capsys):
    commands.evaluate("edges", stand_ins, stand_ins, limit=3, output=tmp_path / "out")
    results = json.loads((tmp_path / "out" / "edges-released.json").read_text())
    assert results["data"] == "3 test and 2 validation pictures of BSDS500"
    assert [*results["cases"]] == ["PiDiNet", "LDC"]
    scores = lambda parts, method, value: boundaries.scores(
        [np.array(part[method][value]) for part in parts]
    )
    for network, case in results["cases"].items():
        path = lambda name, network=network: f"out/edges-released/{network}, {name}.json"
        part = lambda name, path=path: json.loads((tmp_path / path(name)).read_text())
        parts, seen = [part(f"test-{i}") for i in range(3)], [part(f"val-{i}") for i in range(2)]
        assert len(case["thresholds"]) == 3
        plain = scores(parts, edges.PLAIN, "0")
        assert case["scores"] == pytest.approx(plain)
        for method, by_value in case["gains"].items():
            strong = [*by_value][-1]
            smooth = scores(parts, method, strong)
            for name in edges.SCORES:
                gain = smooth[name] - plain[name]
                assert by_value[strong][name][0] == pytest.approx(gain, abs=1e-6)
            before = scores(seen, edges.PLAIN, "0")["ods"]
            gain = scores(seen, method, strong)["ods"] - before
            assert case["validation"][method][strong] == pytest.approx(gain)
    case = results["cases"]["PiDiNet"]
    assert 0.5 < case["scores"]["ods"] < 1
    for method, by_value in case["gains"].items():  # what is annotated was not smoothed
        assert case["validation"][method][[*by_value][-1]] < 0
        assert case["chosen"][method]["value"] < 0.02
    for place in ("probabilities", "logits"):
        assert case["gains"][f"Gaussian on {place}"]["1e-06"]["ods"] == [0, 0, 0]
        assert case["chosen"][f"Gaussian on {place}"]["lead"] == [0, 0, 0]
    assert len(edges.table(results)) == 1 + 2 * (1 + 4 * 2)
    for suffix in (".png", ".pdf"):
        assert (tmp_path / "out" / f"edges-released{suffix}").stat().st_size > 1000
    assert "edges, released weights: 3 test and 2 validation" in capsys.readouterr().out


def test_the_best_value_on_validation_pictures_is_used_on_test_pictures(few_resamples):
    rng = np.random.default_rng(0)
    draw = lambda: np.cumsum(rng.integers(1, 9, size=(6, 5, 4)), axis=2)[..., [0, 2, 1, 3]]
    counts = lambda: {
        edges.PLAIN: {0.0: draw()},
        **{name: {1.0: draw(), 2.0: draw()} for name in edges.METHODS},
    }
    test, validation = counts(), counts()
    best = validation["Gaussian on logits"][2.0]
    best[..., 0], best[..., 2] = best[..., 1], best[..., 3]  # a recall and a precision of 1
    for by_value in validation["TV on logits"].values():
        by_value[..., 0] = 0
    found = edges.summary(test, validation)
    chosen, gains = found["chosen"], found["gains"]
    assert chosen["Gaussian on logits"]["value"] == 2
    assert chosen["Gaussian on logits"]["ods"] == gains["Gaussian on logits"]["2"]["ods"]
    assert chosen["TV on logits"]["value"] == 0
    assert chosen["TV on logits"]["ods"] == (0, 0, 0)
    assert chosen["TV on logits"]["lead"][0] == -chosen["Gaussian on logits"]["ods"][0]


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


def lose_the_weights(folder):
    (folder / "table5_pidinet.pth").unlink()


def lose_annotations(folder):
    (folder / "BSDS500" / "data" / "groundTruth" / "test" / "0.mat").unlink()


def lose_the_data(folder):
    (folder / "BSDS500").rename(folder / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_the_weights, r"has no table5_pidinet.pth or .*11_model.pth. Get .*research only"),
        (lose_annotations, r"0.mat is missing"),
        (lose_the_data, r"has no groundTruth/. Get it from .*berkeley"),
    ],
)
def test_missing_and_damaged_files_are_named(stand_ins, tmp_path, damage, message):
    damage(stand_ins)
    with pytest.raises(SystemExit, match=message):
        commands.evaluate("edges", stand_ins, stand_ins, output=tmp_path / "out")
