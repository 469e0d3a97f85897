"""Predictions as a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from lambda_seq.tasks.checkpointing.storage import PARTIAL
from lambda_seq.tasks.locks import lock
from lambda_seq.tasks.predictions.sheet import Sheet
from lambda_seq.tasks.predictions.tables import AnswerTable, ClassTable, Table
from lambda_seq.tasks.predictions.writers import WRITERS, Writer


class PredictionFile(BasePredictionWriter):
    """Writes a row for each prediction.

    The id is the file of an image or text that has one, otherwise the number of the row. Of classification the columns
    are `id`, `input` (the text, or the path of the file), `label` (the true one, if there is a column of such),
    `prediction` (the likeliest class, or of several labels those of probability 1/2 or more, as a JSON list) and, for
    each class or label, `probability: CLASS`; of labels of words `words`, `prediction` and `spans`, as JSON lists; of
    language modelling `id`, `tokens`, `bytes`, `loss` (nats per token) and `bits_per_byte`. Of pictures a contact sheet
    is drawn beside the file, as PNG, of those that the network is most and least certain of.

    Args:
        path: file to write, ending in .csv, .jsonl or .parquet, or of labels of words in .conll; default:
            OUTPUT_DIR/predictions.csv.
        sheet: pictures of each kind on the contact sheet; 0 for no sheet.
    """

    def __init__(self, path: str | None = None, sheet: int = 16) -> None:
        super().__init__(write_interval="batch")
        if sheet < 0:
            raise ValueError(f"predictions.sheet={sheet}: expected a number of pictures, at least 0")
        if path is not None and Path(path).suffix.lower() not in WRITERS:
            raise ValueError(f"predictions.path={path!r}: unknown kind of file; expected {', '.join(WRITERS)}")
        self.path, self.sheet = path, Sheet(sheet)
        self.count = 0
        self._broken: list[str] = []  # ids of predictions that are not finite
        self._writer: Writer | None = None
        self._locked: IO[str] | None = None  # the file that is written, for no other process

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a file beside the final one, which takes its place when all is written.

        Raises:
            ValueError: no path, or another prediction writes there.
        """
        if self.path is None:
            raise ValueError("predictions.path: none given; name a file to write")
        if not getattr(trainer.strategy, "leads", True):  # another process writes the same rows
            return
        target = Path(self.path)
        share = trainer.distributed_sampler_kwargs
        if share is not None and share["num_replicas"] > 1:
            target = target.with_stem(f"{target.stem}-{share['rank']}")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._target, self._partial = target, target.with_name(target.name + PARTIAL)
        self._lock()
        own = getattr(pl_module, "prediction_table", None)
        self._table: Table = ClassTable(pl_module.labels) if own is None else own()  # type: ignore[arg-type]
        by_row = isinstance(self._table, ClassTable | AnswerTable)
        self._known = getattr(getattr(trainer, "datamodule", None), "known", None) if by_row else None
        columns = dict(self._table.columns)
        if self._known is not None:
            columns = {"id": columns.pop("id"), **dict.fromkeys(self._known.columns, "string"), **columns}
        self._writer, self.count = WRITERS[target.suffix.lower()](self._partial, columns), 0
        self.sheet, self._broken = Sheet(self.sheet.most), []

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
        if self._writer is None:
            return
        self._broken += broken(prediction)
        rows = self._table.rows(prediction)
        if self._known is not None:
            rows = [[name, *self._known.of(name), *row] for name, *row in rows]
        self._write(rows)
        if type(self._table) is ClassTable:  # of several labels none is the surest
            self.sheet.add(batch, prediction, self._table.labels)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the file, put it in its place and name it."""
        if self._writer is None:
            return
        self._write(self._table.rest())
        self._finish()
        self._partial.replace(self._target)
        self._close()
        print(f"{self.count} predictions: {self._target}")
        if self._broken:
            print(
                f"warning: {len(self._broken)} predictions hold numbers that are not finite, the first is that of "
                f"{self._broken[0]}; check the data for NaN, or compute with --trainer.precision 32-true",
                file=sys.stderr,
            )
        if self.sheet.draw(self._target.with_suffix(".png")):
            print(f"contact sheet: {self._target.with_suffix('.png')}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close what was begun."""
        self._close()

    def _write(self, rows: list[list[Any]]) -> None:
        self.count += len(rows)
        if rows and self._writer is not None:
            self._writer.write(rows)

    def _lock(self) -> None:
        """Let no other process write this file."""
        self._locked = self._partial.open("a", encoding="utf-8")
        try:
            lock(self._locked)
        except BlockingIOError as error:
            self._close()
            raise ValueError(
                f"predictions.path: another prediction is writing {self._target}; wait for its end, or give another "
                "path with --predictions.path"
            ) from error
        except OSError:  # a system or a file system without locks
            self._close()

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _close(self) -> None:
        self._finish()
        if self._locked is not None:
            self._locked.close()
        self._locked = None


def broken(prediction: dict[str, Any]) -> list[str]:
    """Ids of the rows of a batch in which a number is not finite."""
    numbers = [part for part in prediction.values() if isinstance(part, Tensor) and part.is_floating_point()]
    finite = [part.reshape(len(part), -1).isfinite().all(-1).tolist() for part in numbers]
    return [name for name, *each in zip(prediction["id"], *finite, strict=True) if not all(each)]
