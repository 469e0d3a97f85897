"""All Triton kernels are compiled for GPUs, which need not be here, and fit into them."""

import kernel_runs
import pytest
import torch
from kernel_runs import needs_triton

KERNELS = 14


@pytest.fixture(scope="module")
def compiler():
    """Calls functions in a process that compiles."""
    with kernel_runs.process(None) as call:
        fault = call(kernel_runs.no_compiler)
        if fault:
            pytest.skip(fault)
        yield call


@needs_triton
@pytest.mark.slow(seconds=25)
@pytest.mark.parametrize(
    ("capability", "dtype", "sizes"),
    [
        (90, torch.bfloat16, {"K": 16, "V": 64, "Y": 1, "RY": 1, "RX": 63, "H": 4}),
        (80, torch.float32, {"K": 64, "V": 128, "Y": 7, "RY": 5, "RX": 23, "H": 1}),
    ],
    ids=["9.0, sequences, bfloat16", "8.0, images, float32, the largest tiles"],  # each takes a minute of a core
)
def test_compiles_for_gpus(capability, dtype, sizes, compiler):
    found = compiler(kernel_runs.compiled, capability, dtype, **sizes)
    assert len({name for name, _ in found}) == KERNELS
    assert max(shared for _, shared in found) <= 99 * 1024  # what the smallest of them has for a program
