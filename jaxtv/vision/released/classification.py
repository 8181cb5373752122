"""The released ResNet-20 for CIFAR-10 under fifteen corruptions, with and without TV layers.

Each picture is measured at one of the five severities, which take turns: that is unbiased for the
mean over all five, at a fifth of the cost. The plain alternative is a Gaussian in the same place,
its width chosen (frozen weights) or trained (fine-tuned weights) in the same way. Beside them: runs
of All-CNN-C that were trained from random weights.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from jaxtv.vision import corruptions, training
from jaxtv.vision.metrics.paired import paired_difference, shown
from jaxtv.vision.networks import filters
from jaxtv.vision.networks.resnet20 import ResNet20, load_state
from jaxtv.vision.readers.cifar import CIFAR
from jaxtv.vision.readers.classification import read
from jaxtv.vision.readers.labelled import Labelled, at_most
from jaxtv.vision.readers.weights import read_resnet20
from jaxtv.vision.released import fine_tuned_resnet20
from jaxtv.vision.released.drawing import draw_cases
from jaxtv.vision.released.parts import Parts
from jaxtv.vision.task import DataError
from jaxtv.vision.tasks.classification import right

OPTIONS = ("limit", "seeds", "runs")
WEIGHTS = "resnet20-12fca82f.th"
CHOOSE = 150  # pictures on which strengths are chosen
PLAIN, CLEAN = "network alone", "clean"
CONDITIONS = (CLEAN, *corruptions.CORRUPTIONS)
GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("glass_blur", "defocus_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "all 15": tuple(corruptions.CORRUPTIONS),
}


@dataclasses.dataclass(frozen=True)
class Method:
    """A filter, its place in the network, and the strengths to choose from."""

    place: Literal["early", "front"]
    function: Callable
    strengths: Sequence[float]


WIDTHS = (0.3, 0.5, 0.7, 1.0)
METHODS = {
    "TV-smooth before the norms": Method("early", filters.tv_smooth, (0.03, 0.1, 0.3, 1.0)),
    "TV-sharp before the norms": Method("early", filters.tv_sharp, (0.01, 0.03, 0.1, 0.3)),
    "Gaussian before the norms": Method("early", filters.gaussian, WIDTHS),
    "TV-smooth in front": Method("front", filters.tv_smooth, (0.01, 0.02, 0.04, 0.08)),
    "Gaussian in front": Method("front", filters.gaussian, WIDTHS),
}
# Variants of `jaxtv.vision.tasks.classification` -> their names here.
TRAINED = {"baseline": PLAIN, "tv-smooth": "TV-smooth", "tv-sharp": "TV-sharp"}
# Whose difference is reported too.
LEADS = (
    ("TV-smooth before the norms", "Gaussian before the norms"),
    ("TV-smooth in front", "Gaussian in front"),
    ("TV-smooth from 0.05", "Gaussian from 0.3"),
    ("TV-smooth from 0.3", "Gaussian from 0.7"),
    ("TV-smooth", "TV-sharp"),
)

Pictures = tuple[np.ndarray, np.ndarray]  # uint8 (N, 32, 32, 3), labels (N,)


def evaluate(
    weights: Path,
    data: Path,
    folder: Path,
    console: Console,
    limit: int = 0,
    seeds: int = 0,
    runs: Path | None = None,
) -> dict[str, Any]:
    """Accuracy on clean and corrupted test pictures for every method.

    Args:
        weights: a folder with `resnet20-12fca82f.th`.
        data: CIFAR-10, as `jaxtv.vision.readers.classification.read` takes it.
        folder: keeps the finished parts, and the runs of fine-tuning.
        console: where progress is shown.
        limit: most test pictures; 0: all.
        seeds: of fine-tuning; 0: the weights stay frozen.
        runs: a folder with `VARIANT/seedN` of networks that were trained on CIFAR-10, as `jaxtv
            reproduce table2` makes it; None: these are not measured.

    Returns:
        `data`, and `studies`: frozen, fine-tuned, trained -> `strengths` (method -> chosen or
        trained) and what `compared` returns. The study of frozen weights also has `curves`: method
        -> strength -> accuracy on the pictures that the strength is chosen on, clean and corrupted.
        The others have `seeds`.

    Raises:
        DataError: weights, pictures or runs are missing or damaged.
    """
    state = read_resnet20(weights / WEIGHTS)
    found = read_cifar10(data)
    choose = at_most(CHOOSE, found.validation)
    test = at_most(limit or len(found.test[0]), found.test)
    seen = functools.cache(lambda condition: corrupted(condition, test))
    described = f"{found.description}, {len(test[0])} to test"
    parts = Parts(folder, {"weights": str(weights), "data": described})
    studies = {"frozen": frozen(state, choose, seen, parts, console)}
    if seeds:
        studies["fine-tuned"] = fine_tuned(state, found, seen, parts, seeds, console)
    if runs:
        kept = Parts(folder / "trained", {"runs": str(runs), "data": described})
        studies["trained"] = trained(runs, seen, kept, console)
    return {"data": described, "studies": studies}


def read_cifar10(data: Path) -> Labelled:
    """CIFAR-10 in any of its layouts.

    Raises:
        DataError: other classes, or pictures of another size.
    """
    found = read(data)
    if found.classes != CIFAR or found.test[0].shape[1:] != (32, 32, 3):
        raise DataError(
            f"{data} has pictures of {found.test[0].shape[1:3]} in the classes "
            f"{', '.join(found.classes)}; the released network knows CIFAR-10's, 32 x 32: "
            f"{', '.join(CIFAR)}. `jaxtv data fetch cifar-10` gets it."
        )
    return found


def frozen(
    state: Mapping[str, np.ndarray],
    choose: Pictures,
    seen: Callable[[str], Pictures],
    parts: Parts,
    console: Console,
) -> dict[str, Any]:
    """The study without training.

    Args:
        state: the released weights.
        choose: pictures on which strengths are chosen.
        seen: the test pictures under a condition.
        parts: keeps what is done.
        console: where progress is shown.
    """
    curves = {
        name: parts.get(f"frozen, {name}", lambda m=method: curve(state, m, choose))
        for name, method in track(METHODS.items(), "strengths", console=console)
    }
    chosen = {name: best(found) for name, found in curves.items()}
    networks = {PLAIN: filtered(state)} | {
        name: filtered(state, METHODS[name], strength) for name, strength in chosen.items()
    }
    answers = {
        name: parts.get(f"frozen, {name}", lambda c=name: answers_of(networks, *seen(c)))
        for name in track(CONDITIONS, "test pictures", console=console)
    }
    scores = {c: {m: scores_of([a]) for m, a in of.items()} for c, of in answers.items()}
    return {"strengths": chosen, "curves": curves} | compared(scores)


def filtered(
    state: Mapping[str, np.ndarray], method: Method | None = None, strength: float = 0.0
) -> ResNet20:
    """The released network, with a method's filter unless its strength is 0."""
    place = {}
    if method and strength:
        place = {method.place: functools.partial(filters.Filter, method.function, strength)}
    model = ResNet20(**place, rngs=nnx.Rngs(0))
    load_state(model, state)
    model.eval()
    return model


