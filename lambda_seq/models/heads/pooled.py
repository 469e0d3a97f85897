"""Heads that answer once for a whole input, from pooled features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from lambda_seq.layers import checks
from lambda_seq.models.heads.base import IGNORED, Differences, Objective, register_head
from lambda_seq.models.heads.layers import Inputs, Normalize, on_device, wide
from lambda_seq.models.heads.losses import binary_cross_entropy, cross_entropy


@register_head
@dataclass(frozen=True)
class Classes(Objective):
    """One class of several. Targets may be probabilities (B, classes), too.

    Args:
        label_smoothing: probability spread evenly over all classes in the target.
        weight: factor of the loss of each class; the loss stays a mean over rows.
    """

    name = "classes"

    label_smoothing: float = 0.0
    weight: Sequence[float] | None = None

    def known(self, target: Tensor) -> Bool[Tensor, " B"]:
        """Rows with a class; one with probabilities has."""
        return target.new_ones(len(target), dtype=torch.bool) if target.is_floating_point() else target != IGNORED

    def losses(self, logits: Float[Tensor, "B classes"], target: Shaped[Tensor, "B ..."]) -> Float[Tensor, " B"]:
        """Cross entropy of each row."""
        return cross_entropy(logits, target, on_device(self.weight, logits.dtype, logits.device), self.label_smoothing)


@register_head
@dataclass(frozen=True)
class Labels(Objective):
    """Any number of several labels; NaN for one that is not known.

    Args:
        label_smoothing: part of each target that is 1/2 in place of 0 or 1.
        weight: factor of the loss of each label where a row has it.
    """

    name, answer, said = "labels", "logits of {} labels", "a probability of each (B, labels)"

    label_smoothing: float = 0.0
    weight: Sequence[float] | None = None

    def known(self, target: Tensor) -> Bool[Tensor, "B labels"]:
        """Those that are."""
        return ~target.isnan()

    def losses(self, logits: Float[Tensor, "B labels"], target: Shaped[Tensor, "B labels"]) -> Tensor:
        """Binary cross entropy of each label (B, labels)."""
        weight = on_device(self.weight, logits.dtype, logits.device)
        return binary_cross_entropy(logits, target.to(logits.dtype).nan_to_num(), weight, self.label_smoothing)

    def answers(self, logits: Tensor) -> Tensor:
        """The probability of each label."""
        return wide(logits).sigmoid()

    def logits(self, answers: Tensor) -> Tensor:
        """Logits of these probabilities."""
        return answers.logit(eps=torch.finfo(answers.dtype).eps)


@register_head
@dataclass(frozen=True)
class Numbers(Differences):
    """Numbers of a whole input, as in regression: mean + std · logits.

    The loss is of their errors in units of `std`.

    Args:
        mean, std: of each number; None for 0 and 1.
        huber: errors beyond so many units count by their size, no more by its square; None for the square of all.

    Raises:
        ValueError: a number out of range, or not as many of `mean` as of `std`.
    """

    name, answer, said = "numbers", "{} numbers", "numbers (B, numbers)"

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    huber: float | None = None

    def __post_init__(self) -> None:
        if len(self.mean or ()) != len(self.std or ()):
            raise ValueError(f"mean={self.mean}, std={self.std}: expected as many of both, one for each number")
        if not all(one > 0 for one in self.std or ()):
            raise ValueError(f"std={self.std}: expected numbers above 0")
        if self.huber is not None and not self.huber > 0:
            raise ValueError(f"huber={self.huber}: expected a number above 0, such as 1.0, or None")

    def losses(self, logits: Float[Tensor, "B numbers"], target: Float[Tensor, "B numbers"]) -> Tensor:
        """Squared or Huber's error of each number, in units of `std`."""
        goal = self.logits(wide(target).nan_to_num()).to(logits.dtype)
        if self.huber is None:
            return (logits - goal).square()
        return 2 * F.huber_loss(logits, goal, delta=self.huber, reduction="none")

    def answers(self, logits: Tensor) -> Tensor:
        """The numbers."""
        found, (mean, std) = wide(logits), self._units(logits)
        return found if mean is None or std is None else found * std + mean

    def logits(self, answers: Tensor) -> Tensor:
        """These numbers in units of `std`, from `mean` on."""
        mean, std = self._units(answers)
        return answers if mean is None or std is None else (answers - mean) / std

    def _units(self, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        dtype = torch.promote_types(like.dtype, torch.float32)
        return on_device(self.mean, dtype, like.device), on_device(self.std, dtype, like.device)


@register_head
@dataclass(frozen=True)
class Embedding(Objective):
    """The pooled features as they are, to compare inputs by.

    Its loss is InfoNCE (A. van den Oord et al., 2018) in both directions: among all vectors of the batch each has to
    find its partner, by the cosine of their angle over a temperature.

    Args:
        normalize: whether vectors have length 1.
        temperature: of the loss.
    """

    name, counted, answer, said = "embedding", False, "a vector of {} channels", "vectors (B, channels)"

    normalize: bool = True
    temperature: float = 0.07

    def __post_init__(self) -> None:
        checks.flags(normalize=self.normalize)
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}: expected a number above 0, such as 0.07")

    def pipeline(self, kind: str) -> str | None:
        """Features of a whole input."""
        return "image-feature-extraction" if kind == "image" else "feature-extraction"

    def outputs(self, inputs: Inputs, num_classes: int | None, default: int) -> int:
        """Channels of the features."""
        super().outputs(inputs, num_classes, default)
        return inputs.dim

    def layer(self, inputs: Inputs, outputs: int) -> nn.Module:
        """Nothing, or division by the length."""
        return Normalize() if self.normalize else nn.Identity()

    def known(self, target: Float[Tensor, "B dim"]) -> Bool[Tensor, " B"]:
        """Every row."""
        return target.new_ones(len(target), dtype=torch.bool)

    def losses(self, logits: Float[Tensor, "B dim"], target: Float[Tensor, "B dim"]) -> Float[Tensor, " B"]:
        """Half of the nats by which row i finds its partner, and half of those by which its partner finds it."""
        cosines = F.normalize(logits, dim=-1) @ F.normalize(target, dim=-1).mT / self.temperature  # (B, B)
        own = torch.arange(len(cosines), device=cosines.device)
        return sum(F.cross_entropy(side, own, reduction="none") for side in (cosines, cosines.mT)) / 2  # type: ignore[return-value]

    def answers(self, logits: Tensor) -> Tensor:
        """The vectors."""
        return wide(logits)
