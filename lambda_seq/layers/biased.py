"""A lambda layer whose position lambdas have a bias, as in the published PyTorch layers, for their weights."""

from __future__ import annotations

from typing import Unpack

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import LambdaLayer2d
from lambda_seq.layers.options import ImageLayerOptions, with_options


@with_options
class BiasedLambdaLayer2d(LambdaLayer2d):
    """`LambdaLayer2d` with a bias b (K) in its position lambdas, (B, dim, H, W) -> (B, dim_out, H, W).

        y_n^h = (λᶜ + λᵖ_n + b 1ᵀ)ᵀ q_n^h

    A local scope as a convolution with torch's default of a bias computes this (timm, lambda-networks); the layer's
    definition (Bello 2021) has none, so choose it for their weights only. Zero at initialisation.

    Args:
        dim: input channels.
        dim_out: output channels; None for `dim`.
        **options: of `layers.options.ImageLayerOptions`.
    """

    def __init__(self, dim: int, dim_out: int | None = None, **options: Unpack[ImageLayerOptions]) -> None:
        super().__init__(dim, dim_out, **options)
        self.position_bias = nn.Parameter(torch.zeros(self.dim_key))

    def reset_parameters(self) -> None:
        """Draw the projections anew, and zero the bias."""
        super().reset_parameters()
        nn.init.zeros_(self.position_bias)

    def forward(  # type: ignore[override]  # images have no documents
        self, x: Float[Tensor, "B dim H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B out H W"]:
        """Mix a batch of images; `mask` (B, H, W) is True at real positions. Errors: `LambdaLayer.forward`."""
        self._check(x, mask)
        x = x.movedim(1, -1)  # (B, H, W, dim)
        query, key, value, embedding = self._inputs(x, mask, x.shape[1:-1])
        output = LF.lambda_layer(
            query, key, value, embedding, mask=mask, key_norm=self.key_norm, algorithm=self.algorithm
        )  # (B, heads, H, W, V)
        biased = (query @ self.position_bias.to(query.dtype)).unsqueeze(-1)  # (B, heads, H, W, 1)
        if mask is not None:  # an image without a real position gives zeros
            biased = torch.where(mask.any((1, 2))[:, None, None, None, None], biased, 0)
        return rearrange(output + biased, "b head h w v -> b h w (head v)").movedim(-1, 1)
