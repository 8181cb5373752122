"""Fetching public data, from a server of our own."""

import hashlib
import http.server
import io
import pickle
import tarfile
import threading

import numpy as np
import pytest
import scipy.io
from PIL import Image
from rich.console import Console

from jaxtv import cli
from jaxtv.vision import commands
from jaxtv.vision.readers import catalogue
from jaxtv.vision.task import DataError, get_task, settings_of

QUIET = Console(quiet=True)


def archive(entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def server():
    """A server with one file, `content`; it breaks off after `limit` bytes and counts ranges."""

    class Handler(http.server.BaseHTTPRequestHandler):
        content = b""
        limit = None
        ranges = []  # noqa: RUF012
        knows_ranges = True

        def do_GET(self):
            if self.path != "/set.tar.gz":
                self.send_error(404)
                return
            asked = self.headers.get("Range")
            start = int(asked[len("bytes=") : -1]) if asked and self.knows_ranges else 0
            self.ranges.append(asked)
            if start >= len(self.content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(self.content) - start))
            self.end_headers()
            self.wfile.write(self.content[start : self.limit])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        Handler.url = f"http://127.0.0.1:{running.server_port}/set.tar.gz"
        yield Handler
        running.shutdown()
        thread.join()


def source_of(server, content=None, url=None):
    digest = hashlib.sha256(server.content if content is None else content).hexdigest()
    return catalogue.Source(
        "classification", "page", "layout", url or server.url, f"sha256:{digest}"
    )


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_set_is_fetched_checked_and_unpacked(server, tmp_path):
    server.content = archive({"set/a.txt": b"hello", "set/b.txt": b"there"})
    catalogue.fetch(source_of(server), tmp_path, QUIET)
    assert files(tmp_path) == ["set", "set/a.txt", "set/b.txt"]
    assert (tmp_path / "set" / "a.txt").read_bytes() == b"hello"


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_transfer_that_breaks_off_goes_on(server, tmp_path, knows_ranges):
    server.content = archive({"a.bin": np.random.default_rng(0).bytes(300_000)})
    server.knows_ranges = knows_ranges
    server.limit = 100_000
    with pytest.raises(DataError, match=r"broke off after 100000 of \d+ bytes"):
        catalogue.fetch(source_of(server), tmp_path, QUIET)
    assert files(tmp_path) == ["set.tar.gz.part"]
    server.limit = None
    catalogue.fetch(source_of(server), tmp_path, QUIET)
    assert server.ranges == [None, "bytes=100000-"]
    assert files(tmp_path) == ["a.bin"]


def test_a_file_that_is_not_what_was_published_is_removed(server, tmp_path):
    server.content = archive({"a.txt": b"hello"})
    with pytest.raises(DataError, match=r"has sha256 .* expected"):
        catalogue.fetch(source_of(server, content=b"another"), tmp_path, QUIET)
    assert files(tmp_path) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("has_filters", [True, False])  # not in Python before 3.11.4
@pytest.mark.parametrize("entry", ["../outside.txt", "/absolute.txt"])
def test_an_archive_can_not_write_elsewhere(server, tmp_path, entry, has_filters, monkeypatch):
    if not has_filters:
        monkeypatch.delattr("tarfile.data_filter", raising=False)
    server.content = archive({"good.txt": b"1", entry: b"2"})
    inside = tmp_path / "data"
    if entry.startswith("/"):  # the leading slash is dropped by tarfile's filter
        catalogue.fetch(source_of(server), inside, QUIET)
        assert files(inside) == ["absolute.txt", "good.txt"]
    else:
        with pytest.raises(DataError, match="can not be unpacked"):
            catalogue.fetch(source_of(server), inside, QUIET)
        assert files(tmp_path) == ["data", "data/set.tar.gz"]


def test_something_else_than_an_archive_is_named(server, tmp_path):
    server.content = b"not an archive"
    with pytest.raises(DataError, match="can not be unpacked"):
        catalogue.fetch(source_of(server), tmp_path, QUIET)
    assert files(tmp_path) == ["set.tar.gz"]


def test_a_missing_file_and_a_missing_server_are_named(server, tmp_path):
    server.content = b"x"
    with pytest.raises(DataError, match="the server says 404"):
        catalogue.fetch(source_of(server, url=server.url + "x"), tmp_path, QUIET)
    with pytest.raises(DataError, match="can not be reached"):
        catalogue.fetch(source_of(server, url="http://127.0.0.1:9/set.tar.gz"), tmp_path, QUIET)


def test_what_must_be_got_by_hand_says_where():
    with pytest.raises(SystemExit, match=r"by hand from https://github\.com/zhufeida"):
        commands.data("fetch", "benchmark-eps")
    with pytest.raises(SystemExit, match="`name` must be one of cifar-10"):
        commands.data("fetch", "imagenet")


def test_the_commands_that_messages_name_are_understood(tmp_path):
    with pytest.raises(SystemExit, match="`name` must be one of cifar-10"):
        cli.main(["data", "fetch", "imagenet"])
    with pytest.raises(SystemExit, match="`name` must be one of classification"):
        cli.main(["data", "check"])
    with pytest.raises(SystemExit, match=r"`--folder` .*nowhere does not exist"):
        cli.main(["data", "check", "edges", "--folder", str(tmp_path / "nowhere")])


