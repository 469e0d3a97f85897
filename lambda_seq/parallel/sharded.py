"""Sequence parallelism of modules: what they ask of other positions is asked of the processes that hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lambda_seq.functional.api import ALGORITHMS
from lambda_seq.functional.exponentials import Exponentials
from lambda_seq.functional.packing import Packing
from lambda_seq.functional.problem import Problem
from lambda_seq.layers.positions.embedding import PositionEmbedding
from lambda_seq.layers.sequence_context import UNSHARDED, SequenceContext
from lambda_seq.parallel import collectives, position
from lambda_seq.parallel.content import content
from lambda_seq.parallel.layout import Layout, neighbours, own_chunk
from lambda_seq.parallel.packing import SplitPacking

EXCHANGES = ("auto", "halo", "channels")


class ShardedContext(SequenceContext):
    """The answers of a process that holds a chunk of each sequence, of a group that holds all of them, in order.

    Copies of a module share it; a pickled module comes back with `UNSHARDED` in its place.

    Args:
        group: the processes.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.size, self.rank = group, group.size(), group.rank()

    def sum(self, x: Tensor) -> Tensor:
        """The sum over the processes."""
        return collectives.total(x, self.group)

    def gather(self, x: Float[Tensor, "*A"]) -> Float[Tensor, "P *A"]:
        """What each process has."""
        return collectives.gathered(x, self.group)

    def extend(self, x: Float[Tensor, "B N C"], before: int, after: int, stride: int) -> Float[Tensor, "B L C"]:
        """x with the positions that neighbours hold.

        Raises:
            ValueError: a chunk begins between two outputs.
        """
        layout = Layout.of(x, self.group)
        layout.check_aligned(stride)
        left, right = neighbours(x, layout, self.group, before, after, 1)
        padding = (0, 0, before - left.shape[1], after - right.shape[1])
        return F.pad(torch.cat([left, x, right], 1), padding)

    def lambda_layer(
        self,
        query: Float[Tensor, "B H *N K"],
        key: Float[Tensor, "B U *N K"] | None,
        value: Float[Tensor, "B U *N V"],
        position: Callable[[Sequence[int]], Tensor] | None,
        *,
        mask: Bool[Tensor, "B *N"] | None = None,
        packing: Packing | None = None,
        causal: bool = False,
        key_norm: str = "softmax",
        algorithm: str = "auto",
    ) -> Float[Tensor, "B H *N V"]:
        """`parallel.lambda_layer` with the embedding of a position module for whole sequences."""
        layout = Layout.of(value, self.group, 2)
        length = layout.length if packing is None else max(packing.longest, 1)
        embedding: Tensor | Exponentials | None = None
        if isinstance(position, PositionEmbedding) and position.causal:
            embedding = position.streaming(length)
        elif position is not None:
            embedding = position((length,))
        if isinstance(embedding, Tensor):
            embedding = embedding.to(query.dtype)
        options: dict[str, Any] = {"mask": mask, "documents": packing, "causal": causal, "key_norm": key_norm}
        return _lambda_layer(query, key, value, embedding, self.group, layout, algorithm=algorithm, **options)

    def pack(self, documents: Int[Tensor, "B N"] | Packing, mask: Bool[Tensor, "B N"] | None) -> Packing:
        """The packing of this chunk's documents, agreed on with the other processes."""
        return SplitPacking.share(documents, mask, self.group)

    def chunk(self, x: Tensor, fill: float = 0, multiple: int = 1) -> Tensor:
        """This process's positions of whole sequences (B, N, …), lengthened with `fill` if too short for all."""
        short = (self.group.size() - 1) * multiple + 1 - x.shape[1]
        if short > 0:
            x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, short), value=fill)
        return own_chunk(x, self.group, 1, multiple)

    def __deepcopy__(self, memo: Any) -> ShardedContext:
        return self

    def __reduce__(self) -> Any:
        return _unsharded, ()


def _unsharded() -> SequenceContext:
    return UNSHARDED


