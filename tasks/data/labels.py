"""Columns and labels: which column holds what, class names, and the split of rows into train, validation and test."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lambda_seq.tasks.data.reading.columns import filled, like_classes
from lambda_seq.tasks.data.reading.notes import note, some

LABEL_NAMES = ("label", "labels", "target", "class", "category", "y", "sentiment", "emotion", "intent", "topic")
TEXT_NAMES = (
    *("text", "sentence", "document", "content", "review", "message", "comment", "tweet", "body", "headline"),
    *("sequence", "seq"),  # of letters
)
TEXT = (datasets.Value("string"), datasets.Value("large_string"))
FILE_COLUMNS = ("text file", "image", "audio")  # of rows that are files
MISSING, UNKNOWN = -1, -2  # labels of rows


@dataclass(frozen=True)
class Rows:
    """Some rows of a table with what is known of them; labels is None where that is nothing."""

    table: datasets.Dataset
    indices: np.ndarray  # (n,) of rows in table
    labels: np.ndarray | None  # (n,) class numbers; (n, labels) 0 or 1, or (n, numbers), NaN where it is not known

    def __len__(self) -> int:
        return len(self.indices)

    def target(self, row: int) -> dict[str, Any]:
        """What an item has of it: "label", a class number or an array; nothing where it is not known."""
        if self.labels is None:
            return {}
        return {"label": int(self.labels[row]) if self.labels.ndim == 1 else self.labels[row]}

    @property
    def missing(self) -> np.ndarray:
        """Which rows have no label, (n,)."""
        if self.labels is None:
            return np.ones(len(self), bool)
        return self.labels == MISSING if self.labels.ndim == 1 else np.isnan(self.labels).any(1)

    @property
    def strata(self) -> np.ndarray | None:
        """Groups (n,) that each part of the rows should have its share of; see `strata`."""
        return None if self.labels is None else strata(self.labels)

    def take(self, chosen: np.ndarray) -> Rows:
        """The rows at these places."""
        return replace(self, indices=self.indices[chosen], labels=None if self.labels is None else self.labels[chosen])


def strata(labels: np.ndarray) -> np.ndarray:
    """Groups (n,) of rows that are alike: their classes; of several labels the rarest of each; of numbers, tenths."""
    if labels.ndim == 1:
        return labels
    if _are_flags(labels):
        rarity = np.where(labels > 0, -labels.sum(0), -np.inf)  # (n, labels)
        return np.where(labels.any(1), rarity.argmax(1), labels.shape[1])
    ranks = np.argsort(np.argsort(labels[:, 0], kind="stable"), kind="stable")
    return ranks * 10 // max(len(labels), 1)


def _are_flags(labels: np.ndarray) -> bool:
    """Whether labels (n, names) are 0 or 1 of each, and no numbers."""
    return bool(np.isin(labels, (0, 1)).all())


def rows_with(labels: np.ndarray, names: int) -> np.ndarray:
    """How many rows have each of so many classes, or labels."""
    if labels.ndim == 1:
        return np.bincount(labels[labels >= 0], minlength=names)
    return np.nansum(labels, 0).astype(np.int64)


def find_column(
    table: datasets.Dataset,
    option: str,
    given: str | None,
    names: tuple[str, ...],
    fits: Callable[[Any], bool],
    taken: Collection[str] = (),
) -> str:
    """The column that the option names, else the first with a usual name, else the only one whose type fits.

    Names are also found in other capitals, and usual ones within a column: `text` as `review.text`. What goes by the
    type alone is said, and so are others of a usual name.

    Neither a column of text in which every cell reads as a number, as in a csv file, nor one that is `taken` for
    something else is chosen by its type.

    Raises:
        ValueError: the named column is absent, or none or several fit; lists the columns and the option to give.
    """
    columns = table.column_names
    if given is not None:
        return named_column(columns, option, given)
    for known in (columns, [column.strip().casefold() for column in columns], list(map(_last, columns))):
        usual = list(dict.fromkeys(columns[known.index(name)] for name in names if name in known))
        if len(usual) > 1:
            others = some(usual[1:])
            note(f"Column {usual[0]!r} is read as {option}; {others} could be it too. Choose with --data.{option}")
        if usual:
            return usual[0]
    free = [name for name in columns if name.casefold() not in taken and fits(table.features[name])]
    fitting = [name for name in free if not reads_as_numbers(table, name)]
    if len(fitting) == 1:
        note(f"Column {fitting[0]!r} is read as {option}, as no other fits. Choose with --data.{option}")
        return fitting[0]
    found = f"several could be it: {', '.join(fitting)}" if fitting else f"none is called {' or '.join(names)}"
    raise ValueError(
        f"no column chosen for {option}: {found}; the columns are {some(columns, 20)}. Name one: --data.{option} NAME"
    )


def named_column(columns: list[str], option: str, given: str) -> str:
    """The column of this name, in whatever capitals."""
    alike = [column for column in columns if column.strip().casefold() == given.strip().casefold()]
    if given in columns or len(alike) == 1:
        return given if given in columns else alike[0]
    near = get_close_matches(given, columns, n=1, cutoff=0.6)
    meant = f"did you mean {near[0]!r}? The" if near else "the"
    raise ValueError(f"{option}={given!r}: there is no such column; {meant} columns are {some(columns, 20)}")


def _last(column: str) -> str:
    return column.strip().casefold().rpartition(".")[2]


def reads_as_numbers(table: Any, column: str, most: int = 1000) -> bool:
    """Whether each of the first cells of a column of text reads as a number."""
    if table.features[column] not in TEXT:
        return False
    cells = (row[column] for row in islice(table.select_columns(column), most))
    try:
        return all(cell is None or float(cell) is not None for cell in cells)
    except ValueError:
        return False


def find_label_column(table: datasets.Dataset, given: str | None) -> str:
    """The column of class labels; see `find_column`. Without a usual name or type the only one that is like classes."""
    option, kind = "label_column", datasets.ClassLabel
    try:
        return find_column(table, option, given, LABEL_NAMES, lambda found: isinstance(found, kind))
    except ValueError:
        usual = [name for name in table.column_names if _last(name) not in TEXT_NAMES and like_classes(table, name)]
        if given is not None or not usual or any(isinstance(found, kind) for found in table.features.values()):
            raise
        if len(usual) > 1:
            raise ValueError(
                f"no column chosen for {option}: several hold few values: {some(usual)}. Name one: --data.{option} NAME"
            ) from None
        note(f"Column {usual[0]!r} is read as {option}, as no other is like classes. Choose with --data.{option}")
        return usual[0]


def encode_labels(
    splits: dict[str, datasets.Dataset], column: str, where: str, refuse: bool = True
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Class names, and a class number for each row of each split; −1 for a row of validation or test without a label.

    Names are those of the column's `ClassLabel`; otherwise the distinct values of the training split as text, without
    white space at their ends, whole numbers first and by size. Where all of them are whole numbers, 1.0 is 1. A row has
    no label if its cell is missing or empty, is negative in a `ClassLabel`, or if the split has no such column.

    Args:
        splits: tables by name, one of them "train".
        column: of the labels.
        where: the rows' origin, for errors.
        refuse: training rows without a label; otherwise they have −1, too.

    Raises:
        ValueError: a training row without label that is refused, a column of something else, a label that no training
            row has.
    """
    whole = _whole_numbers(splits["train"], column, where)
    found = {split: _classes(table, column, f"{split} split of {where}", whole) for split, table in splits.items()}
    names, numbers = found["train"]
    if (missing := np.flatnonzero(numbers < 0)).size and refuse:
        empty = int((~filled(splits["train"])[missing]).sum())
        raise ValueError(
            f"train split of {where}: {len(missing)} of {len(numbers)} rows have no label in column {column!r}: "
            f"{name_rows(splits['train'], missing)}{f'; {empty} of them hold nothing at all' if empty else ''}; label "
            "these rows, leave them out (--data.drop_incomplete true), or put files into the folder of their class; "
            "--data.predict_path takes rows without labels"
        )
    known = {names[number] for number in np.unique(numbers[numbers >= 0])}
    if len(known) < 2:
        what = f"all training rows have the same label, {known.pop()!r}" if known else "no training row has a label"
        raise ValueError(
            f"label_column={column!r} of {where}: {what}; add rows of another class, or name another column: "
            "--data.label_column NAME"
        )
    kind = splits["train"].features[column]
    if not isinstance(kind, datasets.ClassLabel):
        names = sorted(known, key=in_order)
    _note_likely_mistakes(names, len(numbers), f"label_column={column!r} of {where}")
    number = {name: index for index, name in enumerate(names)}
    encoded = {}
    for split, (own, rows) in found.items():
        table = np.array([number[name] if name in known else UNKNOWN for name in own] + [MISSING], dtype=np.int64)
        encoded[split] = table[rows]
        if (strange := np.flatnonzero(encoded[split] == UNKNOWN)).size:
            row = int(strange[0])
            raise ValueError(
                f"{split} split of {where}: row {row} has the label {own[rows[row]]!r}, which no training row has "
                f"(training labels: {some([name for name in names if name in known])}); "
                "add such rows to the training split or remove this one"
            )
    return names, encoded


WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")


def _whole_numbers(table: datasets.Dataset, column: str, where: str) -> bool:
    """Whether all labels are whole numbers written as text, and some with a point, 0.0, as pandas writes them."""
    if column not in table.column_names or table.features[column] not in TEXT:
        return False
    values = pc.unique(table.select_columns(column).with_format("arrow")[:].column(0)).to_pylist()
    found = [value.strip() for value in values if value and value.strip()]
    if not all(map(WHOLE.fullmatch, found)) or not (pointed := sorted(value for value in found if "." in value)):
        return False
    note(f"label_column={column!r} of {where}: {some(pointed)} are read as whole numbers, such as {pointed[0][:-2]!r}")
    return True


def _classes(table: datasets.Dataset, column: str, where: str, whole: bool = False) -> tuple[list[str], np.ndarray]:
    """Names, and for each row the place of its own; −1 for a row without a label."""
    if column not in table.column_names:
        return [], np.full(len(table), MISSING)
    kind = table.features[column]
    cells = table.select_columns(column).with_format("arrow")[:].column(0)
    if isinstance(kind, datasets.ClassLabel):
        rows = pc.fill_null(cells, MISSING).to_numpy().astype(np.int64)
        if (strange := np.flatnonzero(rows >= len(kind.names))).size:
            raise ValueError(
                f"label_column={column!r} of the {where}: {len(strange)} rows have numbers without a name, such as "
                f"{rows[strange[0]]} in row {strange[0]}; the column has {len(kind.names)} names: {some(kind.names)}. "
                "Correct or remove these rows, or save the table with all names"
            )
        return list(kind.names), np.maximum(rows, MISSING)
    if pa.types.is_nested(cells.type):
        raise ValueError(
            f"label_column={column!r} of the {where} holds {kind}, such as {cells[0].as_py()!r}; expected one class "
            "name or whole number a row, or a list of such. Name another column: --data.label_column NAME"
        )
    values = pc.unique(cells)
    rows = pc.fill_null(pc.index_in(cells, value_set=values), MISSING).to_numpy().astype(np.int64)
    texts = [label_name(value, column, where) for value in values.to_pylist()]
    if whole:
        texts = [text and text.partition(".")[0] if WHOLE.fullmatch(text or "") else text for text in texts]
    names = sorted({text for text in texts if text})
    place = {name: index for index, name in enumerate(names)}
    places = np.array([place.get(text or "", MISSING) for text in texts] + [MISSING], dtype=np.int64)
    _note_trimmed(values.to_pylist(), f"label_column={column!r} of the {where}")
    return names, places[rows]


