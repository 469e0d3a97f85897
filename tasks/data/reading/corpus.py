"""Documents as token ids, any part of which is read in place."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from lambda_seq.inference.tokens import as_text
from lambda_seq.tasks.data.reading.cache import cached_table, in_batches
from lambda_seq.tasks.data.reading.text_files import file_names
from lambda_seq.tasks.data.reading.tokens import Tokens


class Corpus:
    """The documents of a column as token ids.

    The table stays on disk, mapped into memory, and only what is read of a document is copied. Bytes are read from the
    table itself. For words, or a tokenizer, all documents are turned into ids once, which are kept in a file in the
    cache folder of `datasets`, 2 bytes a token (4 of a vocabulary above 65,536), a few MiB of text at a time. A missing
    document is an empty one.

    Args:
        table: a row for each document.
        column: of strings or bytes.
        tokens: what turns a document into ids; None if its bytes are ids.
    """

    def __init__(self, table: datasets.Dataset, column: str, tokens: Tokens | None) -> None:
        self.tokens = tokens
        self._shift = 0 if tokens is None else 1
        self._bytes = tokens is None or tokens.kind == "bytes"
        self._table = table.select_columns(column).with_format("arrow")
        if tokens is not None and not self._bytes:
            self._table = _tokenised(self._table, column, tokens).with_format("arrow")

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
        self.table, self.column, self.indices = table, column, indices

    def __iter__(self) -> Iterator[bytes]:
        return _documents(self.table, self.column, self.indices)


class DecodedTexts:
    """The documents of a column as text, to be shown, each read when it is asked for.

    Attributes:
        names: of the files that they are, else numbers.
    """

    def __init__(self, table: datasets.Dataset, column: str) -> None:
        self.names = file_names(table) or [str(row) for row in range(len(table))]
        self._texts = table.select_columns(column).with_format("arrow")

    def __getitem__(self, row: int) -> str:
        cell: pa.Scalar = self._texts[row].column(0)[0]
        return as_text(cell.as_buffer().to_pybytes()) if cell.is_valid else ""


def sizes_of(table: datasets.Dataset, column: str) -> Int[np.ndarray, " documents"]:
    """Bytes of each document."""
    texts = table.select_columns(column).with_format("arrow")[:].column(0)
    return pc.fill_null(pc.binary_length(texts), 0).to_numpy().astype(np.int64)


def _documents(table: datasets.Dataset, column: str, indices: np.ndarray) -> Iterator[bytes]:
    """Texts of rows, of which no more than `AT_ONCE` bytes are copied together, or one that is longer."""
    sizes, texts = sizes_of(table, column), table.select_columns(column).with_format("arrow")
    for batch in in_batches(indices.tolist(), lambda index: int(sizes[index]) + 8):
        for cell in texts[batch].column(0):
            yield cell.as_buffer().to_pybytes() if cell.is_valid else b""


def _tokenised(table: datasets.Dataset, column: str, tokens: Tokens) -> datasets.Dataset:
    """The table with one column, "ids", of lists of token ids."""
    kind = "uint16" if tokens.vocab_size <= 2**16 else "uint32"
    features = datasets.Features(ids=datasets.LargeList(datasets.Value(kind)))

    def batches() -> Iterator[pa.Table]:
        every = tokens.encode_all(_documents(table, column, np.arange(len(table))))
        for batch in in_batches((ids.astype(kind) for ids in every), lambda ids: ids.nbytes):
            ends = np.cumsum([0, *map(len, batch)])
            lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(np.concatenate(batch)))
            yield pa.Table.from_arrays([lists.cast(features.arrow_schema.field(0).type)], schema=features.arrow_schema)

    # Private to datasets: what its own caches are named by; a hash of all rows would read them
    return cached_table("tokens", [table._fingerprint, column, tokens.fingerprint], features.arrow_schema, batches)
