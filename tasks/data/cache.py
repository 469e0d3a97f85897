"""Files that are made once and kept: trained tokenizers, generated data."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import datasets


def cached(name: str, make: Callable[[Path], None], folder: str | Path | None = None) -> Path:
    """The file or folder of this name, made by `make(path)` if it is not there yet.

    It is made beside its place and moved there when whole: a process that is killed leaves nothing half done, and of
    several processes that make it at once one wins.

    Args:
        name: of the file or folder; says all that its content depends on.
        make: writes it to the path it is given, which does not exist yet.
        folder: where it is kept; default: lambda_seq/ in the cache folder of `datasets` (HF_DATASETS_CACHE).
    """
    home = Path(datasets.config.HF_DATASETS_CACHE) / "lambda_seq" if folder is None else Path(folder).expanduser()
    place = home / name
    if place.exists():
        return place
    home.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
    try:
        make(workshop / name)
        try:
            os.rename(workshop / name, place)
        except OSError:  # a folder that another process has put there meanwhile
            if not place.exists():
                raise
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return place
