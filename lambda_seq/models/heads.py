"""Heads by name: whether features are pooled for them, the layer that makes logits, its loss, and what logits answer.

    name         features are   target                      loss                answer
    classes      pooled         (B,) class numbers          cross entropy       probabilities (B, classes)
    labels       pooled         (B, labels) 0 or 1          binary c. e.        probability of each (B, labels)
    numbers      pooled         (B, numbers)                squared, or Huber's numbers (B, numbers)
    positions    one by one     (B, M) class numbers        cross entropy       probabilities (B, M, classes)
    tokens       one by one     (B, M) or (B, M, S) ids     cross entropy       probabilities (B, M, [S,] ids)
    values       one by one     (B, M, S · channels)        squared error       values (B, M, S · channels)
    embedding    pooled         (B, dim), of their partners InfoNCE             vectors (B, dim)

M are the positions, or behind strides the frames, of S positions each.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from lambda_seq.layers import checks
from lambda_seq.models.head_layers import Inputs, Normalize, TiedLinear, on_device, wide
from lambda_seq.models.inputs import INPUTS, WORD_IDS

IGNORED = -100  # a class number or token id that is not known, which no loss counts


@dataclass(frozen=True)
class Objective:
    """What a head is trained for. It has no weights: those are the layer's that it makes, a network's `head`."""

    name: ClassVar[str]
    pooled: ClassVar[bool] = True
    counted: ClassVar[bool] = True  # whether num_classes says how many outputs there are
    answer: ClassVar[str] = "logits of {} classes"  # the output, in words, and below what it is answered by
    said: ClassVar[str] = "probabilities (B, classes)"

    def outputs(self, inputs: Inputs, num_classes: int | None, default: int) -> int:
        """Length of the last dimension of logits.

        Raises:
            ValueError: no network of such input has this head, or num_classes does not apply to it.
        """
        if self.pooled is False and inputs.kind == "image":
            raise ValueError(f"head={self.name!r} answers for each position of a sequence: give pictures as sequences")
        if not self.counted and num_classes is not None:
            raise ValueError(
                f"num_classes={num_classes} does not apply to head={self.name!r}, whose size follows from the input: "
                "leave it out, or give None where the network's name stands for a number"
            )
        return default if num_classes is None else num_classes

    def layer(self, inputs: Inputs, outputs: int) -> nn.Module:
        """What makes logits of features (…, dim) -> (…, outputs)."""
        return nn.Linear(inputs.dim, outputs)

    def pipeline(self, kind: str) -> str | None:
        """What the hub calls a network of this head that takes this kind of input; None where it has no name."""
        return INPUTS[kind].pipeline if kind in INPUTS else None

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each answer; 0 where the target is not known."""
        raise NotImplementedError(f"{type(self).__name__} has no losses(logits, target)")

    def known(self, target: Tensor) -> Bool[Tensor, " ..."]:
        """Which answers count."""
        return target != IGNORED

    def loss(
        self, logits: Tensor, target: Tensor, mask: Bool[Tensor, "B M"] | None = None
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """The mean loss, and over how many answers it is the mean: 0 of none at all.

        Args:
            logits: what the network gives.
            target: as the table of this module says; IGNORED, or NaN among numbers, where it is not known.
            mask: real positions, for heads that answer for each; others do not count.
        """
        known = self.known(target)
        if mask is not None:
            known = known & mask.view(*mask.shape, *[1] * (known.ndim - mask.ndim))
        count = known.sum()
        losses = self.losses(logits, target)
        return torch.where(known, losses, 0).sum() / count.clamp_min(1), count

    def answers(self, logits: Tensor) -> Tensor:
        """What logits say, in float32 or wider."""
        return wide(logits).softmax(-1)

    def logits(self, answers: Tensor) -> Tensor:
        """Logits that say this, such as the mean of several answers."""
        return answers.clamp_min(torch.finfo(answers.dtype).tiny).log()


_HEADS: dict[str, type[Objective]] = {}


def register_head(kind: type[Objective]) -> type[Objective]:
    """Decorator that makes an objective available as `head=kind.name`.

    Raises:
        ValueError: the name is taken.
    """
    if kind.name in _HEADS:
        raise ValueError(f"name={kind.name!r} is a head already: choose another, taken are {', '.join(_HEADS)}")
    _HEADS[kind.name] = kind
    return kind


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
        return F.cross_entropy(
            logits,
            target,
            weight=on_device(self.weight, logits.dtype, logits.device),
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )


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
        goal = target.to(logits.dtype).nan_to_num().lerp(logits.new_tensor(0.5), self.label_smoothing)
        weight = on_device(self.weight, logits.dtype, logits.device)
        return F.binary_cross_entropy_with_logits(logits, goal, pos_weight=weight, reduction="none")

    def answers(self, logits: Tensor) -> Tensor:
        """The probability of each label."""
        return wide(logits).sigmoid()

    def logits(self, answers: Tensor) -> Tensor:
        """Logits of these probabilities."""
        return answers.logit(eps=torch.finfo(answers.dtype).eps)


class _Numbers(Objective):
    """Squared errors of numbers, NaN for one that is not known."""

    def pipeline(self, kind: str) -> str | None:
        return None

    def known(self, target: Tensor) -> Bool[Tensor, " ..."]:
        return ~target.isnan()

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits - target.to(logits.dtype).nan_to_num()).square()

    def answers(self, logits: Tensor) -> Tensor:
        return wide(logits)

    def logits(self, answers: Tensor) -> Tensor:
        return answers


