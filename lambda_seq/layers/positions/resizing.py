"""Relative position tables for another input size: their offsets rescaled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def resize_table(
    table: Float[Tensor, "U K *R"],
    old: Sequence[int],
    new: Sequence[int],
    *,
    causal: bool = False,
    density: bool = True,
) -> Float[Tensor, "U K *S"]:
    """A global table for inputs of `new` positions per dimension, from one for `old`.

        R'[δ'] = s · R(s δ'),   s = N / N' per dimension

    An offset of the new input is the same part of the picture as s times that offset of the old one. Between offsets R
    is cubic (Catmull–Rom: R. Keys, 1981), past the ends it goes on as its point reflection in them; where the new input
    is coarser, s > 1, it is averaged over the s old offsets that each new one stands for. Exact for tables that are
    linear in the offset; the same table where no size changes. What is finer than either grid is smoothed away, so a
    network wants some training at its new size.

    Args:
        table: 2N − 1 offsets per dimension, offset 0 in the middle (causal: N, offset 0 at the end).
        old: N per dimension.
        new: N' per dimension.
        causal: offsets end at 0.
        density: multiply by s, as the response of a position lambda is a sum over positions, of which N' take the
            place of N: it stays what it was for a picture shown larger or smaller. Logits of attention, which
            normalises over positions, go without.

    Raises:
        ValueError: a size below 1, or a table that is not of size `old`.
    """
    for name, size in (("old", old), ("new", new)):
        if len(size) != table.ndim - 2 or min(size) < 1:
            raise ValueError(f"{name}={tuple(size)}: expected {table.ndim - 2} sizes of at least 1, one per dimension")
    offsets = tuple(length if causal else 2 * length - 1 for length in old)
    if tuple(table.shape[2:]) != offsets:
        raise ValueError(f"table has {tuple(table.shape[2:])} offsets: expected {offsets}, those of old={tuple(old)}")
    wide = torch.promote_types(table.dtype, torch.float32)
    resized = table.to(wide)
    for axis, (before, after) in enumerate(zip(old, new, strict=True), start=2):
        if before == after:
            continue
        matrix = _interpolation(before, after, causal) * (before / after if density else 1.0)
        resized = torch.tensordot(resized, matrix.to(resized), ([axis], [1])).movedim(-1, axis)
    return resized.to(table.dtype).contiguous()


def _interpolation(old: int, new: int, causal: bool) -> Float[Tensor, "S R"]:
    """The matrix that makes values at the new offsets of those at the old ones; rows sum to 1."""
    ratio = old / new
    at = torch.arange(1 - new, 1 if causal else new, dtype=torch.float64) * ratio
    samples = math.ceil(ratio)  # of the stretch that a new offset stands for, symmetric around its middle
    within = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples - 0.5
    points = (at[:, None] + ratio * within).flatten() if samples > 1 else at
    beyond = math.ceil(ratio / 2) + 2  # offsets past each end that points, or the kernel around them, reach
    count = old if causal else 2 * old - 1
    matrix = _keys(points[:, None] - torch.arange(1 - old - beyond, 1 - old + count + beyond, dtype=torch.float64))
    return _fold(matrix, beyond).unflatten(0, (-1, samples)).mean(1)


def _keys(distance: Tensor) -> Tensor:
    """Weight of a value at this distance: the cubic kernel of Keys with a = −½, zero from 2 on."""
    x = distance.abs()
    near = 1 + x.square() * (1.5 * x - 2.5)
    far = 2 + x * (x * (2.5 - 0.5 * x) - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _fold(matrix: Float[Tensor, "S P"], beyond: int) -> Float[Tensor, "S R"]:
    """Weights of the values past an end e as weights of those inside: R[e + j] = 2 R[e] − R[e − j]."""
    folded = matrix[:, beyond:-beyond].clone()
    last = folded.shape[1] - 1
    for past in range(1, beyond + 1):
        inside = min(past, last)
        share = past / inside if inside else 0.0  # a table of one offset has no slope
        for end, step, weight in ((0, 1, matrix[:, beyond - past]), (last, -1, matrix[:, beyond + last + past])):
            folded[:, end] += (1 + share) * weight
            folded[:, end + step * inside] -= share * weight
    return folded
