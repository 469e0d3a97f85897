"""Which process holds which positions of a sequence, and how to get at those of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from lambda_seq.parallel import collectives


@dataclass(frozen=True)
class Layout:
    """A sequence in contiguous chunks, one for each process, in order.

    Attributes:
        bounds: process r holds positions bounds[r] … bounds[r + 1] − 1.
        rank: of this process.
    """

    bounds: tuple[int, ...]
    rank: int

    @classmethod
    def even(cls, length: int, ranks: int, rank: int, multiple: int = 1) -> Layout:
        """Chunks that differ by one unit at most, the longer ones first; all but the last are whole units.

        Args:
            length: positions of the sequence.
            ranks: number of processes.
            rank: of this process.
            multiple: positions of a unit: the product of a stem's strides.

        Raises:
            ValueError: fewer units than processes, or a multiple below 1.
        """
        if multiple < 1:
            raise ValueError(f"multiple={multiple}: expected at least 1, the product of the stem's strides")
        units = -(-length // multiple)
        if units < ranks:
            frames = f" in units of multiple={multiple}" if multiple > 1 else ""
            raise ValueError(
                f"x has {length} positions{frames} for {ranks} processes: expected at least one of these "
                "for each; take fewer processes for this sequence"
            )
        sizes = [units // ranks + (index < units % ranks) for index in range(ranks)]
        return cls(tuple(min(length, units * multiple) for units in accumulate(sizes, initial=0)), rank)

    @classmethod
    def of(cls, x: Tensor, group: dist.ProcessGroup, dim: int = 1) -> Layout:
        """The layout in which this process holds x, (B, n, …), agreed on by all processes of the group.

        Raises:
            ValueError: chunks of different batches, or without a position.
        """
        sizes = torch.tensor([x.shape[0] if dim else 1, x.shape[dim]], device=x.device)
        batches, counts = collectives.gathered(sizes, group).T.tolist()
        if len(set(batches)) > 1:
            raise ValueError(
                f"x has batch {batches} on the processes of one sequence: expected one batch for all; the data sampler "
                "must see the data-parallel dimension of the mesh only"
            )
        if not all(counts):
            raise ValueError(
                f"x has {counts} positions on the processes of one sequence: expected at least 1 on each; split with "
                "shard_sequence, or take fewer processes"
            )
        return cls(tuple(accumulate(counts, initial=0)), group.rank())

    @property
    def length(self) -> int:
        """Positions of the whole sequence."""
        return self.bounds[-1]

    @property
    def start(self) -> int:
        """First position of this process."""
        return self.bounds[self.rank]

    @property
    def sizes(self) -> list[int]:
        """Number of positions of each process."""
        return [stop - start for start, stop in pairwise(self.bounds)]

    def check_aligned(self, stride: int) -> None:
        """Raise ValueError unless every chunk begins at a multiple of a stride."""
        if any(start % stride for start in self.bounds[:-1]):
            raise ValueError(
                f"x is split at positions {list(self.bounds[1:-1])}, which are no multiples of the stride {stride}: "
                f"split it with shard_sequence(..., multiple=M), M the product of all strides"
            )


def neighbours(
    x: Tensor, layout: Layout, group: dist.ProcessGroup, before: int, after: int, dim: int
) -> tuple[Tensor, Tensor]:
    """The positions before this chunk and after it, as many as asked for or there are, of several processes if need be.

    Args:
        x: this process's chunk, positions along `dim`.
        layout: of the sequence.
        group: the processes that share it.
        before: positions wanted in front of the chunk; alike on all processes.
        after: positions wanted behind it; alike on all processes.
        dim: of the positions.
    """
    wanted = [_outside(layout, rank, before, after) for rank in range(group.size())]
    mine = layout.rank
    pieces = []
    for rank, (left, right) in enumerate(wanted):
        begin, end = left if mine < rank else right if mine > rank else (0, 0)
        begin, end = max(begin, layout.start), min(end, layout.bounds[mine + 1])
        pieces.append(x.narrow(dim, begin - layout.start if begin < end else 0, max(end - begin, 0)))
    left, right = wanted[mine]
    shapes = []
    for rank, (start, stop) in enumerate(pairwise(layout.bounds)):
        begin, end = left if rank < mine else right if rank > mine else (0, 0)
        shapes.append(_with_size(x, dim, max(min(end, stop) - max(begin, start), 0)))
    # Cut from one tensor: whichever of the two is used, all processes take part in the backward pass of the exchange.
    both = torch.cat(collectives.exchanged(pieces, shapes, group), dim)
    front = sum(shape[dim] for shape in shapes[:mine])
    return both.narrow(dim, 0, front), both.narrow(dim, front, both.shape[dim] - front)


def _outside(layout: Layout, rank: int, before: int, after: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Positions [begin, end) in front of a process's chunk, and behind it."""
    start, stop = layout.bounds[rank : rank + 2]
    return (max(0, start - before), start), (stop, min(layout.length, stop + after))


def _with_size(x: Tensor, dim: int, size: int) -> tuple[int, ...]:
    shape = list(x.shape)
    shape[dim] = size
    return tuple(shape)


def own_chunk(x: Tensor, group: dist.ProcessGroup, dim: int, multiple: int) -> Tensor:
    """This process's positions of a whole sequence, a copy; see `Layout.even`."""
    layout = Layout.even(x.shape[dim], group.size(), group.rank(), multiple)
    return x.narrow(dim, layout.start, layout.sizes[layout.rank]).clone(memory_format=torch.contiguous_format)


def joined(x: Tensor, layout: Layout, group: dist.ProcessGroup, dim: int) -> Tensor:
    """The whole sequence, on each process."""
    pieces: Sequence[Tensor] = [x] * group.size()
    shapes = [_with_size(x, dim, size) for size in layout.sizes]
    return torch.cat(collectives.exchanged(pieces, shapes, group), dim)
