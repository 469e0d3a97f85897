"""Reports after validate and test: each class's figures as a table, and a picture of what is mistaken for what."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics import MetricCollection

from lambda_seq.models.heads import IGNORED
from lambda_seq.tasks.callbacks.pictures import draw_confusion
from lambda_seq.tasks.metrics import count_in

COLUMNS = ("label", "precision", "recall", "f1", "support")
PRINTED = 40  # most classes in the printed table; of more, those with the smallest F1


class Reports(Callback):
    """Reports on classes after `validate`, `test` and the test that ends a fit; nothing is counted while training.

    Writes val_report.csv and test_report.csv with precision, recall, F1 and support (the number of rows) of each class,
    the same as .json with all metrics and the confusion matrix, and val_confusion_matrix.png, test_confusion_matrix.png
    with a reliability diagram beside the matrix. A figure that is not defined is left empty: the precision of a class
    that is never predicted, the recall of one that does not occur.

    Args:
        table: whether to print the table of classes.
        files: whether to write .csv and .json.
        picture: whether to draw the confusion matrix and the reliability diagram.
        folder: where to; default: OUTPUT_DIR.

    Attributes:
        newest: the report of the last validation or test, see `summarise`; None before one, or without classes.
    """

    def __init__(self, table: bool = True, files: bool = True, picture: bool = True, folder: str | None = None) -> None:
        self.table, self.files, self.picture, self.folder = table, files, picture, folder
        self.newest: dict[str, Any] | None = None
        self._metrics: MetricCollection | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, if this is no validation within a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._begin(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin(pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        """Count a batch."""
        self._count(outputs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any) -> None:
        """Count a batch."""
        self._count(outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report."""
        self._end(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report."""
        self._end(trainer, pl_module, "test")

    def _begin(self, module: LightningModule) -> None:
        counted = getattr(module, "report_metrics", None)  # which only tasks have that tell classes apart
        metrics = None if counted is None else counted()
        self._metrics = None if metrics is None else metrics.to(module.device)
        if self._metrics is not None:
            count_in(self._metrics, getattr(module.trainer.strategy, "data_group", None))

    def _count(self, outputs: Any) -> None:
        if self._metrics is not None and len(outputs["labels"]):
            answers, labels = outputs["probabilities"], outputs["labels"]
            if answers.ndim == 3:  # of words, (B, words, classes)
                known = labels != IGNORED
                answers, labels = answers[known], labels[known]
            self._metrics.update(answers, labels)

    def _end(self, trainer: Trainer, module: LightningModule, split: str) -> None:
        if self._metrics is None:
            return
        found, self._metrics = self._metrics.compute(), None  # from all processes
        metrics = {
            name.partition("/")[2]: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{split}/")
        }
        report = self.newest = summarise(found, module.labels, split, metrics)  # type: ignore[arg-type]
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.table:
            Console().print(as_table(report))
        if self.folder is None or not (self.files or self.picture):
            return
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.files:
            write(report, folder)
        if self.picture and "confusion_matrix" in report:
            picture = folder / f"{split}_confusion_matrix.png"
            draw_confusion(report["confusion_matrix"], module.labels, report["reliability"], picture)  # type: ignore[arg-type]


def summarise(
    found: dict[str, Tensor], labels: list[str], split: str, metrics: dict[str, float] | None = None
) -> dict[str, Any]:
    """The report as primitives.

    Args:
        found: what `tasks.metrics.report_metrics` computed, or the same of several labels.
        labels: names of the classes, or labels.
        split: "val" or "test".
        metrics: figures of the whole split, such as its accuracy.

    Returns:
        "split", "rows", "metrics", "classes" (for each: label, precision, recall, f1, support; None is undefined),
        "reliability" (for each bin of confidence: rows, confidence, accuracy; None without rows; no bins of several
        labels), and "confusion_matrix" (rows: classes; columns: predictions) unless there are too many classes for it,
        or several labels.
    """
    classes = []
    for index, label in enumerate(labels):
        right, wrong, _, missed, support = (int(count) for count in found["scores"][index])
        precision, recall, f1 = (float(found[name][index]) for name in ("precision", "recall", "f1"))
        classes.append(
            {
                "label": label,
                "precision": precision if right + wrong else None,
                "recall": recall if support else None,
                "f1": f1 if right + wrong + missed else None,
                "support": support,
            }
        )
    reliability = [
        {"rows": int(rows), "confidence": confidence / rows, "accuracy": correct / rows}
        if rows
        else {"rows": 0, "confidence": None, "accuracy": None}
        for rows, confidence, correct in (found["reliability"].tolist() if "reliability" in found else ())
    ]
    report: dict[str, Any] = {
        "split": split,
        "rows": int(found["scores"][0, :4].sum()),  # of any class: right, wrong, rightly not, missed
        "metrics": metrics or {},
        "classes": classes,
        "reliability": reliability,
    }
    if "confusion" in found:
        report["confusion_matrix"] = found["confusion"].tolist()
    return report


def write(report: dict[str, Any], folder: Path) -> None:
    """Write SPLIT_report.csv, a line for each class, and SPLIT_report.json, with all there is."""
    stem = folder / f"{report['split']}_report"
    with stem.with_suffix(".csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(report["classes"])  # None becomes an empty cell
    stem.with_suffix(".json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def as_table(report: dict[str, Any]) -> Table:
    """The classes as a table to print; of more than 40, those with the smallest F1."""
    shown = report["classes"]
    title = f"{report['split']}: {len(shown)} classes, {report['rows']} rows"
    if len(shown) > PRINTED:
        occurring = [row for row in shown if row["f1"] is not None]
        shown = sorted(occurring, key=lambda row: row["f1"])[:PRINTED]
        title += f"; the {len(shown)} with the smallest F1"
    table = Table(title=title, title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "label" else "right")
    for row in shown:
        figures = ("–" if row[name] is None else f"{row[name]:.3f}" for name in ("precision", "recall", "f1"))
        table.add_row(_plain(row["label"]), *figures, str(row["support"]))
    return table


def _plain(label: str) -> str:
    """A class name in which rich sees no markup."""
    return label.replace("[", "\\[")
