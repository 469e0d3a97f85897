"""Files of tables, read as they are written: csv, tsv, jsonl, json, parquet, arrow, also compressed.

Cells of csv and tsv files are text, whatever they look like: null, NA, 007, 1e5 and True stay what they are, and an
empty cell is a missing one. Columns of JSON have the one type that all rows of all files have; where there is none,
values become their JSON text. Parquet and arrow files say the types of their columns themselves.

Files need not have the same columns: what a row has not is missing.
"""

from __future__ import annotations

import csv
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from lambda_seq.tasks.data.reading.cache import AT_ONCE, cached_table, in_batches, state_of
from lambda_seq.tasks.data.reading.dialects import GUESSED, TableOptions, open_text
from lambda_seq.tasks.data.reading.files import BadFileError, kind_of
from lambda_seq.tasks.data.reading.notes import note, some
from lambda_seq.tasks.data.reading.text_tables import (
    Part,
    common,
    csv_rows,
    csv_schema,
    json_rows,
    json_schema,
)

KINDS = (".parquet", ".arrow", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
READING = 2  # changes when files are read otherwise, so that nothing is kept that was read before
UNREADABLE = (OSError, EOFError, UnicodeError, zlib.error, lzma.LZMAError, csv.Error, pa.ArrowException)


def is_table(file: Path) -> bool:
    """Whether a file is a table by its name."""
    kind, packed = kind_of(file)
    return kind in KINDS and not (packed and kind in (".parquet", ".arrow"))


def read_tables(path: str, files: list[Path], options: TableOptions = GUESSED) -> datasets.Dataset:
    """The rows of some files, one file after another, as one table that is mapped into memory.

    Args:
        path: where they come from, for errors.
        files: of any of the kinds above.
        options: how they are written, where that is not to be guessed.

    Raises:
        ValueError: a file that cannot be read; names it, and the line; or files that do not fit to each other.
    """
    states = [state_of(file.absolute()) for file in files]
    with _named(path):
        features = _together(files, [_features(file, options) for file in files])
        schema = features.arrow_schema
        return cached_table(
            "table",
            [READING, states, astuple(options)],
            schema,
            lambda: chain.from_iterable(_batches(file, schema, options) for file in files),
        )


def stream_tables(path: str, files: list[Path], options: TableOptions = GUESSED) -> datasets.IterableDataset:
    """As `read_tables`, but read each time anew; columns and types are those of the first rows of each file."""
    with _named(path):
        features = _together(files, [_features(file, options, first=True) for file in files])
    given = {"files": [str(file) for file in files], "path": path, "schema": features.arrow_schema}
    return datasets.IterableDataset.from_generator(_rows, features=features, gen_kwargs=given | {"options": options})


def first_row(file: Path, options: TableOptions = GUESSED) -> dict[str, Any]:
    """The first row of a table; nothing if there is none, or none that can be read."""
    try:
        return next(iter(stream_tables(str(file), [file], options)), {})
    except ValueError:
        return {}


def _rows(files: list[str], path: str, schema: pa.Schema, options: TableOptions) -> Iterator[dict[str, Any]]:
    with _named(path):
        for file in files:
            for batch in _batches(Path(file), schema, options):
                yield from batch.to_pylist()


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Errors of files say where they were looked for."""
    try:
        yield
    except BadFileError as error:
        raise ValueError(f"path={path!r}: the data cannot be read: {error}") from error


def _features(file: Path, options: TableOptions, first: bool = False) -> datasets.Features:
    """The columns of a file; of JSON those of all rows, or of the first."""
    kind, packed = kind_of(file)
    if packed and kind in (".parquet", ".arrow"):
        raise BadFileError(f"{file}: {kind[1:]} files are compressed within; unpack it (remove {packed})")
    if not file.stat().st_size:
        raise BadFileError(f"{file}: the file is empty; put rows in it or remove it")
    try:
        if kind == ".parquet":
            schema = pq.read_schema(file)
        elif kind == ".arrow":
            with _open_arrow(file) as reader:
                schema = reader.schema
        else:
            with open_text(file, options) as stream:
                named = kind in (".csv", ".tsv")
                schema = csv_schema(file, stream, options) if named else json_schema(file, stream, first)
    except UNREADABLE as error:
        raise _unreadable(file, error) from error
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise BadFileError(f"{file}: it has several columns called {some(twice)}; give each a name of its own")
    strange: list[str] = []
    for place, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):  # pandas' categories
            schema = schema.set(place, field.with_type(field.type.value_type))
        elif field.type in VIEWS:
            schema = schema.set(place, field.with_type(VIEWS[field.type]))
        else:
            try:
                _feature(field.type)
            except ValueError:  # such as maps, which `datasets` does not know
                strange.append(f"{field.name} ({field.type})")
    if strange:
        note(f"{file}: columns of types that cannot be read are left out: {some(strange)}")
        kept = [field for field in schema if f"{field.name} ({field.type})" not in strange]
        schema = pa.schema(kept)  # without what `datasets` says of all columns
    return datasets.Features.from_arrow_schema(schema)


def _batches(file: Path, schema: pa.Schema, options: TableOptions) -> Iterator[Any]:
    """Rows of a file with the columns of a schema, about `AT_ONCE` bytes at a time."""
    kind = kind_of(file)[0]
    try:
        if kind == ".parquet":
            with pq.ParquetFile(file) as table:
                for batch in table.iter_batches(_rows_at_once(table.metadata)):
                    yield _fitted(file, batch, schema)
        elif kind == ".arrow":
            with _open_arrow(file) as reader:
                for batch in reader:
                    yield _fitted(file, batch, schema)
        else:
            with open_text(file, options) as stream:
                parts = csv_rows(file, stream, options) if kind in (".csv", ".tsv") else json_rows(file, stream)
                for batch in in_batches(parts, lambda part: part.size):
                    yield _table_of(file, batch, schema)
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: BaseException) -> BadFileError:
    hint = ""
    if isinstance(error, UnicodeError):
        hint = "; save it as UTF-8, or say what it is: --data.table.encoding NAME"
    if isinstance(error, csv.Error):
        hint = "; a cell with a quotation mark is put between such, and those in it are doubled"
    return BadFileError(f"{file}: {type(error).__name__}: {error}{hint}")


# Columns


def _together(files: list[Path], every: list[datasets.Features]) -> datasets.Features:
    """The columns that any of the files has, with the type that holds what all have."""
    found: dict[str, tuple[Any, Path]] = {}
    for file, features in zip(files, every, strict=True):
        for name, feature in features.items():
            known, other = found.get(name, (NOTHING, file))
            if known in (NOTHING, feature):
                found[name] = feature, other if known == feature else file
            elif feature != NOTHING:
                if not (_is_plain(known) and _is_plain(feature)):
                    raise BadFileError(
                        f"{other} and {file} do not fit to each other: the column {name!r} holds {known} in one and "
                        f"{feature} in the other; give it one type, or leave one of the files out"
                    )
                found[name] = _feature(common(_arrow_type(known), _arrow_type(feature))), other
    return datasets.Features(
        {name: datasets.Value("string") if feature == NOTHING else feature for name, (feature, _) in found.items()}
    )


VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}  # as polars writes them
NOTHING = datasets.Value("null")  # of a column in which no row has anything


def _is_plain(feature: Any) -> bool:
    """Whether a feature says no more than its type."""
    return _feature(_arrow_type(feature)) == feature


def _arrow_type(feature: Any) -> pa.DataType:
    return datasets.Features({"x": feature}).arrow_schema.field(0).type


def _feature(kind: pa.DataType) -> Any:
    return datasets.Features.from_arrow_schema(pa.schema([("x", kind)]))["x"]


def _table_of(file: Path, parts: list[Part], schema: pa.Schema) -> pa.Table:
    """Rows as a table with the columns of a schema."""
    if more := {name for part in parts for name in part.cells} - set(schema.names):
        note(f"{file}: the columns {some(sorted(more))} come after the first rows and are left out of the stream")
    columns = []
    for field in schema:
        cells = [part.cells.get(field.name) for part in parts]
        try:
            columns.append(pa.array(map(_as_text, cells) if pa.types.is_string(field.type) else cells, field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise BadFileError(
                f"{file}, lines {parts[0].line} to {parts[-1].line}: the column {field.name!r} holds {field.type} in "
                f"the first rows, but not here ({error}); read it without streaming, or give it one type"
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else value.encode("utf-8", "replace").decode()  # "?" for half a character
    return json.dumps(value, ensure_ascii=False)


def _fitted(file: Path, batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """A batch with the columns of a schema, in its order."""
    columns = []
    for field in schema:
        place = batch.schema.get_field_index(field.name)
        column = pa.nulls(len(batch), field.type) if place < 0 else batch.column(place)
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise BadFileError(
                f"{file}: the column {field.name!r} holds {column.type}, which is not readable as {field.type}, as in "
                f"other files ({error}); give it one type"
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


# Kinds of files


def _open_arrow(file: Path) -> Any:
    """Batches of a file or stream of Arrow."""
    source = pa.memory_map(str(file))
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        return _ArrowFile(pa.ipc.open_file(source))


class _ArrowFile:
    """The batches of an Arrow file, which are read by number, one after another."""

    def __init__(self, reader: Any) -> None:
        self.reader, self.schema = reader, reader.schema

    def __enter__(self) -> _ArrowFile:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return map(self.reader.get_batch, range(self.reader.num_record_batches))


def _rows_at_once(metadata: Any) -> int:
    """Rows of a parquet file that have about `AT_ONCE` bytes."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
    return max(int(AT_ONCE / max(largest, 1)), 1)
