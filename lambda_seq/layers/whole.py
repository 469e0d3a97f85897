"""What modules ask about positions beyond those that they are given; by default there are none."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq import functional as LF


class Whole:
    """The answers of a process that holds whole sequences.

    Modules that relate positions ask `self.shards`, which is this unless `lambda_seq.parallel` puts in its place what
    asks the processes that hold the rest of a sequence.

    Attributes:
        split: whether other processes hold positions of the same sequences.
    """

    split = False

    def length(self, x: Float[Tensor, "B N *C"]) -> int:
        """Positions of the whole sequences of which x is a chunk."""
        return x.shape[1]

    def sum(self, x: Tensor) -> Tensor:
        """The sum of what all chunks have."""
        return x

    def maximum(self, x: Tensor) -> Tensor:
        """The elementwise maximum of what all chunks have."""
        return x

    def preceding(self, x: Tensor) -> Tensor:
        """The sum of what earlier chunks have; without a gradient."""
        return x.new_zeros(x.shape)

    def agreed(self, x: Tensor) -> Tensor:
        """Random numbers that all chunks shall have alike."""
        return x

    def extended(self, x: Float[Tensor, "B N C"], before: int, after: int, stride: int) -> Float[Tensor, "B L C"]:
        """x with so many positions in front of it and behind it, zeros where the sequence has none.

        A convolution of this stride follows, whose outputs the chunks shall hold in the same way.
        """
        return F.pad(x, (0, 0, before, after))

    def lambda_layer(
        self,
        query: Float[Tensor, "B H *N K"],
        key: Float[Tensor, "B U *N K"] | None,
        value: Float[Tensor, "B U *N V"],
        position: nn.Module | None,
        **options: Any,
    ) -> Float[Tensor, "B H *N V"]:
        """`functional.lambda_layer` with a position embedding, which maps a size to (U, K, *R)."""
        embedding = None if position is None else position(query.shape[2:-1]).to(query.dtype)
        return LF.lambda_layer(query, key, value, embedding, **options)


WHOLE = Whole()
