"""Folders of .txt files, each a document."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from tasks.data.sources import BUILDERS, SPLIT_NAMES

FILE = "text file"  # the column with the names of files
ALIASES = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}


def has_text_files(path: str | Path) -> bool:
    """Whether `path` is a .txt file, or a folder with such files and no tables (parquet, jsonl, csv) in it."""
    place = Path(path).expanduser()
    if place.is_file():
        return place.suffix.lower() == ".txt"
    if not place.is_dir() or (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
        return False
    kinds = {file.suffix.lower() for file in place.rglob("*") if not _hidden(file, place)}
    return ".txt" in kinds and not kinds & BUILDERS.keys()


def load_text_files(path: str | Path) -> dict[str, datasets.Dataset]:
    """The document of a .txt file, or of all such files in a folder and the folders in it, in the order of their names.

    The names of folders say splits and classes, where there are any: FOLDER/train/CLASS/a.txt, FOLDER/CLASS/a.txt or
    FOLDER/a.txt. Files are read as bytes, whatever they hold, and kept in the cache folder of `datasets`.

    Returns:
        Tables by split ("train" if folders say none), with the columns "text" (bytes), `FILE` (the file's absolute
        path) and, where all files of a split are in folders of classes, "label".

    Raises:
        ValueError: a file that cannot be read; names it.
    """
    place = Path(path).expanduser().absolute()
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if _is_text(file, place))
    found: dict[str, list[tuple[str, str | None]]] = {}
    for file in files:
        folders = list(file.relative_to(place).parts[:-1])
        split = ALIASES[folders.pop(0)] if folders and folders[0] in ALIASES else "train"
        found.setdefault(split, []).append((str(file), folders[-1] if folders else None))
    return {split: _table(split, rows) for split, rows in found.items()}


def _table(split: str, rows: list[tuple[str, str | None]]) -> datasets.Dataset:
    names, labels = (list(column) for column in zip(*rows, strict=True))
    columns = {"text": "large_binary", FILE: "string"} | ({} if None in labels else {"label": "string"})
    features = datasets.Features({name: datasets.Value(kind) for name, kind in columns.items()})
    # Sizes and times tell `datasets` whether what it keeps is still what the files hold.
    states = [(state.st_size, state.st_mtime_ns) for state in map(os.stat, names)]
    files = [list(row) for row in zip(names, labels, states, strict=True)]
    try:
        return datasets.Dataset.from_generator(_rows, features, gen_kwargs={"files": files}, split=split)
    except DatasetGenerationError as error:
        raise ValueError(f"path: {error.__cause__ or error}") from error


def _rows(files: list[Any]) -> Iterator[dict[str, Any]]:
    for name, label, _ in files:
        try:
            text = Path(name).read_bytes()
        except OSError as error:
            raise ValueError(f"{name} cannot be read ({error.strerror})") from error
        yield {"text": text, FILE: name} | ({} if label is None else {"label": label})


def _is_text(file: Path, place: Path) -> bool:
    return file.suffix.lower() == ".txt" and file.is_file() and not _hidden(file, place)


def _hidden(file: Path, place: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(place).parts)
