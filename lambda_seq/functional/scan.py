"""The causal content lambda, chunk by chunk, with a running maximum.

    λᶜ_n = Σ_{m ≤ n} p_m v_mᵀ / d_n,   softmax: p_m = exp(k_m − a), d_n = Σ_{m ≤ n} p_m for any a
                                       l2: p_m = k_m, d_n = (Σ_{m ≤ n} k_m²)^½          none: p_m = k_m, d_n = 1

In a chunk of C positions, with a the running maximum at its end and the state (S = Σ p vᵀ, D) brought to it,
y = tril(q̃ pᵀ) V + q̃ S, where q̃ = q / d: matrix products, n · C · h · (k + v) multiply-adds. A chunk in which the
maximum rises so far that exp(k − a) could vanish for what its first query sees is cut into smaller ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lambda_seq.functional.naive import inverse_root
from lambda_seq.functional.operators import channels_first, exactly, register_gradient

CHUNK = 128  # positions; measured


@dataclass
class ScanState:
    """What a query sees of earlier chunks: S (B, U, K, V), D (B, U, 1, K), and the maximum a (B, U, 1, K)."""

    sums: Tensor
    norm: Tensor
    top: Tensor


class _Chunk:
    """Everything of one chunk that both passes need; rows are (position, head)."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, state: ScanState, top: Tensor, key_norm: str) -> None:
        # query (B, C, H, K), key (B, U, C, K), value (B, U, C, V), top (B, U, 1, K)
        self.key_norm, self.key, self.value = key_norm, key, value
        self.shrink = torch.ones_like(top)  # brings the state to the new maximum
        self.weights = key  # p, (B, U, C, K)
        self.scale = torch.ones_like(key)  # 1 / d, (B, U, C, K)
        self.norm = state.norm
        if key_norm == "softmax":
            finite = torch.where(top.isneginf(), 0, top)  # nothing visible yet: any reference will do
            self.shrink = (state.top - finite).exp()
            self.weights = (key - finite).exp()
            norm = self.shrink * state.norm + self.weights.cumsum(2)
            self.scale = torch.where(norm > 0, 1 / norm, 0)
            self.norm = norm[:, :, -1:]
        elif key_norm == "l2":
            norm = state.norm + key.square().cumsum(2)
            self.scale = inverse_root(norm)
            self.norm = norm[:, :, -1:]
        self.sums = self.shrink.mT * state.sums  # S, (B, U, K, V)
        self.queries = (query[:, None] * self.scale[:, :, :, None]).flatten(2, 3)  # q̃, (B, U, C·H, K)
        self.products = self._causal(self.queries @ self.weights.mT)  # (B, U, C·H, C)

    def _causal(self, products: Tensor) -> Tensor:
        count = self.key.shape[2]
        lower = torch.ones(count, count, dtype=torch.bool, device=products.device).tril()
        return products.unflatten(2, (count, -1)).mul_(lower[:, None]).flatten(2, 3)

    def output(self) -> Tensor:
        """(B, C, H, V)."""
        output = self.products @ self.value + self.queries @ self.sums  # (B, U, C·H, V)
        return output.sum(1).unflatten(1, (self.key.shape[2], -1))

    def next_state(self, top: Tensor) -> ScanState:
        """The state after this chunk; copies, so that it does not keep the whole chunk in memory."""
        return ScanState(self.sums + self.weights.mT @ self.value, self.norm.clone(), top.clone())

    def backward(self, grad: Tensor, grad_sums: Tensor, grad_norm: Tensor) -> tuple[Tensor, ...]:
        """Gradients of query, key, value, and of the state before, from those of the output and the state after."""
        count = self.key.shape[2]
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
        grad_running[:, :, -1:] += grad_norm
        grad_running = grad_running.flip(2).cumsum(2).flip(2)
        if self.key_norm == "softmax":
            grad_key = (grad_weights + grad_running) * self.weights
        else:
            grad_key = grad_weights + 2 * self.key * grad_running
        grad_sums = self.queries.mT @ grad + grad_sums
        return grad_query, grad_key, grad_value, self.shrink.mT * grad_sums, self.shrink * grad_running[:, :, :1]


def _pieces(count: int, tops: Tensor | None) -> list[tuple[int, int]]:
    """Chunks [start, stop) in which no weight that counts can vanish, given the running maxima of a softmax."""
    spans = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    if tops is None:
        return spans
    limit = 0.6 * math.log(torch.finfo(tops.dtype).max)
    last = tops[:, :, [stop - 1 for _, stop in spans]]
    first = tops[:, :, [start for start, _ in spans]]
    steep = ((last - first).nan_to_num(0, posinf=torch.inf) > limit).any((0, 1)).any(-1).tolist()
    pieces: list[tuple[int, int]] = []
    for span, cut in zip(spans, steep, strict=True):
        pieces.extend(_cut(tops, *span, limit) if cut else [span])
    return pieces


def _cut(tops: Tensor, start: int, stop: int, limit: float) -> Iterator[tuple[int, int]]:
    rise = (tops[:, :, stop - 1] - tops[:, :, start]).nan_to_num(0, posinf=torch.inf)
    if stop - start == 1 or not bool((rise > limit).any()):
        yield start, stop
    else:
        middle = (start + stop) // 2
        yield from _cut(tops, start, middle, limit)
        yield from _cut(tops, middle, stop, limit)


