"""The released colour DnCNN, on the noise that it was trained for and on other noise.

The plain alternatives are a Gaussian in the same place, its width chosen in the same way, and the
input scaled by s to the noise that the network knows, net(s x) / s.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.ndimage as ndi
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.progress import track

from jaxtv._prox import prox_tv2d
from jaxtv.vision import training
from jaxtv.vision.metrics.errors import psnr
from jaxtv.vision.metrics.paired import paired_difference, shown
from jaxtv.vision.networks.dncnn import DnCNN, from_convolutions
from jaxtv.vision.readers import denoising as reader
from jaxtv.vision.readers import photos
from jaxtv.vision.readers.weights import read_dncnn
from jaxtv.vision.released.drawing import draw_cases
from jaxtv.vision.released.fine_tuned_dncnn import (
    ALONE,
    JOINT,
    Convolutions,
    FineTuning,
    Pictures,
)
from jaxtv.vision.released.parts import Parts
from jaxtv.vision.task import apply
from jaxtv.vision.tasks.denoising import noisy

Network = Callable[[np.ndarray], np.ndarray]  # float32 (H, W, 3) to the same
Method = Callable[[Network, np.ndarray, float], np.ndarray]

OPTIONS = ("side", "seeds")
CROPS, CROP_SIDE = 12, 48  # of the training photos, on which parameters are chosen
PLAIN = "network alone"


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and what is done to the pictures.

    Attributes:
        sigma: the noise that the network was trained for, on the scale 0..255.
        degrade: from uint8 (H, W, 3) and a seed to float32 in about [0, 1].
        as_trained: whether this is that noise. There the network can be fine-tuned, too.
    """

    sigma: int
    degrade: Callable[[np.ndarray, int], np.ndarray]
    as_trained: bool = False


def gaussian(sigma: float) -> Callable[[np.ndarray, int], np.ndarray]:
    """White Gaussian noise."""
    return lambda image, seed: noisy(image, sigma, seed)


def poisson(image: np.ndarray, seed: int, peak: float = 20.0) -> np.ndarray:
    """Photon noise, at most `peak` photons a pixel on average."""
    photons = np.random.default_rng((seed, 26)).poisson(image / 255 * peak)
    return (photons / peak).astype(np.float32)


def salt_and_pepper(image: np.ndarray, seed: int, share: float = 0.03) -> np.ndarray:
    """A share of the pixels is black or white."""
    drawn = np.random.default_rng((seed, 27)).random(image.shape[:2])[..., None]
    clean = image / np.float32(255)
    return np.where(drawn < share / 2, np.float32(0), np.where(drawn < share, 1, clean))


