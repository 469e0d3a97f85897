import pytest
from processes import Processes


@pytest.fixture(scope="session")
def four():
    processes = Processes(4)
    yield processes
    processes.stop()
