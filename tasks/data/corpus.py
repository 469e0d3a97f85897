"""Documents as token ids, any part of which is read in place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from tasks.data.tokens import Tokens

AT_ONCE = 100  # documents that are turned into tokens together


class Corpus:
    """The documents of a column as token ids.

    The table stays on disk, mapped into memory, and only what is read of a document is copied. Bytes are read from the
    table itself. For a tokenizer all documents are turned into ids once, which are kept in a file in the cache folder
    of `datasets`, 2 bytes a token (4 of a vocabulary above 65,536). A missing document is an empty one.

    Args:
        table: a row for each document.
        column: of strings or bytes.
        tokens: what turns a document into ids; None if its bytes are ids.
    """

    def __init__(self, table: datasets.Dataset, column: str, tokens: Tokens | None) -> None:
        self.tokens = tokens
        self._shift = 0 if tokens is None else 1
        self._bytes = tokens is None or tokens.tokenizer is None
        self._table = table.select_columns(column).with_format("arrow")
        if tokens is not None and not self._bytes:
            self._table = _tokenised(self._table, column, tokens)

    def __len__(self) -> int:
        return len(self._table)

    @cached_property
    def lengths(self) -> Int[np.ndarray, " documents"]:
        """Tokens of each document."""
        column = self._table[:].column(0)
        lengths = pc.binary_length(column) if self._bytes else pc.list_value_length(column)
        return pc.fill_null(lengths, 0).to_numpy().astype(np.int64)

    def read(self, index: int, begin: int = 0, end: int | None = None) -> Int[np.ndarray, " N"]:
        """Ids of a document from token `begin` to before `end`, or to its end; as many as there are."""
        cell: pa.Scalar = self._table[index].column(0)[0]
        if not self._bytes:
            return cell.values[begin:end].to_numpy().astype(np.int64)
        part = np.frombuffer(cell.as_buffer() if cell.is_valid else b"", np.uint8)[begin:end]
        return part.astype(np.int64) + self._shift


class Texts:
    """The documents of some rows, one at a time, as often as one likes; for the training of a tokenizer."""

    def __init__(self, table: datasets.Dataset, column: str, indices: np.ndarray) -> None:
        self.table, self.indices = table.select_columns(column).with_format("arrow"), indices

    def __iter__(self) -> Iterator[bytes]:
        for begin in range(0, len(self.indices), AT_ONCE):
            yield from _documents(self.table[self.indices[begin : begin + AT_ONCE]].column(0))


def _documents(column: Any) -> Iterator[bytes]:
    return (cell.as_buffer().to_pybytes() if cell.is_valid else b"" for cell in column)


def _tokenised(table: datasets.Dataset, column: str, tokens: Tokens) -> datasets.Dataset:
    """The table with one column, "ids", of lists of token ids."""
    kind = "uint16" if tokens.vocab_size <= 2**16 else "uint32"

    def encode(batch: pa.Table) -> pa.Table:
        ids = list(tokens.encode_all(_documents(batch.column(0))))
        ends = np.cumsum([0, *map(len, ids)])
        lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(np.concatenate(ids).astype(kind)))
        return pa.table({"ids": lists})

    # `datasets` would hash the function, which hashes a tokenizer by chance; what counts is what it does.
    named = f"{table._fingerprint} {column} {tokens.fingerprint}"
    fingerprint = hashlib.sha256(named.encode()).hexdigest()[:32]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "lambda_seq"
    folder.mkdir(parents=True, exist_ok=True)
    return table.map(
        encode,
        batched=True,
        batch_size=AT_ONCE,
        features=datasets.Features(ids=datasets.LargeList(datasets.Value(kind))),
        remove_columns=[column],
        new_fingerprint=fingerprint,
        cache_file_name=str(folder / f"tokens-{fingerprint}.arrow"),
        desc="Tokens",
    )
