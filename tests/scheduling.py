"""Which tests go to which process of pytest-xdist, and when: a file together, and those that take long first."""

from __future__ import annotations

from collections import Counter

import pytest
from xdist.scheduler import LoadFileScheduling

# Files of which no test shares anything with another, each of which takes seconds: no process need run all of one
APART = (
    *("tests/tasks/strategies/", "tests/tasks/test_configurations.py", "tests/tasks/test_weighing.py"),
    *("tests/tasks/test_figures.py", "tests/tasks/test_resume.py", "tests/scripts/test_memory_demo.py"),
    *("tests/tasks/detection/test_detection_training.py", "tests/interop/test_interop_timm.py"),
)


SLOW = 4.0  # seconds of a slow test that does not say how many it takes


def long_first(items: list[pytest.Item]) -> None:
    """What takes long in one process, then the rest: at the end, short tests keep all processes busy."""
    together: Counter[str] = Counter()
    for item in items:
        together[scope(item.nodeid)] += seconds(item)
    items.sort(key=lambda item: -together[scope(item.nodeid)])


def seconds(item: pytest.Item) -> float:
    """About how long a test takes on a core."""
    slow = item.get_closest_marker("slow")
    return float(slow.kwargs.get("seconds", SLOW)) if slow else 0.0


def scope(nodeid: str) -> str:
    """What is run by one process: a file, or a test of those `APART`."""
    return nodeid if nodeid.startswith(APART) else nodeid.partition("::")[0]


class ByFile(LoadFileScheduling):
    """The tests of a file stay together, as they share what it trains, but for those `APART`."""

    def __init__(self, config: pytest.Config, log=None):
        config.option.loadscopereorder = False  # by their number, which says little
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)
