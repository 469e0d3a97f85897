"""Lambda order channel by channel: each value channel correlated with the k kernels, then the query applied.

    λ_kv = Σ_u R_uk ⋆ V_uv          y^h_v = Σ_k q^h_k ⊙ λ_kv

What computes the correlation is a `Correlation`: FFTs (`fft.py`) or a direct convolution (`convolution.py`). The loops
here go over values and keys, so that the n · k · v numbers of all position lambdas never stand in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Protocol

import torch
from torch import Tensor

from lambda_seq.functional.operators import channels_first, chunk_floats

# Floats of the lambdas that are computed together (they stay in cache), pairs (k, v) of them at least (transforms of
# fewer are slow), and channels that are laid out together (a cache line of them): measured.
CHUNK = 2**21
PAIRS = 16
GROUP = 16


class Correlation(Protocol):
    """λ_kv = Σ_u R_uk ⋆ V_uv for one embedding, over inputs of one size."""

    points: int  # floats that one (k, v) pair needs while it is computed
    key_by_key: bool  # whether keys can be computed a few at a time

    def load(self, values: Tensor) -> None:
        """Take a group of values, (b, v, U, Y, X)."""

    def lambdas(self, channels: slice, keys: slice) -> Tensor:
        """Lambdas (b, v, k, Y, X) of some of the loaded value channels and some keys."""

    def add_gradient(self, channels: slice, keys: slice, grad: Tensor) -> None:
        """Add up what the gradient of lambdas, (b, v, k, Y, X), means for the loaded values and the embedding."""

    def value_gradient(self) -> Tensor:
        """Gradient of the loaded values, (b, v, U, Y, X)."""

    def embedding_gradient(self) -> Tensor:
        """Gradient of the embedding, (U, K, RY, RX)."""


MakeCorrelation = Callable[[Tensor, Sequence[int], Sequence[int]], Correlation]


class _Loops:
    """What is laid out and what is computed together, for a query (B, H, Y, X, K) and V value channels."""

    def __init__(self, query: Tensor, values: int, correlation: Correlation) -> None:
        self.batch, self.keys, self.values = query.shape[0], query.shape[-1], values
        self.points, self.key_by_key = correlation.points, correlation.key_by_key
        self.floats = chunk_floats(CHUNK, query.shape[:-1].numel() * values)

    def groups(self) -> Iterator[tuple[slice, slice]]:
        """Batch entries and value channels that are laid out together."""
        together = max(1, self.floats // (self.keys * self.points * min(GROUP, self.values)))
        for first, channel in product(range(0, self.batch, together), range(0, self.values, GROUP)):
            batch = slice(first, min(first + together, self.batch))
            yield batch, slice(channel, min(channel + GROUP, self.values))

    def chunks(self, group: Tensor) -> Iterator[tuple[slice, slice]]:
        """Value channels of a group (b, v, ...), and keys, whose lambdas are computed together."""
        batch, values = group.shape[:2]
        pairs = max(PAIRS, self.floats // (batch * self.points))
        some_keys = min(self.keys, pairs) if self.key_by_key else self.keys
        some_values = max(1, pairs // some_keys)
        for value, key in product(range(0, values, some_values), range(0, self.keys, some_keys)):
            yield slice(value, min(value + some_values, values)), slice(key, min(key + some_keys, self.keys))


def wide(tensor: Tensor, *order: int) -> Tensor:
    """Permuted, contiguous, in at least float32."""
    return tensor.permute(*order).to(torch.promote_types(tensor.dtype, torch.float32)).contiguous()


def forward(make: MakeCorrelation, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> Tensor:
    """Position part of the output, (B, H, Y, X, V); arguments as in `operators.position_operator`."""
    batch, heads, *size, _ = query.shape
    dim_value = value.shape[-1]
    correlation = make(wide(embedding, 0, 1, 2, 3), size, origin)
    queries = wide(query, 0, 4, 1, 2, 3)  # (B, K, H, Y, X)
    output = query.new_empty(batch, *size, heads, dim_value)
    loops = _Loops(query, dim_value, correlation)
    for some, channels in loops.groups():
        values = wide(value[some, ..., channels], 0, 4, 1, 2, 3)  # (b, v, U, Y, X)
        correlation.load(values)
        group = queries.new_zeros(*values.shape[:2], heads, *size)
        for part, keys in loops.chunks(values):
            lambdas = correlation.lambdas(part, keys)
            for index, key in enumerate(range(keys.start, keys.stop)):
                group[:, part].addcmul_(queries[some, None, key], lambdas[:, :, index, None])
        output[some, ..., channels].copy_(group.permute(0, 3, 4, 2, 1))
    return channels_first(output)


def backward(
    make: MakeCorrelation, grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, value and embedding; the lambdas are computed again, chunk by chunk."""
    batch, heads, *size, _ = query.shape
    dim_value = value.shape[-1]
    correlation = make(wide(embedding, 0, 1, 2, 3), size, origin)
    queries = wide(query, 0, 4, 1, 2, 3)  # (B, K, H, Y, X)
    grad_queries = torch.zeros_like(queries)
    grad_value = value.new_empty(batch, *size, value.shape[1], dim_value)
    loops = _Loops(query, dim_value, correlation)
    for some, channels in loops.groups():
        values = wide(value[some, ..., channels], 0, 4, 1, 2, 3)  # (b, v, U, Y, X)
        correlation.load(values)
        grads = wide(grad[some, ..., channels], 0, 4, 1, 2, 3)  # (b, v, H, Y, X)
        for part, keys in loops.chunks(values):
            lambdas = correlation.lambdas(part, keys)
            for index in range(lambdas.shape[1]):
                output = grads[:, part.start + index, None]  # (b, 1, H, Y, X)
                grad_queries[some, keys].addcmul_(output, lambdas[:, index, :, None])
            lambdas = queries[some, None, keys, 0] * grads[:, part, None, 0]  # from here on their gradients
            for head in range(1, heads):
                lambdas.addcmul_(queries[some, None, keys, head], grads[:, part, None, head])
            correlation.add_gradient(part, keys, lambdas)
        grad_value[some, ..., channels].copy_(correlation.value_gradient().permute(0, 3, 4, 2, 1))
    return (
        channels_first(grad_queries.permute(0, 3, 4, 2, 1).to(query.dtype).contiguous()),
        channels_first(grad_value),
        correlation.embedding_gradient().to(embedding.dtype).contiguous(),
    )
