"""The causal content lambda of one chunk of positions, forward and backward, and how a sequence is cut into chunks.

In a chunk of C positions, with a the running maximum at its end and the state (S = Σ p vᵀ, D) brought to it,
y = tril(q̃ pᵀ) V + q̃ S, where q̃ = q / d: matrix products, n · C · h · (k + v) multiply-adds. A chunk in which the
maximum rises so far that exp(k − a) could vanish for what its first query sees is cut into smaller ones. The letters:
`scan.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lambda_seq.functional.reference import inverse_root

CHUNK = 128  # positions; measured on a CPU
LONGEST, FLOATS = 1024, 2**25  # on a GPU: positions at most, and floats of the products of one chunk


class Carry(NamedTuple):
    """What a chunk hands on to the next: S, D and a, the fields of a `ScanState`."""

    sums: Float[Tensor, "B U K V"]
    norm: Float[Tensor, "B U 1 K"]
    top: Float[Tensor, "B U 1 K"]

    def to(self, sums: torch.dtype, norm: torch.dtype) -> Carry:
        """The same with sums and norm in other dtypes."""
        return Carry(self.sums.to(sums), self.norm.to(norm), self.top)


class Chunk:
    """One chunk of C positions after a state; rows are (position, head).

    Args:
        query, key, value: of the chunk.
        before: what it goes on from, as precise as `after` shall be.
        top: the running maximum at the chunk's end.
        key_norm: "softmax", "l2" or "none".
    """

    def __init__(
        self,
        query: Float[Tensor, "B C H K"],
        key: Float[Tensor, "B U C K"],
        value: Float[Tensor, "B U C V"],
        before: Carry,
        top: Float[Tensor, "B U 1 K"],
        key_norm: str,
    ) -> None:
        self.key_norm, self.query, self.key, self.value = key_norm, query, key, value
        self.before, self.top = before, top
        self.shrink = torch.ones_like(top)  # brings the state to the new maximum
        self.weights = key  # p, (B, U, C, K)
        if key_norm == "softmax":
            reference = finite(top)
            self.shrink = (before.top - reference).exp()
            self.weights = (key - reference).exp()

    @property
    def after(self) -> Carry:
        """What the next chunk goes on from; it does not keep this one in memory."""
        sums = self.shrink.mT * self.before.sums + self.weights.mT @ self.value
        norm = self.shrink * self.before.norm
        if self.key_norm == "softmax":
            norm = norm + self.weights.sum(2, keepdim=True)
        elif self.key_norm == "l2":
            norm = norm + self.key.square().sum(2, keepdim=True)
        return Carry(sums, norm, self.top.clone())

    @cached_property
    def scale(self) -> Float[Tensor, "B U C K"]:
        """1 / d."""
        norm = self.before.norm.to(self.key.dtype)
        if self.key_norm == "softmax":
            norm = self.shrink * norm + self.weights.cumsum(2)
            return torch.where(norm > 0, 1 / norm, 0)
        if self.key_norm == "l2":
            return inverse_root(norm + self.key.square().cumsum(2))
        return torch.ones_like(self.key)

    @cached_property
    def sums(self) -> Float[Tensor, "B U K V"]:
        """S as the chunk's queries see it."""
        return self.shrink.mT * self.before.sums.to(self.key.dtype)

    @cached_property
    def queries(self) -> Float[Tensor, "B U C·H K"]:
        """q̃."""
        return (self.query[:, None] * self.scale[:, :, :, None]).flatten(2, 3)

    @cached_property
    def products(self) -> Float[Tensor, "B U C·H C"]:
        """tril(q̃ pᵀ)."""
        return self._causal(self.queries @ self.weights.mT)

    def _causal(self, products: Tensor) -> Tensor:
        count = self.key.shape[2]
        lower = torch.ones(count, count, dtype=torch.bool, device=products.device).tril()
        return products.unflatten(2, (count, -1)).mul_(lower[:, None]).flatten(2, 3)

    def output(self) -> Float[Tensor, "B C H V"]:
        """What the chunk's queries get."""
        output = self.products @ self.value + self.queries @ self.sums  # (B, U, C·H, V)
        return output.sum(1).unflatten(1, (self.key.shape[2], -1))

    def tangent(
        self, query: Tensor, key: Tensor, value: Tensor, sums: Tensor, norm: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tangents of the output and of the state after, from those of query, key, value and the state before."""
        running = self.shrink * norm  # tangent of d², or of d where keys are exponentials
        weights = key
        if self.key_norm == "softmax":
            weights = key * self.weights
            running = running + weights.cumsum(2)
            scale = -running * self.scale.square()
        elif self.key_norm == "l2":
            running = running + 2 * (key * self.key).cumsum(2)
            scale = -0.5 * running * self.scale**3
        else:
            scale = torch.zeros_like(self.scale)
        sums = self.shrink.mT * sums
        moved = query[:, None] * self.scale[:, :, :, None] + self.query[:, None] * scale[:, :, :, None]
        queries = moved.flatten(2, 3)  # of q̃, (B, U, C·H, K)
        products = self._causal(queries @ self.weights.mT + self.queries @ weights.mT)
        output = products @ self.value + self.products @ value + queries @ self.sums + self.queries @ sums
        after = sums + weights.mT @ self.value + self.weights.mT @ value
        return output.sum(1).unflatten(1, (self.key.shape[2], -1)), after, running[:, :, -1:]

    def backward(self, grad: Tensor, grad_sums: Tensor, grad_norm: Tensor) -> tuple[Tensor, ...]:
        """Gradients of query, key, value, and of the state before, from those of the output and the state after."""
        count, exact_sums = self.key.shape[2], grad_sums
        grad_sums = grad_sums.to(grad.dtype)
        grad = grad.flatten(1, 2)[:, None]  # (B, 1, C·H, V)
        grad_products = self._causal(grad @ self.value.mT)
        grad_queries = (grad_products @ self.weights + grad @ self.sums.mT).unflatten(2, (count, -1))  # of q̃
        grad_weights = grad_products.mT @ self.queries + self.value @ grad_sums.mT
        grad_value = self.products.mT @ grad + self.weights @ grad_sums
        grad_query = (grad_queries * self.scale[:, :, :, None]).sum(1)
        # d enters as q / d: through q̃ of all heads, at this and, as it is a running sum, at every later position
        falling = (grad_queries * self.queries.unflatten(2, (count, -1))).sum(3)  # (B, U, C, K)
        if self.key_norm == "softmax":
            grad_running = -falling * self.scale
        elif self.key_norm == "l2":
            grad_running = -0.5 * falling * self.scale.square()
        else:
            grad_running = torch.zeros_like(falling)
        grad_before = self.shrink * (grad_running.sum(2, keepdim=True) + grad_norm)
        grad_running[:, :, -1:] += grad_norm
        grad_running = grad_running.flip(2).cumsum(2).flip(2)
        if self.key_norm == "softmax":
            grad_key = (grad_weights + grad_running) * self.weights
        elif self.key_norm == "l2":
            grad_key = grad_weights + 2 * self.key * grad_running
        else:
            grad_key = grad_weights  # D stays what it was
        return grad_query, grad_key, grad_value, self.shrink.mT * (self.queries.mT @ grad + exact_sums), grad_before


def finite(top: Tensor) -> Tensor:
    """A reference for the weights of a softmax: the maximum or, where nothing is visible and any will do, 0."""
    return torch.where(top.isneginf(), 0, top)


def length_of(device: torch.device, rows: int) -> int:
    """Positions of a chunk, of so many rows (B · U · H): the longer, the fewer launches of a GPU, the more products."""
    if device.type != "cuda":
        return CHUNK
    return max(CHUNK, min(LONGEST, 1 << (math.isqrt(FLOATS // max(1, rows)).bit_length() - 1)))


def pieces(count: int, tops: Float[Tensor, "B U N K"] | None, length: int = CHUNK) -> list[tuple[int, int]]:
    """Chunks [start, stop) in which no weight that counts can vanish, given the running maxima of a softmax.

    Args:
        count: positions.
        tops: the maxima; None for other norms, whose weights do not vanish.
        length: of a chunk that is not cut.
    """
    spans = [(start, min(start + length, count)) for start in range(0, count, length)]
    if tops is None:
        return spans
    limit = 0.6 * math.log(torch.finfo(tops.dtype).max)
    first, last = tops[:, :, ::length], tops[:, :, length - 1 :: length]  # no lists, which would be copied to a GPU
    if count % length:
        last = torch.cat([last, tops[:, :, -1:]], 2)
    # Here, once in each pass, a GPU is waited for
    steep = ((last - first).nan_to_num(0, posinf=torch.inf) > limit).any((0, 1)).any(-1).tolist()
    found: list[tuple[int, int]] = []
    for span, cut in zip(spans, steep, strict=True):
        found.extend(_cut(tops, *span, limit) if cut else [span])
    return found


def _cut(tops: Tensor, start: int, stop: int, limit: float) -> Iterator[tuple[int, int]]:
    rise = (tops[:, :, stop - 1] - tops[:, :, start]).nan_to_num(0, posinf=torch.inf)
    if stop - start == 1 or not bool((rise > limit).any()):
        yield start, stop
    else:
        middle = (start + stop) // 2
        yield from _cut(tops, start, middle, limit)
        yield from _cut(tops, middle, stop, limit)
