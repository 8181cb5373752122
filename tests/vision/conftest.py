"""What tests of jaxtv.vision share: cheap compilations, and one short training of each task."""

import contextlib
import io
from typing import NamedTuple

import jax
import pytest
from flax import nnx

from jaxtv.vision import commands, training
from jaxtv.vision.task import get_task, settings_of

# Of each task's variant with TV layers: as little as still has every step of a training. The
# networks are the smallest of their kind; their preset `smoke` differs in the amount of data.
SHORT = {
    "classification": ("tv-smooth", {"limit": 16, "batch_size": 16}),
    "wsol": ("tv", {"limit": 16}),
    "edges": ("tv", {"limit": 2}),
    "smoothing": ("tv", {"limit": 2}),
    "denoising": ("tv", {"limit": 2}),
}
SHARDED = "denoising"  # its batches are spread over all devices, the others use one


@contextlib.contextmanager
def compiled_fast():
    """Initial weights compile ten times faster: keys of "rbg" replace threefry's.

    Nothing that is tested depends on the kind of key. Flax and Optax promote dtypes.
    """
    with jax.default_prng_impl("rbg"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(autouse=True)
def _compiled_fast():
    with compiled_fast():
        yield


@pytest.fixture
def flax_broadcasts():
    """Batch norm and convolutions of Flax promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


class Trained(NamedTuple):
    """What `jaxtv train` left and printed, and the model."""

    folder: object
    printed: str
    model: object
    data: object
    settings: object


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Name of a task -> its short training, done once."""
    done = {}

    def get(name):
        if name not in done:
            variant, changes = SHORT[name]
            folder = tmp_path_factory.mktemp(name)
            printed = io.StringIO()
            devices = contextlib.nullcontext() if name == SHARDED else one_device()
            with compiled_fast(), jax.numpy_rank_promotion("allow"), devices:
                with contextlib.redirect_stdout(printed):
                    overrides = commands.Overrides(**changes)
                    commands.train(name, variant, "smoke", output=folder, overrides=overrides)
                task, run, model = training.load(folder)
                data = task.load(None, run.settings)
            done[name] = Trained(folder, printed.getvalue(), model, data, run.settings)
        return done[name]

    return get


@contextlib.contextmanager
def one_device():
    """Training uses one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "device_count", lambda: 1)
        yield


@pytest.fixture(scope="session")
def untrained():
    """Task and variant -> the model of its preset `smoke` before training, built once."""
    built = {}

    def get(name, variant):
        if (name, variant) not in built:
            task = get_task(name)
            with compiled_fast():
                model = task.build(variant, settings_of(task, "smoke"), nnx.Rngs(0))
            model.eval()
            built[name, variant] = model
        return nnx.clone(built[name, variant])

    return get
