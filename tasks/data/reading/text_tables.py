"""Rows of csv, tsv, jsonl and json files, one after another, as they are written.

The builders of `datasets` for such files read other things than are written: csv goes through pandas, where the class
007 becomes 7.0 beside a missing one, and NA is missing; what becomes of values of several types in a column of JSON
depends on the version. Here cells are text, types are those of all rows, and errors name file and line; `datasets`
keeps and serves the table that results.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from lambda_seq.tasks.data.reading.cache import in_batches
from lambda_seq.tasks.data.reading.dialects import GUESSED, TableOptions, dialect_of
from lambda_seq.tasks.data.reading.files import BadFileError, kind_of
from lambda_seq.tasks.data.reading.notes import note, some


class Part(NamedTuple):
    """One row of a file."""

    line: int
    size: int  # bytes, about
    cells: dict[str, Any]


def common(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """The type that holds values of both; of strings if they become their JSON texts."""
    try:
        schemas = [pa.schema([("x", kind)]) for kind in (first, second)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()


def _type_of(values: list[Any]) -> pa.DataType:
    """The type of values from JSON; of strings if they are of several kinds."""
    kinds = {type(value) for value in values}
    try:
        return pa.string() if bool in kinds and kinds & {int, float} else pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return pa.string()


def _opened(file: Path, stream: io.TextIOWrapper, options: TableOptions) -> tuple[list[str], Any]:
    """Names of the columns of a csv or tsv file, and its rows as lists of cells.

    Raises:
        BadFileError: several columns have the same name.
    """
    dialect = dialect_of(file, options)
    lines = filter(str.strip, stream)
    if dialect.skipped:
        next(lines, "")
    first = next(lines, "")
    rows = csv.reader(chain([first], stream), delimiter=dialect.separator, quoting=dialect.quoting, strict=True)
    if not dialect.header:
        width = len(next(csv.reader([first], delimiter=dialect.separator, quoting=dialect.quoting), []))
        return [f"column {place}" for place in range(1, width + 1)], rows
    names = [name.strip() or f"column {place}" for place, name in enumerate(next(rows, []), 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadFileError(
            f"{file}: its header names several columns {some(twice)}; give each a name of its own, or, if its first "
            "line is a row, --data.table.header false"
        )
    return names, rows


def csv_schema(file: Path, stream: io.TextIOWrapper, options: TableOptions = GUESSED) -> pa.Schema:
    """The columns that the header names, all of text."""
    return pa.schema([(name, pa.string()) for name in _opened(file, stream, options)[0]])


def csv_rows(file: Path, stream: io.TextIOWrapper, options: TableOptions = GUESSED) -> Iterator[Part]:
    """Rows of text, empty cells missing; lines without anything are left out."""
    names, rows = _opened(file, stream, options)
    line = rows.line_num + 1
    short: list[int] = []
    bare: list[int] = []  # lines without anything
    blank: list[int] = []  # those of them that have rows behind
    for cells in rows:
        if len(cells) > len(names) and any(cells[len(names) :]):
            raise BadFileError(
                f"{file}, line {line}: {len(cells)} cells, but the header has {len(names)}; put cells that hold the "
                "separator between quotation marks, or give another one: --data.table.separator"
            )
        if not cells:
            bare.append(line)
        else:
            blank.extend(bare)
            bare.clear()
            if len(cells) < len(names):
                short.append(line)
            found = dict(zip(names, (cell or None for cell in cells), strict=False))
            yield Part(line, sum(map(len, cells)) + 50 * len(cells), found)
        line = rows.line_num + 1
    if short:
        note(
            f"{file}: {len(short)} rows have fewer cells than the header, the first in line {short[0]}; what they lack "
            "is taken as empty"
        )
    if blank and len(names) == 1:
        note(
            f"{file}: {len(blank)} empty lines between rows are left out, the first is line {blank[0]}; write rows "
            'without text as ""'
        )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, none of whose values is lost because another has its name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = some(sorted({name for name in names if names.count(name) > 1}))
        raise ValueError(f"an object gives several values to {twice}")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def json_schema(file: Path, stream: io.TextIOWrapper, first: bool) -> pa.Schema:
    """The columns of JSON rows with their types: of all rows, or of the first `AT_ONCE` bytes."""
    types: dict[str, pa.DataType] = {}
    for parts in in_batches(json_rows(file, stream), lambda part: part.size):
        for name in dict.fromkeys(name for part in parts for name in part.cells):
            kind = _type_of([part.cells.get(name) for part in parts])
            types[name] = common(types[name], kind) if name in types else kind
        if first:
            break
    return pa.schema(list(types.items()))


def json_rows(file: Path, stream: io.TextIOWrapper) -> Iterator[Part]:
    """Objects one a line; in a .json file also in a list, one after another, or as an object of columns."""
    rows = _values(file, stream.read()) if kind_of(file)[0] == ".json" else _lines(file, stream)
    for part in rows:
        if not isinstance(part.cells, dict):
            raise BadFileError(f"{file}, line {part.line}: expected an object, with braces, for each row")
        yield part


def _lines(file: Path, stream: io.TextIOWrapper) -> Iterator[Part]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                yield Part(number, len(line), DECODER.decode(line))
            except (ValueError, RecursionError) as error:
                raise BadFileError(
                    f"{file}, line {number}: no JSON that can be read ({_reason(error)}); expected one object a line"
                ) from error


def _values(file: Path, text: str) -> Iterable[Part]:
    parts = _decoded(file, text)
    first, second = next(parts, None), next(parts, None)
    if first is None:
        return []
    if second is None and isinstance(first.cells, dict) and _are_columns(first.cells):
        columns = [cells.values() if isinstance(cells, dict) else cells for cells in first.cells.values()]
        names, rows = first.cells.keys(), zip(*columns, strict=True)
        return (Part(1, 50 * len(names), dict(zip(names, row, strict=True))) for row in rows)
    return chain([part for part in (first, second) if part], parts)


def _decoded(file: Path, text: str) -> Iterator[Part]:
    """The values of a list, or those that stand one after another."""
    place, line, gap = 0, 1, " \t\r\n"
    listed = text.lstrip(gap).startswith("[")
    if listed:
        place, gap = text.index("[") + 1, gap + ","
    while True:
        while place < len(text) and text[place] in gap:
            line += text[place] == "\n"
            place += 1
        if place == len(text) or (listed and text[place] == "]"):
            break
        try:
            value, end = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            bad = getattr(error, "lineno", line)
            raise BadFileError(f"{file}, line {bad}: no JSON that can be read ({_reason(error)})") from error
        yield Part(line, end - place, value)
        line += text.count("\n", place, end)
        place = end
    if listed and place == len(text):
        raise BadFileError(f"{file}: the list of rows does not end: the file is cut off")
    if rest := text[place + 1 :].lstrip(gap):
        line = text.count("\n", 0, len(text) - len(rest)) + 1
        raise BadFileError(f"{file}, line {line}: the list of rows ends, but more follows; put all rows into one list")


def _reason(error: Exception) -> str:
    """What the JSON decoder complains of: syntax, lists within lists beyond all measure, or a number without end."""
    return str(getattr(error, "msg", error)).partition(";")[0]


def _are_columns(found: dict[str, Any]) -> bool:
    """Whether an object holds whole columns: lists of the same length, or objects with the rows' numbers as keys."""
    if all(isinstance(cells, list) for cells in found.values()):
        return len({len(cells) for cells in found.values()}) == 1
    if not all(isinstance(cells, dict) for cells in found.values()):
        return False
    keys = {tuple(cells) for cells in found.values()}  # as pandas writes them by default
    return len(keys) == 1 and all(key.isdecimal() for key in keys.pop())
