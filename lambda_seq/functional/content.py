"""The content lambda: one for all positions, or, causal, a scan over chunks of positions.

λᶜ = Σ_u K̄_uᵀ V_u          y_n^h = (λᶜ)ᵀ q_n^h                        n · (k + h · k) · v multiply-adds
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lambda_seq.functional.naive import inverse_root
from lambda_seq.functional.operators import channels_last, without_autocast
from lambda_seq.functional.scan import scan


def content(
    query: Float[Tensor, "B H Y X K"],
    key: Float[Tensor, "B U Y X K"],
    value: Float[Tensor, "B U Y X V"],
    mask: Bool[Tensor, "B Y X"] | None,
    causal: bool,
    key_norm: str,
    position: Float[Tensor, "B H Y X V"] | None = None,
) -> Float[Tensor, "B H Y X V"]:
    """Content part of the output, added to the position part; `value` is zero at masked positions already.

    Sums over positions, and the softmax, run in float32 at least, whatever the dtype.
    """
    if mask is not None:
        # Under softmax a masked key weighs nothing, exactly; under the others it is zero.
        hidden = -torch.inf if key_norm == "softmax" else 0.0
        key = key.masked_fill(~mask[:, None, ..., None], hidden)
    if causal:
        output = scan(query, key, value, key_norm)
        return output if position is None else output + position
    key, value = (tensor.flatten(2, 3) for tensor in (key, value))  # (B, U, M, ·)
    wide = torch.promote_types(query.dtype, torch.float32)
    with without_autocast(query.device):
        lambdas = torch.einsum("bumk,bumv->bkv", _normalise(key.to(wide), mask, key_norm), value.to(wide))
        return apply(query, lambdas, position)


def apply(
    query: Float[Tensor, "B H Y X K"],
    lambdas: Float[Tensor, "B K V"],
    position: Float[Tensor, "B H Y X V"] | None = None,
) -> Float[Tensor, "B H Y X V"]:
    """One lambda for all queries, λᵀ q_n^h, added to the position part."""
    wide = torch.promote_types(query.dtype, torch.float32)
    low = wide if query.device.type == "cpu" else query.dtype  # a CPU has no fast half precision products
    queries = channels_last(query).flatten(1, 3).to(low)  # (B, Y·X·H, K)
    if position is None:
        output = torch.bmm(queries, lambdas.to(low))
    else:  # in one go: one large temporary less than a sum of two outputs
        output = torch.baddbmm(channels_last(position).flatten(1, 3).to(low), queries, lambdas.to(low))
    batch, heads, rows, columns, _ = query.shape
    return output.to(query.dtype).view(batch, rows, columns, heads, lambdas.shape[-1]).permute(0, 3, 1, 2, 4)


def _normalise(key: Tensor, mask: Tensor | None, key_norm: str) -> Tensor:
    """K̄ (B, U, M, K) over all positions."""
    if key_norm == "softmax":
        if mask is not None:
            # Rows without a real position would be 0 / 0; their values are zero, so any finite weight will do.
            key = key.masked_fill(~mask.flatten(1).any(1)[:, None, None, None], 0)
        return key.softmax(2)
    if key_norm == "l2":
        return key * inverse_root(key.square().sum(2, keepdim=True))
    return key
