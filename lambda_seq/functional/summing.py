"""Sums of products over positions by a Triton kernel, split into parts: what all kernels that need such sums launch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lambda_seq.functional.launching import launch, power_of_two, shares
from lambda_seq.functional.work import Work

ROWS = 64  # positions of a tile, at most
WARPS = 4  # of 32 threads, in a program


class Tiles(NamedTuple):
    """Sizes of tiles: powers of two, for products."""

    rows: int
    keys: int
    values: int


def tiles(dim_key: int, dim_value: int) -> Tiles:
    """Tiles that fit in registers: fewer rows for many keys and values."""
    keys, values = power_of_two(dim_key, 16), power_of_two(dim_value, 16)
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
    t = tiles(dim_key, value.shape[-1])
    sums = key.new_empty(batch, intra, parts, dim_key, value.shape[-1], dtype=torch.float32)
    norm, top = (key.new_empty(sums.shape[:-1], dtype=torch.float32) for _ in range(2))
    numbers = (intra, dim_key, value.shape[-1], count, -(-count // t.rows), share, parts)
    tensors = (key, value, sums, norm, top)
    launch(content.sum_up, batch * intra * parts, tensors, numbers, **constants(t, key_norm))
    return sums, norm, top


def product(left: Tensor, right: Tensor) -> Tensor:
    """leftᵀ @ right, (B, K, V) in float32, of (B, N, K) and (B, N, V) that are contiguous, whatever N."""
    batch, count, dim_key = left.shape
    parts, share = shares(batch, -(-count // tiles(dim_key, right.shape[-1]).rows))
    sums, *_ = summed_up(left[:, :, None], right[:, :, None], "none", share, parts)
    return sums.sum((1, 2))


def count(batch: int, count: int, dim_key: int, dim_value: int) -> Work:
    """Work of `product`; products are those of whole tiles."""
    t = tiles(dim_key, dim_value)
    blocks = -(-count // t.rows)
    parts, _ = shares(batch, blocks)
    return Work(
        products=batch * blocks * t.rows * t.keys * t.values,
        streamed=batch * (count * (dim_key + dim_value) + 3 * parts * dim_key * (dim_value + 2)),
        calls=4,
    )
