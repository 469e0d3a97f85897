"""Lambda order as Triton kernels, for small scopes: the position lambdas of a few positions at a time, in registers.

    λ[n] = Σ_m R[m − n] V[m]  (K × V)          y[n, h] = λ[n]ᵀ q[n, h]

Lambdas of `BLOCK` neighbouring positions are one product: a Toeplitz matrix of embeddings times the window of values
that these positions see, `COLUMNS` of them at a time. The queries of a block stand in a block diagonal matrix, so that
applying the lambdas is one product, too. A program goes over several blocks; a Toeplitz matrix that is a single tile
(ONE) is loaded once for all of them.

Tensors lie in memory as `tiles.py` says. `top` and `left` are the index of offset 0 in the embedding. Sums are float32;
operands of products are of dtype `DOT`. A program writes what no other one writes, so that all runs give the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lambda_seq.functional.position.kernels.tiles import load_lambda, load_values, store_values


@triton.jit
def _toeplitz(
    embedding, u, row, shift, K, RY, RX, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, KP: tl.constexpr, DOT: tl.constexpr
):
    """(BLOCK·KP, COLUMNS): row (n, k) has R[k, shift + c − n] in column c."""
    index = tl.arange(0, BLOCK * KP)
    offsets = shift + tl.arange(0, COLUMNS)[None, :] - (index // KP)[:, None]
    keys = index % KP
    inside = (keys < K)[:, None] & (offsets >= 0) & (offsets < RX)
    lines = ((u * K + keys) * RY + row) * RX
    return tl.load(embedding + lines[:, None] + offsets, mask=inside, other=0.0).to(DOT)


@triton.jit
def _rows(first, head, H, X, BLOCK: tl.constexpr, HEADS: tl.constexpr):
    """Rows (n, h) of a block and some heads: n, place in memory from the block's start, and which of them there are."""
    index = tl.arange(0, BLOCK * HEADS)
    n, h = index // HEADS, head + index % HEADS
    return n, n * H + h, (first + n < X) & (h < H)


