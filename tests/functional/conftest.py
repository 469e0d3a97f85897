import os

import pytest
import torch
from kernel_runs import process


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where the algorithms are tested: cpu (default), cuda")


def pytest_configure(config):
    if config.getoption("--device", "cpu") != "cpu":  # a running sum has no deterministic kernel there
        config.addinivalue_line("filterwarnings", "ignore:.*does not have a deterministic implementation")


@pytest.fixture(scope="session")
def device(request):
    """Where algorithms are tested. The option is unknown when pytest is started above this folder."""
    name = torch.device(request.config.getoption("--device", "cpu"))
    if name.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic mode asks for
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return name


@pytest.fixture(scope="session")
def run(device):
    """Calls a function of `kernel_runs` where kernels run."""
    if device.type == "cuda":
        yield lambda function, *arguments, **options: function(*arguments, **options)
    else:
        with process("1") as call:
            yield call


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan(device):
    """Deterministic mode fills what torch.empty returns with NaN: reading it before writing shows."""
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(2021)
