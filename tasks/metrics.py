"""What a classification run is judged by; right for any number of processes, and for classes that do not occur."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DistributedSampler
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassStatScores,
)

BINS = 15  # of confidence, as in C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017
MATRIX_CLASSES = 1000  # most classes that a confusion matrix is counted for
FAST: dict[str, Any] = {"validate_args": False}  # the data module has checked the labels


def training_metrics(classes: int) -> MetricCollection:
    """Accuracy, and F1 as the mean over the classes that occur or are predicted; takes logits or probabilities."""
    return MetricCollection(_overall(classes), compute_groups=False)


def evaluation_metrics(classes: int) -> MetricCollection:
    """Those of training, and the expected calibration error in 15 bins; takes probabilities.

    The calibration error keeps two numbers for each row until the end of the split.
    """
    error = MulticlassCalibrationError(classes, n_bins=BINS, norm="l1", **FAST)
    return MetricCollection(_overall(classes) | {"calibration_error": error}, compute_groups=False)


def mean_loss() -> MeanMetric:
    """The mean of losses, each weighed by its rows: `update(loss, rows)`.

    The loss of an evaluation is logged by this, as Lightning's own mean rounds the number of rows of a process down if
    several have different ones.
    """
    # A loss that is no number stays one. Not "disable": torchmetrics 1.9 then takes all weights for 1.
    return MeanMetric(nan_strategy=float("nan"))


def report_metrics(classes: int) -> MetricCollection:
    """By class: "precision", "recall", "f1" and "scores"; "reliability"; up to 1,000 classes "confusion"."""
    metrics: dict[str, Metric | MetricCollection] = {
        "scores": MulticlassStatScores(classes, average="none", **FAST),  # (classes, 5): tp, fp, tn, fn, support
        "precision": MulticlassPrecision(classes, average="none", **FAST),
        "recall": MulticlassRecall(classes, average="none", **FAST),
        "f1": MulticlassF1Score(classes, average="none", **FAST),
        "reliability": Reliability(),
    }
    if classes <= MATRIX_CLASSES:
        metrics["confusion"] = MulticlassConfusionMatrix(classes, **FAST)
    # Said rather than found out by the first batch, so that a process without rows computes the same as all others
    counted = [["scores", "precision", "recall", "f1"], *([name] for name in ("reliability", "confusion"))]
    return MetricCollection(metrics, compute_groups=[group for group in counted if group[0] in metrics])


def _overall(classes: int) -> dict[str, Metric | MetricCollection]:
    return {
        "accuracy": MulticlassAccuracy(classes, average="micro", **FAST),
        "f1": MulticlassF1Score(classes, average="macro", **FAST),
    }


class Reliability(Metric):
    """How often predictions of some confidence are right, (BINS, 3): rows, sum of confidence, rows that are right.

    Confidence is the greatest probability; bins are equally wide from 0 to 1. Unlike a metric that keeps all rows, this
    takes the same memory for any number of them.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(BINS, 3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, probabilities: Float[Tensor, "B classes"], labels: Int[Tensor, " B"]) -> None:
        """Count a batch."""
        confidence, predicted = probabilities.max(-1)  # (B,), (B,)
        rows = torch.stack([torch.ones_like(confidence), confidence, (predicted == labels).to(confidence.dtype)], 1)
        bins = (confidence * BINS).long().clamp(0, BINS - 1)
        self.sums.index_add_(0, bins, rows.to(self.sums.dtype))

    def compute(self) -> Float[Tensor, "bins 3"]:
        """The sums so far."""
        return self.sums


def own_rows(module: LightningModule, batch_index: int, count: int) -> int:
    """How many of a batch's rows, from the first on, no other process has too.

    So that all processes take equally many steps, Lightning gives the first rows of a split again to processes that
    would end up with one row less. These repetitions stand at the end of the last batch and must not be counted.
    """
    trainer = module._trainer
    if trainer is None or trainer.world_size == 1:
        return count
    loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, list) else loaders
    sampler = getattr(loader, "sampler", None)
    if loader is None or not isinstance(sampler, DistributedSampler) or batch_index + 1 < len(loader):
        return count
    items = len(sampler.dataset)  # type: ignore[arg-type]
    last = sampler.total_size - sampler.num_replicas + sampler.rank  # place in the split of the batch's last item
    if last < items:
        return count
    return 0 if loader.batch_size == 1 else count - 1  # an item of its own may have many rows


def count_in(module: nn.Module, group: Any) -> None:
    """Let all metrics in a module add up over a process group, None for all processes."""
    for metric in module.modules():
        if isinstance(metric, Metric):
            metric.process_group = group
