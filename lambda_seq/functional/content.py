"""The content lambda: one for all positions, or, causal, a scan over chunks of positions.

λᶜ = Σ_u K̄_uᵀ V_u          y_n^h = (λᶜ)ᵀ q_n^h                        n · (k + h · k) · v multiply-adds
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lambda_seq.functional import triton_content, triton_scan  # noqa: F401  # register themselves
from lambda_seq.functional.applying import apply
from lambda_seq.functional.operators import without_autocast
from lambda_seq.functional.reference import inverse_root
from lambda_seq.functional.scan import ScanState, scan
from lambda_seq.functional.summaries import summary


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
    if causal:
        key = key if mask is None else hide(key, mask, key_norm)
        output, _ = scan(query.squeeze(2), key.squeeze(2), value.squeeze(2), key_norm)
        return output.unsqueeze(2) if position is None else output.unsqueeze(2) + position
    lambdas = of_all(key, value, mask, key_norm)
    with without_autocast(query.device):
        return apply(query, lambdas, position)


def of_all(
    key: Float[Tensor, "B U Y X K"],
    value: Float[Tensor, "B U Y X V"],
    mask: Bool[Tensor, "B Y X"] | None,
    key_norm: str,
) -> Float[Tensor, "B K V"]:
    """The content lambda of all positions, in float32 at least; arguments as in `content`."""
    key = key if mask is None else hide(key, mask, key_norm)
    key, value = (tensor.flatten(2, 3) for tensor in (key, value))  # (B, U, M, ·)
    with without_autocast(key.device):
        return content_lambda(summary(key, value, key_norm), key_norm)


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
