"""The figures of docs/reliability.md, each made by one check (`python -m reliability`)."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))  # oracles, inputs
