"""Class activation maps after a TV layer, MaxBoxAccV2 and PxAP, and the layouts of the data."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
from flax import nnx
from PIL import Image

import jaxtv
from jaxtv.vision.metrics import wsol as metrics
from jaxtv.vision.readers import composed, pascal_voc
from jaxtv.vision.task import DataError, apply, get_task, settings_of
from jaxtv.vision.tasks import wsol

pytestmark = [pytest.mark.float32, pytest.mark.usefixtures("flax_broadcasts")]
TASK = get_task("wsol")
SMOKE = settings_of(TASK, "smoke")


# ---------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("backbone", "features", "published"),
    [
        ("vgg16", 1024, 14.7e6 + 512 * 1024 * 9),
        ("resnet50", 2048, 23.5e6),
        ("inception3", 1024, None),
    ],
)
def test_backbones_have_the_published_sizes_and_maps_at_an_eighth(backbone, features, published):
    """Weights of the convolutions of torchvision's models, plus CAM's convolution for VGG."""
    settings = settings_of(TASK, "paper", {"backbone": backbone})
    make = lambda: TASK.build("tv", settings, nnx.Rngs(0))
    maps = nnx.eval_shape(lambda: make().backbone(jnp.zeros((1, 224, 224, 3))))
    assert maps.shape == (1, 28, 28, features)
    model = nnx.eval_shape(make)
    count = sum(
        int(np.prod(p.shape)) for p in jax.tree.leaves(nnx.state(model.backbone, nnx.Param))
    )
    if published:
        assert count == pytest.approx(published, rel=0.01)
    else:
        # Up to Mixed_6e torchvision's model has 8.97 M; two convolutions of 1024 channels follow.
        assert count == pytest.approx(8.97e6 + 768 * 1024 * 9 + 1024 * 1024 * 9, rel=0.01)


def test_the_decision_is_the_mean_of_maps_that_come_from_smoothed_features(untrained):
    x = jax.random.normal(jax.random.key(0), (2, 48, 48, 3))
    model = untrained("wsol", "tv")
    features = nnx.jit(lambda model, x: model.backbone(x))(model, x)
    smoothed = jaxtv.prox_tv2d(features, 1.0, axes=(1, 2))
    maps = wsol.apply(model, x)
    np.testing.assert_allclose(maps, model.classify(smoothed), rtol=1e-5, atol=1e-5)
    logits = apply(model, x)
    np.testing.assert_allclose(logits, maps.mean(axis=(1, 2)), rtol=1e-5, atol=1e-5)
    assert not [k for k in map(str, jax.tree.leaves(nnx.state(model, nnx.Param))) if "raw_lam" in k]
    baseline = untrained("wsol", "baseline")
    np.testing.assert_allclose(
        wsol.apply(baseline, x), baseline.classify(features), rtol=1e-5, atol=1e-5
    )


# ---------------------------------------------------------------------------- metrics


def test_overlap_by_hand():
    a, b = np.array([0, 0, 9, 9]), np.array([5, 5, 14, 9])  # 100 and 50 pixels, 25 shared
    assert metrics.iou(a, b) == pytest.approx(25 / 125)
    assert metrics.iou(a, a) == 1
    assert metrics.iou(a, np.array([10, 0, 12, 9])) == 0


def test_the_best_of_several_components_and_boxes_counts():
    scores = np.zeros((40, 40))
    scores[2:12, 2:12] = 0.5  # exact for the first box, which ends at x0 + width
    scores[20:40, 20:40] = 1.0  # twice too wide for the second
    boxes = np.array([[2, 2, 12, 12], [20, 20, 29, 39]])
    ious = metrics.best_ious(scores, boxes)
    assert len(ious) == 1000
    np.testing.assert_allclose(ious[:490], 1)  # both are there: the better one
    np.testing.assert_allclose(ious[510:], 0.5)
    assert metrics.best_ious(np.zeros((9, 9)), boxes).max() == 0


def contour_boxes(mask):
    """Boxes of all contours of one mask, as OpenCV has them: (N, 4), x0, y0, x1, y1."""
    height, width = mask.shape
    regions = lambda mask, near: ndi.find_objects(ndi.label(mask, near)[0])
    ends = lambda y, x: (x.start, y.start, x.stop, y.stop)
    boxes = [ends(*region) for region in regions(mask, np.ones((3, 3)))]
    for x0, y0, x1, y1 in (ends(*region) for region in regions(~mask, None)):
        if x0 > 0 and y0 > 0 and x1 < width and y1 < height:
            boxes.append((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    return np.minimum(boxes or np.zeros((1, 4), int), [width - 1, height - 1] * 2)


def test_the_tree_has_the_contours_of_every_threshold():
    rng = np.random.default_rng(0)
    noise = [ndi.gaussian_filter(rng.normal(size=(31, 40)), width) for width in (0.5, 1.5, 4)]
    scores = np.stack([0 * noise[0], *(metrics.score_map(x, 31, 40) for x in noise)])
    boxes = np.array([[3, 4, 20, 25], [22, 2, 30, 9]])
    for score, found in zip(scores, metrics.best_ious(scores, boxes), strict=True):
        gray = (255 * score).astype(np.uint8)
        levels = (metrics.THRESHOLDS * gray.max()).astype(int)
        each = [metrics.iou(contour_boxes(gray > v)[:, None], boxes).max() for v in levels[::4]]
        np.testing.assert_array_equal(found[::4], each)


def test_contours_of_holes_count_and_boxes_end_at_their_width():
    """As OpenCV's findContours and boundingRect give them to wsolevaluation."""
    scores = np.zeros((224, 224))
    scores[20:200, 20:200] = 1
    scores[60:120, 60:120] = 0  # the contour round the hole is on the frame: 59..120, to 121
    found = contour_boxes(scores > 0)
    np.testing.assert_array_equal(found, [[20, 20, 200, 200], [59, 59, 121, 121]])
    overlap = metrics.best_ious(scores, np.array([[59, 59, 120, 120]])).max()
    assert overlap == pytest.approx(62**2 / 63**2)
    scores[:] = 0
    scores[100:106, 100:106] = 1
    assert metrics.best_ious(scores, np.array([[100, 100, 106, 106]])).max() == 1
    scores[100:106, 200:] = 1  # ends at the last pixel; open to the side: no hole
    found = contour_boxes(scores > 0)
    np.testing.assert_array_equal(found, [[100, 100, 106, 106], [200, 100, 223, 106]])
    ring = np.ones((9, 9), bool)
    ring[4, 4] = ring[3, 3] = False  # two holes: diagonal neighbours of the background are apart
    assert len(contour_boxes(ring)) == 3
    np.testing.assert_array_equal(contour_boxes(ring & False), [[0, 0, 0, 0]])


