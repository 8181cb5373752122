"""Runs the notebooks and stores their outputs in them: `python notebooks/run.py [NAME ...]`."""

import os
import sys
from pathlib import Path

import nbclient
import nbformat

FOLDER = Path(__file__).parent


def execute(path: Path, timeout: int = 600) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run from top to bottom; a cell that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=timeout, kernel_name="python3")
    client.execute(cwd=str(path.parent))
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Drops what changes from run to run and machine to machine: times, versions, warnings."""
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]


def main() -> None:
    """All notebooks, or those whose names start as an argument says."""
    if os.environ.get("JAXTV_NOTEBOOK_SMOKE"):
        raise SystemExit("JAXTV_NOTEBOOK_SMOKE is set: outputs of small runs are not stored.")
    wanted = tuple(sys.argv[1:]) or ("",)
    for path in sorted(FOLDER.glob("*.ipynb")):
        if path.name.startswith(wanted):
            notebook = execute(path)
            tidy(notebook)
            nbformat.write(notebook, path)
            print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
