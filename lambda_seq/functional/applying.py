"""One lambda applied to all queries, λᵀ q_n^h, in torch's operations, and what that takes; sums part by part."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from lambda_seq.functional.operators import channels_first, channels_last
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work

PART = 512  # positions; measured


def apply(
    query: Float[Tensor, "B H Y X K"],
    lambdas: Float[Tensor, "B K V"],
    position: Float[Tensor, "B H Y X V"] | None = None,
) -> Float[Tensor, "B H Y X V"]:
    """One lambda for all queries, λᵀ q_n^h, added to the position part."""
    queries = _rows(query)
    bias = None if position is None else _rows(position)
    output = _by_parts(queries, lambdas.to(queries.dtype), bias)
    return _image(output, query)


def apply_backward(
    grad: Float[Tensor, "B H Y X V"],
    query: Float[Tensor, "B H Y X K"],
    lambdas: Float[Tensor, "B K V"],
    grad_query: Float[Tensor, "B H Y X K"],
) -> tuple[Float[Tensor, "B H Y X K"], Float[Tensor, "B K V"]]:
    """Gradients of query, added to those that it has from elsewhere, and of the lambda; where autograd is off."""
    grads, queries = _rows(grad), _rows(query)
    whole = torch.baddbmm(_rows(grad_query), grads, lambdas.to(grads.dtype).mT)
    found = products(queries[:, None], grads[:, None])[:, 0]
    return _image(whole, query), found.to(lambdas.dtype)


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """What it takes beside a position part, which is read and written again; floats of temporaries."""
    queries, outputs, product = s.N * s.H * s.K, s.outputs, s.N * s.H * s.K * s.V
    work = Work(products=product, streamed=queries + 2 * outputs, calls=5)
    if not backward:
        return work, float(outputs)
    return work + Work(products=2 * product, streamed=3 * queries + 2 * outputs, calls=10), float(outputs + queries)


def products(weights: Float[Tensor, "B U M K"], value: Float[Tensor, "B U M V"]) -> Float[Tensor, "B U K V"]:
    """weights.mT @ value by parts of the positions, as one product may add up all of them one after another.

    The parts are added up in float32 at least.
    """
    if recorded() or weights.shape[2] < PART:
        return weights.mT @ value
    part = even(weights.shape[2])
    rest = weights.shape[2] % part
    last: Tensor | float = 0.0
    if rest:
        sizes = (weights.shape[2] - rest, rest)
        (weights, last_weights), (value, last_value) = weights.split(sizes, 2), value.split(sizes, 2)
        last = last_weights.mT @ last_value
    parts = weights.unflatten(2, (-1, part)).mT @ value.unflatten(2, (-1, part))  # (B, U, M / part, K, V)
    return parts.sum(2, dtype=torch.promote_types(parts.dtype, torch.float32)) + last


@lru_cache
def even(count: int) -> int:
    """Size of parts: near PART, without a rest where that can be, as a rest is copied."""
    near = (size for size in range(PART // 2, 2 * PART) if count % size == 0)
    return min(near, key=lambda size: abs(size - PART), default=PART)


def recorded() -> bool:
    """Whether a program is recorded, which shall take any length."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _rows(tensor: Float[Tensor, "B H Y X D"]) -> Float[Tensor, "B Y·X·H D"]:
    """What products are made of, as it lies in memory: on a CPU, which has no fast ones in half precision, wider."""
    low = torch.promote_types(tensor.dtype, torch.float32) if tensor.device.type == "cpu" else tensor.dtype
    return channels_last(tensor).flatten(1, 3).to(low)


def _image(rows: Float[Tensor, "B Y·X·H D"], query: Float[Tensor, "B H Y X K"]) -> Float[Tensor, "B H Y X D"]:
    """The way back, in the query's dtype."""
    batch, heads, height, width, _ = query.shape
    return channels_first(rows.to(query.dtype).view(batch, height, width, heads, rows.shape[-1]))


def _by_parts(queries: Tensor, lambdas: Tensor, bias: Tensor | None) -> Tensor:
    """queries @ lambdas + bias, by parts of the rows: so the gradient of the lambdas is a sum of sums."""
    rows = queries.shape[1]
    if recorded() or rows < 2 * PART:
        # With a bias in one go: one large temporary less than a sum of two outputs
        return torch.bmm(queries, lambdas) if bias is None else torch.baddbmm(bias, queries, lambdas)
    part = even(rows)
    whole = rows - rows % part
    parts = [tensor[:, :whole].reshape(-1, part, tensor.shape[-1]) for tensor in (queries, bias) if tensor is not None]
    repeated = lambdas.repeat_interleave(whole // part, 0)  # (B · parts, K, V)
    output = torch.bmm(parts[0], repeated) if bias is None else torch.baddbmm(parts[1], parts[0], repeated)
    output = output.view(queries.shape[0], whole, -1)
    if whole == rows:
        return output
    rest = _by_parts(queries[:, whole:], lambdas, None if bias is None else bias[:, whole:])
    return torch.cat([output, rest], 1)
