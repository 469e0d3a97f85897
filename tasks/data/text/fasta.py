"""Fasta files: sequences below headers, and where their labels are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from lambda_seq.tasks.data.labels import LABEL_NAMES, find_column, find_label_column
from lambda_seq.tasks.data.reading.cache import cached_table, in_batches, state_of
from lambda_seq.tasks.data.reading.dialects import GUESSED, TableOptions, open_text
from lambda_seq.tasks.data.reading.files import FASTA, BadFileError, kind_of
from lambda_seq.tasks.data.reading.layout import (
    ALIASES,
    NO_ROWS,
    classes_of,
    named_split,
    note_others,
    samples_by_split,
    stem,
    tables_by_split,
    visible_files,
)
from lambda_seq.tasks.data.reading.notes import note, some
from lambda_seq.tasks.data.reading.sources import is_saved
from lambda_seq.tasks.data.reading.tables import UNREADABLE, is_table, read_tables
from lambda_seq.tasks.data.reading.text_files import FILE

ID_NAMES = ("id", "name", "accession", "sequence_id", "seq_id", "header")
IN_HEADER = re.compile(r"(?:^|[\s|;,\[])(?:label|class|category|target)\s*[=:]\s*([^\s|;,\]]+)", re.I)
READING = 1  # changes when files are read otherwise


def is_fasta(file: Path) -> bool:
    """Whether a file is one, by its name."""
    return kind_of(file)[0] in FASTA


def has_fasta(path: str | Path) -> bool:
    """Whether `path` is a fasta file, or a folder with such."""
    place = Path(path).expanduser()
    if place.is_file():
        return is_fasta(place)
    return place.is_dir() and not is_saved(place) and bool(visible_files(place, is_fasta))


def load_fasta(
    path: str | Path, whole: bool = False, labels: str | None = None, options: TableOptions = GUESSED
) -> dict[str, datasets.Dataset]:
    """The sequences of fasta files by split, with the columns "text", their id as the name of a file, and "label".

    A sequence's label is looked for in a table of ids and labels, that is given, or is the only one beside the files;
    in its header, as `label=…` or `class=…`; in the folder of its file; and in the name of its file, where there are
    several that are no splits, such as promoter.fa and other.fa. Where it was found is said.

    Args:
        path: a file, or a folder of such.
        whole: take all files as one split, "train", and look for no labels but in headers: for prediction.
        labels: the table.
        options: how it is written, where that is not to be guessed.

    Raises:
        ValueError: a file that is none, or labels that do not fit; names them.
    """
    place = Path(path).expanduser().absolute()
    folder = place if place.is_dir() else place.parent
    files = [place] if place.is_file() else visible_files(place, is_fasta)
    tables = [] if place.is_file() else visible_files(place, lambda file: is_table(file) and file.name not in NO_ROWS)
    if place.is_dir():
        note_others(place, [*files, *tables], "fasta files", whole)
    try:
        known = None if whole else _labels(path, labels, tables, options)
        by_split, classes = _arranged(folder, files, whole or place.is_file())
        return {
            split: _table(members, classes if known is None and not whole else {}, known, f"{split} split of {path}")
            for split, members in by_split.items()
        }
    except BadFileError as error:
        raise ValueError(f"path={str(path)!r}: the data cannot be read: {error}") from error


def read_fasta(file: Path) -> Iterator[tuple[str, str, str]]:
    """Id, the rest of the header, and the sequence of each record, in one piece.

    Raises:
        BadFileError: it is no fasta file, or cannot be read.
    """
    header, found = "", False
    parts: list[str] = []
    try:
        with open_text(file) as stream:
            for line, text in enumerate(stream, 1):
                text = text.strip()
                if text.startswith(">"):
                    if found:
                        yield *_head(header), "".join(parts)
                    header, parts, found = text[1:], [], True
                elif text and not text.startswith(";"):
                    if not found:
                        raise BadFileError(f"{file}, line {line}: letters in front of the first header, a line with >")
                    parts.append(text)
    except UNREADABLE as error:
        raise BadFileError(f"{file}: {type(error).__name__}: {error}") from error
    if not found:
        raise BadFileError(f"{file}: it has no header, a line that begins with >; put sequences in it or remove it")
    yield *_head(header), "".join(parts)


def _head(header: str) -> tuple[str, str]:
    name, _, rest = header.strip().partition(" ")
    return name, rest


def _arranged(folder: Path, files: list[Path], whole: bool) -> tuple[dict[str, list[Path]], dict[Path, str]]:
    """Files by split, and the class of each that its folder, or its name, says."""
    if whole:
        return {"train": files}, {}
    samples = samples_by_split(folder, files)
    named: dict[Path, str] = {}
    for members in samples.values():
        found = classes_of(members) or [None] * len(members)
        named |= {sample.file: name for sample, name in zip(members, found, strict=True) if name}
    if len(set(named.values())) > 1:
        note(f"path={str(folder)!r}: the folders of the files are their classes, if nothing else says them")
        return {split: [sample.file for sample in members] for split, members in samples.items()}, named
    if any(named_split(folder, file) for file in files):
        by_split = tables_by_split(folder, files)
        return by_split, _by_name([file for members in by_split.values() for file in members], folder)
    return {"train": files}, _by_name(files, folder)


def _by_name(files: list[Path], folder: Path) -> dict[Path, str]:
    """Classes by the names of files that are no splits: promoter.fa and other.fa, also in folders of splits."""
    names = {file: stem(file) for file in files}
    if len(set(names.values())) < 2 or any(name.lower() in ALIASES for name in names.values()):
        return {}
    classes = some(sorted({*names.values()}))
    note(f"path={str(folder)!r}: the names of the files are classes, if nothing else says them: {classes}")
    return names


def _labels(path: Any, given: str | None, tables: list[Path], options: TableOptions) -> dict[str, Any] | None:
    """Labels by id, of a table."""
    if given is None and len(tables) != 1:
        if tables:
            note(
                f"path={str(path)!r}: several tables lie beside the sequences; name that of labels: --data.label_table"
            )
        return None
    file = tables[0] if given is None else Path(given).expanduser()
    if not file.is_file():
        raise ValueError(f"label_table={str(given)!r}: there is no such file; give a table with ids and labels")
    table = read_tables(str(file), [file], options)
    column = find_label_column(
        table, next((n for n in table.column_names if n.strip().casefold() in LABEL_NAMES), None)
    )
    name = find_column(table, "label_table", None, ID_NAMES, lambda kind: kind == datasets.Value("string"), (column,))
    note(f"path={str(path)!r}: labels are those of {file.name}, column {column!r}, by {name!r}")
    names = list(map(str, table[name]))
    if twice := sorted({one for one in names if names.count(one) > 1})[:5] if len({*names}) < len(names) else []:
        raise ValueError(f"label_table={str(file)!r}: it has several rows of {some(twice)}; leave one of each")
    return dict(zip(names, table[column], strict=True))


def _table(files: list[Path], classes: dict[Path, str], known: dict[str, Any] | None, where: str) -> datasets.Dataset:
    labels: list[Any] = []
    heads = [(file, name, rest) for file in files for name, rest, _ in read_fasta(file)]
    if known is not None:
        labels = [known.get(name) for _, name, _ in heads]
        if lacking := [name for (_, name, _), label in zip(heads, labels, strict=True) if label is None]:
            note(
                f"{where}: {len(lacking)} of {len(heads)} sequences are not in the table of labels: {some(lacking, 3)}"
            )
    else:
        found = [IN_HEADER.search(f"{name} {rest}") for _, name, rest in heads]
        labels = [one[1] if one else None for one in found]
        if not any(labels):
            labels = [classes.get(file) for file, _, _ in heads]
    schema = datasets.Features({"text": datasets.Value("large_string"), FILE: datasets.Value("string")}).arrow_schema

    def batches() -> Iterator[pa.Table]:
        records = ((sequence, name) for file in files for name, _, sequence in read_fasta(file))
        for batch in in_batches(records, lambda record: len(record[0]) + 50):
            texts, names = zip(*batch, strict=True)
            yield pa.Table.from_arrays(
                [pa.array(texts, pa.large_string()), pa.array(names, pa.string())], schema=schema
            )

    # The id of a sequence is its name, as that of a file is for a text
    table = cached_table("fasta", [READING, *(state_of(file) for file in files)], schema, batches)
    if not any(label is not None for label in labels):
        return table
    return datasets.concatenate_datasets([table, datasets.Dataset.from_dict({"label": labels})], axis=1)
