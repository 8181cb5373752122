"""PyTorch's files of weights are read without PyTorch."""

import os
import pickle
import re
import zipfile

import numpy as np
import pytest

from jaxtv.vision.readers.torch_files import read_state, require_shapes
from jaxtv.vision.task import DataError
from testing import torch_files

TENSORS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "norm.bias": np.float32([1, 2]),
    "norm.count": np.float32(7),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
}
SOURCE = "dncnn-weights"


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_back(tmp_path, zipped, wrapped):
    torch_files.save(tmp_path / "a.pth", TENSORS, zipped, wrapped)
    found = read_state(tmp_path / "a.pth", SOURCE)
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def remove_a_storage(path):
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            if name != "archive/data/0":
                file.writestr(name, content)


def shorten_a_storage(path):
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content[:-4] if name == "archive/data/0" else content)


class Attack:
    """A pickle that runs a command."""

    def __reduce__(self):
        return os.system, ("false",)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing.*no licence is stated"),
        (lambda path: path.write_bytes(b"no weights"), "can not be read"),
        (lambda path: path.write_bytes(b""), "can not be read"),
        (lambda path: path.write_bytes(pickle.dumps(Attack())), "does not belong in weights"),
        (remove_a_storage, "can not be read.*archive/data/0"),
        (shorten_a_storage, "storage 0 has 23 numbers, too few"),
        (lambda path: torch_files.save(path, {}), "holds no network"),
        (lambda path: torch_files.save(path, {"a": np.float32([np.inf])}), "not finite: a"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    path = tmp_path / "a.pth"
    torch_files.save(path, TENSORS)
    damage(path)
    with pytest.raises(DataError, match=f"{re.escape(str(path))} .*{message}"):
        read_state(path, SOURCE)


def test_an_old_file_that_broke_off_is_named(tmp_path):
    path = tmp_path / "a.pth"
    torch_files.save(path, TENSORS, zipped=False)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"can not be read.*too few"):
        read_state(path, SOURCE)


def test_another_network_is_named(tmp_path):
    path = tmp_path / "a.pth"
    require_shapes(path, TENSORS, {"norm.bias": (2,)}, SOURCE)
    for name, shape in (("norm.bias", (3,)), ("norm.mean", (2,))):
        with pytest.raises(DataError, match=f"another network: {name} is .*expected .{shape[0]},"):
            require_shapes(path, TENSORS, {name: shape}, SOURCE)
