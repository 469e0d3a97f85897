"""Each algorithm as one operator: autograd, autocast, `torch.compile` and `torch.export` see a single node.

The backward pass is an operator of its own that recomputes what it needs, so that only the inputs are saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

# Arguments and results: see `position_operator`.
PositionForward = Callable[[Tensor, Tensor, Tensor, Sequence[int]], Tensor]
PositionBackward = Callable[[Tensor, Tensor, Tensor, Tensor, Sequence[int]], tuple[Tensor, Tensor, Tensor]]


def compute_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype to compute in: float32 for half precision on a CPU, which has no fast half precision products."""
    if device.type == "cpu" and dtype in (torch.bfloat16, torch.float16):
        return torch.float32
    return dtype


def chunk_floats(most: int, results: int) -> int:
    """Floats that the largest temporary of one chunk may hold.

    Args:
        most: what stays in cache; measured.
        results: floats of the output, beside which temporaries shall be small.
    """
    return max(2**17, min(most, results // 4))


def channels_first(tensor: Tensor) -> Tensor:
    """(B, Y, X, C, D) -> (B, C, Y, X, D), a view: how results and gradients lie in memory."""
    return tensor.permute(0, 3, 1, 2, 4)


def channels_last(tensor: Tensor) -> Tensor:
    """(B, C, Y, X, D) -> (B, Y, X, C, D), contiguous; without a copy for what the layers make."""
    return tensor.permute(0, 2, 3, 1, 4).contiguous()


def multiply_into(target: Tensor, left: Tensor, right: Tensor) -> None:
    """target = left @ right for matrices or batches of them, target of any shape; without a copy where it can be."""
    if target.is_contiguous() and target.dtype == left.dtype:
        torch.matmul(left, right, out=target.view(*left.shape[:-1], right.shape[-1]))
    else:
        target.copy_((left @ right).view(target.shape))


def position_operator(name: str, forward: PositionForward, backward: PositionBackward) -> PositionForward:
    """Register a position algorithm as `lambda_seq::name`, and its backward as `lambda_seq::name_backward`.

    Args:
        name: of the operator.
        forward: query (B, H, Y, X, K), value (B, U, Y, X, V), embedding (U, K, RY, RX), origin (index of offset 0 per
            dimension) -> output (B, H, Y, X, V), laid out in memory as (B, Y, X, H, V).
        backward: gradient of the output, then forward's arguments -> gradients of query, value (laid out like the
            output) and embedding (contiguous).
    """
    arguments = "Tensor query, Tensor value, Tensor embedding, int[] origin"
    forward_op = torch.library.custom_op(
        f"lambda_seq::{name}", exactly(forward), mutates_args=(), schema=f"({arguments}) -> Tensor"
    )
    backward_op = torch.library.custom_op(
        f"lambda_seq::{name}_backward",
        exactly(backward),
        mutates_args=(),
        schema=f"(Tensor grad, {arguments}) -> (Tensor, Tensor, Tensor)",
    )

    @forward_op.register_fake
    def _(query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> Tensor:
        batch, heads, rows, columns, _ = query.shape
        return channels_first(query.new_empty(batch, rows, columns, heads, value.shape[-1]))

    @backward_op.register_fake
    def _(
        grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        query, value = (tensor.permute(0, 2, 3, 1, 4) for tensor in (query, value))
        return (
            channels_first(query.new_empty(query.shape)),
            channels_first(value.new_empty(value.shape)),
            embedding.new_empty(embedding.shape),
        )

    register_gradient(forward_op, backward_op, tensors=3)
    return forward_op


def register_gradient(forward_op: Any, backward_op: Any, tensors: int) -> None:
    """Let `backward_op(grad, *inputs)` be the gradient of `forward_op(*inputs)`, whose first inputs are tensors."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.options = inputs[tensors:]

    def gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*backward_op(grad, *ctx.saved_tensors, *ctx.options), *[None] * len(ctx.options))

    def second(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(
            "the gradient of a lambda layer cannot be differentiated again: its algorithms have backward passes of "
            "their own; use algorithm='naive' for second derivatives"
        )

    forward_op.register_autograd(gradient, setup_context=setup_context)
    backward_op.register_autograd(second)


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Autocast off: the algorithms say themselves what is computed in which precision."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # the meta device, for one


def exactly(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, run without autocast."""

    def run(*arguments: Any) -> Any:
        with without_autocast(arguments[0].device):
            return function(*arguments)

    return run
