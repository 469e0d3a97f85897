"""What a run is judged by: sums in float64, right for any batches and processes, and for classes that do not occur."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DistributedSampler
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassStatScores,
)

from lambda_seq.tasks.trainers import trainer_of

Values = Tensor | np.ndarray | Sequence[float] | float
BINS = 15  # of confidence, as in C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017
MATRIX_CLASSES = 1000  # most classes that a confusion matrix is counted for
FAST: dict[str, Any] = {"validate_args": False}  # the data module has checked the labels
LESS = ("loss", "error", "perplexity", "bits_per_byte", "mae", "rmse")  # figures of which less is better end so


def direction(name: str) -> int:
    """1 if more of a figure is better, −1 if less is, such as of val/loss."""
    return -1 if name.endswith(LESS) else 1


def training_metrics(classes: int) -> MetricCollection:
    """Accuracy, and F1 as the mean over the classes that occur or are predicted; takes logits or probabilities."""
    return MetricCollection(_overall(classes), compute_groups=False)


def evaluation_metrics(classes: int) -> MetricCollection:
    """Those of training, and the expected calibration error in 15 bins; takes probabilities."""
    return MetricCollection(_overall(classes) | {"calibration_error": CalibrationError()}, compute_groups=False)


def mean_loss() -> Mean:
    """The mean of losses, each weighed by its rows: `update(loss, rows)`.

    Losses are logged by this, as Lightning's own mean sums up in float32, and rounds the number of rows of a process
    down if several have different ones.
    """
    return Mean()


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


class Exact(Metric):
    """A metric whose sums are float64, whatever precision its module has or is brought to.

    In float32 a sum of 200,000 terms is off by 1e-3, and in the half precisions of bf16-true and 16-true by all of it.
    On devices that have no float64 the sums stay on the CPU.
    """

    full_state_update = False

    def add_state(self, name: str, default: Any, *args: Any, **options: Any) -> None:
        """As of all metrics; numbers become float64."""
        if isinstance(default, Tensor) and default.is_floating_point():
            default = default.double()
        super().add_state(name, default, *args, **options)

    # Private to torch and torchmetrics: through it metrics follow their module to a device and a dtype, and their
    # `_defaults` with them; `set_dtype` alone is public, and called by nobody when a module is cast.
    def _apply(self, fn: Callable, exclude_state: Sequence[str] = "") -> nn.Module:
        """Follow the module to its device, but not to its dtype."""
        super()._apply(fn, exclude_state=[*exclude_state, *self._defaults])
        device = exact_device(self.device)
        for states in (self._defaults, self.__dict__):
            for name in self._defaults:
                states[name] = moved(states[name], device)
        return self


class Mean(Exact):
    """Σ value · weight / Σ weight over all updates; not a number if any value is none, or nothing has a weight."""

    mean_value: Tensor  # Σ value · weight; the names are those of torchmetrics' MeanMetric
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean_value", "weight"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, value: Values, weight: Values = 1.0) -> None:
        """Add a value, such as the mean loss of a batch, with its weight, such as the number of rows; or many."""
        values, weights = torch.broadcast_tensors(*(exact(given, self.weight.device) for given in (value, weight)))
        self.mean_value += (values * weights).sum()
        self.weight += weights.sum()

    def compute(self) -> Tensor:
        """The mean so far."""
        return self.mean_value / self.weight


class TrainingLoss(Mean):
    """The mean loss of an epoch of training, which logs with each step what `show` was given."""

    def show(self, value: Tensor) -> None:
        """Let this be the loss of the step."""
        # Private to torchmetrics: what Lightning logs of a metric with each step, here that of all processes
        self._forward_cache: Any = value


def exact_device(device: torch.device) -> torch.device:
    """The device, or the CPU if it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def exact(value: Values, device: torch.device) -> Tensor:
    """A value, or many as a tensor, an array or a list, in float64, on a device that has it."""
    if isinstance(value, int | float):
        return torch.full((), value, dtype=torch.float64, device=device)  # on the device, which is not waited for
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=torch.float64, device=device)
    return value.detach().to(device).double()


def moved(state: Any, device: torch.device) -> Tensor:
    """A state on another device; zeros, if it had no memory before."""
    return torch.zeros_like(state, device=device) if state.is_meta else state.to(device)


def full(logits: Tensor) -> Tensor:
    """Logits in float32, or float64 if that is what they are, for losses to be computed with."""
    return logits if logits.dtype == torch.float64 else logits.float()


class Reliability(Exact):
    """How often predictions of some confidence are right, (BINS, 3): rows, sum of confidence, rows that are right.

    Confidence is the greatest probability; bins are equally wide from 0 to 1. Unlike a metric that keeps all rows, this
    takes the same memory for any number of them.
    """

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(BINS, 3), dist_reduce_fx="sum")

    def update(self, probabilities: Float[Tensor, "B classes"], labels: Int[Tensor, " B"]) -> None:
        """Count a batch."""
        confidence, predicted = probabilities.max(-1)  # (B,), (B,)
        rows = torch.stack([torch.ones_like(confidence), confidence, (predicted == labels).to(confidence.dtype)], 1)
        bins = (confidence.nan_to_num() * BINS).long().clamp(0, BINS - 1)
        self.sums.index_add_(0, bins.to(self.sums.device), exact(rows, self.sums.device))

    def compute(self) -> Tensor:
        """The sums so far."""
        return self.sums


class CalibrationError(Reliability):
    """The expected calibration error: Σ over bins |rows that are right − sum of confidence| / rows."""

    def compute(self) -> Tensor:
        """Of all rows so far."""
        rows, confidence, right = self.sums.unbind(1)
        return (right - confidence).abs().sum() / rows.sum()


def own_rows(module: LightningModule, batch_index: int, count: int) -> int:
    """How many of a batch's rows, from the first on, no other process has too.

    So that all processes take equally many steps, Lightning gives the first rows of a split again to processes that
    would end up with one row less. These repetitions stand at the end of the last batch and must not be counted.
    """
    trainer = trainer_of(module)
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