def empty_state(key: Tensor, value: Tensor) -> ScanState:
    """The state before the first position, for keys (B, U, ..., K) and values (B, U, ..., V)."""
    wide = torch.promote_types(key.dtype, torch.float32)
    batch, intra, dim_key, dim_value = *key.shape[:2], key.shape[-1], value.shape[-1]
    norm = key.new_zeros(batch, intra, 1, dim_key, dtype=wide)
    sums = key.new_zeros(batch, intra, dim_key, dim_value, dtype=wide)
    return ScanState(sums, norm, torch.full_like(norm, -torch.inf))


class _Scan:
    """Inputs in compute precision, and the walk over their chunks."""

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, key_norm: str, state: ScanState | None = None
    ) -> None:
        wide = torch.promote_types(query.dtype, torch.float32)
        self.query = query[:, :, 0].transpose(1, 2).to(wide)  # (B, N, H, K)
        self.key, self.value = key[:, :, 0].to(wide), value[:, :, 0].to(wide)  # (B, U, N, ·)
        self.key_norm = key_norm
        self.state = state or empty_state(key, value)
        if key_norm == "softmax":
            self.tops = torch.maximum(self.key.cummax(2).values, self.state.top)
            self.pieces = _pieces(self.key.shape[2], self.tops)
        else:
            self.tops = self.state.top
            self.pieces = _pieces(self.key.shape[2], None)

    def top(self, stop: int) -> Tensor:
        return self.tops[:, :, stop - 1 : stop] if self.key_norm == "softmax" else self.tops

    def chunk(self, start: int, stop: int, state: ScanState) -> _Chunk:
        part = slice(start, stop)
        return _Chunk(
            self.query[:, part], self.key[:, :, part], self.value[:, :, part], state, self.top(stop), self.key_norm
        )


def forward(
    query: Tensor, key: Tensor, value: Tensor, sums: Tensor, norm: Tensor, top: Tensor, key_norm: str
) -> Tensor:
    """Causal content part of the output, (B, H, 1, N, V), after the positions of a `ScanState`."""
    return advance(query, key, value, key_norm, ScanState(sums, norm, top))[0]


def advance(
    query: Tensor, key: Tensor, value: Tensor, key_norm: str, state: ScanState | None = None
) -> tuple[Tensor, ScanState]:
    """The output for positions that follow those of a state, (B, H, 1, N, V), and the state after them."""
    walk = _Scan(query, key, value, key_norm, state)
    output = query.new_empty(*walk.query.shape[:-1], value.shape[-1])  # (B, N, H, V)
    state = walk.state
    for start, stop in walk.pieces:
        chunk = walk.chunk(start, stop, state)
        output[:, start:stop] = chunk.output()
        state = chunk.next_state(walk.top(stop))
    return channels_first(output[:, None]), state


def backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, sums: Tensor, norm: Tensor, top: Tensor, key_norm: str
) -> tuple[Tensor, ...]:
    """Gradients of query, key, value and the state (zero of its maximum); a walk forward for the states, one back."""
    walk = _Scan(query, key, value, key_norm, ScanState(sums, norm, top))
    grad = grad[:, :, 0].transpose(1, 2).to(walk.query.dtype)  # (B, N, H, V)
    states = [walk.state]
    for start, stop in walk.pieces[:-1]:
        states.append(walk.chunk(start, stop, states[-1]).next_state(walk.top(stop)))
    grad_query = query.new_empty(walk.query.shape)
    grad_key, grad_value = (
        tensor.new_empty(tensor.shape[0], tensor.shape[3], tensor.shape[1], tensor.shape[4]) for tensor in (key, value)
    )  # (B, N, U, ·)
    grad_sums, grad_norm = torch.zeros_like(walk.state.sums), torch.zeros_like(walk.state.norm)
    for (start, stop), state in zip(reversed(walk.pieces), reversed(states), strict=True):
        parts = walk.chunk(start, stop, state).backward(grad[:, start:stop], grad_sums, grad_norm)
        part_query, part_key, part_value, grad_sums, grad_norm = parts
        grad_query[:, start:stop] = part_query
        grad_key[:, start:stop] = part_key.transpose(1, 2)
        grad_value[:, start:stop] = part_value.transpose(1, 2)
    inputs = (channels_first(part[:, None]) for part in (grad_query, grad_key, grad_value))
    return *inputs, grad_sums.contiguous(), grad_norm.contiguous(), top.new_zeros(top.shape)


_ARGUMENTS = "Tensor query, Tensor key, Tensor value, Tensor sums, Tensor norm, Tensor top, str key_norm"
scan_from = torch.library.custom_op(
    "lambda_seq::scan", exactly(forward), mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor"
)
scan_backward = torch.library.custom_op(
    "lambda_seq::scan_backward",
    exactly(backward),
    mutates_args=(),
    schema=f"(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@scan_from.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *state: Any) -> Tensor:
    batch, heads, rows, columns, _ = query.shape
    return channels_first(query.new_empty(batch, rows, columns, heads, value.shape[-1]))


@scan_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *state: Any) -> tuple[Tensor, ...]:
    shapes = (tensor.permute(0, 2, 3, 1, 4).shape for tensor in (query, key, value))
    inputs = (channels_first(query.new_empty(shape)) for shape in shapes)
    return *inputs, *(part.new_empty(part.shape) for part in state[:3])


register_gradient(scan_from, scan_backward, tensors=6)


def scan(query: Tensor, key: Tensor, value: Tensor, key_norm: str, state: ScanState | None = None) -> Tensor:
    """Causal content part of the output, (B, H, 1, N, V), differentiable, after the positions of a state or none."""
    state = state or empty_state(key, value)
    return scan_from(query, key, value, state.sums, state.norm, state.top, key_norm)
