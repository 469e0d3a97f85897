"""What every part of the layer's algorithms have in common: a name, two passes, their cost, and where they apply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work

Count = Callable[[Sizes, bool], tuple[Work, float]]
Supports = Callable[[Sizes, torch.device, torch.dtype], str | None]


def everywhere(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> str | None:
    """`supports` of an algorithm for all sizes, devices and dtypes."""
    return None


class Algorithm:
    """A way to compute a part of the layer; the same function as every other one of this part.

    Args:
        name: of it, and of the operator `lambda_seq::name`.
        summary: it in a few words.
        forward: as its part says.
        backward: gradients of the outputs, then forward's arguments -> gradients of the tensors.
        count: sizes, and whether a backward pass is counted too -> the work, and floats of temporaries at most; of the
            very chunks that the passes cut. Both passes run without autocast and autograd.
        supports: sizes, device, dtype -> why it does not apply there, or None where it does. Asked before every call,
            so it is quick, and imports nothing.
        trusted: False for a kernel that depends on a device's compiler, and whose time no rate of the device predicts:
            "auto" takes it only where `calibrate` found it right and measured it. It can be asked for by name anywhere.

    Attributes:
        fuses: whether its passes also take a content lambda, and add it to each position lambda.
    """

    fuses = False

    def __init__(
        self,
        name: str,
        summary: str,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        count: Count,
        supports: Supports = everywhere,
        trusted: bool = True,
    ) -> None:
        self.name, self.summary, self.trusted = name, summary, trusted
        self.forward, self.backward, self.count, self.supports = forward, backward, count, supports

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def by_name(self, sizes: Sizes, device: torch.device, dtype: torch.dtype, backward: bool) -> Algorithm:
        """What an operator that is asked for by name takes: this one, or an error that says why it does not apply."""
        reason = self.supports(sizes, device, dtype)
        if reason is not None:
            raise ValueError(f"algorithm={self.name!r}: {reason}; use algorithm='auto', which takes one that applies")
        return self


class Shape(NamedTuple):
    """Sizes of a problem that kernels are tried by, the letters of `problem.Sizes`; the embedding is centred."""

    B: int
    H: int
    U: int
    K: int
    V: int
    Y: int
    X: int
    RY: int = 1
    RX: int = 1
    key_norm: str = "softmax"
    content: bool = False  # for those that add a content lambda


class Case(NamedTuple):
    """A problem that an algorithm is tried by.

    Attributes:
        sizes: of it.
        tensors: of the forward pass.
        option: its last argument.
        grads: of the outputs.
        definition: of the tensors, the added ones too -> the outputs, differentiable.
        names: of the outputs and of the gradients.
        added: tensors of the forward pass behind the option.
    """

    sizes: Sizes
    tensors: tuple[Tensor, ...]
    option: Any
    grads: tuple[Tensor, ...]
    definition: Callable[..., tuple[Tensor, ...]]
    names: tuple[str, ...]
    added: tuple[Tensor, ...] = ()


def randoms(sizes: Sequence[Sequence[int]], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Normal numbers, the same on every call."""
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)
    return [torch.randn(*size, device=device, dtype=dtype, generator=generator) for size in sizes]


Made = TypeVar("Made", bound=Algorithm)


class Registry(dict[str, Made], Generic[Made]):
    """The algorithms of one part, by name.

    Args:
        part: what they compute: "position", "content" or "scan".
        right: shapes in which a kernel is held to the definition.
        fast: that in which it is timed.
        case: (shape, device, dtype) -> the problem.
    """

    def __init__(
        self,
        part: str,
        right: Sequence[Shape],
        fast: Shape,
        case: Callable[[Shape, torch.device, torch.dtype], Case],
    ) -> None:
        super().__init__()
        self.right, self.fast, self.case = right, fast, case
        REGISTRIES[part] = self

    def register(self, algorithm: Made) -> Made:
        """Make an algorithm known."""
        self[algorithm.name] = algorithm
        return algorithm


REGISTRIES: dict[str, Registry[Any]] = {}  # of all parts
