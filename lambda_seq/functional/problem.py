"""What a call asks for: its shapes checked once, in the user's words, and its geometry, computed here only.

To the algorithms everything is an image: a sequence is one of a single row. Offsets that no pair of positions has are
clipped off the embedding, and what is left says by its `origin` which of them is offset 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

KeyNorm = Literal["softmax", "l2", "none"]


class Sizes(NamedTuple):
    """The sizes of a problem as the algorithms see it: an image, and the offsets that can meet it.

    Letters used throughout `lambda_seq`: B batch, H heads, U intra-depth, N (or Y, X) positions, K query/key depth,
    V value depth per head, R (or RY, RX) scope. Without a position lambda RY = RX = 0.
    """

    B: int
    H: int
    U: int
    K: int
    V: int
    Y: int
    X: int
    RY: int
    RX: int
    origin: tuple[int, ...]  # index of offset 0 in the scope, (rows, columns)
    content: bool = False  # whether one content lambda, of all positions, is added to each position lambda

    @property
    def N(self) -> int:  # noqa: N802
        """Positions in the batch."""
        return self.B * self.Y * self.X

    @property
    def outputs(self) -> int:
        """Numbers in the output."""
        return self.N * self.H * self.V

    @property
    def gradients(self) -> int:
        """Numbers in the gradients of query, value and embedding."""
        return self.N * (self.H * self.K + self.U * self.V) + self.U * self.K * self.RY * self.RX

    def of_content(self, causal: bool) -> Sizes:
        """Those of the content lambda: one row of positions, no scope, and no query unless its output is a scan's."""
        return self._replace(H=self.H if causal else 0, Y=1, X=self.Y * self.X, RY=0, RX=0, origin=(0, 0))

    def chunk(self, most: int) -> int:
        """Floats that the largest temporary of one chunk may hold.

        Args:
            most: what stays in cache; measured. Less for a small output, beside which temporaries shall be small.
        """
        return max(2**17, min(most, self.outputs // 4))


def as_image(tensor: Tensor) -> Tensor:
    """A sequence, (B, C, N, D), or its embedding, (U, K, R), as an image of one row: (B, C, 1, N, D), (U, K, 1, R)."""
    return tensor.unsqueeze(2)


def as_sequence(tensor: Float[Tensor, "B C 1 N D"]) -> Float[Tensor, "B C N D"]:
    """The way back."""
    return tensor.squeeze(2)


def origin(scope: Sequence[int], causal: bool) -> tuple[int, ...]:
    """Index of offset 0 per dimension: in the middle of the scope, or, causal, at its end."""
    return tuple(taps - 1 if causal else (taps - 1) // 2 for taps in scope)


def within(scope: Sequence[int], first: Sequence[int], size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Scope and index of offset 0, per dimension, when the offsets that no pair of positions has are left out.

    A program that is exported keeps all of them, as it shall serve any size.
    """
    if torch.compiler.is_exporting():
        return tuple(scope), tuple(first)
    before = tuple(min(index, max(0, length - 1)) for index, length in zip(first, size, strict=True))
    after = (min(taps - 1 - index, max(0, length - 1)) for taps, index, length in zip(scope, first, size, strict=True))
    return tuple(left + 1 + right for left, right in zip(before, after, strict=True)), before


def clip(
    embedding: Float[Tensor, "U K *R"], first: Sequence[int], size: Sequence[int]
) -> tuple[Float[Tensor, "U K *R"], tuple[int, ...]]:
    """The embedding `within` an input of this size, a view, and the index of its offset 0 per dimension."""
    scope, before = within(embedding.shape[2:], first, size)
    for axis, taps in enumerate(scope):
        embedding = embedding.narrow(2 + axis, first[axis] - before[axis], taps)
    return embedding, before


def sized(
    query: Float[Tensor, "B H Y X K"],
    value: Float[Tensor, "B U Y X V"],
    embedding: Float[Tensor, "U K RY RX"],
    first: Sequence[int],
) -> tuple[Float[Tensor, "U K RY RX"], Sizes]:
    """The embedding without the offsets that no pair of positions has, and the sizes of what is to be computed."""
    batch, heads, rows, columns, dim_key = query.shape
    embedding, before = clip(embedding, first, (rows, columns))
    intra, _, *scope = embedding.shape
    return embedding, Sizes(batch, heads, intra, dim_key, value.shape[-1], rows, columns, scope[0], scope[1], before)


@dataclass(frozen=True)
class Problem:
    """One lambda layer call: its sizes, and all else that the choice of an algorithm depends on."""

    sizes: Sizes
    dims: int  # 1 for sequences, 2 for images
    origin: tuple[int, ...]  # index of offset 0 in the embedding as given, (rows, columns)
    content: bool
    causal: bool
    dtype: torch.dtype
    device: torch.device

    @property
    def size(self) -> tuple[int, ...]:
        """Positions per dimension, N or (Y, X)."""
        return (self.sizes.Y, self.sizes.X)[2 - self.dims :]

    @property
    def scope(self) -> tuple[int, ...] | None:
        """Offsets per dimension that can meet the input; None: content only."""
        return (self.sizes.RY, self.sizes.RX)[2 - self.dims :] if self.sizes.RX else None

    @property
    def empty(self) -> bool:
        """Whether there is no position or no batch."""
        return 0 in (self.sizes.B, self.sizes.Y, self.sizes.X)  # N is a property: torch 2.8 does not compile it here

    def on(self, device: torch.device) -> Problem:
        """The same problem on another device."""
        return replace(self, device=device)

    @classmethod
    def of(
        cls,
        query: Tensor,
        key: Tensor | None,
        value: Tensor,
        embedding: Tensor | None,
        mask: Tensor | None = None,
        causal: bool = False,
        key_norm: str = "softmax",
    ) -> Problem:
        """Check the arguments of `lambda_layer` against each other and return their sizes.

        Raises:
            TypeError: an argument is no tensor of real floating point numbers, its dtype differs from the query's, or
                an option is of another type.
            ValueError: a rank, size or option that does not fit; the message names argument, value and remedy.
        """
        _check_types(query=query, key=key, value=value, embedding=embedding)
        if key is None and embedding is None:
            raise ValueError("key and embedding are both None: give a key (content), an embedding (position), or both")
        if query.ndim not in (4, 5):
            raise ValueError(
                f"query has shape {_shape(query)}, of rank {query.ndim}: expected (B, H, N, K) for sequences or "
                "(B, H, Y, X, K) for images"
            )
        batch, heads, *size, dim_key = query.shape
        if value.ndim != query.ndim:
            raise ValueError(
                f"value has shape {_shape(value)}, of rank {value.ndim}: expected rank {query.ndim}, (B, U, *N, V), "
                f"as query has shape {_shape(query)}"
            )
        _, intra, *_, dim_value = value.shape
        _expect("value", value, (batch, intra, *size, dim_value), "(B, U, *N, V) with the query's B and N")
        if key is not None:
            _expect(
                "key", key, (batch, intra, *size, dim_key), "(B, U, *N, K) with the query's B, N, K and the value's U"
            )
        if 0 in (heads, intra, dim_key, dim_value):
            raise ValueError(
                f"query has shape {_shape(query)} and value {_shape(value)}: batch and positions may be empty; give "
                "every other dimension at least one entry"
            )
        if mask is not None:
            check_mask(mask)
            _expect("mask", mask, (batch, *size), "(B, *N), True at real positions")
            _check_device("mask", mask, query)
        if not isinstance(causal, bool):
            raise TypeError(f"causal={causal!r}: expected True or False")
        if causal and len(size) != 1:
            raise ValueError(f"causal=True with query of shape {_shape(query)}: causal is defined in 1D, (B, H, N, K)")
        if key_norm not in get_args(KeyNorm):
            raise ValueError(f"key_norm={key_norm!r}: expected one of {', '.join(map(repr, get_args(KeyNorm)))}")
        rows, columns = (1, *size) if len(size) == 1 else size
        scope: tuple[int, ...] = (0, 0)
        first = before = scope
        if embedding is not None:
            _check_embedding(embedding, query, intra, causal)
            given = (1, *embedding.shape[2:])[-2:]
            first = origin(given, causal)
            scope, before = within(given, first, (rows, columns))
        return cls(
            sizes=Sizes(batch, heads, intra, dim_key, dim_value, rows, columns, scope[0], scope[1], before),
            dims=len(size),
            origin=first,
            content=key is not None,
            causal=causal,
            dtype=query.dtype,
            device=query.device,
        )


def _check_embedding(embedding: Tensor, query: Tensor, intra: int, causal: bool) -> None:
    """Raise ValueError unless the embedding goes with the query."""
    _, _, *size, dim_key = query.shape
    if embedding.ndim != len(size) + 2:
        raise ValueError(
            f"embedding has shape {_shape(embedding)}, of rank {embedding.ndim}: expected (U, K, "
            f"{'R' if len(size) == 1 else 'RY, RX'}) for a query of shape {_shape(query)}"
        )
    taps = tuple(embedding.shape[2:])
    _expect("embedding", embedding, (intra, dim_key, *taps), "(U, K, *R) with the value's U and the query's K")
    for count in taps:
        if count < 1 or (not causal and count % 2 == 0):
            raise ValueError(
                f"embedding has shape {_shape(embedding)}, a scope of {count}: "
                + ("expected at least one offset" if count < 1 else "expected an odd number of offsets, centred on 0")
                + ("" if causal else " (causal=True takes any number from 1, ending at 0)")
            )


def check_floating(name: str, tensor: Any) -> None:
    """Raise TypeError unless this is a tensor of real floating point numbers."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name} is {type(tensor).__name__}: expected a torch.Tensor"
            + (f"; use torch.as_tensor({name}, dtype=torch.float32)" if _is_array(tensor) else "")
        )
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} has layout {tensor.layout}: expected a dense tensor; use {name}.to_dense()")
    if tensor.is_complex():
        raise TypeError(
            f"{name} is {tensor.dtype}: expected real numbers; give real and imaginary parts as channels, "
            f"torch.view_as_real({name}).flatten(-2), or magnitudes, {name}.abs()"
        )
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"{name} is {tensor.dtype}: expected a floating point tensor; use {name}.float()")


def check_mask(mask: Any) -> None:
    """Raise TypeError unless this is a bool tensor."""
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        return
    found = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
    remedy = "mask.bool()" if isinstance(mask, Tensor) else "torch.as_tensor(mask, dtype=torch.bool)"
    raise TypeError(f"mask is {found}: expected a bool tensor, True at real positions; use {remedy}")


def _is_array(given: Any) -> bool:
    """Whether torch could make a tensor of it: lists, NumPy's arrays and the like, not None or words."""
    return isinstance(given, (list, tuple, int, float)) or hasattr(given, "__array__")


def _check_types(query: Tensor, **others: Tensor | None) -> None:
    check_floating("query", query)
    for name, tensor in others.items():
        if tensor is None and name != "value":
            continue
        check_floating(name, tensor)
        assert tensor is not None
        if tensor.dtype != query.dtype:
            raise TypeError(
                f"{name} is {tensor.dtype} but query is {query.dtype}: expected one dtype; use {name}.to(query.dtype)"
            )
        _check_device(name, tensor, query)


def _check_device(name: str, tensor: Tensor, query: Tensor) -> None:
    if tensor.device != query.device:
        raise ValueError(
            f"{name} is on {tensor.device} but query on {query.device}: expected one device; "
            f"use {name}.to(query.device)"
        )


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {_shape(tensor)}: expected {shape}, {meaning}")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
