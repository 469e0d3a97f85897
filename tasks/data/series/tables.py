"""Series out of tables of any form, mapped into memory: a row for each, with its channels as lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lambda_seq.inference.series import MARKS
from lambda_seq.tasks.data.reading.cache import cached_table
from lambda_seq.tasks.data.reading.notes import note, some
from lambda_seq.tasks.data.series.forms import COLUMN, Form, as_numbers, numbered

LISTS = datasets.List(datasets.List(datasets.Value("float32")))
AT_ONCE = 512  # rows
UNEVEN = 0.01  # of the steps from time to time that differ from the usual one


def as_series(table: Any, form: Form, where: str) -> tuple[Any, tuple[str, ...]]:
    """The table with a row for each series, in the column "series" as lists of channels, and names of the channels.

    Other columns stay; of steps, those that say one thing of all steps of a series.

    Args:
        table: as it was read.
        form: how it holds series.
        where: its origin, for errors.

    Raises:
        ValueError: columns are missing, or a cell holds something else; names it.
    """
    needed = [*form.columns, *(name for name in (form.id,) if name)]
    if lacking := [name for name in needed if name not in table.column_names]:
        raise ValueError(f"{where}: the columns {some(lacking)} are missing; give a table like that of training")
    others = [name for name in table.column_names if name not in (*form.columns, form.time)]
    make: Callable[[], Iterator[np.ndarray]]
    if form.kind == "long":
        steps, make = _grouped(table, form, where)
        kept = [name for name in others if name == form.id or _constant(table, name, steps)]
        if left := [name for name in others if name not in kept]:
            note(f"{where}: columns that differ from step to step of a series are left out: {some(left)}")
        chosen = table.select_columns(kept)
        cells = chosen.with_format("arrow")[steps.first].to_pydict()
        rest = datasets.Dataset.from_dict(cells, features=chosen.features)
    else:
        rest = table.select_columns([name for name in others if name != COLUMN]) if others else None
        make = (lambda: _rows(table, form, where)) if form.kind == "wide" else (lambda: _cells(table, form, where))
    # Private to datasets: what its own caches are named by
    depends_on = [table._fingerprint, form.kind, form.columns, form.channels, form.id, form.time, form.steps]
    held, channels = stored(depends_on, make, where, form.channels)
    if rest is not None and rest.column_names:
        held = datasets.concatenate_datasets([rest, held], axis=1)
    return held, channels


def stored(
    depends_on: Any, make: Callable[[], Iterator[np.ndarray]], where: str, channels: Sequence[str] = ()
) -> tuple[Any, tuple[str, ...]]:
    """A table, mapped into memory, with a column of series (C, N), all of as many channels, and names of these.

    Raises:
        ValueError: a row with another number of channels; names it.
    """
    schema = datasets.Features({COLUMN: LISTS}).arrow_schema

    def batches() -> Iterator[pa.Table]:
        batch: list[np.ndarray] = []
        count = len(channels)
        for row, series in enumerate(make()):
            count = count or len(series)
            if len(series) != count:
                raise ValueError(
                    f"{where}: row {row} has {len(series)} channels, and those before {count}; give all as many, or, "
                    "if these are steps, --data.layout steps"
                )
            batch.append(series)
            if len(batch) == AT_ONCE:
                yield _table(batch, schema)
                batch = []
        yield _table(batch, schema)

    table = cached_table("series", depends_on, schema, batches)
    if not channels and len(table):
        first = table.with_format("arrow")[0].column(0)[0]
        channels = numbered(len(first))
    return table, tuple(channels)


def _table(batch: Sequence[np.ndarray], schema: pa.Schema) -> pa.Table:
    """Series (C, N) as a table."""
    lengths = [series.shape[1] for series in batch for _ in series]
    values = np.concatenate([series.ravel() for series in batch]) if batch else np.zeros(0)
    inner = pa.ListArray.from_arrays(np.cumsum([0, *lengths], dtype=np.int32), pa.array(values.astype(np.float32)))
    outer = pa.ListArray.from_arrays(np.cumsum([0, *map(len, batch)], dtype=np.int32), inner)
    return pa.Table.from_arrays([outer.cast(schema.field(0).type)], schema=schema)


# A row for each series


def _rows(table: Any, form: Form, where: str) -> Iterator[np.ndarray]:
    """Of each row the numbers, without missing ones at the end, which a shorter series has."""
    count = len(form.channels)
    arrow = table.select_columns(list(form.columns)).with_format("arrow")
    for begin in range(0, len(table), AT_ONCE):
        part: pa.Table = arrow[begin : begin + AT_ONCE]
        numbers = np.stack([as_numbers(part.column(name), name, where) for name in form.columns], 1)  # (rows, steps)
        for row in numbers:
            series = row.reshape(-1, count).T if form.steps else row.reshape(count, -1)  # (C, N)
            known = np.flatnonzero(~np.isnan(series).all(0))
            yield series[:, : known[-1] + 1 if len(known) else 0]


def _cells(table: Any, form: Form, where: str) -> Iterator[np.ndarray]:
    """Of each row the lists in its cells."""
    arrow = table.select_columns(list(form.columns)).with_format("arrow")
    for begin in range(0, len(table), AT_ONCE):
        part: pa.Table = arrow[begin : begin + AT_ONCE]
        for row, cells in enumerate(zip(*(part.column(name).to_pylist() for name in form.columns), strict=True), begin):
            try:
                yield _of_lists(cells, form)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{where}: row {row} holds no series in {some(list(form.columns))} ({error}); expected a list of "
                    "numbers, or one for each channel"
                ) from error


def _of_lists(cells: Sequence[Any], form: Form) -> np.ndarray:
    lists = [_list(cell) for cell in cells]
    if len(lists) == 1 and lists[0] and any(isinstance(one, list) for one in lists[0]):
        lists = lists[0]
        if form.steps:
            return np.array(lists, dtype=np.float32).T
    if len({len(one) for one in lists}) > 1:
        raise ValueError(f"channels of {', '.join(str(len(one)) for one in lists)} numbers")
    return np.array(lists, dtype=np.float32)  # None becomes NaN


def _list(cell: Any) -> list[Any]:
    if isinstance(cell, str):
        words = re.split(r"[\s,;]+", cell.strip().strip("[]").strip())
        return [None if word.casefold() in MARKS else float(word) for word in words]
    return [] if cell is None else list(cell)


# A row for each step


@dataclass(frozen=True)
class Steps:
    """Which rows are steps of which series.

    Attributes:
        order: rows, series after series, each in the order of time.
        ends: of each series in `order`, behind its last step.
        first: a row of each series.
        codes: number of the series of each row.
    """

    order: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    codes: np.ndarray


def _grouped(table: Any, form: Form, where: str) -> tuple[Steps, Callable[[], Iterator[np.ndarray]]]:
    names = table.select_columns(form.id).with_format("arrow")[:].column(0)
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    if names.null_count:
        row = int(np.flatnonzero(pc.is_null(names).to_numpy(zero_copy_only=False))[0])
        raise ValueError(f"{where}: row {row} has nothing in column {form.id!r}, so that its series is not known")
    codes = pc.dictionary_encode(names).indices.to_numpy().astype(np.int64)  # in the order in which they come
    time = None if form.time is None or form.time not in table.column_names else _times(table, form.time, where)
    order = np.argsort(codes, kind="stable") if time is None else np.lexsort((time, codes))
    ends = np.cumsum(np.bincount(codes))
    first = order[np.concatenate([[0], ends[:-1]])]
    if time is not None:
        _note_uneven(time[order], ends, form.time, where)

    def make() -> Iterator[np.ndarray]:
        arrow = table.select_columns(list(form.columns)).with_format("arrow")[:]
        numbers = np.stack([as_numbers(arrow.column(name), name, where) for name in form.columns])  # (C, rows)
        for begin, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
            yield numbers[:, order[begin:end]]

    return Steps(order, ends, first, codes), make


def _times(table: Any, column: str, where: str) -> np.ndarray:
    """Numbers, or dates, to sort by."""
    cells = table.select_columns(column).with_format("arrow")[:].column(0)
    try:
        times = as_numbers(cells, column, where)
    except ValueError as error:
        try:
            moments = pc.cast(cells, pa.timestamp("us"))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise ValueError(f"{error}, or a date such as 2026-01-31 23:59:59: --data.time_column") from error
        times = as_numbers(pc.cast(moments, pa.int64()), column, where)
    if np.isnan(times).any():
        row = int(np.flatnonzero(np.isnan(times))[0])
        raise ValueError(f"{where}: row {row} has no time in column {column!r}, so that its place is not known")
    return times


def _note_uneven(times: np.ndarray, ends: np.ndarray, column: str | None, where: str) -> None:
    """Say that times are uneven, or the same, which a network does not see."""
    steps = np.diff(times)
    steps = np.delete(steps, ends[:-1] - 1)  # those from a series to the next
    if not len(steps):
        return
    usual = float(np.median(steps))
    odd = int((np.abs(steps - usual) > 1e-6 * max(abs(usual), 1e-300)).sum())
    if odd > UNEVEN * len(steps):
        note(
            f"{where}: {odd} of {len(steps)} steps in {column!r} are longer or shorter than the usual {usual:g}: the "
            "network sees the order of steps, not the time between. Give that as a channel, or resample"
        )


def _constant(table: Any, column: str, steps: Steps) -> bool:
    """Whether a column says one thing of all steps of a series."""
    cells = table.select_columns(column).with_format("arrow")[:].column(0)
    cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    if pa.types.is_nested(cells.type):
        return False
    codes = pc.fill_null(pc.dictionary_encode(cells).indices, -1).to_numpy()
    return bool((codes == codes[steps.first][steps.codes]).all())
