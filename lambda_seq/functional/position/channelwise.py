"""Lambda order channel by channel: each value channel correlated with the k kernels, then the query applied.

    λ_kv = Σ_u R_uk ⋆ V_uv          y^h_v = Σ_k q^h_k ⊙ λ_kv

What computes the correlation is a `Correlation`: FFTs (`fft.py`) or a direct convolution (`convolution.py`). The loops
here go over values and keys, so that the n · k · v numbers of all position lambdas never stand in memory at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lambda_seq.functional.operators import channels_first
from lambda_seq.functional.position.cuts import Cuts
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work

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
    """What is laid out, and what is computed together.

    Args:
        sizes: of the problem.
        points: floats that one (k, v) pair needs while it is computed.
        key_by_key: whether keys can be computed a few at a time.
    """

    def __init__(self, sizes: Sizes, points: int, key_by_key: bool) -> None:
        self.sizes, self.points, self.key_by_key = sizes, points, key_by_key
        self.floats = sizes.chunk(CHUNK)

    def groups(self) -> Cuts:
        """Batch entries and value channels that are laid out together."""
        together = max(1, self.floats // (self.sizes.K * self.points * min(GROUP, self.sizes.V)))
        return Cuts((self.sizes.B, together), (self.sizes.V, GROUP))

    def chunks(self, batch: int, values: int) -> Cuts:
        """Value channels of a group of so many, and keys, whose lambdas are computed together."""
        pairs = max(PAIRS, self.floats // (batch * self.points))
        keys = min(self.sizes.K, pairs) if self.key_by_key else self.sizes.K
        return Cuts((values, max(1, pairs // keys)), (self.sizes.K, keys))


def count(s: Sizes, points: int, key_by_key: bool, backward: bool) -> tuple[Work, float]:
    """What is done around the correlations: layouts, and the query applied to n · k · v lambdas; floats at most."""
    loops, pairs, positions = _Loops(s, points, key_by_key), s.B * s.V * s.K, s.Y * s.X
    groups, calls, gradient_calls, chunk = loops.groups(), 0, 0, 0
    for (batch, values), times in groups.shapes():
        for (channels, keys), again in loops.chunks(batch, values).shapes():
            calls += times * again * (8 + 2 * keys)
            gradient_calls += times * again * (2 * s.H + 10)
            chunk = max(chunk, batch * channels * keys)
    work = Work(streamed=pairs * positions * (1 + 3 * s.H) + 4 * s.N * s.H * (s.K + s.V), calls=8 * len(groups) + calls)
    group = math.prod(groups.largest) * positions
    temporary = s.N * s.H * s.K + group * (s.U + s.H) + 3 * points * chunk
    if backward:
        work += work + Work(streamed=pairs * positions * (6 * s.H + 2), calls=gradient_calls)
        temporary += s.N * s.H * s.K + group * (2 * s.U + s.H)
    return work, temporary


def wide(tensor: Tensor, least: torch.dtype, *order: int) -> Tensor:
    """Permuted, contiguous, in at least the precision of a dtype."""
    return tensor.permute(*order).to(torch.promote_types(tensor.dtype, least)).contiguous()


def forward(
    make: MakeCorrelation,
    query: Tensor,
    value: Tensor,
    embedding: Tensor,
    sizes: Sizes,
    least: torch.dtype = torch.float32,
) -> Tensor:
    """Position part of the output, (B, H, Y, X, V), computed in at least the precision of a dtype.

    The other arguments are as in `registry.Algorithm`.
    """
    size = (sizes.Y, sizes.X)
    correlation = make(wide(embedding, least, 0, 1, 2, 3), size, sizes.origin)
    queries = wide(query, least, 0, 4, 1, 2, 3)  # (B, K, H, Y, X)
    output = query.new_empty(sizes.B, *size, sizes.H, sizes.V)
    loops = _Loops(sizes, correlation.points, correlation.key_by_key)
    for some, channels in loops.groups():
        values = wide(value[some, ..., channels], least, 0, 4, 1, 2, 3)  # (b, v, U, Y, X)
        correlation.load(values)
        group = queries.new_zeros(*values.shape[:2], sizes.H, *size)
        for part, keys in loops.chunks(*values.shape[:2]):
            lambdas = correlation.lambdas(part, keys)
            for index, key in enumerate(range(keys.start, keys.stop)):
                group[:, part].addcmul_(queries[some, None, key], lambdas[:, :, index, None])
        output[some, ..., channels].copy_(group.permute(0, 3, 4, 2, 1))
    return channels_first(output)


def backward(
    make: MakeCorrelation,
    grad: Tensor,
    query: Tensor,
    value: Tensor,
    embedding: Tensor,
    sizes: Sizes,
    least: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, value and embedding; the lambdas are computed again, chunk by chunk."""
    size = (sizes.Y, sizes.X)
    correlation = make(wide(embedding, least, 0, 1, 2, 3), size, sizes.origin)
    queries = wide(query, least, 0, 4, 1, 2, 3)  # (B, K, H, Y, X)
    grad_queries = torch.zeros_like(queries)
    grad_value = value.new_empty(sizes.B, *size, sizes.U, sizes.V)
    loops = _Loops(sizes, correlation.points, correlation.key_by_key)
    for some, channels in loops.groups():
        values = wide(value[some, ..., channels], least, 0, 4, 1, 2, 3)  # (b, v, U, Y, X)
        correlation.load(values)
        grads = wide(grad[some, ..., channels], least, 0, 4, 1, 2, 3)  # (b, v, H, Y, X)
        for part, keys in loops.chunks(*values.shape[:2]):
            lambdas = correlation.lambdas(part, keys)
            for index in range(lambdas.shape[1]):
                output = grads[:, part.start + index, None]  # (b, 1, H, Y, X)
                grad_queries[some, keys].addcmul_(output, lambdas[:, index, :, None])
            lambdas = queries[some, None, keys, 0] * grads[:, part, None, 0]  # from here on their gradients
            for head in range(1, sizes.H):
                lambdas.addcmul_(queries[some, None, keys, head], grads[:, part, None, head])
            correlation.add_gradient(part, keys, lambdas)
        grad_value[some, ..., channels].copy_(correlation.value_gradient().permute(0, 3, 4, 2, 1))
    return (
        channels_first(grad_queries.permute(0, 3, 4, 2, 1).to(query.dtype).contiguous()),
        channels_first(grad_value),
        correlation.embedding_gradient().to(embedding.dtype).contiguous(),
    )
