"""What the networks of `jaxtv reproduce` do when something is changed after their training.

    python scripts/after_training.py noise RUNS clothing32.npz   # table2, under stronger noise
    python scripts/after_training.py wsol RUNS DATA              # table3, VGG-16, with another λ
    python scripts/after_training.py edges RUNS DATA             # table4, without some TV layers

RUNS: the --output of `jaxtv reproduce TABLE --preset small`, DATA its --data. Prints means and
standard deviations over the seeds for docs/results-thin.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from jaxtv import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision import training
from jaxtv.vision.tasks import classification, wsol


def trained(folder: Path, data: Path) -> Iterator[Callable[[], tuple[Any, Any, Any, Any]]]:
    """A loader per seed: task, settings, data and a model as it was trained."""
    dataset = None
    for seed in sorted(folder.iterdir()):

        def load(seed=seed):
            nonlocal dataset
            task, run, model = training.load(seed)
            dataset = dataset or task.load(data, run.settings)
            return task, run.settings, dataset, model

        yield load


def show(name: str, seeds: list[tuple[float, ...]]) -> None:
    """One line: mean ± standard deviation of every metric."""
    mean, std = np.mean(seeds, axis=0), np.std(seeds, axis=0, ddof=1)
    print(f"{name}: " + "  ".join(f"{m:.4g} ± {s:.2g}" for m, s in zip(mean, std)), flush=True)


def smoothing(lam: float) -> Any:
    """A TV-smooth layer, to be put into a model; none for λ = 0."""
    return nnx.data(TVLayer(init_lam=lam, trainable=False, solver=Dykstra(4)) if lam else None)


def stronger_noise(runs: Path, data: Path) -> None:
    """Accuracy under Gaussian noise of standard deviation σ on [0, 1]."""
    levels = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)
    print(f"accuracy at σ = {levels}")
    for variant in ("baseline", "tv-smooth", "tv-sharp"):
        seeds = []
        for load in trained(runs / "classification/small" / variant, data):
            _, _, dataset, model = load()
            x, y = dataset.test
            z = np.random.default_rng(0).normal(size=x.shape)
            noisy = (np.rint(255 * np.clip(x / 255 + s * z, 0, 1)).astype(np.uint8) for s in levels)
            seeds.append(tuple(classification.accuracy(model, n, y) for n in noisy))
        show(variant, seeds)


def another_lam(runs: Path, data: Path) -> None:
    """MaxBoxAccV2, PxAP and accuracy with another λ before the maps."""
    print("MaxBoxAccV2, PxAP, accuracy")
    for variant in ("baseline", "tv"):
        for lam in (0.0, 0.03, 0.1, 0.3, 1.0):
            seeds = []
            for load in trained(runs / "wsol/small/VGG-16" / variant, data):
                _, _, dataset, model = load()
                model.tv = smoothing(lam)
                found = wsol.measure(model, dataset.test)
                seeds.append(tuple(found[k] for k in ("max_box_acc", "pxap", "accuracy")))
            show(f"{variant}, λ = {lam:g}", seeds)


def fewer_layers(runs: Path, data: Path) -> None:
    """ODS, OIS and AP without some layers, or with one after the baseline."""

    def drop(*names: str) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            for name in names:
                setattr(model, name, nnx.List([]) if name == "sharp" else nnx.data(None))

        return change

    def smooth_by(lam: float) -> Callable[[Any], None]:
        return lambda model: setattr(model, "smooth", smoothing(lam))

    changes = {
        ("tv", "as trained"): drop(),
        ("tv", "without the sharpening layers"): drop("sharp"),
        ("tv", "without the smoothing layer"): drop("smooth"),
        ("baseline", "as trained"): drop(),
        ("baseline", "λ = 0.1 after it"): smooth_by(0.1),
        ("baseline", "λ = 0.5 after it"): smooth_by(0.5),
    }
    print("ODS, OIS, AP")
    for (variant, what), change in changes.items():
        seeds = []
        for load in trained(runs / "edges/small" / variant, data):
            task, settings, dataset, model = load()
            change(model)
            found = task.evaluate(model, dataset, settings)
            seeds.append(tuple(found[k] for k in ("ods", "ois", "ap")))
        show(f"{variant}, {what}", seeds)


def main() -> None:
    """The command."""
    what = {"noise": stronger_noise, "wsol": another_lam, "edges": fewer_layers}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=what)
    parser.add_argument("runs", type=Path)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    what[options.what](options.runs, options.data)


if __name__ == "__main__":
    main()
