"""What a module asks about positions on other devices; by default there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lambda_seq import functional as LF


class SequenceContext:
    """The sequences of which a module sees a chunk: the base class, for sequences that are whole on this device.

    A module that relates positions asks its attribute `sequence`, which is `UNSHARDED` unless
    `lambda_seq.parallel.parallelize` has put a context there that asks the processes with the other chunks. Five
    questions are for such a context to answer: `sum`, `gather`, `extend`, `pack` and `lambda_layer`.

    Attributes:
        size: number of chunks, P.
        rank: which of them this process has.
    """

    size: int = 1
    rank: int = 0

    def sum(self, x: Tensor) -> Tensor:
        """The sum of what all chunks have."""
        return x

    def gather(self, x: Float[Tensor, "*A"]) -> Float[Tensor, "P *A"]:
        """What each of the chunks has, in order; of one shape."""
        return x.unsqueeze(0)

    def extend(self, x: Float[Tensor, "B N C"], before: int, after: int, stride: int) -> Float[Tensor, "B L C"]:
        """x with `before` positions in front of it and `after` behind it, zeros where the sequence has none.

        For a convolution of this stride, whose outputs are divided among the chunks as its inputs are.
        """
        return F.pad(x, (0, 0, before, after))

    def pack(self, documents: Int[Tensor, "B N"] | LF.Packing, mask: Bool[Tensor, "B N"] | None) -> LF.Packing:
        """The packing of the documents in these rows, by the ids of this chunk; a packing stays as it is."""
        return LF.Packing.of(documents, mask)

    def lambda_layer(
        self,
        query: Float[Tensor, "B H *N K"],
        key: Float[Tensor, "B U *N K"] | None,
        value: Float[Tensor, "B U *N V"],
        position: Callable[[Sequence[int]], Tensor] | None,
        *,
        mask: Bool[Tensor, "B *N"] | None = None,
        packing: LF.Packing | None = None,
        causal: bool = False,
        key_norm: str = "softmax",
        algorithm: str = "auto",
    ) -> Float[Tensor, "B H *N V"]:
        """`functional.lambda_layer`, with a packing, whose mask counts, `functional.packed_lambda_layer`.

        Args:
            query, key, value, mask, causal, key_norm, algorithm: as for these.
            position: maps a size to an embedding, (U, K, *R); None for content only.
            packing: of several documents in a row.
        """
        size = query.shape[2:-1] if packing is None else (max(packing.longest, 1),)
        embedding = None if position is None else position(size).to(query.dtype)
        if packing is None:
            return LF.lambda_layer(
                query, key, value, embedding, mask=mask, causal=causal, key_norm=key_norm, algorithm=algorithm
            )
        return LF.packed_lambda_layer(
            query, key, value, embedding, packing, causal=causal, key_norm=key_norm, algorithm=algorithm
        )

    def length(self, x: Float[Tensor, "B N *C"]) -> int:
        """Positions of the sequences of which x is a chunk."""
        return x.shape[1] if self.size == 1 else int(self.sum(torch.tensor(x.shape[1], device=x.device)))


UNSHARDED = SequenceContext()
