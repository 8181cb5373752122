"""Arrays of more than 2^31 samples, of which the emulator runs the first and the last block of each launch."""

import pytest

from testing import emulator

pytestmark = [pytest.mark.cpu_only, pytest.mark.unsanitized]

HUGE = 1 << 31
METHODS = ["direct", "taut string", "decomposition", "newton"]  # by the number of the C++ enum


@pytest.mark.parametrize(
    ("method", "outer", "n", "inner"),
    [
        ("direct", HUGE // 32 + 3, 32, 1),
        ("direct", 3, 32, HUGE // 64),
        ("direct", HUGE // 200 + 3, 200, 1),
        ("direct", 5, 600, HUGE // 1200),
        ("direct", HUGE // 2048 + 3, 2048, 1),
        ("decomposition", HUGE // 200 + 3, 200, 1),
        ("decomposition", HUGE // 700 + 3, 700, 1),
        ("taut string", HUGE // 2048 + 3, 2048, 1),
        ("newton", HUGE // 32 + 3, 32, 1),
        ("newton", HUGE // 700 + 3, 700, 1),
        ("newton", HUGE // 2048 + 3, 2048, 1),
    ],
)
def test_prox1d_and_its_vjp(method, outer, n, inner):
    assert outer * n * inner > HUGE
    assert emulator.library().emulator_huge(METHODS.index(method), outer, n, inner) == b""


@pytest.mark.parametrize(
    ("kernel", "axes", "batch", "n", "inner"),
    [
        ("pass_of_tiles", 1, HUGE // 32 + 3, 32, 1),
        ("pass_of_tiles", 1, 3, 32, HUGE // 64),
        ("prox_wide", 1, HUGE // 2048 + 3, 2048, 1),
        ("image_dykstra", 2, HUGE // 1600 + 3, 40, 40),
    ],
)
def test_dykstra_and_its_derivatives(kernel, axes, batch, n, inner):
    assert batch * n * inner > HUGE
    with emulator.launches() as launches:
        assert emulator.library().emulator_huge_dykstra(axes, batch, n, inner) == b""
    assert kernel in {launch.kernel for launch in launches}


def test_components():
    """A batch of them is done in parts; one array of them is refused."""
    assert emulator.library().emulator_huge_components(2**26 + 20, 4, 8) == b""
    refused = emulator.library().emulator_huge_components(1, 2**16, 2**15)
    assert b"more than 2^31 - 1 samples" in refused
