"""The texts of a table with their words, one at a time; and those of a file to predict, whatever form it has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import datasets

from lambda_seq.inference.tagging import Marked
from lambda_seq.tasks.data.reading.dialects import TableOptions
from lambda_seq.tasks.data.reading.sources import load_rows, to_predict
from lambda_seq.tasks.data.reading.text_files import file_names, has_text_files, load_text_files
from lambda_seq.tasks.data.tags.conll import conll_files, load_conll
from lambda_seq.tasks.data.tags.reading import Form, form_of


class TextsOf:
    """The texts of a table, each read when it is asked for.

    Args:
        form: how rows say labels of words.
        table: of them.
    """

    def __init__(self, form: Form, table: datasets.Dataset) -> None:
        self.form, self.table = form, table
        self._cells = table.select_columns(form.content)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> Marked:
        return self.form.marked(self._cells[int(row)][self.form.content], f"row {row}")

    def __iter__(self) -> Iterator[Marked]:
        for row, cells in enumerate(self._cells):
            yield self.form.marked(cells[self.form.content], f"row {row}")

    @property
    def names(self) -> list[str]:
        """Of the files that texts are, else numbers."""
        return file_names(self.table) or [str(row) for row in range(len(self.table))]

    def truths(self) -> list[str | None] | None:
        """Labels of each text's words as JSON; None where there are none."""
        form = self.form
        if form.tags is None or form.tags not in self.table.column_names:
            return None
        found = []
        for row, (own, cell) in enumerate(zip(self, self.table[form.tags], strict=True)):
            labels = form.labels(cell, own, f"row {row}")
            found.append(None if labels is None else json.dumps(labels, ensure_ascii=False))
        return found if any(found) else None


class WordTexts:
    """The texts of a file, or folder, as a saved model answers them: lists of words where they are such, else texts.

    Args:
        path: of it.
        content, tags: columns that are given; None for those of usual names.
        units: what of a text has a label.

    Raises:
        ValueError, FileNotFoundError: it cannot be read, or holds no texts.

    Attributes:
        names: of the texts.
        truths: their labels as JSON; None where there are none.
    """

    def __init__(self, path: str, content: str | None, tags: str | None, units: str) -> None:
        named: tuple[str | None, str | None]
        if files := conll_files(path):
            tables, named = load_conll(path, files, content, tags, TableOptions(), whole=True), (None, None)
        else:
            read = load_text_files if has_text_files(path) else load_rows
            tables, named = read(path, whole=True), (content, tags)
        table = to_predict(tables, path)
        form = form_of(table, *named, None, predicting=True)
        self._words = form.lists or (form.tags is not None and not form.spans)
        self._texts = TextsOf(form if self._words else replace(form, units=units), table)
        self.names, self.truths = self._texts.names, self._texts.truths()

    def __getitem__(self, row: int) -> tuple[Any, str]:
        """What the predictor is given, and what is shown of it."""
        own = self._texts[row]
        return own.spelled if self._words else own.text, own.text
