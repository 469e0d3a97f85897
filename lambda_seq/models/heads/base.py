"""What all heads have: a layer that makes logits, a loss, and what logits answer; and the heads by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq.models.heads.layers import Inputs, wide
from lambda_seq.models.inputs import INPUTS

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


class Differences(Objective):
    """Squared errors of numbers, NaN for one that is not known: what logits say is the numbers themselves."""

    def pipeline(self, kind: str) -> str | None:
        """None."""
        return None

    def known(self, target: Tensor) -> Bool[Tensor, " ..."]:
        """Those that are."""
        return ~target.isnan()

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """The squared error of each."""
        return (logits - target.to(logits.dtype).nan_to_num()).square()

    def answers(self, logits: Tensor) -> Tensor:
        """The numbers."""
        return wide(logits)

    def logits(self, answers: Tensor) -> Tensor:
        """The same."""
        return answers


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
