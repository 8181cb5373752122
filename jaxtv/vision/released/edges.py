"""PiDiNet's released edge maps of BSDS500: what smoothing the final map adds.

No network runs: the authors' repository has the maps of the test pictures. Parameters are chosen on
one half of them and measured on the other. The plain alternative is a Gaussian.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.ndimage as ndi
import scipy.special
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from jaxtv._prox import prox_tv2d
from jaxtv.vision import images
from jaxtv.vision.metrics import boundaries
from jaxtv.vision.metrics.paired import cross_fitted, paired_difference, shown
from jaxtv.vision.readers import catalogue, photos
from jaxtv.vision.readers import edges as reader
from jaxtv.vision.released.drawing import draw_gains
from jaxtv.vision.released.parts import Parts
from jaxtv.vision.task import DataError

OPTIONS = ("limit",)
PLAIN = "network alone"
THRESHOLDS = np.linspace(0.1, 0.85, 6)
SCORES = ("ods", "ois", "ap")


def tv(x: np.ndarray, lam: float) -> np.ndarray:
    """The TV-smooth layer on probabilities (H, W)."""
    return np.asarray(prox_tv2d(jnp.asarray(x), jnp.float32(lam)))


def tv_of_logits(x: np.ndarray, lam: float) -> np.ndarray:
    """The TV-smooth layer on logits; 0 and 1 are half a step of 8 bits away from the ends."""
    inner = (255 * x + np.float32(0.5)) / 256
    return scipy.special.expit(tv(scipy.special.logit(inner), lam))


def blur(x: np.ndarray, width: float) -> np.ndarray:
    """Gaussian of a standard deviation of `width` pixels."""
    return ndi.gaussian_filter(x, width, mode="nearest")


# Name -> how, and the values of its parameter.
METHODS: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], Sequence[float]]] = {
    "TV on probabilities": (tv, (0.1,)),
    "TV on logits": (tv_of_logits, (0.15, 0.5)),
    "Gaussian": (blur, (0.7, 1.0)),
}


def evaluate(
    weights: Path, data: Path, folder: Path, console: Console, limit: int = 0
) -> dict[str, Any]:
    """ODS, OIS and AP after non-maximum suppression, for every method.

    Args:
        weights: a folder that has the maps `NAME.png`, at any depth.
        data: a folder of BSDS500.
        folder: keeps what is finished.
        console: where progress is shown.
        limit: most test pictures; 0: all.

    Returns:
        `data`, `thresholds`, and what `summary` returns.

    Raises:
        DataError: maps, pictures or annotations are missing or damaged.
    """
    root = reader.bsds_root(data)
    if root is None:
        raise DataError(f"{data} has no groundTruth/. {catalogue.wanted('bsds500')}")
    pictures = photos.files_of(root / "images" / "test")[: limit or None]
    maps = {path.stem: path for path in sorted(weights.rglob("*.png"))}
    missing = [path.stem for path in pictures if path.stem not in maps]
    if missing:
        raise DataError(f"{weights} has no {missing[0]}.png. {catalogue.wanted('pidinet-maps')}")
    parts = Parts(folder, {"weights": str(weights), "data": str(data)})
    found = [
        parts.get(path.stem, functools.partial(measure, path, maps[path.stem]))
        for path in track(pictures, "pictures", console=console)
    ]
    description = f"{len(pictures)} test pictures of BSDS500"
    return {"data": description, "thresholds": len(THRESHOLDS)} | summary(found)


def measure(picture: Path, path: Path) -> dict[str, dict[str, Any]]:
    """Counts of one picture: method -> value of its parameter -> (thresholds, 4).

    Raises:
        DataError: the map is damaged or has another size.
    """
    truths = reader.read_bsds_picture(picture).truths
    edges = images.read(path).color[..., 0]
    if edges.shape != truths[0].shape:
        raise DataError(f"{path} must have the size of {picture}, {truths[0].shape}.")

    def counts(edges: np.ndarray) -> list[list[int]]:
        thin = boundaries.suppress_non_maxima(edges)
        return boundaries.counts(thin, truths, THRESHOLDS).tolist()

    return {PLAIN: {"0": counts(edges)}} | {
        name: {f"{value:g}": counts(method(edges, value)) for value in values}
        for name, (method, values) in METHODS.items()
    }


def summary(parts: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Scores of all pictures.

    Returns:
        `scores` without a method, `gains` over it (method -> value of its parameter -> what
        `compared` returns), and `chosen`: method -> the same with `values` that are the best on one
        half of the pictures and used on the other, and the `lead` in ODS over the Gaussian.
    """
    found = {
        method: {
            float(value): np.array([part[method][value] for part in parts]) for value in by_value
        }
        for method, by_value in parts[0].items()
    }
    plain = found.pop(PLAIN)[0]
    ods = statistics(len(plain))["ods"]
    fitted = {
        method: cross_fitted({0.0: plain, **by_value}, ods) for method, by_value in found.items()
    }
    return {
        "scores": boundaries.scores(plain),
        "gains": {
            method: {f"{value:g}": compared(each, plain) for value, each in by_value.items()}
            for method, by_value in found.items()
        },
        "chosen": {
            method: {
                "values": values,
                "lead": paired_difference(each, fitted["Gaussian"][0], ods),
                **compared(each, plain),
            }
            for method, (each, values) in fitted.items()
        },
    }


def compared(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Differences of ODS, OIS and AP with intervals, and our least recall, from counts."""
    by_name = statistics(len(ours))
    best = [boundaries.best_counts(counts) for counts in (ours, theirs)]
    return {
        "ods": paired_difference(ours, theirs, by_name["ods"]),
        "ois": paired_difference(best[0], best[1], by_name["ois"]),
        "ap": paired_difference(ours, theirs, by_name["ap"]),
        "least recall": boundaries.scores(ours)["least recall"],
    }


def statistics(count: int) -> dict[str, Callable[[np.ndarray], float]]:
    """Scores as functions of the mean of `count` pictures' counts; OIS takes each one's best."""
    rates = lambda mean: boundaries.rates(np.rint(count * mean))
    return {
        "ods": lambda mean: boundaries.best_f(*rates(mean)),
        "ois": lambda mean: float(boundaries.f_measure(*rates(mean))),
        "ap": lambda mean: boundaries.average_precision(*rates(mean)),
    }


def table(results: dict[str, Any]) -> list[list[str]]:
    """The header, then a row for each method and value of its parameter: gains with intervals."""
    scores = results["scores"]
    cells = [f"{scores[name]:.4f}" for name in SCORES]
    rows = [
        ["method", "parameter", "ODS", "OIS", "AP", "least recall"],
        [PLAIN, "", *cells, f"{scores['least recall']:.3f}"],
    ]
    for method, by_value in results["gains"].items():
        chosen = results["chosen"][method]
        name = f"chosen: {' and '.join(f'{value:g}' for value in chosen['values'])}"
        for value, found in {**by_value, name: chosen}.items():
            gains = [shown(found[name], digits=4) for name in SCORES]
            rows.append([method, value, *gains, f"{found['least recall']:.3f}"])
    return rows


def figure(results: dict[str, Any]) -> Figure:
    """Gains in ODS and AP over the network alone with their intervals."""
    drawn = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(drawn.subplots(1, 2), ("ods", "ap")):
        gains = {
            method: {value: found[name] for value, found in by_value.items()}
            for method, by_value in results["gains"].items()
        }
        draw_gains(axes, gains)
        axes.set_title(f"{name.upper()}, {results['scores'][name]:.3f} without", fontsize=9)
    drawn.axes[0].set_ylabel("gain")
    return drawn
