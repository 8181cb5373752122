"""The Python blocks of README.md and docs/*.md run, and the files that the pages name exist."""

import re

import jax
import pytest

from testing import ROOT


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


README = blocks(ROOT / "README.md")
PROOFS = ["concepts", "derivatives", "nd-and-weights"]  # of formulas, in float64 too
NIGHTLY = ["inverse-problems"]
GUIDES = ["beyond", "choosing", "flax", "getting-started", "migrating", "performance", "scaling"]


def run(page, code, namespace):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(code, page, "exec"), namespace)


def test_there_are_examples():
    assert len(README) == 1
    pages = {page.stem for page in (ROOT / "docs").glob("*.md") if blocks(page)}
    assert pages == {*PROOFS, *GUIDES, *NIGHTLY}


FOLDERS = (
    "benchmarks|cpu|cuda|docs|examples|ffi|include|jaxtv|notebooks|scripts|soak|testing|tests"
    "|api|kernels|lowering|tools|transforms"  # of tests/, as docs/contributing.md names its files
)


def missing(page):
    """The files and folders that a page names in backticks and that are not there."""
    named = re.findall(rf"`\.?/?((?:{FOLDERS})/[\w./*-]+)`", page.read_text())
    patterns = {name: (name, f"tests/{name}", f"tests/{name}.py") for name in named}
    return [
        name
        for name, places in patterns.items()
        if not any(list(ROOT.glob(place.rstrip("/"))) for place in places)
    ]


@pytest.mark.cpu_only
def test_pages_name_files_that_exist():
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    assert {page.name: missing(page) for page in pages if missing(page)} == {}


@pytest.mark.float32
def test_the_example_of_the_readme():
    run("README.md", README[0], {"__name__": "readme"})


def run_page(page):
    """The blocks of a page go on from one another."""
    namespace = {"__name__": page.stem}
    for code in blocks(page):
        run(page.name, code, namespace)


@pytest.mark.both_precisions
@pytest.mark.parametrize("name", PROOFS)
def test_page_of_proofs(name):
    run_page(ROOT / f"docs/{name}.md")


@pytest.mark.float32
@pytest.mark.parametrize("name", GUIDES)
def test_guide(name):
    run_page(ROOT / f"docs/{name}.md")


@pytest.mark.nightly
@pytest.mark.parametrize("name", NIGHTLY)
def test_page_of_an_example(name):
    run_page(ROOT / f"docs/{name}.md")
