"""Random lambda layer problems for the tests of `lambda_seq.functional`."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lambda_seq import functional as LF


@dataclass
class Inputs:
    """Arguments of `lambda_layer`, and a cotangent for its output that is zero at masked positions."""

    query: Tensor
    key: Tensor | None
    value: Tensor
    embedding: Tensor | None
    mask: Tensor | None
    grad: Tensor
    options: dict = field(default_factory=dict)

    def run(self, algorithm: str) -> Tensor:
        """The output, zero at masked positions, which are not part of the contract."""
        output = LF.lambda_layer(
            self.query, self.key, self.value, self.embedding, mask=self.mask, algorithm=algorithm, **self.options
        )
        return output if self.mask is None else output * self.mask[:, None, ..., None]

    def run_with_gradients(self, algorithm: str) -> dict[str, Tensor]:
        """Output and gradients by name."""
        output = self.run(algorithm)
        named = {"query": self.query, "key": self.key, "value": self.value, "embedding": self.embedding}
        present = {name: tensor for name, tensor in named.items() if tensor is not None}
        gradients = torch.autograd.grad(output, list(present.values()), self.grad)
        return {"output": output.detach(), **dict(zip(present, gradients, strict=True))}


def make(
    size: tuple[int, ...],
    scope: tuple[int, ...] | None,
    *,
    batch: int = 2,
    heads: int = 3,
    intra: int = 1,
    dim_key: int = 4,
    dim_value: int = 5,
    content: bool = True,
    causal: bool = False,
    key_norm: str = "softmax",
    hidden: float = 0.0,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Inputs:
    """Random inputs; `hidden` is the share of masked positions, `scale` the size of the key logits."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64).to(dtype).requires_grad_()

    mask = torch.rand(batch, *size) >= hidden if hidden else None
    grad = torch.randn(batch, heads, *size, dim_value, dtype=torch.float64).to(dtype)
    return Inputs(
        query=randn(batch, heads, *size, dim_key),
        key=(scale * randn(batch, intra, *size, dim_key)).detach().requires_grad_() if content else None,
        value=randn(batch, intra, *size, dim_value),
        embedding=None if scope is None else randn(intra, dim_key, *scope),
        mask=mask,
        grad=grad if mask is None else grad * mask[:, None, ..., None],
        options={"causal": causal, "key_norm": key_norm},
    )
