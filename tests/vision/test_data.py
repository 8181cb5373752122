"""Fetching public data, from a server of our own."""

import hashlib
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest
from rich.console import Console

from jaxtv import cli
from jaxtv.vision import commands
from jaxtv.vision.readers import catalogue
from jaxtv.vision.task import DataError

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


@pytest.mark.parametrize("entry", ["../outside.txt", "/absolute.txt"])
def test_an_archive_can_not_write_elsewhere(server, tmp_path, entry):
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
