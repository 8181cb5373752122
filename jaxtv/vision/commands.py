"""`jaxtv train | evaluate | reproduce | data`: the commands on top of the tasks."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from jaxtv.vision.files import write_text
from jaxtv.vision.readers import catalogue
from jaxtv.vision.task import DataError, Preset, get_task, settings_of

DATA_VARIABLE = "JAXTV_DATA"


@dataclasses.dataclass(frozen=True)
class Overrides:
    """Values to use in place of the preset's; see `jaxtv.vision.task.Settings`.

    Attributes:
        epochs: passes over the training data.
        batch_size: examples per step, over all devices.
        learning_rate: of the weights, at its highest.
        lam_learning_rate: of every λ̃ (λ = softplus(λ̃)).
        weight_decay: of the weights.
        width: channels of the network.
        depth: blocks or layers of the network.
        size: side of training examples in pixels; classification: of random crops, where the
            images are larger.
        limit: most examples that are used; 0: all.
        sweeps: Dykstra iterations of every TV layer.
        init_lam: λ of the TV layers before training; 0: as the task sets it.
        classes: classification and wsol: number of classes.
        dropout: classification: share of features that are dropped; of the input 0.4 times that.
        noise: denoising: σ on the scale 0..255.
        backbone: wsol: the classifier.
        precision: of activations.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    lam_learning_rate: float | None = None
    weight_decay: float | None = None
    width: int | None = None
    depth: int | None = None
    size: int | None = None
    limit: int | None = None
    sweeps: int | None = None
    init_lam: float | None = None
    classes: int | None = None
    dropout: float | None = None
    noise: float | None = None
    backbone: Literal["vgg16", "resnet50", "inception3"] | None = None
    precision: Literal["float32", "bfloat16"] | None = None


NoOverrides = Overrides()


def train(
    task: str,
    variant: str = "baseline",
    preset: Preset = "small",
    data: Path | None = None,
    output: Path | None = None,
    seed: int = 0,
    overrides: Annotated[Overrides, tyro.conf.OmitArgPrefixes] = NoOverrides,
) -> None:
    """Train one model of a task; goes on from its last epoch if it was stopped.

    Args:
        task: classification, wsol, edges, smoothing or denoising.
        variant: baseline, or with TV layers: the names depend on the task.
        preset: smoke: a minute; small: within 20 minutes on 2 cores; paper: the paper's setting.
        data: file or folder; else the folder of the task in $JAXTV_DATA, else embedded data.
        output: folder of the run; by default runs/TASK/PRESET/VARIANT/seedN.
        seed: of weights, order and noise.
        overrides: replace values of the preset.
    """

    def run() -> None:
        from jaxtv.vision import training  # needs orbax, which `jaxtv demo` does not

        chosen = get_task(task)
        _check_variant(chosen, variant)
        settings = settings_of(chosen, preset, dataclasses.asdict(overrides))
        folder = output or Path("runs", task, preset, variant, f"seed{seed}")
        console = Console()
        source = data or default_data(task)
        dataset = chosen.load(source, settings)
        console.print(f"{task}, {variant}: {dataset.description}; writing to {folder}")
        described = training.Run(task, variant, settings, seed, dataset.description)
        result = training.train(chosen, described, dataset, folder, console)
        show(f"{task}, {variant}", result, console)

    _guarded("train", run)


def evaluate(
    what: Path,
    data: Path | None = None,
    weights: Path | None = None,
    side: int | None = None,
    limit: int | None = None,
    seeds: int | None = None,
    runs: Path | None = None,
    output: Path = Path("runs"),
) -> None:
    """Measure a trained model again, also on other data, or what TV adds to released weights.

    With --weights, writes OUTPUT/TASK-released.json and .md, and a figure .png and .pdf. Goes on
    from OUTPUT/TASK-released/ if it was stopped.

    Args:
        what: the folder of a run; with --weights a task: classification, denoising, edges or wsol.
        data: file or folder; by default as for `jaxtv train`.
        weights: folder with the weights that others have released; see `jaxtv data list`.
        side: denoising with --weights: of the centre of each test picture that is measured;
            0, the default: all of it.
        limit: other tasks with --weights: most test pictures that are measured; 0: all.
        seeds: classification and denoising with --weights: of fine-tuning; 0, the default: none.
        runs: classification with --weights: folder VARIANT/seedN of networks that were trained
            on CIFAR-10, which are measured too; `jaxtv reproduce table2` makes it.
        output: with --weights: folder of the results.
    """

    def run() -> None:
        if weights is not None:
            source = data or default_data(str(what))
            options = {"side": side, "limit": limit, "seeds": seeds, "runs": runs}
            evaluate_released(str(what), weights, source, options, output)
            return
        from jaxtv.vision import training

        task, described, model = training.load(what)
        dataset = task.load(data or default_data(task.name), described.settings)
        metrics = task.evaluate(model, dataset, described.settings)
        result = {"metrics": metrics, "lambdas": training.lambdas(model)}
        show(f"{task.name}, {described.variant}: {dataset.description}", result, Console())

    _guarded("evaluate", run)