def test_max_box_acc_by_hand():
    """Three pictures, two thresholds; the best threshold is chosen for each overlap."""
    ious = np.array([[0.35, 0.6], [0.55, 0.2], [0.8, 0.1]])
    found = metrics.box_accuracy(ious)
    assert found["boxes at 0.3"] == pytest.approx(100)
    assert found["boxes at 0.5"] == pytest.approx(200 / 3)
    assert found["boxes at 0.7"] == pytest.approx(100 / 3)
    assert found["max_box_acc"] == pytest.approx(200 / 3)


def test_pixel_precision_is_the_average_precision_of_its_definition():
    """Against a direct sum over sorted distinct scores."""
    rng = np.random.default_rng(0)
    curve = metrics.PixelCurve()
    scores, masks = (
        rng.integers(0, 900, size=(3, 20, 30)) / 1000 + 5e-4,
        rng.random((3, 20, 30)) < 0.3,
    )
    scores[masks] = np.minimum(scores[masks] + 0.09, 0.9995)
    scores = scores.round(4)  # sums that should be equal are
    for s, m in zip(scores, masks):
        curve.add(s, m)
    area, last = 0.0, 0.0
    for t in np.unique(scores)[::-1]:
        chosen = scores >= t
        recall = (chosen & masks).sum() / masks.sum()
        area += (chosen & masks).sum() / chosen.sum() * (recall - last)
        last = recall
    assert curve.average_precision() == pytest.approx(100 * area)


def test_ignored_pixels_do_not_count():
    curve, mask = metrics.PixelCurve(), np.zeros((20, 20), bool)
    mask[5:9, 6:15] = True
    scores = mask.astype(float)
    scores[12:, :] = 1.0  # wrong, but ignored
    curve.add(scores, mask, ignored=scores > mask)
    assert curve.average_precision() == pytest.approx(100)
    curve.add(scores, mask)
    assert curve.average_precision() < 70


