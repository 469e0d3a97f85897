"""What relative position embeddings have in common: the class to derive from, names, checks of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import checks

INITS = ("scaled", "paper")


class PositionEmbedding(nn.Module):
    """R[u, k, m − n]: what a position lambda multiplies the values with, by context offset. Derive own ones from it.

    A subclass with a name is an embedding that layers and networks make by that name:

        class Mine(PositionEmbedding, kind="mine"): ...        LambdaLayer1d(dim, position="mine")

    It is constructed as `Mine(intra, dim_key, dims=, scope=, max_size=, causal=)`, or with those that it `takes`.

    Attributes:
        kind: the name; None for embeddings that are given to layers as modules only.
        summary: what the embedding is, in half a line, for the description of layers.
        takes: options of a layer that it is constructed with; a local scope, or another `init`, is refused without.
        sized: whether one of global scope needs the largest input, `max_size`.
        reach: positions that a query looks back, beyond itself; None for all of them. Streaming keeps as many values.
        causal: offsets end at 0 (1D).
    """

    kind: ClassVar[str | None] = None
    summary: ClassVar[str] = ""
    takes: ClassVar[tuple[str, ...]] = ("dims", "scope", "max_size", "causal")
    sized: ClassVar[bool] = False
    reach: int | None = None
    causal: bool = False
    no_weight_decay = True  # of `param_groups`

    def __init_subclass__(cls, kind: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if kind is None:
            return
        if kind in POSITIONS and POSITIONS[kind].__qualname__ != cls.__qualname__:
            raise ValueError(f"kind={kind!r} is a {POSITIONS[kind].__name__} already: choose another name")
        cls.kind = kind
        POSITIONS[kind] = cls

    def forward(self, size: Sequence[int]) -> Float[Tensor, "U K *R"]:
        """The embedding for inputs of this size per dimension.

        The value at an offset is the same for all sizes; offsets that no pair of positions has may be left out. R is
        odd and offset 0 in its middle; causal: offset 0 is the last.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward(size): define it to return (U, K, *R)")

    def streaming(self, length: int) -> Float[Tensor, "U K R"] | LF.Exponentials:
        """What `functional.stream` needs of a causal embedding after `length` positions, 1D."""
        embedding: Tensor = self((length,))
        return embedding

    def blank(self) -> LF.Exponentials | None:
        """Sums of exponentials of the sizes of those that `streaming` gives, whatever their values; None for others."""
        if type(self).streaming is PositionEmbedding.streaming:
            return None
        found = self.streaming(1)
        return found if isinstance(found, LF.Exponentials) else None

    def resize(self, max_size: Sequence[int]) -> None:
        """Cover inputs up to this size per dimension. Nothing changes where any size is covered already."""


POSITIONS: dict[str, type[PositionEmbedding]] = {}  # by name, in the order of their classes


def check_embedding(intra: int, dim_key: int, causal: bool) -> None:
    """Raise TypeError or ValueError unless an embedding can have these sizes."""
    checks.at_least_one(intra=intra, dim_key=dim_key)
    checks.flags(causal=causal)


def check_dims(dims: int) -> None:
    """Raise ValueError unless there are one or two dimensions."""
    if dims not in (1, 2):
        raise ValueError(f"dims={dims!r}: expected 1, for sequences, or 2, for images")


def check_init(init: str) -> None:
    """Raise ValueError unless this is an initialisation of tables."""
    checks.one_of("init", init, INITS)


def check_scope(scope: Sequence[int], causal: bool) -> None:
    """Raise ValueError unless a local scope has a middle (causal: a position); TypeError if it is no sequence."""
    _check_sequence("scope", scope)
    for taps in scope:
        checks.integers(scope=taps)
        if causal and taps < 1:
            raise ValueError(
                f"scope={plain(scope)}: expected at least 1 position, the query's own, or None for all; use 1"
            )
        if not causal and (taps < 1 or taps % 2 == 0):
            raise ValueError(
                f"scope={plain(scope)}: expected an odd number of positions, centred on the query; "
                f"use {max(taps - 1, 1)} or {max(taps + 1, 3)}, or None for all"
            )


def check_max_size(max_size: Sequence[int]) -> None:
    """Raise ValueError unless the largest input has positions; TypeError if it is no sequence."""
    _check_sequence("max_size", max_size)
    for length in max_size:
        checks.integers(max_size=length)
    if min(max_size) < 1:
        raise ValueError(f"max_size={plain(max_size)}: expected at least one position per dimension")


def _check_sequence(name: str, sizes: Any) -> None:
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or not sizes:
        hint = f"; use ({sizes},) for sequences, ({sizes}, {sizes}) for images" if type(sizes) is int else ""
        raise TypeError(f"{name}={sizes!r}: expected an integer for each dimension in a tuple{hint}")


def plain(size: Sequence[int]) -> str:
    """(5,) -> '5', (5, 7) -> '(5, 7)': sizes as the user gave them."""
    return str(size[0]) if len(size) == 1 else str(tuple(size))
