"""The one training loop of all tasks: data-parallel, resumable, logged."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from jaxtv.nnx import TVLayer
from jaxtv.vision.files import replacing, write_text
from jaxtv.vision.task import Dataset, Settings, Task


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run; its folder holds all that is needed to go on or to evaluate.

    `run.json` (this), `log.csv` (a row per epoch), `checkpoints/`, and `result.json` at the end.
    """

    task: str
    variant: str
    settings: Settings
    seed: int
    data: str

    def write(self, folder: Path) -> None:
        """Writes `run.json`, or checks that the one there is the same run.

        Raises:
            ValueError: the folder holds another run.
        """
        here = dataclasses.asdict(self)
        path = folder / "run.json"
        if path.exists():
            there = dataclasses.asdict(Run.read(folder))  # with defaults of fields that are newer
            if there != here:
                differs = sorted(k for k in here if there[k] != here[k])
                raise ValueError(
                    f"`output` {folder} holds another run ({', '.join(differs)} differ); choose "
                    "another folder or remove it."
                )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, here)

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run that a folder holds.

        Raises:
            FileNotFoundError: it holds none.
        """
        path = folder / "run.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} is not the folder of a run: there is no {path.name} in it. "
                "`jaxtv train` makes one."
            )
        fields = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**fields, "settings": Settings(**fields["settings"])})


def write_json(path: Path, value: Any) -> None:
    """Writes the file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


# ---------------------------------------------------------------------------- one run


def train(task: Task, run: Run, data: Dataset, folder: Path, console: Console) -> dict[str, Any]:
    """Trains to the end, from the last checkpoint if there is one, and evaluates.

    Args:
        task: the task.
        run: what to train.
        data: its data.
        folder: of the run.
        console: where progress is shown.

    Returns:
        What `result.json` has: the metrics of `Task.evaluate`, λ of every TV layer, seconds.

    Raises:
        ValueError: `batch_size` is no multiple of the number of devices, or the folder holds
            another run.
        FloatingPointError: the loss is not finite.
    """
    run.write(folder)
    settings = run.settings
    steps = data.steps(settings.batch_size)
    if steps == 0:
        raise ValueError(
            f"`batch_size` {settings.batch_size} is more than the data has to train on "
            f"({data.description})."
        )
    model, optimizer = create(task, run, steps)
    sharding = batch_sharding(settings.batch_size)
    with checkpoints(folder) as manager:
        first = restore(manager, model, optimizer)
        replicate((model, optimizer), sharding.mesh)
        log = Log(folder / "log.csv", epochs=first)
        with progress(console) as bar:
            done = bar.add_task(f"{run.variant}", total=settings.epochs * steps, status="")
            bar.update(done, completed=first * steps)
            for epoch in range(first, settings.epochs):
                start = time.perf_counter()
                losses = []
                model.train()
                rng = np.random.default_rng((run.seed, epoch))
                for batch in data.epoch(rng, settings.batch_size):
                    batch = jax.device_put(batch, sharding)
                    losses.append(step(model, optimizer, batch, task))
                    bar.advance(done)
                row = {"epoch": epoch + 1, "loss": mean_loss(losses, epoch)}
                seconds = time.perf_counter() - start
                model.eval()
                row |= task.validate(model, data, settings) | lambdas(model)
                log.add(row | {"seconds": round(seconds, 3)})
                save(manager, epoch + 1, model, optimizer)
                bar.update(done, status=describe(row))
    model.eval()
    result = {
        "metrics": task.evaluate(model, data, settings),
        "lambdas": lambdas(model),
        "parameters": count_parameters(model),
        "seconds_per_epoch": log.median("seconds"),
        "devices": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
    }
    write_json(folder / "result.json", result)
    return result


def load(folder: Path, task: Task | None = None) -> tuple[Task, Run, Any]:
    """Task, run and trained model of a folder, ready for evaluation.

    Args:
        folder: of the run.
        task: what the run was trained with; None: the task of its name.

    Raises:
        FileNotFoundError: the folder belongs to no run, or has no checkpoint yet.
    """
    from jaxtv.vision.task import get_task

    run = Run.read(folder)
    task = task or get_task(run.task)
    model, optimizer = create(task, run, steps=1)
    with checkpoints(folder) as manager:
        if restore(manager, model, optimizer) == 0:
            raise FileNotFoundError(f"{folder} has no checkpoint: the run was stopped before one.")
    model.eval()
    return task, run, model