def test_a_perfect_map_scores_one_hundred():
    curve, mask = metrics.PixelCurve(), np.zeros((20, 20), bool)
    mask[5:9, 6:15] = True
    curve.add(mask.astype(float), mask)
    assert curve.average_precision() == pytest.approx(100)
    assert metrics.best_ious(mask.astype(float), composed.box_of(mask)).min() == 1


def test_a_score_map_runs_from_zero_to_one_at_the_pictures_size():
    found = metrics.score_map(
        np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32), 48, 64
    )
    assert found.shape == (48, 64)
    assert (found.min(), found.max()) == (0, 1)
    assert metrics.score_map(np.ones((6, 8), np.float32), 12, 16).max() == 0


def test_a_map_of_nan_finds_nothing():
    """As in wsolevaluation's normalize_scoremap."""
    np.testing.assert_array_equal(
        metrics.score_map(np.full((2, 2), np.nan), 3, 4), np.zeros((3, 4))
    )


def test_maps_are_enlarged_by_opencvs_cubic_interpolation():
    """Its weights at a quarter of a sample, A = -0.75, and at the ends the end is repeated."""
    weights = metrics.cubic_matrix(6, 12)
    quarter = [-0.10546875, 0.87890625, 0.26171875, -0.03515625]
    np.testing.assert_allclose(weights[5, 1:5], quarter)
    np.testing.assert_allclose(weights[6, 1:5], quarter[::-1])
    np.testing.assert_allclose(weights[0, :2], [1.10546875, -0.10546875])
    np.testing.assert_allclose(weights.sum(axis=1), 1)


# ---------------------------------------------------------------------------- data


def test_embedded_pictures_have_exact_boxes():
    for located in composed.embedded(SMOKE)["test"]:
        (x0, y0, x1, y1), mask = located.boxes[0], located.mask
        assert mask[y0 : y1 + 1, x0 : x1 + 1].sum() == mask.sum()
        assert mask[y0].any()
        assert mask[min(y1, len(mask)) - 1].any()
        assert mask[:, x0].any()
        assert mask[:, min(x1, len(mask)) - 1].any()
        assert len(np.unique(located.image[mask], axis=0)) == 1  # the shape's one colour


def write_fashion(folder, rng):
    folder.mkdir(parents=True)
    for prefix, count in (("train", 40), ("t10k", 20)):
        pixels = np.zeros((count, 28, 28), np.uint8)
        pixels[:, 4:24, 8:20] = 200
        labels = rng.integers(0, 10, count).astype(np.uint8)
        for name, header, array in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            with gzip.open(folder / f"{prefix}-{name}-ubyte.gz", "wb") as file:
                file.write(bytes(header) + array.tobytes())


def write_photos(folder, rng):
    folder.mkdir(parents=True)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def test_garments_are_put_on_photos(tmp_path):
    rng = np.random.default_rng(0)
    write_fashion(tmp_path / "fashion_mnist_small", rng)
    write_photos(tmp_path / "photos_cc0", rng)
    data = TASK.load(tmp_path, SMOKE)
    assert data.train[0].shape == (32, 48, 48, 3)
    for located in data.test:
        x0, y0, x1, y1 = located.boxes[0]
        assert located.mask[y0:y1, x0:x1].mean() > 0.9  # the garment is a rectangle
    (tmp_path / "fashion_mnist_small" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="is damaged"):
        TASK.load(tmp_path, SMOKE)


def test_wsolevaluations_metadata_is_read(tmp_path):
    rng = np.random.default_rng(0)
    write_photos(tmp_path / "pictures", rng)
    for part in ("train", "val", "test"):
        folder = tmp_path / "metadata" / part
        folder.mkdir(parents=True)
        (folder / "image_ids.txt").write_text("pictures/0.png\npictures/1.png\n")
        (folder / "class_labels.txt").write_text("pictures/0.png,3\npictures/1.png,7\n")
        (folder / "localization.txt").write_text(
            "pictures/0.png,0,0,40,35\npictures/0.png,40,35,80,70\npictures/1.png,8,7,16,14\n"
        )
    data = TASK.load(tmp_path, SMOKE)
    np.testing.assert_array_equal(data.train[1], [3, 7])
    # 80 x 70 becomes 48 x 48.
    np.testing.assert_array_equal(data.test[0].boxes, [[0, 0, 24, 24], [24, 24, 48, 48]])
    assert data.test[0].mask is None
    (tmp_path / "metadata" / "test" / "localization.txt").write_text("pictures/0.png,0,0,40,35\n")
    with pytest.raises(DataError, match=r"no label or box of pictures/1\.png"):
        TASK.load(tmp_path, SMOKE)


