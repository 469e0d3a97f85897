"""Documents of a table as items: which column has them, which part of each is read, and how they become a batch."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from lambda_seq.inference.batches import pad_tokens
from lambda_seq.inference.texts import Reading
from lambda_seq.tasks.data.batches import SequenceBatch, named
from lambda_seq.tasks.data.labels import LABEL_NAMES, TEXT_NAMES, Rows, find_column
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
        return item | self.rows.target(row)


def pad(items: list[dict[str, Any]], *, multiple: int, most: int | None, value: int = 0) -> SequenceBatch:
    """A batch of rows of different lengths: "x" (B, N) padded with `value`, "mask" (B, N) True at real positions."""
    x, mask = pad_tokens([item["x"] for item in items], multiple=multiple, most=most, value=value)
    return {"x": x, "mask": mask, **named(items)}
