"""Which tests go to which process of pytest-xdist, and when: a file together, and those that take long first."""

from __future__ import annotations

from collections import Counter

import pytest
from xdist.scheduler import LoadFileScheduling

# Files of which no test shares anything with another, each of which takes seconds: no process need run all of one
APART = (
    *("tests/tasks/strategies/", "tests/tasks/test_configurations.py", "tests/tasks/test_weighing.py"),
    *("tests/tasks/test_figures.py", "tests/tasks/test_resume.py", "tests/scripts/test_memory_demo.py"),
)


def long_first(items: list[pytest.Item]) -> None:
    """Files with many slow tests, then the others: at the end, short ones keep all processes busy."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


class ByFile(LoadFileScheduling):
    """The tests of a file stay together, as they share what it trains, but for those `APART`."""

    def __init__(self, config: pytest.Config, log=None):
        config.option.loadscopereorder = False  # by their number, which says little
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(APART) else super()._split_scope(nodeid)
