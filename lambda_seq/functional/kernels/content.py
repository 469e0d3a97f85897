"""The content lambda as Triton kernels: sums over positions, cut into parts that all run at once.

    S = Σ_m p_m v_mᵀ  (K × V)          D = Σ_m p_m, or Σ_m k_m²          a = max_m k_m

`NORM` names what a weight is: "softmax" p = exp(k − a), "l2" and "none" p = k. A softmax is computed as it goes on:
where a tile of keys brings a greater maximum, what was summed up so far is brought to it. A program writes the sums of
its part; what the parts have is added up afterwards, in one order, so that all runs give the same.

Contiguous tensors: key (B, N, U, K), value (B, N, U, V). Sums are float32. Products are of float32, each made of three
of TF32 unless key and value are in half precision (`DOT`), whose numbers TF32 holds exactly: no weight is too small for
it, as some would be for float16.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lambda_seq.functional.kernels.tiles import finite, load_tile, store_state, store_tile


@triton.jit(do_not_specialize=("N", "tiles", "share", "parts"))
def sum_up(
    key, value, sums, norms, tops, U, K, V, N, tiles, share, parts,
    NORM: tl.constexpr, ROWS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """S, D and a of `share` of all `tiles`, into (B, U, parts, …); programs by (b, u, part)."""
    PRECISION: tl.constexpr = "tf32x3" if tl.float32 == DOT else "tf32"
    FILL: tl.constexpr = float("-inf") if NORM == "softmax" else 0.0
    part = tl.program_id(0) % parts
    u = tl.program_id(0) // parts % U
    b = tl.program_id(0).to(tl.int64) // parts // U
    rows = tl.arange(0, ROWS) * U
    top = tl.full((KP,), FILL, tl.float32)
    norm, total = tl.zeros((KP,), tl.float32), tl.zeros((KP, VP), tl.float32)
    for tile in range(part * share, tl.minimum((part + 1) * share, tiles)):
        first = tl.cast(tile, tl.int64) * ROWS  # rows of an image with all its heads may be more than int32 counts
        live = first + tl.arange(0, ROWS) < N
        place = (b * N + first) * U + u
        keys = load_tile(key + place * K, rows * K, live, K, FILL, KP)
        values = load_tile(value + place * V, rows * V, live, V, 0.0, VP)
        weights = keys
        if NORM == "softmax":
            above = tl.maximum(top, tl.max(keys, 0))
            shrink = tl.exp(top - finite(above))
            weights = tl.exp(keys - finite(above)[None, :])
            total = total * shrink[:, None]
            norm = norm * shrink + tl.sum(weights, 0)
            top = above
        if NORM == "l2":
            norm += tl.sum(keys * keys, 0)
        total = tl.dot(tl.trans(weights), values, total, input_precision=PRECISION)
    store_state(sums, norms, tops, total, norm, top, tl.program_id(0).to(tl.int64), K, V, KP, VP)


@triton.jit(do_not_specialize=("N", "tiles", "share", "parts"))
def spread(
    key, value, grad_sums, grad_norm, tops, grad_key, grad_value, U, K, V, N, tiles, share, parts,
    NORM: tl.constexpr, ROWS: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values of `share` tiles from those of S and D (B, U, …); programs as in `sum_up`.

    Of `VP` values at a time, so that what products take fits into shared memory.
    """
    PRECISION: tl.constexpr = "tf32x3" if tl.float32 == DOT else "tf32"
    FILL: tl.constexpr = float("-inf") if NORM == "softmax" else 0.0
    part = tl.program_id(0) % parts
    u = tl.program_id(0) // parts % U
    b = tl.program_id(0).to(tl.int64) // parts // U
    rows, depths, entry = tl.arange(0, ROWS) * U, tl.arange(0, KP), b * U + u
    norm = tl.load(grad_norm + entry * K + depths, mask=depths < K, other=0.0)
    top = tl.load(tops + entry * K + depths, mask=depths < K, other=0.0)
    for tile in range(part * share, tl.minimum((part + 1) * share, tiles)):
        first = tile * ROWS
        live = first + tl.arange(0, ROWS) < N
        place = (b * N + first) * U + u
        keys = load_tile(key + place * K, rows * K, live, K, FILL, KP)
        weights = keys
        if NORM == "softmax":
            weights = tl.exp(keys - finite(top)[None, :])
        total = tl.zeros((ROWS, KP), tl.float32)  # gradient of the weights
        for column in range(0, V, VP):
            values = load_tile(value + place * V + column, rows * V, live, V - column, 0.0, VP)
            grads = load_tile(grad_sums + entry * K * V + column, depths * V, depths < K, V - column, 0.0, VP)
            total = tl.dot(values, tl.trans(grads), total, input_precision=PRECISION)
            found = tl.dot(weights, grads, input_precision=PRECISION)
            store_tile(grad_value + place * V + column, found, rows * V, live, V - column, VP)
        if NORM == "softmax":
            total = (total + norm[None, :]) * weights
        if NORM == "l2":
            total += 2 * keys * norm[None, :]
        store_tile(grad_key + place * K, total, rows * K, live, K, KP)
