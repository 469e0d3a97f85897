"""Numbers, as in regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lambda_seq.models.heads import Numbers, Objective
from lambda_seq.tasks.answers.base import Answer, Told, Weights
from lambda_seq.tasks.metrics import Exact, exact
from lambda_seq.tasks.predictions.tables import NumberTable


class SomeNumbers(Answer):
    """Squared errors, or Huber's, in units of the training rows' standard deviation; answers are in units of the data.

    Errors of several numbers are means over these.
    """

    head = "numbers"
    monitor = ("val/rmse", "min")
    compared = "rmse"
    worst = (
        "Farthest off",
        "All answers of the {split} split, the farthest off first",
        "The {kept} answers of the {split} split that are farthest off",
    )

    @property
    def head_options(self) -> dict[str, Any]:
        """Mean and deviation of the training rows, which a saved model so has with it."""
        target = self.facts.target
        return {} if target.mean is None else {"mean": target.mean, "std": target.std}

    def objective(self, label_smoothing: float, class_weight: Weights | None, huber: float | None) -> Objective:
        """The squared error, or up to `huber` standard deviations that, and beyond the absolute one."""
        for name, given in (("label_smoothing", label_smoothing), ("class_weight", class_weight)):
            if given:
                raise ValueError(f"{name}={given!r}: is of classes and labels, and the data have numbers; leave it out")
        return Numbers(**self.head_options, huber=huber)

    def metrics(self, stage: str) -> MetricCollection:
        """The mean absolute error, the root of the mean squared one, and R², the part of the variance explained."""
        kinds: dict[str, Callable[..., Metric]] = {"mae": AbsoluteError, "rmse": SquaredError, "r2": Explained}
        units = (self.facts.target.mean or [0.0] * len(self.names), self.facts.target.std or [1.0] * len(self.names))
        return MetricCollection({name: kind(*units) for name, kind in kinds.items()}, compute_groups=False)

    def evaluated(self, answers: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Answers and labels (B, numbers)."""
        return {"answers": answers, "labels": labels}

    def predicted(self, answers: Tensor) -> dict[str, Tensor]:
        """Answers (B, numbers)."""
        return {"answers": answers}

    def mistakes(self, found: Mapping[str, Tensor]) -> Tensor:
        """How far off a row's worst number is, in standard deviations of the training rows; and both numbers."""
        answers, labels = (found[name].double() for name in ("answers", "labels"))
        std = answers.new_tensor(self.facts.target.std or [1.0] * len(self.names))
        off = ((answers - labels).abs() / std).nan_to_num(-torch.inf, posinf=torch.inf)  # unknown numbers are not wrong
        worst, place = off.max(-1)
        both = (given.gather(1, place[:, None])[:, 0] for given in (answers, labels))
        return torch.stack(
            [torch.where(worst > 0, worst, -torch.inf), place.double(), torch.zeros_like(worst), *both], 1
        )

    def told(self, worst: float, place: int, sign: float, first: float, second: float) -> Told:
        """Both numbers."""
        return Told(f"{first:.4g}", "", f"{second:.4g}", f"{self.names[place]}, {worst:.1f} standard deviations off")

    def table(self) -> NumberTable:
        """A column of each number."""
        return NumberTable(self.names)


class Errors(Exact):
    """Sums over rows, in units that keep them from being rounded.

    Args:
        mean, std: of each number, about.
    """

    sums: Tensor  # (5, numbers): rows, |e|, e², y, y²

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.add_state("sums", torch.zeros(5, len(mean)), dist_reduce_fx="sum")

    def update(self, answers: Tensor, labels: Tensor) -> None:
        """Count a batch, (B, numbers)."""
        mean, std = (self.sums.new_tensor(unit) for unit in (self.mean, self.std))
        found, y = (exact(given, self.sums.device) for given in (answers, labels))
        error, y = (found - y) / std, (y - mean) / std
        self.sums += torch.stack([torch.ones_like(y), error.abs(), error.square(), y, y.square()]).sum(1)


class AbsoluteError(Errors):
    """The mean absolute error."""

    def compute(self) -> Tensor:
        """Of all rows so far."""
        return (self.sums[1] / self.sums[0] * self.sums.new_tensor(self.std)).mean()


class SquaredError(Errors):
    """The root of the mean squared error."""

    def compute(self) -> Tensor:
        """Of all rows so far."""
        return ((self.sums[2] / self.sums[0]).sqrt() * self.sums.new_tensor(self.std)).mean()


class Explained(Errors):
    """R²: 1 − Σ e² / Σ (y − ȳ)²; not a number where all y are the same."""

    def compute(self) -> Tensor:
        """Of all rows so far."""
        rows, _, squares, total, own = self.sums
        spread = own - total.square() / rows
        return torch.where(spread > 1e-12 * own.clamp_min(1e-300), 1 - squares / spread, torch.nan).mean()
