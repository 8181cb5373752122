"""Strict JAX settings, the precision of a test, and what runs where.

A test runs once, with x64 enabled; arrays of float32 are tested there too. Its markers say otherwise:

* `both_precisions`: a second time without x64, as users have it by default: for what depends on the
  default dtype (promotion, transformations, layers) and for proofs in the dtype of the run;
* `float32`: only without x64 (training);
* `cpu_only`: not in the run on a GPU;
* `nightly`: not in the test command; `.ci/nightly` runs it;
* `sanitized`: on the emulator only where it is sanitised (`.ci/run`), which proves its values too;
* `unsanitized`: not on the sanitised emulator: its shapes are those of other tests, only the values
  are new; or it needs half types, or more memory than a sanitiser leaves;
* `ptx`: only where nvcc's compiled code runs, by `python -m testing.ptx` (testing/ptx).

That a float32 array gives the same bits with and without x64 is what tests/api/test_precision.py shows.
"""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import hypothesis
import jax
import pytest

from jaxtv import _native
from testing import emulator, peers, ptx

MARKERS = {
    "both_precisions": "with x64 enabled, and without",
    "float32": "only without x64",
    "cpu_only": "not in the run on a GPU",
    "nightly": "not in the test command, but in .ci/nightly",
    "sanitized": "only on the sanitised emulator, or on a GPU",
    "unsanitized": "not on the sanitised emulator",
    "ptx": "only in python -m testing.ptx",
}
EMULATED = os.environ.get("JAXTV_TEST_PLATFORM") == "emulator"


def pytest_configure(config):
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    config.addinivalue_line("filterwarnings", "error::DeprecationWarning")
    if os.environ.get("JAXTV_REQUIRE_CUDA"):
        require_cuda()
    if getattr(config.option, "dist", None) == "load":  # of `-n`
        # Each worker starts with one stretch of the tests: what a module compiles or builds once is
        # compiled in one worker.
        config.option.dist = "worksteal"
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    hypothesis.settings.register_profile(
        "ci", deadline=None, derandomize=True, database=None, max_examples=40
    )
    hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def require_cuda():
    """The CUDA kernels will run, on a GPU: no emulation, no fallback, no CPU."""
    if not emulator.on_gpu():
        raise pytest.UsageError("JAXTV_REQUIRE_CUDA is set, but JAX sees no CUDA device")
    if "cuda" not in _native.REGISTERED:
        raise pytest.UsageError(
            "JAXTV_REQUIRE_CUDA is set, but jaxtv is built without CUDA kernels"
        )
    if EMULATED:
        raise pytest.UsageError(
            "JAXTV_REQUIRE_CUDA and JAXTV_TEST_PLATFORM=emulator exclude each other"
        )
    if _native.FALLBACK:
        raise pytest.UsageError("JAXTV_REQUIRE_CUDA and JAXTV_FALLBACK exclude each other")


def pytest_generate_tests(metafunc):
    """Without a parameter, the fixture `precision` is x64."""
    markers = {mark.name for mark in metafunc.definition.iter_markers()}
    if "both_precisions" in markers:
        metafunc.parametrize("precision", ["x64", "float32"], indirect=True, scope="session")
    elif "float32" in markers:
        metafunc.parametrize("precision", ["float32"], indirect=True, scope="session")


def pytest_collection_modifyitems(config, items):
    def wanted(item):
        apart = item.get_closest_marker("cpu_only") or {"mesh", "prox_tv"} & set(item.fixturenames)
        other = "unsanitized" if emulator.SANITIZED else "sanitized"
        other_emulator = item.get_closest_marker(other) and not emulator.on_gpu()
        other_machine = item.get_closest_marker("ptx") and not ptx.wanted()
        return not (other_emulator or other_machine or (apart and emulator.on_gpu()))

    dropped = [item for item in items if not wanted(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if wanted(item)]


@pytest.fixture(scope="session", autouse=True)
def precision(request):
    """The precision of the run: "x64" or "float32"."""
    run = getattr(request, "param", "x64")
    jax.config.update("jax_enable_x64", run == "x64")
    yield run
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session")
def prox_tv(request):
    """PyPI's prox_tv 3.2.1, built on first use; an error, never a skip, where that fails."""
    return peers.prox_tv(lambda: request.config.cache.mkdir("peers"))


@pytest.fixture(scope="session", autouse=EMULATED)
def whole_suite_on_the_emulator():
    """JAXTV_TEST_PLATFORM=emulator: every test runs on the CUDA kernels, where they are written."""
    with emulator.using():
        yield