def jpeg(image: np.ndarray, seed: int, quality: int = 10) -> np.ndarray:
    """Compression; `seed` is not used."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / np.float32(255)


CASES = {
    "σ = 25, as trained": Case(25, gaussian(25), as_trained=True),
    "σ = 50, as trained": Case(50, gaussian(50), as_trained=True),
    "σ = 35, trained for 25": Case(25, gaussian(35)),
    "σ = 50, trained for 25": Case(25, gaussian(50)),
    "Poisson, peak 20": Case(25, poisson),
    "salt and pepper, 3 %": Case(25, salt_and_pepper),
    "JPEG, quality 10": Case(25, jpeg),
}


def tv(x: np.ndarray, lam: float) -> np.ndarray:
    """The TV-smooth layer."""
    return np.asarray(prox_tv2d(jnp.asarray(x), jnp.float32(lam), axes=(0, 1)))


def blur(x: np.ndarray, width: float) -> np.ndarray:
    """Gaussian of a standard deviation of `width` pixels."""
    return ndi.gaussian_filter(x, (width, width, 0), mode="nearest")


LAMBDAS = (0.001, 0.003, 0.01, 0.02, 0.04, 0.06, 0.09, 0.14, 0.2)
WIDTHS = (0.3, 0.4, 0.5, 0.7, 1.0, 1.4)
SCALES = (0.95, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3)

# Name -> how, and the values to choose from, from none (0, for a scale 1) to strong.
METHODS: dict[str, tuple[Method, Sequence[float]]] = {
    "TV in front": (lambda net, x, lam: net(tv(x, lam)), (0, *LAMBDAS)),
    "TV after": (lambda net, x, lam: tv(net(x), lam), (0, *LAMBDAS)),
    "Gaussian in front": (lambda net, x, width: net(blur(x, width)), (0, *WIDTHS)),
    "Gaussian after": (lambda net, x, width: blur(net(x), width), (0, *WIDTHS)),
    "input scaled": (lambda net, x, s: net(s * x) / s, (1, *SCALES)),
}


def evaluate(
    weights: Path, data: Path, folder: Path, console: Console, side: int = 0, seeds: int = 0
) -> dict[str, Any]:
    """PSNR of every test picture, for every case and method.

    Args:
        weights: a folder with `color_sigma=25.mat` and `color_sigma=50.mat`.
        data: a folder as `jaxtv.vision.readers.denoising.read` takes it.
        folder: keeps the finished cases.
        console: where progress is shown.
        side: of the centre of a test picture that is measured; 0: all of it.
        seeds: of fine-tuning on the noise that a network was trained for; 0: none.

    Returns:
        `data`, `side`, and `cases`: case -> `chosen` (method -> parameter), `sets` (set -> method
        -> PSNR of each picture), and where a network was fine-tuned `trained` (variant -> λ of its
        TV layers). PSNR and λ of variants are means over the seeds.

    Raises:
        DataError: weights or pictures are missing or damaged.
    """
    sigmas = dict.fromkeys(case.sigma for case in CASES.values())
    kernels = {sigma: read_dncnn(weights / f"color_sigma={sigma}.mat") for sigma in sigmas}
    train, tests = reader.read(data)
    crops = training_crops(train)
    if side:
        tests = {name: [photos.centre(x, side) for x in images] for name, images in tests.items()}
    counts = ", ".join(f"{len(images)} {title}" for title, images in tests.items())
    parts = Parts(folder, {"weights": str(weights), "data": counts, "side": side})
    cases = {
        name: parts.get(name, lambda case=case: measure(kernels[case.sigma], case, crops, tests))
        for name, case in track(CASES.items(), console=console)
    }
    for name, case in CASES.items():
        if seeds and case.as_trained:
            found = fine_tuned(kernels[case.sigma], name, (train, tests), parts, seeds, console)
            cases[name]["trained"] = found["trained"]
            for title, by_variant in found["sets"].items():
                cases[name]["sets"][title] |= by_variant
    return {"data": counts, "side": side, "cases": cases}


def measure(
    kernels: Convolutions, case: Case, crops: list[np.ndarray], tests: dict[str, list[np.ndarray]]
) -> dict[str, Any]:
    """One entry of `cases`: parameters chosen on the crops, PSNR on the test pictures."""
    net = network(from_convolutions(kernels))
    chosen = choose(net, crops, [case.degrade(x, i) for i, x in enumerate(crops)])
    sets = {}
    for title, images in tests.items():
        degraded = [case.degrade(x, i) for i, x in enumerate(images)]
        sets[title] = scores(net, images, degraded, chosen)
    return {"chosen": chosen, "sets": sets}


def fine_tuned(
    kernels: Convolutions, name: str, photos: Pictures, parts: Parts, seeds: int, console: Console
) -> dict[str, Any]:
    """`trained` and `sets` of a case: all variants for as long, from the same seeds."""
    task, case = FineTuning(kernels), CASES[name]

    def measured(variant: str, seed: int, folder: Path) -> dict[str, Any]:
        model = task.trained(variant, case.sigma, seed, photos, folder, console)
        strengths = [*training.lambdas(model).values()]
        return {"strengths": strengths, "sets": qualities(network(model), case, photos)}

    runs = parts.runs(name, task.variants, seeds, measured)
    mean = lambda found: np.mean(found, axis=0).tolist()
    return {
        "trained": {
            variant: mean([run["strengths"] for run in of]) for variant, of in runs.items()
        },
        "sets": {
            title: {v: mean([run["sets"][title] for run in of]) for v, of in runs.items()}
            for title in photos[1]
        },
    }


def qualities(net: Network, case: Case, photos: Pictures) -> dict[str, list[float]]:
    """PSNR of each test picture, by its set."""
    return {
        title: [quality_of(net(case.degrade(x, i)), x) for i, x in enumerate(images)]
        for title, images in photos[1].items()
    }


def network(model: DnCNN) -> Network:
    """The model as a function of a picture."""
    return lambda x: np.asarray(apply(model, jnp.asarray(x)[None])[0])


def training_crops(images: list[np.ndarray]) -> list[np.ndarray]:
    """Centres of pictures, spread over all of them."""
    spread = np.linspace(0, len(images) - 1, min(CROPS, len(images))).astype(int)
    return [photos.centre(images[i], CROP_SIDE) for i in spread]


def choose(net: Network, clean: list[np.ndarray], degraded: list[np.ndarray]) -> dict[str, float]:
    """The parameter of each method: stronger as long as the mean PSNR does not fall."""
    net = remembered(net)

    def quality(method: Method, value: float) -> float:
        restored = (method(net, x, value) for x in degraded)
        return float(np.mean([quality_of(y, image) for y, image in zip(restored, clean)]))

    chosen = {}
    for name, (method, values) in METHODS.items():
        chosen[name], best = float(values[0]), quality(method, values[0])
        for value in values[1:]:
            found = quality(method, value)
            if found < best:
                break
            if found > best:
                chosen[name], best = float(value), found
    return chosen


def scores(
    net: Network, clean: list[np.ndarray], degraded: list[np.ndarray], chosen: dict[str, float]
) -> dict[str, list[float]]:
    """PSNR of each picture: as it comes, by the network alone, and by each method."""
    net = remembered(net)
    found: dict[str, list[float]] = {"degraded": [], PLAIN: []} | {name: [] for name in METHODS}
    for image, x in zip(clean, degraded):
        found["degraded"].append(quality_of(x, image))
        found[PLAIN].append(quality_of(net(x), image))
        for name, (method, _) in METHODS.items():
            found[name].append(quality_of(method(net, x, chosen[name]), image))
    return found


def remembered(net: Network) -> Network:
    """Methods that change nothing before the network share its output."""
    known: dict[bytes, np.ndarray] = {}

    def remember(x: np.ndarray) -> np.ndarray:
        key = x.tobytes()
        if key not in known:
            known[key] = net(x)
        return known[key]

    return remember


def quality_of(x: np.ndarray, clean: np.ndarray) -> float:
    """PSNR in dB of the rounded picture."""
    return psnr(np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8), clean)


def differences(
    case: dict[str, Any], method: str, other: str = PLAIN
) -> tuple[float, float, float]:
    """Gain of a method over another on the pictures of all sets, with its interval."""
    every = lambda name: np.concatenate([found[name] for found in case["sets"].values()])
    return paired_difference(every(method), every(other))


def table(results: dict[str, Any]) -> list[list[str]]:
    """The header, then a row for each case and method: parameter, gain on each set, on all."""
    titles = list(next(iter(results["cases"].values()))["sets"])
    rows = [["case", "method", "parameter", *titles, "all pictures, 95 % interval"]]
    for name, case in results["cases"].items():
        alone = (np.mean(found[PLAIN]) for found in case["sets"].values())
        rows.append([name, PLAIN, "", *(f"{value:.2f} dB" for value in alone), ""])
        trained = case.get("trained", {})
        for method, value in {**case["chosen"], **trained}.items():
            parameter = ", ".join(f"{v:.2g}" for v in np.ravel(value))
            rows.append(["", method, parameter, *gains_of(case, method)])
        if trained:
            rows.append(["", f"{JOINT} over {ALONE}", "", *gains_of(case, JOINT, ALONE)])
    return rows


def gains_of(case: dict[str, Any], method: str, other: str = PLAIN) -> list[str]:
    """Gain of a method over another on each set, and on all pictures with its interval."""
    gains = [np.mean(found[method]) - np.mean(found[other]) for found in case["sets"].values()]
    return [*(f"{gain:+.2f}" for gain in gains), shown(differences(case, method, other))]


def figure(results: dict[str, Any]) -> Figure:
    """Gains of each method over the network alone, with their intervals, by case."""
    cases = results["cases"]
    drawn = Figure(figsize=(9, 4.5), layout="constrained")
    axes = drawn.add_subplot()
    gains = {method: [differences(case, method) for case in cases.values()] for method in METHODS}
    draw_cases(axes, gains, [name.replace(", ", "\n") for name in cases])
    axes.set_ylabel("gain over the network alone, dB")
    return drawn
