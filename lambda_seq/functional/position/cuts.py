"""Work cut into chunks: the same cuts are walked when it is done and summed up when it is counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

# Length and step of one axis: it is cut into slices of `step`, the last one shorter where that does not divide it.
Axis = tuple[int, int]


class Cuts:
    """Chunks of several axes: every combination of a slice of each, the last axis running fastest."""

    def __init__(self, *axes: Axis) -> None:
        self.axes = axes

    def __iter__(self) -> Iterator[tuple[slice, ...]]:
        return product(
            *(
                [slice(start, min(start + step, length)) for start in range(0, length, step)]
                for length, step in self.axes
            )
        )

    def __len__(self) -> int:
        return math.prod(-(-length // step) for length, step in self.axes)

    @property
    def largest(self) -> tuple[int, ...]:
        """The shape of the largest chunk."""
        return tuple(min(length, step) for length, step in self.axes)

    def shapes(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """The shapes that chunks have, and how many have each; at most two lengths an axis, however long."""
        lengths = ([(step, length // step), (length % step, 1)] for length, step in self.axes)
        for chosen in product(*([pair for pair in pairs if min(pair)] for pairs in lengths)):
            yield tuple(size for size, _ in chosen), math.prod(count for _, count in chosen)
