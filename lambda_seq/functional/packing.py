"""Several documents in one row: the lambda layer as if each stood alone.

Documents of similar length are gathered into a padded batch, a bucket, and go through `lambda_layer` together. A bucket
holds lengths within a factor of two, so there are at most log2 N + 1 of them, and padding at most doubles the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lambda_seq.functional.api import lambda_layer
from lambda_seq.functional.problem import Problem, check_mask
from lambda_seq.functional.transforms import forward_mode


@dataclass(frozen=True, eq=False)
class Bucket:
    """Documents of similar length, as the rows of a padded batch.

    Attributes:
        documents: their numbers, (D',).
        length: of the longest, L.
        mask: True at real positions, (D', L); None where there are no others.
    """

    documents: Int[Tensor, " D'"]
    length: int
    mask: Bool[Tensor, "D' L"] | None


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the documents of a batch of rows (B, N) are; made by `Packing.of`, once for all layers.

    A document is a run of equal ids in a row, from its first to its last real position; an id that comes back after
    another one is a new document. D documents are numbered from 0, row by row, in the order of their beginnings. Runs
    without a real position are none. Positions inside a document that the mask hides keep their place in it.

    Attributes:
        shape: (B, N).
        mask: True at the real positions of documents, (B, N); None where all are, unless it was given.
        number: document of each real position, −1 at others, (B, N).
        rows: the row of each document, (D,).
        starts: first position of each document in its row, (D,).
        lengths: positions from its first to its last real one, (D,).
        longest: greatest of these lengths, 0 without documents.
        plain: whether there is nothing to pack, as no row has two documents.
        buckets: the documents by length, shortest first.
        index: the position, in the flattened (B · N), that each place of the buckets holds, one bucket after another,
            row by row; places beyond the end of a document hold its first position.
        filled: whether a place of the buckets is a real position; None where all are.
        place: the place of each position in the buckets, 0 where it has none, (B · N,).
    """

    shape: tuple[int, int]
    mask: Bool[Tensor, "B N"] | None
    number: Int[Tensor, "B N"]
    rows: Int[Tensor, " D"]
    starts: Int[Tensor, " D"]
    lengths: Int[Tensor, " D"]
    longest: int
    plain: bool
    buckets: tuple[Bucket, ...]
    index: Int[Tensor, " P"]
    filled: Bool[Tensor, " P"] | None
    place: Int[Tensor, " BN"]

    @classmethod
    def of(cls, documents: Int[Tensor, "B N"] | Packing, mask: Bool[Tensor, "B N"] | None = None) -> Packing:
        """The packing of documents given by ids.

        On a GPU it waits for the ids, as the sizes of buckets depend on them: make it once for a batch.

        Args:
            documents: the document of each position, any integers; negative ones are padding. A packing is returned as
                it is.
            mask: True at real positions; None where all are that have an id of at least 0.

        Raises:
            TypeError: documents are not integers, or mask is not bool.
            ValueError: a shape that does not fit, or a packing of positions that the mask calls padding.
        """
        if isinstance(documents, Packing):
            documents.check_mask(mask)
            return documents
        if torch.jit.is_tracing():
            raise ValueError(
                "documents are packed by their ids, which torch.jit.trace would keep for all inputs, and be wrong: "
                "trace without documents, or use torch.compile"
            )
        if not isinstance(documents, Tensor) or documents.is_floating_point() or documents.is_complex():
            remedy = "documents.long()" if isinstance(documents, Tensor) else "torch.as_tensor(documents)"
            raise TypeError(f"documents is {_kind(documents)}: expected integer ids, (B, N); use {remedy}")
        if documents.dtype == torch.bool:
            raise TypeError("documents is torch.bool: expected integer ids, (B, N); a mask is an argument of its own")
        if documents.ndim != 2:
            raise ValueError(f"documents has shape {tuple(documents.shape)}: expected (B, N)")
        if mask is not None:
            _check_mask(mask, tuple(documents.shape))
        ids = documents.detach().cpu()
        real = (ids >= 0) if mask is None else (ids >= 0) & mask.detach().cpu()
        return _pack(ids, real, mask, documents.device)

    @classmethod
    def of_cu_seqlens(cls, cu_seqlens: Int[Tensor, " D+1"] | Sequence[int]) -> Packing:
        """The packing of one row, (1, N), whose document d is at positions cu_seqlens[d] to before cu_seqlens[d + 1].

        This is how flash attention's functions for variable lengths say it.

        Raises:
            TypeError: cu_seqlens are not integers.
            ValueError: they do not begin with 0, or do not rise.
        """
        ends = torch.as_tensor(cu_seqlens)
        if ends.is_floating_point() or ends.is_complex() or ends.dtype == torch.bool:
            raise TypeError(f"cu_seqlens is {ends.dtype}: expected integers; use cu_seqlens.int()")
        given = ends.tolist()
        if ends.ndim != 1 or len(given) < 2 or given[0] != 0:
            raise ValueError(f"cu_seqlens={given}: expected (D + 1,) positions that begin with 0 and end with N")
        for document, (begin, end) in enumerate(pairwise(given)):
            if end <= begin:
                raise ValueError(
                    f"cu_seqlens={given}: document {document} has {end - begin} positions; expected each at least 1, "
                    "so leave out empty documents"
                )
        ends = ends.long()
        return cls.of(torch.arange(len(given) - 1, device=ends.device).repeat_interleave(ends.diff())[None])

    def __len__(self) -> int:
        """Number of documents D."""
        return self.lengths.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Packing:
        """The same packing on another device; with `non_blocking`, from pinned memory, without waiting for it."""
        return _each(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Packing:
        """The same packing in memory that a GPU copies from by itself."""
        return _each(self, Tensor.pin_memory)

    def check_mask(self, mask: Tensor | None) -> None:
        """Raise ValueError if documents lie where this mask has padding, TypeError if it is no mask."""
        if mask is None or mask is self.mask:
            return
        _check_mask(mask, self.shape)
        hidden = ~mask if self.mask is None else self.mask & ~mask
        if hidden.any():
            raise ValueError(
                f"documents is a packing with {int(hidden.sum())} positions in documents where mask is False: make it "
                "with the same mask, Packing.of(documents, mask)"
            )

    def check_shape(self, size: Sequence[int], device: torch.device) -> None:
        """Raise ValueError unless the packing is of rows of this size (B, N), on this device."""
        if tuple(size) != self.shape:
            raise ValueError(f"documents has shape {self.shape}: expected {tuple(size)}, (B, N) as the input")
        if self.place.device != device:
            raise ValueError(f"documents is on {self.place.device} but the input on {device}: expected one device")

    def split(self, x: Float[Tensor, "B N *C"]) -> list[Float[Tensor, "D' L *C"]]:
        """The documents of x by bucket; what stands beyond their ends means nothing and gets no gradient."""
        if not self.buckets:
            return []
        flat = x.flatten(0, 1)  # (B·N, *C)
        gathered = _Rows.apply(flat, self.index, None, self.place, self._flat_mask)  # (P, *C)
        sizes = [bucket.documents.shape[0] * bucket.length for bucket in self.buckets]
        parts = gathered.split(sizes)
        return [part.unflatten(0, (-1, bucket.length)) for part, bucket in zip(parts, self.buckets, strict=True)]

    def merge(self, parts: Sequence[Float[Tensor, "D' L *C"]]) -> Float[Tensor, "B N *C"]:
        """The inverse of `split` where there are documents; zeros at positions of none."""
        flat = torch.cat([part.flatten(0, 1) for part in parts])  # (P, *C)
        return _Rows.apply(flat, self.place, self._flat_mask, self.index, self.filled).unflatten(0, self.shape)

    def map(
        self,
        function: Callable[..., Float[Tensor, "D' H L V"]],
        *tensors: Float[Tensor, "B C N K"] | None,
    ) -> Float[Tensor, "B H N V"]:
        """`function(bucket, *documents)` of each bucket, put together again; there is a document at least.

        Args:
            function: of a bucket and its documents, (D', C, L, K) of each of the tensors, None for None.
            tensors: each (B, C, N, K); the layers' lie as (B, N, C, K) in memory.
        """
        parts = [
            [None] * len(self.buckets) if tensor is None else self.split(tensor.transpose(1, 2)) for tensor in tensors
        ]
        outputs = []
        for bucket, *given in zip(self.buckets, *parts, strict=True):
            documents = (None if part is None else part.transpose(1, 2) for part in given)
            outputs.append(function(bucket, *documents).transpose(1, 2))  # (D', L, H, V)
        return self.merge(outputs).transpose(1, 2)

    @property
    def in_rows(self) -> Int[Tensor, "B N"]:
        """`number`, as the documents of whole rows are numbered."""
        return self.number

    def seen(self, count: int, *, front: bool = True) -> Bool[Tensor, "B L"]:
        """Which of `count` positions in front of these rows, or behind them, belong to documents here: none do."""
        return torch.zeros(self.shape[0], count, dtype=torch.bool, device=self.place.device)

    @property
    def order(self) -> Int[Tensor, " D"]:
        """The documents' numbers in the order in which the buckets have them."""
        return torch.cat([self.lengths[:0], *(bucket.documents for bucket in self.buckets)])

    def collect(self, parts: Sequence[Float[Tensor, "D' *C"]], fill: float = 0) -> Float[Tensor, "D *C"]:
        """What each bucket has found of its documents, in the order of their numbers.

        Args:
            parts: of each bucket; one of no document where there is no bucket.
            fill: for documents of a row of which nothing is here; there are none.
        """
        return torch.cat(list(parts)).index_select(0, self.order.argsort())

    def deal(self, values: Float[Tensor, "D *C"]) -> list[Float[Tensor, "D' *C"]]:
        """For each bucket what there is of its documents; the inverse of `collect`."""
        if not self.buckets:
            return [values[:0]]
        return [values.index_select(0, bucket.documents) for bucket in self.buckets]

    @property
    def _flat_mask(self) -> Tensor | None:
        return None if self.mask is None else self.mask.flatten()


class _Rows(torch.autograd.Function):
    """x[index], zeros where not `kept`; backward the gradient[place], zeros where not `used`.

    Both are gathers, as every row of x is wanted at most once: faster than adding up, and the same on every run.
    """

    @staticmethod
    def forward(x: Tensor, index: Tensor, kept: Tensor | None, place: Tensor, used: Tensor | None) -> Tensor:
        rows = x.index_select(0, index)
        return rows if kept is None else rows.masked_fill_(_against(~kept, rows), 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, *ctx.indices = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        index, kept, place, used = ctx.indices
        return _Rows.apply(grads[0], place, used, index, kept), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        with forward_mode(()):
            return _Rows.apply(tangents[0], *ctx.indices)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, *indices: Any) -> Any:
        return _Rows.apply(x.movedim(in_dims[0], 1), *indices), 1


def packed_lambda_layer(
    query: Float[Tensor, "B H N K"],
    key: Float[Tensor, "B U N K"] | None,
    value: Float[Tensor, "B U N V"],
    embedding: Float[Tensor, "U K R"] | None,
    packing: Packing,
    *,
    causal: bool = False,
    key_norm: str = "softmax",
    algorithm: str = "auto",
) -> Float[Tensor, "B H N V"]:
    """`lambda_layer` of each document by itself, forward and backward, in memory linear in N.

    Args:
        query, key, value, embedding: as for `lambda_layer`; offsets suffice that positions of one document have, so the
            longest document decides how large an embedding is needed.
        packing: which documents there are; its mask says which positions are real.
        causal, key_norm, algorithm: as for `lambda_layer`.

    Returns:
        (B, H, N, V); zeros at positions of no document.

    Raises:
        TypeError, ValueError: as `lambda_layer`, or a packing of another shape or device.
    """
    Problem.of(query, key, value, embedding, None, causal, key_norm)
    if torch.jit.is_tracing():
        raise ValueError(
            "packing says where documents are, which torch.jit.trace would keep for all inputs, and be wrong: trace "
            "lambda_layer, or use torch.compile"
        )
    if query.ndim != 4:
        raise ValueError(f"query has shape {tuple(query.shape)}: expected (B, H, N, K), as documents are sequences")
    packing.check_shape((query.shape[0], query.shape[2]), query.device)
    options: dict[str, Any] = {"causal": causal, "key_norm": key_norm, "algorithm": algorithm}
    if packing.plain:
        output = lambda_layer(query, key, value, embedding, mask=packing.mask, **options)
        return output if packing.mask is None else output.masked_fill(~packing.mask[:, None, :, None], 0)

    def documents(bucket: Bucket, query: Tensor, key: Tensor | None, value: Tensor) -> Tensor:
        return lambda_layer(query, key, value, embedding, mask=bucket.mask, **options)

    return packing.map(documents, query, key, value)


def _pack(ids: Tensor, real: Tensor, mask: Tensor | None, device: torch.device) -> Packing:
    """The packing of ids (B, N), `real` at real positions, both on the CPU."""
    rows, width = ids.shape
    begins = torch.ones_like(real)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    run = begins.flatten().cumsum(0)  # (B·N,) number of the run that a position belongs to
    found = real.flatten().nonzero()[:, 0]  # real positions, flattened
    _, number, counts = run[found].unique_consecutive(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0)
    first = found[ends - counts]  # (D,), flattened
    lengths = found[ends - 1] - first + 1

    buckets, indices, filled = [], [], []
    octave = torch.frexp((lengths - 1).double()).exponent  # lengths 1, 2, 3–4, 5–8, …
    for exponent in octave.unique().tolist():
        chosen = (octave == exponent).nonzero()[:, 0]  # (D',)
        length = int(lengths[chosen].max())
        steps = torch.arange(length)
        inside = steps < lengths[chosen, None]  # (D', L)
        index = first[chosen, None] + torch.where(inside, steps, 0)
        inside &= real.flatten()[index]
        whole = bool(inside.all())
        buckets.append(Bucket(chosen.to(device), length, None if whole else inside.to(device)))
        indices.append(index.flatten())
        filled.append(inside.flatten())
    nothing = found[:0]
    index, inside = torch.cat([nothing, *indices]), torch.cat([nothing.bool(), *filled])
    place = torch.zeros(rows * width, dtype=torch.int64)
    place[index[inside]] = inside.nonzero()[:, 0]
    numbers = torch.full((rows * width,), -1, dtype=torch.int64)
    numbers[found] = number
    if mask is None or not bool((real == mask.detach().cpu()).all()):
        mask = None if bool(real.all()) else real.to(device)
    return Packing(
        shape=(rows, width),
        mask=mask,
        number=numbers.view(rows, width).to(device),
        rows=(first // width).to(device),
        starts=(first % width).to(device),
        lengths=lengths.to(device),
        longest=int(lengths.max()) if len(lengths) else 0,
        plain=bool(((first // width).diff() > 0).all()),
        buckets=tuple(buckets),
        index=index.to(device),
        filled=None if bool(inside.all()) else inside.to(device),
        place=place.to(device),
    )


def _each(part: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What holds tensors with others in their place."""
    if isinstance(part, Tensor):
        return change(part)
    if isinstance(part, tuple):
        return tuple(_each(one, change) for one in part)
    if isinstance(part, (Bucket, Packing)):
        return replace(part, **{one.name: _each(getattr(part, one.name), change) for one in fields(part)})
    return part


def _check_mask(mask: Any, shape: tuple[int, ...]) -> None:
    check_mask(mask)
    if tuple(mask.shape) != shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}: expected {shape}, (B, N) as documents")


def _kind(given: Any) -> str:
    return str(given.dtype) if isinstance(given, Tensor) else type(given).__name__


def _against(flags: Tensor, rows: Tensor) -> Tensor:
    """(P,) as (P, 1, …), to go with rows (P, *C)."""
    return flags.view(-1, *[1] * (rows.ndim - 1))