def lambda_layer(
    query: Float[Tensor, "B H N K"],
    key: Float[Tensor, "B U N K"] | None,
    value: Float[Tensor, "B U N V"],
    embedding: Float[Tensor, "U K R"] | Exponentials | None,
    group: dist.ProcessGroup,
    *,
    mask: Bool[Tensor, "B N"] | None = None,
    documents: Int[Tensor, "B N"] | Packing | None = None,
    causal: bool = False,
    key_norm: str = "softmax",
    algorithm: str = "auto",
    exchange: str = "auto",
) -> Float[Tensor, "B H N V"]:
    """`functional.lambda_layer` of a sequence in contiguous chunks, one for each process of a group, in order.

    Exact, forward and backward: gradients are those of the sum of the processes' losses.

    Args:
        query, key, value, mask: this process's positions, at least one; chunks may differ in length.
        embedding: for the length of the whole sequence, as `functional.lambda_layer` takes it, alike on all processes;
            or causal `Exponentials`.
        group: the processes, such as `mesh["sequence"].get_group()`.
        documents: of which document each position is, by ids, alike where a document goes on in the next chunk: several
            documents in one row, each as if it stood alone.
        causal, key_norm: as for `functional.lambda_layer`.
        algorithm: how a process computes position lambdas by itself.
        exchange: "halo" gets values within reach from neighbours, (R − 1) · V numbers for each of the U; "channels"
            exchanges channels for positions, N · (K + 1) · V / P numbers, and computes by FFT; "auto" takes halos that
            are no longer than the longest chunk. With documents always halos, no longer than the longest of them.

    Returns:
        (B, H, N, V), this process's part; with documents zeros at positions of none.

    Raises:
        TypeError, ValueError: as `functional.lambda_layer`; or chunks that do not belong together.
    """
    layout = Layout.of(value, group, 2)
    options: dict[str, Any] = {"mask": mask, "documents": documents, "causal": causal, "key_norm": key_norm}
    return _lambda_layer(query, key, value, embedding, group, layout, algorithm=algorithm, exchange=exchange, **options)


def _lambda_layer(
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    embedding: Tensor | Exponentials | None,
    group: dist.ProcessGroup,
    layout: Layout,
    *,
    mask: Tensor | None = None,
    documents: Tensor | Packing | None = None,
    causal: bool = False,
    key_norm: str = "softmax",
    algorithm: str = "auto",
    exchange: str = "auto",
) -> Tensor:
    running = isinstance(embedding, Exponentials)
    table = embedding.coefficients[..., :1].to(query.dtype) if isinstance(embedding, Exponentials) else embedding
    Problem.of(query, key, value, table, mask, causal, key_norm)
    if running and not causal:
        raise ValueError("causal=False with Exponentials: they are causal; give a table of both sides instead")
    for name, option, options in (("algorithm", algorithm, ALGORITHMS), ("exchange", exchange, EXCHANGES)):
        if option not in options:
            raise ValueError(f"{name}={option!r}: expected one of {', '.join(map(repr, options))}")
    packing = None
    if documents is not None:
        packing = SplitPacking.share(documents, mask, group)
        packing.check_shape((query.shape[0], query.shape[2]), query.device)
        mask = packing.mask
        if exchange == "channels":
            raise ValueError("exchange='channels' with documents: expected 'auto' or 'halo'")
    if mask is not None:
        value = value.masked_fill(~mask[:, None, :, None], 0)
    part = None
    if isinstance(embedding, Exponentials):
        part = position.state(query, value, embedding, layout, group, algorithm, packing)
    elif embedding is not None:
        if exchange == "auto":
            near = packing is not None or embedding.shape[-1] - 1 <= max(layout.sizes)
            exchange = "halo" if near else "channels"
        if exchange == "halo":
            part = position.halo(query, value, embedding, layout, group, causal, algorithm, packing)
        else:
            part = position.channels(query, value, embedding, layout, group, causal)
    if key is not None:
        part = content(query, key, value, mask, causal, key_norm, group, part, packing)
    assert part is not None  # `Problem.of` has seen to it that there is a key or an embedding
    if packing is None or packing.mask is None:
        return part
    return part.masked_fill(~packing.mask[:, None, :, None], 0)
