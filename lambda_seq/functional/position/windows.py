"""Blocks of queries and the overlapping windows of values that they see, for the local algorithms.

A block is `block` neighbouring positions of one row; its window is the `RY` rows × `block + RX − 1` columns around it.
In one dimension the windows are views of the padded values; in two, those of a chunk are copied row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional.position.cuts import Cuts
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work

# Floats that one chunk's largest temporary may hold: the temporaries of a chunk stay in cache. Measured, not derived.
CHUNK = 2**19


class Chunk(NamedTuple):
    """Blocks computed together: batch entries × rows × blocks of columns; one of the last two has a single entry."""

    batch: slice
    rows: slice
    blocks: slice


def context(s: Sizes, block: int) -> int:
    """Values that a block sees."""
    return s.RY * (block + s.RX - 1) * s.U


# Sizes of the problem, queries per block, floats of the largest temporary that one block needs
Geometry = tuple[Sizes, int, int]


class Blocks:
    """The geometry of blocks and windows: how many, how large, and which are computed together.

    Args:
        sizes: of the problem.
        block: queries per block.
        largest: floats of the largest temporary that one block needs.
    """

    def __init__(self, sizes: Sizes, block: int, largest: int) -> None:
        self.sizes, self.block = sizes, block
        self.across = -(-sizes.X // block)  # blocks of a row
        self.width = block + sizes.RX - 1  # columns of a window
        self.context = context(sizes, block)
        self.per_chunk = max(1, sizes.chunk(CHUNK) // largest)
        along = self.across if sizes.Y == 1 else sizes.Y  # blocks of one chunk lie in a row, or below each other
        together = max(1, self.per_chunk // along)  # batch entries
        rows, blocks = (1, self.per_chunk) if sizes.Y == 1 else (self.per_chunk, 1)
        self.cuts = Cuts((sizes.B, together), (sizes.Y, rows), (self.across, blocks))

    def chunks(self) -> Iterator[Chunk]:
        """All blocks, chunk by chunk."""
        return (Chunk(*slices) for slices in self.cuts)

    @property
    def count(self) -> int:
        """All blocks there are."""
        return self.sizes.B * self.sizes.Y * self.across

    @property
    def padded(self) -> int:
        """Numbers in the padded values."""
        s = self.sizes
        return s.B * (s.Y + s.RY - 1) * (self.across * self.block + s.RX - 1) * s.U * s.V

    def layout(self) -> Work:
        """What it takes to pad the values and to lay out the windows of each chunk."""
        s, copied = self.sizes, 0
        for (batch, rows, blocks), times in self.cuts.shapes():
            if s.Y > 1:  # rows are copied once per chunk of rows
                copied += times * batch * (rows + s.RY - 1) * self.width * s.U * s.V
            if batch > 1:  # and windows of several batch entries once more each
                copied += times * batch * rows * blocks * self.context * s.V
        return Work(streamed=2 * copied + 2 * s.N * s.U * s.V, calls=6 + 8 * len(self.cuts))

    def overlap(self) -> Work:
        """What it takes to add up the gradients of windows that overlap."""
        s = self.sizes
        parts = s.RY if s.Y > 1 else self.context / self.block
        return Work(streamed=3 * self.count * self.context * s.V, calls=len(self.cuts) * parts)


class Windows(Blocks):
    """Blocks with what their windows show: the padded values.

    Args:
        geometry: of the blocks, the arguments of `Blocks`.
        value: (B, Y, X, U, V), contiguous.
    """

    def __init__(self, geometry: Geometry, value: Tensor) -> None:
        super().__init__(*geometry)
        s = self.sizes
        above, left = s.origin
        right = self.across * self.block - s.X + s.RX - 1 - left
        self.channels = s.U * s.V
        # (B, Y + RY − 1, blocks·block + RX − 1, U·V)
        self.values = F.pad(value, (0, 0, 0, 0, left, right, above, s.RY - 1 - above)).flatten(3)

    def pad_columns(self, tensor: Tensor) -> Tensor:
        """(B, Y, X, ...) -> (B, Y, blocks·block, ...): whole blocks."""
        missing = self.across * self.block - self.sizes.X
        return F.pad(tensor, (0, 0) * (tensor.ndim - 3) + (0, missing)) if missing else tensor

    def select(self, tensor: Tensor, chunk: Chunk) -> Tensor:
        """(B, Y, blocks·block, ...) -> (b, y, columns of the chunk, ...), a view."""
        columns = slice(chunk.blocks.start * self.block, chunk.blocks.stop * self.block)
        return tensor[chunk.batch, chunk.rows, columns]

    def seen(self, chunk: Chunk, dtype: torch.dtype) -> Tensor:
        """The windows of a chunk, (blocks, context, V) with context ordered (row, column, u)."""
        left = chunk.blocks.start * self.block
        right = (chunk.blocks.stop - 1) * self.block + self.width
        rows = slice(chunk.rows.start, chunk.rows.stop + self.sizes.RY - 1)
        source = self.values[chunk.batch, rows, left:right].to(dtype)  # (b, y + RY − 1, columns, U·V)
        if self.sizes.Y == 1:
            count, step = chunk.blocks.stop - chunk.blocks.start, self.block * self.channels
        else:
            source = source.contiguous()
            count, step = chunk.rows.stop - chunk.rows.start, self.width * self.channels
        size = (source.shape[0], count, self.context, self.sizes.V)
        windows = source.as_strided(size, (source.stride(0), step, self.sizes.V, 1))
        return windows.reshape(-1, self.context, self.sizes.V)

    def new_gradient(self, dtype: torch.dtype) -> Tensor:
        """Zeros to gather the gradient of the padded values in."""
        return torch.zeros_like(self.values, dtype=dtype)

    def add(self, gradient: Tensor, windows: Tensor, chunk: Chunk) -> None:
        """Add the gradients of a chunk's windows, (blocks, context, V), where the windows lie."""
        batch = chunk.batch.stop - chunk.batch.start
        if self.sizes.Y == 1:
            windows = windows.view(batch, -1, self.width * self.channels)
            stride = (gradient.stride(0), self.block * self.channels, 1)
            for start in range(0, self.width, self.block):  # segments no longer than a block do not overlap
                part = slice(start * self.channels, min(start + self.block, self.width) * self.channels)
                target = gradient[chunk.batch, 0, chunk.blocks.start * self.block + start :]
                segment = windows[..., part]
                target.as_strided(segment.shape, stride).add_(segment)
        else:
            left = chunk.blocks.start * self.block
            windows = windows.view(batch, -1, self.sizes.RY, self.width, self.channels)
            for row in range(self.sizes.RY):
                rows = slice(chunk.rows.start + row, chunk.rows.stop + row)
                gradient[chunk.batch, rows, left : left + self.width].add_(windows[:, :, row])

    def unpad(self, gradient: Tensor) -> Tensor:
        """(B, Y + RY − 1, ..., U·V) -> (B, Y, X, U, V)."""
        above, left = self.sizes.origin
        inside = gradient[:, above : above + self.sizes.Y, left : left + self.sizes.X]
        return inside.unflatten(-1, (self.sizes.U, self.sizes.V))
