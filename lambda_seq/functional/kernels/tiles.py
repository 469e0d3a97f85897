"""What the content lambda's kernels read, write and sum up: tiles of rows, and the state S, D and a of a part.

Where a tile begins in a tensor is an int64; within a tile offsets are int32. Everything is float32 in a program.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_tile(start, rows, live, width, fill, WIDTH: tl.constexpr):
    """(ROWS, WIDTH) from rows of `width` numbers that begin so far behind `start`, of which some are live."""
    columns = tl.arange(0, WIDTH)
    inside = live[:, None] & (columns < width)[None, :]
    return tl.load(start + rows[:, None] + columns[None, :], mask=inside, other=fill).to(tl.float32)


@triton.jit
def store_tile(start, tile, rows, live, width, WIDTH: tl.constexpr):
    """Write what `load_tile` reads."""
    columns = tl.arange(0, WIDTH)
    inside = live[:, None] & (columns < width)[None, :]
    tl.store(start + rows[:, None] + columns[None, :], tile, mask=inside)


@triton.jit
def finite(top):
    """A reference for weights: the maximum or, where nothing is visible yet and any will do, 0."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def load_state(sums, norms, tops, entry, K, V, FILL: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr):
    """S (KP, VP), D and a (KP,) of one entry of many."""
    keys = tl.arange(0, KP)
    inside = keys < K
    total = load_tile(sums + entry * K * V, keys * V, inside, V, 0.0, VP)
    norm = tl.load(norms + entry * K + keys, mask=inside, other=0.0).to(tl.float32)
    return total, norm, tl.load(tops + entry * K + keys, mask=inside, other=FILL).to(tl.float32)


@triton.jit
def store_state(sums, norms, tops, total, norm, top, entry, K, V, KP: tl.constexpr, VP: tl.constexpr):
    """Write what `load_state` reads."""
    keys = tl.arange(0, KP)
    inside = keys < K
    store_tile(sums + entry * K * V, total, keys * V, inside, V, VP)
    tl.store(norms + entry * K + keys, norm, mask=inside)
    tl.store(tops + entry * K + keys, top, mask=inside)
