"""The scratch that the CUDA kernels ask for (cuda/scratch.hpp), in sizes that no test can run."""

import itertools

import pytest

from testing.emulator import scratch_bytes

pytestmark = pytest.mark.cpu_only
TARGETS = [
    "prox1d",
    "prox1d_info",
    "prox1d_data_weight",
    "segment_jvp",
    "segment_vjp",
    "dykstra",
    "dykstra_with_codes",
    "dykstra_jvp",
    "dykstra_vjp",
    "components_jvp",
    "components_vjp",
]
ELEMENTS = [  # shape of a batch element, prox axes
    ((1,), (0,)),
    ((700, 3), (0,)),
    ((40_000,), (0,)),
    ((20_000, 9), (0,)),
    ((9, 8), (0, 1)),
    ((160, 170), (1, 0)),
    ((5, 160, 3), (2, 0, 1)),
    ((3, 2000, 7), (0, 1, 2)),
]


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("target", [t for t in TARGETS if not t.startswith("dykstra")])
def test_no_batch_needs_more_than_its_elements_together(target, itemsize):
    """Python asks for one batch element; XLA may hand any number of them to a device.

    A batch of Dykstra needs what its 1D kernels need, and arrays that grow with the batch.
    """
    for (shape, axes), batch, method in itertools.product(ELEMENTS, (1, 2, 65, 4096), range(4)):
        edges = [False] * len(axes)
        one = scratch_bytes(f"jaxtv_{target}", shape, axes, itemsize, method, edges)
        shifted = [a + 1 for a in axes]
        all_of_them = scratch_bytes(
            f"jaxtv_{target}", (batch, *shape), shifted, itemsize, method, edges
        )
        assert 8 <= all_of_them <= batch * one


@pytest.mark.parametrize("n", [10**8, 2**31 + 5, 10**10])
@pytest.mark.parametrize("target", TARGETS)
def test_sizes_do_not_overflow(target, n):
    for itemsize, method in itertools.product((2, 4, 8), range(4)):
        sizes = [
            scratch_bytes(f"jaxtv_{target}", (m, 3), (0,), itemsize, method) for m in (n, 2 * n)
        ]
        assert sizes[0] >= 8
        if not target.startswith("components"):  # refused from 2^31 samples on
            assert sizes[1] >= 1.5 * sizes[0] or sizes == [8, 8]


@pytest.mark.parametrize("shape", [(3, 1, 1, 9), (3, 2, 3, 40, 50), (3, 2, 1, 10**5, 10**5)])
def test_steps_of_the_isotropic_prox_need_little(shape):
    """The shape is that of the duals of an element: buffers, axes, channels, pixels."""
    axes = range(len(shape) - 2)
    assert 8 <= scratch_bytes("jaxtv_isotropic_steps", shape, axes, 4) < 10**5


def test_an_unknown_target_has_none():
    assert scratch_bytes("jaxtv_unknown", (3,), (0,), 4) == -1
