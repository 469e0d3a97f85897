"""Sums over all positions, of which the content lambda is made, as Triton kernels: read once, parts at a time.

For GPUs. See `kernels/content.py` for how it is computed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lambda_seq.functional.chunks import finite
from lambda_seq.functional.launching import applies, launch, power_of_two, shares
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.summaries import SUMMARIES, Summary, greatest, sizes_of
from lambda_seq.functional.work import Work

ROWS = 64  # positions of a tile, at most
SPREAD = 2**11  # keys times values of a tile of a program that writes gradients, at most
SHARE = 16  # tiles of a program that writes gradients
WARPS = 4  # of 32 threads, in a program


class Tiles(NamedTuple):
    """Sizes of tiles: powers of two, for products."""

    rows: int
    keys: int
    values: int


def tiles(s: Sizes) -> Tiles:
    """Tiles for a problem, which fit in registers: fewer rows for many keys and values."""
    keys, values = power_of_two(s.K, 16), power_of_two(s.V, 16)
    return Tiles(ROWS if keys * values <= 2**12 else ROWS // 2, keys, values)


def constants(t: Tiles, key_norm: str) -> dict[str, int | str]:
    """What kernels are compiled for."""
    warps = WARPS if t.keys * t.values <= 2**11 else 2 * WARPS
    return {"num_warps": warps, "NORM": key_norm, "ROWS": t.rows, "KP": t.keys, "VP": t.values}


def laid_out(tensor: Tensor) -> Tensor:
    """(B, C, N, D) -> (B, N, C, D), contiguous; without a copy for what the layers make."""
    return tensor.transpose(1, 2).contiguous()


def summed_up(key: Tensor, value: Tensor, key_norm: str, share: int, parts: int) -> tuple[Tensor, Tensor, Tensor]:
    """S (B, U, P, K, V), D and a (B, U, P, K) of P parts of `share` tiles of key and value, which are `laid_out`."""
    from lambda_seq.functional.kernels import content

    batch, count, intra, dim_key = key.shape
    t = tiles(sizes_of(key.transpose(1, 2), value.transpose(1, 2)))
    sums = key.new_empty(batch, intra, parts, dim_key, value.shape[-1], dtype=torch.float32)
    norm, top = (key.new_empty(sums.shape[:-1], dtype=torch.float32) for _ in range(2))
    numbers = (intra, dim_key, value.shape[-1], count, -(-count // t.rows), share, parts)
    tensors = (key, value, sums, norm, top)
    launch(content.sum_up, batch * intra * parts, tensors, numbers, **constants(t, key_norm))
    return sums, norm, top


def forward(key: Tensor, value: Tensor, key_norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """S, D and a; arguments as in `summaries.Summary`."""
    s = sizes_of(key, value)
    parts, share = shares(s.B * s.U, -(-s.X // tiles(s).rows))
    sums, norms, tops = summed_up(laid_out(key), laid_out(value), key_norm, share, parts)
    top = tops.amax(2, keepdim=True)  # (B, U, 1, K)
    if key_norm != "softmax":
        return sums.sum(2), norms.sum(2, keepdim=True), top
    shrink = (tops - finite(top)).exp()  # (B, U, P, K)
    return (sums * shrink[..., None]).sum(2), (norms * shrink).sum(2, keepdim=True), top


def backward(
    grad_sums: Tensor, grad_norm: Tensor, _: Tensor, key: Tensor, value: Tensor, key_norm: str
) -> tuple[Tensor, Tensor]:
    """Gradients of key and value, in one kernel that computes the weights again."""
    from lambda_seq.functional.kernels import content

    s, t = sizes_of(key, value), tiles(sizes_of(key, value))
    key, value = laid_out(key), laid_out(value)
    top = greatest(key.transpose(1, 2)).float() if key_norm == "softmax" else grad_norm
    grad_key, grad_value = key.new_empty(key.shape), value.new_empty(value.shape)
    count = -(-s.X // t.rows)
    parts = -(-count // SHARE)
    launch(
        content.spread,
        s.B * s.U * parts,
        (key, value, grad_sums.contiguous(), grad_norm.contiguous(), top.contiguous(), grad_key, grad_value),
        (s.U, s.K, s.V, s.X, count, SHARE, parts),
        **(constants(t, key_norm) | {"VP": min(t.values, SPREAD // t.keys)}),
    )
    return grad_key.transpose(1, 2), grad_value.transpose(1, 2)


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work, and floats of temporaries; with the backward pass or without.

    Products are those of whole tiles. What parts have read counts once.
    """
    t = tiles(s)
    blocks = -(-s.X // t.rows)
    product = s.B * s.U * blocks * t.rows * t.keys * t.values
    keys, values = s.N * s.U * s.K, s.N * s.U * s.V
    parts, _ = shares(s.B * s.U, blocks)
    sums = s.B * s.U * parts * s.K * (s.V + 2)
    work = Work(products=product, streamed=keys + values + 3 * sums, calls=8)
    if not backward:
        return work, float(2 * sums)
    return work + Work(products=2 * product, streamed=3 * keys + 2 * values, calls=6), float(2 * sums)


SUMMARIES.register(
    Summary("triton_content", "a split reduction as Triton kernels, on GPUs", forward, backward, count, applies, False)
)
