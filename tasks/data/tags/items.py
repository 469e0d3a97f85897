"""Texts with labels of words as items: in training windows, elsewhere whole texts; and how they become a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from lambda_seq.inference.batches import pad_tokens
from lambda_seq.inference.tagging import Marked, Pieces, Read, read
from lambda_seq.inference.texts import Reading
from lambda_seq.models.heads import IGNORED
from lambda_seq.tasks.data.batches import MarkedTexts, TagBatch
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.tags.texts import TextsOf


class Ragged:
    """Arrays of numbers of different lengths, one after another."""

    def __init__(self, parts: Iterable[Int[np.ndarray, " n"]], dtype: Any) -> None:
        every = [part.astype(dtype) for part in parts]
        self.ends = np.cumsum([0, *map(len, every)])
        self.numbers = np.concatenate(every) if every else np.zeros(0, dtype)

    def __getitem__(self, row: int) -> Int[np.ndarray, " n"]:
        return self.numbers[self.ends[row] : self.ends[row + 1]].astype(np.int64)

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """Of each."""
        return np.diff(self.ends)


class Encoded:
    """All texts of a table as tokens, in memory.

    Args:
        texts: with their words, gone through once.
        pieces: what makes tokens of them.
    """

    def __init__(self, texts: Iterable[Marked], pieces: Callable[[Marked], Pieces]) -> None:
        every = [pieces(text) for text in texts]
        self.ids = Ragged((own.ids for own in every), np.uint32)
        self.first = Ragged((own.first for own in every), np.uint32)

    def pieces(self, index: int) -> Pieces:
        """Tokens of a text."""
        return Pieces(self.ids[index], self.first[index])


class TagItems(Dataset):
    """Items of texts whose words have labels; keys are row, or (epoch, row) in training.

    Args:
        rows: of the table.
        encoded: all of its texts.
        texts: of the table, with their words.
        labels: numbers of each text's labels, −1 for none; None where they are not known.
        reading: which windows there are of a text.
        names: of the texts of the table; None for their numbers.
    """

    def __init__(
        self,
        rows: Rows,
        encoded: Encoded,
        texts: TextsOf,
        labels: Sequence[np.ndarray | None] | None,
        reading: Reading,
        names: Sequence[str] | None = None,
    ) -> None:
        self.rows, self.encoded, self.texts = rows, encoded, texts
        self.labels, self.reading, self.names = labels, reading, names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """A text: "id", "windows" (a list of tokens), "window" and "position" (words,), and "text".

        And "label" (words,), `IGNORED` of words that have none, if it is known. "x" is the first window.
        """
        row = key[1] if isinstance(key, tuple) else key
        index = int(self.rows.indices[row])
        pieces = self.encoded.pieces(index)
        found = read(pieces, self.reading)
        windows = [torch.from_numpy(pieces.ids[begin : begin + self.reading.most]) for begin in found.begins]
        item = {
            "id": str(index) if self.names is None else self.names[index],
            "x": windows[0],
            "windows": windows,
            "window": torch.from_numpy(found.window),
            "position": torch.from_numpy(found.position),
            "text": self.texts[index],
        }
        return item | self.label(index)

    def label(self, index: int) -> dict[str, Tensor]:
        """Labels of the text with this number, as far as they are known."""
        own = None if self.labels is None or self.rows.labels is None else self.labels[index]
        return {} if own is None else {"label": torch.from_numpy(np.where(own < 0, IGNORED, own))}


class TagWindows(TagItems):
    """Items of windows, each with the words that it answers, so that each word is learned once in an epoch."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        lengths = self.encoded.ids.lengths[self.rows.indices]
        begins = [self.reading.begins(int(length)) for length in lengths]
        self.row = np.repeat(np.arange(len(begins)), list(map(len, begins)))
        self.number = np.concatenate([np.arange(len(own)) for own in begins]) if begins else np.zeros(0, np.int64)
        starts = np.concatenate(begins) if begins else np.zeros(0, np.int64)
        self.lengths = np.minimum(lengths[self.row] - starts, self.reading.most)

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """A window: "id", "windows" of one, "window", "position" and "label" (words,)."""
        place = key[1] if isinstance(key, tuple) else key
        index, number = int(self.rows.indices[self.row[place]]), int(self.number[place])
        pieces = self.encoded.pieces(index)
        found: Read = read(pieces, self.reading)
        inside = found.window == number
        begin = found.begins[number]
        x = torch.from_numpy(pieces.ids[begin : begin + self.reading.most])
        item = {
            "id": str(index) if self.names is None else self.names[index],
            "x": x,
            "windows": [x],
            "window": torch.zeros(int(inside.sum()), dtype=torch.int64),
            "position": torch.from_numpy(found.position[inside]),
        }
        return item | {name: own[torch.from_numpy(inside)] for name, own in self.label(index).items()}


def pad_tagged(items: list[dict[str, Any]], *, at_once: int, multiple: int, most: int, value: int) -> TagBatch:
    """A batch of texts, or of windows, of which a network shall read `at_once` windows at a time."""
    windows = [window for item in items for window in item["windows"]]
    before = np.cumsum([0, *(len(item["windows"]) for item in items)])[:-1].tolist()
    x, mask = pad_tokens(windows, multiple=multiple, most=most, value=value)
    counts = [len(item["position"]) for item in items]
    shape = len(items), max(counts, default=0)
    window, position = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    label = torch.full(shape, IGNORED)
    for row, (item, count) in enumerate(zip(items, counts, strict=True)):
        window[row, :count] = item["window"] + before[row]
        position[row, :count] = item["position"]
        if "label" in item:
            label[row, :count] = item["label"]
    batch: TagBatch = {
        "x": x,
        "mask": mask,
        "id": [item["id"] for item in items],
        "window": window,
        "position": position,
        "words": torch.tensor(counts),
        "at_once": at_once,
    }
    if "label" in items[0]:
        batch["label"] = label
    if "text" in items[0]:
        batch["texts"] = MarkedTexts([item["text"] for item in items])
    return batch
