"""DexiNed with TV layers, the layouts of edge data, and the Berkeley metrics."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import scipy.ndimage as ndi
import scipy.optimize
import scipy.sparse
import scipy.spatial
import skimage
from flax import nnx
from PIL import Image

from jaxtv.nnx import TVLayer
from jaxtv.vision import images
from jaxtv.vision.metrics import boundaries
from jaxtv.vision.networks.dexined import UpBlock
from jaxtv.vision.readers import edges as reader
from jaxtv.vision.readers.located import read_mask
from jaxtv.vision.readers.mosaics import mosaic
from jaxtv.vision.task import DataError, apply, get_task, settings_of
from jaxtv.vision.tasks import edges

pytestmark = [pytest.mark.float32, pytest.mark.usefixtures("flax_broadcasts")]
TASK = get_task("edges")


# ---------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("seed", range(8))
def test_a_matching_is_as_large_as_an_assignment_can_make_it(seed):
    """Against scipy's assignment solver, which minimises a cost of 0 for pairs and 1 otherwise."""
    rng = np.random.default_rng(seed)
    found, truth = rng.random((2, 14, 17)) < 0.2
    distance = 2.3
    a, b = np.argwhere(found), np.argwhere(truth)
    far = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) > distance
    size = len(a) + len(b)
    cost = np.ones((size, size))
    cost[: len(a), : len(b)] = far
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    best = size - cost[rows, columns].sum()
    matched_found, matched_truth = boundaries.match(found, truth, distance)
    assert matched_found.sum() == matched_truth.sum() == best
    assert not np.any(matched_found & ~found)
    assert not np.any(matched_truth & ~truth)


def test_long_lines_are_matched_in_time_and_by_their_shortest_pairs():
    """Thinned contours, on some of which scipy's maximum_bipartite_matching takes minutes."""
    rng = np.random.default_rng(0)
    noise = ndi.gaussian_filter(rng.normal(size=(321, 481)), 6)
    lines = [skimage.morphology.thin(np.abs(noise - shift) < 0.01) for shift in (0, 0.002)]
    matched_found, matched_truth = boundaries.match(*lines, 4.3)
    a, b = (np.argwhere(line) for line in lines)
    near = scipy.spatial.KDTree(a).sparse_distance_matrix(
        scipy.spatial.KDTree(b), 4.3, output_type="coo_matrix"
    )
    source, sink = 0, 1 + len(a) + len(b)
    tails = [np.zeros(len(a)), 1 + near.row, 1 + len(a) + np.arange(len(b))]
    heads = [1 + np.arange(len(a)), 1 + len(a) + near.col, np.full(len(b), sink)]
    ends = (np.concatenate(tails).astype(np.int32), np.concatenate(heads).astype(np.int32))
    graph = scipy.sparse.csr_matrix((np.ones(len(ends[0]), np.int32), ends), (sink + 1, sink + 1))
    most = scipy.sparse.csgraph.maximum_flow(graph, source, sink).flow_value
    assert len(a) > 1500
    assert matched_found.sum() == matched_truth.sum() == most


def test_among_equally_many_pairs_the_shortest():
    found, truth = np.zeros((2, 1, 9), bool)
    found[0, [0, 3]] = truth[0, 4] = True
    matched, _ = boundaries.match(found, truth, 4.0)
    np.testing.assert_array_equal(np.flatnonzero(matched), [3])


@pytest.mark.parametrize(("distance", "pairs"), [(4.99, 0), (5.0, 1)])
def test_pixels_at_the_distance_itself_are_a_pair(distance, pairs):
    found, truth = np.zeros((2, 6, 6), bool)
    found[1, 1] = truth[4, 5] = True
    assert boundaries.match(found, truth, distance)[0].sum() == pairs


@pytest.mark.skipif(
    not os.environ.get("JAXTV_BSDS500"),
    reason="its pictures may not be copied: $JAXTV_BSDS500 names a checkout of BIDS/BSDS500",
)
def test_the_benchmarks_own_example():
    """Five pictures with the scores that BSDS500's own code gives them, at five thresholds."""
    folder = Path(os.environ["JAXTV_BSDS500"], "bench", "data")
    levels = np.linspace(1 / 6, 1 - 1 / 6, 5)
    counts = [
        boundaries.counts(
            images.read_rgb(path)[..., 0] / 255,
            reader.read_mat(folder / "groundTruth" / f"{path.stem}.mat"),
            levels,
        )
        for path in images.listed(folder / "png")
    ]
    found = boundaries.scores(counts)
    published = np.loadtxt(folder / "test_2" / "eval_bdry.txt")[[3, 6, 7]]
    np.testing.assert_allclose([found[k] for k in ("ods", "ois", "ap")], published, atol=2e-4)


