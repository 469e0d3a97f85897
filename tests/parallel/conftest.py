import pytest
from processes import Processes


@pytest.fixture(scope="module")
def four():
    """Four processes; no longer than for a file, as the threads of gloo take time even if nothing is sent."""
    processes = Processes(4)
    yield processes
    processes.stop()
