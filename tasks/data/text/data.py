"""Labelled texts, as bytes, as words or as tokens of a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import datasets
import numpy as np
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader

from lambda_seq.inference.texts import Reading
from lambda_seq.tasks.data.batches import Batch
from lambda_seq.tasks.data.labels import Rows, name_rows
from lambda_seq.tasks.data.module import ClassificationData
from lambda_seq.tasks.data.reading.corpus import Corpus, DecodedTexts, Texts, sizes_of
from lambda_seq.tasks.data.reading.dialects import TableOptions
from lambda_seq.tasks.data.reading.documents import TextItems, find_text_column, pad
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.data.reading.text_files import file_names, has_text_files, load_text_files
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.data.targets import TargetOptions
from lambda_seq.tasks.data.text.windows import PARTS, WholeDocuments, WindowItems, pad_documents
from lambda_seq.tasks.facts import Facts, Vocabulary


class TextData(ClassificationData):
    """Labelled texts: a hub data set, files with a column of text, or folders of .txt files.

    By default a token is a byte plus one, and 0 is padding: any text can be read, in any encoding. Words are known by
    hashes, of any vocabulary, which networks with the stem "ngrams" take. For words and tokenizers texts are UTF-8,
    with U+FFFD "�" for bytes that are none. An empty text is a row without a single real position: it stays in the
    data, and the network answers with what it says about nothing.

    Of a text longer than max_length one part is read, or all of it in windows: training then draws a window of each
    text anew in each epoch, and elsewhere the answer to a text is the mean of the probabilities of all its windows, so
    that metrics and predictions count texts.

    Args:
        path: a name on the Hugging Face hub, or a parquet, jsonl or csv file, or a folder of such files, named train*,
            validation* and test* for the splits, or a folder with one folder of .txt files per class (or train/,
            validation/, test/ of such).
        batch_size: texts per step and device; with windows, windows.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        tokenizer: "bytes" for none; "words" for a hash of each word, in lower case, and of each punctuation mark;
            "dna" or "protein" for letters of those (`BiosequenceData` knows more of them); "train" for byte-level BPE
            trained on the training split; the path of a tokenizer.json, or the name on the hub of what has one.
        vocab_size: tokens of a tokenizer that is trained, at most.
        max_length: tokens (bytes, words) that are read of a text, or that a window has.
        part: what is read of a longer text: "start", "middle" or "end"; "random", which is another part in each epoch
            of training, and the middle elsewhere; or "windows" for all of it.
        stride: tokens from the beginning of a window to that of the next; default: max_length, so that windows do not
            overlap, but for the last, which ends where the text does. For part "windows".
        train_windows: "random", one window of each text in an epoch, beginning anywhere; or "all", each window as a row
            of its own. For part "windows".
        pad_to_multiple: batches are padded to a multiple of this many tokens, so that few lengths occur.
        bucket: put texts of similar length into one batch while training, which saves padding.
        text_column: column of texts; found by its name or type if not given.
        label_column: column of labels; found by its name or type if not given.
        subset: configuration of a hub data set that has several.
        validation_fraction: share of the training rows held out if there is no validation split; 0 for no validation.
        test_fraction: share of the training rows held out if there is no test split; 0 for no test.
        split_seed: of the choice of the rows held out.
        predict_path: texts to predict instead of the test split, which need no labels: a file, or a folder of .txt
            files in any folders, whose names then are the ids.
        table: how csv, tsv, jsonl and json files are written, where that is not to be guessed.
        drop_incomplete: leave out rows without a label or with nothing in the column of texts, and say how many; they
            are refused, or stay as empty texts otherwise.
        target: what is known of a row: one class, any of several labels, or numbers, where that is not to be guessed.
    """

    view = "lambda_seq.tasks.inspection.views.TextView"

    def __init__(
        self,
        path: str = "",
        batch_size: int = 32,
        num_workers: int = 0,
        tokenizer: str = "bytes",
        vocab_size: int = 8192,
        max_length: int = 4096,
        part: str = "start",
        stride: int | None = None,
        train_windows: str = "random",
        pad_to_multiple: int = 64,
        bucket: bool = True,
        text_column: str | None = None,
        label_column: str | None = None,
        subset: str | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        predict_path: str | None = None,
        table: TableOptions = TableOptions(),  # noqa: B008 - frozen
        drop_incomplete: bool = False,
        target: TargetOptions = TargetOptions(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(
            path,
            batch_size=batch_size,
            num_workers=num_workers,
            label_column=label_column,
            subset=subset,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            predict_path=predict_path,
            table=table,
            drop_incomplete=drop_incomplete,
            target=target,
        )
        for name, number in (("max_length", max_length), ("pad_to_multiple", pad_to_multiple)):
            if number < 1:
                raise ValueError(f"{name}={number}: expected at least 1 token")
        for name, chosen, known in (("part", part, PARTS), ("train_windows", train_windows, ("random", "all"))):
            if chosen not in known:
                raise ValueError(f"{name}={chosen!r}: expected one of {', '.join(known)}")
        if stride is not None and (part != "windows" or not 1 <= stride <= max_length):
            raise ValueError(
                f"stride={stride} with part={part!r} and max_length={max_length}: it is of windows, which leave "
                "nothing out; give --data.part windows and a stride from 1 to max_length, or no stride"
            )
        self.tokenizer, self.vocab_size = tokenizer, vocab_size
        self.max_length, self.part, self.train_windows = max_length, part, train_windows
        self.stride = max_length if stride is None else stride
        self.pad_to_multiple, self.bucket, self.text_column = pad_to_multiple, bucket, text_column

    @cached_property
    def tokens(self) -> Tokens:
        """What turns texts into ids."""
        return Tokens.named(self.tokenizer, lambda: self.texts(self.split("train")), self.vocab_size)

    def texts(self, rows: Rows) -> Texts:
        """The texts of some rows, as bytes, one at a time."""
        return Texts(rows.table, self.content(rows.table), rows.indices)

    def sizes(self, rows: Rows) -> np.ndarray:
        """Bytes of the texts of some rows, (rows,)."""
        return sizes_of(rows.table, self.content(rows.table))[rows.indices]

    def measure(self) -> Facts:
        """Labels, vocabulary and greatest length."""
        options = {
            "num_classes": len(self.labels),
            "vocab_size": self.tokens.vocab_size,
            "max_length": self.max_length,
        }
        part = "middle" if self.part == "random" else self.part
        read: dict[str, Any] = {"part": part, "max_length": self.max_length}
        read |= {"stride": self.stride} if self.part == "windows" else {}
        tokens = Vocabulary(**self.tokens.facts, **read)
        return Facts(kind="tokens", options=options, labels=self.labels, tokens=tokens)

    def keep(self, name: str) -> None:
        """Turn the texts of a split into ids, unless these are their bytes."""
        rows = self.split(name)
        Corpus(rows.table, self.content(rows.table), self.tokens)

    def load_tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """The splits found at a path, or with `whole` all texts as one; .txt files are texts, not lines of text."""
        return load_text_files(path, whole) if has_text_files(path) else super().load_tables(path, subset, whole)

    def content(self, table: datasets.Dataset) -> str:
        """The column of texts."""
        return find_text_column(table, self.text_column, self.labelled_by or self.label_column)

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> TextItems:
        """Tokens, (N,); in training those of the part or window that an epoch reads."""
        corpus = Corpus(rows.table, self.content(rows.table), self.tokens)
        names = file_names(rows.table)
        if (empty := np.flatnonzero(corpus.lengths[rows.indices] == 0)).size:
            known = split in self.splits and rows.table is self.splits[split].table
            where = f"{split} split of path={self.path!r}" if known else f"predict_path={self.predict_path!r}"
            found = name_rows(rows.table, rows.indices[empty])
            note(f"{where}: {len(empty)} of {len(rows)} texts are empty: {found}; they stay, without a token")
        if not training:
            return TextItems(rows, corpus, self._record.reading(), names)
        if self.part == "windows" and self.train_windows == "all":
            return WindowItems(rows, corpus, Reading(self.max_length, stride=self.stride), names)
        part = "random" if self.part == "windows" else self.part
        return TextItems(rows, corpus, Reading(self.max_length, part, self.stride, self.seed), names)

    def inputs(self, rows: Rows, split: str) -> tuple[list[str], Callable[[int], str]]:
        """Names of files, or numbers of rows, and the texts."""
        texts = DecodedTexts(rows.table, self.content(rows.table))
        return texts.names, texts.__getitem__

    def training_ids(self) -> Iterator[Int[np.ndarray, " N"]]:
        """What is read at once of each training text; of one that is read in windows, or anywhere, each window."""
        rows = self.split("train")
        corpus = Corpus(rows.table, self.content(rows.table), self.tokens)
        whole = self.part in ("random", "windows")
        reading = Reading(self.max_length, "start" if whole else self.part, self.stride)
        items = (WindowItems if whole else TextItems)(rows, corpus, reading)
        return (items[row]["x"].numpy() for row in range(len(items)))

    @property
    def collate(self) -> Callable[[list[Any]], Batch]:
        """Pad each batch to its longest text."""
        return partial(pad, **self._padding)

    def lengths(self, rows: Rows) -> np.ndarray | None:
        """Tokens that are read at once of each text, or window, in training."""
        return self.rows_as_items(rows, "train", training=True).lengths if self.bucket else None

    def _in_order(self, rows: Rows, split: str) -> DataLoader:
        return self._in_windows(rows, split) if self.part == "windows" else super()._in_order(rows, split)

    def _in_windows(self, rows: Rows, split: str, also: Callable[[Tensor], Tensor] | None = None) -> DataLoader:
        """Documents with all that is read of each, to average answers over; see `WholeDocuments`."""
        documents = WholeDocuments(self.rows_as_items(rows, split), self.batch_size, also)
        readings = 1 if also is None else 2
        collate = partial(pad_documents, at_once=self.batch_size, readings=readings, **self._padding)
        options = self._loader_options() | {"batch_size": 1, "collate_fn": collate}
        return DataLoader(documents, shuffle=False, **options)

    @property
    def _record(self) -> Vocabulary:
        """What is read of texts in evaluation, as a saved model knows it."""
        return self.facts.tokens  # type: ignore[return-value]  # which texts always have

    @property
    def _padding(self) -> dict[str, Any]:
        return {"multiple": self.pad_to_multiple, "most": self.max_length, "value": self.tokens.pad}