def corrupted(condition: str, test: Pictures) -> Pictures:
    """Test pictures under a condition, each at one of the five severities."""
    x, y = test
    if condition == CLEAN:
        return test
    out = np.empty_like(x)
    for i, severity in enumerate(corruptions.SEVERITIES):
        part = slice(i, None, len(corruptions.SEVERITIES))
        out[part] = corruptions.corrupt(condition, x[part], severity)
    return out, y


def curve(
    state: Mapping[str, np.ndarray], method: Method, pictures: Pictures
) -> dict[str, list[float]]:
    """Strength -> accuracy on clean pictures, and mean over the corruptions."""
    seen = [corrupted(condition, pictures) for condition in CONDITIONS]
    found = {}
    for strength in (0.0, *method.strengths):
        model = filtered(state, method, strength)
        clean, *others = (100 * float(right(model, *shown).mean()) for shown in seen)
        found[f"{strength:g}"] = [clean, float(np.mean(others))]
    return found


def best(curve: Mapping[str, Sequence[float]]) -> float:
    """The weakest of the strengths with the highest mean over the corruptions."""
    return float(max(curve, key=lambda strength: curve[strength][1]))


def answers_of(networks: Mapping[str, Any], x: np.ndarray, y: np.ndarray) -> dict[str, str]:
    """For every network a digit a picture: 1 where its label is right, else 0."""
    return {
        name: "".join(map(str, right(model, x, y).astype(int))) for name, model in networks.items()
    }


def fine_tuned(
    state: Mapping[str, np.ndarray],
    data: Labelled,
    seen: Callable[[str], Pictures],
    parts: Parts,
    seeds: int,
    console: Console,
) -> dict[str, Any]:
    """The study of weights that are trained on: all variants for as long, from the same seeds."""
    task = fine_tuned_resnet20.FineTuning(state)

    def measure(variant: str, seed: int, folder: Path) -> dict[str, Any]:
        model = task.trained(variant, seed, data, folder, console)
        return measured(model, fine_tuned_resnet20.strengths(model), seen)

    return averaged(parts.runs("fine-tuned", task.variants, seeds, measure))


