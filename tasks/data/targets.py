"""What is known of each row: one class, any of several labels, or numbers; which of them, the columns tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lambda_seq.tasks.data.labels import (
    LABEL_NAMES,
    TEXT,
    TEXT_NAMES,
    encode_labels,
    find_label_column,
    in_order,
    label_name,
    name_rows,
    named_column,
    reads_as_numbers,
)
from lambda_seq.tasks.data.reading.columns import LONGEST, MOST, like_classes
from lambda_seq.tasks.data.reading.notes import note, some
from lambda_seq.tasks.facts import TargetKind

SIGNS = ";|,"  # that may part labels in a cell
SHARED = 0.5  # of the labels in cells with several, those that stand in other cells, too
KINDS: tuple[TargetKind, ...] = ("classes", "labels", "numbers")
FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class TargetOptions:
    """What is known of a row, where that is not to be guessed.

    Args:
        kind: "classes", one of them; "labels", any of several; or "numbers". Default: numbers never, several labels
            where cells are lists or seem to hold several, else classes.
        separator: of the labels in a cell, such as ';'; an empty cell has none of them.
        columns: of labels, a column of 0 and 1 for each; or of several numbers.

    Raises:
        ValueError: no such kind, or options that do not go together.
    """

    kind: str | None = None
    separator: str | None = None
    columns: list[str] | None = None

    def __post_init__(self) -> None:
        if self.kind not in (None, *KINDS):
            raise ValueError(f"target.kind={self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.separator == "":
            raise ValueError("target.separator='': expected the sign between the labels of a cell, such as ';'")
        if self.separator is not None and (self.kind not in (None, "labels") or self.columns):
            other = f"target.columns={self.columns}" if self.columns else f"target.kind={self.kind!r}"
            raise ValueError(f"target.separator={self.separator!r} with {other}: it parts labels; leave one out")
        if self.columns is not None and (self.kind == "classes" or len(set(self.columns)) != len(self.columns or "-")):
            given = f"target.columns={self.columns} with target.kind={self.kind!r}"
            raise ValueError(f"{given}: expected different columns, of labels or of numbers")


GUESSED = TargetOptions()


@dataclass(frozen=True)
class Targets:
    """What is known of the rows of each split.

    Attributes:
        kind: "classes", "labels", "numbers" or "tags".
        names: of the classes, labels, numbers or tags.
        values: of each row by split, as `Rows.labels`: class numbers (n,); or (n, names), NaN where it is not known.
        column: that they are read from; None of several.
    """

    kind: TargetKind
    names: list[str]
    values: dict[str, np.ndarray] = field(repr=False)
    column: str | None = None


def read_targets(
    tables: Mapping[str, datasets.Dataset],
    label_column: str | None,
    options: TargetOptions,
    where: str,
    refuse: bool = True,
) -> Targets:
    """What is known of each row.

    Args:
        tables: by split, one of them "train".
        label_column: that is given; None for the one that is found.
        options: what it is, where that is known.
        where: the rows' origin, for errors.
        refuse: training rows of which nothing is known.

    Raises:
        ValueError: no column, or one that holds something else; names it, and the option to give.
    """
    splits, train = dict(tables), tables["train"]
    numbers, columns = options.kind == "numbers", options.columns
    if columns is None and options.kind in (None, "labels") and label_column is None and options.separator is None:
        columns = _flags(train, where)
    if columns is not None:
        columns = [named_column(train.column_names, "target.columns", column) for column in columns]
        read = _number if numbers else _flag
        names, column = columns, None
        values = {
            split: _from_columns(table, columns, read, f"{split} split of {where}") for split, table in splits.items()
        }
    else:
        column = (_number_column if numbers else _label_column)(train, label_column)
        sign = None if numbers else _sign(train, column, options, where)
        several = options.kind == "labels" or sign is not None or (options.kind is None and _lists(train, column))
        if not numbers and not several:
            names, values = encode_labels(splits, column, where, refuse)
            return Targets("classes", names, values, column)
        if numbers:
            names = [column]
            values = {
                split: _from_columns(table, names, _number, f"{split} split of {where}")
                for split, table in splits.items()
            }
        else:
            names, values = _labels(splits, column, sign, where)
    kind: TargetKind = "numbers" if numbers else "labels"
    what = f"columns {some(columns)}" if columns else f"column {column!r}"
    _check(values["train"], names, train, what, where, kind, refuse)
    return Targets(kind, names, values, column)


def _check(found: np.ndarray, names: list[str], train: Any, what: str, where: str, kind: str, refuse: bool) -> None:
    """That something is known of each training row, and that there is something to tell apart."""
    missing = np.flatnonzero(np.isnan(found).any(1))
    if len(missing) and refuse:
        unit = "number" if kind == "numbers" else "list of labels"
        raise ValueError(
            f"train split of {where}: {len(missing)} of {len(found)} rows have no {unit} in {what}: "
            f"{name_rows(train, missing)}; fill them in, or leave these rows out: --data.drop_incomplete true"
        )
    known = found[~np.isnan(found).any(1)]
    if not len(known) or (known == known[0]).all():
        same = "no training row has any" if not len(known) or not known.any() else "all training rows have the same"
        unit = "numbers" if kind == "numbers" else "labels"
        raise ValueError(
            f"{what} of {where}: {same} {unit}; add other rows, or name another column: --data.label_column NAME"
        )
    if kind == "labels" and (none := int((known == 0).all(1).sum())):
        note(f"{what} of {where}: {none} of {len(found)} training rows have none of the {len(names)} labels")


# Several labels in a cell


def _label_column(train: Any, given: str | None) -> str:
    """The column of labels; see `find_label_column`. Without any other, the only one of lists of words."""
    try:
        return find_label_column(train, given)
    except ValueError:
        lists = [name for name in train.column_names if _lists(train, name) and _words(train.features[name])]
        if given is not None or len(lists) != 1:
            raise
        note(f"Column {lists[0]!r} is read as label_column, as no other holds lists. Choose with --data.label_column")
        return lists[0]


def _words(kind: Any) -> bool:
    return isinstance(_inner(kind), datasets.ClassLabel) or _inner(kind) in TEXT


def _sign(train: Any, column: str, options: TargetOptions, where: str) -> str | None:
    """What parts the labels of a cell; None where a cell holds one class, or is a list."""
    if options.separator is not None or options.kind == "classes" or _lists(train, column):
        if _lists(train, column) and options.separator is None and options.kind is None:
            note(f"label_column={column!r} of {where} holds lists: any of several labels are learned of a row")
        if _lists(train, column) and options.separator is not None:
            raise ValueError(
                f"target.separator={options.separator!r}: column {column!r} of {where} holds lists already; leave "
                "it out"
            )
        return options.separator
    if train.features[column] not in TEXT:
        return None
    cells = pc.unique(_cells(train, column)).to_pylist()
    sign = next((sign for sign in SIGNS if _seems(cells, sign)), None)
    if sign is not None and options.kind is None:
        one = next(cell for cell in cells if cell and sign in cell)
        note(
            f"label_column={column!r} of {where} holds several labels in a cell, such as {one!r}, parted by {sign!r}: "
            "any of them are learned of a row. Choose with --data.target.separator, or --data.target.kind classes"
        )
    return sign


def _seems(cells: Sequence[str | None], sign: str) -> bool:
    """Whether different cells are different choices out of the same labels: most stand in several of them."""
    parted = [frozenset(_parts(cell, sign)) for cell in cells if cell and cell.strip()]
    several = {part for one in parted if len(one) > 1 for part in one}
    if not several or len(several) > MOST * 10 or max(map(len, several)) > LONGEST:
        return False
    counts = dict.fromkeys(several, 0)
    for one in parted:
        for part in one & several:
            counts[part] += 1
    return sum(count > 1 for count in counts.values()) >= SHARED * len(several)


def _parts(cell: str, sign: str | None) -> list[str]:
    return [part.strip() for part in (cell.split(sign) if sign else [cell]) if part.strip()]


def _labels(
    splits: Mapping[str, Any], column: str, sign: str | None, where: str
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of the labels, and 0 or 1 for each row and label; NaN for rows of which nothing is known."""
    found = {name: _lists_of(table, column, sign, f"{name} split of {where}") for name, table in splits.items()}
    fixed = getattr(_inner(splits["train"].features[column]), "names", None)
    every = {label for labels in found["train"] if labels for label in labels}
    names = list(fixed) if fixed else sorted(every, key=in_order)
    place = {name: index for index, name in enumerate(names)}
    values = {}
    for split, rows in found.items():
        values[split] = np.zeros((len(rows), len(names)), np.float32)
        for row, labels in enumerate(rows):
            if labels is None:
                values[split][row] = np.nan
            for label in labels or ():
                if label not in place:
                    raise ValueError(
                        f"{split} split of {where}: row {row} has the label {label!r}, which no training row has "
                        f"(training labels: {some(names)}); add such rows to the training split or remove this one"
                    )
                values[split][row, place[label]] = 1
    return names, values


