"""Rows for language models: documents, or pieces of them, side by side, each token with the one that follows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import Dataset, DistributedSampler

from lambda_seq.functional import Packing
from lambda_seq.tasks.data.batches import LanguageBatch, Packed

IGNORED = -100  # the target of a position whose prediction does not count


class Readable(Protocol):
    """Documents as token ids, such as `tasks.data.reading.corpus.Corpus`."""

    @property
    def lengths(self) -> Int[np.ndarray, " documents"]:
        """Tokens of each document."""

    def read(self, index: int, begin: int = 0, end: int | None = None) -> Int[np.ndarray, " N"]:
        """Ids of a document from token `begin` to before `end`."""


class Piece(NamedTuple):
    """Neighbouring tokens of a document.

    Attributes:
        ids: n + 1 tokens: n predictions, of each from those before it.
        skip: predictions, of the first ones, that do not count: they are context.
        size: bytes of text that the others predict.
        name: of the document.
    """

    ids: Int[np.ndarray, " n+1"]
    skip: int
    size: float
    name: str


@dataclass(frozen=True)
class Documents:
    """Documents, or parts of them, with a mark at the beginning and, where a document ends, at the end.

    A document of T tokens b is read as (mark, b_1, …, b_T, mark): T + 1 predictions, prediction p being of token p + 1
    from tokens 0 to p. So the first token is predicted too, and where the document ends; a document of one byte has
    two predictions. A part that ends before its document does has no mark at its end. Bytes of text are counted for
    each prediction: of a document they are shared evenly among its tokens, so that whole documents are counted exactly,
    and for bytes as tokens everything is.

    Attributes:
        corpus: all documents.
        index: of each document in the corpus.
        begin: first token of each.
        end: the token after the last of each.
        marked: predictions of the mark at the end, 1 or 0.
        sizes: bytes of text per token of each.
        mark: id of the mark.
        names: of the documents of the corpus; None for their numbers.
    """

    corpus: Readable
    index: Int[np.ndarray, " D"]
    begin: Int[np.ndarray, " D"]
    end: Int[np.ndarray, " D"]
    marked: Int[np.ndarray, " D"]
    sizes: np.ndarray
    mark: int
    names: Sequence[str] | None = None

    @classmethod
    def of(
        cls,
        corpus: Readable,
        sizes: Int[np.ndarray, " documents"],
        *,
        mark: int,
        index: Int[np.ndarray, " D"] | None = None,
        share: tuple[np.ndarray, np.ndarray] | None = None,
        names: Sequence[str] | None = None,
    ) -> Documents:
        """The documents of a corpus that have a token.

        Args:
            corpus: all documents.
            sizes: bytes of each document of the corpus.
            mark: id of the mark.
            index: which documents; None for all.
            share: where parts of them begin and end, from 0 to 1.
            names: of the documents of the corpus.
        """
        index = np.arange(len(corpus.lengths)) if index is None else index
        lengths = corpus.lengths[index]
        first, last = (np.zeros(len(index)), np.ones(len(index))) if share is None else share
        begin, end = (np.rint(part * lengths).astype(np.int64) for part in (first, last))
        kept = end > begin
        marked = (end == lengths).astype(np.int64)
        per_token = sizes[index] / np.maximum(lengths, 1)
        return cls(corpus, index[kept], begin[kept], end[kept], marked[kept], per_token[kept], mark, names)

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def predictions(self) -> Int[np.ndarray, " D"]:
        """Number of predictions of each document."""
        return self.end - self.begin + self.marked

    def piece(self, place: int, first: int, last: int, skip: int = 0) -> Piece:
        """Predictions `first` to before `last` of a document, of which the first `skip` are context."""
        begin, count = int(self.begin[place]), int(self.end[place] - self.begin[place])
        index = int(self.index[place])
        ids = self.corpus.read(index, begin + max(first - 1, 0), begin + min(last, count))
        marks = np.array([self.mark])
        ids = np.concatenate([marks[: first == 0], ids, marks[: last > count]])
        tokens = min(last, count) - min(first + skip, count)  # all but the mark at the end
        name = str(index) if self.names is None else self.names[index]
        return Piece(ids, skip, tokens * float(self.sizes[place]), name)


def row_of(pieces: Iterable[Piece]) -> dict[str, Any]:
    """A row of pieces.

    Returns:
        "x", "target" and "documents" (N,): token, the one that follows or `IGNORED`, and number of the piece; "bytes",
        a number for each piece; "id", names of the pieces.
    """
    pieces = list(pieces)
    targets = [np.concatenate([np.full(piece.skip, IGNORED), piece.ids[1 + piece.skip :]]) for piece in pieces]
    lengths = [len(target) for target in targets]
    return {
        "x": torch.from_numpy(np.concatenate([piece.ids[:-1] for piece in pieces])),
        "target": torch.from_numpy(np.concatenate(targets)),
        "documents": torch.from_numpy(np.repeat(np.arange(len(pieces)), lengths)),
        "bytes": [piece.size for piece in pieces],
        "id": [piece.name for piece in pieces],
    }


def no_row(mark: int) -> dict[str, Any]:
    """A row without a document."""
    one = torch.zeros(1, dtype=torch.int64)
    return {"x": one + mark, "target": one + IGNORED, "documents": one - 1, "bytes": [], "id": []}


def pad_rows(rows: list[dict[str, Any]], *, mark: int) -> LanguageBatch:
    """A batch of rows, padded with the mark and `IGNORED`, and the packing of their pieces."""
    length, most = max(len(row["x"]) for row in rows), max(1, *(len(row["bytes"]) for row in rows))
    padded = {}
    for name, value in (("x", mark), ("target", IGNORED), ("documents", -1)):
        padded[name] = torch.full((len(rows), length), value, dtype=torch.int64)
        for line, row in zip(padded[name], rows, strict=True):
            line[: len(row[name])] = row[name]
    mask = padded["documents"] >= 0
    whole = bool(mask.all())
    batch: LanguageBatch = {
        "x": padded["x"],
        "target": padded["target"],
        "documents": Packed(Packing.of(padded["documents"], None if whole else mask)),
        # No tensor, whose numbers bf16-true and 16-true would round to three digits
        "bytes": np.array([row["bytes"] + [0.0] * (most - len(row["bytes"])) for row in rows]),
        "id": [row["id"] for row in rows],
    }
    if not whole:
        batch["mask"] = mask
    return batch


class TrainingRows(Dataset):
    """Rows of `length` predictions, cut from all documents one after another.

    In each epoch the documents come in another order, and rows begin elsewhere, so that no token is always the first of
    a row, of which less is known than of others. The documents close to a circle; what is left of it when the rows are
    cut, less than one row, is another part in each epoch. Where there are fewer predictions than `length`, all are one
    row.

    Args:
        documents: at least one.
        length: predictions per row.
        seed: of order and beginning, with the epoch.
    """

    def __init__(self, documents: Documents, length: int, seed: Sequence[int]) -> None:
        self.documents, self.length, self.seed = documents, length, list(seed)
        self.total = int(documents.predictions.sum())
        self._epoch: tuple[int, np.ndarray, np.ndarray, int] | None = None

    def __len__(self) -> int:
        return max(self.total // self.length, 1)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The row with key (epoch, row); a row alone is one of epoch 0."""
        epoch, row = key if isinstance(key, tuple) else (0, key)
        order, ends, phase = self._arrangement(epoch)
        begin = phase + row * self.length
        return row_of(self._pieces(order, ends, begin, min(self.length, self.total)))

    def _pieces(self, order: np.ndarray, ends: np.ndarray, begin: int, count: int) -> Iterator[Piece]:
        while count:
            begin %= self.total
            turn = int(np.searchsorted(ends, begin, "right"))
            take = min(int(ends[turn]) - begin, count)
            place = int(order[turn])
            first = int(self.documents.predictions[place]) - (int(ends[turn]) - begin)
            yield self.documents.piece(place, first, first + take)
            begin, count = begin + take, count - take

    def _arrangement(self, epoch: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Order of the documents, the prediction after the last of each in this order, and where rows begin."""
        if self._epoch is None or self._epoch[0] != epoch:
            generator = np.random.default_rng([*self.seed, epoch])
            order = generator.permutation(len(self.documents))
            ends = self.documents.predictions[order].cumsum()
            self._epoch = epoch, order, ends, int(generator.integers(self.total))
        return self._epoch[1:]


class EvaluationRows(Dataset):
    """Rows that predict each token of all documents exactly once, in order.

    A document is read in windows of up to `length` predictions. The first counts all of them; each later one begins
    `stride` further on and counts its last `stride`, the others being context. The last one ends where the document
    does, and has as much context as there is room for. Windows fill a row as long as they fit into it.

    Args:
        documents: at least one.
        length: predictions per row.
        stride: new predictions per window, from 1 to `length`, which gives no context but to the last window.
    """

    def __init__(self, documents: Documents, length: int, stride: int) -> None:
        self.documents, self.length, self.stride = documents, length, stride
        predictions = documents.predictions
        counts = 1 + -(-np.maximum(predictions - length, 0) // stride)  # windows of each document
        self.place = np.repeat(np.arange(len(documents)), counts)  # document of each window
        number = np.arange(len(self.place)) - np.repeat(counts.cumsum() - counts, counts)
        self.last = np.minimum(length + number * stride, predictions[self.place])
        self.first = np.maximum(self.last - length, 0)
        counted = np.where(number == 0, 0, length + (number - 1) * stride)  # the first prediction that counts
        self.skip = counted - self.first
        self.starts = [0]  # window that each row begins with
        room = length
        for window, size in enumerate((self.last - self.first).tolist()):
            if size > room:
                self.starts.append(window)
                room = length
            room -= size

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """A row; one without a document for −1."""
        if row < 0:
            return no_row(self.documents.mark)
        after = self.starts[row + 1] if row + 1 < len(self) else len(self.place)
        return row_of(
            self.documents.piece(*(int(values[window]) for values in (self.place, self.first, self.last, self.skip)))
            for window in range(self.starts[row], after)
        )


class InOrder(DistributedSampler):
    """Rows in order, each once: a process has neighbours, and −1 for as many as it has fewer than another.

    Args:
        dataset: what is sampled from.
        replicas: number of processes that share the rows.
        rank: of this process.
    """

    def __init__(self, dataset: Dataset, replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas=replicas, rank=rank, shuffle=False)

    def __iter__(self) -> Iterator[int]:
        """Rows of this process."""
        count = len(self.dataset)  # type: ignore[arg-type]
        begin = self.rank * self.num_samples
        return (row if row < count else -1 for row in range(begin, begin + self.num_samples))
