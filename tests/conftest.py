import gc
import os

import pytest
import torch
from torch import distributed

if "PYTEST_XDIST_WORKER" in os.environ:  # command lines that tests run share the cores with other tests
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        from scheduling import long_first

        long_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported stays: to look through it for garbage again and again takes longer than many tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_sessionfinish():
    gc.unfreeze()  # modules whose objects are counted at the end see theirs go


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if config.option.dist == "loadfile":
        from scheduling import ByFile

        return ByFile(config, log)
    return None


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Problems this small spend more on waking threads than on arithmetic."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def environment_stays():
    """What a command leaves behind in this process's environment, as the port of its processes, ends with its test."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def process_group_ends():
    """The group of processes that a command began in this process, as one that ends in an error, ends with its test."""
    before = distributed.is_initialized()
    yield
    if distributed.is_initialized() and not before:
        distributed.destroy_process_group()


@pytest.fixture(autouse=True, scope="module")
def compiled_anew():
    """What tests of a file compile does not count to torch's limit of times that a function is compiled in others."""
    yield
    torch.compiler.reset()
