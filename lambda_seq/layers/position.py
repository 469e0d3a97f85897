"""Relative position embeddings: what a position lambda multiplies the values with, by context offset."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

INITS = ("scaled", "paper")


class RelativePositionTable(nn.Module):
    """A free embedding for each context offset m − n: R[u, k, m − n], the embedding of the paper.

    Local: `scope` offsets per dimension, centred on 0 (causal: ending at 0). Global: one for each offset that inputs up
    to `max_size` have, 2N − 1 per dimension (causal: N); a shorter input uses the middle of it.

    Args:
        intra: intra-depth U.
        dim_key: key depth K.
        scope: offsets per dimension, odd unless causal; None for global.
        max_size: largest input per dimension, for global scope.
        causal: offsets end at 0 (1D).
        init: "scaled", R ~ N(0, 1 / positions in scope), which gives the position lambda the variance of one value; or
            "paper", R ~ N(0, 1) (Bello 2021).

    Raises:
        ValueError: an even scope, a global scope without a largest size, an unknown init.
    """

    def __init__(
        self,
        intra: int,
        dim_key: int,
        *,
        scope: Sequence[int] | None,
        max_size: Sequence[int] | None = None,
        causal: bool = False,
        init: str = "scaled",
    ) -> None:
        super().__init__()
        if init not in INITS:
            raise ValueError(f"init={init!r}: expected one of {', '.join(map(repr, INITS))}")
        if scope is not None:
            for taps in scope:
                if taps < 1 or (not causal and taps % 2 == 0):
                    raise ValueError(
                        f"scope={_plain(scope)}: expected an odd number of positions, centred on the query; "
                        f"use {taps - 1 if taps > 1 else 1} or {taps + 1}"
                    )
            self.taps = tuple(scope)
            self.max_size: tuple[int, ...] | None = None
            positions = math.prod(self.taps)
        else:
            if max_size is None:
                raise ValueError(
                    "scope=None is global and its table needs the largest input: give max_length=N "
                    "(2D: max_size=(H, W))"
                )
            if min(max_size) < 1:
                raise ValueError(f"max_size={_plain(max_size)}: expected at least one position per dimension")
            self.taps = tuple(length if causal else 2 * length - 1 for length in max_size)
            self.max_size = tuple(max_size)
            positions = math.prod(max_size)
        self.causal = causal
        self.std = 1.0 if init == "paper" else positions**-0.5
        self.weight = nn.Parameter(torch.empty(intra, dim_key, *self.taps))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, size: Sequence[int]) -> Float[Tensor, "U K *R"]:
        """The embedding for inputs of this size per dimension.

        Raises:
            ValueError: the input is larger than a global table.
        """
        if self.max_size is not None:
            for length, most in zip(size, self.max_size, strict=True):
                if length > most:
                    raise ValueError(
                        f"x has size {_plain(size)} but the global position table covers {_plain(self.max_size)}: "
                        f"construct the layer with {'max_length' if len(size) == 1 else 'max_size'}={_plain(size)}, "
                        "or use a local scope"
                    )
        embedding: Tensor = self.weight
        for axis, length in enumerate(size):
            taps = self.taps[axis]
            keep = min(taps, length if self.causal else 2 * length - 1)
            # Offsets that no pair of positions has are left out; offset 0 stays in the middle (causal: at the end).
            embedding = embedding.narrow(2 + axis, taps - keep if self.causal else (taps - keep) // 2, keep)
        return embedding

    def extra_repr(self) -> str:
        """Shape and kind, for printing."""
        intra, dim_key, *_ = self.weight.shape
        kind = "global" if self.max_size is not None else "local"
        return f"intra={intra}, dim_key={dim_key}, offsets={self.taps}, {kind}{', causal' if self.causal else ''}"


def _plain(size: Sequence[int]) -> str:
    """(5,) -> '5', (5, 7) -> '(5, 7)': sizes as the user gave them."""
    return str(size[0]) if len(size) == 1 else str(tuple(size))
