"""How tables hold series: a row for each step, a row for each series, or lists of numbers in cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lambda_seq.inference.series import MARKS
from lambda_seq.tasks.data.labels import LABEL_NAMES, TEXT, named_column
from lambda_seq.tasks.data.reading.columns import like_classes
from lambda_seq.tasks.data.reading.notes import note, some

COLUMN = "series"  # that holds the series, a list for each channel
ID_NAMES = ("id", "series_id", "series", "sample_id", "sample", "case_id", "case", "sequence_id", "instance", "unit")
TIME_NAMES = ("time", "timestamp", "t", "step", "datetime", "date", "time_step", "timestep", "position")
LEAST = 8  # columns of numbers that are the steps of a series
LOOKED = 200  # rows whose cells tell what a column holds
LAYOUTS = ("channels", "steps")
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
