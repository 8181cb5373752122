"""What a release takes from the repository: scripts/release.py."""

import re
import shutil
import subprocess

import pytest

from scripts import release
from testing import ROOT

pytestmark = pytest.mark.cpu_only

NAMED = ("jaxtv/__init__.py", "pyproject.toml", "CITATION.cff", "conda/recipe.yaml", "CHANGELOG.md")


@pytest.fixture
def repository(tmp_path):
    """The files that name the version and the address, in a repository."""
    for name in NAMED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def test_versions_and_addresses_agree():
    assert release.problems() == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pyproject.toml", r"cuda13-plugin==[\d.]+", "cuda13-plugin==9.9"),
        ("CITATION.cff", r"(?m)^version: .*$", "version: 9.9"),
        ("CITATION.cff", "github.com/jaxtv", "github.com/someone"),
        ("pyproject.toml", r"jaxtv\.github\.io", "someone.github.io"),
        ("conda/recipe.yaml", 'version: ".*"', 'version: "9.9"'),
        ("CHANGELOG.md", r"\n## .*\n", "\n## 9.9, 2030-01-01\n"),
    ],
)
def test_a_file_that_disagrees_is_named(repository, name, old, new):
    assert release.problems(repository) == []
    path = repository / name
    path.write_text(re.sub(old, new, path.read_text(), count=1))
    (problem,) = release.problems(repository)
    assert name in problem


def test_a_tag_is_released_only_with_its_version_and_a_date(repository):
    changelog = repository / "CHANGELOG.md"
    own = release.version()
    for heading, wrong in ((f"{own}, unreleased", ["date"]), (f"{own}, 2030-01-01", [])):
        text = re.sub(r"\n## .*\n", f"\n## {heading}\n", changelog.read_text(), count=1)
        changelog.write_text(text)
        found = release.problems(repository, f"v{own}")
        assert [word for word in wrong if word in found[0]] == wrong
        assert len(found) == len(wrong)
    assert "the tag is v9.9" in release.problems(repository, "v9.9")[0]
    assert release.notes(repository).startswith("### Added")


def test_links_of_the_page_on_pypi():
    page = "![a](docs/a.png) [b](docs/b.md) [c](https://c.org/) [d](#d)"
    assert release.absolute(page, "o/jaxtv", "v1") == (
        "![a](https://raw.githubusercontent.com/o/jaxtv/v1/docs/a.png) "
        "[b](https://github.com/o/jaxtv/blob/v1/docs/b.md) [c](https://c.org/) [d](#d)"
    )
    readme = release.absolute((ROOT / "README.md").read_text(), "o/jaxtv", "v1")
    assert re.findall(r"\]\((?!https?://)[^)]*\)", readme) == []


def test_notes_are_for_the_page_of_a_release():
    notes = release.notes()
    assert "](https://github.com/" in notes
    assert re.findall(r"\]\((?!https?://)[^)]*\)", notes) == []
    assert re.findall(r"\S\n +[^ -].*", notes) == []  # a line that goes on


def test_the_plugins_differ_in_their_cuda_version_alone():
    texts = [(ROOT / f"plugins/cuda{v}/pyproject.toml").read_text() for v in (12, 13)]
    versions = {"CUDA 12": "CUDA 13", "cuda12": "cuda13", "12.9": "13.0"}
    for old, new in versions.items():
        texts[0] = texts[0].replace(old, new)
    assert texts[0] == texts[1]