def _lists_of(table: Any, column: str, sign: str | None, where: str) -> list[list[str] | None]:
    """The labels of each row; None of rows of which nothing is known: an empty cell of text is that if all are."""
    if column not in table.column_names:
        return [None] * len(table)
    cells, kind = _cells(table, column), table.features[column]
    names = getattr(_inner(kind), "names", None)
    if pa.types.is_nested(cells.type):
        if isinstance(_inner(kind), (dict, list)) or _inner(kind) is None:
            raise ValueError(
                f"label_column={column!r} of the {where} holds {kind}; expected lists of class names or whole numbers. "
                "Name another column: --data.label_column NAME"
            )
        return [
            None if cell is None else [_label(value, names, column, where) for value in cell if value is not None]
            for cell in cells.to_pylist()
        ]
    texts = [label_name(cell, column, where) or "" for cell in cells.to_pylist()]
    if not any(texts):
        return [None] * len(texts)
    return [_parts(text, sign) for text in texts]


def _label(value: Any, names: list[str] | None, column: str, where: str) -> str:
    found = names[value] if names and isinstance(value, int) else label_name(value, column, where)
    if not found:
        raise ValueError(f"label_column={column!r}: a list of the {where} holds {value!r}; expected class names")
    return found


def _lists(table: Any, column: str) -> bool:
    kind = _cells(table.select(range(min(len(table), 1))), column).type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _inner(kind: Any) -> Any:
    """What a column of lists holds lists of."""
    return kind[0] if isinstance(kind, list) and kind else getattr(kind, "feature", None)