def test_a_file_where_a_folder_belongs_is_one_line(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(SystemExit, match=r"jaxtv data fetch: .*exists"):
        cli.main(["data", "fetch", "cifar-10", "--folder", str(tmp_path / "x")])


def test_list_names_every_set(capsys):
    commands.data("list")
    shown = capsys.readouterr().out
    assert all(name in shown for name in catalogue.CATALOGUE)


def test_check_loads_the_data_of_a_task(tmp_path, capsys):
    x = np.zeros((20, 32, 32, 3), np.uint8)
    y = np.arange(20) % 10
    np.savez(tmp_path / "clothing32.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    commands.data("check", "classification", tmp_path)
    assert "18 training images" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit, match="not laid out as BenchmarkEPS"):
        commands.data("check", "smoothing", tmp_path)


def test_every_set_has_a_task_and_a_fetched_one_a_digest():
    for source in catalogue.CATALOGUE.values():
        assert source.task in ("classification", "wsol", "edges", "smoothing", "denoising")
        if source.url:
            algorithm, value = source.digest.split(":")
            assert len(value) == hashlib.new(algorithm).digest_size * 2


# ---------------------------------------------------------------------------- layouts


def picture(path, size=(40, 48), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def edge_map(path, size=(40, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    edge = np.zeros(size, np.uint8)
    edge[:, 20] = 255
    Image.fromarray(edge).save(path)


def cifar(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        content = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 9]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def cifar_c(root):
    cifar(root)
    (root / "CIFAR-10-C").mkdir()
    np.save(root / "CIFAR-10-C" / "labels.npy", np.zeros(50000, np.uint8))
    shape = (50000, 32, 32, 3)  # sparse: nothing is written
    np.lib.format.open_memmap(root / "CIFAR-10-C" / "fog.npy", "w+", np.uint8, shape)


def eps(root):
    for n in range(1, 6):
        picture(root / "origin_images" / f"{n:04d}.png")
        for k in range(1, 6):
            picture(root / "gt_images" / f"{n:04d}_{k}.png")
    scipy.io.savemat(root / "weight_matrix.mat", {"weight_matrix": np.ones((5, 5))})


def wsolevaluation(root):
    for part in ("train", "val", "test"):
        name = f"{part}/0.jpg"
        picture(root / "CUB" / name)
        folder = root / "metadata" / "CUB" / part
        folder.mkdir(parents=True)
        (folder / "image_ids.txt").write_text(f"{name}\n")
        (folder / "class_labels.txt").write_text(f"{name},0\n")
        (folder / "image_sizes.txt").write_text(f"{name},48,40\n")
        (folder / "localization.txt").write_text(f"{name},5,5,20,20\n")


def voc(root):
    corners = "<xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>22</ymax>"
    xml = f"<annotation><object><name>dog</name><bndbox>{corners}</bndbox></object></annotation>"
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for part in ("train", "val"):
        (root / "ImageSets/Main" / f"{part}.txt").write_text(f"{part}_0\n{part}_1\n")
        for i in range(2):
            picture(root / "JPEGImages" / f"{part}_{i}.jpg")
            (root / "Annotations" / f"{part}_{i}.xml").write_text(xml)


def bsds(root):
    for part in ("train", "val", "test"):
        picture(root / "images" / part / "7.jpg")
        cells = np.empty((1, 2), object)
        for k in range(2):
            cells[0, k] = {"Boundaries": np.eye(40, 48, k, dtype=np.uint8)}
        (root / "groundTruth" / part).mkdir(parents=True)
        scipy.io.savemat(root / "groundTruth" / part / "7.mat", {"groundTruth": cells})


def biped(root):
    for part, count in (("train", 2), ("test", 1)):
        for i in range(count):
            picture(root / "edges/imgs" / part / "rgbr/real" / f"{i}.jpg")
            edge_map(root / "edges/edge_maps" / part / "rgbr/real" / f"{i}.png")


def uded(root):
    picture(root / "imgs" / "0.png")
    edge_map(root / "gt" / "0.png")
    (root / "test_pair.lst").write_text('[["imgs/0.png", "gt/0.png"]]')


def photo_sets(test):
    def lay(root):
        picture(root / "train" / "0.png")
        picture(root / test)

    return lay


# As the page of each set has it; the numbers of pictures to train and test on.
LAYOUTS = {
    "cifar-10": (cifar, "CIFAR-10"),
    "cifar-10-c": (cifar_c, "CIFAR-10"),
    "benchmark-eps": (eps, "4 photos to train on, 1 to test"),
    "wsolevaluation": (wsolevaluation, "1 pictures to train on, 1 to test"),
    "pascal-voc": (voc, "2 pictures to train on, 1 to test"),
    "bsds500": (bsds, "1 pictures to train on, 1 to test"),
    "biped": (biped, "1 pictures to train on, 1 to test"),
    "uded": (uded, "0 pictures to train on, 1 to test"),
    "kodak24": (photo_sets("Kodak24/kodim01.png"), "1 photos to train on, tests: 1 Kodak24"),
    "cbsd68": (photo_sets("CBSD68/101085.png"), "1 photos to train on, tests: 1 CBSD68"),
    "mcmaster": (photo_sets("McMaster/1.tif"), "1 photos to train on, tests: 1 McMaster"),
}


# What is for `--weights` is no data of a task: test_released*.py read it.
SETS = sorted(name for name, s in catalogue.CATALOGUE.items() if "--weights" not in s.layout)


@pytest.mark.parametrize("name", SETS)
def test_every_set_of_the_list_is_read_as_it_is_published(tmp_path, name):
    lay, description = LAYOUTS[name]
    lay(tmp_path)
    for folder in [p for p in tmp_path.rglob("*") if p.is_dir()]:  # what a Macintosh leaves
        (folder / "._0.png").write_bytes(b"no picture")
        (folder / ".DS_Store").write_bytes(b"no data")
    task = get_task(catalogue.CATALOGUE[name].task)
    data = task.load(tmp_path, settings_of(task, "smoke", {"size": 16, "classes": 20}))
    assert description in data.description
    if name == "cifar-10-c":
        assert data.corrupted("fog", 5)[0].shape == (10000, 32, 32, 3)
