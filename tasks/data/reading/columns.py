"""Columns of tables: those within columns, those that are like classes, and cells with nothing in them."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LOOKED = 10_000  # rows that tell whether a column is like classes
MOST = 100  # classes
LONGEST = 60  # characters of a class
FILE = {"bytes", "path", "array"}  # of the parts of a column one of which makes it a picture or clip


def flat(table: datasets.Dataset) -> datasets.Dataset:
    """A table with the parts of columns as columns, `review.body` of `review`; pictures and clips stay whole."""
    nested = [name for name, kind in table.features.items() if isinstance(kind, dict) and not FILE & set(kind)]
    if not nested:
        return table
    others = [name for name in table.column_names if name not in nested]
    parts = _compact(table.select_columns(nested).flatten())
    return datasets.concatenate_datasets([_compact(table.select_columns(others)), parts], axis=1) if others else parts


def _compact(table: datasets.Dataset) -> datasets.Dataset:
    """A table without blocks that have no columns.

    Columns of files lie in a block of their own, beside those of a metadata.jsonl. One of which no column is selected
    stays, counts as one of no rows, and keeps datasets from putting the table beside others.
    """
    if not isinstance(table.data, datasets.table.ConcatenationTable):
        return table
    blocks = [[block for block in row if block.num_columns] for row in table.data.blocks]
    data = datasets.table.ConcatenationTable.from_blocks(blocks)
    rows = table._indices  # private: there is no other way to ask which rows were selected
    return datasets.Dataset(data, info=table.info, split=table.split, indices_table=rows)


def like_classes(table: datasets.Dataset, column: str) -> bool:
    """Whether a column holds few values, short words or whole numbers, each of them twice or more on average."""
    kind = table.features[column]
    dtype = kind.dtype if isinstance(kind, datasets.Value) else ""
    if dtype not in ("string", "large_string", "bool") and "int" not in dtype:
        return False
    rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), LOOKED)).astype(int))
    cells = table.select_columns(column).with_format("arrow")[rows].column(0)
    values = [value for value in pc.unique(cells).to_pylist() if value not in (None, "")]
    return 2 <= len(values) <= min(MOST, len(rows) / 2) and all(len(str(value)) <= LONGEST for value in values)


def filled(table: datasets.Dataset, column: str | None = None) -> np.ndarray:
    """Whether each row has something in a column, or in any; a row for each of the table."""
    found = np.zeros(len(table), bool)
    for name in table.column_names if column is None else [column]:
        found |= _filled(table.select_columns(name).with_format("arrow")[:].column(0))
    return found


def _filled(cells: Any) -> np.ndarray:
    if pa.types.is_struct(cells.type):
        parts = pa.Table.from_struct_array(cells) if len(cells) else pa.table({})
        return np.logical_or.reduce([_filled(part) for part in parts.columns] or [np.zeros(len(cells), bool)])
    there = pc.is_valid(cells)
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type) or pa.types.is_binary(cells.type):
        there = pc.and_(there, pc.fill_null(pc.greater(pc.binary_length(cells), 0), False))
    return np.asarray(there.to_numpy(), dtype=bool)
