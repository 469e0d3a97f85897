"""A position lambda as a differentiable function: reverse and forward mode, `torch.func`, one operator an algorithm.

The output is linear in query, value and embedding, each by itself, so its tangent is the sum of three outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional.operators import Operator, below_autograd, channels_first, without_autocast
from lambda_seq.functional.problem import Sizes, sized
from lambda_seq.functional.transforms import folded, looping, unfolded


class Passes(Protocol):
    """The two passes of `registry.Algorithm`."""

    @property
    def forward(self) -> Callable[[Tensor, Tensor, Tensor, Sizes], Tensor]:
        """Output."""

    @property
    def backward(self) -> Callable[[Tensor, Tensor, Tensor, Tensor, Sizes], tuple[Tensor, Tensor, Tensor]]:
        """Gradients."""


Choose = Callable[[Sizes, torch.device, torch.dtype, bool], Passes]

_ARGUMENTS = "Tensor query, Tensor value, Tensor embedding, int[] origin"


class PositionOperator(Operator):
    """The operator `lambda_seq::name` of query, value, embedding and origin (index of offset 0 per dimension).

    Args:
        name: of the operator.
        choose: sizes, device, dtype, whether backward -> the algorithm to run. Asked, and the embedding clipped, when
            the operator runs, so that a recorded program is right at every size that its embedding covers.
    """

    def __init__(self, name: str, choose: Choose) -> None:
        def forward(query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> Tensor:
            embedding, sizes = sized(query, value, embedding, origin)
            algorithm = choose(sizes, query.device, query.dtype, False)
            with without_autocast(query.device), below_autograd():
                return algorithm.forward(query, value, embedding, sizes)

        def backward(
            grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]
        ) -> tuple[Tensor, Tensor, Tensor]:
            seen, sizes = sized(query, value, embedding, origin)
            algorithm = choose(sizes, query.device, query.dtype, True)
            with without_autocast(query.device), below_autograd():
                grad_query, grad_value, grad_embedding = algorithm.backward(grad, query, value, seen, sizes)
            if seen.shape != embedding.shape:  # offsets that no pair of positions has
                padding = []
                for axis in (1, 0):
                    before = origin[axis] - sizes.origin[axis]
                    padding += [before, embedding.shape[2 + axis] - seen.shape[2 + axis] - before]
                grad_embedding = F.pad(grad_embedding, padding)
            return grad_query, grad_value, grad_embedding

        super().__init__(
            name,
            forward,
            backward,
            f"({_ARGUMENTS}) -> Tensor",
            f"(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
            fakes=(_fake, _fake_backward),
            tensors=3,
            tangent=_tangent,
            # Gradients not in one batch, as those of the embedding are sums over it
            mapped=(_folding_unless_embeddings, looping),
        )


def _fake(query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> Tensor:
    batch, heads, rows, columns, _ = query.shape
    return channels_first(query.new_empty(batch, rows, columns, heads, value.shape[-1]))


def _fake_backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    query, value = (tensor.permute(0, 2, 3, 1, 4) for tensor in (query, value))
    return (
        channels_first(query.new_empty(query.shape)),
        channels_first(value.new_empty(value.shape)),
        embedding.new_empty(embedding.shape),
    )


def _tangent(
    function: Callable[..., Any], inputs: Sequence[Tensor], tangents: Sequence[Tensor | None], origin: Sequence[int]
) -> Any:
    return sum(
        function(*inputs[:index], tangent, *inputs[index + 1 :], origin)
        for index, tangent in enumerate(tangents)
        if tangent is not None
    )


def _folding_unless_embeddings(function: Callable[..., Any]) -> Callable[..., Any]:
    """The vmap rule: one batch, unless entries have embeddings of their own."""

    def rule(info: Any, in_dims: Any, query: Tensor, value: Tensor, embedding: Tensor, origin: Any) -> Any:
        if in_dims[2] is not None:
            return looping(function)(info, in_dims, query, value, embedding, origin)
        query, value = folded(info.batch_size, in_dims[:2], (query, value))
        return unfolded(info.batch_size, function(query, value, embedding, origin))

    return rule
