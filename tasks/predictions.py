"""Predictions as a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter


class Writer(Protocol):
    """Writes rows of (id, prediction, probability, probability, …)."""

    def __init__(self, file: Path, columns: list[str]) -> None: ...

    def write(self, rows: list[list[Any]]) -> None:
        """Append rows."""

    def close(self) -> None:
        """Finish the file."""


class CsvWriter:
    """Rows as comma-separated values with a header."""

    def __init__(self, file: Path, columns: list[str]) -> None:
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

    def __init__(self, file: Path, columns: list[str]) -> None:
        self.stream, self.columns = file.open("w", encoding="utf-8"), columns

    def write(self, rows: list[list[Any]]) -> None:
        """Append rows."""
        for row in rows:
            self.stream.write(json.dumps(dict(zip(self.columns, row, strict=True)), ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Finish the file."""
        self.stream.close()


class ParquetWriter:
    """Rows as parquet: strings, and probabilities in 32 bits."""

    def __init__(self, file: Path, columns: list[str]) -> None:
        kinds = [pa.string(), pa.string(), *[pa.float32()] * (len(columns) - 2)]
        self.schema = pa.schema(list(zip(columns, kinds, strict=True)))
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


WRITERS: dict[str, type[Writer]] = {".csv": CsvWriter, ".jsonl": JsonlWriter, ".parquet": ParquetWriter}


class PredictionFile(BasePredictionWriter):
    """Writes a row for each prediction: id, prediction (the likeliest class), and the probability of each class.

    The id is the file of an image that has one, otherwise the number of the row. The columns are `id`, `prediction`
    and, for each class, `probability: CLASS`.

    Args:
        path: file to write, ending in .csv, .jsonl or .parquet; default: OUTPUT_DIR/predictions.csv.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(write_interval="batch")
        if path is not None and Path(path).suffix not in WRITERS:
            raise ValueError(f"predictions.path={path!r}: unknown kind of file; expected {', '.join(WRITERS)}")
        self.path = path
        self.count = 0
        self._writer: Writer | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a file beside the final one, which takes its place when all is written."""
        if self.path is None:
            raise ValueError("predictions.path: none given; name a file to write")
        target = Path(self.path)
        if trainer.world_size > 1:
            target = target.with_stem(f"{target.stem}-{trainer.global_rank}")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._target, self._partial = target, target.with_name(target.name + ".partial")
        self._labels: list[str] = pl_module.labels  # type: ignore[assignment]
        columns = ["id", "prediction", *(f"probability: {label}" for label in self._labels)]
        self._writer, self.count = WRITERS[target.suffix](self._partial, columns), 0

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the rows of a batch."""
        probabilities = prediction["probabilities"]  # (B, classes)
        best = probabilities.argmax(-1).tolist()
        rows = [
            [name, self._labels[index], *row]
            for name, index, row in zip(prediction["id"], best, probabilities.tolist(), strict=True)
        ]
        self.count += len(rows)
        if self._writer is not None:
            self._writer.write(rows)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the file, put it in its place and name it."""
        self._close()
        self._partial.replace(self._target)
        print(f"{self.count} predictions: {self._target}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close what was begun."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
