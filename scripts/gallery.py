"""Draws the pictures of docs/gallery.md: python scripts/gallery.py [NAME ...] (extra `vision`).

Runs docs/gallery/NAME.py, each in a process of its own, and leaves docs/images/gallery/NAME.webp.
"""

import argparse
import os
import pathlib
import subprocess
import sys

DOCS = pathlib.Path(__file__).parents[1] / "docs"
SCRIPTS = sorted((DOCS / "gallery").glob("*.py"))


def draw(script: pathlib.Path, folder: pathlib.Path) -> None:
    """Runs a script as a reader would, in `folder`."""
    environment = os.environ | {"MPLBACKEND": "agg"}
    subprocess.run([sys.executable, script], cwd=folder, env=environment, check=True)


def main() -> None:
    names = [script.stem for script in SCRIPTS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    wanted = parser.parse_args().names or names
    if unknown := set(wanted) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in wanted:
        draw(DOCS / "gallery" / f"{name}.py", DOCS / "images" / "gallery")


if __name__ == "__main__":
    main()
