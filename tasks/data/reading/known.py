"""What is known of rows that are predicted, beside the answers: their true labels, where a column has them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import datasets

from lambda_seq.tasks.data.labels import LABEL_NAMES, find_column


class Known:
    """The input and the true label of rows, by their ids.

    Args:
        table: of the rows.
        names: id of each row of the table.
        shown: the input of the row with this number, as text or as its path.
        label_column: of true labels; None for the one of a usual name.
    """

    def __init__(
        self, table: datasets.Dataset, names: Sequence[str], shown: Callable[[int], str], label_column: str | None
    ) -> None:
        self.shown, self.names = shown, names
        self.truths = true_labels(table, label_column)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    @property
    def columns(self) -> list[str]:
        """What `of` gives, in this order."""
        return ["input"] if self.truths is None else ["input", "label"]

    def of(self, name: str) -> list[str | None]:
        """Of the row with this id: its input and, if there is a column of labels, its label or None."""
        row = self._rows[name]
        return [self.shown(row)] if self.truths is None else [self.shown(row), self.truths[row]]


def true_labels(table: datasets.Dataset, given: str | None, *, wanted: bool = False) -> list[str | None] | None:
    """The labels of all rows, as text, None where a row has none; None if the table has no column of labels.

    Args:
        table: of rows to predict, which need no labels.
        given: the column; None for the one of a usual name or type.
        wanted: whether a column that is given has to be there.

    Raises:
        ValueError: it has to, and is not.
    """
    ours = datasets.ClassLabel
    try:
        column = find_column(table, "label_column", given, LABEL_NAMES, lambda kind: isinstance(kind, ours))
    except ValueError:
        if wanted and given is not None:
            raise
        return None
    kind, cells = table.features[column], table[column]
    if isinstance(kind, datasets.ClassLabel):
        return [None if cell is None or cell < 0 else kind.names[cell] for cell in cells]
    return [_text(cell) for cell in cells]


def _text(cell: Any) -> str | None:
    """A label as text, whole numbers without a point, several as JSON; None for none, and for what is no label."""
    if isinstance(cell, list):
        return json.dumps(cell, ensure_ascii=False, default=str)
    if isinstance(cell, float):
        cell = int(cell) if cell.is_integer() else str(cell) if math.isfinite(cell) else None
    return (str(cell).strip() or None) if isinstance(cell, str | int) else None
