"""Collectives with gradients for the processes that share a sequence, and the one place that counts their bytes.

Gradients are those of the sum of all processes' losses, as with `torch.distributed.nn.functional`: what one process
computes from another's numbers is sent back to where they came from. Its functions are not used, as they neither take
pieces of unequal size nor let the bytes of a backward pass be counted. Gradients cannot be differentiated again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass
class Traffic:
    """Bytes that this process has sent to others, by collective, as rings of point-to-point messages send them.

    "all_reduce" of b bytes over P processes: 2 · b · (P − 1) / P; "all_gather": b · (P − 1); "all_to_all": what is for
    others. A backend may do with less, by multicast, or take more, by another algorithm.
    """

    sent: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Bytes of all collectives together."""
        return sum(self.sent.values())


_COUNTING: list[Traffic] = []


@contextmanager
def count_traffic() -> Iterator[Traffic]:
    """Count what this process sends inside, backward passes included."""
    traffic = Traffic()
    _COUNTING.append(traffic)
    try:
        yield traffic
    finally:
        _COUNTING.remove(traffic)


def _count(collective: str, sent: int) -> None:
    for traffic in _COUNTING:
        traffic.sent[collective] += sent


def _all_reduce(x: Tensor, group: dist.ProcessGroup, op: Any) -> Tensor:
    x = x.detach().clone(memory_format=torch.contiguous_format)
    ranks = group.size()
    _count("all_reduce", 2 * x.nbytes * (ranks - 1) // ranks)
    dist.all_reduce(x, op, group)
    return x


def _all_gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    gathered = x.new_empty(group.size(), *x.shape)
    _count("all_gather", x.nbytes * (group.size() - 1))
    dist.all_gather(list(gathered.unbind(0)), x.contiguous(), group)
    return gathered


def _all_to_all(x: Tensor, send: Sequence[int], receive: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    received = x.new_empty(sum(receive))
    _count("all_to_all", (sum(send) - send[group.rank()]) * x.element_size())
    dist.all_to_all_single(received, x.contiguous(), list(receive), list(send), group)
    return received


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _all_reduce(x, group, dist.ReduceOp.SUM)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _all_reduce(grad, ctx.group, dist.ReduceOp.SUM), None


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _all_gather(x, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        sizes = [grad[0].numel()] * len(grad)
        return _all_to_all(grad.flatten(), sizes, sizes, ctx.group).view(grad.shape).sum(0), None


class _Exchanged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, send: Sequence[int], receive: Sequence[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sizes, ctx.group = (send, receive), group
        return _all_to_all(x, send, receive, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        send, receive = ctx.sizes
        return _all_to_all(grad, receive, send, ctx.group), None, None, None


def total(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum over all processes, on each of them."""
    return _Total.apply(x, group)


def greatest(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The elementwise maximum over all processes, on each of them; without a gradient."""
    return _all_reduce(x, group, dist.ReduceOp.MAX)


def gathered(x: Float[Tensor, "*A"], group: dist.ProcessGroup) -> Float[Tensor, "P *A"]:
    """The tensors of all processes, which have one shape, on each of them."""
    return _Gathered.apply(x, group)


def exchanged(pieces: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], group: dist.ProcessGroup) -> list[Tensor]:
    """Send a piece to each process, and receive one of each.

    Args:
        pieces: for each process, of any shapes, and empty where it gets nothing.
        shapes: of what each process sends here.
        group: the processes.
    """
    send = [piece.numel() for piece in pieces]
    receive = [torch.Size(shape).numel() for shape in shapes]
    flat = torch.cat([piece.flatten() for piece in pieces])
    received = _Exchanged.apply(flat, send, receive, group).split(receive)
    return [part.view(shape) for part, shape in zip(received, shapes, strict=True)]
