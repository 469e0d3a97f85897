"""Shards of WebDataset: tar files in which the files of a sample stand one after another, a.jpg and a.cls.

The builder of `datasets` for them needs another package for audio, the same endings in all samples, and numbers for
classes; here they are read as people write them.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import pyarrow as pa

from lambda_seq.inference.clips import SUFFIXES
from lambda_seq.tasks.data.reading.cache import cached_table, in_batches, state_of
from lambda_seq.tasks.data.reading.files import SHARDS, kind_of
from lambda_seq.tasks.data.reading.notes import note, some
from lambda_seq.tasks.data.reading.pictures import is_picture

TEXTS, CLASSES, TABLES = ("txt", "text"), ("cls", "label"), ("json",)  # endings of what is no picture and no clip
FILE = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
UNREADABLE = (tarfile.TarError, OSError, EOFError, zlib.error)
READING = 1  # changes when shards are read otherwise

Files = dict[str, tarfile.TarInfo]  # of a sample, by their endings


def is_shard(file: Path) -> bool:
    """Whether a file is one, by its name."""
    return kind_of(file)[0] in SHARDS


def load_shards(path: str, files: dict[str, list[Path]]) -> dict[str, datasets.Dataset]:
    """The samples of shards by split.

    Pictures are in the column "image", clips in "audio", .txt in "text", .cls in "label", and what a .json says in
    columns of its own; of files such as a.mask.png the column is "mask.png". Without any but a picture, a clip or a
    text the folder of a sample in its shard is its label.

    Args:
        path: where they come from, for errors.
        files: by split.

    Raises:
        ValueError: one cannot be read, or a sample of it; names it.
    """
    return {split: _table(path, members) for split, members in files.items()}


def _table(path: str, files: list[Path]) -> datasets.Dataset:
    said: list[dict[str, Any]] = []  # of each sample, by column
    folders: list[str] = []
    media: set[str] = set()  # columns of files
    left: set[str] = set()  # endings
    for file in files:
        for key, tar, members in _samples(file):
            known: dict[str, Any] = {}
            for ending, member in members.items():
                column = _column(ending)
                if column is None:
                    left.add(ending)
                elif column in CLASSES:
                    known["label"] = _read(tar, member).decode("utf-8", "replace").strip() or None
                elif column in TABLES:
                    known |= _of_json(file, member.name, _read(tar, member))
                else:
                    media.add(column)
            said.append(known)
            folders.append(str(PurePosixPath(key).parent))
    if not said:
        raise ValueError(f"path={path!r}: the shards hold no samples; put files such as a.jpg and a.cls in them")
    if left:
        note(f"path={path!r}: files of other kinds in the shards are left out: {some(sorted(left))}")
    table = _media(files, sorted(media))
    columns = dict.fromkeys(column for known in said for column in known)
    others: dict[str, list[Any]] = {column: [known.get(column) for known in said] for column in columns}
    if clash := sorted(set(others) & media):
        raise ValueError(f"path={path!r}: {some(clash)} are files of samples and entries of their JSON; rename one")
    if not others and len(set(folders)) > 1:
        note(f"path={path!r}: the folders in the shards are the classes: {some(sorted(set(folders)))}")
        others = {"label": folders}
    if not others:
        return table
    own = datasets.Dataset(pa.table({column: _cells(cells) for column, cells in others.items()}))
    return datasets.concatenate_datasets([table, own], axis=1) if media else own


def _media(files: list[Path], columns: list[str]) -> datasets.Dataset:
    """Pictures, clips and texts, mapped into memory."""
    features = datasets.Features({name: datasets.Value("large_binary") if name == "text" else FILE for name in columns})
    schema = features.arrow_schema

    def batches() -> Iterator[pa.Table]:
        rows = (row for file in files for row in _contents(file, columns))
        for batch in in_batches(rows, lambda row: row[0]):
            cells = {name: [row[1].get(name) for row in batch] for name in columns}
            yield pa.Table.from_arrays([pa.array(cells[field.name], field.type) for field in schema], schema=schema)

    return cached_table("shards", [READING, columns, *(state_of(file.absolute()) for file in files)], schema, batches)


def _contents(file: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Bytes of each sample, and its files by column."""
    for _, tar, members in _samples(file):
        row, size = {}, 50
        for ending, member in members.items():
            if (column := _column(ending)) in columns:
                raw = _read(tar, member)
                row[column] = raw if column == "text" else {"bytes": raw, "path": f"{file.name}/{member.name}"}
                size += len(raw)
        yield size, row


def _samples(file: Path) -> Iterator[tuple[str, tarfile.TarFile, Files]]:
    """Name and files of each sample, neighbours whose names are the same up to the first point.

    Raises:
        ValueError: the file is none, or a sample has two files for a column; names it.
    """
    try:
        with tarfile.open(file, "r:*") as tar:
            name, members = "", Files()
            for member in tar:
                place = PurePosixPath(member.name)
                base, _, ending = place.name.partition(".")
                if not member.isfile() or not base or not ending:
                    continue
                if (key := str(place.parent / base)) != name:
                    if members:
                        yield name, tar, members
                    name, members = key, Files()
                column = _column(ending.casefold())
                if column is not None and any(_column(other) == column for other in members):
                    raise ValueError(f"{file}: sample {key!r} has two files for the column {column!r}; leave one")
                members[ending.casefold()] = member
            if members:
                yield name, tar, members
    except UNREADABLE as error:
        raise ValueError(f"{file}: the shard cannot be read: {type(error).__name__}: {error}") from error


def _column(ending: str) -> str | None:
    """The column of files with this ending; None for those that are of no use here."""
    if ending in TEXTS:
        return "text"
    if ending in (*CLASSES, *TABLES):
        return CLASSES[0] if ending in CLASSES else TABLES[0]
    place = Path(f"x.{ending}")
    kind = "image" if is_picture(place) else "audio" if place.suffix in SUFFIXES else None
    return ending if kind and "." in ending else kind


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    return b"" if content is None else content.read()


def _of_json(file: Path, name: str, raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise ValueError(f"{file}, {name}: it is no JSON ({error}); correct it") from error
    return found if isinstance(found, dict) else {"json": found}


def _cells(cells: list[Any]) -> pa.Array:
    """A column of what JSON says: of the type that all have, else as text."""
    try:
        found = pa.array(cells)
        return found if not pa.types.is_null(found.type) else found.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        words = (one if one is None or isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in cells)
        return pa.array(list(words), pa.string())
