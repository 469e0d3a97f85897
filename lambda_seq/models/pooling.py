"""Pooling of a sequence into one vector, over real positions only."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lambda_seq.models import checks

POOLS = ("mean", "max", "attention", "first", "last")


class SequencePool(nn.Module):
    """One vector for each sequence, (B, N, dim) -> (B, dim); a sequence without a real position gives zeros.

    Args:
        dim: channels.
        pool: "mean" or "max" over the real positions; "attention", their mean weighed by softmax(x · query / √dim)
            with one learned query, which starts at 0 and so as "mean"; "first" or "last" real position.
    """

    def __init__(self, dim: int, pool: str = "mean") -> None:
        super().__init__()
        checks.one_of("pool", pool, POOLS)
        self.pool = pool
        self.query = nn.Parameter(torch.zeros(dim)) if pool == "attention" else None

    def forward(self, x: Float[Tensor, "B N dim"], mask: Bool[Tensor, "B N"] | None = None) -> Float[Tensor, "B dim"]:
        """Pool x; `mask` is True at real positions."""
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        real = mask[..., None]  # (B, N, 1)
        if self.pool == "max":
            most = x.masked_fill(~real, torch.finfo(x.dtype).min).amax(1)  # (B, dim)
            return most.masked_fill(~real.any(1), 0)
        weights = self._weights(x, mask)[..., None]  # (B, N, 1)
        return (x.masked_fill(~real, 0) * weights).sum(1).to(x.dtype)  # (B, dim)

    def _weights(self, x: Tensor, mask: Tensor) -> Float[Tensor, "B N"]:
        """Weights of the positions, in float32 or wider; they sum to 1, or to 0 where nothing is real."""
        wide = torch.promote_types(x.dtype, torch.float32)
        if self.pool == "first":
            return (mask & (mask.cumsum(1) == 1)).to(wide)
        if self.pool == "last":
            return (mask & (mask.flip(1).cumsum(1).flip(1) == 1)).to(wide)
        if self.query is not None:
            scores = (x.to(wide) @ self.query.to(wide)) * x.shape[-1] ** -0.5  # (B, N)
            return scores.masked_fill(~mask, torch.finfo(wide).min).softmax(1) * mask
        return mask.to(wide) / mask.sum(1, keepdim=True).clamp_min(1)

    def extra_repr(self) -> str:
        """The kind, for printing."""
        return repr(self.pool)
