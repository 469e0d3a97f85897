"""Runs that tests of their pages share."""

import pytest
from small_runs import Page, run


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """A run of each kind, made when it is first asked for."""
    made: dict[str, Page] = {}

    def page(kind: str) -> Page:
        if kind not in made:
            made[kind] = run(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return page
