"""Weight order row by row: every query of a chunk against every position, for global scope and small inputs.

    w[n, h, m] = q_n^h · R[m − n]          y_n^h = Σ_m w[n, h, m] V[m]

n² · h · (k + v) multiply-adds, in chunks of queries, so that memory stays linear. The products q · R come by offset,
m − n; read with a row stride of one element less they lie by position, m (the shift of Transformer-XL, here in two
dimensions too).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional.operators import (
    channels_first,
    channels_last,
    chunk_floats,
    compute_dtype,
    multiply_into,
)

CHUNK = 2**19  # floats of the weights of one chunk at most; measured


@dataclass(frozen=True)
class _Chunk:
    """Queries [rows × columns] of some batch entries, and the offsets that lead from them into the input."""

    batch: slice
    rows: slice
    columns: slice
    offset_rows: slice
    offset_columns: slice


class _Rows:
    """Queries (B, Y, X, H, K) and values (B, Y·X·U, V), with the offsets (K, 2Y − 1, 2X − 1, U) between them."""

    def __init__(self, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> None:
        self.dtype = compute_dtype(query.dtype, query.device)
        self.query = channels_last(query)
        self.batch, self.rows, self.columns, self.heads, self.dim_key = self.query.shape
        self.intra, self.dim_value = value.shape[1], value.shape[-1]
        self.value = channels_last(value).flatten(1, 3).to(self.dtype)  # (B, Y·X·U, V)
        self.scope = tuple(embedding.shape[2:])
        # Offset 0 in the middle of 2Y − 1 rows and 2X − 1 columns
        before = [length - 1 - first for length, first in zip((self.rows, self.columns), origin, strict=True)]
        after = [
            length - (taps - first)
            for length, taps, first in zip((self.rows, self.columns), self.scope, origin, strict=True)
        ]
        self.before = before
        padding = (0, 0, before[1], after[1], before[0], after[0])
        self.offsets = F.pad(embedding.permute(1, 2, 3, 0), padding).to(self.dtype)  # (K, 2Y − 1, 2X − 1, U)

    def chunks(self) -> Iterator[_Chunk]:
        row = self.columns * self.heads * self.rows * self.columns * self.intra  # weights of a row of queries
        most = chunk_floats(CHUNK, self.query.shape[:-1].numel() * self.dim_value)
        height = min(self.rows, max(1, most // row))
        width = self.columns if height > 1 else min(self.columns, max(1, most * self.columns // row))
        together = max(1, most // (row * self.rows)) if height == self.rows and width == self.columns else 1
        for first in range(0, self.batch, together):
            for top in range(0, self.rows, height):
                for left in range(0, self.columns, width):
                    bottom, right = min(top + height, self.rows), min(left + width, self.columns)
                    yield _Chunk(
                        slice(first, min(first + together, self.batch)),
                        slice(top, bottom),
                        slice(left, right),
                        slice(self.rows - bottom, 2 * self.rows - 1 - top),
                        slice(self.columns - right, 2 * self.columns - 1 - left),
                    )

    def chunk_offsets(self, offsets: Tensor, chunk: _Chunk) -> Tensor:
        return offsets[:, chunk.offset_rows, chunk.offset_columns]

    def by_position(self, weights: Tensor, chunk: _Chunk) -> Tensor:
        """(b, y, x, H, offset rows, offset columns, U) -> (b, y, x, H, Y, X, U), a view of the same memory."""
        batch, height, width = weights.shape[:3]
        columns = weights.shape[5]
        # The first query of the chunk reaches the first position by the last rows' and columns' worth of offsets.
        start = (height - 1) * columns * self.intra + (width - 1) * self.intra
        strides = list(weights.stride())
        strides[1] -= columns * self.intra
        strides[2] -= self.intra
        size = (batch, height, width, self.heads, self.rows, self.columns, self.intra)
        return weights.as_strided(size, strides, weights.storage_offset() + start)

    def weights(self, chunk: _Chunk) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (b·y·x·H, K), offsets (K, ...) and weights (b, y·x·H, Y·X·U) of a chunk."""
        query = self.query[chunk.batch, chunk.rows, chunk.columns].to(self.dtype)
        offsets = self.chunk_offsets(self.offsets, chunk)
        queries = query.reshape(-1, self.dim_key)
        products = (queries @ offsets.flatten(1)).view(*query.shape[:-1], *offsets.shape[1:])
        return queries, offsets, self.by_position(products, chunk).flatten(4).flatten(1, 3)


def forward(query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> Tensor:
    """Position part of the output, (B, H, Y, X, V); arguments as in `operators.position_operator`."""
    rows = _Rows(query, value, embedding, origin)
    output = query.new_empty(*rows.query.shape[:-1], rows.dim_value)  # (B, Y, X, H, V)
    for chunk in rows.chunks():
        _, _, weights = rows.weights(chunk)
        multiply_into(output[chunk.batch, chunk.rows, chunk.columns], weights, rows.value[chunk.batch])
    return channels_first(output)


def backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, value and embedding; the weights are computed again, chunk by chunk."""
    rows = _Rows(query, value, embedding, origin)
    grad = channels_last(grad)
    grad_query = torch.empty_like(rows.query)
    grad_value = torch.zeros_like(rows.value)
    # Summed over all positions, so never in half precision
    grad_offsets = torch.zeros_like(rows.offsets, dtype=torch.promote_types(rows.dtype, torch.float32))
    for chunk in rows.chunks():
        queries, offsets, weights = rows.weights(chunk)
        grads = grad[chunk.batch, chunk.rows, chunk.columns].to(rows.dtype)
        shape = grads.shape[:-1]
        grads = grads.flatten(1, 3)  # (b, y·x·H, V)
        grad_value[chunk.batch].baddbmm_(weights.mT, grads)
        # Offsets that lead out of the input keep a gradient of zero.
        grad_products = offsets.new_zeros(*shape, *offsets.shape[1:])
        place = rows.by_position(grad_products, chunk)
        place.copy_(torch.bmm(grads, rows.value[chunk.batch].mT).view(place.shape))
        grad_products = grad_products.view(queries.shape[0], -1)
        multiply_into(grad_query[chunk.batch, chunk.rows, chunk.columns], grad_products, offsets.flatten(1).mT)
        rows.chunk_offsets(grad_offsets, chunk).add_((queries.mT @ grad_products).view(offsets.shape))
    top, left = rows.before
    grad_offsets = grad_offsets[:, top : top + rows.scope[0], left : left + rows.scope[1]]
    return (
        channels_first(grad_query),
        channels_first(grad_value.view(rows.batch, rows.rows, rows.columns, rows.intra, -1).to(value.dtype)),
        grad_offsets.permute(3, 0, 1, 2).to(embedding.dtype).contiguous(),
    )
