"""The algorithms there are. Each is one file of this folder, which registers it at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload

import torch
from torch import Tensor

from lambda_seq.functional.position.operator import PositionOperator
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work

Forward = Callable[[Tensor, Tensor, Tensor, Sizes], Tensor]
Backward = Callable[[Tensor, Tensor, Tensor, Tensor, Sizes], tuple[Tensor, Tensor, Tensor]]
Count = Callable[[Sizes, bool], tuple[Work, float]]
Supports = Callable[[Sizes, torch.device, torch.dtype], str | None]


def everywhere(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> str | None:
    """`supports` of an algorithm for all sizes, devices and dtypes."""
    return None


class Algorithm:
    """A way to compute the position lambda; the same function as every other one.

    Args:
        name: what `algorithm=` calls it, and the operator `lambda_seq::name`.
        summary: it in a few words, for the documentation of `algorithm=`.
        forward: query (B, H, Y, X, K), value (B, U, Y, X, V), embedding (U, K, RY, RX) without the offsets that no
            pair of positions has, and their `Sizes` -> output (B, H, Y, X, V), laid out in memory as (B, Y, X, H, V).
        backward: gradient of the output, then forward's arguments -> gradients of query, value (laid out like the
            output) and embedding (contiguous).
        count: sizes, and whether a backward pass is counted too -> the work, and floats of temporaries at most; of the
            very chunks that the passes cut. Both passes run without autocast and autograd.
        supports: sizes, device, dtype -> why it does not apply there, or None where it does. Asked before every call,
            so it is quick, and imports nothing.
        trusted: False for a kernel that depends on a device's compiler, and whose time no rate of the device predicts:
            "auto" takes it only where `calibrate` found it right and measured it. It can be asked for by name anywhere.
    """

    def __init__(
        self,
        name: str,
        summary: str,
        forward: Forward,
        backward: Backward,
        count: Count,
        supports: Supports = everywhere,
        trusted: bool = True,
    ) -> None:
        self.name, self.summary, self.trusted = name, summary, trusted
        self.forward, self.backward, self.count, self.supports = forward, backward, count, supports
        self.operator = PositionOperator(name, self._by_name)

    def __repr__(self) -> str:
        return f"Algorithm({self.name!r})"

    def _by_name(self, sizes: Sizes, device: torch.device, dtype: torch.dtype, backward: bool) -> Algorithm:
        reason = self.supports(sizes, device, dtype)
        if reason is not None:
            raise ValueError(f"algorithm={self.name!r}: {reason}; use algorithm='auto', which takes one that applies")
        return self


REGISTRY: dict[str, Algorithm] = {}


def register(algorithm: Algorithm) -> Algorithm:
    """Make an algorithm known: to `algorithm=`, `plan`, "auto", and the tests that all have to pass."""
    REGISTRY[algorithm.name] = algorithm
    return algorithm


class _Names(Sequence[str]):
    """What `algorithm=` may be; grows with the registry."""

    def _all(self) -> tuple[str, ...]:
        return ("auto", "naive", *REGISTRY)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._all()[index]

    def __len__(self) -> int:
        return 2 + len(REGISTRY)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __repr__(self) -> str:
        return repr(self._all())


ALGORITHMS: Sequence[str] = _Names()
