"""Lambda order in blocks: one Toeplitz matrix shared by all blocks, for local scope.

    λᵖ of a block of B positions = T (B·k × context) · window (context × v)          y_n^h = (λᵖ_n)ᵀ q_n^h

n · r · k · v multiply-adds: fewer than the weight order where heads are many and values are few, h (k + v) > k · v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lambda_seq.functional.operators import channels_first, channels_last, compute_dtype, multiply_into
from lambda_seq.functional.position.banded import block_length, by_offset
from lambda_seq.functional.position.registry import Algorithm, register
from lambda_seq.functional.position.windows import CHUNK, Blocks, Geometry, Windows, context
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work, product


def _geometry(s: Sizes) -> Geometry:
    block = block_length(s.RX, s.X)
    return s, block, max(block * s.K, context(s, block)) * s.V  # lambdas, or a window


def _setup(query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor, Windows]:
    """Query (B, Y, blocks·block, H, K), the Toeplitz matrix (1, B·K, context) and the windows."""
    dtype = compute_dtype(query.dtype, query.device)
    windows = Windows(_geometry(sizes), channels_last(value))
    matrix = torch.zeros(1, windows.block * sizes.K, windows.context, dtype=dtype, device=query.device)
    place = by_offset(matrix, windows, sizes.K)  # (1, B, K, RY, RX·U)
    place.copy_(embedding.permute(1, 2, 3, 0).flatten(2))
    return windows.pad_columns(channels_last(query)), matrix, windows


def forward(query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes) -> Tensor:
    """Position part of the output, (B, H, Y, X, V); arguments as in `registry.Algorithm`."""
    query, matrix, windows = _setup(query, value, embedding, sizes)
    output = query.new_empty(*query.shape[:-1], value.shape[-1])  # (B, Y, blocks·block, H, V)
    for chunk in windows.chunks():
        values = windows.seen(chunk, matrix.dtype)  # (blocks, context, V)
        lambdas = torch.matmul(matrix, values).view(-1, sizes.K, values.shape[-1])  # (blocks·B, K, V)
        queries = windows.select(query, chunk).to(matrix.dtype).flatten(0, 2)  # (blocks·B, H, K)
        multiply_into(windows.select(output, chunk), queries, lambdas)
    return channels_first(output[:, :, : sizes.X].contiguous())


def backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, value and embedding; the lambdas are computed again, chunk by chunk."""
    query, matrix, windows = _setup(query, value, embedding, sizes)
    grad = windows.pad_columns(channels_last(grad))
    grad_query = torch.empty_like(query)
    grad_value = windows.new_gradient(matrix.dtype)
    # Summed over all positions, so never in half precision
    grad_matrix = torch.zeros_like(matrix, dtype=torch.promote_types(matrix.dtype, torch.float32))
    for chunk in windows.chunks():
        values = windows.seen(chunk, matrix.dtype)  # (blocks, context, V)
        lambdas = torch.matmul(matrix, values).view(-1, sizes.K, values.shape[-1])  # (blocks·B, K, V)
        queries = windows.select(query, chunk).to(matrix.dtype).flatten(0, 2)  # (blocks·B, H, K)
        grads = windows.select(grad, chunk).to(matrix.dtype).flatten(0, 2)  # (blocks·B, H, V)
        multiply_into(windows.select(grad_query, chunk), grads, lambdas.mT)
        torch.bmm(queries.mT, grads, out=lambdas)
        grad_lambdas = lambdas.view(values.shape[0], -1, values.shape[-1])  # (blocks, B·K, V)
        windows.add(grad_value, torch.matmul(matrix.mT, grad_lambdas), chunk)
        grad_matrix += torch.einsum("bpv,bcv->pc", grad_lambdas, values)
    # The matrix holds the embedding once per position of a block.
    grad_offsets = by_offset(grad_matrix, windows, sizes.K).sum((0, 1))  # (K, RY, RX·U)
    intra, _, *scope = embedding.shape
    return (
        channels_first(grad_query[:, :, : sizes.X].contiguous()),
        channels_first(windows.unpad(grad_value).to(value.dtype).contiguous()),
        grad_offsets.view(sizes.K, *scope, intra).permute(3, 0, 1, 2).to(embedding.dtype).contiguous(),
    )


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work, and floats of temporaries; with the backward pass or without."""
    blocks = Blocks(*_geometry(s))
    chunks, positions, matrix = len(blocks.cuts), blocks.count * blocks.block, blocks.block * s.K * blocks.context
    lambdas = product(blocks.count, blocks.block * s.K, s.V, blocks.context)
    # Products of single positions, (H, K) × (K, V): the loop over them costs more than their arithmetic.
    apply = Work(products=3 * positions * s.H * s.K * s.V, streamed=2 * positions * s.K * s.V)
    work = blocks.layout() + lambdas + apply + Work(streamed=2 * positions * s.H * s.V, calls=6 * chunks)
    temporary = blocks.padded + 2 * s.chunk(CHUNK) + matrix
    if backward:
        transpose = Work(streamed=2 * blocks.count * (blocks.block * s.K + blocks.context) * s.V)
        work += blocks.layout() + lambdas * 3 + apply * 2 + blocks.overlap() + transpose + Work(calls=14 * chunks)
        temporary = 2 * blocks.padded + 4 * s.chunk(CHUNK) + 2 * matrix
    return work, temporary


register(Algorithm("toeplitz", "lambdas by one Toeplitz matrix, block by block", forward, backward, count))
