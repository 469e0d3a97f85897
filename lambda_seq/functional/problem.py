"""What a call asks for: its shapes checked once, in the user's words, before any work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

KeyNorm = Literal["softmax", "l2", "none"]


@dataclass(frozen=True)
class Problem:
    """The sizes of one lambda layer call; everything the cost model needs and nothing else.

    Letters used throughout `lambda_seq`: B batch, H heads, U intra-depth, N (or Y, X) positions, K query/key depth,
    V value depth per head, R (or RY, RX) scope.
    """

    batch: int
    heads: int
    intra: int
    size: tuple[int, ...]  # positions per dimension, N or (Y, X)
    dim_key: int
    dim_value: int
    scope: tuple[int, ...] | None  # offsets per dimension that can meet the input; None: content only
    content: bool
    causal: bool
    dtype: torch.dtype
    device: torch.device

    @property
    def positions(self) -> int:
        """Number of positions N = Y · X of one sequence or image."""
        count = 1
        for length in self.size:
            count *= length
        return count

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
            TypeError: an argument is not a tensor, or its dtype differs from the query's.
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
        if 0 in (heads, intra, dim_key, dim_value, *size):
            raise ValueError(
                f"query has shape {_shape(query)} and value {_shape(value)}: only the batch may be empty; give every "
                "other dimension at least one entry"
            )
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
                raise TypeError(f"mask is {found}: expected a bool tensor, True at real positions; use mask.bool()")
            _expect("mask", mask, (batch, *size), "(B, *N), True at real positions")
        if causal and len(size) != 1:
            raise ValueError(f"causal=True with query of shape {_shape(query)}: causal is defined in 1D, (B, H, N, K)")
        if key_norm not in get_args(KeyNorm):
            raise ValueError(f"key_norm={key_norm!r}: expected one of {', '.join(map(repr, get_args(KeyNorm)))}")
        scope = None if embedding is None else _scope(embedding, query, intra, causal)
        return cls(
            batch=batch,
            heads=heads,
            intra=intra,
            size=tuple(size),
            dim_key=dim_key,
            dim_value=dim_value,
            scope=scope,
            content=key is not None,
            causal=causal,
            dtype=query.dtype,
            device=query.device,
        )


def _scope(embedding: Tensor, query: Tensor, intra: int, causal: bool) -> tuple[int, ...]:
    """Offsets of the embedding that can meet an input of this size, per dimension."""
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
                f"embedding has shape {_shape(embedding)}, a scope of {count}: expected an odd number of offsets, "
                "centred on 0 (causal=True takes any number, ending at 0)"
            )
    widest = [length if causal else 2 * length - 1 for length in size]
    return tuple(min(count, most) for count, most in zip(taps, widest, strict=True))


def _check_types(query: Tensor, **others: Tensor | None) -> None:
    if not isinstance(query, Tensor):
        raise TypeError(f"query is {type(query).__name__}: expected a torch.Tensor")
    if not query.dtype.is_floating_point:
        raise TypeError(f"query is {query.dtype}: expected a floating point tensor; use query.float()")
    for name, tensor in others.items():
        if tensor is None and name != "value":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is {type(tensor).__name__}: expected a torch.Tensor")
        if tensor.dtype != query.dtype:
            raise TypeError(
                f"{name} is {tensor.dtype} but query is {query.dtype}: expected one dtype; use {name}.to(query.dtype)"
            )
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
