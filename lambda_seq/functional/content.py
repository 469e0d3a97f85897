"""The content lambda: one for all positions, or, causal, a scan over chunks of positions.

λᶜ = Σ_u K̄_uᵀ V_u          y_n^h = (λᶜ)ᵀ q_n^h                        n · (k + h · k) · v multiply-adds
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lambda_seq.functional import triton_content, triton_scan  # noqa: F401  # register themselves
from lambda_seq.functional.operators import channels_last, without_autocast
from lambda_seq.functional.reference import inverse_root
from lambda_seq.functional.scan import ScanState, scan
from lambda_seq.functional.summaries import PART, even, recorded, summary


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
        key = hide(key, mask, key_norm)
    if causal:
        output, _ = scan(query.squeeze(2), key.squeeze(2), value.squeeze(2), key_norm)
        return output.unsqueeze(2) if position is None else output.unsqueeze(2) + position
    key, value = (tensor.flatten(2, 3) for tensor in (key, value))  # (B, U, M, ·)
    with without_autocast(query.device):
        return apply(query, content_lambda(summary(key, value, key_norm), key_norm), position)


def hide(key: Float[Tensor, "B U *N K"], mask: Bool[Tensor, "B *N"], key_norm: str) -> Float[Tensor, "B U *N K"]:
    """Keys that weigh nothing, exactly, where the mask is False."""
    return key.masked_fill(~mask[:, None, ..., None], -torch.inf if key_norm == "softmax" else 0.0)


def content_lambda(state: ScanState, key_norm: str) -> Float[Tensor, "B K V"]:
    """The content lambda of all the positions of a state, λᶜ = Σ_u S / d; zero if there are none."""
    sums, norm = state.sums, state.norm
    if key_norm == "softmax":
        sums = sums / torch.where(norm > 0, norm, 1).mT
    elif key_norm == "l2":
        sums = sums * inverse_root(norm).mT
    return sums.sum(1)


def apply(
    query: Float[Tensor, "B H Y X K"],
    lambdas: Float[Tensor, "B K V"],
    position: Float[Tensor, "B H Y X V"] | None = None,
) -> Float[Tensor, "B H Y X V"]:
    """One lambda for all queries, λᵀ q_n^h, added to the position part."""
    wide = torch.promote_types(query.dtype, torch.float32)
    low = wide if query.device.type == "cpu" else query.dtype  # a CPU has no fast half precision products
    queries = channels_last(query).flatten(1, 3).to(low)  # (B, Y·X·H, K)
    bias = None if position is None else channels_last(position).flatten(1, 3).to(low)  # (B, Y·X·H, V)
    output = _by_parts(queries, lambdas.to(low), bias)
    batch, heads, rows, columns, _ = query.shape
    return output.to(query.dtype).view(batch, rows, columns, heads, lambdas.shape[-1]).permute(0, 3, 1, 2, 4)


def _by_parts(queries: Tensor, lambdas: Tensor, bias: Tensor | None) -> Tensor:
    """queries @ lambdas + bias, by parts of the rows: so the gradient of the lambdas is a sum of sums."""
    rows = queries.shape[1]
    if recorded() or rows < 2 * PART:
        # With a bias in one go: one large temporary less than a sum of two outputs
        return torch.bmm(queries, lambdas) if bias is None else torch.baddbmm(bias, queries, lambdas)
    part = even(rows)
    whole = rows - rows % part
    parts = [tensor[:, :whole].reshape(-1, part, tensor.shape[-1]) for tensor in (queries, bias) if tensor is not None]
    repeated = lambdas.repeat_interleave(whole // part, 0)  # (B · parts, K, V)
    output = torch.bmm(parts[0], repeated) if bias is None else torch.baddbmm(parts[1], parts[0], repeated)
    output = output.view(queries.shape[0], whole, -1)
    if whole == rows:
        return output
    rest = _by_parts(queries[:, whole:], lambdas, None if bias is None else bias[:, whole:])
    return torch.cat([output, rest], 1)
