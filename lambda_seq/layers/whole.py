"""What modules ask about positions beyond those that they are given; by default there are none."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
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

    def chunk(self, x: Tensor, fill: float = 0, multiple: int = 1) -> Tensor:
        """The positions of whole sequences (B, N, …) that this process has.

        Args:
            x: alike on all processes that share the sequences.
            fill: what is put behind sequences that have too few positions for all processes.
            multiple: chunks begin at multiples of this: the product of a network's strides.
        """
        return x

    def packing(self, documents: Int[Tensor, "B N"] | LF.Packing, mask: Bool[Tensor, "B N"] | None) -> LF.Packing:
        """The packing of documents in rows of which this process has these positions."""
        return LF.Packing.of(documents, mask)

    def lambda_layer(
        self,
        query: Float[Tensor, "B H *N K"],
        key: Float[Tensor, "B U *N K"] | None,
        value: Float[Tensor, "B U *N V"],
        position: nn.Module | None,
        *,
        packing: LF.Packing | None = None,
        **options: Any,
    ) -> Float[Tensor, "B H *N V"]:
        """`functional.lambda_layer` with a position embedding, which maps a size to (U, K, *R); or the packed one."""
        size = query.shape[2:-1] if packing is None else (max(packing.longest, 1),)
        embedding = None if position is None else position(size).to(query.dtype)
        if packing is None:
            return LF.lambda_layer(query, key, value, embedding, **options)
        options.pop("mask", None)  # the packing has it
        return LF.packed_lambda_layer(query, key, value, embedding, packing, **options)


WHOLE = Whole()
