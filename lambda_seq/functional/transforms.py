"""What functions need beside a backward pass for `torch.func`: rules of `torch.vmap`, and errors where there are none.

A vmap rule goes into the batch that the tensors have anyway, or entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


class Once(torch.autograd.Function):
    """A function that cannot be differentiated, as it is a derivative itself."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Raise RuntimeError."""
        refuse_second_derivatives()

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Raise RuntimeError."""
        refuse_second_derivatives()


def refuse_second_derivatives(*_: Any) -> None:
    """Raise RuntimeError: what a derivative's derivative is."""
    raise RuntimeError(
        "the gradient of a lambda layer cannot be differentiated again: its algorithms have backward passes of "
        "their own; use algorithm='naive' for second derivatives"
    )


@contextmanager
def forward_mode(inputs: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Inputs of a function without their tangents, for its jvp to compute with.

    torch runs a jvp with forward mode off, and loses in silence what the tangents of an outer level would add.
    """
    # Private to torch: nothing public turns it on again, as a `dual_level` cannot be nested
    with forward_ad._set_fwd_grad_enabled(True):
        yield [forward_ad.unpack_dual(x).primal for x in inputs]


def folding(function: Callable[..., Any]) -> Callable[..., Any]:
    """The vmap rule of a function of tensors (B, ...), one option last, whose results are all (B, ...)."""

    def rule(info: Any, in_dims: Sequence[Any], *inputs: Any) -> Any:
        *tensors, option = inputs
        return unfolded(info.batch_size, function(*folded(info.batch_size, in_dims[:-1], tensors), option))

    return rule


def looping(function: Callable[..., Any]) -> Callable[..., Any]:
    """The vmap rule of a function of any tensors, one option last: entry by entry."""

    def rule(info: Any, in_dims: Sequence[Any], *inputs: Any) -> Any:
        *tensors, option = inputs
        results = []
        for index in range(info.batch_size):
            chosen = (x if dim is None else x.select(dim, index) for dim, x in zip(in_dims, tensors, strict=False))
            results.append(function(*chosen, option))
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])

    return rule


def folded(count: int, dims: Sequence[int | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors (B, ...), some mapped over a dimension of `count` entries -> (count · B, ...)."""
    return [
        (x.expand(count, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
        for dim, x in zip(dims, tensors, strict=True)
    ]


def unfolded(count: int, results: Any) -> Any:
    """Results (count · B, ...) as a vmap rule returns them: mapped over dimension 0, and that said of each."""
    if isinstance(results, Tensor):
        return results.unflatten(0, (count, results.shape[0] // count)), 0
    return tuple(unfolded(count, result)[0] for result in results), (0,) * len(results)
