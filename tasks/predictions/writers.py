"""Kinds of files with predictions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lambda_seq.tasks.checkpointing.storage import PARTIAL


class Writer(Protocol):
    """Writes rows of a table."""

    def __init__(self, file: Path, columns: dict[str, str]) -> None: ...

    def write(self, rows: list[list[Any]]) -> None:
        """Append rows."""

    def close(self) -> None:
        """Finish the file."""


class CsvWriter:
    """Rows as comma-separated values with a header."""

    def __init__(self, file: Path, columns: dict[str, str]) -> None:
        self.stream = file.open("w", encoding="utf-8", newline="")
        self.writer = csv.writer(self.stream)
        self.writer.writerow(columns)

    def write(self, rows: list[list[Any]]) -> None:
        """Append rows."""
        self.writer.writerows(rows)

    def close(self) -> None:
        """Finish the file."""
        self.stream.close()


class JsonlWriter:
    """Rows as one JSON object per line."""

    def __init__(self, file: Path, columns: dict[str, str]) -> None:
        self.stream, self.columns = file.open("w", encoding="utf-8"), list(columns)

    def write(self, rows: list[list[Any]]) -> None:
        """Append rows."""
        for row in rows:
            self.stream.write(json.dumps(dict(zip(self.columns, row, strict=True)), ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Finish the file."""
        self.stream.close()


class ParquetWriter:
    """Rows as parquet."""

    def __init__(self, file: Path, columns: dict[str, str]) -> None:
        self.schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
        self.writer = pq.ParquetWriter(file, self.schema)

    def write(self, rows: list[list[Any]]) -> None:
        """Append rows."""
        columns = [
            pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), self.schema.types, strict=True)
        ]
        self.writer.write_table(pa.Table.from_arrays(columns, schema=self.schema))

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()


class ConllWriter:
    """A line for each word with its true label, where it is known, and the predicted one; an empty line behind a text.

    Raises:
        ValueError: rows are no texts with words.
    """

    def __init__(self, file: Path, columns: dict[str, str]) -> None:
        if "words" not in columns:
            raise ValueError(
                f"predictions.path={file.name.removesuffix(PARTIAL)!r}: is for labels of words, and there are none; "
                f"expected {', '.join(kind for kind in WRITERS if kind != CONLL)}"
            )
        self.stream, self.columns = file.open("w", encoding="utf-8"), list(columns)

    def write(self, rows: list[list[Any]]) -> None:
        """Append rows."""
        for row in rows:
            cells = dict(zip(self.columns, row, strict=True))
            names = [name for name in ("words", "label", "prediction") if cells.get(name)]
            for words in zip(*(json.loads(cells[name]) for name in names), strict=True):
                self.stream.write("\t".join("" if word is None else word for word in words) + "\n")
            self.stream.write("\n")

    def close(self) -> None:
        """Finish the file."""
        self.stream.close()


CONLL = ".conll"
WRITERS: dict[str, type[Writer]] = {
    ".csv": CsvWriter,
    ".jsonl": JsonlWriter,
    ".parquet": ParquetWriter,
    CONLL: ConllWriter,
}
