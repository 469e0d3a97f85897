import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Problems this small spend more on waking threads than on arithmetic."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