def test_nothing_matches_nothing():
    none, some = np.zeros((9, 9), bool), np.eye(9, dtype=bool)
    for found, truth in ((none, none), (none, some), (some, none)):
        a, b = boundaries.match(found, truth, 1.0)
        assert a.sum() == b.sum() == 0


def test_a_line_within_the_tolerance_counts_and_one_beyond_does_not():
    """300 x 400: the diagonal is 500, the tolerance 3.75 pixels."""
    truth, near, far = np.zeros((3, 300, 400))
    truth[:, 200] = near[:, 203] = far[:, 204] = 1
    exact = boundaries.scores([boundaries.counts(near, [truth > 0])])
    assert exact["ods"] == exact["ois"] == 1
    assert boundaries.scores([boundaries.counts(far, [truth > 0])])["ods"] == 0


def test_scores_by_hand():
    """Two images, three different thresholds; counts are (hits, truth, hits, detected)."""
    one = np.array([[8, 10, 8, 20], [6, 10, 6, 8], [2, 10, 2, 2]])
    two = np.array([[9, 10, 9, 12], [3, 10, 3, 6], [0, 10, 0, 0]])
    found = boundaries.scores([one, two])
    recall, precision = np.array([17, 9, 2]) / 20, np.array([17 / 32, 9 / 14, 1.0])
    t = np.linspace(0, 1, 100)  # as MATLAB's linspace has
    dense = [
        np.concatenate([t * v[i + 1] + (1 - t) * v[i] for i in range(2)])
        for v in (recall, precision)
    ]
    assert found["ods"] == pytest.approx((2 * dense[0] * dense[1] / (dense[0] + dense[1])).max())
    # Best per image: the second threshold of the first (F 0.667), the first of the second (0.818).
    r, p = (6 + 9) / 20, (6 + 9) / (8 + 12)
    assert found["ois"] == pytest.approx(2 * r * p / (r + p))
    levels = np.linspace(0, 1, 101)
    inside = (levels >= 0.1) & (levels <= 0.85)
    area = np.interp(levels[inside], recall[::-1], precision[::-1]).sum() / 100
    assert found["ap"] == pytest.approx(area)
    assert found["least recall"] == pytest.approx(0.1)


def test_a_pixel_that_any_annotator_has_is_right():
    """Precision counts the union of the annotators, recall each of them."""
    first, second, found = np.zeros((3, 40, 40))
    first[10, 5:35] = second[30, 5:35] = 1
    found[10, 5:35] = 0.5
    count = boundaries.counts(found, [first > 0, second > 0])
    low, high = count[0], count[-1]
    np.testing.assert_array_equal(low, [30, 60, 30, 30])
    np.testing.assert_array_equal(high, [0, 60, 0, 0])


def test_a_thick_line_is_thinned_first():
    found, truth = np.zeros((2, 60, 60))
    found[28:33, 5:55] = 0.9
    truth[30, 5:55] = 1
    count = boundaries.counts(found, [truth > 0])[0]
    assert count[3] <= 50  # 250 pixels were detected
    assert count[2] / count[3] > 0.95


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 120])
def test_the_ridge_is_what_is_not_suppressed(angle):
    y, x = np.indices((60, 80)) - np.array([30, 40]).reshape(2, 1, 1)
    across, along = (
        x * np.cos(a) + y * np.sin(a) for a in (np.radians(angle), np.radians(angle + 90))
    )
    ridge = np.exp(-0.5 * (across / 2) ** 2)
    found = boundaries.suppress_non_maxima(ridge)
    inner = (np.abs(y) < 24) & (np.abs(x) < 34)
    kept = (found > 0.5) & inner
    assert np.abs(across[kept]).max() < 0.8
    assert len(np.unique(np.round(along[kept]))) > 40  # without gaps
    smooth = ndi.gaussian_filter(ridge, 0.7)
    np.testing.assert_allclose(found[kept], smooth[kept], atol=0.03)
    assert found[0].max() == found[:, -1].max() == 0


