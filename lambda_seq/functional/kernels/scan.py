"""The causal content lambda as Triton kernels: parts of the positions that all run at once, chunk by chunk.

    y_n = Σ_k q_nk (S_n)_k / d_nk          S_n, D_n and a_n as in `kernels/content.py`, of positions m ≤ n

First every part is summed up, then a short walk over the parts (`carry`) gives each the state of all before it, and
last every part goes on from that state, a chunk of its positions at a time. In a chunk y = tril(q̃ pᵀ) V + q̃ S,
q̃ = q / d, where a softmax's weights are relative to the maximum at its end. Where that rises so far that weights which
count would vanish (`LIMIT`), positions go one by one; a GPU decides this by itself, and nothing waits for it.

The gradients of keys and values are the same backwards: what the queries from the end of the sequence to a position m
leave for it,

    G_m = Σ_{n ≥ m} q̃_n g_nᵀ  (K × V)          F_m = Σ_{n ≥ m} f_n,   f the gradient of the norm, by its logarithm

With ℓ_n = a_n + log D_n a query weighs a key by exp(k − ℓ_n) ≤ 1, whatever the references. Backwards the reference is
the least ℓ so far, so −ℓ takes the place of the keys, and its maximum that of a.

Contiguous tensors: query (B, N, H, K), key (B, N, U, K), value (B, N, U, V), output (B, N, H, V). Rows of a tile are
(position, head), heads running fastest. One launch is for one u, and adds to what those before it have written.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lambda_seq.functional.kernels.tiles import finite, load_state, load_tile, store_state, store_tile

LIMIT = tl.constexpr(53.0)  # 0.6 · log of the greatest float32


@triton.jit(do_not_specialize=("parts",))
def carry(
    sums, norms, tops, first_sums, first_norm, first_top, out_sums, out_norms, out_tops, last_sums, last_norm, last_top,
    K, V, parts, REVERSE: tl.constexpr, SOFTMAX: tl.constexpr, VP: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """S, D and a of what comes before each part, after the last one too; programs by (b, u, k).

    In `out` (B, U, parts, …) and `last` (B, U, …), from what each part has and what comes before them all. With REVERSE
    the last part is the first one.
    """
    k = tl.program_id(0) % K
    entry = tl.program_id(0).to(tl.int64) // K
    columns = tl.arange(0, VP)
    inside = columns < V
    place = entry * K + k
    total = tl.load(first_sums + place * V + columns, mask=inside, other=0.0).to(tl.float32)
    norm, top = tl.load(first_norm + place).to(tl.float32), tl.load(first_top + place).to(tl.float32)
    for step in range(parts):
        part = parts - 1 - step if REVERSE else step
        place = (entry * parts + part) * K + k
        tl.store(out_sums + place * V + columns, total, mask=inside)
        tl.store(out_norms + place, norm)
        tl.store(out_tops + place, top)
        own = tl.load(sums + place * V + columns, mask=inside, other=0.0)
        own_norm, own_top = tl.load(norms + place), tl.load(tops + place)
        if SOFTMAX:
            above = tl.maximum(top, own_top)
            before, beside = tl.exp(top - finite(above)), tl.exp(own_top - finite(above))
            total, norm, top = total * before + own * beside, norm * before + own_norm * beside, above
        else:
            total, norm = total + own, norm + own_norm
    place = entry * K + k
    tl.store(last_sums + place * V + columns, total, mask=inside)
    tl.store(last_norm + place, norm)
    tl.store(last_top + place, top)


@triton.jit
def _fitting(keys, top, live, NORM: tl.constexpr, CHUNK: tl.constexpr):
    """Positions of a chunk, all or one, over which the maximum rises by no more than `LIMIT`."""
    count = CHUNK
    if NORM == "softmax":
        seen = tl.where(live[:, None], keys, float("-inf"))
        least = tl.min(tl.where(seen == float("-inf"), float("inf"), seen), 0)
        rise = tl.maximum(top, tl.max(seen, 0)) - tl.where(top == float("-inf"), least, top)
        count = tl.where(tl.max(rise, 0) > LIMIT, 1, CHUNK)
    return count


@triton.jit
def _running(tile, REVERSE: tl.constexpr, CHUNK: tl.constexpr):
    """Sums over the rows of a tile up to each one, or from it on: a product, which is as exact as a sum."""
    row, column = tl.arange(0, CHUNK)[:, None], tl.arange(0, CHUNK)[None, :]
    counted = row <= column if REVERSE else row >= column
    return tl.dot(tl.where(counted, 1.0, 0.0), tile, input_precision="tf32x3")


@triton.jit
def _weights(keys, norm, top, NORM: tl.constexpr, CHUNK: tl.constexpr):
    """p, 1 / d and D (CHUNK, KP), D and a at the end, and what brings the state to that, from D and a before."""
    weights, shrink = keys, tl.full(top.shape, 1.0, tl.float32)
    if NORM == "softmax":
        above = tl.maximum(top, tl.max(keys, 0))
        shrink, weights = tl.exp(top - finite(above)), tl.exp(keys - finite(above)[None, :])
        running = (norm * shrink)[None, :] + _running(weights, False, CHUNK)
        scale = tl.where(running > 0, 1 / tl.where(running > 0, running, 1.0), 0.0)
        after, top = norm * shrink + tl.sum(weights, 0), above
    elif NORM == "l2":
        running = norm[None, :] + _running(keys * keys, False, CHUNK)
        scale = tl.rsqrt(tl.where(running > 0, running, 1.0))
        after = norm + tl.sum(keys * keys, 0)
    else:
        running = tl.full(keys.shape, 1.0, tl.float32)
        scale, after = running, norm
    return weights, scale, running, after, top, shrink


@triton.jit
def _chunk(
    key, value, start, live, norm, top, U, K, V,
    NORM: tl.constexpr, CHUNK: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
):  # fmt: skip
    """Positions from one on that fit into a chunk: which, how many, their values, and what `_weights` gives."""
    FILL: tl.constexpr = float("-inf") if NORM == "softmax" else 0.0
    index = tl.arange(0, CHUNK)
    keys = load_tile(key + start * K, index * (U * K), live, K, FILL, KP)
    count = _fitting(keys, top, live, NORM, CHUNK)
    live = live & (index < count)
    keys = tl.where(live[:, None], keys, FILL)
    values = load_tile(value + start * V, index * (U * V), live, V, 0.0, VP)
    weights, scale, running, norm, top, shrink = _weights(keys, norm, top, NORM, CHUNK)
    return live, count, values, weights, scale, running, norm, top, shrink


@triton.jit
def _by_head(rows, scale, CHUNK: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr):
    """rows (CHUNK·HEADS, KP), each times the scale (CHUNK, KP) of its position."""
    return tl.reshape(tl.reshape(rows, (CHUNK, HEADS, KP)) * scale[:, None, :], (CHUNK * HEADS, KP))


@triton.jit
def _places(head, H, live, CHUNK: tl.constexpr, HEADS: tl.constexpr):
    """Rows (n, h) of a chunk and some heads: places, n · H + h from the chunk's start, and which of them are live."""
    index = tl.arange(0, CHUNK * HEADS)
    h = head + index % HEADS
    there = tl.reshape(tl.broadcast_to(live[:, None], (CHUNK, HEADS)), (CHUNK * HEADS,))
    return index // HEADS * H + h, there & (h < H)


