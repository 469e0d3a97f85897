"""The content lambda beside a position lambda, in kernels that write the output of both in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from lambda_seq.functional import summing
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work


def pointers(embedding: Tensor, content: Tensor | None) -> tuple[Tensor, Tensor]:
    """Embedding and content lambda, contiguous; where there is none, a tensor in its place that no kernel reads."""
    embedding = embedding.contiguous()
    return embedding, embedding if content is None else content.to(torch.float32).contiguous()


def grad_content(query: Tensor, grad: Tensor) -> Tensor:
    """Gradient of the content lambda, Σ_nh q_n^h g_n^hᵀ, (B, K, V): a split reduction, of tensors (B, Y, X, H, ·)."""
    return summing.product(query.flatten(1, 3), grad.flatten(1, 3))


def count_content(s: Sizes) -> Work:
    """Work of `grad_content`."""
    return summing.count(s.B, s.Y * s.X * s.H, s.K, s.V)
