"""How tables hold series: a row for each step, a row for each series, or lists of numbers in cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lambda_seq.inference.series import MARKS
from lambda_seq.tasks.data.labels import LABEL_NAMES, TEXT, named_column
from lambda_seq.tasks.data.reading.cache import cached_table
from lambda_seq.tasks.data.reading.columns import like_classes
from lambda_seq.tasks.data.reading.notes import note, some

COLUMN = "series"  # that holds the series, a list for each channel
LISTS = datasets.List(datasets.List(datasets.Value("float32")))
ID_NAMES = ("id", "series_id", "series", "sample_id", "sample", "case_id", "case", "sequence_id", "instance", "unit")
TIME_NAMES = ("time", "timestamp", "t", "step", "datetime", "date", "time_step", "timestep", "position")
LEAST = 8  # columns of numbers that are the steps of a series
LOOKED = 200  # rows whose cells tell what a column holds
AT_ONCE = 512  # rows
LAYOUTS = ("channels", "steps")
UNEVEN = 0.01  # of the steps from time to time that differ from the usual one
INDEX = re.compile(r"__index_level_\d+__|unnamed: \d+|index", re.I)  # as pandas writes it
NUMBERS = re.compile(r"\s*\[?\s*[-+?\d.naNA]+(e[-+]?\d+)?([\s,;]+[-+?\d.naNA]+(e[-+]?\d+)?){2,}\s*\]?\s*", re.I)


@dataclass(frozen=True)
class FormOptions:
    """What is known of how series are held, where it is not to be guessed; see `SeriesData`."""

    layout: str | None = None
    channels: int | None = None
    id_column: str | None = None
    time_column: str | None = None
    channel_columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.layout not in (None, *LAYOUTS):
            raise ValueError(f"layout={self.layout!r}: expected one of {', '.join(map(repr, LAYOUTS))}")
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"channels={self.channels}: expected at least 1")


@dataclass(frozen=True)
class Form:
    """Where the numbers of a table are.

    Attributes:
        kind: "long", a row for each step; "wide", a row for each series, whose numbers are columns; "lists", in cells.
        columns: of the numbers: of "wide" the steps, otherwise the channels, or one with all of them.
        channels: their names; of "lists" in a single column empty until it is read.
        id, time: columns of "long".
        steps: whether a cell, or a row, has the numbers of a step beside one another, not those of a channel.
    """

    kind: Literal["long", "wide", "lists"]
    columns: tuple[str, ...]
    channels: tuple[str, ...] = ()
    id: str | None = None
    time: str | None = None
    steps: bool = False


def numbered(count: int) -> tuple[str, ...]:
    """Names of channels that have none."""
    return tuple(f"channel {place}" for place in range(1, count + 1))


def find_form(table: Any, options: FormOptions, known: Sequence[str]) -> Form:
    """How a table holds series; what is guessed is said.

    Args:
        table: of the training, or of rows to predict.
        options: what is known.
        known: columns of something else: labels, and numbers to predict.

    Raises:
        ValueError: no series are found in it; says which forms there are.
    """
    taken = {name.casefold() for name in known or _usual_label(table)}
    looked = table.select(range(min(len(table), LOOKED))).with_format("arrow")[:]
    columns = [name for name in table.column_names if name.strip().casefold() not in taken]
    if index := [name for name in columns if INDEX.fullmatch(name) or _counts_rows(looked, name)]:
        note(f"Columns {some(index)} number the rows, and are no channels. Choose with --data.channel_columns")
        columns = [name for name in columns if name not in index]
    given = [named_column(table.column_names, "channel_columns", name) for name in options.channel_columns or ()]
    lists = [name for name in given or columns if _holds_lists(table, name, looked)]
    if lists:
        if len(lists) > 1:
            return Form("lists", tuple(lists), tuple(lists))
        if not given and lists[0] not in (COLUMN, "x"):
            note(f"Column {lists[0]!r} is read as series. Choose with --data.channel_columns")
        return Form("lists", (lists[0],), steps=options.layout == "steps")
    name = _id(table, columns, options)
    time = _time(columns, options)
    if name is not None:
        channels = given or [one for one in columns if one not in (name, time) and _numeric(looked, one)]
        if not channels:
            raise ValueError(f"channel_columns: beside {name!r} and {time!r} no column of numbers is left; name some")
        what = f"in the order of {time!r}" if time else "in the order of the rows"
        note(f"Rows with the same {name!r} are read as a series of the channels {some(list(channels))}, {what}")
        return Form("long", tuple(channels), tuple(channels), name, time)
    if options.time_column is not None:
        raise ValueError(
            f"time_column={options.time_column!r}: rows are steps of series, but of which ones? Name the column that "
            "says so: --data.id_column NAME"
        )
    steps = given or _steps(table, columns, looked, bool(known))
    if len(steps) < (1 if given else LEAST):
        raise ValueError(
            f"no series are found in the columns {some(table.column_names, 20)}; expected lists of numbers in cells, a "
            "column that says which series a row is a step of (--data.id_column NAME), or a column for each step; or "
            "name them: --data.channel_columns"
        )
    count = options.channels or 1
    if len(steps) % count:
        raise ValueError(f"channels={count}: {len(steps)} numbers of a row are no whole number of channels")
    note(
        f"Columns {steps[0]!r} to {steps[-1]!r} are read as series of {len(steps) // count} steps and {count} "
        f"channel{'s' * (count > 1)}. Choose with --data.channel_columns, --data.channels or --data.id_column"
    )
    return Form("wide", tuple(steps), numbered(count), steps=options.layout == "steps")


def _usual_label(table: Any) -> list[str]:
    """The column that would be the label by its name: of several, such as label and y, the first."""
    usual = {name.strip().casefold(): name for name in table.column_names}
    return [usual[name] for name in LABEL_NAMES if name in usual][:1]


def steps_by_id(table: Any, label: str | None) -> tuple[str, ...]:
    """The columns that say of which series rows are steps, and when, and those of their numbers; nothing if none do."""
    taken = [label] if label else _usual_label(table)
    columns = [name for name in table.column_names if name not in taken]
    name, time = _id(table, columns, FormOptions()), _time(columns, FormOptions())
    if name is None or time is None:
        return ()
    looked = table.select(range(min(len(table), LOOKED))).with_format("arrow")[:]
    channels = [one for one in columns if one not in (name, time) and _numeric(looked, one)]
    return (name, time, *channels) if channels else ()


def _holds_lists(table: Any, column: str, looked: pa.Table) -> bool:
    kind = table.features[column]
    if kind in TEXT:
        first = next((cell for cell in looked.column(column).to_pylist() if cell), "")
        return bool(NUMBERS.fullmatch(first))
    depth = 0
    while isinstance(kind, datasets.List | datasets.LargeList):
        kind, depth = kind.feature, depth + 1
    if isinstance(kind, datasets.Array2D):
        return True
    return depth in (1, 2) and isinstance(kind, datasets.Value) and ("int" in kind.dtype or "float" in kind.dtype)


def _counts_rows(looked: pa.Table, column: str) -> bool:
    """Whether a column without a name is one in which a table was written with the numbers of its rows."""
    return column == "column 1" and looked.column(column).to_pylist() == list(map(str, range(len(looked))))


def _id(table: Any, columns: Sequence[str], options: FormOptions) -> str | None:
    """The column that says of which series a row is a step: its values come again."""
    if options.id_column is not None:
        return named_column(table.column_names, "id_column", options.id_column)
    usual = [name for name in columns if name.strip().casefold() in ID_NAMES]
    usual.sort(key=lambda name: ID_NAMES.index(name.strip().casefold()))
    return next((name for name in usual if _comes_again(table, name)), None)


def _comes_again(table: Any, column: str) -> bool:
    cells = table.select_columns(column).with_format("arrow")[:].column(0)
    return not pa.types.is_nested(cells.type) and len(pc.unique(cells)) < len(cells)


def _time(columns: Sequence[str], options: FormOptions) -> str | None:
    if options.time_column is not None:
        return named_column(list(columns), "time_column", options.time_column)
    usual = [name for name in columns if name.strip().casefold() in TIME_NAMES]
    return min(usual, key=lambda name: TIME_NAMES.index(name.strip().casefold()), default=None)


def _steps(table: Any, columns: Sequence[str], looked: pa.Table, labelled: bool) -> list[str]:
    """Columns of numbers; one of them at either end that is like classes is the label, if no other is known."""
    found = [name for name in columns if name.strip().casefold() not in ID_NAMES and _numeric(looked, name)]
    if not (labelled or _usual_label(table)) and len(found) > LEAST and len(found) == len(columns):
        ends = [name for name in (found[0], found[-1]) if like_classes(table, name)]
        if len(ends) == 1:
            found.remove(ends[0])
    return found


def _numeric(looked: pa.Table, column: str) -> bool:
    """Whether the first cells of a column are numbers, some of them not missing."""
    try:
        return bool(np.isfinite(as_numbers(looked.column(column), column, "")).any())
    except ValueError:
        return False


def as_numbers(cells: Any, column: str, where: str) -> np.ndarray:
    """Cells as float64, NaN for those that are missing.

    Raises:
        ValueError: one is no number; names its row.
    """
    cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    if pa.types.is_boolean(cells.type):
        cells = cells.cast(pa.int8())
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        trimmed = pc.utf8_lower(pc.utf8_trim_whitespace(cells))
        known = pc.invert(pc.is_in(trimmed, pa.array(MARKS, cells.type)))
        cells = pc.if_else(known, trimmed, None)
    try:
        return np.asarray(pc.cast(cells, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        bad = next((row for row, cell in enumerate(cells.to_pylist()) if not _is_number(cell)), 0)
        raise ValueError(
            f"{where}: row {bad} has {cells[bad].as_py()!r} in column {column!r}; expected a number, with a point "
            "where it has one"
        ) from error


def _is_number(cell: Any) -> bool:
    try:
        return cell is None or float(cell) is not None
    except (TypeError, ValueError):
        return False


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
