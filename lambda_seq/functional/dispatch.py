"""`lambda_layer`: one function, several algorithms, one result."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from lambda_seq.functional import naive
from lambda_seq.functional.problem import Problem

ALGORITHMS = ("auto", "naive")


def lambda_layer(
    query: Float[Tensor, "B H *N K"],
    key: Float[Tensor, "B U *N K"] | None,
    value: Float[Tensor, "B U *N V"],
    embedding: Float[Tensor, "U K *R"] | None,
    *,
    mask: Bool[Tensor, "B *N"] | None = None,
    causal: bool = False,
    key_norm: str = "softmax",
    algorithm: str = "auto",
) -> Float[Tensor, "B H *N V"]:
    """y_n^h = (λᶜ + λᵖ_n)ᵀ q_n^h."""
    Problem.of(query, key, value, embedding, mask, causal, key_norm)
    return naive.lambda_layer(query, key, value, embedding, mask=mask, causal=causal, key_norm=key_norm)
