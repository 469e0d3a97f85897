"""Weight order row by row: every query of a chunk against every position, for global scope and small inputs.

    w[n, h, m] = q_n^h · R[m − n]          y_n^h = Σ_m w[n, h, m] V[m]

n² · h · (k + v) multiply-adds, in chunks of queries, so that memory stays linear. The products q · R come by offset,
m − n; read with a row stride of one element less they lie by position, m (the shift of Transformer-XL, here in two
dimensions too).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional.operators import channels_first, channels_last, compute_dtype, multiply_into
from lambda_seq.functional.position.cuts import Cuts
from lambda_seq.functional.position.registry import Algorithm, register
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work, product

CHUNK = 2**19  # floats of the weights of one chunk at most; measured
ROW = 180  # what beginning a short row costs, in numbers of a long copy; measured


def _cuts(s: Sizes) -> Cuts:
    """Batch entries, rows and columns of queries whose weights are computed together."""
    row = s.X * s.H * s.Y * s.X * s.U  # weights of a row of queries
    most = s.chunk(CHUNK)
    height = min(s.Y, max(1, most // row))
    width = s.X if height > 1 else min(s.X, max(1, most * s.X // row))
    together = max(1, most // (row * s.Y)) if (height, width) == (s.Y, s.X) else 1
    return Cuts((s.B, together), (s.Y, height), (s.X, width))


def _offsets(s: Sizes, height: int, width: int) -> int:
    """How many offsets lead from a chunk of queries into the input, each with U values."""
    return (s.Y + height - 1) * (s.X + width - 1) * s.U


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

    def __init__(self, query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes) -> None:
        s = self.sizes = sizes
        self.dtype = compute_dtype(query.dtype, query.device)
        self.query = channels_last(query)
        self.value = channels_last(value).flatten(1, 3).to(self.dtype)  # (B, Y·X·U, V)
        # Offset 0 in the middle of 2Y − 1 rows and 2X − 1 columns
        top, left = self.before = s.Y - 1 - s.origin[0], s.X - 1 - s.origin[1]
        padding = (0, 0, left, 2 * s.X - 1 - s.RX - left, top, 2 * s.Y - 1 - s.RY - top)
        self.offsets = F.pad(embedding.permute(1, 2, 3, 0), padding).to(self.dtype)  # (K, 2Y − 1, 2X − 1, U)

    def chunks(self) -> Iterator[_Chunk]:
        s = self.sizes
        for batch, rows, columns in _cuts(s):
            offset_rows = slice(s.Y - rows.stop, 2 * s.Y - 1 - rows.start)
            yield _Chunk(batch, rows, columns, offset_rows, slice(s.X - columns.stop, 2 * s.X - 1 - columns.start))

    def chunk_offsets(self, offsets: Tensor, chunk: _Chunk) -> Tensor:
        return offsets[:, chunk.offset_rows, chunk.offset_columns]

    def by_position(self, weights: Tensor, chunk: _Chunk) -> Tensor:
        """(b, y, x, H, offset rows, offset columns, U) -> (b, y, x, H, Y, X, U), a view of the same memory."""
        batch, height, width = weights.shape[:3]
        columns = weights.shape[5]
        # The first query of the chunk reaches the first position by the last rows' and columns' worth of offsets.
        start = (height - 1) * columns * self.sizes.U + (width - 1) * self.sizes.U
        strides = list(weights.stride())
        strides[1] -= columns * self.sizes.U
        strides[2] -= self.sizes.U
        size = (batch, height, width, self.sizes.H, self.sizes.Y, self.sizes.X, self.sizes.U)
        return weights.as_strided(size, strides, weights.storage_offset() + start)

    def weights(self, chunk: _Chunk) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (b·y·x·H, K), offsets (K, ...) and weights (b, y·x·H, Y·X·U) of a chunk."""
        query = self.query[chunk.batch, chunk.rows, chunk.columns].to(self.dtype)
        offsets = self.chunk_offsets(self.offsets, chunk)
        queries = query.reshape(-1, self.sizes.K)
        products = (queries @ offsets.flatten(1)).view(*query.shape[:-1], *offsets.shape[1:])
        return queries, offsets, self.by_position(products, chunk).flatten(4).flatten(1, 3)


def forward(query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes) -> Tensor:
    """Position part of the output, (B, H, Y, X, V); arguments as in `registry.Algorithm`."""
    rows = _Rows(query, value, embedding, sizes)
    output = query.new_empty(*rows.query.shape[:-1], sizes.V)  # (B, Y, X, H, V)
    for chunk in rows.chunks():
        _, _, weights = rows.weights(chunk)
        multiply_into(output[chunk.batch, chunk.rows, chunk.columns], weights, rows.value[chunk.batch])
    return channels_first(output)


def backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, value and embedding; the weights are computed again, chunk by chunk."""
    rows = _Rows(query, value, embedding, sizes)
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
    grad_offsets = grad_offsets[:, top : top + sizes.RY, left : left + sizes.RX]
    return (
        channels_first(grad_query),
        channels_first(grad_value.view(sizes.B, sizes.Y, sizes.X, sizes.U, -1).to(value.dtype)),
        grad_offsets.permute(3, 0, 1, 2).to(embedding.dtype).contiguous(),
    )


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work, and floats of temporaries; with the backward pass or without."""
    cuts, context, queries = _cuts(s), s.Y * s.X * s.U, s.N * s.H
    weights, apply, scatter = Work(calls=5 * len(cuts)), Work(), Work(calls=14 * len(cuts))
    for (batch, height, width), times in cuts.shapes():
        rows, taps = batch * height * width * s.H, _offsets(s, height, width)
        weights += product(1, rows, taps, s.K) * times
        apply += Work(products=rows * context * s.V, streamed=(rows + batch * s.V) * context) * times
        scatter += (product(1, rows, s.K, taps) + product(1, s.K, taps, rows)) * times
        scatter += Work(streamed=rows * (3 * taps + 2 * context)) * times
    # Weights of an image are put in order by short rows.
    short = Work(streamed=ROW * queries * s.Y if s.Y > 1 else 0)
    weights += Work(streamed=2 * queries * context) + short
    work = weights + apply + Work(streamed=2 * s.N * (s.U + s.H) * s.V, calls=8 + 6 * len(cuts))
    copies = s.N * s.U * s.V + (2 * s.Y - 1) * (2 * s.X - 1) * s.K * s.U
    _, height, width = cuts.largest
    together = math.prod(cuts.largest) * s.H * (_offsets(s, height, width) + context)
    if backward:
        return work + weights + apply * 2 + scatter + short, 2 * copies + 3 * together
    return work, copies + together


register(Algorithm("dense", "weights of all pairs of positions, row by row", forward, backward, count))
