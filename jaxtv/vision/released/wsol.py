"""EfficientNet-Lite, trained on ImageNet: where its class activation maps are, with and without TV.

The plain alternative is a Gaussian. It is linear, so that it is the same before the layer that
weighs the features and after it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage as ndi
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from jaxtv._prox import prox_tv2d
from jaxtv.vision.metrics.paired import cross_fitted, paired_difference, shown
from jaxtv.vision.metrics.wsol import IOUS, THRESHOLDS, best_ious, hits, max_box_accuracy, score_map
from jaxtv.vision.networks.efficientnet_lite import EfficientNetLite, features
from jaxtv.vision.readers import catalogue, tiny_imagenet
from jaxtv.vision.readers.located import Located
from jaxtv.vision.readers.weights import read_efficientnet_lite
from jaxtv.vision.released.drawing import draw_gains
from jaxtv.vision.released.parts import Parts
from jaxtv.vision.task import DataError

OPTIONS = ("limit",)

# Name -> side of its pictures, and strides that it is measured at (finer maps take long).
NETWORKS = {
    "efficientnet-lite0": (224, (32, 16, 8)),
    "efficientnet-lite1": (240, (32, 16)),
    "efficientnet-lite2": (260, (32, 16)),
}
PART = 50  # pictures that are measured at once, and kept
PLAIN = "network alone"
LAMBDAS = (0.03, 0.1, 0.3, 1.0, 3.0)  # of features, which are from 0 to 6
LAMBDAS_AFTER = (0.3, 1.0, 3.0)  # of maps, which have a larger range
WIDTHS = (0.5, 0.7, 1.0)  # in positions of the map

Maps = dict[str, dict[float, np.ndarray]]  # method -> value of its parameter -> maps (N, h, w)


def evaluate(
    weights: Path, data: Path, folder: Path, console: Console, limit: int = 0
) -> dict[str, Any]:
    """MaxBoxAccV2 of the maps of the true classes, for every network, stride and method.

    Args:
        weights: a folder that has `efficientnet-lite*.pth`, at any depth.
        data: a folder as `jaxtv.vision.readers.tiny_imagenet.read` takes it.
        folder: keeps what is finished.
        console: where progress is shown.
        limit: most pictures; 0: all.

    Returns:
        `data`, and `cases`: name -> what `summary` returns.

    Raises:
        DataError: weights or pictures are missing or damaged.
    """
    nets = released(weights)
    pictures = tiny_imagenet.read(data, limit)
    parts = Parts(folder, {"weights": sorted(nets), "data": str(data)})
    cases = {}
    for name, net in nets.items():
        side, strides = NETWORKS[name]
        for stride in strides:
            title, found = f"{name}, stride {stride}", []
            for i in track(range(0, len(pictures), PART), title, console=console):
                part = pictures[i : i + PART]
                measured = functools.partial(measure, net, part, side, stride)
                found.append(parts.get(f"{title}, {i} to {i + len(part)}", measured))
            cases[title] = summary(found)
    return {"data": f"{len(pictures)} pictures of Tiny ImageNet", "cases": cases}


def released(folder: Path) -> dict[str, EfficientNetLite]:
    """The networks in a folder, by name.

    Raises:
        DataError: there is none, or one is damaged.
    """
    paths = {name: next(iter(sorted(folder.rglob(f"{name}-*.pth"))), None) for name in NETWORKS}
    found = {name: read_efficientnet_lite(path) for name, path in paths.items() if path}
    if not found:
        raise DataError(
            f"{folder} has no efficientnet-lite0-*.pth. "
            f"{catalogue.wanted('efficientnet-lite-weights')}"
        )
    return found


def measure(
    net: EfficientNetLite, pictures: list[Located], side: int, stride: int
) -> dict[str, Any]:
    """One part: whether the class was right, and where boxes are hit, by method and parameter.

    Each picture has for each IoU the thresholds at which hits begin and end, in turn.
    """
    images, labels = np.stack([p.image for p in pictures]), np.array([p.label for p in pictures])
    seen, maps = maps_of(net, images, labels, side, stride)
    every = np.concatenate([list(by_value.values()) for by_value in maps.values()])
    found = [turns(picture, every[:, i]) for i, picture in enumerate(pictures)]
    names = [(method, value) for method, by_value in maps.items() for value in by_value]
    hit: dict[str, dict[str, Any]] = {method: {} for method in maps}
    for (method, value), each in zip(names, zip(*found)):
        hit[method][f"{value:g}"] = each
    return {
        "positions": list(every.shape[2:]),
        "right": (seen == labels).tolist(),
        "hits": hit,
    }


def maps_of(
    net: EfficientNetLite, images: np.ndarray, labels: np.ndarray, side: int, stride: int
) -> tuple[np.ndarray, Maps]:
    """The classes that are seen (N,), and the maps of the true ones."""
    seen, before = evidence(net, jnp.asarray(images), jnp.asarray(labels), side, stride)
    plain, *smooth = np.asarray(before)
    smooth_map = lambda lam: prox_tv2d(jnp.asarray(plain), jnp.float32(lam), axes=(1, 2))
    blur = lambda width: ndi.gaussian_filter(plain, (0, width, width), mode="nearest")
    return np.asarray(seen), {
        PLAIN: {0: plain},
        "TV before": dict(zip(LAMBDAS, smooth)),
        "TV after": {lam: np.asarray(smooth_map(lam)) for lam in LAMBDAS_AFTER},
        "Gaussian": {width: blur(width) for width in WIDTHS},
    }


@functools.partial(jax.jit, static_argnames=("side", "stride"))
def evidence(
    net: EfficientNetLite, images: jax.Array, labels: jax.Array, side: int, stride: int
) -> tuple[jax.Array, jax.Array]:
    """The most probable classes (N,), and maps of `labels` without and with TV (1 + λ, N, h, w).

    The maps lack the bias of the class, which is the same at all positions.
    """
    x = jax.image.resize(images.astype(jnp.float32), (len(images), side, side, 3), "linear")
    found = features(net, (x - 127) / 128, stride)
    seen = jnp.argmax(found.mean(axis=(1, 2)) @ net.kernel + net.bias.reshape(1, -1), axis=-1)
    smooth = [prox_tv2d(found, jnp.float32(lam), axes=(1, 2)) for lam in LAMBDAS]
    weigh = lambda f: jnp.einsum("nhwc,cn->nhw", f, net.kernel[:, labels])
    return seen, jnp.stack([weigh(f) for f in (found, *smooth)])


def turns(picture: Located, maps: np.ndarray) -> list[list[list[int]]]:
    """For each map (M, h, w) and IoU the thresholds at which hits begin and end, in turn."""
    size = picture.image.shape[:2]
    scores = np.stack([score_map(evidence, *size) for evidence in maps])
    found = np.diff(hits(best_ious(scores, picture.boxes)), prepend=False, append=False)
    return [[np.flatnonzero(row).tolist() for row in rows] for rows in found]


def hits_of(every: list[list[list[int]]]) -> np.ndarray:
    """`turns` of all pictures as bool (N, 3, levels), at the thresholds that differ in 8 bits."""
    changes = np.zeros((len(every), len(IOUS), len(THRESHOLDS) + 1), bool)
    for i, k in np.ndindex(changes.shape[:2]):
        changes[i, k, every[i][k]] = True
    levels = np.unique((255 * THRESHOLDS).astype(int), return_index=True)[1]
    return np.logical_xor.accumulate(changes, axis=-1)[..., levels]


def summary(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Scores of all pictures.

    Returns:
        `positions` of a map, `accuracy` in percent, `score` without a method (MaxBoxAccV2), `gains`
        over it (method -> value of its parameter -> gain and interval), and `chosen`: method ->
        `values` that are the best on one half of the pictures and used on the other, their `gain`,
        and the `lead` over the Gaussian.
    """
    right = [value for part in parts for value in part["right"]]
    found = {
        method: {
            float(value): hits_of([one for part in parts for one in part["hits"][method][value]])
            for value in by_value
        }
        for method, by_value in parts[0]["hits"].items()
    }
    plain = found.pop(PLAIN)[0]
    gain = functools.partial(paired_difference, statistic=max_box_accuracy)
    fitted = {
        method: cross_fitted({0.0: plain, **by_value}, max_box_accuracy)
        for method, by_value in found.items()
    }
    return {
        "positions": parts[0]["positions"],
        "accuracy": 100 * float(np.mean(right)),
        "score": max_box_accuracy(plain.mean(axis=0)),
        "gains": {
            method: {f"{value:g}": gain(each, plain) for value, each in by_value.items()}
            for method, by_value in found.items()
        },
        "chosen": {
            method: {
                "values": values,
                "gain": gain(each, plain),
                "lead": gain(each, fitted["Gaussian"][0]),
            }
            for method, (each, values) in fitted.items()
        },
    }


