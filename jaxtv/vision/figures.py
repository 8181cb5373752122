"""The paper's figures, from data and trained models.

Each function draws on data and models that it is given and returns a matplotlib figure; `save`
writes it as PNG and PDF.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.ndimage as ndi
import skimage
from flax import nnx
from matplotlib.figure import Figure

import jaxtv
from jaxtv.vision.files import replacing
from jaxtv.vision.metrics.errors import psnr
from jaxtv.vision.metrics.wsol import score_map
from jaxtv.vision.networks.dncnn import DnCNN
from jaxtv.vision.networks.residual import ResNet
from jaxtv.vision.readers import photos
from jaxtv.vision.readers.augment import normalise
from jaxtv.vision.readers.edges import Annotated
from jaxtv.vision.readers.located import Located
from jaxtv.vision.task import Settings
from jaxtv.vision.tasks import denoising, edges, wsol

COLUMN = 2.2  # inches of one picture


def save(figure: Figure, path: Path) -> None:
    """Writes `path` with the suffixes .png and .pdf."""
    for suffix in (".png", ".pdf"):
        with replacing(path.with_suffix(suffix)) as part:
            figure.savefig(part, format=suffix[1:], dpi=150, bbox_inches="tight")


def pictures(rows: Sequence[Mapping[str, np.ndarray]], **options: Any) -> Figure:
    """A grid of pictures: a row for each mapping, its titles above the first row."""
    figure = Figure(figsize=(COLUMN * len(rows[0]), COLUMN * len(rows) + 0.3), layout="compressed")
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for i, row in enumerate(rows):
        for ax, (title, picture) in zip(axes[i], row.items()):
            ax.imshow(picture, interpolation="nearest", **options)
            ax.set_axis_off()
            if i == 0:
                ax.set_title(title, fontsize=9)
    return figure


def figure1(seed: int = 0) -> Figure:
    """Gaussian convolution against the TV prox, on a noisy step and on a photo (Fig. 1)."""
    rng = np.random.default_rng(seed)
    clean = np.where(np.arange(120) < 60, 0.0, 1.0)
    noisy = (clean + 0.15 * rng.normal(size=clean.shape)).astype(np.float32)
    photo = skimage.data.camera()[64:256, 128:320].astype(np.float32) / 255
    results = {
        "input": (noisy, photo),
        "Gaussian, σ = 4": tuple(ndi.gaussian_filter(x, 4) for x in (noisy, photo)),
        "TV prox, λ = 1 and 0.3": (
            np.asarray(jaxtv.prox_tv1d(noisy, 1.0)),
            np.asarray(jaxtv.prox_tv2d(photo, 0.3)),
        ),
    }
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    axes = figure.subplots(2, 3, height_ratios=(1, 2))
    for column, (title, (signal, picture)) in enumerate(results.items()):
        top, bottom = axes[0, column], axes[1, column]
        top.plot(clean, color="0.6", linewidth=1, label="clean step")
        top.plot(signal, color="C0", linewidth=1.2, label="result" if column else "noisy")
        top.set(title=title, ylim=(-0.5, 1.5), xlabel="sample")
        top.legend(fontsize=7, frameon=False, loc="upper left")
        top.spines[["top", "right"]].set_visible(False)
        bottom.imshow(picture, cmap="gray", vmin=0, vmax=1)
        bottom.set_axis_off()
    return figure


def figure3(logs: Mapping[str, Sequence[Path]]) -> Figure:
    """λ of each TV layer against training epochs (Fig. 3).

    Args:
        logs: name of a variant -> `log.csv` of its runs, one per seed.
    """
    figure = Figure(figsize=(4.2 * len(logs), 3), layout="constrained")
    for axes, (variant, paths) in zip(
        figure.subplots(1, len(logs), squeeze=False)[0], logs.items()
    ):
        runs = [read_log(path) for path in paths]
        for i, name in enumerate(k for k in runs[0] if k.startswith("lam/")):
            values = np.stack([run[name] for run in runs])
            epochs = runs[0]["epoch"]
            axes.plot(epochs, values.mean(axis=0), color=f"C{i}", label=name.removeprefix("lam/"))
            axes.fill_between(
                epochs, values.min(axis=0), values.max(axis=0), color=f"C{i}", alpha=0.2
            )
        axes.set(
            xlabel="epoch",
            ylabel="λ",
            title=f"{variant} ({len(runs)} seed{'s' * (len(runs) > 1)})",
            ylim=(0, None),
        )
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Columns of a `log.csv`."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def figure4(baseline: Any, tv: Any, located: Sequence[Located]) -> Figure:
    """Class activation maps without and with the TV layer over the pictures (Fig. 4).

    The white frame is the true box.
    """
    rows = []
    for one in located:
        x = jnp.asarray(normalise(one.image))[None]
        shown = {"input": framed(one.image, one.boxes)}
        for name, model in (("CAM", baseline), ("CAM + TV", tv)):
            scores = np.asarray(wsol.apply(model, x)[0])[..., one.label]
            shown[name] = framed(
                heated(one.image, score_map(scores, *one.image.shape[:2])), one.boxes
            )
        rows.append(shown)
    return pictures(rows)


def heated(image: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Scores in 0..1 as colours over a picture."""
    from matplotlib import colormaps

    colours = 255 * colormaps["jet"](scores)[..., :3]
    return (0.5 * image + 0.5 * colours).astype(np.uint8)


