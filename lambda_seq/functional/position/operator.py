"""A position lambda as a differentiable function: reverse and forward mode, `torch.func`, one operator an algorithm.

The output is linear in query, value, embedding and content lambda, each by itself, so its tangent is a sum of outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional.applying import apply, apply_backward
from lambda_seq.functional.operators import Operator, below_autograd, channels_first, without_autocast
from lambda_seq.functional.problem import Sizes, sized
from lambda_seq.functional.transforms import folded, looping, unfolded


class Passes(Protocol):
    """The two passes of `registry.Algorithm`."""

    fuses: bool

    @property
    def forward(self) -> Callable[..., Tensor]:
        """Output."""

    @property
    def backward(self) -> Callable[..., tuple[Tensor, ...]]:
        """Gradients."""


Choose = Callable[[Sizes, torch.device, torch.dtype, bool], Passes]

_TENSORS = "Tensor query, Tensor value, Tensor embedding"


class PositionOperator(Operator):
    """The operator `lambda_seq::name` of query, value, embedding and origin (index of offset 0 per dimension).

    Or, with content, of query, value, embedding, a content lambda (B, K, V) in float32 at least, and origin: the whole
    layer's output, q · (λᶜ + λᵖ). Algorithms that fuse write it once; to what others give it is added.

    Args:
        name: of the operator.
        choose: sizes, device, dtype, whether backward -> the algorithm to run. Asked, and the embedding clipped, when
            the operator runs, so that a recorded program is right at every size that its embedding covers.
        content: whether a content lambda is added.
    """

    def __init__(self, name: str, choose: Choose, content: bool = False) -> None:
        def forward(query: Tensor, value: Tensor, embedding: Tensor, *others: Any) -> Tensor:
            *lambdas, origin = others
            embedding, sizes = sized(query, value, embedding, origin)
            sizes = sizes._replace(content=content)
            algorithm = choose(sizes, query.device, query.dtype, False)
            with without_autocast(query.device), below_autograd():
                if algorithm.fuses:
                    return algorithm.forward(query, value, embedding, sizes, *lambdas)
                output = algorithm.forward(query, value, embedding, sizes)
                return apply(query, lambdas[0], output) if content else output

        def backward(grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, *others: Any) -> tuple[Tensor, ...]:
            *lambdas, origin = others
            seen, sizes = sized(query, value, embedding, origin)
            sizes = sizes._replace(content=content)
            algorithm = choose(sizes, query.device, query.dtype, True)
            with without_autocast(query.device), below_autograd():
                given = lambdas if algorithm.fuses else []
                found = algorithm.backward(grad, query, value, seen, sizes, *given)
                grad_query, grad_value, grad_embedding, *grad_lambdas = found
                if lambdas and not given:
                    grad_query, *grad_lambdas = apply_backward(grad, query, lambdas[0], grad_query)
            if seen.shape != embedding.shape:  # offsets that no pair of positions has
                padding = []
                for axis in (1, 0):
                    before = origin[axis] - sizes.origin[axis]
                    padding += [before, embedding.shape[2 + axis] - seen.shape[2 + axis] - before]
                grad_embedding = F.pad(grad_embedding, padding)
            return grad_query, grad_value, grad_embedding, *grad_lambdas

        count = 4 if content else 3
        inputs = _TENSORS + (", Tensor content" if content else "")
        arguments = f"{inputs}, int[] origin"
        super().__init__(
            name,
            forward,
            backward,
            f"({arguments}) -> Tensor",
            f"(Tensor grad, {arguments}) -> ({', '.join(['Tensor'] * count)})",
            fakes=(_fake, _fake_backward),
            tensors=count,
            tangent=_tangent,
            # Gradients not in one batch, as those of the embedding are sums over it
            mapped=(_folding_unless_embeddings, looping),
            exported=f"({inputs}, SymInt[] origin) -> Tensor",
        )


def _fake(query: Tensor, value: Tensor, *others: Any) -> Tensor:
    batch, heads, rows, columns, _ = query.shape
    return channels_first(query.new_empty(batch, rows, columns, heads, value.shape[-1]))


def _fake_backward(grad: Tensor, query: Tensor, value: Tensor, *others: Any) -> tuple[Tensor, ...]:
    query, value = (tensor.permute(0, 2, 3, 1, 4) for tensor in (query, value))
    return (
        channels_first(query.new_empty(query.shape)),
        channels_first(value.new_empty(value.shape)),
        *(tensor.new_empty(tensor.shape) for tensor in others[:-1]),
    )


def _tangent(
    function: Callable[..., Any], inputs: Sequence[Tensor], tangents: Sequence[Tensor | None], origin: Sequence[int]
) -> Any:
    total: Any = 0
    for index, tangent in enumerate(tangents):
        if tangent is not None:
            tensors = [*inputs[:index], tangent, *inputs[index + 1 :]]
            if len(inputs) > 3 and index:  # the other part of the sum does not depend on this input
                other = 1 if index == 3 else 3
                tensors[other] = torch.zeros_like(tensors[other])
            total = total + function(*tensors, origin)
    return total


def _folding_unless_embeddings(function: Callable[..., Any]) -> Callable[..., Any]:
    """The vmap rule: one batch, unless entries have embeddings of their own."""

    def rule(info: Any, in_dims: Any, *inputs: Any) -> Any:
        if in_dims[2] is not None:
            return looping(function)(info, in_dims, *inputs)
        *tensors, origin = inputs
        embedding, dims = tensors.pop(2), (*in_dims[:2], *in_dims[3:-1])
        query, value, *lambdas = folded(info.batch_size, dims, tensors)
        return unfolded(info.batch_size, function(query, value, embedding, *lambdas, origin))

    return rule
