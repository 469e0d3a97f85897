"""Heads that answer for each position of a sequence, or for each frame of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import nn

from lambda_seq.models.heads.base import IGNORED, Differences, Objective, register_head
from lambda_seq.models.heads.layers import Inputs, TiedLinear, on_device
from lambda_seq.models.heads.losses import cross_entropy
from lambda_seq.models.inputs import WORD_IDS


@register_head
@dataclass(frozen=True)
class Positions(Objective):
    """A class for each position, or frame.

    Args:
        label_smoothing: probability spread evenly over all classes in the target.
        weight: factor of the loss of each class; the loss stays a mean over positions.
    """

    name, pooled = "positions", False
    answer, said = "logits of {} classes at each position", "probabilities (B, N, classes)"

    label_smoothing: float = 0.0
    weight: Sequence[float] | None = None

    def pipeline(self, kind: str) -> str | None:
        """Of texts only."""
        return "token-classification" if kind == "tokens" else None

    def losses(self, logits: Float[Tensor, "B M classes"], target: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Cross entropy of each position."""
        weight = on_device(self.weight, logits.dtype, logits.device)
        return cross_entropy(logits.movedim(-1, 1), target, weight, self.label_smoothing)


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
class Values(Differences):
    """What stands at each position: features, or samples of a frame, a position's channels together."""

    name, pooled, counted = "values", False, False
    answer, said = "{} values at each position", "values (B, N, channels)"

    def outputs(self, inputs: Inputs, num_classes: int | None, default: int) -> int:
        """Channels of all positions of a frame."""
        if inputs.kind == "tokens":
            raise ValueError("head='values': the network takes tokens, which are no values: use head='tokens'")
        super().outputs(inputs, num_classes, default)
        return inputs.frame * inputs.values
