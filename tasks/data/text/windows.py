"""Windows that cover all of a long document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from lambda_seq.inference.texts import count_windows
from lambda_seq.tasks.data.batches import WindowBatch, named
from lambda_seq.tasks.data.reading.documents import TextItems, pad

PARTS = ("start", "middle", "end", "random", "windows")


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
        also: makes of each window another one that is read as well; None for none.
    """

    def __init__(self, items: TextItems, most: int, also: Callable[[Tensor], Tensor] | None = None) -> None:
        self.items, self.also = items, also
        self.counts = np.ones(len(items), np.int64)
        if items.reading.part == "windows":
            self.counts = count_windows(items.documents, items.reading.most, items.reading.stride)
        self.counts = self.counts * (1 if also is None else 2)
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
        windows = [self.items.tokens(row, begin) for begin in self.items.reading.begins(length)]
        windows += [] if self.also is None else list(map(self.also, windows))
        return self.items.item(row) | {"windows": windows}


def pad_documents(
    batches: list[list[dict[str, Any]]], *, at_once: int, readings: int = 1, **options: Any
) -> WindowBatch:
    """A batch of whole documents, each of which is read so many times, by a network that reads `at_once` windows."""
    items = [item for batch in batches for item in batch]
    document = torch.tensor([place for place, item in enumerate(items) for _ in item["windows"]])
    windows = pad([{"x": window, "id": ""} for item in items for window in item["windows"]], **options)
    batch: WindowBatch = {
        "x": windows["x"],
        "mask": windows["mask"],
        "document": document,
        "at_once": at_once,
        **named(items),
    }
    return batch if readings == 1 else {**batch, "readings": readings}
