"""Any of several labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
    MultilabelStatScores,
)
from torchmetrics.utilities import dim_zero_cat

from lambda_seq.models.heads import Labels, Objective
from lambda_seq.tasks.answers.base import Answer, Told, Weights, of_numbers, weights
from lambda_seq.tasks.metrics import FAST
from lambda_seq.tasks.predictions.tables import LabelTable


class SeveralLabels(Answer):
    """Binary cross entropy of each label; F1, average precision, and rows whose labels are all right.

    A label is answered if its probability is at least 1/2. Weights are of rows that have the label; those that are
    "balanced" are rows without the label / rows with it.
    """

    head = "labels"
    monitor = ("val/f1", "max")
    compared = "f1"
    worst = (
        "The surest mistakes",
        "Of each row of the {split} split with a wrong answer the surest",
        "The {kept} rows of the {split} split with the surest wrong answers",
    )

    def objective(self, label_smoothing: float, class_weight: Weights | None, huber: float | None) -> Objective:
        """Binary cross entropy with label smoothing and weights."""
        of_numbers(huber)
        counts, rows, balanced = self.facts.target.counts, self.facts.target.rows, None
        if counts and rows:
            balanced = [(rows - count) / max(count, 1) for count in counts]
        return Labels(label_smoothing=label_smoothing, weight=weights(class_weight, self.names, balanced))

    def metrics(self, stage: str) -> MetricCollection:
        """F1 as the mean over labels and over all answers, exact matches, and but in training average precision."""
        labels = len(self.names)
        metrics: dict[str, Metric | MetricCollection] = {
            "f1": MultilabelF1Score(labels, average="macro", **FAST),
            "f1_micro": MultilabelF1Score(labels, average="micro", **FAST),
            "exact_match": MultilabelExactMatch(labels, **FAST),
        }
        if stage != "train":  # it keeps all answers
            metrics["average_precision"] = AveragePrecision(labels, average="none", **FAST)
        return MetricCollection(metrics, compute_groups=False)

    def report_metrics(self) -> MetricCollection:
        """By label: precision, recall and F1."""
        labels = len(self.names)
        return MetricCollection(
            {
                "scores": MultilabelStatScores(labels, average="none", **FAST),  # (labels, 5): tp, fp, tn, fn, support
                "precision": MultilabelPrecision(labels, average="none", **FAST),
                "recall": MultilabelRecall(labels, average="none", **FAST),
                "f1": MultilabelF1Score(labels, average="none", **FAST),
            },
            compute_groups=[["scores", "precision", "recall", "f1"]],
        )

    def evaluated(self, answers: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Probabilities and 0 or 1 (B, labels)."""
        return {"probabilities": answers, "labels": labels}

    def counted(self, target: Tensor) -> Tensor:
        """Labels whose share is more than half."""
        return (target > 0.5).to(target.dtype)

    def predicted(self, answers: Tensor) -> dict[str, Tensor]:
        """Probabilities (B, labels)."""
        return {"probabilities": answers}

    def mistakes(self, found: Mapping[str, Tensor]) -> Tensor:
        """How probable the surest of a row's wrong answers is, a label or that it is not there."""
        chances, labels = found["probabilities"].float(), found["labels"]
        answered = chances >= 0.5
        sure = torch.where(answered, chances, 1 - chances)
        wrong = torch.where((answered != (labels > 0.5)) & ~chances.isnan(), sure, -torch.inf)
        worst, place = wrong.max(-1)
        sign = torch.where(answered.gather(1, place[:, None])[:, 0], 1.0, -1.0)
        return torch.stack([worst, place.float(), sign, 1 - worst, torch.zeros_like(worst)], 1)

    def told(self, worst: float, place: int, sign: float, first: float, second: float) -> Told:
        """The label that is answered and is not there, or the other way round."""
        there, missing = self.names[place], f"no {self.names[place]}"
        answer, label = (there, missing) if sign > 0 else (missing, there)
        return Told(answer, f"{worst:.1%}", label, f"{first:.1%}")

    def table(self) -> LabelTable:
        """The labels that are answered, and a column for each."""
        return LabelTable(self.names)


class AveragePrecision(MultilabelAveragePrecision):
    """The mean average precision of the labels that occur; not a number if none does."""

    def sync(self, *given: Any, **options: Any) -> None:
        """As of all metrics, also on a process that has no rows, with which the others could not be put together."""
        if not self.preds:
            self.preds = [torch.zeros(0, self.num_labels, device=self.device)]
            self.target = [torch.zeros(0, self.num_labels, dtype=torch.long, device=self.device)]
        super().sync(*given, **options)

    def compute(self) -> Tensor:  # type: ignore[override]  # as torchmetrics' own, whose parent gives curves
        """Of all rows so far."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of labels that do not occur, which are left out
            each: Tensor = super().compute()  # (labels,)
        return each[(dim_zero_cat(self.target) == 1).any(0)].mean()
