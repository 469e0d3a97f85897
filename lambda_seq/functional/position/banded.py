"""Weight order in blocks: relative attention without softmax, for local scope.

    w[n, h, δ] = q_n^h · R[δ]          y_n^h = Σ_δ w[n, h, δ] V[n + δ]

n · r · h · (k + v) multiply-adds and nothing of size n · k · v. For a block of B positions the weights form a band in a
(B·h) × (B + r − 1) matrix, so that the sum over δ is a matrix product. Putting the weights into the band costs one
copy: with rows of one element more than the matrix has, weight δ of row i lands in column i + δ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lambda_seq.functional.operators import channels_first, channels_last, compute_dtype, multiply_into
from lambda_seq.functional.position.registry import Algorithm, register
from lambda_seq.functional.position.windows import CHUNK, Blocks, Chunk, Geometry, Windows, context
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work, product


def block_length(scope: int, columns: int) -> int:
    """Queries per block: long enough for good matrix products, short enough that the band fills its matrix."""
    wanted = 8 if scope <= 8 else 16 if scope <= 64 else 32 if scope <= 512 else 64
    return min(wanted, columns)


def _geometry(s: Sizes) -> Geometry:
    block = block_length(s.RX, s.X)
    rows, seen = block * s.H, context(s, block)
    return s, block, max(rows * seen, rows * s.V, seen * s.V)  # weights, outputs, or the gradient of a window


def by_offset(matrices: Tensor, windows: Windows, heads: int) -> Tensor:
    """The band of (blocks, B·H, context) matrices by offset, (blocks, B, H, RY, RX·U): a view of the same memory."""
    s = windows.sizes
    shape = (matrices.shape[0], windows.block, heads, s.RY, s.RX * s.U)
    # From one position to the next: all heads' rows, and one column (of U values) to the right.
    position = heads * windows.context + s.U
    return matrices.as_strided(shape, (matrices.stride(0), position, windows.context, windows.width * s.U, 1))


def _new_matrices(windows: Windows, like: Tensor) -> Tensor:
    """Zero (blocks, B·H, context) matrices for one chunk; only the band is ever written, so they serve all chunks."""
    return like.new_zeros(math.prod(windows.cuts.largest), windows.block * windows.sizes.H, windows.context)


def _setup(query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor, Windows]:
    """Query (B, Y, blocks·block, H, K), offsets (K, RY·RX·U) and the windows."""
    dtype = compute_dtype(query.dtype, query.device)
    windows = Windows(_geometry(sizes), channels_last(value))
    offsets = embedding.permute(1, 2, 3, 0).flatten(1).to(dtype)  # (K, RY·RX·U)
    return windows.pad_columns(channels_last(query)), offsets, windows


def _queries(query: Tensor, windows: Windows, chunk: Chunk, dtype: torch.dtype) -> Tensor:
    """(blocks·B·H, K) of a chunk."""
    return windows.select(query, chunk).to(dtype).reshape(-1, query.shape[-1])


def forward(query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes) -> Tensor:
    """Position part of the output, (B, H, Y, X, V); arguments as in `registry.Algorithm`."""
    dtype = compute_dtype(query.dtype, query.device)
    query, offsets, windows = _setup(query, value, embedding, sizes)
    band = _new_matrices(windows, offsets)
    output = query.new_empty(*query.shape[:-1], value.shape[-1])  # (B, Y, blocks·block, H, V)
    for chunk in windows.chunks():
        values = windows.seen(chunk, dtype)  # (blocks, context, V)
        matrices = band[: values.shape[0]]
        weights = by_offset(matrices, windows, sizes.H)
        weights.copy_((_queries(query, windows, chunk, dtype) @ offsets).view(weights.shape))
        multiply_into(windows.select(output, chunk), matrices, values)
    return channels_first(output[:, :, : sizes.X].contiguous())


def backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, value and embedding; the weights are computed again, chunk by chunk."""
    dtype = compute_dtype(query.dtype, query.device)
    query, offsets, windows = _setup(query, value, embedding, sizes)
    grad = windows.pad_columns(channels_last(grad))
    band = _new_matrices(windows, offsets)
    grad_query = torch.empty_like(query)
    grad_value = windows.new_gradient(dtype)
    # Summed over all positions, so never in half precision
    grad_offsets = torch.zeros_like(offsets, dtype=torch.promote_types(dtype, torch.float32))
    for chunk in windows.chunks():
        values = windows.seen(chunk, dtype)  # (blocks, context, V)
        grads = windows.select(grad, chunk).to(dtype).reshape(values.shape[0], -1, values.shape[-1])  # (blocks, B·H, V)
        queries = _queries(query, windows, chunk, dtype)
        matrices = band[: values.shape[0]]
        weights = by_offset(matrices, windows, sizes.H)
        weights.copy_((queries @ offsets).view(weights.shape))
        windows.add(grad_value, torch.bmm(matrices.mT, grads), chunk)
        grad_matrices = torch.bmm(grads, values.mT)  # also outside the band, which is not read
        grad_weights = by_offset(grad_matrices, windows, sizes.H).reshape(queries.shape[0], -1)
        multiply_into(windows.select(grad_query, chunk), grad_weights, offsets.mT)
        grad_offsets += queries.mT @ grad_weights
    intra, dim_key, *scope = embedding.shape
    return (
        channels_first(grad_query[:, :, : sizes.X].contiguous()),
        channels_first(windows.unpad(grad_value).to(value.dtype).contiguous()),
        grad_offsets.view(dim_key, *scope, intra).permute(3, 0, 1, 2).to(embedding.dtype).contiguous(),
    )


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work, and floats of temporaries; with the backward pass or without."""
    blocks = Blocks(*_geometry(s))
    chunks, rows, taps = len(blocks.cuts), blocks.count * blocks.block * s.H, s.RY * s.RX * s.U
    weights = product(1, rows, taps, s.K) + Work(streamed=2 * rows * taps, calls=4 * chunks)
    apply = product(blocks.count, blocks.block * s.H, s.V, blocks.context)
    work = blocks.layout() + weights + apply + Work(streamed=2 * rows * s.V, calls=3 * chunks)
    temporary = blocks.padded + 2 * s.chunk(CHUNK)
    if backward:
        work += work + weights + apply + blocks.overlap() + product(1, rows, taps, s.K) + Work(calls=8 * chunks)
        temporary = 2 * blocks.padded + 4 * s.chunk(CHUNK)
    return work, temporary


register(Algorithm("banded", "weights in a band of a matrix, block by block", forward, backward, count))