@triton.jit
def _queries(query, place, scale, head, H, K, live, CHUNK: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr):
    """Rows of a chunk and some heads: places, which are live, and their queries, each times the scale (CHUNK, KP)."""
    rows, there = _places(head, H, live, CHUNK, HEADS)
    queries = load_tile(query + place * K, rows * K, there, K, 0.0, KP)
    return rows, there, _by_head(queries, scale, CHUNK, HEADS, KP)


@triton.jit
def _causal(products, CHUNK: tl.constexpr, HEADS: tl.constexpr):
    """(CHUNK·HEADS, CHUNK) products of queries with keys, zero for those behind them."""
    n, m = tl.arange(0, CHUNK * HEADS) // HEADS, tl.arange(0, CHUNK)
    return tl.where(n[:, None] >= m[None, :], products, 0.0)


@triton.jit(do_not_specialize=("u", "N", "length", "parts"))
def scan(
    query, key, value, output, sums, norms, tops, u, H, U, K, V, N, length, parts,
    NORM: tl.constexpr, CHUNK: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Outputs of the `length` positions of a part, from the state (B, U, parts, …) before it; programs by (b, part)."""
    PRECISION: tl.constexpr = "tf32x3" if tl.float32 == DOT else "tf32"
    FILL: tl.constexpr = float("-inf") if NORM == "softmax" else 0.0
    part = tl.program_id(0) % parts
    b = tl.program_id(0).to(tl.int64) // parts
    total, norm, top = load_state(sums, norms, tops, (b * U + u) * parts + part, K, V, FILL, KP, VP)
    index = tl.arange(0, CHUNK)
    first, end = part * length, tl.minimum((part + 1) * length, N)
    while first < end:
        live, count, values, weights, scale, _, norm, top, shrink = _chunk(
            key, value, (b * N + first) * U + u, first + index < end, norm, top, U, K, V, NORM, CHUNK, KP, VP
        )
        total = total * shrink[:, None]
        place = (b * N + first) * H
        for head in range(0, H, HEADS):
            rows, there, queries = _queries(query, place, scale, head, H, K, live, CHUNK, HEADS, KP)
            products = _causal(tl.dot(queries, tl.trans(weights), input_precision=PRECISION), CHUNK, HEADS)
            found = tl.dot(products, values, input_precision=PRECISION)
            found = tl.dot(queries, total, found, input_precision=PRECISION)
            if u > 0:
                found += load_tile(output + place * V, rows * V, there, V, 0.0, VP)
            store_tile(output + place * V, found, rows * V, there, V, VP)
        total = tl.dot(tl.trans(weights), values, total, input_precision=PRECISION)
        first += count


@triton.jit(do_not_specialize=("u", "N", "length", "parts"))
def grad_query(
    query, key, value, grad, output, logs, falls, sums, norms, tops, u, H, U, K, V, N, length, parts,
    NORM: tl.constexpr, CHUNK: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Gradients of queries, into `output`, and for those of keys −ℓ, or 1 / d, and f (B, N, U, K); else as `scan`."""
    PRECISION: tl.constexpr = "tf32x3" if tl.float32 == DOT else "tf32"
    FILL: tl.constexpr = float("-inf") if NORM == "softmax" else 0.0
    part = tl.program_id(0) % parts
    b = tl.program_id(0).to(tl.int64) // parts
    total, norm, top = load_state(sums, norms, tops, (b * U + u) * parts + part, K, V, FILL, KP, VP)
    index = tl.arange(0, CHUNK)
    first, end = part * length, tl.minimum((part + 1) * length, N)
    while first < end:
        start, place = (b * N + first) * U + u, (b * N + first) * H
        live, count, values, weights, scale, running, norm, top, shrink = _chunk(
            key, value, start, first + index < end, norm, top, U, K, V, NORM, CHUNK, KP, VP
        )
        total = total * shrink[:, None]
        falling = tl.zeros((CHUNK, KP), tl.float32)
        for head in range(0, H, HEADS):
            rows, there = _places(head, H, live, CHUNK, HEADS)
            queries = load_tile(query + place * K, rows * K, there, K, 0.0, KP)
            grads = load_tile(grad + place * V, rows * V, there, V, 0.0, VP)
            products = _causal(tl.dot(grads, tl.trans(values), input_precision=PRECISION), CHUNK, HEADS)
            found = tl.dot(products, weights, input_precision=PRECISION)
            found = tl.dot(grads, tl.trans(total), found, input_precision=PRECISION)
            found = _by_head(found, scale, CHUNK, HEADS, KP)
            falling += tl.sum(tl.reshape(found * queries, (CHUNK, HEADS, KP)), 1)
            if u > 0:
                found += load_tile(output + place * K, rows * K, there, K, 0.0, KP)
            store_tile(output + place * K, found, rows * K, there, K, KP)
        total = tl.dot(tl.trans(weights), values, total, input_precision=PRECISION)
        if NORM != "none":
            if NORM == "softmax":
                nearness = -tl.log(tl.where(running > 0, running, 1.0)) - finite(top)[None, :]
                scale = tl.where(running > 0, nearness, float("-inf"))
            else:
                falling *= 0.5 * scale * scale
            store_tile(logs + start * K, scale, index * (U * K), live, K, KP)
            store_tile(falls + start * K, falling, index * (U * K), live, K, KP)
        first += count


@triton.jit
def _beyond(logs, falls, start, index, live, U, K, NORM: tl.constexpr, CHUNK: tl.constexpr, KP: tl.constexpr):
    """−ℓ, or 1 / d, and f of a chunk's positions."""
    if NORM == "none":
        lasting = tl.where(live[:, None], tl.full((CHUNK, KP), 1.0, tl.float32), 0.0)
        falling = tl.zeros((CHUNK, KP), tl.float32)
    else:
        FILL: tl.constexpr = float("-inf") if NORM == "softmax" else 0.0
        lasting = load_tile(logs + start * K, index * (U * K), live, K, FILL, KP)
        falling = load_tile(falls + start * K, index * (U * K), live, K, 0.0, KP)
    return lasting, falling


@triton.jit(do_not_specialize=("N", "length", "parts"))
def sum_up_queries(
    query, grad, logs, falls, sums, norms, tops, H, U, K, V, N, length, parts,
    NORM: tl.constexpr, CHUNK: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """G, F and the greatest −ℓ of the queries of each part, into (B, U, parts, …); programs by (b, u, part)."""
    PRECISION: tl.constexpr = "tf32x3" if tl.float32 == DOT else "tf32"
    part = tl.program_id(0) % parts
    u = tl.program_id(0) // parts % U
    b = tl.program_id(0).to(tl.int64) // parts // U
    index = tl.arange(0, CHUNK)
    top = tl.full((KP,), float("-inf") if NORM == "softmax" else 0.0, tl.float32)
    norm, total = tl.zeros((KP,), tl.float32), tl.zeros((KP, VP), tl.float32)
    end = tl.minimum((part + 1) * length, N)
    for first in range(part * length, end, CHUNK):
        live = first + index < end
        scale, falling = _beyond(logs, falls, (b * N + first) * U + u, index, live, U, K, NORM, CHUNK, KP)
        if NORM == "softmax":
            above = tl.maximum(top, tl.max(scale, 0))
            shrink = tl.exp(top - finite(above))
            scale = tl.exp(scale - finite(above)[None, :])
            total, norm, top = total * shrink[:, None], norm * shrink, above
            falling *= scale
        norm += tl.sum(falling, 0)
        place = (b * N + first) * H
        for head in range(0, H, HEADS):
            rows, there, queries = _queries(query, place, scale, head, H, K, live, CHUNK, HEADS, KP)
            grads = load_tile(grad + place * V, rows * V, there, V, 0.0, VP)
            total = tl.dot(tl.trans(queries), grads, total, input_precision=PRECISION)
    store_state(sums, norms, tops, total, norm, top, tl.program_id(0).to(tl.int64), K, V, KP, VP)


@triton.jit(do_not_specialize=("N", "length", "parts"))
def grad_context(
    query, key, value, grad, logs, falls, grad_key, grad_value, sums, norms, tops, H, U, K, V, N, length, parts,
    NORM: tl.constexpr, CHUNK: tl.constexpr, HEADS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values of a part, from G, F and the greatest −ℓ behind it; programs by (b, u, part)."""
    PRECISION: tl.constexpr = "tf32x3" if tl.float32 == DOT else "tf32"
    FILL: tl.constexpr = float("-inf") if NORM == "softmax" else 0.0
    part = tl.program_id(0) % parts
    u = tl.program_id(0) // parts % U
    b = tl.program_id(0).to(tl.int64) // parts // U
    total, norm, top = load_state(sums, norms, tops, tl.program_id(0).to(tl.int64), K, V, FILL, KP, VP)
    index = tl.arange(0, CHUNK)
    begin, end = part * length, tl.minimum((part + 1) * length, N)
    while begin < end:
        first = tl.maximum(begin, end - CHUNK)
        live = first + index < end
        scale, falling = _beyond(logs, falls, (b * N + first) * U + u, index, live, U, K, NORM, CHUNK, KP)
        first = tl.maximum(first, end - _fitting(scale, top, live, NORM, CHUNK))
        start = (b * N + first) * U + u
        live = first + index < end
        scale, falling = _beyond(logs, falls, start, index, live, U, K, NORM, CHUNK, KP)
        keys = load_tile(key + start * K, index * (U * K), live, K, FILL, KP)
        values = load_tile(value + start * V, index * (U * V), live, V, 0.0, VP)
        weights = keys
        if NORM == "softmax":
            above = tl.maximum(top, tl.max(scale, 0))
            shrink = tl.exp(top - finite(above))
            scale = tl.exp(scale - finite(above)[None, :])
            weights = tl.exp(keys + finite(above)[None, :])
            total, norm, top = total * shrink[:, None], norm * shrink, above
            falling *= scale
        found_key = tl.dot(values, tl.trans(total), input_precision=PRECISION)  # gradient of the weights, (CHUNK, KP)
        found_value = tl.dot(weights, total, input_precision=PRECISION)  # (CHUNK, VP)
        place = (b * N + first) * H
        for head in range(0, H, HEADS):
            rows, there, queries = _queries(query, place, scale, head, H, K, live, CHUNK, HEADS, KP)
            grads = load_tile(grad + place * V, rows * V, there, V, 0.0, VP)
            products = _causal(tl.dot(grads, tl.trans(values), input_precision=PRECISION), CHUNK, HEADS)
            found_key = tl.dot(tl.trans(products), queries, found_key, input_precision=PRECISION)
            products = _causal(tl.dot(queries, tl.trans(weights), input_precision=PRECISION), CHUNK, HEADS)
            found_value = tl.dot(tl.trans(products), grads, found_value, input_precision=PRECISION)
            total = tl.dot(tl.trans(queries), grads, total, input_precision=PRECISION)
        beyond = norm[None, :] + _running(falling, True, CHUNK)
        norm += tl.sum(falling, 0)
        if NORM == "softmax":
            found_key = (found_key - beyond) * weights
        if NORM == "l2":
            found_key -= 2 * keys * beyond
        store_tile(grad_key + start * K, found_key, index * (U * K), live, K, KP)
        store_tile(grad_value + start * V, found_value, index * (U * V), live, V, VP)
        end = first
