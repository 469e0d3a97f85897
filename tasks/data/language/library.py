"""Text that is there wherever Python is: the source of its standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import datasets

LIBRARY = "python:library"
SPLITS = ("validation", "test", *["train"] * 18)  # of twenty files in a row


def library() -> dict[str, datasets.Dataset]:
    """The modules of Python's standard library, as bytes: about 5 MB, of which 5 % each are validation and test.

    What it holds depends on the version of Python. Packages are left out, and with them tests and generated tables.

    Raises:
        FileNotFoundError: this Python has its library in an archive, or without source.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py"))
    if len(files) < len(SPLITS):
        raise FileNotFoundError(
            f"path={LIBRARY!r}: {folder} does not hold the source of Python's library; give other text as --data.path"
        )
    rows: dict[str, dict[str, list]] = {split: {"file": [], "text": []} for split in SPLITS}
    for number, file in enumerate(files):
        split = rows[SPLITS[number % len(SPLITS)]]
        split["file"].append(file.name)
        split["text"].append(file.read_bytes())
    features = datasets.Features(file=datasets.Value("string"), text=datasets.Value("binary"))
    return {split: datasets.Dataset.from_dict(found, features=features) for split, found in rows.items()}