def test_suppression_looks_at_both_neighbours_of_each_pixel():
    """The toolbox's steps, a pixel at a time."""
    edges = np.random.default_rng(0).random((26, 22))
    edges = ndi.gaussian_filter(edges, 1)  # so flat that 1 % decides

    def triangle(x, reach):
        weights = [reach + 1 - abs(i) for i in range(-reach, reach + 1)]
        wide = np.pad(x, reach, mode="symmetric")
        at = lambda i, j: wide[i : i + 2 * reach + 1, j : j + 2 * reach + 1]
        mean = lambda part: weights @ part @ weights / sum(weights) ** 2
        return np.array([[mean(at(i, j)) for j in range(x.shape[1])] for i in range(x.shape[0])])

    smooth = triangle(edges, 1)
    (dyy, _), (dxy, dxx) = map(np.gradient, np.gradient(triangle(smooth, 4)))
    found = boundaries.suppress_non_maxima(edges)
    for i, j in np.ndindex(smooth.shape):
        angle = np.arctan2(2 * dxy[i, j], dxx[i, j] - dyy[i, j]) / 2 + np.pi / 2
        step = np.array([np.sin(angle), np.cos(angle)])
        at = [np.clip((i, j) + side * step, 0, np.subtract(smooth.shape, 1)) for side in (-1, 1)]
        sides = ndi.map_coordinates(smooth, np.transpose(at), order=1)
        from_rim = [min(k, n - 1 - k, 5) / 5 for k, n in zip((i, j), smooth.shape)]
        kept = smooth[i, j] * np.prod(from_rim) if max(sides) <= 1.01 * smooth[i, j] else 0
        np.testing.assert_allclose(found[i, j], kept, rtol=1e-12)
    assert 0.2 < np.mean(found[1:-1, 1:-1] == 0) < 0.8


# ---------------------------------------------------------------------------- model


@pytest.mark.parametrize("preset", ["smoke", "paper"])
def test_all_maps_have_the_size_of_the_picture(preset):
    settings = settings_of(TASK, preset)
    x = jnp.zeros((2, 64, 96, 3))
    shapes = nnx.eval_shape(lambda: TASK.build("tv", settings, nnx.Rngs(0))(x))
    assert [s.shape for s in shapes] == [(2, 64, 96, 1)] * 7


def test_no_side_output_can_die():
    """One that is negative everywhere before its last transposed convolution still learns."""
    block, layer = UpBlock(3, 1, jnp.float32, rngs=nnx.Rngs(0)), TVLayer(mode="sharp")
    block.mix[-1].bias[...] = jnp.full((1,), -100.0)
    x = jnp.asarray(np.random.default_rng(0).random((1, 8, 8, 3), np.float32))
    loss = lambda parts: jnp.mean(jnp.square(parts[1](parts[0](x))))
    to_block, to_layer = nnx.jit(nnx.grad(loss))((block, layer))
    assert np.abs(to_block["mix"][0]["bias"][...]).max() > 0
    assert np.abs(to_layer["raw_lam"][...]) > 0


def test_the_papers_network_has_about_35_million_parameters():
    """Poma et al. 2020 give 35 M; the TV layers add five."""
    count = {}
    for variant in TASK.variants:
        model = nnx.eval_shape(
            lambda v=variant: TASK.build(v, settings_of(TASK, "paper"), nnx.Rngs(0))
        )
        leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
        count[variant] = sum(int(np.prod(p.shape)) for p in leaves)
    assert 34e6 < count["baseline"] < 36.5e6
    assert count["tv"] == count["baseline"] + 5


def test_without_lam_the_variants_are_one(untrained):
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    baseline, tv = (untrained("edges", v) for v in TASK.variants)
    right = apply(baseline, x)
    assert np.abs(apply(tv, x)[-1] - right[-1]).max() > 1e-6
    for layer in (*tv.sharp, tv.smooth):
        layer.raw_lam[...] = jnp.asarray(-1e4)
    for a, b in zip(apply(tv, x), right):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_loss_by_hand():
    logits, target = np.zeros((1, 2, 2, 1), np.float32), np.zeros((1, 2, 2, 1), np.float32)
    target[0, 0, 0] = 1
    # Cross-entropy is log 2 everywhere; a quarter of the pixels is positive.
    mean = np.log(2) * (0.75 + 3 * 1.1 * 0.25) / 4
    batch = {"image": None, "edges": jnp.asarray(target)}
    loss = TASK.loss(lambda _: [jnp.asarray(logits)] * 7, batch)
    assert float(loss) == pytest.approx(mean * sum(edges.LOSS_WEIGHTS), rel=1e-5)


