"""The content lambda of a sequence that several processes share: k · (v + 2) numbers each, whatever the length.

Each process sums up its chunk, S = Σ_m p_m v_mᵀ and D, with p and D as in `functional.scan`. All together the sums are
the content lambda's; those of earlier processes are the state that a causal scan begins with.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lambda_seq.functional.applying import apply
from lambda_seq.functional.chunks import finite
from lambda_seq.functional.content import content_lambda, hide
from lambda_seq.functional.operators import without_autocast
from lambda_seq.functional.packing import Bucket
from lambda_seq.functional.scan import ScanState, scan
from lambda_seq.functional.summaries import summary
from lambda_seq.parallel import collectives
from lambda_seq.parallel.packing import SplitPacking


def content(
    query: Float[Tensor, "B H N K"],
    key: Float[Tensor, "B U N K"],
    value: Float[Tensor, "B U N V"],
    mask: Bool[Tensor, "B N"] | None,
    causal: bool,
    key_norm: str,
    group: dist.ProcessGroup,
    position: Float[Tensor, "B H N V"] | None = None,
    packing: SplitPacking | None = None,
) -> Float[Tensor, "B H N V"]:
    """Content part of this chunk's output, added to the position part; `value` is zero at masked positions already.

    Packed documents, each as if it stood alone.
    """
    key = key if mask is None else hide(key, mask, key_norm)
    wide = torch.promote_types(query.dtype, torch.float32)
    with without_autocast(query.device):
        if packing is not None and not causal:
            output = _documents(query, key, value, key_norm, group, packing)
            return output if position is None else output + position
        last = key if packing is None else hide(key, packing.in_tail, key_norm)  # what later chunks see
        own = summary(last.to(wide), value.to(wide), key_norm)
        if not causal:
            beside = None if position is None else position.unsqueeze(2)
            return apply(query.unsqueeze(2), content_lambda(everywhere(own, group), key_norm), beside).squeeze(2)
        before = earlier(own, group, None if packing is None else packing.linked)
        if packing is None:
            output, _ = scan(query, key, value, key_norm, before)
        else:
            output = _packed(query, key, value, key_norm, before, packing)
    return output if position is None else output + position


def _packed(
    query: Tensor, key: Tensor, value: Tensor, key_norm: str, before: ScanState, packing: SplitPacking
) -> Float[Tensor, "B H N V"]:
    """A scan of each document, of which a row's first one goes on from `before`."""
    if packing.plain:  # no more than one document in a row, which need not be the one that goes on
        return scan(query, key, value, key_norm, _where(packing.head >= 0, before))[0]

    def documents(bucket: Bucket, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = packing.rows[bucket.documents]
        state = _where(packing.head[rows] == bucket.documents, _rows(before, rows))
        key = key if bucket.mask is None else hide(key, bucket.mask, key_norm)
        return scan(query, key, value, key_norm, state)[0]

    return packing.map(documents, query, key, value)


def _documents(
    query: Tensor, key: Tensor, value: Tensor, key_norm: str, group: dist.ProcessGroup, packing: SplitPacking
) -> Float[Tensor, "B H N V"]:
    """Each document's lambda, of its positions here and on other processes, read by its queries."""
    wide = torch.promote_types(query.dtype, torch.float32)
    ends = (packing.in_head, packing.in_tail & ~packing.in_head)  # of a document that fills the chunk only the head
    parts = [_pack(summary(hide(key, inside, key_norm).to(wide), value.to(wide), key_norm)) for inside in ends]
    everyone = collectives.gathered(torch.stack(parts), group).flatten(0, 1)  # (P · 2, B, U, K, V + 2)
    head, tail = (_together(everyone, linked.flatten(0, 1)) for linked in packing.kin)  # of these, elsewhere

    def read(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, beyond: ScanState) -> Tensor:
        key = key if mask is None else hide(key, mask, key_norm)
        both = torch.stack([_pack(summary(key.to(wide), value.to(wide), key_norm)), _pack(beyond)])
        found = _together(both, both.new_ones(both.shape[:2], dtype=torch.bool))
        return apply(query.unsqueeze(2), content_lambda(found, key_norm)).squeeze(2)

    if packing.plain:  # no more than one document in a row
        beyond = _choose(packing.head >= 0, head, _where(packing.tail >= 0, tail))
        return read(query, key, value, packing.mask, beyond)

    def documents(bucket: Bucket, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = packing.rows[bucket.documents]
        beyond = _where(packing.tail[rows] == bucket.documents, _rows(tail, rows))
        beyond = _choose(packing.head[rows] == bucket.documents, _rows(head, rows), beyond)
        return read(query, key, value, bucket.mask, beyond)

    return packing.map(documents, query, key, value)


def _rows(state: ScanState, rows: Int[Tensor, " D"]) -> ScanState:
    """The state of each document's row."""
    return ScanState(state.sums[rows], state.norm[rows], state.top[rows])


def _choose(first: Bool[Tensor, " D"], state: ScanState, other: ScanState) -> ScanState:
    """One state or the other."""
    first = first[:, None, None, None]
    return ScanState(
        torch.where(first, state.sums, other.sums),
        torch.where(first, state.norm, other.norm),
        torch.where(first, state.top, other.top),
    )


def _where(goes_on: Bool[Tensor, " D"], state: ScanState) -> ScanState:
    """The state, and for those that do not go on the one before any position."""
    new = ~goes_on[:, None, None, None]
    return ScanState(
        state.sums.masked_fill(new, 0), state.norm.masked_fill(new, 0), state.top.masked_fill(new, -torch.inf)
    )


def everywhere(own: ScanState, group: dist.ProcessGroup) -> ScanState:
    """The summary of the whole sequence, from the one of this chunk."""
    top = collectives.greatest(own.top, group)
    packed = (own.top - finite(top)).exp().mT * _pack(own)[..., :-1]  # (B, U, K, V + 1)
    sums, norm = collectives.total(packed, group).split((own.sums.shape[-1], 1), -1)
    return ScanState(sums, norm.mT, top)


def earlier(own: ScanState, group: dist.ProcessGroup, linked: Bool[Tensor, "P B"] | None = None) -> ScanState:
    """What queries of this chunk see of all earlier ones, or those linked with it, from the summary of this one."""
    everyone = collectives.gathered(_pack(own), group)  # (P, B, U, K, V + 2)
    if linked is None:
        linked = (torch.arange(group.size(), device=everyone.device) < group.rank())[:, None]
    return _together(everyone, linked)


def _together(everyone: Float[Tensor, "P B U K V_2"], linked: Bool[Tensor, "P B"]) -> ScanState:
    """The sum of those summaries that are linked, of which none leaves zeros."""
    # Others count nothing but stay in the graph: all processes take part in its backward pass.
    others = ~linked[:, :, None, None, None]
    tops = everyone[..., -1:].detach().masked_fill(others, -torch.inf)  # (P, B, U, K, 1)
    top = tops.amax(0)
    total = (everyone[..., :-1].masked_fill(others, 0) * (tops - finite(top)).exp()).sum(0)
    return ScanState(total[..., :-1].contiguous(), total[..., -1:].mT.contiguous(), top.mT.contiguous())


def _pack(state: ScanState) -> Float[Tensor, "B U K V_2"]:
    """A summary in one tensor, (B, U, K, V + 2)."""
    return torch.cat([state.sums, state.norm.mT, state.top.mT], -1)
