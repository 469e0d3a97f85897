"""Lambda order in blocks: one Toeplitz matrix shared by all blocks, for local scope.

    λᵖ of a block of B positions = T (B·k × context) · window (context × v)          y_n^h = (λᵖ_n)ᵀ q_n^h

n · r · k · v multiply-adds: fewer than the weight order where heads are many and values are few, h (k + v) > k · v.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lambda_seq.functional.banded import block_length, by_offset
from lambda_seq.functional.operators import (
    channels_first,
    channels_last,
    compute_dtype,
    multiply_into,
)
from lambda_seq.functional.windows import Windows


def _setup(query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> tuple[Tensor, Tensor, Windows]:
    """Query (B, Y, blocks·block, H, K), the Toeplitz matrix (1, B·K, context) and the windows."""
    dtype = compute_dtype(query.dtype, query.device)
    _, dim_key, rows, columns = embedding.shape
    block = block_length(columns, query.shape[3])
    context = rows * (block + columns - 1) * value.shape[1]
    largest = max(block * dim_key, context) * value.shape[-1]
    windows = Windows(channels_last(value), (rows, columns), (origin[0], origin[1]), block, largest, query.shape[1])
    matrix = torch.zeros(1, block * dim_key, windows.context, dtype=dtype, device=query.device)
    place = by_offset(matrix, windows, dim_key)  # (1, B, K, RY, RX·U)
    place.copy_(embedding.permute(1, 2, 3, 0).flatten(2))
    return windows.pad_columns(channels_last(query)), matrix, windows


def forward(query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> Tensor:
    """Position part of the output, (B, H, Y, X, V); arguments as in `operators.position_operator`."""
    columns, dim_key = query.shape[3], query.shape[-1]
    query, matrix, windows = _setup(query, value, embedding, origin)
    output = query.new_empty(*query.shape[:-1], value.shape[-1])  # (B, Y, blocks·block, H, V)
    for chunk in windows.chunks():
        values = windows.values(chunk, matrix.dtype)  # (blocks, context, V)
        lambdas = torch.matmul(matrix, values).view(-1, dim_key, values.shape[-1])  # (blocks·B, K, V)
        queries = windows.select(query, chunk).to(matrix.dtype).flatten(0, 2)  # (blocks·B, H, K)
        multiply_into(windows.select(output, chunk), queries, lambdas)
    return channels_first(output[:, :, :columns].contiguous())


def backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, value and embedding; the lambdas are computed again, chunk by chunk."""
    columns, dim_key = query.shape[3], query.shape[-1]
    query, matrix, windows = _setup(query, value, embedding, origin)
    grad = windows.pad_columns(channels_last(grad))
    grad_query = torch.empty_like(query)
    grad_value = windows.new_gradient(matrix.dtype)
    # Summed over all positions, so never in half precision
    grad_matrix = torch.zeros_like(matrix, dtype=torch.promote_types(matrix.dtype, torch.float32))
    for chunk in windows.chunks():
        values = windows.values(chunk, matrix.dtype)  # (blocks, context, V)
        lambdas = torch.matmul(matrix, values).view(-1, dim_key, values.shape[-1])  # (blocks·B, K, V)
        queries = windows.select(query, chunk).to(matrix.dtype).flatten(0, 2)  # (blocks·B, H, K)
        grads = windows.select(grad, chunk).to(matrix.dtype).flatten(0, 2)  # (blocks·B, H, V)
        multiply_into(windows.select(grad_query, chunk), grads, lambdas.mT)
        torch.bmm(queries.mT, grads, out=lambdas)
        grad_lambdas = lambdas.view(values.shape[0], -1, values.shape[-1])  # (blocks, B·K, V)
        windows.add(grad_value, torch.matmul(matrix.mT, grad_lambdas), chunk)
        grad_matrix += torch.einsum("bpv,bcv->pc", grad_lambdas, values)
    # The matrix holds the embedding once per position of a block.
    grad_offsets = by_offset(grad_matrix, windows, dim_key).sum((0, 1))  # (K, RY, RX·U)
    intra, _, *scope = embedding.shape
    return (
        channels_first(grad_query[:, :, :columns].contiguous()),
        channels_first(windows.unpad(grad_value).to(value.dtype).contiguous()),
        grad_offsets.view(dim_key, *scope, intra).permute(3, 0, 1, 2).to(embedding.dtype).contiguous(),
    )
