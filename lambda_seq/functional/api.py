"""`lambda_layer`: one function, several algorithms, one result."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lambda_seq.functional import reference as naive
from lambda_seq.functional.calibration import kernels
from lambda_seq.functional.content import content, of_all
from lambda_seq.functional.plan import fastest
from lambda_seq.functional.position.operator import PositionOperator
from lambda_seq.functional.position.registry import ALGORITHMS, REGISTRY
from lambda_seq.functional.problem import Problem, as_image, as_sequence

# "auto" is an operator too: it chooses when it runs, so that compiled and exported programs choose for what they get.
AUTO = PositionOperator("position", fastest)
AUTO_WITH_CONTENT = PositionOperator("layer", fastest, content=True)


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
    """The lambda layer between its projections: y_n^h = (λᶜ + λᵖ_n)ᵀ q_n^h (Bello 2021, equations 1–3).

        λᶜ = Σ_u K̄_uᵀ V_u                    content: keys normalised over the positions that a query may see
        λᵖ_n = Σ_u Σ_m R_u[m − n] V_um        position: R by context offset, zero outside its scope

    Exact, forward and backward, in memory linear in N, whichever algorithm computes it.

    Args:
        query: (B, H, *N, K), N one dimension (sequences) or two (images).
        key: (B, U, *N, K) logits, normalised here; None for position only.
        value: (B, U, *N, V).
        embedding: (U, K, *R), R odd and centred: index j is context offset m − n = j − (R − 1) / 2; causal: any R,
            m − n = j − (R − 1). None for content only.
        mask: (B, *N), True at real positions. Others add nothing, whatever stands there, NaN included, and their
            outputs are zeros.
        causal: position n sees m ≤ n only (1D).
        key_norm: "softmax", "l2" or "none", over the visible positions, each channel of each u on its own.
        algorithm: "auto" takes what `plan` finds fastest; "naive" is the definition, in memory n · m · k; the others
            are ways to compute the position lambda.

    Returns:
        (B, H, *N, V), of the query's dtype. Gradients of it cannot be differentiated again, except naive's.

    Raises:
        TypeError: not tensors, or dtypes that differ.
        ValueError: shapes or options that do not fit, named with what would; or `torch.jit.trace` of an embedding that
            is made for inputs of this very size, as a trace would keep it for all sizes; or an algorithm that does
            not apply to these sizes, dtype or device, with the reason.
    """
    problem = Problem.of(query, key, value, embedding, mask, causal, key_norm)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm={algorithm!r}: expected one of {', '.join(map(repr, ALGORITHMS))}")
    if problem.empty:
        return _nothing(query, key, value, embedding)
    if torch.jit.is_tracing() and embedding is not None:
        _check_trace(embedding, problem)
    if mask is not None:  # what stands at padding may be NaN, which stays one when it is multiplied by zero
        query, value = (part.masked_fill(~mask[:, None, ..., None], 0) for part in (query, value))
    if algorithm == "naive":
        return naive.lambda_layer(query, key, value, embedding, mask=mask, causal=causal, key_norm=key_norm)
    if problem.dims == 1:
        query, value = as_image(query), as_image(value)
        key = None if key is None else as_image(key)
        embedding = None if embedding is None else as_image(embedding)
        mask = None if mask is None else mask.unsqueeze(1)
    if key is not None and embedding is not None and not causal and _in_one_pass(algorithm, query):
        operator = AUTO_WITH_CONTENT if algorithm == "auto" else REGISTRY[algorithm].operator_with_content
        tensors = query, value, embedding, of_all(key, value, mask, key_norm)
        output = operator.entry(*tensors)(*tensors, problem.origin)
        return as_sequence(output) if problem.dims == 1 else output
    output = None
    if embedding is not None:
        operator = AUTO if algorithm == "auto" else REGISTRY[algorithm].operator
        output = operator.entry(query, value, embedding)(query, value, embedding, problem.origin)
    if key is not None:
        output = content(query, key, value, mask, causal, key_norm, output)
    assert output is not None  # `Problem.of` has seen to it that there is a key or an embedding
    return as_sequence(output) if problem.dims == 1 else output


if lambda_layer.__doc__:  # not under python -OO
    _ways = "".join(f'\n            "{name}": {algorithm.summary}' for name, algorithm in REGISTRY.items())
    _end = "compute the position lambda."
    lambda_layer.__doc__ = lambda_layer.__doc__.replace(_end, f"{_end[:-1]}:{_ways}")


def _in_one_pass(algorithm: str, query: Tensor) -> bool:
    """Whether an algorithm that fuses may be taken; in a program that is recorded for a GPU, "auto" asks as it runs."""
    if algorithm != "auto":
        return REGISTRY[algorithm].fuses
    if torch.compiler.is_compiling():
        return query.device.type != "cpu"
    return any(REGISTRY[name].fuses for name in REGISTRY.keys() & kernels(query.device, query.dtype))


def _nothing(query: Tensor, key: Tensor | None, value: Tensor, embedding: Tensor | None) -> Tensor:
    """The output, (B, H, *N, V), of no positions or no batch, through which all inputs get gradients of zero."""
    output = torch.einsum("bh...k,bu...v->bh...v", query, value)
    for others in (key, embedding):
        if others is not None:
            output = output + others.sum() * 0
    return output


def _check_trace(embedding: Tensor, problem: Problem) -> None:
    """Raise ValueError for an embedding that has just the offsets of these inputs: it stems from their size."""
    for taps, length in zip(embedding.shape[2:], problem.size, strict=True):
        if int(taps) == (int(length) if problem.causal else 2 * int(length) - 1):
            raise ValueError(
                f"embedding has shape {tuple(map(int, embedding.shape))}, just the offsets of inputs of size "
                f"{tuple(map(int, problem.size))}: torch.jit.trace would keep it for inputs of all sizes, and be "
                "wrong; use torch.export or torch.compile, or, for a local scope, trace with a longer input"
            )