def label_name(value: Any, column: str, where: str) -> str | None:
    """A label as text; None for none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # numbers among which one was missing
    if value is None or value != value:
        return None
    if not isinstance(value, (str, int)):
        raise ValueError(
            f"label_column={column!r}: a row of the {where} holds {value!r}; expected a class name or a whole number. "
            "Name another column: --data.label_column NAME"
        )
    return str(value).strip()


def _note_trimmed(values: list[Any], where: str) -> None:
    trimmed = sorted(repr(value) for value in values if isinstance(value, str) and value != value.strip())
    if trimmed:
        note(f"{where}: white space at the ends of labels is left out, in {some(trimmed)}")


def in_order(name: str) -> tuple[int, int, str]:
    """Numbers first, by size."""
    return (0, int(name), name) if re.fullmatch(r"[+-]?[0-9]+", name) else (1, 0, name)


def _note_likely_mistakes(names: list[str], rows: int, where: str) -> None:
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(unicodedata.normalize("NFKC", name).casefold(), []).append(name)
    if same := [" and ".join(map(repr, found)) for found in alike.values() if len(found) > 1]:
        note(f"{where}: classes of their own, though they differ only in case or form of letters: {some(same)}")
    for sign in ";|,":
        if several := [
            name for name in names if sign in name and {one.strip() for one in name.split(sign)} <= {*names}
        ]:
            note(
                f"{where}: {some(several)} seem to be several labels in a cell, and are classes of their own. Choose "
                f"with --data.target.separator '{sign}'"
            )
    if rows >= 20 and len(names) > rows / 2:
        note(
            f"{where}: {len(names)} classes of {rows} training rows; name another column if one is meant: "
            "--data.label_column NAME"
        )


def name_rows(table: datasets.Dataset, rows: np.ndarray, most: int = 3) -> str:
    """The first of some rows, with the names of their files where they are files."""
    column = next((name for name in FILE_COLUMNS if name in table.column_names), None)
    named = []
    for row in rows[:most].tolist():
        cell = None if column is None else table.with_format("arrow")[row].column(column)[0].as_py()
        file = cell.get("path") if isinstance(cell, dict) else cell
        named.append(f"row {row}" + (f" ({file})" if isinstance(file, str) else ""))
    return ", ".join(named) + (f" and {len(rows) - most} more" if len(rows) > most else "")


def carve(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows in two parts, the second about `fraction` of them, with the same share of each class; at least one row.

    The first part keeps a row of each class, as far as others can be taken instead.
    """
    if rows.labels is None:
        raise TypeError("rows without labels cannot be divided by class")
    shuffled, classes = np.random.default_rng(seed).permutation(len(rows)), strata(rows.labels)
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    count = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
    places = (np.arange(count) + 0.5) * len(rows) / count  # evenly spaced through the classes
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[by_class[places.astype(int)]] = True
    _keep_classes(classes, chosen, by_class)
    if rows.labels.ndim == 1 or _are_flags(rows.labels):
        names = int(rows.labels.max()) + 1 if rows.labels.ndim == 1 else rows.labels.shape[1]
        left, every = (rows_with(labels, names) for labels in (rows.labels[~chosen], rows.labels))
        if lost := int(((left == 0) & (every > 0)).sum()):
            note(f"{lost} classes have no rows left to train on, all being held out; add rows of these classes")
    return rows.take(np.flatnonzero(~chosen)), rows.take(np.flatnonzero(chosen))


def _keep_classes(labels: np.ndarray, chosen: np.ndarray, by_class: np.ndarray) -> None:
    """Exchange rows that are `chosen` (rows,) so that no class has all of its rows chosen."""
    left = np.bincount(labels[~chosen], minlength=labels.max() + 1)  # rows of each class that are not chosen
    for place in by_class[chosen[by_class] & (left[labels[by_class]] == 0)]:
        if left[labels[place]] == 0 and left.max() > 1:
            other = next(one for one in by_class if not chosen[one] and labels[one] == left.argmax())
            chosen[place], chosen[other] = False, True
            left[labels[place]] += 1
            left[labels[other]] -= 1
