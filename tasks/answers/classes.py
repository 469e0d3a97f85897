"""One class of several."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from lambda_seq.models.heads import Classes, Objective
from lambda_seq.tasks.answers.base import Answer, Told, Weights, of_numbers, weights
from lambda_seq.tasks.metrics import evaluation_metrics, report_metrics, training_metrics
from lambda_seq.tasks.predictions.tables import ClassTable


class OneClass(Answer):
    """Cross entropy; accuracy, F1 and the calibration error; a confusion matrix.

    Weights that are "balanced" are rows / (classes · rows of the class), whose mean over the training rows is 1.
    """

    head = "classes"
    monitor = ("val/accuracy", "max")
    compared = "accuracy"
    right_or_wrong = True
    worst = (
        "The surest mistakes",
        "All wrong answers of the {split} split",
        "The {kept} wrong answers of the {split} split with the greatest probability",
    )

    def objective(self, label_smoothing: float, class_weight: Weights | None, huber: float | None) -> Objective:
        """Cross entropy with label smoothing and weights."""
        of_numbers(huber)
        counts, balanced = self.facts.target.counts, None
        if counts:
            balanced = [sum(counts) / (len(counts) * max(count, 1)) for count in counts]
        return Classes(label_smoothing=label_smoothing, weight=weights(class_weight, self.names, balanced))

    def metrics(self, stage: str) -> MetricCollection:
        """Accuracy and F1, and of validation and test the calibration error."""
        return (training_metrics if stage == "train" else evaluation_metrics)(len(self.names))

    def report_metrics(self) -> MetricCollection:
        """Precision, recall, F1 and the confusion matrix."""
        return report_metrics(len(self.names))

    def evaluated(self, answers: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Probabilities (B, classes) and class numbers (B,)."""
        return {"probabilities": answers, "labels": labels}

    def counted(self, target: Tensor) -> Tensor:
        """The class of the greatest share."""
        return target.argmax(-1)

    def predicted(self, answers: Tensor) -> dict[str, Tensor]:
        """Probabilities (B, classes)."""
        return {"probabilities": answers}

    def mistakes(self, found: Mapping[str, Tensor]) -> Tensor:
        """How probable the wrong class is; and of the row's class how probable it is, and which."""
        chances, labels = found["probabilities"].float(), found["labels"]
        surest, answers = chances.max(-1)  # (B,), (B,)
        own = chances.gather(1, labels[:, None])[:, 0]
        wrong = torch.where(answers != labels, surest, -torch.inf)
        return torch.stack([wrong, answers.float(), torch.ones_like(own), own, labels.float()], 1)

    def told(self, worst: float, place: int, sign: float, first: float, second: float) -> Told:
        """Both classes with their probabilities."""
        return Told(self.names[place], f"{worst:.1%}", self.names[int(second)], f"{first:.1%}")

    def table(self) -> ClassTable:
        """The likeliest class, and a column for each."""
        return ClassTable(self.names)
