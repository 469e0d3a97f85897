"""Text to predict, token by token."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import datasets
import numpy as np
from jaxtyping import Int
from torch.utils.data import DataLoader

from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.batches import Batch
from lambda_seq.tasks.data.labels import name_rows
from lambda_seq.tasks.data.language.library import LIBRARY, library
from lambda_seq.tasks.data.language.packs import Documents, EvaluationRows, InOrder, TrainingRows, pad_rows
from lambda_seq.tasks.data.language.streams import StreamedRows, StreamedWindows, StreamLoader, stream_features
from lambda_seq.tasks.data.loading import EpochSampler, ResumableLoader
from lambda_seq.tasks.data.reading.columns import flat
from lambda_seq.tasks.data.reading.corpus import Corpus, Texts, sizes_of
from lambda_seq.tasks.data.reading.dialects import TableOptions
from lambda_seq.tasks.data.reading.documents import find_text_column
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.data.reading.sources import load_rows, named_predict_path, to_predict
from lambda_seq.tasks.data.reading.text_files import FILE, has_text_files, load_text_files
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.facts import Facts, Vocabulary


@dataclass(frozen=True)
class Part:
    """Documents of a table, or parts of them: where they begin and end, from 0 to 1."""

    table: datasets.Dataset
    index: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    @classmethod
    def all_of(cls, table: datasets.Dataset) -> Part:
        """The whole table."""
        count = len(table)
        return cls(table, np.arange(count), np.zeros(count), np.ones(count))

    def cut(self, sizes: np.ndarray, share: float) -> tuple[Part, Part]:
        """In two, the second with the last `share` of all bytes; the document in which the cut lies is cut, too.

        Args:
            sizes: bytes of each document of the table.
            share: of the bytes of the table, of which this part still has more.
        """
        own = sizes[self.index] * (self.end - self.begin)
        before = own.cumsum() - own  # bytes before each document
        inside = np.clip((own.sum() - share * sizes.sum() - before) / np.maximum(own, 1), 0, 1)
        middle = self.begin + inside * (self.end - self.begin)
        first, second = inside > 0, inside < 1
        return (
            Part(self.table, self.index[first], self.begin[first], middle[first]),
            Part(self.table, self.index[second], middle[second], self.end[second]),
        )


class CorpusData(Data):
    """Text to predict token by token: a hub data set, files with a column of text, or .txt files.

    By default a token is a byte plus one, and any text can be read, in any encoding; a tokenizer reads UTF-8, with
    U+FFFD "�" for bytes that are none. The padding id marks where documents begin and end, and the end is predicted,
    too: a document of T tokens has T + 1 predictions. Empty documents are left out. No document sees another.

    Training cuts rows of `length` predictions from all documents one after another, which come in another order in each
    epoch, and begins elsewhere; a row so holds one piece of a long document, or many short documents. Evaluation
    predicts each token of a split exactly once, in order, in windows of one document; see `stride`.

    Texts stay on disk, mapped into memory. Streamed, they are read as they come from the hub (or from large parquet,
    jsonl or csv files), by each process and each worker its own share, without an end: give --trainer.max_steps, and
    --trainer.val_check_interval or limit_train_batches for validation every so many batches. Either way training goes
    on within an epoch where it was stopped.

    Args:
        path: a name on the Hugging Face hub, or a parquet, jsonl, csv or .txt file, or a folder of such files, named
            train*, validation* and test* for the splits (of .txt files: folders, or train.txt and so on); or
            "python:library", the source of Python's standard library, which needs no download.
        batch_size: rows per step and device.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        tokenizer: "bytes" for none; "train" for byte-level BPE trained on the training split; the path of a
            tokenizer.json, or the name on the hub of what has one.
        vocab_size: tokens of a tokenizer that is trained, at most.
        length: predictions per row, each from the tokens of its document before it in the row.
        stride: new predictions per window of a document in evaluation, each window having length − stride tokens of
            context before them; default: length, without overlap. Smaller ones cost more and predict better.
        text_column: column of texts; found by its name or type if not given.
        subset: configuration of a hub data set that has several.
        streaming: read the data as they come, instead of keeping them on disk first.
        shuffle_buffer: documents that are read together, and whose rows then come in random order, when streaming.
        validation_fraction: share of the training text, its end, held out if there is no validation split; 0 for no
            validation. The document in which it begins becomes two.
        test_fraction: share of the training text, behind validation, held out if there is no test split; 0 for no test.
        predict_path: text to predict instead of the test split.
        table: how csv, tsv, jsonl and json files are written, where that is not to be guessed.
    """

    view = "lambda_seq.tasks.inspection.views.TextView"

    def __init__(
        self,
        path: str = "",
        batch_size: int = 32,
        num_workers: int = 0,
        tokenizer: str = "bytes",
        vocab_size: int = 8192,
        length: int = 512,
        stride: int | None = None,
        text_column: str | None = None,
        subset: str | None = None,
        streaming: bool = False,
        shuffle_buffer: int = 1000,
        validation_fraction: float = 0.05,
        test_fraction: float = 0.0,
        predict_path: str | None = None,
        table: TableOptions = TableOptions(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(
            path,
            batch_size=batch_size,
            num_workers=num_workers,
            subset=subset,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            predict_path=predict_path,
        )
        for name, number in (("length", length), ("shuffle_buffer", shuffle_buffer)):
            if number < 1:
                raise ValueError(f"{name}={number}: expected at least 1")
        if stride is not None and not 1 <= stride <= length:
            raise ValueError(f"stride={stride}: expected from 1 to length={length}, so that no token is left out")
        if validation_fraction + test_fraction >= 1:
            raise ValueError(
                f"validation_fraction={validation_fraction} and test_fraction={test_fraction} leave nothing to train on"
            )
        if tokenizer == "words":
            raise ValueError(
                "tokenizer='words' knows words by hashes, of which none can be predicted: give bytes, \"train\", or a "
                "tokenizer.json"
            )
        if streaming and tokenizer == "train":
            raise ValueError(
                "tokenizer='train' would read all of a stream: train one on a part of it without streaming, and give "
                "its tokenizer.json, or read bytes"
            )
        self.tokenizer, self.vocab_size, self.table = tokenizer, vocab_size, table
        self.length, self.stride = length, length if stride is None else stride
        self.text_column, self.streaming, self.shuffle_buffer = text_column, streaming, shuffle_buffer
        self._stream: StreamLoader | None = None
        self._reached: dict[str, Any] | None = None  # where a stream goes on

    def read(self) -> dict[str, Part | datasets.IterableDataset]:
        """The text of train, validation and test, as far as there are such."""
        if self.streaming:
            return self._streams()
        tables = self._tables(self.path, self.subset)
        if "train" not in tables:
            raise ValueError(
                f"path={self.path!r} has no training split, only {', '.join(tables)}: add one, or rename it"
            )
        parts = {name: Part.all_of(table) for name, table in tables.items()}
        for name, share in (("test", self.test_fraction), ("validation", self.validation_fraction)):
            if name not in parts and share:
                parts["train"], parts[name] = parts["train"].cut(self._sizes(parts["train"].table), share)
                self.note_held_out(name, f"the last {share:g} of the training text")
            elif name == "test" and share:
                self.note_not_held_out()
        return parts

    def _streams(self) -> dict[str, Any]:
        if has_text_files(self.path) or self.path == LIBRARY:
            raise ValueError(
                f"path={self.path!r}: .txt files are read in place and not streamed; leave out --data.streaming"
            )
        streams = load_rows(self.path, self.subset, streaming=True, options=self.table)
        if "train" not in streams:
            raise ValueError(
                f"path={self.path!r} has no training split, only {', '.join(streams)}: add one, or rename it"
            )
        for name, share in (("test", self.test_fraction), ("validation", self.validation_fraction)):
            if name not in streams and share:
                raise ValueError(
                    f"path={self.path!r} has no {name} split, and of a stream nothing can be held out, as its length "
                    f"is not known: add one, or give --data.{name}_fraction 0 for training without"
                )
        return {name: stream_features(stream) for name, stream in streams.items()}

    def _tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """The splits found at a path, or with `whole` all texts as one; .txt files are texts, not lines of text."""
        if path == LIBRARY:
            return library()
        if has_text_files(path):
            return load_text_files(path, whole)
        found = load_rows(path, subset, whole=whole, options=self.table)
        return {name: flat(table) for name, table in found.items()}

    @cached_property
    def tokens(self) -> Tokens:
        """What turns texts into ids."""
        return Tokens.named(self.tokenizer, self._texts, self.vocab_size)

    def _texts(self) -> Texts:
        part: Any = self.splits["train"]
        return Texts(part.table, self.content(part.table), part.index)

    def measure(self) -> Facts:
        """Vocabulary, and length of rows."""
        _ = self.splits  # data that cannot be read are an error before a network is made
        options = {"vocab_size": self.tokens.vocab_size, "max_length": self.length}
        return Facts(kind="tokens", options=options, tokens=Vocabulary(**self.tokens.facts))

    def keep(self, name: str) -> None:
        """Turn the documents of a split into ids, unless these are their bytes or come as a stream."""
        if not self.streaming:
            part = self._split(name)
            Corpus(part.table, self.content(part.table), self.tokens)

    def documents(self, name: str) -> Documents:
        """The documents of a split.

        Raises:
            ValueError: there is no such split, or no text in it.
        """
        return self._documents(self._split(name), f"the {name} split of path={self.path!r}")

    @property
    def divided(self) -> int | None:
        """See `Data.divided`."""
        part = self.splits["train"]
        if self.streaming or (len(part.index) == len(part.table) and (part.end == 1).all()):
            return None
        return zlib.crc32(np.concatenate([part.index, part.begin, part.end]).astype(np.float64).tobytes())

    def training_ids(self) -> Iterator[Int[np.ndarray, " N"]] | None:
        """The training documents in pieces of `length`; None of a stream."""
        if self.streaming:
            return None
        found = self.documents("train")
        return (
            found.corpus.read(index, place, min(place + self.length, end))
            for index, begin, end in zip(found.index.tolist(), found.begin.tolist(), found.end.tolist(), strict=True)
            for place in range(begin, end, self.length)
        )

    def _documents(self, part: Part, where: str) -> Documents:
        corpus = Corpus(part.table, self.content(part.table), self.tokens)
        names = part.table.select_columns(FILE)[:][FILE] if FILE in part.table.column_names else None
        sizes, share = self._sizes(part.table), (part.begin, part.end)
        documents = Documents.of(corpus, sizes, mark=self.tokens.pad, index=part.index, share=share, names=names)
        if not len(documents):
            raise ValueError(f"{where} has no text, all its documents being empty; put text in it or remove it")
        if (empty := np.unique(part.index[sizes[part.index] == 0])).size:
            found = name_rows(part.table, empty)
            note(f"{where}: {len(empty)} of {len(part.index)} documents are empty and left out: {found}")
        return documents

    def _split(self, name: str) -> Any:
        if name not in self.splits:
            raise ValueError(
                f"path={self.path!r} has no {name} split, only {', '.join(self.splits)}; add one, or hold out a part "
                f"of the training text: --data.{name}_fraction 0.05"
            )
        return self.splits[name]

    def train_dataloader(self) -> DataLoader:
        """Rows in random order; see `TrainingRows`."""
        if self.streaming:
            return self._stream_to_train()
        rows = TrainingRows(self.documents("train"), self.length, [self.seed])
        sampler = EpochSampler(rows, batch_size=self.batch_size, seed=self.seed, **self.share)
        return ResumableLoader(
            rows,
            sampler=sampler,
            trained=self._trained,
            drop_last=sampler.drop_last,  # all steps learn from as many tokens
            **self._loader_options(),
        )

    def _stream_to_train(self) -> DataLoader:
        if self.trainer and self.trainer.max_steps < 0 and self.trainer.limit_train_batches == 1.0:
            raise ValueError(
                "streaming has no end: limit training with --trainer.max_steps, or each epoch with "
                "--trainer.limit_train_batches"
            )
        source: Any = self._split("train")
        rows = StreamedRows(
            source,
            self.content(source),
            self.tokens,
            length=self.length,
            block=self.shuffle_buffer,
            seed=self.seed,
            **self.share,
        )
        options = self._loader_options() | {"persistent_workers": False}  # each time they begin elsewhere
        self._stream = StreamLoader(rows, trained=self._trained_in_all, **options)
        if self._reached is not None:
            self._stream.go_on(self._reached)
        return self._stream

    def state_dict(self) -> dict[str, Any]:
        """The seed of the order of rows, and how far a stream was read."""
        reached = self._reached if self._stream is None else self._stream.reached()
        return super().state_dict() | ({} if reached is None else {"reached": reached})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the order, and from the place in the stream, of the run that is resumed."""
        super().load_state_dict(state_dict)
        self._reached = state_dict.get("reached")

    def _trained_in_all(self) -> int:
        """Batches of all epochs that the trainer is done with."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.ready if self.trainer else 0

    def val_dataloader(self) -> DataLoader | list:
        """The validation split in order; nothing if it is switched off by validation_fraction=0."""
        if "validation" not in self.splits and not self.validation_fraction:
            return []
        return self._in_order("validation")

    def test_dataloader(self) -> DataLoader:
        """The test split in order."""
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader:
        """The text of `predict_path`; without it the test split."""
        if self.predict_path is None:
            return self.test_dataloader()
        with named_predict_path():
            part = Part.all_of(to_predict(self._tables(self.predict_path, whole=True), self.predict_path))
        return self._windows(self._documents(part, f"predict_path={self.predict_path!r}"))

    def _in_order(self, name: str) -> DataLoader:
        if not self.streaming:
            return self._windows(self.documents(name))
        source: Any = self._split(name)
        rows = StreamedWindows(
            source,
            self.content(source),
            self.tokens,
            length=self.length,
            stride=self.stride,
            block=self.shuffle_buffer,
            **self.share,
        )
        return DataLoader(rows, **self._loader_options())

    def _windows(self, documents: Documents) -> DataLoader:
        rows = EvaluationRows(documents, self.length, self.stride)
        return DataLoader(rows, sampler=InOrder(rows, **self.share), **self._loader_options())

    @property
    def collate(self) -> Callable[[list[Any]], Batch]:
        """Rows side by side, padded where they are shorter."""
        return partial(pad_rows, mark=self.tokens.pad)

    def content(self, table: Any) -> str:
        """The column of texts."""
        return find_text_column(table, self.text_column)

    def _sizes(self, table: datasets.Dataset) -> np.ndarray:
        """Bytes of each document."""
        return sizes_of(table, self.content(table))