def evaluate_released(
    task: str, weights: Path, data: Path | None, options: Mapping[str, Any], output: Path
) -> None:
    """Measures released weights with and without TV layers; prints and writes the results.

    Raises:
        ValueError: a task without released weights, no data, or an option that is below 0 or that
            the task does not have.
        DataError: weights or data are missing or damaged.
    """
    from jaxtv.vision import figures, released, training
    from jaxtv.vision.reproduce import markdown_of

    if task not in released.TASKS:
        known = ", ".join(released.TASKS)
        raise ValueError(f"`what` must be one of {known} with `--weights`, got {task!r}.")
    if data is None:
        raise ValueError(f"`--data` is missing: name a folder of pictures or set ${DATA_VARIABLE}.")
    study, console = released.TASKS[task], Console()
    given = {option: value for option, value in options.items() if value is not None}
    for option, value in given.items():
        if option not in study.OPTIONS:
            raise ValueError(f"`--{option}` is no option of {task} with `--weights`.")
        if isinstance(value, int) and value < 0:
            raise ValueError(f"`--{option}` must be 0 or more, got {value}.")
    name = output / f"{task}-released"
    results = study.evaluate(weights, data, name, console, **given)
    lines = study.table(results)
    shown = Table(*lines[0], title=f"{task}, released weights: {results['data']}")
    for line in lines[1:]:
        shown.add_row(*line)
    console.print(shown)
    training.write_json(Path(f"{name}.json"), results)
    write_text(Path(f"{name}.md"), markdown_of(lines) + "\n")
    figures.save(study.figure(results), name)
    console.print(f"wrote {name}.json, .md, .png and .pdf", soft_wrap=True)


def reproduce(
    what: str,
    preset: Preset = "small",
    data: Path | None = None,
    output: Path = Path("runs"),
    seeds: int = 3,
    overrides: Annotated[Overrides, tyro.conf.OmitArgPrefixes] = NoOverrides,
) -> None:
    """Train every variant and seed of a table of the paper, print it next to the paper's numbers.

    What was done before is not done again. A table writes OUTPUT/WHAT-PRESET.json and .md and the
    figures of its task, a figure its own: OUTPUT/FIGURE.png and .pdf.

    Args:
        what: table2 (classification), table3 (wsol), table4 (edges), table5 (smoothing), table6
            (denoising), fig1, fig3 (classification), fig4 (wsol), fig5 (edges), fig6, fig7
            (smoothing), fig8 (denoising).
        preset: smoke, small or paper.
        data: file or folder; by default as for `jaxtv train`.
        output: folder of the runs and of the results.
        seeds: runs of each variant.
        overrides: replace values of the preset.
    """

    def run() -> None:
        from jaxtv.vision import figures, training
        from jaxtv.vision import reproduce as tables

        output.mkdir(parents=True, exist_ok=True)
        console = Console()

        def save(name: str, figure) -> None:
            figures.save(figure, output / name)
            console.print(f"wrote {output / name}.png and .pdf", soft_wrap=True)

        if what == "fig1":
            save(what, figures.figure1())
            return
        is_figure = what in figures.FIGURES
        name = figures.FIGURES[what][0] if is_figure else what
        task, table = tables.find(name)
        settings = tables.settings_by_group(task, table, preset, dataclasses.asdict(overrides))
        group, first = next(iter(settings.items()))  # what figures show
        source = data or default_data(task.name)
        needed = {group: first} if is_figure else settings
        results = tables.run_all(task, preset, needed, source, output, seeds, console)
        tables.show(table, results, console)
        if not is_figure:
            training.write_json(output / f"{what}-{preset}.json", results)
            write_text(output / f"{what}-{preset}.md", tables.markdown(table, results) + "\n")
            console.print(f"wrote {output / what}-{preset}.json and .md", soft_wrap=True)
        for figure in [what] if is_figure else figures.of_table(name):
            save(figure, tables.draw(figure, preset, first, source, output))

    _guarded("reproduce", run)


def data(
    action: Literal["list", "fetch", "check"],
    name: tyro.conf.Positional[str] = "",
    folder: Path = Path("data"),
) -> None:
    """List public data sets, fetch one, or check a folder for a task.

    Args:
        action: list, fetch or check.
        name: fetch: of the data set; check: of the task.
        folder: fetch: where to put it; check: what to look at.
    """

    def run() -> None:
        console = Console()
        if action == "list":
            list_data(console)
        elif action == "fetch":
            catalogue.fetch(catalogue.find(name), folder, console)
            console.print(f"{name} is in {folder}")
        else:
            task = get_task(name, "name")
            if not folder.exists():
                raise DataError(f"`--folder` {folder} does not exist.")
            found = task.load(folder, settings_of(task, "paper", {"size": 1}))
            console.print(f"{folder}: {found.description}")

    _guarded(f"data {action}", run)


def list_data(console: Console) -> None:
    """Prints the catalogue."""
    for name, source in catalogue.CATALOGUE.items():
        how = f"jaxtv data fetch {name}" if source.url else "by hand, from the page"
        lines = [f"{name} ({source.task})", how, source.layout, source.page]
        lines += [source.terms] if source.terms else []
        console.print("\n    ".join(lines), markup=False, highlight=False, soft_wrap=True)


def default_data(task: str) -> Path | None:
    """What `$JAXTV_DATA` has for a task: a folder of the task's name, or the folder itself."""
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        return None
    named = Path(root, task)
    return named if named.exists() else Path(root)


def show(title: str, result: dict, console: Console) -> None:
    """Prints metrics and λ as a table."""
    table = Table("", "value", title=title)
    for name, value in (result["metrics"] | result["lambdas"]).items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)


def _check_variant(task, variant: str) -> None:
    if variant not in task.variants:
        known = "; ".join(f"{name}: {what}" for name, what in task.variants.items())
        raise ValueError(f"`variant` must be one of {task.name}'s ({known}), got {variant!r}.")


def _guarded(command: str, run: Callable[[], None]) -> None:
    """Mistakes of the user end in one line, not in a traceback."""
    try:
        run()
    except (FloatingPointError, OSError, ValueError) as error:
        sys.exit(f"jaxtv {command}: {error}")
