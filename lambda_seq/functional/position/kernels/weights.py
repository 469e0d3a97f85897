"""Weight order as Triton kernels: no weight is ever written to memory.

    w[n, h, m] = Σ_k q[n, h, k] R[k, m − n]          y[n, h] = Σ_m w[n, h, m] V[m]

A tile of weights is `ROWS` queries, of neighbouring positions and all heads, by `COLUMNS` positions of the context.
A matrix product of queries and embeddings gives it by offset, j; each row then takes its own columns out of it, as its
position asks for, by `tl.gather`: in registers or shared memory. The gradient takes the same way back. Rows are
(position, head) with heads running fastest, as they lie in memory, so any number of heads fills a tile.

Tensors lie in memory as `tiles.py` says. `top` and `left` are the index of offset 0 in the embedding. Sums are float32;
operands of products are of dtype `DOT`. A program writes what no other one writes, so that all runs give the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lambda_seq.functional.position.kernels.tiles import (
    load_lambda,
    load_rows,
    load_taps,
    load_values,
    store_rows,
    store_values,
)


@triton.jit
def _rows(first, H, X, ROWS: tl.constexpr):
    """Rows of a tile: positions relative to the first one's, which of them there are; first and last position."""
    n = first // H
    last = tl.minimum((first + ROWS - 1) // H, X - 1)
    rows = tl.arange(0, ROWS)
    # Rows behind the last position are of it, so that they ask for columns that there are; they are never stored
    return tl.minimum((first - n * H + rows) // H, last - n), first + rows < X * H, n, last


@triton.jit
def _by_position(products, place, last, COLUMNS: tl.constexpr):
    """(ROWS, OFFSETS) weights by offset -> (ROWS, COLUMNS) by position."""
    return tl.gather(products, tl.arange(0, COLUMNS)[None, :] + (last - place)[:, None], 1)


@triton.jit
def _by_offset(weights, place, last, OFFSETS: tl.constexpr, COLUMNS: tl.constexpr):
    """(ROWS, COLUMNS) gradients by position -> (ROWS, OFFSETS) by offset; zero where the tile has no position."""
    column = tl.arange(0, OFFSETS)[None, :] - (last - place)[:, None]
    inside = (column >= 0) & (column < COLUMNS)
    return tl.where(inside, tl.gather(weights, tl.where(inside, column, 0), 1), 0.0)


@triton.jit(do_not_specialize=("X", "blocks"))
def forward(
    query, value, embedding, content, output, H, U, K, V, Y, X, RY, RX, top, left, blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OFFSETS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr, CONTENT: tl.constexpr,
):  # fmt: skip
    """Output of a tile of rows, with CONTENT of the content lambda, too; one program for each, `blocks` in a row."""
    image_row = tl.program_id(0).to(tl.int64) // blocks  # b · Y + y
    first = (tl.program_id(0) % blocks) * ROWS
    y = (image_row % Y).to(tl.int32)
    place, live, n, last = _rows(first, H, X, ROWS)
    base = image_row * X * H + first
    queries = load_rows(query + base * K, live, K, ROWS, KP, DOT)  # (ROWS, KP)
    total = tl.zeros((ROWS, VP), tl.float32)
    if CONTENT:
        lambdas = load_lambda(content, image_row // Y, tl.arange(0, KP), K, V, VP).to(DOT)
        total = tl.dot(queries, lambdas, total, input_precision="tf32x3")
    begin, end = tl.maximum(n - left, 0), tl.minimum(last + RX - left, X)
    for row in range(tl.maximum(top - y, 0), tl.minimum(RY, Y + top - y)):
        for u in range(U):
            for column in range(begin, end, COLUMNS):
                taps = load_taps(embedding, u, row, column - last + left, K, RY, RX, OFFSETS, KP, DOT)
                products = tl.dot(queries, taps, input_precision="tf32x3")  # (ROWS, OFFSETS)
                weights = _by_position(products, place, last - n, COLUMNS)
                values = load_values(value, image_row + row - top, column, u, X, U, V, COLUMNS, VP, DOT)
                total = tl.dot(weights.to(DOT), values, total, input_precision="tf32x3")
    store_rows(output + base * V, total, live, V, ROWS, VP)


@triton.jit(do_not_specialize=("X", "blocks"))
def grad_query(
    grad, value, embedding, content, output, H, U, K, V, Y, X, RY, RX, top, left, blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OFFSETS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr, CONTENT: tl.constexpr,
):  # fmt: skip
    """Gradient of a tile of queries, into `output`; programs as in `forward`."""
    image_row = tl.program_id(0).to(tl.int64) // blocks
    first = (tl.program_id(0) % blocks) * ROWS
    y = (image_row % Y).to(tl.int32)
    place, live, n, last = _rows(first, H, X, ROWS)
    base = image_row * X * H + first
    grads = load_rows(grad + base * V, live, V, ROWS, VP, DOT)  # (ROWS, VP)
    total = tl.zeros((ROWS, KP), tl.float32)
    if CONTENT:
        lambdas = load_lambda(content, image_row // Y, tl.arange(0, KP), K, V, VP).to(DOT)
        total = tl.dot(grads, tl.trans(lambdas), total, input_precision="tf32x3")
    begin, end = tl.maximum(n - left, 0), tl.minimum(last + RX - left, X)
    for row in range(tl.maximum(top - y, 0), tl.minimum(RY, Y + top - y)):
        for u in range(U):
            for column in range(begin, end, COLUMNS):
                values = load_values(value, image_row + row - top, column, u, X, U, V, COLUMNS, VP, DOT)
                weights = tl.dot(grads, tl.trans(values), input_precision="tf32x3")  # (ROWS, COLUMNS)
                products = _by_offset(weights, place, last - n, OFFSETS, COLUMNS)
                taps = load_taps(embedding, u, row, column - last + left, K, RY, RX, OFFSETS, KP, DOT)
                total = tl.dot(products.to(DOT), tl.trans(taps), total, input_precision="tf32x3")
    store_rows(output + base * K, total, live, K, ROWS, KP)


@triton.jit(do_not_specialize=("X", "blocks"))
def grad_value(
    grad, query, embedding, output, H, U, K, V, Y, X, RY, RX, top, left, blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OFFSETS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Gradient of `COLUMNS` values of one u, into `output`; programs by (image row, block of columns, u)."""
    u = tl.program_id(0) % U
    column = (tl.program_id(0) // U % blocks) * COLUMNS
    image_row = tl.program_id(0).to(tl.int64) // U // blocks
    y = (image_row % Y).to(tl.int32)
    total = tl.zeros((COLUMNS, VP), tl.float32)
    # Queries that see these columns
    begin = tl.maximum(column + left - RX + 1, 0) * H
    end = tl.minimum(column + COLUMNS + left, X) * H
    for row in range(tl.maximum(top + y - Y + 1, 0), tl.minimum(RY, y + top + 1)):
        for first in range(begin, end, ROWS):
            place, live, n, last = _rows(first, H, X, ROWS)
            base = (image_row - row + top) * X * H + first
            queries = load_rows(query + base * K, live, K, ROWS, KP, DOT)
            taps = load_taps(embedding, u, row, column - last + left, K, RY, RX, OFFSETS, KP, DOT)
            products = tl.dot(queries, taps, input_precision="tf32x3")  # (ROWS, OFFSETS)
            weights = _by_position(products, place, last - n, COLUMNS)
            grads = load_rows(grad + base * V, live, V, ROWS, VP, DOT)
            total = tl.dot(tl.trans(weights.to(DOT)), grads, total, input_precision="tf32x3")
    store_values(output, total, image_row, column, u, X, U, V, COLUMNS, VP)


@triton.jit(do_not_specialize=("X", "blocks", "tiles", "share"))
def grad_embedding(
    grad, query, value, output, H, U, K, V, Y, X, RY, RX, top, left, blocks, tiles, share, tap_blocks,
    ROWS: tl.constexpr, TAPS: tl.constexpr, COLUMNS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Gradient of `TAPS` offsets from `share` of all `tiles` of rows, into `output` (parts, U, K, RY, RX), float32.

    Programs by (part, u, row of the scope, block of offsets). What the parts have is added up afterwards.
    """
    tap = (tl.program_id(0) % tap_blocks) * TAPS
    row = tl.program_id(0) // tap_blocks % RY
    u = tl.program_id(0) // tap_blocks // RY % U
    part = tl.program_id(0) // tap_blocks // RY // U
    total = tl.zeros((KP, TAPS), tl.float32)
    for tile in range(part * share, tl.minimum((part + 1) * share, tiles)):
        image_row = tl.cast(tile, tl.int64) // blocks
        source = (image_row % Y).to(tl.int32) + row - top
        first = (tile % blocks) * ROWS
        place, live, n, _ = _rows(first, H, X, ROWS)
        column = n + tap - left  # where the first of these offsets leads from the first position
        if (source >= 0) & (source < Y) & (column < X) & (column + COLUMNS > 0):
            base = image_row * X * H + first
            grads = load_rows(grad + base * V, live, V, ROWS, VP, DOT)
            values = load_values(value, image_row + row - top, column, u, X, U, V, COLUMNS, VP, DOT)
            weights = tl.dot(grads, tl.trans(values), input_precision="tf32x3")  # (ROWS, COLUMNS)
            products = tl.gather(weights, tl.arange(0, TAPS)[None, :] + place[:, None], 1)  # (ROWS, TAPS)
            queries = load_rows(query + base * K, live, K, ROWS, KP, DOT)
            total = tl.dot(tl.trans(queries), products.to(DOT), total, input_precision="tf32x3")
    keys, taps = tl.arange(0, KP), tap + tl.arange(0, TAPS)
    lines = ((u * K + keys) * RY + row) * RX
    inside = (keys < K)[:, None] & (taps < RX)[None, :]
    start = output + tl.cast(part, tl.int64) * U * K * RY * RX
    tl.store(start + lines[:, None] + taps[None, :], total, mask=inside)
