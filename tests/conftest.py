"""Strict JAX settings, and the whole suite twice: once with x64 enabled, once in float32.

Every test runs under the session fixture `precision`, so that one plain `pytest` covers both runs;
pytest orders the tests by it, and no jit cache is thrown away in between. Markers:

* `x64`: needs float64, so it exists in the x64 run only (deselected, not skipped, in the float32
  run);
* `once`: does not depend on the precision at all; runs in the x64 run only;
* `f32`: training, which is done in float32; runs in the float32 run only.
"""

import contextlib
import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import hypothesis
import jax
import pytest

from jaxtv import _ffi
from testing import emulator, peers

RUNS = ("x64", "f32")
INSTALLED = "JAXTV_TEST_INSTALLED" in os.environ  # a wheel, without the sources of the emulation


def pytest_configure(config):
    config.addinivalue_line("markers", "x64: needs float64; only in the x64 run")
    config.addinivalue_line("markers", "once: independent of the precision; only in the x64 run")
    config.addinivalue_line("markers", "f32: training in float32; only in the float32 run")
    config.addinivalue_line("filterwarnings", "error::DeprecationWarning")
    config.addinivalue_line("markers", "host: not in the run on a GPU")
    if os.environ.get("JAXTV_REQUIRE_CUDA"):
        require_cuda()
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
    if "cuda" not in _ffi.REGISTERED:
        raise pytest.UsageError(
            "JAXTV_REQUIRE_CUDA is set, but jaxtv is built without CUDA kernels"
        )
    if os.environ.get("JAXTV_TEST_PLATFORM") == "simt":
        raise pytest.UsageError(
            "JAXTV_REQUIRE_CUDA and JAXTV_TEST_PLATFORM=simt exclude each other"
        )
    if _ffi.FALLBACK:
        raise pytest.UsageError("JAXTV_REQUIRE_CUDA and JAXTV_FALLBACK exclude each other")


def pytest_collection_modifyitems(config, items):
    def wanted(item):
        if emulator.on_gpu() and (
            item.get_closest_marker("host") or {"mesh", "prox_tv"} & set(item.fixturenames)
        ):
            return False
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if INSTALLED and ("simt" in item.fixturenames or "simt" in params.values()):
            return False
        run = params.get("precision", "x64")
        markers = ("f32",) if run == "x64" else ("x64", "once")
        return not any(item.get_closest_marker(name) for name in markers)

    dropped = [item for item in items if not wanted(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if wanted(item)]


@pytest.fixture(scope="session", autouse=True, params=RUNS)
def precision(request):
    """The run: "x64" or "f32"."""
    jax.config.update("jax_enable_x64", request.param == "x64")
    yield request.param
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session")
def prox_tv(request):
    """PyPI's prox_tv 3.2.1, built on first use; an error, never a skip, where that fails."""
    return peers.prox_tv(lambda: request.config.cache.mkdir("peers"))


@pytest.fixture(scope="session")
def simt(request):
    """CPU target -> target of the SIMT build of its CUDA kernel."""
    return emulator.load(request.config.cache.mkdir("simt"))


@pytest.fixture(autouse=emulator.on_gpu())
def cpu_beside_the_gpu(request):
    """On a GPU: what a test compares the CUDA kernels with is computed on the CPU."""
    beside = "simt" in request.fixturenames
    with jax.default_device(jax.devices("cpu")[0]) if beside else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session", autouse=os.environ.get("JAXTV_TEST_PLATFORM") == "simt")
def whole_suite_on_simt(simt):
    """JAXTV_TEST_PLATFORM=simt: every test runs on the CUDA kernels, where they are written."""
    with emulator.using(simt):
        yield
