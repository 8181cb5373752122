"""Every notebook runs from top to bottom at small size, and is committed with its outputs."""

import importlib.util
import os

import pytest

from testing import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

pytestmark = pytest.mark.cpu_only
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture
def execute(monkeypatch):
    """`notebooks.run.execute`, in smoke mode, with this checkout's package."""
    spec = importlib.util.spec_from_file_location("run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("JAXTV_NOTEBOOK_SMOKE", "1")
    monkeypatch.delenv("XLA_FLAGS")  # eight devices, which only one notebook asks for
    path = os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    return module.execute


def test_there_are_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(11)]


def test_the_first_notebook_runs(execute):
    assert execute(NOTEBOOKS[0], timeout=300).cells


@pytest.mark.nightly
@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_notebook_runs(execute, path):
    assert execute(path, timeout=300).cells


@each
def test_notebook_is_committed_with_its_outputs(path):
    import nbformat  # collected on GPU machines too, which need not have it (gpu_check.sh)

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code)
    assert f"/notebooks/{path.name})" in notebook.cells[0].source  # the badge
    assert path.stat().st_size < 600_000
    text = "".join(str(cell.outputs) for cell in code)
    assert "/tmp/" not in text
    assert "'stderr'" not in text
    assert str(FOLDER.parent) not in text