@triton.jit
def _diagonal(n, live, K, BLOCK: tl.constexpr, KP: tl.constexpr):
    """Which entries of (rows, BLOCK·KP) belong to the position of their row, and their keys."""
    index = tl.arange(0, BLOCK * KP)
    keys = index % KP
    return (n[:, None] == (index // KP)[None, :]) & live[:, None] & (keys < K)[None, :], keys


@triton.jit
def _queries(
    query, start, first, head, H, K, X, BLOCK: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr, DOT: tl.constexpr
):
    """(BLOCK·HEADS, BLOCK·KP), block diagonal: the queries of a block and some heads."""
    n, place, live = _rows(first, head, H, X, BLOCK, HEADS)
    inside, keys = _diagonal(n, live, K, BLOCK, KP)
    return tl.load(query + start * K + place[:, None] * K + keys[None, :], mask=inside, other=0.0).to(DOT)


@triton.jit
def _grads(
    grad, start, first, head, H, V, X, BLOCK: tl.constexpr, HEADS: tl.constexpr, VP: tl.constexpr, DOT: tl.constexpr
):
    """(BLOCK·HEADS, VP): gradients of the output of a block and some heads."""
    _, place, live = _rows(first, head, H, X, BLOCK, HEADS)
    columns = tl.arange(0, VP)
    inside = live[:, None] & (columns < V)[None, :]
    return tl.load(grad + start * V + place[:, None] * V + columns[None, :], mask=inside, other=0.0).to(DOT)


@triton.jit
def _grad_lambdas(
    query, grad, start, first, H, K, V, X,
    BLOCK: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """(BLOCK·KP, VP): gradient of the lambdas of a block."""
    total = tl.zeros((BLOCK * KP, VP), tl.float32)
    for head in range(0, H, HEADS):
        queries = _queries(query, start, first, head, H, K, X, BLOCK, HEADS, KP, DOT)
        grads = _grads(grad, start, first, head, H, V, X, BLOCK, HEADS, VP, DOT)
        total = tl.dot(tl.trans(queries), grads, total, input_precision="tf32x3")
    return total.to(DOT)


@triton.jit(do_not_specialize=("X", "blocks", "share", "shares"))
def apply(
    rows, value, embedding, content, output, H, U, K, V, Y, X, RY, RX, top, left, blocks, share, shares, width,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr, BACKWARD: tl.constexpr, ONE: tl.constexpr, CONTENT: tl.constexpr,
):  # fmt: skip
    """The lambdas applied to queries, or, BACKWARD, to gradients of the output, which gives those of the queries.

    Programs by (image row, share of its `blocks` blocks). `width` columns are the window of a block. With CONTENT the
    content lambda is a part of each.
    """
    image_row = tl.program_id(0).to(tl.int64) // shares
    part = tl.program_id(0) % shares
    y = (image_row % Y).to(tl.int32)
    matrix = _toeplitz(embedding, 0, 0, 0, K, RY, RX, BLOCK, COLUMNS, KP, DOT)
    for block in range(part * share, tl.minimum((part + 1) * share, blocks)):
        first = block * BLOCK
        total = tl.zeros((BLOCK * KP, VP), tl.float32)
        if CONTENT:
            total += load_lambda(content, image_row // Y, tl.arange(0, BLOCK * KP) % KP, K, V, VP)
        for row in range(tl.maximum(top - y, 0), tl.minimum(RY, Y + top - y)):
            for u in range(U):
                for column in range(0, width, COLUMNS):
                    if not ONE:
                        matrix = _toeplitz(embedding, u, row, column, K, RY, RX, BLOCK, COLUMNS, KP, DOT)
                    begin = first - left + column
                    values = load_values(value, image_row + row - top, begin, u, X, U, V, COLUMNS, VP, DOT)
                    total = tl.dot(matrix, values, total, input_precision="tf32x3")
        lambdas = total.to(DOT)  # (BLOCK·KP, VP)
        start = (image_row * X + first) * H
        for head in range(0, H, HEADS):
            n, place, live = _rows(first, head, H, X, BLOCK, HEADS)
            if BACKWARD:
                grads = _grads(rows, start, first, head, H, V, X, BLOCK, HEADS, VP, DOT)
                found = tl.dot(grads, tl.trans(lambdas), input_precision="tf32x3")  # of all positions with all others
                inside, keys = _diagonal(n, live, K, BLOCK, KP)
                tl.store(output + start * K + place[:, None] * K + keys[None, :], found, mask=inside)
            else:
                queries = _queries(rows, start, first, head, H, K, X, BLOCK, HEADS, KP, DOT)
                found = tl.dot(queries, lambdas, input_precision="tf32x3")
                columns = tl.arange(0, VP)
                inside = live[:, None] & (columns < V)[None, :]
                tl.store(output + start * V + place[:, None] * V + columns[None, :], found, mask=inside)


@triton.jit(do_not_specialize=("X", "blocks"))
def grad_value(
    grad, query, embedding, output, H, U, K, V, Y, X, RY, RX, top, left, blocks,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Gradient of `COLUMNS` values of one u, into `output`; programs by (image row, block of columns, u)."""
    u = tl.program_id(0) % U
    column = (tl.program_id(0) // U % blocks) * COLUMNS
    image_row = tl.program_id(0).to(tl.int64) // U // blocks
    y = (image_row % Y).to(tl.int32)
    total = tl.zeros((COLUMNS, VP), tl.float32)
    # Queries that see these columns
    begin, end = tl.maximum(column + left - RX + 1, 0), tl.minimum(column + COLUMNS + left, X)
    for row in range(tl.maximum(top + y - Y + 1, 0), tl.minimum(RY, y + top + 1)):
        for first in range(begin, end, BLOCK):
            start = ((image_row - row + top) * X + first) * H
            grad_lambdas = _grad_lambdas(query, grad, start, first, H, K, V, X, BLOCK, HEADS, KP, VP, DOT)
            matrix = _toeplitz(embedding, u, row, column - first + left, K, RY, RX, BLOCK, COLUMNS, KP, DOT)
            total = tl.dot(tl.trans(matrix), grad_lambdas, total, input_precision="tf32x3")
    store_values(output, total, image_row, column, u, X, U, V, COLUMNS, VP)


@triton.jit(do_not_specialize=("X", "blocks", "tiles", "share"))
def grad_embedding(
    grad, query, value, output, H, U, K, V, Y, X, RY, RX, top, left, blocks, tiles, share, windows,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Gradient of the Toeplitz matrix from `share` of all `tiles` blocks, into `output`, float32.

    Output (parts, U, RY, BLOCK·KP, windows · COLUMNS); programs by (part, u, row of the scope, columns of the matrix).
    What the parts have, and what the matrix has of one embedding, is added up afterwards.
    """
    column = (tl.program_id(0) % windows) * COLUMNS
    row = tl.program_id(0) // windows % RY
    u = tl.program_id(0) // windows // RY % U
    part = tl.program_id(0) // windows // RY // U
    total = tl.zeros((BLOCK * KP, COLUMNS), tl.float32)
    for tile in range(part * share, tl.minimum((part + 1) * share, tiles)):
        image_row = tl.cast(tile, tl.int64) // blocks
        source = (image_row % Y).to(tl.int32) + row - top
        first = (tile % blocks) * BLOCK
        if (source >= 0) & (source < Y):
            start = (image_row * X + first) * H
            grad_lambdas = _grad_lambdas(query, grad, start, first, H, K, V, X, BLOCK, HEADS, KP, VP, DOT)
            begin = first - left + column
            values = load_values(value, image_row + row - top, begin, u, X, U, V, COLUMNS, VP, DOT)
            total = tl.dot(grad_lambdas, tl.trans(values), total, input_precision="tf32x3")
    index, columns = tl.arange(0, BLOCK * KP), tl.arange(0, COLUMNS)
    start = output + (tl.program_id(0) // windows).to(tl.int64) * (BLOCK * KP * windows * COLUMNS) + column
    tl.store(start + index[:, None] * (windows * COLUMNS) + columns[None, :], total)