def test_pictures_of_any_size_are_detected(untrained):
    model = untrained("edges", "tv")
    picture = np.random.default_rng(0).integers(0, 256, (50, 41, 3), dtype=np.uint8)
    found = edges.detect(model, picture)
    assert found.shape == (50, 41)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.nightly
def test_a_network_learns_mosaics(trained):
    printed = trained("edges").printed
    assert all(name in printed for name in ("ods", "ois", "ap"))


# ---------------------------------------------------------------------------- data


def test_the_edges_of_a_mosaic_are_where_its_cells_meet():
    """Flat textures: colours change at edges and nowhere else."""
    textures = [np.full((64, 64, 3), v, np.uint8) for v in (90, 130, 170)]
    a = mosaic(textures, 64, np.random.default_rng(0))
    (edge,) = a.truths
    image = a.image.astype(int)
    changes = np.zeros((64, 64), bool)
    changes[:, :-1] |= np.any(image[:, 1:] != image[:, :-1], axis=-1)
    changes[:-1] |= np.any(image[1:] != image[:-1], axis=-1)
    np.testing.assert_array_equal(edge, changes)
    assert 0.01 < edge.mean() < 0.3


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def picture_and_edges(rng):
    edge = np.zeros((48, 64), np.uint8)
    edge[:, rng.integers(10, 50)] = 255
    return rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), edge


def test_bsds_is_read(tmp_path):
    rng = np.random.default_rng(0)
    truths = {}
    for part in ("train", "val", "test"):
        picture, edge = picture_and_edges(rng)
        save(tmp_path / "images" / part / "7.png", picture)
        cells = np.empty((1, 2), object)
        for k in range(2):
            cells[0, k] = {"Boundaries": np.roll(edge > 0, k, axis=1).astype(np.uint8)}
        (tmp_path / "groundTruth" / part).mkdir(parents=True)
        scipy.io.savemat(tmp_path / "groundTruth" / part / "7.mat", {"groundTruth": cells})
        truths[part] = (edge > 0, np.roll(edge > 0, 1, axis=1))
    found = reader.read(tmp_path)
    for part, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        np.testing.assert_array_equal(found[name][0].truths, truths[part])
    assert found["test"][0].target().max() == 0.5
    (tmp_path / "groundTruth" / "test" / "7.mat").unlink()
    with pytest.raises(DataError, match=r"7\.mat is missing"):
        reader.read(tmp_path)


@pytest.mark.parametrize("real", ["", "real"])
def test_biped_is_read(tmp_path, real):
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 1)):
        for i in range(count):
            picture, edge = picture_and_edges(rng)
            save(tmp_path / "BIPED" / "edges" / "imgs" / part / "rgbr" / real / f"{i}.jpg", picture)
            save(
                tmp_path / "BIPED" / "edges" / "edge_maps" / part / "rgbr" / real / f"{i}.png", edge
            )
    found = reader.read(tmp_path)
    assert [len(found[k]) for k in ("train", "validation", "test")] == [2, 1, 1]
    np.testing.assert_array_equal(found["test"][0].truths[0], edge > 0)


