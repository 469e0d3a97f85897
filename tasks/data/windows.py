"""Which part of a long document is read, and windows that cover all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from tasks.data.corpus import Corpus
from tasks.data.labels import Rows
from tasks.data.loading import padded_length

PARTS = ("start", "middle", "end", "random", "windows")


def count_windows(lengths: Int[np.ndarray, " B"], most: int, stride: int) -> Int[np.ndarray, " B"]:
    """Windows of `most` tokens, begun every `stride` tokens, that cover documents of these lengths; at least one."""
    return 1 + -(-np.maximum(lengths - most, 0) // stride)


@dataclass(frozen=True)
class Reading:
    """Where reading begins in a document that is longer than what is read of it.

    Args:
        most: tokens that are read at once.
        part: "start", "middle", "end", or "random", which depends on seed, epoch and row.
        stride: tokens from one window to the next.
        seed: of random parts.
    """

    most: int
    part: str = "start"
    stride: int = 1
    seed: int = 0

    def begin(self, length: int, epoch: int, row: int) -> int:
        """The first token that is read of a document of `length` tokens."""
        spare = max(length - self.most, 0)
        if self.part == "random":
            return int(np.random.default_rng([self.seed, epoch, row]).integers(0, spare + 1))
        return {"start": 0, "middle": spare // 2, "end": spare}[self.part]

    def window(self, length: int, number: int) -> int:
        """The first token of a window; the last window ends where the document does, and overlaps more."""
        return min(number * self.stride, max(length - self.most, 0))


class TextItems(Dataset):
    """Items of tokens, one for each document.

    Args:
        rows: which documents of the corpus.
        corpus: all documents.
        reading: what is read of each.
        names: of the documents of the corpus, which become ids; None for their row numbers.
    """

    def __init__(self, rows: Rows, corpus: Corpus, reading: Reading, names: Any = None) -> None:
        self.rows, self.corpus, self.reading, self.names = rows, corpus, reading, names
        self.documents = corpus.lengths[rows.indices]  # tokens of each document

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The document with key row or (epoch, row)."""
        epoch, row = key if isinstance(key, tuple) else (0, key)
        begin = self.reading.begin(int(self.documents[row]), epoch, row)
        return self.item(row) | {"x": self.tokens(row, begin)}

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """Tokens of each item."""
        return np.minimum(self.documents, self.reading.most)

    def tokens(self, row: int, begin: int) -> Int[Tensor, " N"]:
        """What is read of a document at once, from token `begin` on."""
        index = int(self.rows.indices[row])
        return torch.from_numpy(self.corpus.read(index, begin, begin + self.reading.most))

    def item(self, row: int) -> dict[str, Any]:
        """Name and, if it is known, label of a document."""
        index = int(self.rows.indices[row])
        item: dict[str, Any] = {"id": str(index) if self.names is None else self.names[index]}
        return item if self.rows.labels is None else item | {"label": int(self.rows.labels[row])}


class WindowItems(TextItems):
    """Items of tokens, one for each window of each document."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        counts = count_windows(self.documents, self.reading.most, self.reading.stride)
        self.row = np.repeat(np.arange(len(self.rows)), counts)
        self.number = np.arange(len(self.row)) - np.repeat(np.cumsum(counts) - counts, counts)

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The window with key index or (epoch, index)."""
        index = key[1] if isinstance(key, tuple) else key
        row = int(self.row[index])
        begin = self.reading.window(int(self.documents[row]), int(self.number[index]))
        return self.item(row) | {"x": self.tokens(row, begin)}

    @property
    def lengths(self) -> Int[np.ndarray, " windows"]:
        """Tokens of each window."""
        return super().lengths[self.row]


class WholeDocuments(Dataset):
    """Documents with all their windows, as batches of neighbours with up to `most` windows, or one document with more.

    Args:
        items: the documents.
        most: windows of a batch.
    """

    def __init__(self, items: TextItems, most: int) -> None:
        self.items = items
        self.counts = count_windows(items.documents, items.reading.most, items.reading.stride)
        self.first = [0]  # row of each batch
        windows = 0
        for row, count in enumerate(self.counts.tolist()):
            if windows and windows + count > most:
                self.first.append(row)
                windows = 0
            windows += count

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        """The documents of a batch: "windows" (a list of tokens), "id" and, if it is known, "label"."""
        after = self.first[index + 1] if index + 1 < len(self) else len(self.items)
        return [self._document(row) for row in range(self.first[index], after)]

    def _document(self, row: int) -> dict[str, Any]:
        length = int(self.items.documents[row])
        begins = [self.items.reading.window(length, number) for number in range(int(self.counts[row]))]
        return self.items.item(row) | {"windows": [self.items.tokens(row, begin) for begin in begins]}


def pad(items: list[dict[str, Any]], *, multiple: int, most: int | None, value: int = 0) -> dict[str, Any]:
    """A batch of rows of different lengths: "x" (B, N) padded with `value`, "mask" (B, N) True at real positions."""
    length = padded_length(max(len(item["x"]) for item in items), multiple, most)
    x = torch.full((len(items), length), value, dtype=torch.int64)
    mask = torch.zeros(len(items), length, dtype=torch.bool)
    for row, item in enumerate(items):
        x[row, : len(item["x"])] = item["x"]
        mask[row, : len(item["x"])] = True
    return {"x": x, "mask": mask} | _names(items)


def pad_documents(batches: list[list[dict[str, Any]]], *, at_once: int, **options: Any) -> dict[str, Any]:
    """A batch of whole documents.

    Returns:
        "x" and "mask" (W, N) of all windows; "document" (W,), the place of a window's document in "id" and "label"
        (B,); "at_once", how many windows a network shall read at once.
    """
    items = [item for batch in batches for item in batch]
    document = torch.tensor([place for place, item in enumerate(items) for _ in item["windows"]])
    windows = pad([{"x": window, "id": ""} for item in items for window in item["windows"]], **options)
    return windows | {"document": document, "at_once": at_once} | _names(items)


def _names(items: list[dict[str, Any]]) -> dict[str, Any]:
    named: dict[str, Any] = {"id": [item["id"] for item in items]}
    return named | ({"label": torch.tensor([item["label"] for item in items])} if "label" in items[0] else {})


def answer_by_document(network: Callable[[Tensor, Tensor], Tensor], batch: dict[str, Any]) -> Tensor:
    """Logits (B, classes) of documents: the logarithm of the mean of their windows' probabilities.

    Args:
        network: takes "x" and "mask" of some windows and gives their logits.
        batch: as `pad_documents` makes it.
    """
    pieces = zip(batch["x"].split(batch["at_once"]), batch["mask"].split(batch["at_once"]), strict=True)
    probabilities = torch.cat([network(x, mask).float().softmax(-1) for x, mask in pieces])  # (W, classes)
    document = batch["document"]
    counts = document.bincount()  # (B,)
    sums = probabilities.new_zeros(len(counts), probabilities.shape[1]).index_add_(0, document, probabilities)
    return (sums / counts[:, None]).clamp_min(torch.finfo(sums.dtype).tiny).log()  # (B, classes)
