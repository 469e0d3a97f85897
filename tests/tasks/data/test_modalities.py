"""Tests that a modality is a folder of its own, and a line in `tasks.data`."""

import ast
import inspect

import pytest
from paths import ROOT

from lambda_seq.tasks import data
from lambda_seq.tasks.data import Data

FOLDER = ROOT / "tasks" / "data"
SHARED = "reading"  # what several modalities read
MODALITIES = sorted(
    folder.name for folder in FOLDER.iterdir() if (folder / "__init__.py").is_file() and folder.name != SHARED
)
PACKAGE = "lambda_seq.tasks.data."


def imported(folder):
    """Parts of `tasks.data` that the files of a folder import, by file."""
    for file in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.startswith(PACKAGE):
                    yield file.name, name.removeprefix(PACKAGE).partition(".")[0]


def test_there_are_modalities():
    assert {"audio", "images", "language", "synthetic", "text"} <= set(MODALITIES)


@pytest.mark.parametrize("name", MODALITIES)
def test_no_modality_imports_another(name):
    others = set(MODALITIES) - {name}
    assert [(file, part) for file, part in imported(FOLDER / name) if part in others] == []


def test_what_they_share_imports_none():
    for folder in (FOLDER / SHARED, FOLDER):
        found = [(file, part) for file, part in imported(folder) if part in MODALITIES and file != "__init__.py"]
        assert found == []


def test_each_has_a_data_module_that_is_listed():
    listed = [getattr(data, name) for name in data.__all__]
    found = {kind.__module__.removeprefix(PACKAGE).partition(".")[0] for kind in listed if not inspect.isabstract(kind)}
    assert found == set(MODALITIES)
    assert all(issubclass(kind, Data) for kind in listed)