def write_metadata(folder, lines):
    """image_ids, class_labels and localization of the parts, from {name: [rows]}."""
    for part in ("train", "val", "test"):
        (folder / part).mkdir(parents=True)
        (folder / part / "image_ids.txt").write_text("".join(f"{n}\n" for n in lines))
        labels = "".join(f"{n},{i}\n" for i, n in enumerate(lines))
        (folder / part / "class_labels.txt").write_text(labels)
        rows = "".join(f"{n},{row}\n" for n in lines for row in lines[n])
        (folder / part / "localization.txt").write_text(rows)


@pytest.mark.parametrize("pictures", ["", "CUB", "dataset/CUB"])
def test_the_layout_of_wsolevaluations_repository_is_read(tmp_path, pictures):
    rng = np.random.default_rng(0)
    write_photos(tmp_path / pictures / "a", rng)
    rows = {f"a/{i}.png": ["8,7,16,14"] for i in range(2)}
    write_metadata(tmp_path / "metadata" / "CUB", rows)
    write_metadata(tmp_path / "metadata" / "ILSVRC", {"elsewhere.jpg": ["1,1,2,2"]})
    data = TASK.load(tmp_path, SMOKE)
    assert len(data.test) == 2
    write_photos(tmp_path / "ILSVRC" / "b", rng)
    (tmp_path / "ILSVRC" / "b" / "0.png").rename(tmp_path / "ILSVRC" / "elsewhere.jpg")
    with pytest.raises(DataError, match=r"CUB, ILSVRC.* keep the metadata of one"):
        TASK.load(tmp_path, SMOKE)


def test_metadata_without_its_pictures_says_what_there_is(tmp_path):
    write_metadata(tmp_path / "metadata" / "CUB", {"a.jpg": ["1,1,2,2"]})
    with pytest.raises(DataError, match=r"has CUB; expected .* their pictures"):
        TASK.load(tmp_path, SMOKE)


def test_masks_of_openimages_give_pxap(tmp_path, untrained):
    """Two masks of one picture, and a region that is ignored but for the masks."""
    rng = np.random.default_rng(0)
    write_photos(tmp_path / "val", rng)
    for name, (rows, columns) in {"m1": (10, 20), "m2": (40, 30), "ignore": (60, 60)}.items():
        mask = np.zeros((70, 80), np.uint8)
        mask[:rows, :columns] = 255
        Image.fromarray(mask).save(tmp_path / "val" / f"{name}.png")
    masks = {"val/0.png": ["val/m1.png,val/ignore.png", "val/m2.png,"]}
    write_metadata(tmp_path / "metadata", masks)
    data = TASK.load(tmp_path, SMOKE)
    (one,) = data.test
    rows, columns = np.arange(48) * 70 // 48, np.arange(48) * 80 // 48
    inside = lambda height, width: np.outer(rows < height, columns < width)
    np.testing.assert_array_equal(one.mask, inside(10, 20) | inside(40, 30))
    np.testing.assert_array_equal(one.ignored, inside(60, 60) & ~one.mask)
    found = TASK.evaluate(untrained("wsol", "tv"), data, SMOKE)
    assert set(found) == {"accuracy", "pxap"}
    assert 0 < found["pxap"] < 100
    (tmp_path / "val" / "m2.png").unlink()
    with pytest.raises(DataError, match=r"localization\.txt: val/0\.png: the mask .*m2\.png"):
        TASK.load(tmp_path, SMOKE)


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("class_labels.txt", "a/0.png,cat\n", r"class_labels\.txt has 'a/0\.png,cat'"),
        ("class_labels.txt", "a/0.png\n", "expected id,label"),
        ("localization.txt", "a/0.png,1,2,3\n", "are no boxes"),
        ("localization.txt", "a/0.png,9,2,3,4\n", "are no boxes"),
        ("localization.txt", "a/0.png,1,2,3000,4\n", r"a/0\.png has \d+ x \d+ pixels, and a box"),
        ("localization.txt", "a/0.png,x,2,3,4\n", r"localization\.txt: a/0\.png has"),
        ("image_ids.txt", "\n", "is empty"),
    ],
)
def test_bad_metadata_is_named(tmp_path, file, content, match):
    write_photos(tmp_path / "a", np.random.default_rng(0))
    write_metadata(tmp_path / "metadata", {"a/0.png": ["8,7,16,14"]})
    (tmp_path / "metadata" / "test" / file).write_text(content)
    with pytest.raises(DataError, match=match):
        TASK.load(tmp_path, SMOKE)