@pytest.mark.parametrize("as_json", [False, True])
def test_pair_lists_are_read(tmp_path, as_json):
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(2):
        picture, edge = picture_and_edges(rng)
        save(tmp_path / "imgs" / f"{i}.png", picture)
        save(tmp_path / "gt" / f"{i}.png", edge)
        pairs.append([f"imgs/{i}.png", f"gt/{i}.png"])
    text = json.dumps(pairs) if as_json else "\n".join(" ".join(p) for p in pairs)
    (tmp_path / "test_pair.lst").write_text(text)
    found = reader.read(tmp_path)
    assert len(found["test"]) == 2
    (tmp_path / "gt" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png is missing; it belongs to"):
        reader.read(tmp_path)


def test_another_layout_is_named(tmp_path):
    with pytest.raises(DataError, match="not laid out as edge data"):
        reader.read(tmp_path)


def test_uded_has_pictures_to_test_on_alone(tmp_path):
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(3):
        picture, edge = picture_and_edges(rng)
        save(tmp_path / "imgs" / f"{i}.png", picture)
        save(tmp_path / "gt" / f"{i}.png", edge)
        pairs.append([f"imgs/{i}.png", f"gt/{i}.png"])
    (tmp_path / "test_pair.lst").write_text(json.dumps(pairs))
    data = TASK.load(tmp_path, settings_of(TASK, "small"))
    assert (data.steps(1), len(data.test), len(data.validation)) == (0, 3, 1)
    assert "0 pictures to train on, 3 to test" in data.description


@pytest.mark.parametrize(
    ("values", "dtype"),
    [((0, 1), np.uint8), ((0, 255), np.uint8), ((0, 1), np.uint16), ((0, 1), bool), ((3, 9), "u1")],
)
def test_an_edge_map_of_two_values_has_its_edges_at_the_higher(tmp_path, values, dtype):
    edge = np.zeros((32, 32), bool)
    edge[8, 4:20] = True
    save(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    save(tmp_path / "b.png", np.where(edge, *values[::-1]).astype(dtype))
    found = reader.pair_of(tmp_path / "a.png", tmp_path / "b.png")
    np.testing.assert_array_equal(found.truths[0], edge)


@pytest.mark.parametrize("colour", [(0, 128, 0), (0, 0, 255)])
def test_edges_and_masks_of_a_palette_may_have_any_colour(tmp_path, colour):
    """As Pascal VOC's masks: red is 0 in every other colour of the palette."""
    edge = np.eye(8, dtype=bool)
    picture = Image.fromarray(edge.astype(np.uint8))
    picture.putpalette([0, 0, 0, *colour])
    picture.save(tmp_path / "b.png")
    save(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    found = reader.pair_of(tmp_path / "a.png", tmp_path / "b.png")
    np.testing.assert_array_equal(found.truths[0], edge)
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png", 8), edge)


def test_an_edge_map_without_white_is_named(tmp_path):
    save(tmp_path / "a.png", np.zeros((1, 3, 3), np.uint8))
    save(tmp_path / "b.png", np.array([[0, 40, 100]], np.uint8))
    with pytest.raises(DataError, match=r"b\.png has 3 values up to 100; expected"):
        reader.pair_of(tmp_path / "a.png", tmp_path / "b.png")


def test_edges_stay_on_the_stored_pixels(tmp_path):
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[4:14, 6:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=98)
    edge = np.zeros((40, 40), np.uint8)
    edge[8, 6:16] = 255
    save(tmp_path / "a.png", edge)
    found = reader.pair_of(tmp_path / "a.jpg", tmp_path / "a.png")
    assert found.image[found.truths[0]].min() > 230


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('[["a.png", "b.png"],', r"test_pair\.lst is no JSON list"),
        ("a.png\n", r"test_pair\.lst has \['a\.png'\]; expected pairs"),
        ("[[1, 2]]", "expected pairs of paths"),
        ("a.png b.png\n", r"b\.png is missing; it belongs to"),
    ],
)
def test_a_bad_pair_list_is_named(tmp_path, text, match):
    (tmp_path / "test_pair.lst").write_text(text)
    with pytest.raises(DataError, match=match):
        reader.read(tmp_path)


def test_biped_with_augmented_pictures_alone_is_named(tmp_path):
    """As DexiNed's augmentation leaves it."""
    for part, inner in (("train", "rgbr/aug/real"), ("test", "rgbr")):
        for kind in ("imgs", "edge_maps"):
            save(tmp_path / "edges" / kind / part / inner / "0.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(DataError, match=r"imgs/train/rgbr has no picture"):
        reader.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "can not be read"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(99), r"version 7\.3; save it with"),
        (b"x" * 300, "can not be read"),
    ],
)
def test_a_damaged_mat_is_named(tmp_path, content, match):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.mat .*{match}"):
        reader.read_mat(tmp_path / "a.mat")


def test_a_mat_of_something_else_is_named(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"groundTruth": np.zeros((2, 2))})
    with pytest.raises(DataError, match="has no groundTruth with Boundaries"):
        reader.read_mat(tmp_path / "a.mat")
