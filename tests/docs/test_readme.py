"""The Python blocks of README.md and docs/*.md run, and the README's test command is CI's."""

import re

import jax
import pytest

from testing import ROOT


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


README = blocks(ROOT / "README.md")
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if blocks(page)]
PROOFS = {"concepts", "derivatives", "nd-and-weights"}  # of formulas: in both precisions


def run(page, code, namespace):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(code, page, "exec"), namespace)


def test_there_are_examples():
    assert len(README) == 3
    guides = {"choosing", "flax", "getting-started", "migrating", "performance", "scaling"}
    assert PROOFS | guides == {page.stem for page in PAGES}


@pytest.mark.parametrize("code", README, ids=["functional", "nnx", "linen"])
def test_example(code):
    run("README.md", code, {"__name__": "readme"})


def parameter(page):
    return pytest.param(page, id=page.stem, marks=[] if page.stem in PROOFS else pytest.mark.f32)


@pytest.mark.parametrize("page", [parameter(page) for page in PAGES])
def test_page(page):
    """The blocks of a page go on from one another."""
    namespace = {"__name__": page.stem}
    for code in blocks(page):
        run(page.name, code, namespace)