@register_head
@dataclass(frozen=True)
class Numbers(_Numbers):
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
class Positions(Objective):
    """A class for each position, or frame."""

    name, pooled = "positions", False
    answer, said = "logits of {} classes at each position", "probabilities (B, N, classes)"

    def pipeline(self, kind: str) -> str | None:
        """Of texts only."""
        return "token-classification" if kind == "tokens" else None

    def losses(self, logits: Float[Tensor, "B M classes"], target: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Cross entropy of each position."""
        return F.cross_entropy(logits.movedim(-1, 1), target, ignore_index=IGNORED, reduction="none")


@register_head
@dataclass(frozen=True)
class TokenIds(Objective):
    """The token ids at each position: those that are hidden, or the ones that follow.

    Args:
        tie: whether the embedding of the input gives the weights; features are divided by √dim for it.
    """

    name, pooled, counted = "tokens", False, False
    answer, said = "logits of {} token ids at each position", "probabilities (B, N, ids)"

    tie: bool = False

    def pipeline(self, kind: str) -> str | None:
        """Filling in what is hidden."""
        return "fill-mask"

    def outputs(self, inputs: Inputs, num_classes: int | None, default: int) -> int:
        """Ids of all positions of a frame."""
        if inputs.kind != "tokens":
            raise ValueError(f"head='tokens': the network takes {inputs.kind}, no tokens: use head='values'")
        if inputs.values >= WORD_IDS:
            raise ValueError(
                "head='tokens': which of all ids a token is cannot be said where words are known by their hashes, or "
                "vocab_size is not known: take bytes or the tokens of a tokenizer, and give their vocab_size"
            )
        if self.tie and (inputs.embedding is None or inputs.frame > 1):
            raise ValueError(
                "tie=True: behind strides a vector is no token's, nor is one of n-grams: use tie=False, or "
                "stem='tokens' without strides"
            )
        super().outputs(inputs, num_classes, default)
        return inputs.frame * inputs.values

    def layer(self, inputs: Inputs, outputs: int) -> nn.Module:
        """A linear map, or the embedding turned round."""
        return (
            TiedLinear(inputs.embedding)
            if self.tie and inputs.embedding is not None
            else super().layer(inputs, outputs)
        )

    def losses(self, logits: Float[Tensor, "*B ids"], target: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Nats of each token; logits of a frame's positions come apart if the target has a dimension more."""
        if target.ndim == logits.ndim:
            logits = logits.unflatten(-1, (target.shape[-1], -1))  # (B, M, S, ids)
        found = F.cross_entropy(logits.flatten(0, -2), target.flatten(), ignore_index=IGNORED, reduction="none")
        return found.view_as(target)


@register_head
@dataclass(frozen=True)
class Values(_Numbers):
    """What stands at each position: features, or samples of a frame, a position's channels together."""

    name, pooled, counted = "values", False, False
    answer, said = "{} values at each position", "values (B, N, channels)"

    def outputs(self, inputs: Inputs, num_classes: int | None, default: int) -> int:
        """Channels of all positions of a frame."""
        if inputs.kind == "tokens":
            raise ValueError("head='values': the network takes tokens, which are no values: use head='tokens'")
        super().outputs(inputs, num_classes, default)
        return inputs.frame * inputs.values


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


def list_heads() -> list[str]:
    """The names that `head` takes."""
    return list(_HEADS)


def make_objective(head: str, options: Mapping[str, Any] | None = None) -> Objective:
    """The objective of this name.

    Raises:
        ValueError: no head has this name, or an option's value does not fit.
        TypeError: the head has no such option.
    """
    if head not in _HEADS:
        close = difflib.get_close_matches(str(head), _HEADS, n=1)
        advice = f"did you mean {close[0]!r}? It is" if close else "expected"
        raise ValueError(f"head={head!r}: {advice} one of {', '.join(map(repr, _HEADS))}")
    kind = _HEADS[head]
    accepted = [field.name for field in fields(kind)]
    for name in options or {}:
        if name not in accepted:
            has = f"it has {', '.join(accepted)}" if accepted else "it has none"
            raise TypeError(f"head_options: head={head!r} has no option {name!r}: {has}")
    return kind(**(options or {}))