def test_boxes_stay_on_the_stored_pixels_and_are_truncated(tmp_path):
    """The EXIF tag turns the picture for a viewer; annotations do not turn."""
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[4:14, 6:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=98)
    found = wsol.resize_located(tmp_path / "a.jpg", 0, np.array([[6, 4, 15, 13]]), SMOKE)
    x0, y0, x1, y1 = found.boxes[0]
    assert (x0, y0, x1, y1) == (7, 4, 18, 15)  # 48 / 40 times: 7.2, 4.8, 18, 15.6
    assert found.image[y0 + 2 : y1 - 1, x0 + 2 : x1 - 1].min() > 200


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("<name>cat", "<name>raccoon", r"0\.xml has the class 'raccoon'; expected aeroplane"),
        ("<xmin>1", "<xmin>abc", r"0\.xml has the boxes .*abc"),
        ("<xmin>1</xmin>", "", r"0\.xml has the boxes"),
        ("<xmin>1", "<xmin>77", r"0\.xml.* no boxes"),
        ("<xmax>", "<xmax>9", r"0\.jpg has \d+ x \d+ pixels, and a box"),
        ("</annotation>", "", r"0\.xml can not be read"),
    ],
)
def test_bad_annotations_of_pascal_voc_are_named(tmp_path, old, new, match):
    write_voc(tmp_path)
    file = tmp_path / "Annotations" / "0.xml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError, match=match):
        TASK.load(tmp_path, settings_of(TASK, "smoke", {"classes": 20}))


def test_a_missing_list_of_pascal_voc_is_named(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "val.txt").unlink()
    with pytest.raises(DataError, match=r"val\.txt is missing; .*VOC"):
        TASK.load(tmp_path, settings_of(TASK, "smoke", {"classes": 20}))


def write_voc(tmp_path):
    rng = np.random.default_rng(0)
    write_photos(tmp_path / "JPEGImages", rng)
    for file in list((tmp_path / "JPEGImages").iterdir()):
        Image.open(file).save(file.with_suffix(".jpg"))
    (tmp_path / "Annotations").mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>41</xmax><ymax>36</ymax></bndbox>"
    one = f"<object><name>cat</name>{box}</object>"
    two = one + f"<object><name>dog</name>{box}</object>"
    for i in range(5):
        text = f"<annotation>{two if i == 4 else one}</annotation>"
        (tmp_path / "Annotations" / f"{i}.xml").write_text(text)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n4\n")
    (lists / "val.txt").write_text("1\n2\n3\n")


def test_pascal_voc_is_read(tmp_path):
    write_voc(tmp_path)
    data = TASK.load(tmp_path, settings_of(TASK, "smoke", {"classes": 20}))
    np.testing.assert_array_equal(data.train[1], [pascal_voc.VOC_CLASSES.index("cat")])
    assert len(data.validation) == 1
    assert len(data.test) == 2
    np.testing.assert_array_equal(data.test[0].boxes, [[0, 0, 24, 24]])


def test_another_layout_and_too_many_classes_are_named(tmp_path):
    with pytest.raises(DataError, match="not laid out as wsol data"):
        TASK.load(tmp_path, SMOKE)
    with pytest.raises(DataError, match="has 10 classes; train with --classes 10"):
        TASK.load(None, settings_of(TASK, "smoke", {"classes": 5}))


@pytest.mark.nightly
def test_a_network_learns_to_locate(trained):
    printed = trained("wsol").printed
    assert all(name in printed for name in ("max_box_acc", "pxap", "accuracy"))
