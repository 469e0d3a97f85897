"""Random lambda layer problems for the tests of `lambda_seq.functional`, and the cases all algorithms are held to."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from lambda_seq import functional as LF
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import Problem

# What `algorithm=` may be on every device and in every dtype; kernels have tests of their own
EVERYWHERE = ["auto", "naive", *(name for name, algorithm in REGISTRY.items() if algorithm.trusted)]


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
        """The output, zero at masked positions, which are not part of the contract; skips what does not apply here."""
        if algorithm in REGISTRY and self.embedding is not None:
            problem = Problem.of(self.query, self.key, self.value, self.embedding, self.mask, **self.options)
            reason = REGISTRY[algorithm].supports(problem.sizes, problem.device, problem.dtype)
            if reason is not None:
                pytest.skip(f"{algorithm}: {reason}")
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
    device: torch.device | str = "cpu",
) -> Inputs:
    """Random inputs; `hidden` is the share of masked positions, `scale` the size of the key logits."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64).to(device, dtype).requires_grad_()

    mask = (torch.rand(batch, *size) >= hidden).to(device) if hidden else None
    grad = torch.randn(batch, heads, *size, dim_value, dtype=torch.float64).to(device, dtype)
    return Inputs(
        query=randn(batch, heads, *size, dim_key),
        key=(scale * randn(batch, intra, *size, dim_key)).detach().requires_grad_() if content else None,
        value=randn(batch, intra, *size, dim_value),
        embedding=None if scope is None else randn(intra, dim_key, *scope),
        mask=mask,
        grad=grad if mask is None else grad * mask[:, None, ..., None],
        options={"causal": causal, "key_norm": key_norm},
    )


# In which every algorithm is compared with the definition
CASES = {
    "odd length": {"size": (37,), "scope": (7,)},
    "one block and a bit": {"size": (33,), "scope": (31,), "dim_value": 3},
    "intra-depth": {"size": (21,), "scope": (5,), "intra": 3},
    "wider than the input": {"size": (11,), "scope": (41,)},
    "global": {"size": (26,), "scope": (51,), "batch": 3},
    "length 1, batch 1": {"size": (1,), "scope": (3,), "batch": 1},
    "scope 1": {"size": (9,), "scope": (1,)},
    "masked": {"size": (29,), "scope": (9,), "hidden": 0.4},
    "masked l2": {"size": (13,), "scope": (3,), "hidden": 0.4, "key_norm": "l2"},
    "not normalised": {"size": (13,), "scope": (3,), "key_norm": "none"},
    "causal": {"size": (27,), "scope": (6,), "causal": True},
    "causal, wider than the input, masked": {"size": (15,), "scope": (20,), "causal": True, "hidden": 0.4},
    "causal, intra-depth": {"size": (15,), "scope": (15,), "causal": True, "intra": 2},
    "causal l2": {"size": (15,), "scope": (3,), "causal": True, "key_norm": "l2", "hidden": 0.3},
    "causal, not normalised": {"size": (15,), "scope": (3,), "causal": True, "key_norm": "none"},
    "longer than one chunk of the scan": {"size": (300,), "scope": (3,), "causal": True, "hidden": 0.2},
    "image": {"size": (9, 7), "scope": (3, 5)},
    "image, intra-depth, masked": {"size": (6, 11), "scope": (5, 3), "intra": 2, "hidden": 0.4},
    "image, wider than the input": {"size": (4, 5), "scope": (23, 23), "batch": 3},
    "image, global": {"size": (5, 6), "scope": (9, 11)},
    "image of one column": {"size": (12, 1), "scope": (5, 3)},
    "content only": {"size": (19,), "scope": None},
    "content only, causal": {"size": (140,), "scope": None, "causal": True, "scale": 30.0},
    "position only": {"size": (19,), "scope": (5,), "content": False, "hidden": 0.3},
}


def relative(found: Tensor, expected: Tensor) -> float:
    """The greatest error, relative to the greatest of what is expected."""
    difference = (found.double() - expected.double()).abs().max()
    return (difference / expected.double().abs().max().clamp_min(1e-300)).item()
