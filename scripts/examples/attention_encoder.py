"""The encoder with attention where it has lambda layers: a network of one's own on the command line of lambda-seq.

All else is equal: stem, feed-forward, norms, pool, head, data and training. Attention is PyTorch's fused kernel, whose
queries and keys are rotated by their positions (J. Su et al., "RoFormer", 2021).

    python scripts/examples/attention_encoder.py fit --config pixels --data.path PATH --model.network attention_encoder
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lambda_seq.models import LambdaEncoder, register_model
from lambda_seq.models.sequence.blocks import LambdaMixing
from lambda_seq.tasks.cli import main

BASE = 10_000.0  # of the wavelengths by which positions rotate


class Attention(nn.Module):
    """Multi-head self-attention of a sequence; padding is not seen.

    Args:
        dim: channels, a multiple of twice the heads.
        heads: number of them.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise ValueError(f"dim={dim}, heads={heads}: expected a multiple of {2 * heads}, as pairs are rotated")
        self.dim = self.dim_out = dim
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None, documents: object = None) -> Tensor:
        """(B, N, dim) to as many; mask (B, N) is True at real positions."""
        if documents is not None:
            raise ValueError("documents: attention of this example sees whole rows, so give each document its own")
        query, key, value = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, N, d)
        seen = None if mask is None else mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(rotated(query), rotated(key), value, attn_mask=seen)
        return mixed.transpose(1, 2).flatten(2)  # (B, N, dim)


def rotated(x: Tensor) -> Tensor:
    """Vectors (B, H, N, d) turned by their position, each pair of channels by a wavelength of its own."""
    length, width = x.shape[-2:]
    exact = torch.promote_types(x.dtype, torch.float32)  # halves cannot tell far positions apart
    rates = BASE ** -torch.linspace(0, 1, width // 2, dtype=exact, device=x.device)  # of angle, per position
    angle = torch.arange(length, device=x.device)[:, None] * rates  # (N, d / 2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


@register_model("attention_encoder")
class AttentionEncoder(LambdaEncoder):
    """`LambdaEncoder` whose blocks attend; options of the lambda layers alone, such as scope, change nothing."""

    def __init__(self, *, heads: int = 4, **options: Any) -> None:
        super().__init__(heads=heads, **(options | {"position": False, "scope": None}))
        for block in self.blocks:
            mixing = LambdaMixing(Attention(self.dim, heads), "none")  # type: ignore[arg-type]
            mixing.out = block.mixing.out
            block.mixing = mixing


if __name__ == "__main__":
    main()
