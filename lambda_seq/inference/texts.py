"""Which tokens of a text are read: all, a part, or windows that cover it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Reading:
    """Where reading begins in a document that is longer than what is read of it.

    Args:
        most: tokens that are read at once.
        part: "start", "middle", "end", "windows" for all of it in turn, or "random", which depends on seed, epoch and
            row.
        stride: tokens from one window to the next.
        seed: of random parts.
    """

    most: int
    part: str = "start"
    stride: int = 1
    seed: int = 0

    def begin(self, length: int, epoch: int, row: int) -> int:
        """The first token that is read of a document of `length` tokens."""
        spare = max(length - self.most, 0)
        if self.part == "random":
            return int(np.random.default_rng([self.seed, epoch, row]).integers(0, spare + 1))
        return {"start": 0, "middle": spare // 2, "windows": spare // 2, "end": spare}[self.part]

    def begins(self, length: int) -> list[int]:
        """The first token of each part of a document of `length` tokens that is read in evaluation: one, or windows."""
        if self.part != "windows":
            return [self.begin(length, 0, 0)]
        count = int(count_windows(np.array([length]), self.most, self.stride)[0])
        return [self.window(length, number) for number in range(count)]

    def window(self, length: int, number: int) -> int:
        """The first token of a window; the last window ends where the document does, and overlaps more."""
        return min(number * self.stride, max(length - self.most, 0))


def count_windows(lengths: Int[np.ndarray, " B"], most: int, stride: int) -> Int[np.ndarray, " B"]:
    """Windows of `most` tokens, begun every `stride` tokens, that cover documents of these lengths; at least one."""
    return 1 + -(-np.maximum(lengths - most, 0) // stride)