def trained(
    runs: Path, seen: Callable[[str], Pictures], parts: Parts, console: Console
) -> dict[str, Any]:
    """The study of networks trained from random weights, on the seeds that all variants have.

    Raises:
        DataError: there is no such seed.
    """
    ended = [
        {path.parent.name for path in (runs / variant).glob("*/result.json")} for variant in TRAINED
    ]
    seeds = sorted(set.intersection(*ended))
    if not seeds:
        folders = ", ".join(f"{variant}/seedN" for variant in TRAINED)
        raise DataError(
            f"{runs} has no seed that all variants were trained with: expected {folders}, each "
            "with a result.json. `jaxtv reproduce table2` makes them."
        )
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in TRAINED.values()}
    every = [*itertools.product(TRAINED.items(), seeds)]
    for (variant, name), seed in track(every, "trained networks", console=console):

        def measure(folder=runs / variant / seed) -> dict[str, Any]:
            model = training.load(folder)[2]
            return measured(model, [*training.lambdas(model).values()], seen)

        found[name].append(parts.get(f"{variant}, {seed}", measure))
    return averaged(found)


def measured(model: Any, strengths: list[float], seen: Callable[[str], Pictures]) -> dict[str, Any]:
    """The answers of a trained network under every condition, beside its strengths."""
    answers = {c: answers_of({c: model}, *seen(c))[c] for c in CONDITIONS}
    return {"strengths": strengths, "answers": answers}


def averaged(runs: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Mean over the seeds: what `measured` gave for each, by method."""
    scores = {
        c: {method: scores_of([run["answers"][c] for run in of]) for method, of in runs.items()}
        for c in CONDITIONS
    }
    strengths = {m: np.mean([run["strengths"] for run in of], axis=0) for m, of in runs.items()}
    mean = {method: value.tolist() for method, value in strengths.items()}
    return {"seeds": len(next(iter(runs.values()))), "strengths": mean} | compared(scores)


def scores_of(answers: Sequence[str]) -> np.ndarray:
    """Percent of right answers for each picture, from a string of `answers_of` for each seed."""
    return 100 * np.mean([np.array([*digits], float) for digits in answers], axis=0)


def compared(scores: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Means and paired differences.

    Args:
        scores: condition -> method -> percent for each picture; the first method is the network
            alone.

    Returns:
        `accuracy`: condition or group -> method -> percent. `gains`: condition or group -> method
        -> gain over the network alone, with its interval. `leads`: the same for pairs of methods.
    """
    names = [*scores[CLEAN]]
    groups = {
        group: {m: np.mean([scores[c][m] for c in of], axis=0) for m in names}
        for group, of in GROUPS.items()
    }
    every = {**scores, **groups}
    pairs = [pair for pair in LEADS if set(pair) <= set(names)]
    return {
        "accuracy": {c: {m: float(of[m].mean()) for m in names} for c, of in every.items()},
        "gains": {
            c: {m: paired_difference(of[m], of[names[0]]) for m in names[1:]}
            for c, of in every.items()
        },
        "leads": {
            c: {" over ".join(pair): paired_difference(*(of[m] for m in pair)) for pair in pairs}
            for c, of in every.items()
        },
    }


def table(results: dict[str, Any]) -> list[list[str]]:
    """The header, then for each study and method: strength, and gains by group of corruptions."""
    columns = (CLEAN, *GROUPS)
    rows = [["study", "method", "strength", *columns]]
    for study, found in results["studies"].items():
        alone = (f"{found['accuracy'][column][PLAIN]:.1f} %" for column in columns)
        rows.append([study, PLAIN, "", *alone])
        for method in found["gains"][CLEAN]:
            strength = ", ".join(f"{v:.2g}" for v in np.ravel(found["strengths"][method]))
            rows.append(["", method, strength, *gains_of(found["gains"], method, columns)])
        for pair in found["leads"][CLEAN]:
            rows.append(["", pair, "", *gains_of(found["leads"], pair, columns)])
    return rows


def gains_of(gains: Mapping[str, Any], method: str, columns: Sequence[str]) -> list[str]:
    """Differences in points, with their intervals."""
    return [shown(tuple(gains[column][method]), digits=1) for column in columns]


def figure(results: dict[str, Any]) -> Figure:
    """Gains of each method over the network alone, with their intervals, by study and group."""
    studies, columns = results["studies"], (CLEAN, *GROUPS)
    drawn = Figure(figsize=(9, 2.6 * len(studies)), layout="constrained")
    grid = drawn.subplots(len(studies), squeeze=False)[:, 0]
    for axes, (study, found) in zip(grid, studies.items()):
        gains = found["gains"]
        by_method = {method: [gains[c][method] for c in columns] for method in gains[CLEAN]}
        draw_cases(axes, by_method, columns)
        axes.set(title=study, ylabel="gain, points")
    return drawn
