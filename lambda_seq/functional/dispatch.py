"""`lambda_layer`: one function, several algorithms, one result."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from lambda_seq.functional import banded, convolution, dense, fft, naive, toeplitz
from lambda_seq.functional.content import content
from lambda_seq.functional.operators import position_operator
from lambda_seq.functional.plan import Sizes, fastest
from lambda_seq.functional.problem import Problem

_MODULES = {"banded": banded, "dense": dense, "toeplitz": toeplitz, "convolution": convolution, "fft": fft}


def _auto_forward(query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> Tensor:
    sizes = Sizes.of_tensors(query, value, embedding, origin)
    module = _MODULES[fastest(sizes, query.device, query.dtype, backward=False)]
    return module.forward(query, value, embedding, origin)


def _auto_backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    sizes = Sizes.of_tensors(query, value, embedding, origin)
    module = _MODULES[fastest(sizes, query.device, query.dtype, backward=True)]
    return module.backward(grad, query, value, embedding, origin)


# "auto" is an operator too: it chooses when it runs, so that compiled and exported programs choose for what they get.
POSITION = {
    **{name: position_operator(name, module.forward, module.backward) for name, module in _MODULES.items()},
    "auto": position_operator("position", _auto_forward, _auto_backward),
}
ALGORITHMS = ("auto", "naive", *_MODULES)


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
        mask: (B, *N), True at real positions. Others add nothing; a row without real positions gives zeros.
        causal: position n sees m ≤ n only (1D).
        key_norm: "softmax", "l2" or "none", over the visible positions, each channel of each u on its own.
        algorithm: "auto" takes what `plan` finds fastest; "naive" is the definition, in memory n · m · k;
            "banded", "dense", "toeplitz", "convolution" and "fft" are ways to compute the position lambda.

    Returns:
        (B, H, *N, V), of the query's dtype. Gradients of it cannot be differentiated again, except naive's.

    Raises:
        TypeError: not tensors, or dtypes that differ.
        ValueError: shapes or options that do not fit, named with what would.
    """
    problem = Problem.of(query, key, value, embedding, mask, causal, key_norm)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm={algorithm!r}: expected one of {', '.join(map(repr, ALGORITHMS))}")
    if algorithm == "naive":
        return naive.lambda_layer(query, key, value, embedding, mask=mask, causal=causal, key_norm=key_norm)
    if mask is not None:
        value = value.masked_fill(~mask[:, None, ..., None], 0)
    if len(problem.size) == 1:  # a sequence is an image of one row
        query, value = query.unsqueeze(2), value.unsqueeze(2)
        key = None if key is None else key.unsqueeze(2)
        embedding = None if embedding is None else embedding.unsqueeze(2)
        mask = None if mask is None else mask.unsqueeze(1)
    position = None
    if embedding is not None:
        embedding, origin = clip(embedding, problem)
        position = POSITION[algorithm](query, value, embedding, origin)
    output = position if key is None else content(query, key, value, mask, causal, key_norm, position)
    assert output is not None  # `Problem.of` has seen to it that there is a key or an embedding
    return output.squeeze(2) if len(problem.size) == 1 else output


def clip(embedding: Float[Tensor, "U K RY RX"], problem: Problem) -> tuple[Float[Tensor, "U K RY RX"], list[int]]:
    """Drop the offsets that no pair of positions has; return what is left and its index of offset 0 per dimension."""
    rows, columns = problem.size if len(problem.size) == 2 else (1, *problem.size)
    origin = []
    for axis, length in ((2, rows), (3, columns)):
        taps = embedding.shape[axis]
        if problem.causal and axis == 3:
            keep = min(taps, length)
            embedding = embedding.narrow(axis, taps - keep, keep)
            origin.append(keep - 1)
        else:
            keep = min(taps, 2 * length - 1)
            embedding = embedding.narrow(axis, (taps - keep) // 2, keep)
            origin.append((keep - 1) // 2)
    return embedding, origin
