"""The Python blocks of README.md and docs/*.md run, and the README's test command is CI's."""

import re

import jax
import pytest

from testing import ROOT


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


README = blocks(ROOT / "README.md")
PROOFS = ["concepts", "derivatives", "nd-and-weights"]  # of formulas, in float64 too
GUIDES = ["choosing", "flax", "getting-started", "migrating", "performance", "scaling"]


def run(page, code, namespace):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(code, page, "exec"), namespace)


def test_there_are_examples():
    assert len(README) == 3
    pages = {page.stem for page in (ROOT / "docs").glob("*.md") if blocks(page)}
    assert pages == {*PROOFS, *GUIDES}


@pytest.mark.float32
@pytest.mark.parametrize("code", README, ids=["functional", "nnx", "linen"])
def test_example(code):
    run("README.md", code, {"__name__": "readme"})


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
