"""Checks of arguments that several networks share, in the user's words."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor


def at_least_one(**sizes: int) -> None:
    """Raise ValueError for the first size below 1, TypeError if one is no integer."""
    integers(**{name: size for name, size in sizes.items() if size is not None})
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size}: expected at least 1")


def integers(**numbers: Any) -> None:
    """Raise TypeError for the first that is no integer; None is left to others."""
    for name, number in numbers.items():
        if number is not None and (isinstance(number, bool) or not hasattr(number, "__index__")):
            raise TypeError(f"{name}={number!r}: expected an integer")


def numbers(**found: Any) -> None:
    """Raise TypeError for the first that is no number; None is left to others."""
    for name, number in found.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, Real)):
            raise TypeError(f"{name}={number!r}: expected a number")


def probability(**rates: float) -> None:
    """Raise ValueError for the first rate outside 0 ≤ rate < 1."""
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"{name}={rate}: expected a rate of at least 0 and below 1")


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}")


def floating(name: str, x: Tensor) -> None:
    """Raise TypeError unless x is a floating point tensor."""
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} is {found}: expected a floating point tensor; use {name}.float()")


def pictures(name: str, x: Tensor, channels: int) -> None:
    """Raise TypeError or ValueError unless x is a batch of pictures, (B, C, H, W), with so many channels."""
    floating(name, x)
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}: expected pictures (B, C, H, W) with C = in_channels={channels}"
        )


def token_ids(name: str, x: Tensor) -> None:
    """Raise TypeError unless x is a tensor of token ids."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.int32, torch.int64):
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} is {found}: expected token ids, torch.int64; use {name}.long()")


def per_block(name: str, option: Any, depth: int) -> list[Any]:
    """An option for each of `depth` blocks: itself everywhere, or the entries of a list.

    Raises:
        ValueError: the list has another length.
    """
    if not isinstance(option, Sequence) or isinstance(option, str):
        return [option] * depth
    if len(option) != depth:
        raise ValueError(
            f"{name}={list(option)} has {len(option)} entries: expected one for each of the depth={depth} blocks"
        )
    return list(option)
