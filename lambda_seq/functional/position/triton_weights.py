"""Weight order as Triton kernels: relative attention without softmax, of which no weight is written to memory.

For wide scopes and images on GPUs. See `kernels/weights.py` for how it is computed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lambda_seq.functional.launching import applies, launch, pairs, power_of_two, shares
from lambda_seq.functional.operators import channels_first, channels_last
from lambda_seq.functional.position.beside import count_content, grad_content, pointers
from lambda_seq.functional.position.registry import Algorithm, register
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work

ROWS = 64  # queries of a tile, at most
WARPS = 8  # of 32 threads, in a program


class Tiles(NamedTuple):
    """Sizes of tiles: powers of two, for products."""

    rows: int  # queries, (position, head)
    span: int  # positions that the rows are of, at most
    columns: int  # positions of the context
    offsets: int  # between them
    keys: int
    values: int


def tiles(s: Sizes, dtype: torch.dtype = torch.bfloat16) -> Tiles:
    """Tiles for a problem, which fit in registers: fewer rows for many keys or values, and for rows of one head.

    Fewer still in float32, of whose numbers products take two parts each; the products are about as many.
    A tile has no fewer columns than its rows have positions, as twice the columns are computed by offset.
    """
    keys, values = power_of_two(s.K, 16), power_of_two(s.V, 16)
    wide = keys > 32 or values > 64
    wide_floats = wide and dtype == torch.float32
    rows = 16 if wide_floats else ROWS if s.H > 1 and not wide else max(16, ROWS // 2)
    span = min(s.X, (rows - 1) // s.H + (1 if rows % s.H == 0 else 2))
    columns = power_of_two(span, 16 if wide_floats or span + s.RX - 1 <= 16 else 32)
    return Tiles(rows, span, columns, power_of_two(columns + span - 1), keys, values)


def _blocks(s: Sizes, t: Tiles) -> int:
    """Tiles of the queries of an image row."""
    return -(-s.X * s.H // t.rows)


def _numbers(s: Sizes, *others: int) -> tuple[int, ...]:
    return (s.H, s.U, s.K, s.V, s.Y, s.X, s.RY, s.RX, *s.origin, *others)


def _constants(t: Tiles) -> dict[str, int]:
    return {
        "num_warps": WARPS,
        "ROWS": t.rows,
        "COLUMNS": t.columns,
        "OFFSETS": t.offsets,
        "KP": t.keys,
        "VP": t.values,
    }


def forward(query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes, content: Tensor | None = None) -> Tensor:
    """Output, (B, H, Y, X, V), of position and content lambda in one pass; arguments as in `registry.Algorithm`."""
    from lambda_seq.functional.position.kernels import weights

    query, value = channels_last(query), channels_last(value)
    output = query.new_empty(*query.shape[:-1], sizes.V)  # (B, Y, X, H, V)
    t = tiles(sizes, query.dtype)
    blocks = _blocks(sizes, t)
    tensors = (query, value, *pointers(embedding, content), output)
    constants = _constants(t) | {"CONTENT": content is not None}
    launch(weights.forward, sizes.B * sizes.Y * blocks, tensors, _numbers(sizes, blocks), **constants)
    return channels_first(output)


def backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes, content: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Gradients of query, value, embedding and content; the weights are computed again in each of three kernels."""
    from lambda_seq.functional.position.kernels import weights

    s, t = sizes, tiles(sizes, query.dtype)
    blocks = _blocks(s, t)
    grad, query, value = (channels_last(tensor) for tensor in (grad, query, value))
    (taps, lambdas), constants = pointers(embedding, content), _constants(t)
    grad_query, grad_value = query.new_empty(query.shape), value.new_empty(value.shape)
    rows, columns = s.B * s.Y * blocks, -(-s.X // t.columns)
    tensors = (grad, value, taps, lambdas, grad_query)
    launch(weights.grad_query, rows, tensors, _numbers(s, blocks), CONTENT=content is not None, **constants)
    programs = s.B * s.Y * columns * s.U
    launch(weights.grad_value, programs, (grad, query, taps, grad_value), _numbers(s, columns), **constants)
    tap_blocks = -(-s.RX // t.columns)
    parts, share = shares(s.U * s.RY * tap_blocks, rows)
    sums = query.new_empty(parts, *embedding.shape, dtype=torch.float32)
    numbers = _numbers(s, blocks, rows, share, tap_blocks)
    # Here the offsets are a tile, and the positions that they lead to lie around it
    del constants["OFFSETS"]
    constants |= {"TAPS": t.columns, "COLUMNS": t.offsets}
    programs = parts * s.U * s.RY * tap_blocks
    launch(weights.grad_embedding, programs, (grad, query, value, sums), numbers, **constants)
    grad_embedding = sums.sum(0).to(embedding.dtype)
    found = channels_first(grad_query), channels_first(grad_value), grad_embedding
    return found if content is None else (*found, grad_content(query, grad))


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work, and floats of temporaries; with the backward pass or without.

    Products are those of whole tiles. What tiles read again comes from cache, so it counts once.
    """
    t, rows = tiles(s), s.B * s.U * pairs(s.Y, s.RY, s.origin[0])  # (image row of queries, of values, u)
    reach = pairs(s.X, s.RX, s.origin[1]) / s.X  # positions that a query sees, on average
    seen = math.ceil(min(s.X, t.span - 1 + reach) / t.columns)  # tiles that a tile of rows meets
    seeing = math.ceil(min(s.X, t.columns - 1 + reach) * s.H / t.rows)  # tiles of rows that a block of values meets
    met = math.ceil(min(s.RX, t.offsets + reach) / t.columns)  # blocks of offsets that lead from a tile into the row
    by_offset, by_position = t.rows * t.offsets, t.rows * t.columns
    once = by_offset * t.keys + by_position * t.values
    queries, outputs, values = s.N * s.H * s.K, s.outputs, s.N * s.U * s.V
    work = Work(
        products=rows * _blocks(s, t) * seen * once,
        streamed=queries + values + outputs,
        calls=3,
    )
    if s.content:
        work += Work(products=s.B * s.Y * _blocks(s, t) * t.rows * t.keys * t.values)
    if not backward:
        return work, 0.0
    if s.content:
        work += Work(products=s.B * s.Y * _blocks(s, t) * t.rows * t.keys * t.values) + count_content(s)
    columns = -(-s.X // t.columns)
    tap_blocks = -(-s.RX // t.columns)
    parts, _ = shares(s.U * s.RY * tap_blocks, s.B * s.Y * _blocks(s, t))
    sums = parts * s.U * s.K * s.RY * s.RX
    work += Work(
        products=rows * (_blocks(s, t) * seen + columns * seeing) * once
        + rows * _blocks(s, t) * met * (by_offset * t.values + by_position * t.keys),
        streamed=3 * (outputs + queries + values) + 3 * sums,
        calls=9,
    )
    return work, float(sums)


register(
    Algorithm(
        "triton_weights",
        "the weight order as Triton kernels, on GPUs",
        forward,
        backward,
        count,
        applies,
        trusted=False,
        fuses=True,
    )
)