# Columns of 0 and 1, and of numbers


def _flags(train: Any, where: str) -> list[str] | None:
    """Several columns of 0 and 1, if there is no other column that could be the label."""
    last = [name.strip().casefold().rpartition(".")[2] for name in train.column_names]
    if set(last) & {*LABEL_NAMES} or any(isinstance(kind, datasets.ClassLabel) for kind in train.features.values()):
        return None
    others = [name for name, own in zip(train.column_names, last, strict=True) if own not in TEXT_NAMES]
    usual = [name for name in others if like_classes(train, name) or _constant(train, name)]
    if len(usual) < 2 or not all(_distinct(train, name) <= FLAGS.keys() for name in usual):
        return None
    note(
        f"{where}: columns {some(usual)} of 0 and 1 are read as labels, any of which are learned of a row. Choose with "
        "--data.target.columns or --data.label_column"
    )
    return usual


def _constant(table: Any, column: str) -> bool:
    return _distinct(table, column) in ({"0"}, {"0.0"}, {"false"})


def _distinct(table: Any, column: str) -> set[str]:
    if not isinstance(table.features[column], datasets.Value):
        return {"?"}
    values = pc.unique(_cells(table, column).slice(0, 10_000)).to_pylist()
    return {str(value).strip().casefold() for value in values[:100] if value not in (None, "")}


def _from_columns(table: Any, columns: Iterable[str], read: Callable[[Any], float | None], where: str) -> np.ndarray:
    """A value for each row and column, NaN where a cell is empty."""
    found = []
    for column in columns:
        if column not in table.column_names:
            found.append(np.full(len(table), np.nan, np.float32))
            continue
        cells = _cells(table, column)
        values = [math.nan if cell is None or cell == "" or cell != cell else read(cell) for cell in cells.to_pylist()]
        if None in values:
            row, wanted = values.index(None), "0 or 1" if read is _flag else "a number, with a point where it has one"
            raise ValueError(
                f"{where}: row {row} has {cells[row].as_py()!r} in column {column!r}; expected {wanted}. Correct it, "
                "or name another column: --data.target.columns or --data.label_column"
            )
        found.append(np.array(values, np.float32))
    return np.stack(found, 1)


def _flag(cell: Any) -> float | None:
    return FLAGS.get(str(cell).strip().casefold())


def _number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _number_column(train: Any, given: str | None) -> str:
    """The column of numbers: the one that is given, one of a usual name, or the only one that holds fractions."""
    if given is not None:
        return find_label_column(train, given)
    try:
        return find_label_column(train, None)
    except ValueError as error:
        fitting = [name for name in train.column_names if _fractions(train, name)]
        if len(fitting) != 1:
            raise ValueError(
                f"no column chosen for label_column: which of {some(train.column_names, 20)} has the numbers? Name "
                "one: --data.label_column NAME"
            ) from error
        note(
            f"Column {fitting[0]!r} is read as label_column, as no other holds fractions. Choose with "
            "--data.label_column"
        )
        return fitting[0]


def _fractions(table: Any, column: str) -> bool:
    """Whether a column holds numbers with a point."""
    if "float" in str(getattr(table.features[column], "dtype", "")):
        return True
    return reads_as_numbers(table, column) and any("." in value for value in _distinct(table, column))


def _cells(table: Any, column: str) -> Any:
    cells = table.select_columns(column).with_format("arrow")[:].column(0)
    return cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) and cells.num_chunks else cells
