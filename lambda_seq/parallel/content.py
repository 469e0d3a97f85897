"""The content lambda of a sequence that several processes share: k · (v + 2) numbers each, whatever the length.

Each process sums up its chunk, S = Σ_m p_m v_mᵀ and D, with p and D as in `functional.scan`. All together the sums are
the content lambda's; those of earlier processes are the state that a causal scan begins with.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor

from lambda_seq.functional.content import apply
from lambda_seq.functional.naive import inverse_root
from lambda_seq.functional.operators import without_autocast
from lambda_seq.functional.scan import ScanState, scan
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

    Packed documents, each as if it stood alone, if causal.
    """
    key = _shown(key, mask, key_norm)
    wide = torch.promote_types(query.dtype, torch.float32)
    with without_autocast(query.device):
        last = key if packing is None else _shown(key, packing.in_tail, key_norm)  # what later chunks see
        sums, norm, top = summary(last.to(wide), value.to(wide), key_norm)
        if not causal:
            shrink = (top - _finite(collectives.greatest(top, group))).exp()
            packed = shrink.unsqueeze(-1) * torch.cat([sums, norm.unsqueeze(-1)], -1)  # (B, U, K, V + 1)
            sums, norm = collectives.total(packed, group).split((value.shape[-1], 1), -1)
            lambdas = (sums * _scale(norm, key_norm)).sum(1)  # (B, K, V)
            beside = None if position is None else position.unsqueeze(2)
            return apply(query.unsqueeze(2), lambdas, beside).squeeze(2)
        before = earlier(sums, norm, top, group, None if packing is None else packing.linked)
        if packing is None:
            output = _scan(query, key, value, key_norm, before)
        else:
            output = _packed(query, key, value, key_norm, before, packing)
    return output if position is None else output + position


def _packed(
    query: Tensor, key: Tensor, value: Tensor, key_norm: str, before: ScanState, packing: SplitPacking
) -> Float[Tensor, "B H N V"]:
    """A scan of each document, of which a row's first one goes on from `before`."""
    if packing.plain:  # no more than one document in a row, which need not be the one that goes on
        return _scan(query, key, value, key_norm, _where(packing.head >= 0, before))
    outputs = []
    split = (packing.split(tensor.transpose(1, 2)) for tensor in (query, key, value))
    for *parts, bucket in zip(*split, packing.buckets, strict=True):
        q, k, v = (part.transpose(1, 2) for part in parts)  # (D', ·, L, ·)
        rows = packing.rows[bucket.documents]
        state = ScanState(*(tensor[rows] for tensor in (before.sums, before.norm, before.top)))
        state = _where(packing.head[rows] == bucket.documents, state)
        outputs.append(_scan(q, _shown(k, bucket.mask, key_norm), v, key_norm, state).transpose(1, 2))
    return packing.merge(outputs).transpose(1, 2)


def _scan(query: Tensor, key: Tensor, value: Tensor, key_norm: str, before: ScanState) -> Tensor:
    return scan(query.unsqueeze(2), key.unsqueeze(2), value.unsqueeze(2), key_norm, before).squeeze(2)


def _where(goes_on: Bool[Tensor, " D"], state: ScanState) -> ScanState:
    """The state, and for those that do not go on the one before any position."""
    new = ~goes_on[:, None, None, None]
    return ScanState(
        state.sums.masked_fill(new, 0), state.norm.masked_fill(new, 0), state.top.masked_fill(new, -torch.inf)
    )


def _shown(key: Tensor, mask: Tensor | None, key_norm: str) -> Tensor:
    """Keys (B, U, N, K) that weigh nothing where the mask (B, N) hides them."""
    if mask is None:
        return key
    return key.masked_fill(~mask[:, None, :, None], -torch.inf if key_norm == "softmax" else 0.0)


def summary(key: Tensor, value: Tensor, key_norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """S (B, U, K, V), D (B, U, K) and the maximum (B, U, K) to which a softmax's are relative, of one chunk."""
    top = key.new_zeros(key.shape[0], key.shape[1], key.shape[3])
    norm = top
    if key_norm == "softmax":
        top = key.detach().amax(2)
        key = (key - _finite(top).unsqueeze(2)).exp()
        norm = key.sum(2)
    elif key_norm == "l2":
        norm = key.square().sum(2)
    return key.mT @ value, norm, top


def earlier(
    sums: Tensor,
    norm: Tensor,
    top: Tensor,
    group: dist.ProcessGroup,
    linked: Bool[Tensor, "P B"] | None = None,
) -> ScanState:
    """What queries of this chunk see of all earlier ones, or those linked with it, from the summary of this one."""
    packed = torch.cat([sums, norm.unsqueeze(-1), top.unsqueeze(-1)], -1)  # (B, U, K, V + 2)
    everyone = collectives.gathered(packed, group)  # (P, B, U, K, V + 2)
    if linked is None:
        linked = (torch.arange(group.size(), device=sums.device) < group.rank())[:, None]
    # Others count nothing but stay in the graph: all processes take part in its backward pass.
    others = ~linked[:, :, None, None, None]
    tops = everyone[..., -1].detach().masked_fill(others[..., 0], -torch.inf)  # (P, B, U, K)
    top = tops.amax(0)
    shrink = (tops - _finite(top)).exp().unsqueeze(-1)
    total = (everyone[..., :-1].masked_fill(others, 0) * shrink).sum(0)
    return ScanState(total[..., :-1].contiguous(), total[..., -1].unsqueeze(2), top.unsqueeze(2))


def _finite(top: Tensor) -> Tensor:
    """Where nothing is visible, any reference will do."""
    return torch.where(top.isneginf(), 0, top)


def _scale(norm: Tensor, key_norm: str) -> Tensor:
    """1 / d of the whole sequence."""
    if key_norm == "softmax":
        return 1 / torch.where(norm > 0, norm, 1)
    return inverse_root(norm) if key_norm == "l2" else torch.ones_like(norm)