def create(task: Task, run: Run, steps: int) -> tuple[Any, nnx.Optimizer]:
    """Model and optimiser at the start, the same for the same seed."""
    model = task.build(run.variant, run.settings, nnx.Rngs(run.seed))
    return model, nnx.Optimizer(model, transformation(task, run.settings, steps), wrt=nnx.Param)


@functools.cache
def transformation(task: Task, settings: Settings, steps: int) -> optax.GradientTransformation:
    """One object for all seeds of a run, so that `step` is compiled once."""
    return task.optimizer(settings, settings.epochs * steps)


@functools.partial(nnx.jit, static_argnums=3)
def step(model: Any, optimizer: nnx.Optimizer, batch: Any, task: Task) -> jax.Array:
    """One step; returns the loss before it."""
    loss, grads = nnx.value_and_grad(lambda model: task.loss(model, batch))(model)
    optimizer.update(model, grads)
    return loss


def batch_sharding(batch_size: int) -> NamedSharding:
    """A batch spread over all devices by its first axis.

    Raises:
        ValueError: the devices do not divide it.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise ValueError(f"`batch_size` {batch_size} is no multiple of the {devices} devices.")
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("data"))


def replicate(modules: Any, mesh: Any) -> None:
    """Puts all state of modules on every device."""
    replicated = NamedSharding(mesh, PartitionSpec())
    nnx.update(modules, jax.device_put(nnx.state(modules), replicated))


def mean_loss(losses: list[jax.Array], epoch: int) -> float:
    """Mean of an epoch.

    Raises:
        FloatingPointError: it is not finite.
    """
    mean = float(np.mean(jax.device_get(losses)))
    if not np.isfinite(mean):
        raise FloatingPointError(
            f"the loss of epoch {epoch + 1} is {mean}; a smaller `learning_rate` may help."
        )
    return mean


def lambdas(model: Any) -> dict[str, float]:
    """λ (mean over channels) of every TV layer with a learned one, by its path in the model."""
    return {
        "lam/" + ".".join(map(str, path)): float(np.mean(module.lam))
        for path, module in nnx.iter_graph(model)
        if isinstance(module, TVLayer) and module.trainable
    }


def count_parameters(model: Any) -> int:
    """Number of trained values."""
    return sum(int(np.size(p)) for p in jax.tree.leaves(nnx.state(model, nnx.Param)))


# ---------------------------------------------------------------------------- checkpoints


def checkpoints(folder: Path) -> ocp.CheckpointManager:
    """Orbax manager of a run: the last epoch only, whole or not there."""
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    return ocp.CheckpointManager((folder / "checkpoints").absolute(), options=options)


def save(manager: ocp.CheckpointManager, epochs: int, model: Any, optimizer: Any) -> None:
    """Saves all state after `epochs`."""
    state = nnx.to_pure_dict(nnx.state((model, optimizer)))
    manager.save(epochs, args=ocp.args.StandardSave(jax.tree.map(raw_key, state)))


def restore(manager: ocp.CheckpointManager, model: Any, optimizer: Any) -> int:
    """Brings back the last state; returns after how many epochs it was saved (0: none)."""
    last = manager.latest_step()
    if last is None:
        return 0
    state = nnx.state((model, optimizer))
    pure = nnx.to_pure_dict(state)
    saved = manager.restore(last, args=ocp.args.StandardRestore(jax.tree.map(raw_key, pure)))
    nnx.replace_by_pure_dict(state, jax.tree.map(as_key, pure, saved))
    nnx.update((model, optimizer), state)
    return last


def raw_key(x: jax.Array) -> jax.Array:
    """Random keys (of dropout) as the integers that a checkpoint can hold."""
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def as_key(like: jax.Array, x: jax.Array) -> jax.Array:
    """The inverse of `raw_key`."""
    is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(x) if is_key else x


# ---------------------------------------------------------------------------- logs


class Log:
    """`log.csv`: a row per epoch; rows after the checkpoint that a run resumes from are dropped."""

    def __init__(self, path: Path, epochs: int):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))[:epochs]

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row and writes the file."""
        self.rows.append(row)
        with replacing(self.path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)

    def median(self, column: str) -> float:
        """Median of a column, over the epochs so far."""
        return float(np.median([float(row[column]) for row in self.rows]))


def progress(console: Console) -> Progress:
    """Steps done, time left, and the last epoch's numbers."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    status = TextColumn("{task.fields[status]}", table_column=Column(overflow="fold"))
    return Progress(*columns, TimeRemainingColumn(), status, console=console)


def describe(row: dict[str, Any]) -> str:
    """A row of the log in few words."""
    return "  ".join(f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, float))
