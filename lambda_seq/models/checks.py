"""Checks of arguments that several networks share, in the user's words."""

from __future__ import annotations

from torch import Tensor


def at_least_one(**sizes: int) -> None:
    """Raise ValueError for the first size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size}: expected at least 1")


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
