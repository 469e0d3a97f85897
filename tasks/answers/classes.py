"""One class of several."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import MetricCollection

from lambda_seq.models.heads import Classes, Objective
from lambda_seq.tasks.answers.base import Answer, Weights, of_numbers, weights
from lambda_seq.tasks.metrics import evaluation_metrics, report_metrics, training_metrics
from lambda_seq.tasks.predictions.tables import ClassTable


class OneClass(Answer):
    """Cross entropy; accuracy, F1 and the calibration error; a confusion matrix.

    Weights that are "balanced" are rows / (classes · rows of the class), whose mean over the training rows is 1.
    """

    head = "classes"
    monitor = ("val/accuracy", "max")
    compared = "accuracy"

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

    def table(self) -> ClassTable:
        """The likeliest class, and a column for each."""
        return ClassTable(self.names)
