"""Residual branches, or channels of them, that are left out at random while training."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq.layers import UNSHARDED, SequenceContext


class StochasticDepth(nn.Module):
    """Zero a residual branch for whole samples with probability `rate`, and scale the others by 1 / (1 − rate).

    Does nothing in eval mode. G. Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """

    sequence: SequenceContext = UNSHARDED

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Drop the branch, (B, ...), for some samples b."""
        if not self.training or self.rate == 0:
            return branch
        kept = branch.new_empty(branch.shape[0], *[1] * (branch.ndim - 1)).bernoulli_(1 - self.rate)  # (B, 1, ...)
        return branch * (self.sequence.gather(kept)[0] / (1 - self.rate))

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"rate={self.rate:g}"


class ChannelDropout(nn.Module):
    """Zero channels of a branch for all positions of a sequence with probability `rate`; others times 1 / (1 − rate).

    Draws do not depend on the length, so padding changes nothing. Does nothing in eval mode. J. Tompson et al.,
    "Efficient Object Localization Using Convolutional Networks", CVPR 2015.
    """

    sequence: SequenceContext = UNSHARDED

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Float[Tensor, "B *N C"]) -> Float[Tensor, "B *N C"]:
        """Drop channels c of samples b."""
        if not self.training or self.rate == 0:
            return branch
        shape = (branch.shape[0], *[1] * (branch.ndim - 2), branch.shape[-1])
        kept = branch.new_empty(shape).bernoulli_(1 - self.rate)
        return branch * (self.sequence.gather(kept)[0] / (1 - self.rate))

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"rate={self.rate:g}"


def depth_rates(rate: float, depth: int) -> list[float]:
    """Rates of `depth` blocks in a row, growing linearly from 0 to `rate`, as in the paper."""
    return [rate * block / max(depth - 1, 1) for block in range(depth)]
