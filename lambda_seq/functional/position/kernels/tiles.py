"""What both orders read and write: tiles of rows, of values and of embeddings, zero where there is nothing to read.

Contiguous tensors: query (B, Y, X, H, K), value (B, Y, X, U, V), embedding (U, K, RY, RX), output (B, Y, X, H, V), and
the content lambda (B, K, V), in float32, where there is one.
`image_row` is b · Y + y, an int64, and so is where a tile begins in these tensors. Within a tile, and in the embedding,
which is smaller, offsets are int32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_rows(start, live, width, ROWS: tl.constexpr, WIDTH: tl.constexpr, DOT: tl.constexpr):
    """(ROWS, WIDTH) from rows of `width` numbers that lie one behind another, of which some are live."""
    columns = tl.arange(0, WIDTH)
    local = tl.arange(0, ROWS)[:, None] * width + columns[None, :]
    return tl.load(start + local, mask=live[:, None] & (columns < width)[None, :], other=0.0).to(DOT)


@triton.jit
def store_rows(start, rows, live, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Write what `load_rows` reads."""
    columns = tl.arange(0, WIDTH)
    local = tl.arange(0, ROWS)[:, None] * width + columns[None, :]
    tl.store(start + local, rows, mask=live[:, None] & (columns < width)[None, :])


@triton.jit
def load_values(value, image_row, first, u, X, U, V, COUNT: tl.constexpr, VP: tl.constexpr, DOT: tl.constexpr):
    """(COUNT, VP) values of positions first, first + 1, …; zero outside of the row."""
    count, columns = tl.arange(0, COUNT), tl.arange(0, VP)
    inside = ((first + count >= 0) & (first + count < X))[:, None] & (columns < V)[None, :]
    start = value + ((image_row * X + first) * U + u) * V
    return tl.load(start + count[:, None] * (U * V) + columns[None, :], mask=inside, other=0.0).to(DOT)


@triton.jit
def store_values(output, values, image_row, first, u, X, U, V, COUNT: tl.constexpr, VP: tl.constexpr):
    """Write values of positions first, first + 1, … ≥ 0, as far as they are in the row."""
    count, columns = tl.arange(0, COUNT), tl.arange(0, VP)
    inside = (first + count < X)[:, None] & (columns < V)[None, :]
    start = output + ((image_row * X + first) * U + u) * V
    tl.store(start + count[:, None] * (U * V) + columns[None, :], values, mask=inside)


@triton.jit
def load_taps(embedding, u, row, first, K, RY, RX, COUNT: tl.constexpr, KP: tl.constexpr, DOT: tl.constexpr):
    """(KP, COUNT) embeddings of offsets first, first + 1, … of one row of the scope; zero outside of it."""
    offsets, keys = first + tl.arange(0, COUNT), tl.arange(0, KP)
    inside = (keys < K)[:, None] & ((offsets >= 0) & (offsets < RX))[None, :]
    lines = ((u * K + keys) * RY + row) * RX  # where the row of the scope begins for each key
    return tl.load(embedding + lines[:, None] + offsets[None, :], mask=inside, other=0.0).to(DOT)


@triton.jit
def load_lambda(content, b, keys, K, V, VP: tl.constexpr):
    """Rows of the content lambda of a batch entry, (keys, VP), in float32; zero where there are no such keys."""
    columns = tl.arange(0, VP)
    start = content + tl.cast(b, tl.int64) * K * V
    inside = (keys < K)[:, None] & (columns < V)[None, :]
    return tl.load(start + keys[:, None] * V + columns[None, :], mask=inside, other=0.0)
