"""What readers check: arrays of pictures and labels, MATLAB files, text files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from jaxtv.vision.task import DataError


def pictures(where: str, array: np.ndarray) -> np.ndarray:
    """Pictures as uint8 (N, H, W, 3).

    Accepted are also gray ones (N, H, W) or (N, H, W, 1), channels first (N, 3, H, W), floats from
    0 to 1, and any numbers from 0 to 255.

    Args:
        where: the path and the name of the array, for messages.
        array: as it was read.

    Raises:
        DataError: other shapes, types or values, or no picture.
    """
    expected = "expected pictures (N, H, W, 3) of 0 to 255, or floats of 0 to 1"
    if array.dtype.kind not in "uif" or array.ndim not in (3, 4) or array.size == 0:
        raise DataError(f"{where} is {array.dtype} {array.shape}; {expected}.")
    if array.ndim == 3:
        array = array[..., None]
    if array.shape[-1] not in (1, 3) and array.shape[1] in (1, 3):
        array = np.moveaxis(array, 1, -1)
    if array.shape[-1] not in (1, 3):
        raise DataError(f"{where} has shape {array.shape}; {expected}.")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # NaN too
        raise DataError(f"{where} has values from {low} to {high}; {expected}.")
    if array.dtype.kind != "f" and high == 1:
        raise DataError(f"{where} has whole numbers of 0 and 1 alone; {expected}.")
    if array.dtype.kind == "f":
        array = np.rint(array * 255 if high <= 1 else array)
    array = array.astype(np.uint8)
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


def labels(where: str, array: Any, count: int, classes: int | None = None) -> np.ndarray:
    """Labels as int32 (N,); a column (N, 1) and whole floats are accepted too.

    Args:
        where: the path and the name of the array, for messages.
        array: as it was read.
        count: how many there must be.
        classes: a label must be below; None: any number.

    Raises:
        DataError: other shapes, types, numbers or values.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "uif" or array.shape not in ((count,), (count, 1)):
        raise DataError(
            f"{where} is {array.dtype} {array.shape}; expected a whole number for each of "
            f"{count} pictures."
        )
    array = array.reshape(-1)
    good = (array >= 0) & (array == np.floor(array)) & (array < 2**31)
    if classes is not None:
        good &= array < classes
    if not good.all():
        limit = "" if classes is None else f" to {classes - 1}"
        raise DataError(f"{where} has the label {array[~good][0]}; expected 0{limit or ' and up'}.")
    return array.astype(np.int32)


def boxes(where: str, rows: list[list[float]]) -> np.ndarray:
    """Boxes as float (B, 4): x0, y0, x1, y1.

    Raises:
        DataError: not four numbers each, or not in this order.
    """
    try:
        array = np.array(rows, float).reshape(-1, 4) if rows else np.zeros((0, 4))
    except ValueError:
        array = np.full((1, 4), np.nan)
    ordered = (array[:, :2] >= 0) & (array[:, 2:] >= array[:, :2]) & np.isfinite(array[:, 2:])
    if len(array) != len(rows) or not np.all(ordered):
        raise DataError(f"{where}: {rows} are no boxes x0, y0, x1, y1 with 0 <= x0 <= x1.")
    return array


def mat(path: Path) -> dict[str, Any]:
    """Variables of a MATLAB file.

    Raises:
        DataError: missing, damaged, or of version 7.3.
    """
    try:
        return scipy.io.loadmat(str(path))
    except FileNotFoundError:
        raise DataError(f"{path} is missing.") from None
    except NotImplementedError:
        raise DataError(f"{path} is a MATLAB file of version 7.3; save it with -v7.") from None
    except Exception as error:  # a damaged file fails in any way
        raise DataError(f"{path} can not be read: {error or type(error).__name__}.") from error


def text(path: Path, kind: str) -> str:
    """A text file.

    Args:
        path: the file.
        kind: of the data, for the message: where the file comes from.

    Raises:
        DataError: missing, or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} is missing; expected {kind}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can not be read as text: {error}.") from error
