"""Weight order in blocks: relative attention without softmax, for local scope.

    w[n, h, δ] = q_n^h · R[δ]          y_n^h = Σ_δ w[n, h, δ] V[n + δ]

n · r · h · (k + v) multiply-adds and nothing of size n · k · v. For a block of B positions the weights form a band in a
(B·h) × (B + r − 1) matrix, so that the sum over δ is a matrix product. Putting the weights into the band costs one
copy: with rows of one element more than the matrix has, weight δ of row i lands in column i + δ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lambda_seq.functional.operators import (
    channels_first,
    channels_last,
    compute_dtype,
    multiply_into,
)
from lambda_seq.functional.windows import Chunk, Windows


def block_length(scope: int, columns: int) -> int:
    """Queries per block: long enough for good matrix products, short enough that the band fills its matrix."""
    wanted = 8 if scope <= 8 else 16 if scope <= 64 else 32 if scope <= 512 else 64
    return min(wanted, columns)


def largest_temporary(block: int, heads: int, dim_value: int, context: int) -> int:
    """Floats that one block needs: its weights, its outputs, or the gradient of its window."""
    return max(block * heads * context, block * heads * dim_value, context * dim_value)


def by_offset(matrices: Tensor, windows: Windows, heads: int) -> Tensor:
    """The band of (blocks, B·H, context) matrices by offset, (blocks, B, H, RY, RX·U): a view of the same memory."""
    shape = (matrices.shape[0], windows.block, heads, windows.scope_rows, windows.scope_columns * windows.intra)
    # From one position to the next: all heads' rows, and one column (of U values) to the right.
    position = heads * windows.context + windows.intra
    return matrices.as_strided(shape, (matrices.stride(0), position, windows.context, windows.width * windows.intra, 1))


def new_matrices(windows: Windows, heads: int, like: Tensor) -> Tensor:
    """Zero (blocks, B·H, context) matrices for one chunk; only the band is ever written, so they serve all chunks."""
    return like.new_zeros(windows.per_chunk, windows.block * heads, windows.context)


def _setup(query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> tuple[Tensor, Tensor, Windows]:
    """Query (B, Y, blocks·block, H, K), offsets (K, RY·RX·U) and the windows."""
    dtype = compute_dtype(query.dtype, query.device)
    _, _, rows, columns = embedding.shape
    block = block_length(columns, query.shape[3])
    heads, dim_value, intra = query.shape[1], value.shape[-1], value.shape[1]
    largest = largest_temporary(block, heads, dim_value, rows * (block + columns - 1) * intra)
    windows = Windows(channels_last(value), (rows, columns), (origin[0], origin[1]), block, largest, heads)
    offsets = embedding.permute(1, 2, 3, 0).flatten(1).to(dtype)  # (K, RY·RX·U)
    return windows.pad_columns(channels_last(query)), offsets, windows


def _queries(query: Tensor, windows: Windows, chunk: Chunk, dtype: torch.dtype) -> Tensor:
    """(blocks·B·H, K) of a chunk."""
    return windows.select(query, chunk).to(dtype).reshape(-1, query.shape[-1])


def forward(query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> Tensor:
    """Position part of the output, (B, H, Y, X, V); arguments as in `operators.position_operator`."""
    heads, columns = query.shape[1], query.shape[3]
    dtype = compute_dtype(query.dtype, query.device)
    query, offsets, windows = _setup(query, value, embedding, origin)
    band = new_matrices(windows, heads, offsets)
    output = query.new_empty(*query.shape[:-1], value.shape[-1])  # (B, Y, blocks·block, H, V)
    for chunk in windows.chunks():
        values = windows.values(chunk, dtype)  # (blocks, context, V)
        matrices = band[: values.shape[0]]
        weights = by_offset(matrices, windows, heads)
        weights.copy_((_queries(query, windows, chunk, dtype) @ offsets).view(weights.shape))
        multiply_into(windows.select(output, chunk), matrices, values)
    return channels_first(output[:, :, :columns].contiguous())


def backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, value and embedding; the weights are computed again, chunk by chunk."""
    heads, columns = query.shape[1], query.shape[3]
    dtype = compute_dtype(query.dtype, query.device)
    query, offsets, windows = _setup(query, value, embedding, origin)
    grad = windows.pad_columns(channels_last(grad))
    band = new_matrices(windows, heads, offsets)
    grad_query = torch.empty_like(query)
    grad_value = windows.new_gradient(dtype)
    # Summed over all positions, so never in half precision
    grad_offsets = torch.zeros_like(offsets, dtype=torch.promote_types(dtype, torch.float32))
    for chunk in windows.chunks():
        values = windows.values(chunk, dtype)  # (blocks, context, V)
        grads = windows.select(grad, chunk).to(dtype).reshape(values.shape[0], -1, values.shape[-1])  # (blocks, B·H, V)
        queries = _queries(query, windows, chunk, dtype)
        matrices = band[: values.shape[0]]
        weights = by_offset(matrices, windows, heads)
        weights.copy_((queries @ offsets).view(weights.shape))
        windows.add(grad_value, torch.bmm(matrices.mT, grads), chunk)
        grad_matrices = torch.bmm(grads, values.mT)  # also outside the band, which is not read
        grad_weights = by_offset(grad_matrices, windows, heads).reshape(queries.shape[0], -1)
        multiply_into(windows.select(grad_query, chunk), grad_weights, offsets.mT)
        grad_offsets += queries.mT @ grad_weights
    intra, dim_key, *scope = embedding.shape
    return (
        channels_first(grad_query[:, :, :columns].contiguous()),
        channels_first(windows.unpad(grad_value).to(value.dtype).contiguous()),
        grad_offsets.view(dim_key, *scope, intra).permute(3, 0, 1, 2).to(embedding.dtype).contiguous(),
    )
