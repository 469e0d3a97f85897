"""Texts with a label for each word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import datasets
import numpy as np
from jaxtyping import Int

from lambda_seq.inference.tagging import UNITS, Marked, pieces_with
from lambda_seq.inference.texts import Reading, count_windows
from lambda_seq.tasks.data.batches import Batch
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.module import ClassificationData
from lambda_seq.tasks.data.reading.dialects import TableOptions
from lambda_seq.tasks.data.reading.known import Known
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.data.reading.text_files import file_names, has_text_files, load_text_files
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.data.tags.conll import conll_files, load_conll
from lambda_seq.tasks.data.tags.items import Encoded, TagItems, TagWindows, pad_tagged
from lambda_seq.tasks.data.tags.letters import LETTERS, letters
from lambda_seq.tasks.data.tags.reading import Form, form_of, read_tags
from lambda_seq.tasks.data.tags.texts import TextsOf
from lambda_seq.tasks.data.targets import Targets
from lambda_seq.tasks.facts import Facts, Target, Vocabulary


class TagData(ClassificationData):
    """Texts with a label for each word: names and other entities, parts of speech, whatever is said of words.

    Rows are sentences of CoNLL files, a word and its labels on a line; lists of words and of labels; or texts with the
    spans in them, {"start", "end", "label"} in characters, whose words get "B-LABEL", "I-LABEL" and "O".

    A text is read as bytes, or as the tokens of a tokenizer, and each word is answered at the first of its own. A text
    of more than max_length tokens is read in windows that overlap, and each word answered by the one in which most
    stands around it: all words are learned, and answered, once.

    Args:
        path: a CoNLL file (.conll, .conllu, .iob, .iob2, .bio, .txt, .tsv without header), a parquet, jsonl or csv
            file, a folder of such files, named train*, validation* and test* for the splits, or a name on the Hugging
            Face hub; "generated:letters" for short letters in which names are people, places or firms, as other words
            of the letter tell.
        batch_size: texts per step and device, in training windows.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        tokenizer: "bytes" for none; "words" for a hash of each word, in lower case; "train" for byte-level BPE trained
            on the training split; the path of a tokenizer.json, or the name on the hub of what has one.
        vocab_size: tokens of a tokenizer that is trained, at most.
        max_length: tokens (bytes, words) that are read at once.
        stride: tokens from the beginning of a window to that of the next; default: half of max_length.
        pad_to_multiple: batches are padded to a multiple of this many tokens, so that few lengths occur.
        bucket: put texts of similar length into one batch while training, which saves padding.
        text_column: column of texts, or of lists of words; of CoNLL files its number, default 0, the first.
        tag_column: column of lists of labels, or of spans; of CoNLL files its number, default -1, the last.
        units: what of a text has a label, where rows have no lists of words: "words" and punctuation marks, what stands
            between "spaces", or "characters", for scripts without spaces; default: words, or of texts with lists of
            labels spaces.
        subset: configuration of a hub data set that has several.
        validation_fraction: share of the training rows held out if there is no validation split; 0 for no validation.
        test_fraction: share of the training rows held out if there is no test split; 0 for no test.
        split_seed: of the choice of the rows held out.
        predict_path: texts to predict instead of the test split, which need no labels.
        table: how csv, tsv, jsonl, json and CoNLL files are written, where that is not to be guessed.
        drop_incomplete: leave out rows without labels or with nothing in the column of texts, and say how many.
    """

    view = "lambda_seq.tasks.inspection.views.TagView"
    reads = (*ClassificationData.reads, "form", "_numbers")

    def __init__(
        self,
        path: str = LETTERS,
        batch_size: int = 32,
        num_workers: int = 0,
        tokenizer: str = "bytes",
        vocab_size: int = 8192,
        max_length: int = 4096,
        stride: int | None = None,
        pad_to_multiple: int = 64,
        bucket: bool = True,
        text_column: str | None = None,
        tag_column: str | None = None,
        units: str | None = None,
        subset: str | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        predict_path: str | None = None,
        table: TableOptions = TableOptions(),  # noqa: B008 - frozen
        drop_incomplete: bool = False,
    ) -> None:
        super().__init__(
            path,
            batch_size=batch_size,
            num_workers=num_workers,
            label_column=tag_column,
            subset=subset,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            predict_path=predict_path,
            table=table,
            drop_incomplete=drop_incomplete,
        )
        for name, number in (("max_length", max_length), ("pad_to_multiple", pad_to_multiple)):
            if number < 1:
                raise ValueError(f"{name}={number}: expected at least 1 token")
        if stride is not None and not 1 <= stride <= max_length:
            raise ValueError(f"stride={stride} with max_length={max_length}: expected 1 to max_length")
        if units is not None and units not in UNITS:
            raise ValueError(f"units={units!r}: expected one of {', '.join(UNITS)}")
        self.tokenizer, self.vocab_size, self.max_length = tokenizer, vocab_size, max_length
        self.stride = max((max_length + 1) // 2, 1) if stride is None else stride
        self.pad_to_multiple, self.bucket = pad_to_multiple, bucket
        self.text_column, self.tag_column, self.units = text_column, tag_column, units
        self._encoded: list[tuple[Any, Encoded]] = []  # of tables

    @cached_property
    def tokens(self) -> Tokens:
        """What turns texts into ids."""
        rows = self.split("train")
        texts = Spelled(TextsOf(self._form(rows.table), rows.table), rows.indices)
        return Tokens.named(self.tokenizer, lambda: texts, self.vocab_size)

    def load_tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """The splits found at a path, or with `whole` all texts as one."""
        if path == LETTERS:
            return letters()
        if files := conll_files(path):
            return load_conll(path, files, self.text_column, self.tag_column, self.table, whole)
        return load_text_files(path, whole) if has_text_files(path) else super().load_tables(path, subset, whole)

    def tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """As `load_tables`: parts of columns stay together, as spans have such."""
        return self.load_tables(path, subset, whole)

    def targets(self, tables: Any) -> Targets:
        """Which labels each row has; those of words are kept beside."""
        where = f"path={self.path!r}"
        self.form = self._form_of(tables["train"], self.path)
        refuse = not self.drop_incomplete
        found, numbers = read_tags(tables, self.form, where, refuse=refuse)
        self._numbers = [(tables[split], own) for split, own in numbers.items()]
        return found

    def _form_of(self, table: datasets.Dataset, path: str, *, predicting: bool = False) -> Form:
        numbered = bool(path != LETTERS and conll_files(path))
        columns = (None, None) if numbered else (self.text_column, self.tag_column)
        units = self.form.units if predicting else self.units
        return form_of(table, *columns, units, predicting=predicting)

    def content(self, table: datasets.Dataset) -> str:
        """The column of texts, or of lists of words."""
        return self._form(table).content

    def _form(self, table: datasets.Dataset) -> Form:
        """How a table says labels: as the training split, or of rows to predict as they do themselves."""
        known = any(table is own for own, _ in self._numbers)
        if known or self.predict_path is None:
            return self.form
        return self._form_of(table, self.predict_path, predicting=True)

    def text(self, table: datasets.Dataset, index: int) -> Marked:
        """A text with its words."""
        return TextsOf(self._form(table), table)[index]

    def numbers(self, table: datasets.Dataset) -> list[np.ndarray | None] | None:
        """Numbers of the labels of each text of a table, −1 for none; None of rows to predict."""
        return next((found for own, found in self._numbers if own is table), None)

    def encoded(self, table: datasets.Dataset) -> Encoded:
        """The texts of a table as tokens."""
        found = next((encoded for own, encoded in self._encoded if own is table), None)
        if found is None:
            found = Encoded(TextsOf(self._form(table), table), pieces_with(self.tokens))
            self._encoded.append((table, found))
        return found

    def measure(self) -> Facts:
        """Labels, vocabulary and greatest length."""
        options = {
            "num_classes": len(self.labels),
            "vocab_size": self.tokens.vocab_size,
            "max_length": self.max_length,
        }
        read: dict[str, Any] = {"part": "windows", "max_length": self.max_length, "stride": self.stride}
        tokens = Vocabulary(**self.tokens.facts, **read, units=self.form.units)
        return Facts(kind="tokens", options=options, labels=self.labels, tokens=tokens)

    def target_of(self, known: np.ndarray) -> Target:
        """Words of the training rows, and how many have each label."""
        rows = self.splits["train"]
        numbers = self.numbers(rows.table) or []
        every = [own for index in rows.indices.tolist() if (own := numbers[index]) is not None]
        labels = np.concatenate(every)
        counts = np.bincount(labels[labels >= 0], minlength=len(self.labels))
        return Target(kind="tags", rows=int(counts.sum()), counts=counts.tolist())

    def keep(self, name: str) -> None:
        """Turn the texts of a split into ids; each process does so for itself."""

    @property
    def reading(self) -> Reading:
        """Which windows there are of a text."""
        return Reading(self.max_length, "windows", self.stride)

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> Any:
        """Texts, `TagItems`; in training their windows, `TagWindows`."""
        encoded = self.encoded(rows.table)
        long = encoded.ids.lengths[rows.indices] > self.max_length
        if long.any():
            windows = int(count_windows(encoded.ids.lengths[rows.indices], self.max_length, self.stride).sum())
            note(
                f"{split}: {int(long.sum())} of {len(rows)} texts have more than max_length={self.max_length} tokens "
                f"and are read in overlapping windows, {windows} in all"
            )
        kind: type[Any] = TagWindows if training else TagItems
        text = TextsOf(self._form(rows.table), rows.table)
        return kind(rows, encoded, text, self.numbers(rows.table), self.reading, file_names(rows.table))

    def inputs(self, rows: Rows, split: str) -> tuple[Sequence[str], Callable[[int], str]]:
        """Numbers of rows, and the texts."""
        texts = TextsOf(self._form(rows.table), rows.table)
        return texts.names, lambda row: texts[row].text

    @property
    def known(self) -> Known:
        """The texts and the true labels of the rows that are predicted."""
        rows, split = self._predicted
        found = Known(rows.table, *self.inputs(rows, split), None)
        found.truths = TextsOf(self._form(rows.table), rows.table).truths()
        return found

    def training_ids(self) -> Iterator[Int[np.ndarray, " N"]]:
        """What is read at once of each training text."""
        items = self.rows_as_items(self.split("train"), "train", training=True)
        return (items[row]["x"].numpy() for row in range(len(items)))

    @property
    def collate(self) -> Callable[[list[Any]], Batch]:
        """Pad each batch to its longest window, and to its most words."""
        padding: dict[str, Any] = {"multiple": self.pad_to_multiple, "most": self.max_length, "value": self.tokens.pad}
        return partial(pad_tagged, at_once=self.batch_size, **padding)

    def lengths(self, rows: Rows) -> np.ndarray | None:
        """Tokens of each window."""
        return self.rows_as_items(rows, "train", training=True).lengths if self.bucket else None


class Spelled:
    """Texts of some rows, one at a time, as often as one likes; for the training of a tokenizer."""

    def __init__(self, texts: TextsOf, indices: np.ndarray) -> None:
        self.texts, self.indices = texts, indices

    def __iter__(self) -> Iterator[str]:
        return (self.texts[int(index)].text for index in self.indices)
