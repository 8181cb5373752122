"""`jaxtv reproduce`: all variants and seeds of a table, next to the paper's numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable

from jaxtv.vision import figures, files, processes, training
from jaxtv.vision.task import Preset, Settings, Table, Task, get_task, settings_of, task_names

WIDE = 4  # metrics: a table of more has a row for each of them


def find(name: str) -> tuple[Task, Table]:
    """The task and the table of that name.

    Raises:
        ValueError: no task has it.
    """
    tasks = [get_task(task) for task in task_names()]
    found = {table: task for task in tasks for table in task.tables}
    if name not in found:
        known = ", ".join([*sorted(found), "fig1", *figures.FIGURES])
        raise ValueError(f"`what` must be one of {known}, got {name!r}.")
    return found[name], found[name].tables[name]


def settings_by_group(
    task: Task, table: Table, preset: Preset, overrides: Mapping[str, Any] | None = None
) -> dict[str, Settings]:
    """Settings of each group of a table: the preset, what the group changes, then `overrides`."""
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    return {
        group: settings_of(task, preset, dict(changes) | given)
        for group, changes in table.groups.items()
    }


def run_all(
    task: Task,
    preset: str,
    settings: Mapping[str, Settings],
    data: Path | None,
    output: Path,
    seeds: int,
    console: Console,
) -> dict[str, Any]:
    """Trains and evaluates what is not done yet; returns all results.

    Args:
        task: what to train.
        preset: name of the settings, part of the folders' names.
        settings: group of the table -> its settings.
        data: file or folder; None: embedded data.
        output: folder under which each run has its own.
        seeds: runs of each variant.
        console: where progress is shown.

    Returns:
        `data`, `preset`, and `runs`: group -> variant -> a result per seed.
    """
    data_of = {group: task.load(data, chosen) for group, chosen in settings.items()}
    planned = [
        (group, training.Run(task.name, variant, chosen, seed, data_of[group].description))
        for group, chosen in settings.items()
        for seed in range(seeds)
        for variant in task.variants
    ]
    places = [folder_of(output, task, preset, g, run.variant, run.seed) for g, run in planned]
    missing = [
        (run, data, folder)
        for (_, run), folder in zip(planned, places)
        if not (folder / "result.json").exists()
    ]
    train_at_once(missing, console)
    runs = {group: {variant: [] for variant in task.variants} for group in settings}
    for (group, run), folder in zip(planned, places):
        result = result_of(task, run, data_of[group], folder, console)
        runs[group][run.variant].append(result)
    description = [*data_of.values()][-1].description
    return {"data": description, "preset": preset, "runs": runs}


def train_at_once(
    missing: Sequence[tuple[training.Run, Path | None, Path]], console: Console
) -> None:
    """Trains runs in pinned processes, where there are several runs and several cores for them.

    Args:
        missing: run, data and folder of each.
        console: where it says what is done.
    """
    pins = processes.cores()[: len(missing)]
    if len(pins) < 2:
        return
    console.print(f"training {len(missing)} runs, {len(pins)} at once, each on one core")
    for i, _ in processes.each_on_a_core(processes.train, missing, pins):
        console.print(f"{missing[i][2]}: trained")


def folder_of(output: Path, task: Task, preset: str, group: str, variant: str, seed: int) -> Path:
    """Where one run of a table is."""
    return Path(output, task.name, preset, group, variant, f"seed{seed}")


def draw(name: str, preset: str, settings: Settings, data: Path | None, output: Path) -> Figure:
    """A figure from the runs of its table's first group, which `run_all` has made."""
    table, make = figures.FIGURES[name]
    task, found = find(table)
    group = next(iter(found.groups))
    runs = {
        variant: files.entries(folder_of(output, task, preset, group, variant, 0).parent)
        for variant in task.variants
    }
    models = {variant: training.load(folders[0])[2] for variant, folders in runs.items()}
    logs = {
        variant: [folder / "log.csv" for folder in folders] for variant, folders in runs.items()
    }
    return make(figures.Trained(models, logs, task.load(data, settings), settings))


def result_of(task: Task, run: training.Run, dataset, folder: Path, console: Console) -> Any:
    """The result of one run: as it stands in its folder, else by training (to the end)."""
    path = folder / "result.json"
    if path.exists():
        run.write(folder)  # refuses another run's result
        return json.loads(path.read_text(encoding="utf-8"))
    console.print(f"{folder}: training")
    return training.train(task, run, dataset, folder, console)


def rows_of(table: Table, results: Mapping[str, Any]) -> list[list[str]]:
    """The table: group, variant, then ours and the paper's for each column, then the mean λ.

    A group that was not run has the paper's numbers alone.
    """
    rows = []
    missing = {variant: [] for variant in next(iter(results["runs"].values()))}
    for group in table.groups:
        for variant, found in results["runs"].get(group, missing).items():
            row = [group, variant]
            key = f"{group}/{variant}" if group else variant
            for column in table.columns:
                values = [
                    r["metrics"][column.metric] for r in found if column.metric in r["metrics"]
                ]
                row += [spread(values), column.paper.get(key, "—")]
            lams = [list(r["lambdas"].values()) for r in found]
            row.append(", ".join(f"{v:.3g}" for v in np.mean(lams, axis=0)) if any(lams) else "—")
            rows.append(row)
    return rows


def spread(values: list[float]) -> str:
    """Mean ± standard deviation over seeds; a dash where the data has no such test set."""
    if not values:
        return "—"
    digits = 3 if abs(np.mean(values)) < 2 else 2
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def header_of(table: Table) -> list[str]:
    """Titles of `rows_of`."""
    titles = [t for c in table.columns for t in (c.title, "paper")]
    return ["", "variant", *titles, "λ"]


def lines_of(table: Table, results: Mapping[str, Any]) -> list[list[str]]:
    """The table with its header; on its side where there are many metrics."""
    header, rows = header_of(table), rows_of(table, results)
    return sideways(header, rows) if len(table.columns) > WIDE else [header, *rows]


def sideways(header: list[str], rows: list[list[str]]) -> list[list[str]]:
    """A row for each metric, and for each variant a column with ours and one with the paper's."""
    variants = [" ".join(filter(None, row[:2])) for row in rows]
    lines = [["", *(title for variant in variants for title in (variant, "paper"))]]
    for i in range(2, len(header) - 1, 2):
        lines.append([header[i], *(cell for row in rows for cell in row[i : i + 2])])
    return [*lines, ["λ", *(cell for row in rows for cell in (row[-1], ""))]]


def markdown(table: Table, results: Mapping[str, Any]) -> str:
    """The table for docs/results-thin.md."""
    return markdown_of(lines_of(table, results))


def markdown_of(lines: list[list[str]]) -> str:
    """A table in Markdown; the first line is its header."""
    header, *rows = lines
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def show(table: Table, results: Mapping[str, Any], console: Console) -> None:
    """Prints the table."""
    header, *rows = lines_of(table, results)
    columns = (Column(title, overflow="fold") for title in header)
    shown = RichTable(*columns, title=f"{table.title}: {results['data']}")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
