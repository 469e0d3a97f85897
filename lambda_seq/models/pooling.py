"""Pooling of a sequence into one vector, over real positions only."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import WHOLE, Whole
from lambda_seq.models import checks
from lambda_seq.models.streaming import PoolState, accumulator, check_batch

POOLS = ("mean", "max", "attention", "first", "last")


class SequencePool(nn.Module):
    """One vector for each sequence, (B, N, dim) -> (B, dim); a sequence without a real position gives zeros.

    Args:
        dim: channels.
        pool: "mean" or "max" over the real positions; "attention", their mean weighed by softmax(x · query / √dim)
            with one learned query, which starts at 0 and so as "mean"; "first" or "last" real position.

    A stream is pooled by `init_state` and `step` in memory that does not depend on its length.
    """

    shards: Whole = WHOLE

    def __init__(self, dim: int, pool: str = "mean") -> None:
        super().__init__()
        checks.one_of("pool", pool, POOLS)
        self.dim, self.pool = dim, pool
        self.query = nn.Parameter(torch.zeros(dim)) if pool == "attention" else None

    def forward(
        self,
        x: Float[Tensor, "B N dim"],
        mask: Bool[Tensor, "B N"] | None = None,
        packing: LF.Packing | None = None,
    ) -> Float[Tensor, "B dim"]:
        """Pool x; `mask` is True at real positions. With a packing its D documents are pooled, (D, dim)."""
        if packing is not None:
            return self._documents(x, packing)
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        real = mask[..., None]  # (B, N, 1)
        if self.pool == "max":
            most = self.shards.maximum(x.masked_fill(~real, torch.finfo(x.dtype).min).amax(1))  # (B, dim)
            return most.masked_fill(self.shards.sum(mask.sum(1, keepdim=True)) == 0, 0)
        weights = self._weights(x, mask)[..., None]  # (B, N, 1)
        return self.shards.sum((x.masked_fill(~real, 0) * weights).sum(1)).to(x.dtype)  # (B, dim)

    def _documents(self, x: Tensor, packing: LF.Packing) -> Float[Tensor, "D dim"]:
        parts = zip(packing.split(x), packing.buckets, strict=True)
        pooled = [self(part, bucket.mask) for part, bucket in parts]  # (D', dim) each
        if not pooled:
            return x.new_zeros(0, x.shape[-1])
        numbers = torch.cat([bucket.documents for bucket in packing.buckets])
        return torch.cat(pooled).index_select(0, numbers.argsort())

    def _weights(self, x: Tensor, mask: Tensor) -> Float[Tensor, "B N"]:
        """Weights of the positions, in float32 or wider; they sum to 1, or to 0 where nothing is real."""
        wide = torch.promote_types(x.dtype, torch.float32)
        count = mask.sum(1, keepdim=True)  # (B, 1)
        if self.pool == "first":
            place = mask.cumsum(1) + self.shards.preceding(count)
            return (mask & (place == 1)).to(wide)
        whole = self.shards.sum(count)
        if self.pool == "last":
            place = mask.cumsum(1) + self.shards.preceding(count)
            return (mask & (place == whole)).to(wide)
        if self.query is not None:
            scores = self._scores(x.to(wide)).masked_fill(~mask, torch.finfo(wide).min)
            weights = (scores - self.shards.maximum(scores.detach().amax(1, keepdim=True))).exp() * mask
            return weights / self.shards.sum(weights.sum(1, keepdim=True)).clamp_min(torch.finfo(wide).tiny)
        return mask.to(wide) / whole.clamp_min(1)

    def _scores(self, x: Tensor) -> Float[Tensor, "B N"]:
        """Logits of the weights; a mean's are equal."""
        return x.new_zeros(x.shape[:2]) if self.query is None else (x @ self.query.to(x.dtype)) * x.shape[-1] ** -0.5

    def init_state(self, batch_size: int, like: Tensor) -> PoolState:
        """The state before the first position, for `step`, on the device of `like`."""
        value = torch.zeros(batch_size, self.dim, dtype=accumulator(like), device=like.device)
        nothing = value.new_zeros(batch_size, 1)
        return PoolState(0, value, nothing, torch.full_like(nothing, -torch.inf))

    def step(self, x: Float[Tensor, "B T dim"], state: PoolState) -> tuple[Float[Tensor, "B dim"], PoolState]:
        """The pool of all positions so far, and the state after the next T of them; T may be 0."""
        check_batch(x.shape[0], state.value.shape[0])
        if x.shape[1]:
            state = self._advance(x.to(state.value.dtype), state)
        return (state.value / state.weight.clamp_min(torch.finfo(state.weight.dtype).tiny)).to(x.dtype), state

    def _advance(self, x: Tensor, state: PoolState) -> PoolState:
        seen, value, weight, top = state.seen + x.shape[1], state.value, state.weight, state.top
        if self.pool in ("mean", "attention"):
            scores = self._scores(x)  # (B, T)
            top = torch.maximum(top, scores.amax(1, keepdim=True))
            shrink, weights = (state.top - top).exp(), (scores - top).exp()
            value = shrink * value + torch.einsum("bt,btd->bd", weights, x)
            return PoolState(seen, value, shrink * weight + weights.sum(1, keepdim=True), top)
        if self.pool == "max":
            value = torch.maximum(value, x.amax(1)) if state.seen else x.amax(1)
        elif self.pool == "last" or not state.seen:
            value = x[:, -1 if self.pool == "last" else 0]
        return PoolState(seen, value.clone(), torch.ones_like(weight), top)

    def extra_repr(self) -> str:
        """The kind, for printing."""
        return repr(self.pool)
