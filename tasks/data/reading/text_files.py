"""Folders of .txt files, each a document.

The builder for text of `datasets` reads UTF-8 alone, and of a document no file's name; here it is bytes, whatever they
are, with the name that errors and predictions tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from lambda_seq.tasks.data.reading.cache import cached_table, in_batches, state_of
from lambda_seq.tasks.data.reading.files import kind_of, open_binary
from lambda_seq.tasks.data.reading.layout import NO_ROWS, classes_of, note_others, samples_by_split, visible_files
from lambda_seq.tasks.data.reading.notes import note, some
from lambda_seq.tasks.data.reading.sources import is_saved
from lambda_seq.tasks.data.reading.tables import UNREADABLE, is_table

FILE = "text file"  # the column with the names of files


def file_names(table: datasets.Dataset) -> list[str] | None:
    """The files that documents are; None of rows of a table."""
    return table.select_columns(FILE)[:][FILE] if FILE in table.column_names else None


def has_text_files(path: str | Path) -> bool:
    """Whether `path` is a .txt file, or a folder with such files and no tables (parquet, jsonl, csv) in it."""
    place = Path(path).expanduser()
    if place.is_file():
        return _is_text(place)
    if not place.is_dir() or is_saved(place):
        return False
    files = visible_files(place, lambda file: _is_text(file) or (is_table(file) and file.name not in NO_ROWS))
    texts = list(filter(_is_text, files))
    if 0 < len(texts) < len(files):
        names = some([file.name for file in texts], 3)
        note(f"path={str(place)!r}: .txt files are left out, as there are tables beside them: {names}")
    return bool(texts) and len(texts) == len(files)


def load_text_files(path: str | Path, whole: bool = False) -> dict[str, datasets.Dataset]:
    """The document of a .txt file, or of all such files in a folder and the folders in it, in the order of their names.

    The names of folders say splits and classes, where there are any: FOLDER/train/CLASS/a.txt, FOLDER/CLASS/a.txt or
    FOLDER/a.txt; see `tasks.data.reading.layout`. Files are read as bytes, whatever they hold, unpacked from .gz, .bz2,
    .xz and .zst, and kept in the cache folder of `datasets`.

    Args:
        path: of the file or folder.
        whole: take all files as one split, "train", whatever the names of folders: for prediction.

    Returns:
        Tables by split ("train" if names say none), with the columns "text" (bytes), `FILE` (the file's absolute path)
        and, where there are folders of classes, "label", which a file in none of them lacks.

    Raises:
        ValueError: a file that cannot be read; names it.
    """
    place = Path(path).expanduser().absolute()
    files = [place] if place.is_file() else visible_files(place, _is_text)
    if place.is_dir():
        note_others(place, files, "texts (.txt)", whole)
    found = samples_by_split(place if place.is_dir() else place.parent, files, whole or place.is_file())
    return {
        split: _table([str(sample.file) for sample in samples], classes_of(samples)) for split, samples in found.items()
    }


def _table(names: list[str], labels: list[str | None] | None) -> datasets.Dataset:
    columns = {"text": "large_binary", FILE: "string"} | ({} if labels is None else {"label": "string"})
    schema = datasets.Features({name: datasets.Value(kind) for name, kind in columns.items()}).arrow_schema
    rows = list(zip(names, labels or [None] * len(names), strict=True))

    def batches() -> Iterator[pa.Table]:
        for batch in in_batches(_documents(rows), lambda document: len(document[0])):
            cells = zip(*batch, strict=True)
            yield pa.Table.from_arrays(
                [pa.array(column, field.type) for column, field in zip(cells, schema, strict=False)], schema=schema
            )

    return cached_table("texts", [labels, *map(state_of, names)], schema, batches)


def _documents(rows: list[tuple[str, str | None]]) -> Iterator[tuple[Any, ...]]:
    for name, label in rows:
        try:
            with open_binary(Path(name)) as stream:
                text = stream.read()
        except UNREADABLE as error:
            raise ValueError(f"path: {name} cannot be read ({error})") from error
        yield text, name, label


def _is_text(file: Path) -> bool:
    return kind_of(file)[0] == ".txt"
