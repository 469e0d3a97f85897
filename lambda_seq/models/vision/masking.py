"""Pictures of different sizes in one batch: what layers of a residual network do where only some pixels are real.

A mask (B, H, W) is True at real pixels. Pictures that are padded below and to their right give, at real pixels, what
they give alone: padding is zero in front of each convolution, as its own border is, and neither norms nor averages
count it.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Mask = Bool[Tensor, "B H W"] | None  # True at real pixels; None where all are


def blank(x: Float[Tensor, "B C H W"], mask: Mask, value: float = 0.0) -> Float[Tensor, "B C H W"]:
    """x with this value at padding, whatever stood there."""
    return x if mask is None else x.masked_fill(~mask[:, None], value)


def strided(mask: Mask, stride: int | tuple[int, ...]) -> Mask:
    """The mask behind a layer of this stride that rounds sizes up: of each output, its first input."""
    rows, columns = (stride, stride) if isinstance(stride, int) else stride
    return mask if mask is None or rows == columns == 1 else mask[:, ::rows, ::columns]


def mean(x: Float[Tensor, "B C H W"], mask: Mask) -> Float[Tensor, "B C"]:
    """Mean over a picture's real pixels; zero without one."""
    if mask is None:
        return x.mean((2, 3))
    return blank(x, mask).sum((2, 3)) / mask.sum((1, 2)).clamp_min(1)[:, None]


def average(pool: nn.Module, x: Float[Tensor, "B C H W"], mask: Mask) -> Float[Tensor, "B C h w"]:
    """An average pool over real pixels only; zero where a window has none."""
    if mask is None or isinstance(pool, nn.Identity):
        return pool(x)
    share = pool(mask[:, None].to(x.dtype))  # (B, 1, h, w), real part of each window
    return pool(blank(x, mask)) / share.clamp_min(torch.finfo(x.dtype).tiny)


def through(layer: nn.Module, x: Float[Tensor, "B C H W"], mask: Mask) -> tuple[Float[Tensor, "B D h w"], Mask]:
    """A layer's output, and the mask of that."""
    if mask is None:
        return layer(x), None
    if isinstance(layer, nn.Conv2d):
        return layer(blank(x, mask)), strided(mask, layer.stride)
    if isinstance(layer, nn.MaxPool2d):
        stride: Any = layer.stride
        after = strided(mask, stride)
        return blank(layer(blank(x, mask, -torch.inf)), after), after  # no infinity goes on, nor into gradients
    return layer(x), mask