def framed(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A picture with its boxes drawn in white, the lines within them."""
    out = image.copy()
    line = 1 + min(image.shape[:2]) // 100
    for x0, y0, x1, y1 in np.clip(boxes, 0, np.array(image.shape[:2])[[1, 0, 1, 0]] - 1):
        inside = out[y0 : y1 + 1, x0 : x1 + 1]
        inside[:line] = inside[-line:] = 255
        inside[:, :line] = inside[:, -line:] = 255
    return out


def figure5(baseline: Any, tv: Any, annotated: Sequence[Annotated]) -> Figure:
    """Detected edges without and with TV layers, dark on white, next to the truth (Fig. 5)."""
    gray = lambda share: np.repeat((255 * (1 - share)).astype(np.uint8)[..., None], 3, axis=-1)
    return pictures(
        [
            {
                "input": one.image,
                "truth": gray(one.target()),
                "DexiNed": gray(edges.detect(baseline, one.image)),
                "DexiNed + TV": gray(edges.detect(tv, one.image)),
            }
            for one in annotated
        ]
    )


def figure6(tv: Any, images: Sequence[np.ndarray]) -> Figure:
    """A photo, the last convolution's picture, and what the last TV layer makes of it (Fig. 6)."""
    rows = []
    for image in images:
        stages = stages_of(tv, image.astype(np.float32))
        rows.append(
            {
                "input": image,
                "last convolution": to_bytes(stages["network"]),
                f"after the TV layer, λ = {float(tv.tv.lam):.2g}": to_bytes(stages["output"]),
            }
        )
    return pictures(rows)


def figure7(tv: Any, image: np.ndarray, channels: Sequence[int] = (0, 1, 2)) -> Figure:
    """Feature maps before and after a TV-sharp layer in a residual block (Fig. 7)."""
    found: dict[str, jnp.ndarray] = {}
    x = nnx.relu(tv.first(jnp.asarray(image, jnp.float32)[None] / 255 - 0.5))
    for block in tv.blocks:
        if block.tv is not None:
            added = block.second(nnx.relu(block.first(x)))
            found = {"before TV-sharp": added[0], "after": block.tv(added)[0]}
            break
        x = block(x)
    rows = []
    for channel in channels:
        maps = {name: np.asarray(value[..., channel]) for name, value in found.items()}
        low, high = np.percentile(maps["before TV-sharp"], (1, 99))
        rows.append({name: np.clip((m - low) / (high - low), 0, 1) for name, m in maps.items()})
    return pictures(rows, cmap="gray", vmin=0, vmax=1)


def figure8(tv: Any, images: Sequence[np.ndarray], noise: float) -> Figure:
    """What each stage of DnCNNTV makes of a noisy photo (Fig. 8), with PSNR."""
    rows = []
    for i, image in enumerate(images):
        noisy = denoising.noisy(image, noise, i)
        stages = {"noisy": noisy, **stages_of(tv, noisy)}
        shown = {name: to_bytes(255 * value) for name, value in stages.items()}
        if i == 0:
            shown = {f"{k}, {psnr(v, image):.1f} dB": v for k, v in shown.items()}
        rows.append({"clean": image, **shown})
    return pictures(rows)


def stages_of(model: ResNet | DnCNN, x: np.ndarray) -> dict[str, np.ndarray]:
    """All pictures on the way through a model, (H, W, 3) each."""
    found = nnx.jit(lambda model, x: model.stages(x))(model, jnp.asarray(x)[None])
    return {name: np.asarray(value[0]) for name, value in found.items()}


def to_bytes(x: np.ndarray) -> np.ndarray:
    """Rounded and clipped to uint8."""
    return np.rint(np.clip(x, 0, 255)).astype(np.uint8)


# ---------------------------------------------------------------------------- all of them


class Trained(NamedTuple):
    """What a figure is drawn from.

    Attributes:
        models: variant -> model of the first seed, ready for evaluation.
        logs: variant -> `log.csv` of every seed.
        data: what the task loads.
        settings: of the runs.
    """

    models: Mapping[str, Any]
    logs: Mapping[str, Sequence[Path]]
    data: Any
    settings: Settings


SHOWN = 3  # pictures of a figure

# Name -> the table whose runs are drawn, and how.
FIGURES: dict[str, tuple[str, Callable[[Trained], Figure]]] = {
    "fig3": ("table2", lambda t: figure3({k: v for k, v in t.logs.items() if k != "baseline"})),
    "fig4": (
        "table3",
        lambda t: figure4(t.models["baseline"], t.models["tv"], t.data.test[:SHOWN]),
    ),
    "fig5": (
        "table4",
        lambda t: figure5(t.models["baseline"], t.models["tv"], t.data.test[:SHOWN]),
    ),
    "fig6": ("table5", lambda t: figure6(t.models["tv"], [p.image for p in t.data.tests[:SHOWN]])),
    "fig7": ("table5", lambda t: figure7(t.models["tv"], t.data.tests[0].image)),
    "fig8": (
        "table6",
        lambda t: figure8(
            t.models["tv"],
            [photos.centre(x, 192) for x in next(iter(t.data.tests.values()))[:SHOWN]],
            t.settings.noise,
        ),
    ),
}


def of_table(table: str) -> list[str]:
    """The figures that are drawn from the runs of a table."""
    return [name for name, (its_table, _) in FIGURES.items() if its_table == table]
