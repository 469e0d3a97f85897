"""Pooling of a sequence into one vector, over real positions only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.functional.operators import without_autocast
from lambda_seq.layers import UNSHARDED, SequenceContext, checks
from lambda_seq.models.sequence.streaming import PoolState, accumulator, check_batch

POOLS = ("mean", "max", "attention", "first", "last", "sqrt")


@dataclass
class _Rows:
    """The sequences to be pooled, each in a row of its own: those of a batch, or the documents that a packing has.

    Attributes:
        parts: x (B', N', dim) and mask (B', N') of one batch, or of each bucket of documents.
        packing: of the documents.
    """

    parts: list[tuple[Tensor, Tensor]]
    packing: LF.Packing | None

    @classmethod
    def of(cls, x: Tensor, mask: Tensor, packing: LF.Packing | None) -> _Rows:
        """Of a batch (B, N, dim)."""
        if packing is None:
            return cls([(x, mask)], None)
        masks = [bucket.mask for bucket in packing.buckets]
        parts = [
            (part, torch.ones(part.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask)
            for part, mask in zip(packing.split(x), masks, strict=True)
        ]
        # Without a document in this chunk: no rows, which still take part in backward passes
        return cls(parts or [(x[:0], mask[:0])], packing)

    def each(self, function: Callable[..., Tensor], *others: list[Tensor], fill: float = 0) -> Float[Tensor, "B C"]:
        """What a function makes of each row of x, mask and others; `fill` for documents of which nothing is here."""
        found = [function(*part, *rest) for part, *rest in zip(self.parts, *others, strict=True)]
        return found[0] if self.packing is None else self.packing.collect(found, fill)

    def deal(self, values: Float[Tensor, "B C"]) -> list[Tensor]:
        """For each part, the rows of what there is for all."""
        return [values] if self.packing is None else self.packing.deal(values)


class SequencePool(nn.Module):
    """One vector for each sequence, (B, N, dim) -> (B, dim); a sequence without a real position gives zeros.

    Args:
        dim: channels.
        pool: "mean" or "max" over the real positions; "attention", their mean weighed by softmax(x · query / √dim)
            with one learned query, which starts at 0 and so as "mean"; "first" or "last" real position; "sqrt", their
            sum over the square root of their number, which keeps the scale of vectors that stand alone, as words do.

    A stream is pooled by `init_state` and `step` in memory that does not depend on its length.
    """

    sequence: SequenceContext = UNSHARDED

    def __init__(self, dim: int, pool: str = "mean") -> None:
        super().__init__()
        checks.one_of("pool", pool, POOLS)
        self.dim, self.pool = dim, pool
        self.query = nn.Parameter(torch.zeros(dim)) if pool == "attention" else None

    def reset_parameters(self) -> None:
        """Zero the query."""
        if self.query is not None:
            nn.init.zeros_(self.query)

    def forward(
        self,
        x: Float[Tensor, "B N dim"],
        mask: Bool[Tensor, "B N"] | None = None,
        packing: LF.Packing | None = None,
    ) -> Float[Tensor, "B dim"]:
        """Pool x; `mask` is True at real positions. With a packing its D documents are pooled, (D, dim).

        Of sequences in chunks, the vectors of whole sequences, and of all documents of whole rows, on every process.
        """
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        rows = _Rows.of(x, mask, packing)
        count = self.sequence.sum(rows.each(lambda x, mask: mask.sum(1, keepdim=True)))  # (B, 1)
        if self.pool == "max":
            lowest = torch.finfo(x.dtype).min
            most = rows.each(lambda x, mask: x.masked_fill(~mask[..., None], lowest).amax(1), fill=lowest)
            return self.sequence.gather(most).amax(0).masked_fill(count == 0, 0)  # (B, dim)
        weights, total = self._weights(rows, count)
        sums = rows.each(lambda x, mask, w: (x.masked_fill(~mask[..., None], 0) * w[..., None]).sum(1), weights)
        return (self.sequence.sum(sums) / total).to(x.dtype)  # (B, dim)

    def _weights(self, rows: _Rows, count: Int[Tensor, "B 1"]) -> tuple[list[Tensor], Tensor]:
        """Weights of the positions, in float32 or wider, (B, N) of each part of the rows, and what divides, (B, 1)."""
        wide = torch.promote_types(rows.parts[0][0].dtype, torch.float32)
        masks = [mask for _, mask in rows.parts]
        if self.pool in ("first", "last"):
            own = rows.each(lambda x, mask: mask.sum(1, keepdim=True))
            before = rows.deal(self.sequence.gather(own)[: self.sequence.rank].sum(0))  # real ones in earlier chunks
            wanted = rows.deal(torch.ones_like(count) if self.pool == "first" else count)
            places = (mask.cumsum(1) + seen for mask, seen in zip(masks, before, strict=True))
            chosen = [mask & (at == want) for mask, at, want in zip(masks, places, wanted, strict=True)]
            return [one.to(wide) for one in chosen], torch.ones_like(count)
        if self.query is None:
            total = count.clamp_min(1)
            return [mask.to(wide) for mask in masks], total.to(wide).sqrt() if self.pool == "sqrt" else total
        lowest = torch.finfo(wide).min
        scores = [self._scores(x.to(wide)).masked_fill(~mask, lowest) for x, mask in rows.parts]
        top = rows.each(lambda x, mask, score: score.detach().amax(1, keepdim=True), scores, fill=lowest)
        tops = rows.deal(self.sequence.gather(top).amax(0))
        weights = [(s - t).exp() * mask for s, t, mask in zip(scores, tops, masks, strict=True)]
        total = self.sequence.sum(rows.each(lambda x, mask, weight: weight.sum(1, keepdim=True), weights))
        return weights, total.clamp_min(torch.finfo(wide).tiny)

    def _scores(self, x: Tensor) -> Float[Tensor, "B N"]:
        """Logits of the weights; a mean's are equal."""
        if self.query is None:
            return x.new_zeros(x.shape[:2])
        with without_autocast(x.device):  # which would take the width away that they are wanted in
            return (x @ self.query.to(x.dtype)) * x.shape[-1] ** -0.5

    def init_state(self, batch_size: int, like: Tensor) -> PoolState:
        """The state before the first position, for `step`, on the device of `like`."""
        value = torch.zeros(batch_size, self.dim, dtype=accumulator(like), device=like.device)
        nothing = value.new_zeros(batch_size, 1)
        return PoolState(0, value, nothing, torch.full_like(nothing, -torch.inf))

    def step(self, x: Float[Tensor, "B T dim"], state: PoolState) -> tuple[Float[Tensor, "B dim"], PoolState]:
        """The pool of all positions so far, and the state after the next T of them; T may be 0."""
        check_batch(x.shape[0], state.value.shape[0])
        if state.value.shape[1] != self.dim:
            raise ValueError(
                f"state pools {state.value.shape[1]} channels: expected dim={self.dim}, as init_state gives"
            )
        if x.shape[1]:
            state = self._advance(x.to(state.value.dtype), state)
        total = state.weight.clamp_min(torch.finfo(state.weight.dtype).tiny)
        return (state.value / (total.sqrt() if self.pool == "sqrt" else total)).to(x.dtype), state

    def _advance(self, x: Tensor, state: PoolState) -> PoolState:
        seen, value, weight, top = state.seen + x.shape[1], state.value, state.weight, state.top
        if self.pool in ("mean", "attention", "sqrt"):
            scores = self._scores(x)  # (B, T)
            top = torch.maximum(top, scores.amax(1, keepdim=True))
            shrink, weights = (state.top - top).exp(), (scores - top).exp()
            with without_autocast(x.device):
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
