"""Every script of the gallery runs as written, and its committed picture is on the page."""

import importlib.util

import pytest

from testing import ROOT

PAGE = (ROOT / "docs" / "gallery.md").read_text()
PICTURES = ROOT / "docs" / "images" / "gallery"
SCRIPTS = sorted((ROOT / "docs" / "gallery").glob("*.py"))

pytestmark = pytest.mark.cpu_only
each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def test_there_are_scripts():
    assert {"denoising", "figure1", "inpainting", "tomography"} < {
        script.stem for script in SCRIPTS
    }
    assert {picture.stem for picture in PICTURES.iterdir()} == {s.stem for s in SCRIPTS}


@each
def test_the_page_has_it(script):
    name = script.stem
    section = PAGE.split(f"](images/gallery/{name}.webp)")[1].split("\n## ")[0]
    assert f'--8<-- "{name}.py"' in section
    assert f"](gallery/{name}.py)" in section
    notebook = section.split("/notebooks/")[1].split(")")[0]
    assert (ROOT / "notebooks" / notebook).exists()
    assert (PICTURES / f"{name}.webp").stat().st_size < 60_000


@pytest.mark.nightly
@each
def test_script_draws_its_picture(script, tmp_path):
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "scripts" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.draw(script, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{script.stem}.webp"]
