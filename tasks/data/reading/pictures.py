"""Folders of pictures: a folder for each class, or a table called metadata beside them that says more of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from lambda_seq.tasks.data.reading.dialects import GUESSED, TableOptions
from lambda_seq.tasks.data.reading.layout import classes_of, note_others, samples_by_split, stem, tables_by_split
from lambda_seq.tasks.data.reading.notes import note, some
from lambda_seq.tasks.data.reading.tables import read_tables

NAME = "file_name"  # the column of paths in a table called metadata


def is_picture(file: Path) -> bool:
    """Whether a file's name says that it is a picture which Pillow can open."""
    return Image.registered_extensions().get(file.suffix.lower()) in Image.OPEN


def load_pictures(
    place: Path,
    pictures: list[Path],
    tables: list[Path] | None = None,
    whole: bool = False,
    options: TableOptions = GUESSED,
) -> dict[str, datasets.Dataset]:
    """Pictures by split, with the columns "image" and, where they are in folders of classes, "label".

    Tables called metadata (csv, jsonl, parquet) with a column "file_name" of paths from their own place on give other
    columns instead. Nothing if there are only other tables, and pictures in no folders or a single one: the tables name
    them.

    Args:
        place: the folder of all, or the only picture.
        pictures: their files.
        tables: that lie beside or among them.
        whole: all are one split, "train", whatever the names of folders.
        options: how the tables are written, where that is not to be guessed.

    Raises:
        ValueError: a table called metadata that names no pictures, or such as are not there.
    """
    # Relative paths in cells are looked for within the folder first, where others may have the same
    place, pictures = place.absolute(), [file.absolute() for file in pictures]
    if (described := [table.absolute() for table in metadata_of(tables or [])]) and not whole:
        return load_described(place, pictures, described, "image", datasets.Image(), "pictures", options)
    if place.is_file():
        place = place.parent
    by_split = samples_by_split(place, pictures, whole)
    classes = {split: classes_of(samples) for split, samples in by_split.items()}
    names = sorted({name for labels in classes.values() for name in labels or [] if name})
    if tables and len(names) < 2 and not whole:
        return {}
    if tables is not None:
        note_others(place, pictures, "pictures", whole)
    if names and any(len({len(sample.folders) for sample in samples}) > 1 for samples in by_split.values()):
        note(f"path={str(place)!r}: pictures lie at several depths; the innermost folder is the class: {some(names)}")
    found = {}
    for split, samples in by_split.items():
        columns: dict[str, list] = {"image": [str(sample.file) for sample in samples]}
        features = datasets.Features(image=datasets.Image())
        if labels := classes[split]:
            columns["label"] = [None if name is None else names.index(name) for name in labels]
            features["label"] = datasets.ClassLabel(names=names)
        found[split] = datasets.Dataset.from_dict(columns, features=features)
    return found


def load_described(
    place: Path,
    files: list[Path],
    tables: list[Path],
    column: str,
    feature: Any,
    kind: str,
    options: TableOptions = GUESSED,
) -> dict[str, datasets.Dataset]:
    """Pictures or clips that tables called metadata name, by split, with the other columns of these tables.

    Args:
        place: the folder of all.
        files: pictures or clips in it.
        tables: called metadata, each with paths from its own place on in the column "file_name".
        column: name of the column of files.
        feature: what it holds.
        kind: "pictures" or "clips", for messages.
        options: how the tables are written, where that is not to be guessed.

    Raises:
        ValueError: a table that names no files, or such as are not there.
    """
    found: dict[str, datasets.Dataset] = {}
    named: set[str] = set()
    for split, members in tables_by_split(place, tables).items():
        parts = []
        for member in members:
            table = read_tables(str(place), [member], options)
            if NAME not in table.column_names:
                raise ValueError(
                    f"{member}: it has no column {NAME!r} that names the {kind}, only {table.column_names}"
                )
            paths = [str(member.parent / name) if name else None for name in table[NAME]]
            for row, path in enumerate(paths):
                if path is None or not Path(path).is_file():
                    raise ValueError(f"{member}, row {row}: there is no file {path}; correct or remove the row")
            named.update(map(str, paths))
            if column in table.column_names:
                note(f"{member}: its column {column!r} is left out, as {NAME!r} names the {kind}")
            others = table.select_columns([name for name in table.column_names if name not in (NAME, column)])
            own = datasets.Dataset.from_dict({column: paths}, features=datasets.Features({column: feature}))
            parts.append(datasets.concatenate_datasets([own, others], axis=1) if others.column_names else own)
        if not sum(map(len, parts)):
            raise ValueError(f"path={str(place)!r}: {members[0]} has no rows; put rows in it or remove it")
        found[split] = datasets.concatenate_datasets([part for part in parts if len(part)])
    if left := [file for file in map(str, files) if file not in named]:
        note(f"path={str(place)!r}: {len(left)} {kind} that no table called metadata names are left out, as {left[0]}")
    return found


def metadata_of(tables: list[Path]) -> list[Path]:
    """Those of the tables that are called metadata."""
    return [table for table in tables if stem(table).lower() == "metadata"]
