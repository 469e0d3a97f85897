"""Predictions as a file."""

from __future__ import annotations

import csv
import heapq
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from lambda_seq.inference.answers import THRESHOLD, Prediction, tagged
from lambda_seq.inference.tagging import has_entities
from lambda_seq.tasks.callbacks.pictures import Shown, draw_sheet
from lambda_seq.tasks.checkpointing.storage import PARTIAL
from lambda_seq.tasks.locks import lock


class Table(Protocol):
    """What a task's predictions look like in a file.

    Attributes:
        columns: type of each, "string", "int64" or "float32".
    """

    columns: dict[str, str]

    def rows(self, prediction: Any) -> list[list[Any]]:
        """The rows that what `predict_step` returned makes complete."""

    def rest(self) -> list[list[Any]]:
        """The rows that are still to be written when there are no more predictions."""


class ClassTable:
    """A row for each prediction: id, the likeliest class, and the probability of each class.

    Of probabilities that are no numbers none is likeliest, and the row names no class.

    Args:
        labels: names of the classes.
    """

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels
        self.columns = {"id": "string", "prediction": "string"} | {
            f"probability: {label}": "float32" for label in labels
        }

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", names, and "probabilities" (B, classes)."""
        probabilities = prediction["probabilities"]
        columns = (probabilities.argmax(-1).tolist(), probabilities.isnan().any(-1).tolist(), probabilities.tolist())
        return [
            [name, None if nan else self.labels[index], *row]
            for name, index, nan, row in zip(prediction["id"], *columns, strict=True)
        ]

    def rest(self) -> list[list[Any]]:
        """Nothing."""
        return []


class LabelTable(ClassTable):
    """A row for each prediction: id, the labels of probability 1/2 or more as a JSON list, and that of each label."""

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", names, and "probabilities" (B, labels)."""
        return [
            [name, None if any(map(math.isnan, row)) else json.dumps(self._above(row), ensure_ascii=False), *row]
            for name, row in zip(prediction["id"], prediction["probabilities"].tolist(), strict=True)
        ]

    def _above(self, row: list[float]) -> list[str]:
        return [label for label, chance in zip(self.labels, row, strict=True) if chance >= THRESHOLD]


class AnswerTable:
    """A row for each prediction: id, and the answer as JSON, a number or lists of numbers."""

    def __init__(self) -> None:
        self.columns = {"id": "string", "answer": "string"}

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", names, and "answers" (B, …)."""
        answers = prediction["answers"].tolist()
        return [[name, json.dumps(answer)] for name, answer in zip(prediction["id"], answers, strict=True)]

    def rest(self) -> list[list[Any]]:
        """Nothing."""
        return []


class TagTable(AnswerTable):
    """A row for each text: id, its words, their likeliest labels, and entities, as JSON lists.

    Words are as they stand in the text; entities, of labels such as "B-…" and "I-…", have "text", "start", "end",
    "label" and "probability".

    Args:
        labels: their names.
    """

    def __init__(self, labels: list[str]) -> None:
        self.labels, self.entities = labels, has_entities(labels)
        self.columns = dict.fromkeys(("id", "words", "prediction", *(["spans"] if self.entities else [])), "string")

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", names, "probabilities" (B, words, labels), "words" (B,) and their "texts"."""
        found = zip(prediction["id"], prediction["probabilities"], prediction["words"].tolist(), strict=True)
        rows = []
        for (name, chances, count), text in zip(found, prediction["texts"].marked, strict=True):
            one = tagged(name, text, chances[:count].float().cpu().numpy(), self.labels)
            rows.append([name, *tag_cells(one).values()])
        return rows


def tag_cells(answer: Prediction) -> dict[str, str]:
    """What a file has of an answer to a text's words, by column."""
    parts: dict[str, Any] = {"words": [word.text for word in answer.words or ()], "prediction": answer.labels}
    if answer.spans is not None:
        parts["spans"] = [vars(span) | {"probability": round(span.probability, 4)} for span in answer.spans]
    return {name: json.dumps(part, ensure_ascii=False) for name, part in parts.items()}


class NumberTable(AnswerTable):
    """A row for each prediction: id, and each number, in a column "prediction", or of several "prediction: NAME".

    Args:
        names: of the numbers.
    """

    def __init__(self, names: list[str]) -> None:
        self.columns = {"id": "string"} | dict.fromkeys(number_columns(dict.fromkeys(names, 0.0)), "float32")

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", names, and "answers" (B, numbers)."""
        return [[name, *row] for name, row in zip(prediction["id"], prediction["answers"].tolist(), strict=True)]


def number_columns(numbers: Mapping[str, float]) -> dict[str, float]:
    """Numbers by the names of their columns."""
    if len(numbers) == 1:
        return dict(zip(["prediction"], numbers.values(), strict=True))
    return {f"prediction: {name}": value for name, value in numbers.items()}


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


class Sheet:
    """The pictures that predictions are most and least certain of, by the probability of the likeliest class.

    Args:
        most: pictures of each kind.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._certain: list[tuple[float, int, Shown]] = []  # a heap of the `most` greatest
        self._uncertain: list[tuple[float, int, Shown]] = []
        self._count = 0

    def add(self, batch: Any, prediction: dict[str, Any], labels: list[str]) -> None:
        """Look through a batch; one that holds no pictures is passed by."""
        pixels = batch.get("x") if isinstance(batch, dict) else None
        if not self.most or not isinstance(pixels, Tensor) or pixels.ndim != 4 or pixels.dtype != torch.uint8:
            return
        chances = prediction["probabilities"].float()
        values, classes = (found.tolist() for found in chances.max(-1))
        for row, (value, best) in enumerate(zip(values, classes, strict=True)):
            self._count += 1
            if math.isnan(value):
                continue  # which is neither certain nor uncertain
            for heap, rank in ((self._certain, value), (self._uncertain, -value)):
                if len(heap) < self.most or rank > heap[0][0]:
                    picture = pixels[row].movedim(0, -1).cpu().numpy()
                    shown = Shown(picture, Path(prediction["id"][row]).name, labels[best], value)
                    entry = (rank, -self._count, shown)  # of equal ones the first
                    (heapq.heappush if len(heap) < self.most else heapq.heapreplace)(heap, entry)

    def draw(self, path: Path) -> bool:
        """Draw, if there are pictures, and say whether there are."""
        if not self._certain:
            return False
        groups = {
            title: [shown for *_, shown in sorted(heap, reverse=True)]
            for title, heap in (("Most certain", self._certain), ("Least certain", self._uncertain))
        }
        draw_sheet(groups, path)
        return True
