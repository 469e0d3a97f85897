"""Fourier transforms of any length by matrix products: factor by factor, in real numbers.

A transform of length A · M is A transforms of length M of what transforms of length A give, between them a turn of each
number by its place (W. M. Gentleman and G. Sande, 1966). Frequencies stay in the order in which they come; what is
multiplied with one another has the same order. Angles are computed from whole numbers modulo the length, so that they
are as exact at the last position as at the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Complex = tuple[Tensor, Tensor]  # real and imaginary part

FACTORS = (32, 32)  # of a long transform; what is left of its length is the last one
SHORT = 512  # numbers up to which a length that is known is not cut


def multiply(left: Complex, right: Complex) -> Complex:
    """The product of complex numbers."""
    return left[0] * right[0] - left[1] * right[1], left[0] * right[1] + left[1] * right[0]


class Transform:
    """Transforms along the last dimensions of tensors, and back.

    Args:
        least: lengths that they have at least, per dimension, rows and columns; 1 for a dimension without any.
        like: of the dtype and on the device that they have.
    """

    def __init__(self, least: Sequence[int], like: Tensor) -> None:
        self.axes = [None if _is(length, 1) else _Axis(length, like) for length in least]

    def forward(self, x: Complex) -> Complex:
        """(..., Y, X), both padded to the lengths -> spectra (..., F)."""
        for index in (-1, -2):
            axis = self.axes[index]
            if axis is not None:
                moved = (part.movedim(index, -1) for part in x)
                real, imaginary = axis.forward(*(axis.pad(part) for part in moved))
                x = real.movedim(-1, index), imaginary.movedim(-1, index)
        return x[0].flatten(-2), x[1].flatten(-2)

    def inverse(self, spectra: Complex, first: Sequence[int], size: Sequence[int]) -> Complex:
        """Spectra (..., F) -> (..., Y, X), `size` numbers from the places `first` on."""
        lengths = [1 if axis is None else axis.length for axis in self.axes]
        x = spectra[0].unflatten(-1, lengths), spectra[1].unflatten(-1, lengths)
        for index in (-2, -1):
            axis = self.axes[index]
            if axis is not None:
                moved = axis.inverse(*(part.movedim(index, -1) for part in x))
                real, imaginary = (part.narrow(-1, first[index], size[index]) for part in moved)
                x = real.movedim(-1, index), imaginary.movedim(-1, index)
        return x


class _Axis:
    """A transform along the last dimension."""

    def __init__(self, least: int, like: Tensor) -> None:
        known = isinstance(least, int) and least <= SHORT
        self.factors: list[int] = [] if known else list(FACTORS)
        whole = math.prod(self.factors)
        # At least 2 where the length is not known: torch takes a size of one for something else
        last = least if known else (least + whole - 1) // whole + 1
        self.length = whole * last
        self.factors.append(last)
        self.rest = [math.prod(self.factors[place + 1 :]) for place in range(len(self.factors))]
        self.matrices = [_matrix(*_turns(factor, factor, factor, like)) for factor in self.factors]
        self.between = [
            _turns(factor, rest, factor * rest, like)  # (A, M)
            for factor, rest in zip(self.factors[:-1], self.rest, strict=False)
        ]

    def pad(self, x: Tensor) -> Tensor:
        """Zeros behind x, up to the length."""
        return F.pad(x, (0, self.length - x.shape[-1]))

    def forward(self, real: Tensor, imaginary: Tensor) -> Complex:
        """Sums of x[n] exp(−2πi k n / L)."""
        for place, turns in enumerate(self.between):
            shape = (self.factors[place], self.rest[place])
            x = torch.cat([real.unflatten(-1, shape), imaginary.unflatten(-1, shape)], -2)  # (..., 2 · A, M)
            real, imaginary = multiply(_apart(self.matrices[place] @ x, -2), turns)  # (..., A, M)
        x = torch.cat([real, imaginary], -1) @ self.matrices[-1].mT  # (..., A, B, 2 · C)
        real, imaginary = _apart(x, -1)
        cut = len(self.factors)
        return real.flatten(-cut), imaginary.flatten(-cut)

    def inverse(self, real: Tensor, imaginary: Tensor) -> Complex:
        """Sums of X[k] exp(2πi k n / L) / L."""
        real, imaginary = real.unflatten(-1, self.factors), imaginary.unflatten(-1, self.factors)
        real, imaginary = _apart(torch.cat([real, imaginary], -1) @ self.matrices[-1], -1)
        for place, (cosine, sine) in reversed(list(enumerate(self.between))):
            real, imaginary = multiply((real, imaginary), (cosine, -sine))
            x = self.matrices[place].mT @ torch.cat([real, imaginary], -2)
            real, imaginary = (part.flatten(-2) for part in _apart(x, -2))
        return real / self.length, imaginary / self.length


def _turns(rows: int, columns: int, length: int, like: Tensor) -> Complex:
    """exp(−2πi j k / length) for each row j and column k."""
    first, second = (torch.arange(count, device=like.device) for count in (rows, columns))
    whole = torch.full((), length, device=like.device)  # a tensor, as exporters take no other for a modulus
    places = (first[:, None] * second) % whole
    places = torch.where(2 * places > whole, places - whole, places)  # the smaller angle is the more exact
    angles = places.to(like.dtype) * (2 * math.pi) / whole
    return angles.cos(), -angles.sin()


def _matrix(cosine: Tensor, sine: Tensor) -> Tensor:
    """Multiplication by complex numbers (A, M) as one of real parts above imaginary ones, (2 · A, 2 · M).

    Its transpose multiplies by their conjugates, where they are symmetric.
    """
    return torch.cat([torch.cat([cosine, -sine], 1), torch.cat([sine, cosine], 1)], 0)


def _apart(x: Tensor, dim: int) -> Complex:
    """Real and imaginary part that are one behind the other; `chunk` exports for lengths that are known only."""
    parts = x.unflatten(dim, (2, x.shape[dim] // 2))
    return parts.select(dim - 1, 0), parts.select(dim - 1, 1)


def _is(length: int, number: int) -> bool:
    return isinstance(length, int) and length == number
