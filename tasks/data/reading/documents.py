"""Documents of a table as items: which column has them, which part of each is read, and how they become a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from lambda_seq.tasks.data.batches import SequenceBatch, named
from lambda_seq.tasks.data.labels import LABEL_NAMES, TEXT_NAMES, Rows, find_column
from lambda_seq.tasks.data.loading import padded_length
from lambda_seq.tasks.data.reading.corpus import Corpus


def find_text_column(table: Any, given: str | None, label: str | None = None) -> str:
    """The column of texts; see `find_column`. That of labels is none, by its usual names or the one given.

    Raises:
        ValueError: none is found, or the one that was named holds no texts.
    """
    names = tuple(name for name in TEXT_NAMES if name != label)
    taken = (*LABEL_NAMES, label.casefold()) if label else LABEL_NAMES
    column = find_column(table, "text_column", given, names, _is_text, taken)
    if not _is_text(table.features[column]):
        raise ValueError(
            f"text_column={column!r} holds {table.features[column]}: expected strings or bytes. Write the texts as "
            "such, or name another column: --data.text_column NAME"
        )
    return column


def _is_text(kind: Any) -> bool:
    return isinstance(kind, datasets.Value) and kind.dtype in ("string", "large_string", "binary", "large_binary")


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


def pad(items: list[dict[str, Any]], *, multiple: int, most: int | None, value: int = 0) -> SequenceBatch:
    """A batch of rows of different lengths: "x" (B, N) padded with `value`, "mask" (B, N) True at real positions."""
    length = padded_length(max(len(item["x"]) for item in items), multiple, most)
    x = torch.full((len(items), length), value, dtype=torch.int64)
    mask = torch.zeros(len(items), length, dtype=torch.bool)
    for row, item in enumerate(items):
        x[row, : len(item["x"])] = item["x"]
        mask[row, : len(item["x"])] = True
    return {"x": x, "mask": mask, **named(items)}
