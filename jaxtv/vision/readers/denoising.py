"""Folders of photos to train on and test sets, for denoising."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from jaxtv.vision import files
from jaxtv.vision.readers import photos
from jaxtv.vision.task import DataError

# Folders of test pictures by the names they are found under, in lower case -> names in tables.
TEST_SETS = {"cbsd68": "CBSD68", "kodak24": "Kodak24", "mcmaster": "McMaster", "test": "test"}

TRAIN_FOLDERS = ("train", "photos_cc0")

KODAK_SIDE = 500  # the paper's Kodak24 are 500 x 500 centres


@dataclasses.dataclass
class Photos(photos.Crops):
    """Crops to train on, and test pictures: name of the set -> uint8 (H, W, 3) each."""

    tests: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)


def read(path: Path) -> tuple[list[np.ndarray], dict[str, list[np.ndarray]]]:
    """Training pictures and test sets of a folder.

    Training pictures are in `train` (or `photos_cc0`), tests in any of `CBSD68`, `Kodak24`,
    `McMaster`, `test`; case does not matter.

    Raises:
        DataError: there are no training or no test pictures.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder. Denoising takes one with train/ and test sets.")
    folders = {p.name.lower(): p for p in files.entries(path) if p.is_dir()}
    train = next((folders[name] for name in TRAIN_FOLDERS if name in folders), None)
    tests = {title: folders[name] for name, title in TEST_SETS.items() if name in folders}
    if train is None or not tests:
        names = [*folders][:10] + ["…"] * (len(folders) > 10)
        raise DataError(
            f"{path} has the folders {', '.join(names) or '(none)'}; denoising needs "
            f"{' or '.join(TRAIN_FOLDERS)} and one of {', '.join(TEST_SETS.values())}."
        )
    found = {title: photos.read_folder(folder) for title, folder in tests.items()}
    if "Kodak24" in found:
        found["Kodak24"] = [photos.centre(image, KODAK_SIDE) for image in found["Kodak24"]]
    return photos.read_folder(train), found
