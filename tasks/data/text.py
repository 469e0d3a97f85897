"""Texts with one label each, as bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasks.data.labels import Rows, find_column
from tasks.data.loading import padded_length
from tasks.data.module import ClassificationData

TEXT_NAMES = ("text", "sentence", "document", "content", "review")
BYTES = 257  # token 0 is padding, token 1 + b is the byte b


class TextData(ClassificationData):
    """Texts with one label each, read as bytes: a hub data set, or files with a column of text.

    A token is a byte plus one; 0 is padding. An empty text is a row without a single real position: it stays in the
    data, and the network answers with what it says about nothing.

    Args:
        path: a name on the Hugging Face hub, or a parquet, jsonl or csv file, or a folder of such files, named train*,
            validation* and test* for the splits.
        batch_size: texts per step and device.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        max_length: bytes of a text that are read; the rest is cut off.
        pad_to_multiple: batches are padded to a multiple of this many bytes, so that few lengths occur.
        bucket: put texts of similar length into one batch while training, which saves padding.
        text_column: column of texts; found by its name or type if not given.
        label_column: column of labels; found by its name or type if not given.
        subset: configuration of a hub data set that has several.
        validation_fraction: share of the training rows held out if there is no validation split; 0 for no validation.
        test_fraction: share of the training rows held out if there is no test split; 0 for no test.
        split_seed: of the choice of the rows held out.
        predict_path: texts to predict instead of the test split; they need no labels.
    """

    def __init__(
        self,
        path: str = "",
        batch_size: int = 32,
        num_workers: int = 0,
        max_length: int = 4096,
        pad_to_multiple: int = 64,
        bucket: bool = True,
        text_column: str | None = None,
        label_column: str | None = None,
        subset: str | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        predict_path: str | None = None,
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
        )
        for name, number in (("max_length", max_length), ("pad_to_multiple", pad_to_multiple)):
            if number < 1:
                raise ValueError(f"{name}={number}: expected at least 1 byte")
        self.max_length, self.pad_to_multiple = max_length, pad_to_multiple
        self.bucket, self.text_column = bucket, text_column

    @property
    def facts(self) -> dict[str, Any]:
        """Labels, vocabulary size and greatest length."""
        options = {"num_classes": len(self.labels), "vocab_size": BYTES, "max_length": self.max_length}
        return {"labels": self.labels, "input": "tokens", "options": options}

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> Dataset:
        """Tokens, (N,)."""
        return TextItems(rows, self._column(rows), self.max_length)

    @property
    def collate(self) -> Callable:
        """Pad each batch to its longest text."""
        return partial(pad, multiple=self.pad_to_multiple, most=self.max_length)

    def lengths(self, rows: Rows) -> np.ndarray | None:
        """Bytes of each text that are read."""
        if not self.bucket:
            return None
        column = rows.table.with_format("arrow")[:][self._column(rows)]
        lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy()
        return np.minimum(lengths, self.max_length)[rows.indices]

    def _column(self, rows: Rows) -> str:
        column = find_column(rows.table, "text_column", self.text_column, TEXT_NAMES, _is_text)
        if not _is_text(rows.table.features[column]):
            raise ValueError(f"text_column={column!r} holds {rows.table.features[column]}: expected strings or bytes")
        return column


class TextItems(Dataset):
    """Items of tokens; bytes are read in place from the table, which is mapped into memory.

    Args:
        rows: which rows of which table.
        column: of the texts.
        max_length: bytes of a text that are read.
    """

    def __init__(self, rows: Rows, column: str, max_length: int) -> None:
        self.rows, self.max_length = rows, max_length
        self.table = rows.table.select_columns(column).with_format("arrow")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The text with key row or (epoch, row)."""
        row = key[1] if isinstance(key, tuple) else key
        index = int(self.rows.indices[row])
        text: pa.Scalar = self.table[index].column(0)[0]
        raw = np.frombuffer(text.as_buffer() if text.is_valid else b"", np.uint8)[: self.max_length]
        item = {"x": torch.from_numpy(raw.astype(np.int64) + 1), "id": str(index)}
        return item if self.rows.labels is None else item | {"label": int(self.rows.labels[row])}


def pad(items: list[dict[str, Any]], *, multiple: int, most: int | None) -> dict[str, Any]:
    """A batch of rows of different lengths: "x" (B, N) padded with 0, "mask" (B, N) True at real positions."""
    length = padded_length(max(len(item["x"]) for item in items), multiple, most)
    x = torch.zeros(len(items), length, dtype=torch.int64)
    mask = torch.zeros(len(items), length, dtype=torch.bool)
    for row, item in enumerate(items):
        x[row, : len(item["x"])] = item["x"]
        mask[row, : len(item["x"])] = True
    batch: dict[str, Tensor | list[str]] = {"x": x, "mask": mask, "id": [item["id"] for item in items]}
    if "label" in items[0]:
        batch["label"] = torch.tensor([item["label"] for item in items])
    return batch


def _is_text(kind: Any) -> bool:
    return isinstance(kind, datasets.Value) and kind.dtype in ("string", "large_string", "binary", "large_binary")
