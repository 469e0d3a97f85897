import os

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # command lines that tests run share the cores with other tests
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Problems this small spend more on waking threads than on arithmetic."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
