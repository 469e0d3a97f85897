"""The pre-norm block of sequence networks: lambda mixing and feed-forward, each a residual branch behind a norm."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lambda_seq.layers import LambdaLayer1d, make_norm
from lambda_seq.models import checks
from lambda_seq.models.drop import StochasticDepth


class LambdaMixing(nn.Module):
    """W norm(lambda_layer(x)): mixing over positions, then over channels.

    The map W brings together the heads, which each write their own channels. The norm takes out the scale of λᵀq, a sum
    over dim_key, so that a branch adds the same whatever the scope, depth or initialisation of its lambdas. There is no
    activation between them, unlike in a LambdaResNet: λᵀq is a product of inputs already, and a feed-forward follows.
    GELU in its place, or a learned gate, with the norm and without, did no better on sequences of pixels.

    Args:
        layer: the lambda layer.
        norm: of its output: "batch" (counts real positions only), "layer", "rms" or "none".
    """

    def __init__(self, layer: LambdaLayer1d, norm: str = "batch") -> None:
        super().__init__()
        self.layer = layer
        self.norm = make_norm(norm, layer.dim_out)
        self.out = nn.Linear(layer.dim_out, layer.dim)

    def forward(self, x: Float[Tensor, "B N dim"], mask: Bool[Tensor, "B N"] | None = None) -> Float[Tensor, "B N dim"]:
        """Mix a batch of sequences; `mask` is True at real positions."""
        return self.out(self.norm(self.layer(x, mask), mask))


class FeedForward(nn.Module):
    """W₂ gelu(W₁ x), each position by itself, with ratio · dim hidden channels."""

    def __init__(self, dim: int, ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = max(round(dim * ratio), 1)
        self.inner = nn.Linear(dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "B N dim"]) -> Float[Tensor, "B N dim"]:
        """Map each position."""
        hidden = self.dropout(F.gelu(self.inner(x)))  # (B, N, ratio · dim)
        return self.out(hidden)  # (B, N, dim)


class Block(nn.Module):
    """x + mix(norm(x)), then x + feed_forward(norm(x)).

    Args:
        mixing: mixes positions, called as mixing(x, mask).
        dim: channels.
        ff_ratio: hidden channels of the feed-forward, per channel.
        norm: "layer", "batch", "rms" or "none".
        dropout: of both branches and of the feed-forward's hidden channels.
        stochastic_depth: probability of leaving a branch out, for a sample in training.
    """

    def __init__(
        self,
        mixing: nn.Module,
        dim: int,
        *,
        ff_ratio: float = 2.0,
        norm: str = "layer",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        if ff_ratio <= 0:
            raise ValueError(f"ff_ratio={ff_ratio}: expected a number above 0, hidden channels per channel; use 2 or 4")
        checks.probability(dropout=dropout, stochastic_depth=stochastic_depth)
        self.norm1, self.mixing = make_norm(norm, dim), mixing
        self.norm2, self.feed_forward = make_norm(norm, dim), FeedForward(dim, ff_ratio, dropout)
        self.drop = nn.Sequential(nn.Dropout(dropout), StochasticDepth(stochastic_depth))

    def forward(self, x: Float[Tensor, "B N dim"], mask: Bool[Tensor, "B N"] | None = None) -> Float[Tensor, "B N dim"]:
        """Transform a batch of sequences; what comes out at masked positions means nothing."""
        x = x + self.drop(self.mixing(self.norm1(x, mask), mask))
        return x + self.drop(self.feed_forward(self.norm2(x, mask)))