def table(results: dict[str, Any]) -> list[list[str]]:
    """The header, then a row for each method and value of its parameter, a column for each case."""
    cases = [*results["cases"].values()]
    rows = [["method", "parameter", *titles(results)]]
    rows.append([PLAIN, "", *(f"{case['score']:.2f}" for case in cases)])
    for method, gains in cases[0]["gains"].items():
        for value in gains:
            rows.append([method, value, *(shown(case["gains"][method][value]) for case in cases)])
        chosen = [case["chosen"][method] for case in cases]
        values = [" and ".join(f"{value:g}" for value in c["values"]) for c in chosen]
        cells = [f"{shown(c['gain'])} ({v})" for c, v in zip(chosen, values)]
        rows.append([method, "chosen", *cells])
        if method != "Gaussian":
            leads = [shown(c["lead"]) for c in chosen]
            rows.append([f"{method}, over the Gaussian", "chosen", *leads])
    return rows


def titles(results: dict[str, Any]) -> list[str]:
    """Network and positions of each case."""
    names = [name.removeprefix("efficientnet-").partition(",")[0] for name in results["cases"]]
    sizes = ["×".join(map(str, case["positions"])) for case in results["cases"].values()]
    return [f"{name}, {size}" for name, size in zip(names, sizes)]


def figure(results: dict[str, Any]) -> Figure:
    """Gains over the map alone with their intervals, by network and stride."""
    cases = results["cases"].values()
    columns = min(3, len(cases))
    rows = -(-len(cases) // columns)
    drawn = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    grid = drawn.subplots(rows, columns, squeeze=False)
    for axes, title, case in zip(grid.flat, titles(results), cases):
        draw_gains(axes, case["gains"])
        axes.set_title(f"{title}, {case['score']:.1f} without", fontsize=9)
    for axes in grid.flat[len(cases) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel("gain in MaxBoxAccV2, points")
    return drawn
