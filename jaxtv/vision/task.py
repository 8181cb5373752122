"""What a vision task is: model, data, loss and metrics.

To add a task: put a module with a subclass of `Task` into `jaxtv/vision/tasks`. Training,
checkpoints, logs, the commands and `jaxtv reproduce` work on it then.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxtv.vision import tasks

Batch = dict[str, Any]
Preset = Literal["smoke", "small", "paper"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is built and trained. A preset of a task has a value for each.

    Attributes:
        epochs: passes over the training data (where crops are random: over its images).
        batch_size: examples per step, over all devices.
        learning_rate: of the weights, at its highest.
        lam_learning_rate: of every λ̃ (λ = softplus(λ̃)).
        weight_decay: of the weights, never of λ̃.
        width: channels of the network; the paper's number is in the preset `paper`.
        depth: blocks or layers of the network.
        size: side of training examples in pixels; classification: of random crops, where the
            images are larger.
        limit: most training and test examples that are used; 0: all.
        sweeps: Dykstra iterations K of every TV layer (the paper: 3 or 4).
        init_lam: λ of the TV layers before training; 0: as the paper or the task sets it.
        classes: classification and wsol: number of classes.
        dropout: classification: share of features that are dropped; of the input 0.4 times that.
        noise: denoising: σ on the scale 0..255.
        backbone: wsol: the classifier.
        precision: of activations; weights, statistics and losses stay float32.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    lam_learning_rate: float
    width: int
    depth: int
    size: int
    weight_decay: float = 0.0
    limit: int = 0
    sweeps: int = 4
    init_lam: float = 0.0
    classes: int = 10
    dropout: float = 0.5
    noise: float = 25.0
    backbone: Literal["vgg16", "resnet50", "inception3"] = "vgg16"
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def dtype(self) -> jnp.dtype:
        """What activations are computed in."""
        return jnp.dtype(self.precision)


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: of the column.
        metric: key of `Task.evaluate`.
        paper: the paper's value, by variant, or by `group/variant` where there are groups.
    """

    title: str
    metric: str
    paper: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of the paper: all variants of a task over several seeds.

    Attributes:
        title: of the table.
        columns: what is reported.
        groups: name -> what each group of runs changes of the preset; most tables have one group.
    """

    title: str
    columns: tuple[Column, ...]
    groups: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: {"": {}})


class DataError(ValueError):
    """Data that is missing, damaged or laid out differently; the message says what to do."""


class Dataset(abc.ABC):
    """Training and test examples of one task.

    Attributes:
        description: what the data is and how many examples there are, for logs and tables.
    """

    description: str

    @abc.abstractmethod
    def steps(self, batch_size: int) -> int:
        """Batches of an epoch."""

    @abc.abstractmethod
    def epoch(self, rng: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """Batches of one epoch: arrays with `batch_size` examples, always the same shapes.

        The same generator state gives the same batches, so a resumed run sees what it would have.
        """


class Task(abc.ABC):
    """One task of the paper.

    Attributes:
        variants: name -> what it is; the first is the baseline, without TV layers.
        presets: settings by name.
        metric: key of the main result of `evaluate`.
        higher_is_better: of that metric.
        tables: the paper's tables on this task, by the name that `jaxtv reproduce` takes.
    """

    variants: ClassVar[Mapping[str, str]]
    presets: ClassVar[Mapping[str, Settings]]
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    tables: ClassVar[Mapping[str, Table]] = {}

    @property
    def name(self) -> str:
        """That of the module, which is also that in the commands."""
        return type(self).__module__.rpartition(".")[2]

    @abc.abstractmethod
    def load(self, data: Path | None, settings: Settings) -> Dataset:
        """The data in a folder or file, None: embedded data, made here or bundled.

        Raises:
            DataError: names the path, what was expected there, and how to get it.
        """

    @abc.abstractmethod
    def build(self, variant: str, settings: Settings, rngs: nnx.Rngs) -> nnx.Module:
        """The model, with or without TV layers; the same `rngs` give the same common weights."""

    @abc.abstractmethod
    def loss(self, model: Any, batch: Batch) -> jax.Array:
        """Mean training loss of a batch, float32 ()."""

    @abc.abstractmethod
    def evaluate(self, model: Any, data: Any, settings: Settings) -> dict[str, float]:
        """All metrics on the test examples, `metric` among them."""

    def validate(self, model: Any, data: Any, settings: Settings) -> dict[str, float]:
        """What is logged after each epoch: cheap, on data that is not trained on."""
        return self.evaluate(model, data, settings)

    def optimizer(self, settings: Settings, steps: int) -> optax.GradientTransformation:
        """The optimiser for a run of `steps`; Adam with a cosine schedule, faster or slower for λ̃.

        Args:
            settings: rates and decay.
            steps: of the whole run.
        """
        return with_lam_rate(
            optax.adamw(cosine(settings.learning_rate, steps), weight_decay=settings.weight_decay),
            optax.adam(cosine(settings.lam_learning_rate, steps)),
        )


@nnx.jit
def apply(model: Any, x: jax.Array) -> jax.Array:
    """The model on x, compiled once per shape."""
    return model(x)


def cosine(peak: float, steps: int) -> optax.Schedule:
    """From `peak` down to 0 in `steps`, after a warm-up of at most a twentieth of them."""
    warmup = min(steps // 20, 500)
    return optax.warmup_cosine_decay_schedule(0.1 * peak, peak, warmup, steps)


def with_lam_rate(
    weights: optax.GradientTransformation, lam: optax.GradientTransformation
) -> optax.GradientTransformation:
    """One transformation for λ̃ (parameters named `raw_lam`), another for all else."""

    def labels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "lam" if "raw_lam" in jax.tree_util.keystr(path) else "weights", params
        )

    return optax.partition({"weights": weights, "lam": lam}, labels)


def task_names() -> list[str]:
    """All tasks: the modules of `jaxtv.vision.tasks`."""
    return [module.name for module in pkgutil.iter_modules(tasks.__path__)]


def get_task(name: str, argument: str = "task") -> Task:
    """The task of that name, which the user gave as `argument`; its module is imported here.

    The same object for the same name: what is compiled for it is compiled once.

    Raises:
        ValueError: there is none.
    """
    if name not in task_names():
        raise ValueError(f"`{argument}` must be one of {', '.join(task_names())}, got {name!r}.")
    module = importlib.import_module(f"{tasks.__name__}.{name}")
    classes = (c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Task))
    return _instance(next(c for c in classes if c.__module__ == module.__name__))


@functools.cache
def _instance(task: type[Task]) -> Task:
    return task()


def settings_of(task: Task, preset: str, overrides: Mapping[str, Any] | None = None) -> Settings:
    """A preset with some values replaced (those that are not None).

    Raises:
        ValueError: an unknown preset, or a value that makes no sense.
    """
    if preset not in task.presets:
        raise ValueError(f"`preset` must be one of {', '.join(task.presets)}, got {preset!r}.")
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    settings = dataclasses.replace(task.presets[preset], **given)
    for field in ("epochs", "batch_size", "width", "depth", "size", "sweeps", "classes"):
        if getattr(settings, field) < 1:
            raise ValueError(f"`{field}` must be at least 1, got {getattr(settings, field)}.")
    for field in ("learning_rate", "lam_learning_rate", "weight_decay", "limit", "init_lam"):
        if not getattr(settings, field) >= 0:
            raise ValueError(f"`{field}` must not be negative, got {getattr(settings, field)}.")
    if not 0 <= settings.dropout < 1:
        raise ValueError(f"`dropout` must be in [0, 1), got {settings.dropout}.")
    return settings
