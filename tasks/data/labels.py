"""Columns and labels: which column holds what, class names, and the split of rows into train, validation and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np

LABEL_NAMES = ("label", "labels", "target", "class", "category", "y")


@dataclass(frozen=True)
class Rows:
    """Some rows of a table with their class numbers; labels is None where they are unknown."""

    table: datasets.Dataset
    indices: np.ndarray  # (n,) of rows in table
    labels: np.ndarray | None  # (n,) class numbers

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, chosen: np.ndarray) -> Rows:
        """The rows at these places."""
        return replace(self, indices=self.indices[chosen], labels=None if self.labels is None else self.labels[chosen])


def find_column(
    table: datasets.Dataset, option: str, given: str | None, names: tuple[str, ...], fits: Callable[[Any], bool]
) -> str:
    """The column that the option names, else the first with a usual name, else the only one whose type fits.

    Raises:
        ValueError: the named column is absent, or none or several fit; lists the columns and the option to give.
    """
    columns = table.column_names
    if given is not None:
        if given not in columns:
            raise ValueError(f"{option}={given!r}: there is no such column; the columns are {', '.join(columns)}")
        return given
    for name in names:
        if name in columns:
            return name
    fitting = [name for name in columns if fits(table.features[name])]
    if len(fitting) == 1:
        return fitting[0]
    found = f"several could be it: {', '.join(fitting)}" if fitting else f"none is called {' or '.join(names)}"
    raise ValueError(
        f"no column chosen for {option}: {found}; the columns are {', '.join(columns)}. Name one: --data.{option} NAME"
    )


def find_label_column(table: datasets.Dataset, given: str | None) -> str:
    """The column of class labels; see `find_column`."""
    return find_column(table, "label_column", given, LABEL_NAMES, lambda kind: isinstance(kind, datasets.ClassLabel))


def encode_labels(
    splits: dict[str, datasets.Dataset], column: str, where: str
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Class names, and a class number for each row of each split.

    Names are those of the column's `ClassLabel`; otherwise the distinct values of the training split, sorted.

    Raises:
        ValueError: a split without the column, a row without label, a label that no training row has.
    """
    values = {split: _values(table, column, f"{split} split of {where}") for split, table in splits.items()}
    known = set(values["train"])
    if len(known) < 2:
        raise ValueError(f"label_column={column!r} of {where}: all training rows have the same label, {known.pop()!r}")
    kind = splits["train"].features[column]
    names = kind.names if isinstance(kind, datasets.ClassLabel) else sorted(known)
    number = {name: index for index, name in enumerate(names)}
    for split, cells in values.items():
        for row, cell in enumerate(cells):
            if cell not in known:
                raise ValueError(
                    f"{split} split of {where}: row {row} has the label {cell!r}, which no training row has "
                    f"(training labels: {_some([str(name) for name in names if name in known])}); "
                    "add such rows to the training split or remove this one"
                )
    numbers = {split: np.array([number[cell] for cell in cells], dtype=np.int64) for split, cells in values.items()}
    return [str(name) for name in names], numbers


def _values(table: datasets.Dataset, column: str, where: str) -> list[str | int]:
    """The labels of all rows: class names where the column has them, else its strings or whole numbers."""
    if column not in table.column_names:
        raise ValueError(f"label_column={column!r} is absent from the {where}: it has {', '.join(table.column_names)}")
    cells = table.select_columns(column)[:][column]
    kind = table.features[column]
    if isinstance(kind, datasets.ClassLabel):
        cells = [None if cell is None or cell < 0 else kind.names[cell] for cell in cells]
    for row, cell in enumerate(cells):
        if cell is None:
            raise ValueError(f"{where}: row {row} has no label in column {column!r}; label these rows or remove them")
        if not isinstance(cell, (str, int)):
            raise ValueError(
                f"label_column={column!r}: row {row} of the {where} holds {cell!r}; expected a class name or a whole "
                "number. Name another column: --data.label_column NAME"
            )
    return cells


def carve(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows in two parts, the second about `fraction` of them, with the same share of each class; at least one row."""
    if rows.labels is None:
        raise TypeError("rows without labels cannot be divided by class")
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    by_class = shuffled[np.argsort(rows.labels[shuffled], kind="stable")]
    count = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
    places = (np.arange(count) + 0.5) * len(rows) / count  # evenly spaced through the classes
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[by_class[places.astype(int)]] = True
    return rows.take(np.flatnonzero(~chosen)), rows.take(np.flatnonzero(chosen))


def _some(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
