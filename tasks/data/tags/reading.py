"""Rows with a label for each word: lists of words and of labels, or texts and the spans in them."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets
import numpy as np

from lambda_seq.inference.tagging import OUTSIDE, Marked, marked
from lambda_seq.inference.tokens import as_text
from lambda_seq.tasks.data.labels import TEXT_NAMES, in_order, named_column
from lambda_seq.tasks.data.reading.documents import find_text_column
from lambda_seq.tasks.data.reading.notes import note, some
from lambda_seq.tasks.data.targets import Targets

WORDS = ("tokens", "words", "token")  # usual names of columns
SPANS = ("spans", "entities", "annotations")
TAGS = ("tags", "ner_tags", "pos_tags", "upos", "chunk_tags", "labels", "label", "ner", "tag")
BEGINS, ENDS = ("start", "begin", "start_offset"), ("end", "stop", "end_offset")  # of a span
KINDS = ("label", "type", "entity", "entity_group", "entity_type", "tag", "category")
NAMED = 3  # rows in a message


class Span(NamedTuple):
    """A part of a text, by its first character and the one behind its last."""

    begin: int
    end: int
    label: Any


@dataclass(frozen=True)
class Form:
    """How rows say labels of words.

    Attributes:
        content: column of texts, or of lists of words.
        tags: column of labels, or of spans; None of rows to predict.
        lists: whether content is lists of words.
        spans: whether labels are spans.
        names: of numbers that stand for labels, or kinds of spans; None where these are written out.
        units: what of a text has a label of its own: "words" and marks, what stands between "spaces", or "characters".
    """

    content: str
    tags: str | None
    lists: bool
    spans: bool
    names: list[str] | None
    units: str

    def marked(self, cell: Any, where: str) -> Marked:
        """A cell of `content` with its words.

        Raises:
            ValueError: it holds something else.
        """
        if not self.lists:
            return marked(as_text(cell if isinstance(cell, str | bytes) else ""), self.units)
        words = [] if cell is None else _list(cell)
        if words is None:
            raise ValueError(f"{where}: {cell!r} in column {self.content!r} is no list of words, as others are")
        if strange := next((word for word in words if not isinstance(word, str)), None):
            raise ValueError(f"{where}: {strange!r} in column {self.content!r} is no word; expected lists of text")
        return marked(words, self.units)

    def labels(self, cell: Any, own: Marked, where: str) -> list[str | None] | None:
        """Labels of a row's words, None of one that has none; None of a row whose labels are not known.

        Raises:
            ValueError: they are not as many as words, or not readable; spans that overlap, or are none of the text.
        """
        if cell is None or cell == "":
            return None
        items = _list(cell)
        if self.spans:
            if items is None:
                raise ValueError(f"{where}: {cell!r} in column {self.tags!r} is no list of spans; {SPAN}")
            return _tagged(self.spans_in(items, where), own, where)
        if items is None:
            items = str(cell).split()
        if len(items) != len(own.words):
            raise ValueError(
                f"{where}: {len(items)} labels in column {self.tags!r} for {len(own.words)} words in column "
                f"{self.content!r}; give each word one"
            )
        found = [self._label(item, where) for item in items]
        return None if found and not any(found) else found

    def spans_in(self, items: Sequence[Any], where: str) -> list[Span]:
        """The spans of a row, in order.

        Raises:
            ValueError: one that is not readable.
        """
        found = []
        for item in items:
            begin, end, label = _span(item, f"{where}, column {self.tags!r}")
            found.append(Span(begin, end, str(self._label(label, where))))
        return sorted(found)

    def _label(self, item: Any, where: str) -> str | None:
        if item is None or (isinstance(item, int) and item < 0):  # as -100
            return None
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise ValueError(f"{where}: {item!r} in column {self.tags!r} is no label; expected names or whole numbers")
        if isinstance(item, int) and self.names is not None:
            if item >= len(self.names):
                raise ValueError(
                    f"{where}: the label {item} in column {self.tags!r} has no name; there are {len(self.names)}: "
                    f"{some(self.names)}"
                )
            return self.names[item]
        return str(item).strip() or None


SPAN = 'expected {"start": 0, "end": 5, "label": "NAME"}, or [0, 5, "NAME"], in characters from 0 on'


def form_of(table: Any, content: str | None, tags: str | None, units: str | None, *, predicting: bool = False) -> Form:
    """How the rows of a table say labels of words.

    Args:
        table: that is looked at.
        content, tags: columns that are given; None for those of usual names.
        units: what of a text has a label; None for words, or of texts with lists of labels, what stands between spaces.
        predicting: whether there need be no labels.

    Raises:
        ValueError: no such columns; names those there are, and the options to give.
    """
    columns = table.column_names
    if content is not None:
        content = named_column(columns, "text_column", content)
    else:
        content = _usual(columns, WORDS, "text_column") or find_text_column(table, None, tags)
    if tags is not None and not (predicting and tags not in columns):
        tags = named_column(columns, "tag_column", tags)
    else:
        tags = _usual([name for name in columns if name != content], (*SPANS, *TAGS), "tag_column")
    if tags is None and not predicting:
        raise ValueError(
            f"no column chosen for tag_column: none is called {' or '.join((*SPANS, *TAGS))}; the columns are "
            f"{some(columns, 20)}. Name the one that has a label for each word, or spans: --data.tag_column NAME"
        )
    first = None if tags is None else _first(table, tags)
    spans = _is_span(first)
    if tags is not None and first is None and tags.casefold() in SPANS:
        spans = True  # there is none in any row that was looked at
    lists = not spans and _first(table, content) is not None
    names = None if tags is None else _names_in(table.features[tags])
    guessed = "words" if lists or spans or tags is None else "spaces"
    return Form(content, tags, lists, spans, names, units or guessed)


def _names_in(kind: Any) -> list[str] | None:
    """Names of the numbers in a column of labels or spans; None where it has none."""
    if isinstance(kind, datasets.ClassLabel):
        return list(kind.names)
    inner = (
        kind.values()
        if isinstance(kind, dict)
        else kind
        if isinstance(kind, list)
        else [getattr(kind, "feature", None)]
    )
    return next((names for one in inner if one is not None and (names := _names_in(one))), None)


def tagged_columns(table: Any) -> tuple[str, str] | None:
    """Columns of usual names that hold lists of words and of labels, or texts and spans; None where there are none."""
    for content_names, tag_names in ((WORDS, TAGS), (TEXT_NAMES, (*SPANS, *TAGS))):
        contents = [name for name in table.column_names if name.casefold() in content_names]
        for content in contents:
            for tags in (name for name in table.column_names if name.casefold() in tag_names and name != content):
                item = _first(table, tags)
                lists = isinstance(_first(table, content), str) and item is not None
                if lists if content_names is WORDS else _is_span(item):
                    return content, tags
    return None


def _is_span(item: Any) -> bool:
    return isinstance(item, dict) or (isinstance(item, list | tuple) and len(item) == 3)


def _usual(columns: Sequence[str], names: Sequence[str], option: str) -> str | None:
    found = [column for name in names for column in columns if column.strip().casefold() == name]
    if len(found) > 1:
        note(f"Column {found[0]!r} is read as {option}; {some(found[1:])} could be it too. Choose with --data.{option}")
    return found[0] if found else None


def _first(table: Any, column: str) -> Any:
    """The first item of the first list in a column; None if there is none."""
    for row in range(min(len(table), 1000)):
        items = _list(table[row][column])
        if items:
            return items[0]
    return None


def _list(cell: Any) -> list[Any] | None:
    """A cell that is a list, also as JSON or as Python writes it; None of other cells."""
    if isinstance(cell, dict) and all(isinstance(part, list) for part in cell.values()):  # lists side by side
        return [dict(zip(cell, parts, strict=True)) for parts in zip(*cell.values(), strict=True)]
    if isinstance(cell, list | tuple | np.ndarray):
        return list(cell)
    if isinstance(cell, str) and cell.strip().startswith("[") and cell.strip().endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(cell)
            except (ValueError, SyntaxError):
                continue
            return found if isinstance(found, list) else None
    return None


def _span(item: Any, where: str) -> Span:
    parts: Sequence[Any] = item if isinstance(item, list | tuple) else ()
    if isinstance(item, Mapping):
        lower = {str(name).casefold(): value for name, value in item.items()}
        parts = [next((lower[one] for one in names if one in lower), None) for names in (BEGINS, ENDS, KINDS)]
        if isinstance(parts[2], list) and len(parts[2]) == 1:
            parts = [*parts[:2], parts[2][0]]
    if len(parts) != 3 or not all(isinstance(one, int) for one in parts[:2]) or not isinstance(parts[2], str | int):
        raise ValueError(f"{where}: {item!r} is no span; {SPAN}")
    return Span(*parts)


def _tagged(spans: Sequence[Span], own: Marked, where: str) -> list[str | None]:
    """Labels "B-…", "I-…" and "O" of words, by the spans that they stand in.

    Raises:
        ValueError: spans that overlap, or have nothing of the text, or two of which share a word.
    """
    found: list[str | None] = [OUTSIDE] * len(own.words)
    holder: dict[int, Span] = {}
    begins, ends = np.array([*own.words, (0, 0)])[:-1].T
    before: Span | None = None
    for span in spans:
        shown = f"the span {list(span)}"
        if not 0 <= span.begin < span.end <= len(own.text):
            raise ValueError(
                f"{where}: {shown} is none of a text of {len(own.text)} characters; expected 0 ≤ start < end ≤ "
                f"{len(own.text)}"
            )
        if before is not None and span.begin < before.end:
            raise ValueError(f"{where}: {shown} overlaps {list(before)}; keep one of them, a word has one label")
        inside = np.flatnonzero((begins < span.end) & (ends > span.begin)).tolist()
        if not inside:
            raise ValueError(f"{where}: {shown}, {own.text[span.begin : span.end]!r}, holds no word; remove it")
        if inside[0] in holder:
            raise ValueError(
                f"{where}: {shown} and {list(holder[inside[0]])} share the word "
                f"{own.spelled[inside[0]]!r}; label characters: --data.units characters"
            )
        for number, place in enumerate(inside):
            holder[place] = span
            found[place] = f"{'I' if number else 'B'}-{span.label}"
        before = span
    return found


def widened(spans: Sequence[Span], own: Marked) -> bool:
    """Whether a span begins or ends within a word, all of which then has its label."""
    begins, ends = ({words[side] for words in own.words} for side in (0, 1))
    return any(span.begin not in begins or span.end not in ends for span in spans)


def read_tags(
    tables: Mapping[str, datasets.Dataset], form: Form, where: str, *, refuse: bool = True
) -> tuple[Targets, dict[str, list[np.ndarray | None]]]:
    """What is known of each row, and the number of each word's label, −1 where it has none.

    Names are those of the column, or of the training rows, "O" first; spans have "B-" and "I-" of each kind.

    Args:
        tables: by split, one of them "train".
        form: of all of them.
        where: the rows' origin, for errors.
        refuse: training rows without labels.

    Returns:
        `Targets` whose values say which labels a row has, 0 or 1 (n, names), NaN where it has none; and by split an
        array for each row, None where its labels are not known.

    Raises:
        ValueError: a row that does not fit, or has a label that no training row has; names it.
    """
    found = {name: list(_rows(table, form, f"{name} split of {where}")) for name, table in tables.items()}
    names = (not form.spans and form.names) or sorted(
        {label for labels in found["train"] for label in labels or () if label},
        key=lambda name: (name != OUTSIDE, in_order(name)),
    )
    if form.spans:
        kinds = dict.fromkeys(name.partition("-")[2] for name in names if name != OUTSIDE)
        names = [OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(kinds) for prefix in "BI")]
    missing = [row for row, labels in enumerate(found["train"]) if labels is None]
    if missing and refuse:
        named = some([f"row {row}" for row in missing], NAMED)
        raise ValueError(
            f"train split of {where}: {len(missing)} of {len(found['train'])} rows have no labels in column "
            f"{form.tags!r}: {named}; label them, or leave them out: --data.drop_incomplete true"
        )
    if len({label for labels in found["train"] for label in labels or () if label}) < 2:
        raise ValueError(
            f"tag_column={form.tags!r} of {where}: all training words have the same label, or none; name another "
            "column: --data.tag_column NAME"
        )
    place: dict[str | None, int] = {name: index for index, name in enumerate(names)} | {None: -1}
    numbers: dict[str, list[np.ndarray | None]] = {}
    values = {}
    for split, rows in found.items():
        values[split], numbers[split] = np.full((len(rows), len(names)), np.nan, np.float32), []
        for row, labels in enumerate(rows):
            if labels is None:
                numbers[split].append(None)
                continue
            if strange := next((label for label in labels if label not in place), None):
                raise ValueError(
                    f"{split} split of {where}: row {row} has the label {strange!r}, which no training row has "
                    f"(training labels: {some(names)}); add such rows to the training split or remove this one"
                )
            own = np.array([place[label] for label in labels], np.int64)
            numbers[split].append(own)
            values[split][row] = 0
            values[split][row, own[own >= 0]] = 1
    return Targets("tags", names, values, form.tags), numbers


def _rows(table: Any, form: Form, where: str) -> Iterator[list[str | None] | None]:
    if form.tags not in table.column_names:
        yield from [None] * len(table)
        return
    if form.content not in table.column_names:
        raise ValueError(f"{where}: there is no column {form.content!r}, as the training split has; name it alike")
    wide: list[str] = []
    unknown = 0
    for row, cells in enumerate(table.select_columns([form.content, form.tags])):
        at = f"{where}: row {row}"
        own = form.marked(cells[form.content], at)
        labels = form.labels(cells[form.tags], own, at)
        if form.spans and labels is not None:
            wide += [f"row {row}"] if widened(form.spans_in(_list(cells[form.tags]) or (), at), own) else []
        unknown += 0 if labels is None else labels.count(None)
        yield labels
    if wide:
        note(
            f"{where}: in {len(wide)} rows a span begins or ends within a word, all of which is taken for it: "
            f"{some(wide, NAMED)}. --data.units characters labels each character"
        )
    if unknown:
        note(f"{where}: {unknown} words have no label; they are read, and not counted")
