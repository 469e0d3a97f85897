import pytest
import torch


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan():
    """Deterministic mode fills what torch.empty returns with NaN: reading it before writing shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(2021)
