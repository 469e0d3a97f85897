"""Lambda order as Triton kernels, for small scopes: lambdas that never leave a program, applied to all heads at once.

For GPUs, where heads are many and the offsets of a row are few. See `kernels/lambdas.py` for how it is computed.
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

ROWS = 64  # of a tile: (position, key) of lambdas, at most as many (position, head) of queries
SCOPE = 64  # offsets of a row, at most
BLOCKS = 16  # of positions, one after another in a program
WARPS = 4  # of 32 threads, in a program


class Tiles(NamedTuple):
    """Sizes of tiles: powers of two, for products."""

    block: int  # positions whose lambdas are computed together
    columns: int  # positions of the context
    heads: int  # that lambdas are applied to together
    keys: int
    values: int


def tiles(s: Sizes) -> Tiles:
    """Tiles for a problem."""
    keys = power_of_two(s.K, 4)
    block = ROWS // keys
    heads = min(power_of_two(s.H, -(-16 // block)), ROWS // block)
    columns = 16 if block + s.RX - 1 <= 16 else 32
    return Tiles(block, columns, heads, keys, power_of_two(s.V, 16))


def supports(s: Sizes, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why it does not apply, None where it may."""
    if s.RX > SCOPE:
        return f"it is for at most {SCOPE} offsets in a row, not {s.RX}"
    return applies(s, device, dtype)


def _blocks(s: Sizes) -> int:
    """Blocks of an image row."""
    return -(-s.X // tiles(s).block)


def _windows(s: Sizes) -> int:
    """Tiles of what a block sees of a row."""
    return -(-(tiles(s).block + s.RX - 1) // tiles(s).columns)


def _numbers(s: Sizes, *others: int) -> tuple[int, ...]:
    return (s.H, s.U, s.K, s.V, s.Y, s.X, s.RY, s.RX, *s.origin, *others)


def _constants(t: Tiles) -> dict[str, int]:
    warps = WARPS if t.values <= 64 else 2 * WARPS
    return {"num_warps": warps, "BLOCK": t.block, "COLUMNS": t.columns, "HEADS": t.heads, "KP": t.keys, "VP": t.values}


def _apply(
    s: Sizes, rows: Tensor, value: Tensor, embedding: Tensor, content: Tensor | None, output: Tensor, backward: bool
) -> None:
    """Lambdas applied to queries, or to gradients of the output, of contiguous tensors."""
    from lambda_seq.functional.position.kernels import lambdas

    blocks = _blocks(s)
    parts = -(-blocks // BLOCKS)
    launch(
        lambdas.apply,
        s.B * s.Y * parts,
        (rows, value, *pointers(embedding, content), output),
        _numbers(s, blocks, -(-blocks // parts), parts, tiles(s).block + s.RX - 1),
        BACKWARD=backward,
        CONTENT=content is not None,
        ONE=s.RY * s.U * _windows(s) == 1,
        **_constants(tiles(s)),
    )


def forward(query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes, content: Tensor | None = None) -> Tensor:
    """Output, (B, H, Y, X, V), of position and content lambda in one pass; arguments as in `registry.Algorithm`."""
    query = channels_last(query)
    output = query.new_empty(*query.shape[:-1], sizes.V)  # (B, Y, X, H, V)
    _apply(sizes, query, channels_last(value), embedding, content, output, backward=False)
    return channels_first(output)


def backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes, content: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Gradients of query, value, embedding and content; three kernels compute lambdas, or their gradients, again."""
    from lambda_seq.functional.position.kernels import lambdas

    s, t, blocks = sizes, tiles(sizes), _blocks(sizes)
    grad, query, value = (channels_last(tensor) for tensor in (grad, query, value))
    taps, constants = embedding.contiguous(), _constants(t)
    grad_query, grad_value = query.new_empty(query.shape), value.new_empty(value.shape)
    _apply(s, grad, value, taps, content, grad_query, backward=True)
    columns = -(-s.X // t.columns)
    programs = s.B * s.Y * columns * s.U
    launch(lambdas.grad_value, programs, (grad, query, taps, grad_value), _numbers(s, columns), **constants)
    count, windows = s.B * s.Y * blocks, _windows(s)
    parts, share = shares(s.U * s.RY * windows, count)
    sums = query.new_empty(parts, s.U, s.RY, t.block, t.keys, windows * t.columns, dtype=torch.float32)
    numbers = _numbers(s, blocks, count, share, windows)
    launch(lambdas.grad_embedding, parts * s.U * s.RY * windows, (grad, query, value, sums), numbers, **constants)
    matrix = sums.sum(0)  # (U, RY, block, KP, columns)
    # The matrix holds the embedding once per position of a block, one column further for each
    size = (s.U, s.K, s.RY, s.RX, t.block)
    strides = (matrix.stride(0), matrix.stride(3), matrix.stride(1), 1, matrix.stride(2) + 1)
    grad_embedding = matrix.as_strided(size, strides).sum(-1).to(embedding.dtype)
    found = channels_first(grad_query), channels_first(grad_value), grad_embedding
    return found if content is None else (*found, grad_content(query, grad))


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work, and floats of temporaries; with the backward pass or without.

    Products are those of whole tiles. What tiles read again comes from cache, so it counts once.
    """
    t, blocks, windows = tiles(s), _blocks(s), _windows(s)
    rows = s.U * pairs(s.Y, s.RY, s.origin[0])  # (image row of queries, of values, u) of one batch entry
    matrix = ROWS * t.columns * t.values  # a tile of the product that makes lambdas, or of their gradients' ones
    apply = -(-s.H // t.heads) * t.block * t.heads * ROWS * t.values  # all heads of a block
    queries, outputs, values = s.N * s.H * s.K, s.outputs, s.N * s.U * s.V
    lambdas = Work(products=s.B * blocks * (rows * windows * matrix + s.Y * apply))
    work = lambdas + Work(streamed=queries + values + outputs, calls=3)
    if not backward:
        return work, 0.0
    parts, _ = shares(s.U * s.RY * windows, s.B * s.Y * blocks)
    sums = ROWS * windows * t.columns * s.U * s.RY * parts
    reach = pairs(s.X, s.RX, s.origin[1]) / s.X  # positions that a query sees, on average
    seeing = math.ceil(min(s.X, t.columns - 1 + reach) / t.block)  # blocks of queries that a block of values meets
    columns = -(-s.X // t.columns)
    work += lambdas + Work(
        products=s.B * rows * (columns * seeing + blocks * windows) * (matrix + apply),
        streamed=3 * (outputs + queries + values) + 3 * sums,
        calls=10,
    )
    work += count_content(s) if s.content else Work()
    return work, float(sums)


register(
    Algorithm(
        "triton_lambdas",
        "the lambda order as Triton kernels, on GPUs",
        forward,
        backward,
        count,
        supports,
        trusted=False,
        fuses=True,
    )
)
