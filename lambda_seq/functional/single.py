"""The position lambda of one query: weights for the offsets it meets, then the values at these."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lambda_seq.functional.operators import cast, without_autocast


def look_up(
    query: Float[Tensor, "B H 1 K"],
    embedding: Float[Tensor, "U K R"],
    context: Float[Tensor, "B U R V"],
    dtype: torch.dtype,
) -> Float[Tensor, "B H 1 V"]:
    """Σ_u Σ_r (q · R_u[r]) c_u[r] in this dtype, h · R · (k + v) multiply-adds for U = 1."""
    with without_autocast(query.device):
        taps = cast(embedding, dtype).transpose(0, 1).flatten(1)  # (K, U·R)
        weights = cast(query, dtype).squeeze(2) @ taps  # (B, H, U·R)
        output = weights @ cast(context, dtype).flatten(1, 2)  # (B, H, V)
    return cast(output, query.dtype).unsqueeze(2)
