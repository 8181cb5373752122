"""PiDiNet and LDC, trained on pictures of BSDS500: what smoothing their final map adds.

Parameters are chosen on validation pictures. The authors trained with these too. The plain
alternative is a Gaussian in the same place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage as ndi
import scipy.special
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from jaxtv._prox import prox_tv2d
from jaxtv.vision.metrics import boundaries
from jaxtv.vision.metrics.paired import paired_difference, shown
from jaxtv.vision.networks import ldc, pidinet
from jaxtv.vision.readers import catalogue, photos
from jaxtv.vision.readers import edges as reader
from jaxtv.vision.readers.weights import read_ldc, read_pidinet
from jaxtv.vision.released.drawing import draw_gains
from jaxtv.vision.released.parts import Parts
from jaxtv.vision.task import DataError

OPTIONS = ("limit",)
PLAIN = "network alone"
VALIDATION = 25  # pictures, at most as many as are tested
SCORES = ("ods", "ois", "ap")


def tv(x: np.ndarray, lam: float) -> np.ndarray:
    """The TV-smooth layer (H, W)."""
    return np.asarray(prox_tv2d(jnp.asarray(x), jnp.float32(lam)))


def blur(x: np.ndarray, width: float) -> np.ndarray:
    """Gaussian of a standard deviation of `width` pixels."""
    return ndi.gaussian_filter(x, width, mode="nearest")


# Name -> how logits become probabilities, and the values of its parameter, from weak to strong.
Method = Callable[[np.ndarray, float], np.ndarray]
METHODS: dict[str, tuple[Method, Sequence[float]]] = {
    "TV on probabilities": (lambda x, lam: tv(scipy.special.expit(x), lam), (0.02, 0.1)),
    "TV on logits": (lambda x, lam: scipy.special.expit(tv(x, lam)), (0.05, 0.3)),
    "Gaussian on probabilities": (lambda x, w: blur(scipy.special.expit(x), w), (0.5, 1.0)),
    "Gaussian on logits": (lambda x, w: scipy.special.expit(blur(x, w)), (0.5, 1.0)),
}


class Network(NamedTuple):
    """How a released network is found, read and measured."""

    file: str  # the end of its path in the folder of --weights
    read: Callable[[Path], Any]
    logits: Callable[[Any, jax.Array], jax.Array]
    thresholds: np.ndarray  # in the range of its probabilities: LDC's end at about 0.75


NETWORKS = {
    "PiDiNet": Network(
        "table5_pidinet.pth", read_pidinet, pidinet.logits, np.linspace(0.1, 0.85, 6)
    ),
    "LDC": Network("BRIND/11/11_model.pth", read_ldc, ldc.logits, np.linspace(0.3, 0.7, 5)),
}

Counts = dict[str, dict[float, np.ndarray]]  # method -> parameter -> (N, thresholds, 4)


def evaluate(
    weights: Path, data: Path, folder: Path, console: Console, limit: int = 0
) -> dict[str, Any]:
    """ODS, OIS and AP after non-maximum suppression, for every network and method.

    Args:
        weights: a folder that has `table5_pidinet.pth` or `BRIND/11/11_model.pth`, at any depth.
        data: a folder of BSDS500.
        folder: keeps what is finished.
        console: where progress is shown.
        limit: most test pictures; 0: all.

    Returns:
        `data`, and `cases`: name of the network -> its `thresholds`, and what `summary` returns.

    Raises:
        DataError: weights, pictures or annotations are missing or damaged.
    """
    root = reader.bsds_root(data)
    if root is None:
        raise DataError(f"{data} has no groundTruth/. {catalogue.wanted('bsds500')}")
    nets = released(weights)
    parts = Parts(folder, {"weights": sorted(nets), "data": str(data)})

    def counts(name: str, part: str, most: int | None) -> Counts:
        found = []
        pictures = photos.files_of(root / "images" / part)[:most]
        for path in track(pictures, f"{name}, {part} pictures", console=console):
            measured = functools.partial(measure, NETWORKS[name], nets[name], path)
            found.append(parts.get(f"{name}, {part}-{path.stem}", measured))
        return stacked(found)

    cases, used = {}, []
    for name in nets:
        test = counts(name, "test", limit or None)
        validation = counts(name, "val", min(VALIDATION, len(test[PLAIN][0])))
        used = [len(found[PLAIN][0]) for found in (test, validation)]
        thresholds = NETWORKS[name].thresholds.tolist()
        cases[name] = {"thresholds": thresholds, **summary(test, validation)}
    return {
        "data": f"{used[0]} test and {used[1]} validation pictures of BSDS500",
        "cases": cases,
    }


def released(folder: Path) -> dict[str, Any]:
    """The networks in a folder, by name.

    Raises:
        DataError: there is none, or one is damaged.
    """
    paths = {
        name: next(iter(sorted(folder.rglob(network.file))), None)
        for name, network in NETWORKS.items()
    }
    found = {name: NETWORKS[name].read(path) for name, path in paths.items() if path}
    if not found:
        files = " or ".join(network.file for network in NETWORKS.values())
        raise DataError(f"{folder} has no {files}. {catalogue.wanted('pidinet-weights')}")
    return found


def measure(network: Network, net: Any, picture: Path) -> dict[str, dict[str, Any]]:
    """Counts of one picture: method -> value of its parameter -> (thresholds, 4)."""
    annotated = reader.read_bsds_picture(picture)
    pixels = jnp.asarray(annotated.image, jnp.float32) / 255
    found = np.asarray(network.logits(net, pixels[None]))[0]

    def counts(edges: np.ndarray) -> list[list[int]]:
        thin = boundaries.suppress_non_maxima(edges)
        return boundaries.counts(thin, annotated.truths, network.thresholds).tolist()

    return {PLAIN: {"0": counts(scipy.special.expit(found))}} | {
        name: {f"{value:g}": counts(method(found, value)) for value in values}
        for name, (method, values) in METHODS.items()
    }


def stacked(parts: list[dict[str, dict[str, Any]]]) -> Counts:
    """What `measure` returns, of several pictures."""
    return {
        method: {
            float(value): np.array([part[method][value] for part in parts]) for value in by_value
        }
        for method, by_value in parts[0].items()
    }


def summary(test: Counts, validation: Counts) -> dict[str, Any]:
    """Scores of all pictures.

    Returns:
        `scores` without a method, `gains` over it (method -> value of its parameter -> what
        `compared` returns), and `chosen`: method -> the same with the `value` that is the best in
        ODS on the validation pictures, 0 for none, and the `lead` in ODS over the Gaussian in the
        same place. `validation` has the gains in ODS on the pictures that these values are chosen
        on.
    """
    plain, before = test[PLAIN][0], validation[PLAIN][0]
    ods = statistics(len(plain))["ods"]
    gains, chosen, seen = {}, {}, {}
    for method in METHODS:
        seen[method] = {
            value: boundaries.scores(each)["ods"] - boundaries.scores(before)["ods"]
            for value, each in validation[method].items()
        }
        gains[method] = {f"{v:g}": compared(each, plain) for v, each in test[method].items()}
        best = max(seen[method], key=seen[method].__getitem__)
        value = best if seen[method][best] > 0 else 0.0
        chosen[method] = (value, test[method].get(value, plain))
    return {
        "scores": boundaries.scores(plain),
        "gains": gains,
        "validation": {
            "ods": boundaries.scores(before)["ods"],
            **{m: {f"{value:g}": gain for value, gain in seen[m].items()} for m in METHODS},
        },
        "chosen": {
            method: {
                "value": value,
                "lead": paired_difference(each, chosen[method.replace("TV", "Gaussian")][1], ods),
                **compared(each, plain),
            }
            for method, (value, each) in chosen.items()
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
    """The header, then what `rows` returns for each network."""
    header = ["network", "method", "parameter", "ODS, validation", "ODS", "OIS", "AP"]
    found = [row for network, case in results["cases"].items() for row in rows(network, case)]
    return [[*header, "least recall"], *found]


def rows(network: str, case: dict[str, Any]) -> list[list[str]]:
    """The network alone, then each method and value of its parameter: gains with intervals."""
    scores, validation = case["scores"], case["validation"]
    cells = [f"{validation['ods']:.4f}", *(f"{scores[name]:.4f}" for name in SCORES)]
    out = [[network, PLAIN, "", *cells, f"{scores['least recall']:.3f}"]]
    for method, by_value in case["gains"].items():
        for value, found in by_value.items():
            chosen = float(value) == case["chosen"][method]["value"]
            name = f"{value}, chosen" if chosen else value
            gains = [f"{validation[method][value]:+.4f}"]
            gains += [shown(found[score], digits=4) for score in SCORES]
            out.append(["", method, name, *gains, f"{found['least recall']:.3f}"])
    return out


def figure(results: dict[str, Any]) -> Figure:
    """Gains in ODS and AP over each network alone with their intervals."""
    cases = results["cases"]
    drawn = Figure(figsize=(9, 3.6 * len(cases)), layout="constrained")
    grid = drawn.subplots(len(cases), 2, squeeze=False)
    for row, (network, case) in zip(grid, cases.items()):
        for axes, name in zip(row, ("ods", "ap")):
            gains = {
                method: {value: found[name] for value, found in by_value.items()}
                for method, by_value in case["gains"].items()
            }
            draw_gains(axes, gains)
            title = f"{network}: {name.upper()}, {case['scores'][name]:.3f} without"
            axes.set_title(title, fontsize=9)
        row[0].set_ylabel("gain")
    return drawn
