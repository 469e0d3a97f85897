"""Blocks of queries and the overlapping windows of values that they see, for the local algorithms.

A block is `block` neighbouring positions of one row; its window is the `RY` rows × `block + RX − 1` columns around it.
In one dimension the windows are views of the padded values; in two, those of a chunk are copied row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional.operators import chunk_floats

# Floats that one chunk's largest temporary may hold: the temporaries of a chunk stay in cache. Measured, not derived.
CHUNK = 2**19


@dataclass(frozen=True)
class Chunk:
    """Blocks computed together: batch entries × rows × blocks of columns; one of the last two has a single entry."""

    batch: slice
    rows: slice
    blocks: slice


class Windows:
    """The geometry of blocks and windows for values (B, Y, X, U, V), and the padded values themselves.

    Args:
        value: (B, Y, X, U, V), contiguous.
        scope: (RY, RX).
        origin: index of offset 0 in the scope, per dimension.
        block: queries per block.
        largest: floats of the largest temporary that one block needs.
        heads: of the output, whose size limits how many blocks go together.
    """

    def __init__(
        self, value: Tensor, scope: tuple[int, int], origin: tuple[int, int], block: int, largest: int, heads: int
    ) -> None:
        self.batch, self.rows, self.columns, self.intra, self.dim_value = value.shape
        self.scope_rows, self.scope_columns = scope
        self.origin = origin
        self.block = block
        self.blocks = -(-self.columns // block)
        self.width = block + self.scope_columns - 1  # columns of a window
        self.context = self.scope_rows * self.width * self.intra  # values that a block sees
        results = self.batch * self.rows * self.columns * heads * self.dim_value
        self.per_chunk = max(1, chunk_floats(CHUNK, results) // largest)
        self.channels = self.intra * self.dim_value
        self.padded = self._pad(value).flatten(3)  # (B, Y + RY − 1, blocks·block + RX − 1, U·V)

    def _pad(self, value: Tensor) -> Tensor:
        above, left = self.origin
        below = self.scope_rows - 1 - above
        right = self.blocks * self.block - self.columns + self.scope_columns - 1 - left
        return F.pad(value, (0, 0, 0, 0, left, right, above, below))

    def pad_columns(self, tensor: Tensor) -> Tensor:
        """(B, Y, X, ...) -> (B, Y, blocks·block, ...): whole blocks."""
        missing = self.blocks * self.block - self.columns
        return F.pad(tensor, (0, 0) * (tensor.ndim - 3) + (0, missing)) if missing else tensor

    def chunks(self) -> Iterator[Chunk]:
        """All blocks, chunk by chunk."""
        length = self.blocks if self.rows == 1 else self.rows  # along which blocks of one chunk lie
        together = max(1, self.per_chunk // length)  # batch entries
        for first in range(0, self.batch, together):
            batch = slice(first, min(first + together, self.batch))
            for start in range(0, length, self.per_chunk):
                part = slice(start, min(start + self.per_chunk, length))
                if self.rows == 1:
                    yield Chunk(batch, slice(0, 1), part)
                else:
                    for block in range(self.blocks):
                        yield Chunk(batch, part, slice(block, block + 1))

    def select(self, tensor: Tensor, chunk: Chunk) -> Tensor:
        """(B, Y, blocks·block, ...) -> (b, y, columns of the chunk, ...), a view."""
        columns = slice(chunk.blocks.start * self.block, chunk.blocks.stop * self.block)
        return tensor[chunk.batch, chunk.rows, columns]

    def values(self, chunk: Chunk, dtype: torch.dtype) -> Tensor:
        """The windows of a chunk, (blocks, context, V) with context ordered (row, column, u)."""
        left = chunk.blocks.start * self.block
        right = (chunk.blocks.stop - 1) * self.block + self.width
        rows = slice(chunk.rows.start, chunk.rows.stop + self.scope_rows - 1)
        source = self.padded[chunk.batch, rows, left:right].to(dtype)  # (b, y + RY − 1, columns, U·V)
        if self.rows == 1:
            count, step = chunk.blocks.stop - chunk.blocks.start, self.block * self.channels
        else:
            source = source.contiguous()
            count, step = chunk.rows.stop - chunk.rows.start, self.width * self.channels
        size = (source.shape[0], count, self.context, self.dim_value)
        windows = source.as_strided(size, (source.stride(0), step, self.dim_value, 1))
        return windows.reshape(-1, self.context, self.dim_value)

    def new_gradient(self, dtype: torch.dtype) -> Tensor:
        """Zeros to gather the gradient of the padded values in."""
        return torch.zeros_like(self.padded, dtype=dtype)

    def add(self, gradient: Tensor, windows: Tensor, chunk: Chunk) -> None:
        """Add the gradients of a chunk's windows, (blocks, context, V), where the windows lie."""
        batch = chunk.batch.stop - chunk.batch.start
        if self.rows == 1:
            windows = windows.view(batch, -1, self.width * self.channels)
            stride = (gradient.stride(0), self.block * self.channels, 1)
            for start in range(0, self.width, self.block):  # segments no longer than a block do not overlap
                part = slice(start * self.channels, min(start + self.block, self.width) * self.channels)
                target = gradient[chunk.batch, 0, chunk.blocks.start * self.block + start :]
                segment = windows[..., part]
                target.as_strided(segment.shape, stride).add_(segment)
        else:
            left = chunk.blocks.start * self.block
            windows = windows.view(batch, -1, self.scope_rows, self.width, self.channels)
            for row in range(self.scope_rows):
                rows = slice(chunk.rows.start + row, chunk.rows.stop + row)
                gradient[chunk.batch, rows, left : left + self.width].add_(windows[:, :, row])

    def unpad(self, gradient: Tensor) -> Tensor:
        """(B, Y + RY − 1, ..., U·V) -> (B, Y, X, U, V)."""
        above, left = self.origin
        inside = gradient[:, above : above + self.rows, left : left + self.columns]
        return inside.unflatten(-1, (self.intra, self.dim_value))
