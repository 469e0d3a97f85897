"""Checks of arguments that layers and networks share, in the user's words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor


def at_least_one(**sizes: Any) -> None:
    """Raise ValueError for the first size below 1, TypeError if one is no integer."""
    for name, size in sizes.items():
        _integer(name, size)
        if size < 1:
            raise ValueError(f"{name}={size}: expected at least 1")


def at_least_zero(**sizes: Any) -> None:
    """Raise ValueError for the first size below 0, TypeError if one is no integer."""
    for name, size in sizes.items():
        _integer(name, size)
        if size < 0:
            raise ValueError(f"{name}={size}: expected at least 0")


def integers(**numbers: Any) -> None:
    """Raise TypeError for the first that is no integer; None is left to others."""
    for name, number in numbers.items():
        if number is not None:
            _integer(name, number)


def _integer(name: str, number: Any) -> None:
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"{name}={number!r}: expected an integer{_nearest(number)}")


def _nearest(number: Any) -> str:
    """What integer may be meant by 4.0 or "31"."""
    try:
        value = None if isinstance(number, bool) else float(number)
    except (TypeError, ValueError):
        return ""
    return f"; use {int(value)}" if value is not None and value.is_integer() else ""


def per_dimension(name: str, value: Any, dims: int) -> tuple[int, ...]:
    """Sizes per dimension from an integer, which holds for all, or from a sequence with one for each.

    Raises:
        TypeError: neither.
        ValueError: a sequence of another length.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        _integer(name, value)
        return (int(value),) * dims
    if dims == 1:
        hint = f"; use {value[0]}" if len(value) == 1 else ""
        raise TypeError(f"{name}={value!r}: expected an integer, as sequences have one dimension{hint}")
    if len(value) != dims:
        raise ValueError(f"{name}={value!r}: expected an int or a pair (rows, columns)")
    for size in value:
        _integer(name, size)
    return tuple(int(size) for size in value)


def flags(**found: Any) -> None:
    """Raise TypeError for the first that is neither True nor False."""
    for name, value in found.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name}={value!r}: expected True or False")


def numbers(**found: Any) -> None:
    """Raise TypeError for the first that is no number, ValueError if one is NaN or infinite; None is left to others."""
    for name, number in found.items():
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"{name}={number!r}: expected a number")
        if not math.isfinite(number):
            raise ValueError(f"{name}={number}: expected a number, neither NaN nor infinite")


def probability(**rates: Any) -> None:
    """Raise ValueError for the first rate outside 0 ≤ rate < 1, TypeError if one is no number."""
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, Real):
            raise TypeError(f"{name}={rate!r}: expected a number")
        if not 0 <= float(rate) < 1:
            raise ValueError(f"{name}={rate}: expected a rate of at least 0 and below 1")


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}")


def floating(name: str, x: object) -> None:
    """Raise TypeError unless x is a floating point tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} is {type(x).__name__}: expected a floating point tensor; use torch.as_tensor({name}).float()"
        )
    if x.dtype.is_complex:
        raise TypeError(
            f"{name} is {x.dtype}: expected a floating point tensor; use {name}.real, {name}.abs(), or both parts as "
            f"channels, torch.view_as_real({name})"
        )
    if not x.dtype.is_floating_point:
        raise TypeError(f"{name} is {x.dtype}: expected a floating point tensor; use {name}.float()")


def shaped(name: str, x: Tensor, expected: str, *, ranks: Sequence[int], channels: int, axis: int) -> None:
    """Raise ValueError unless x has its channels on this axis, 1 or −1, and a position at least; only B may be 0.

    Args:
        name: of the argument.
        x: a tensor.
        expected: its shape in words.
        ranks: dimensions that it may have.
        channels: how many it has.
        axis: on which they lie.
    """
    if x.ndim in ranks and x.shape[axis] == channels and 0 not in x.shape[1:]:
        return
    hint = ""
    if x.ndim in ranks and x.shape[axis] == channels:
        hint = "; give at least one position"
    elif x.ndim in ranks and x.shape[-axis] == channels:
        move = f"transpose({-axis}, {axis})" if x.ndim == 3 else f"movedim({-axis}, {axis})"
        hint = f"; its channels seem to come {'last' if axis == 1 else 'first'}: use {name}.{move}"
    elif x.ndim + 1 in ranks and x.ndim and x.shape[min(axis, 0)] == channels:
        hint = f"; a batch of one is {name}[None]"
    raise ValueError(f"{name} has shape {tuple(x.shape)}: expected {expected}{hint}")


def masked(mask: object, shape: Sequence[int], letters: str = "(B, *N)") -> None:
    """Raise TypeError or ValueError unless the mask is None, or a bool tensor of this shape."""
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        remedy = "mask.bool()" if isinstance(mask, Tensor) else "torch.as_tensor(mask).bool()"
        raise TypeError(f"mask is {found}: expected a bool tensor, True at real positions; use {remedy}")
    if mask.shape != torch.Size(shape):
        raise ValueError(f"mask has shape {tuple(mask.shape)}: expected {tuple(shape)}, {letters}")


def pictures(name: str, x: Tensor, channels: int) -> None:
    """Raise TypeError or ValueError unless x is a batch of pictures, (B, C, H, W), with so many channels."""
    floating(name, x)
    expected = f"pictures (B, C, H, W) with C = in_channels={channels}"
    shaped(name, x, expected, ranks=(4,), channels=channels, axis=1)


def token_ids(name: str, x: object) -> None:
    """Raise TypeError unless x is a tensor of token ids."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is {type(x).__name__}: expected token ids, torch.int64; use torch.as_tensor({name})")
    if x.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} is {x.dtype}: expected token ids, torch.int64; use {name}.long()")


def stream_state(state: object, kind: type, made_by: str = "init_state(batch_size)") -> None:
    """Raise TypeError unless this is a state of a stream, of this kind."""
    if not isinstance(state, kind):
        raise TypeError(
            f"state is {'None' if state is None else 'a ' + type(state).__name__}: expected the {kind.__name__} of "
            f"{made_by}, or the one that the last step returned"
        )


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
