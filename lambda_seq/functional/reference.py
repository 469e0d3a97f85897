"""The lambda layer as it is defined: one einsum a line, everything materialised. The twin of every algorithm.

B. I. Bello, "LambdaNetworks: Modeling Long-Range Interactions Without Attention", ICLR 2021, section 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def lambda_layer(
    query: Float[Tensor, "B H *N K"],
    key: Float[Tensor, "B U *N K"] | None,
    value: Float[Tensor, "B U *N V"],
    embedding: Float[Tensor, "U K *R"] | None,
    *,
    mask: Bool[Tensor, "B *N"] | None = None,
    causal: bool = False,
    key_norm: str = "softmax",
) -> Float[Tensor, "B H *N V"]:
    """y_n = (λᶜ + λᵖ_n)ᵀ q_n, with every lambda written out (n × k × v) and every embedding gathered (n × m × k)."""
    output = query.new_zeros(*query.shape[:-1], value.shape[-1])
    if key is not None:
        output = output + content(query, key, value, mask, causal, key_norm)
    if embedding is not None:
        output = output + position(query, value, embedding, mask, causal)
    return output


def content(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, key_norm: str
) -> Float[Tensor, "B H *N V"]:
    """λᶜ_n = Σ_u K̄_uᵀ V_u, keys normalised over the context positions that the query may see."""
    size = query.shape[2:-1]
    query, key, value = (tensor.flatten(2, -2) for tensor in (query, key, value))  # (B, ·, M, ·)
    visible = _visible(query, mask, causal)  # (B, N or 1, M): one row serves all queries unless causal
    normalised = normalise(key[:, :, None], visible[:, None, :, :, None], key_norm)  # (B, U, N or 1, M, K)
    lambdas = torch.einsum("bunmk,bumv->bnkv", normalised, value).expand(-1, query.shape[2], -1, -1)
    return torch.einsum("bnkv,bhnk->bhnv", lambdas, query).unflatten(2, size)


def position(
    query: Tensor, value: Tensor, embedding: Tensor, mask: Tensor | None, causal: bool
) -> Float[Tensor, "B H *N V"]:
    """λᵖ_n = Σ_u Σ_m R_u[m − n] V_um, with R zero outside its scope."""
    size = query.shape[2:-1]
    gathered = gather(embedding, tuple(size), causal)  # (U, K, N, M)
    query, value = query.flatten(2, -2), value.flatten(2, -2)
    if mask is not None:
        value = value.masked_fill(~mask.flatten(1)[:, None, :, None], 0)
    lambdas = torch.einsum("uknm,bumv->bnkv", gathered, value)
    return torch.einsum("bnkv,bhnk->bhnv", lambdas, query).unflatten(2, size)


def normalise(key: Tensor, visible: Tensor, key_norm: str) -> Tensor:
    """Key logits -> K̄ over the positions (second to last dimension) that are visible; nothing visible gives zeros."""
    if key_norm == "softmax":
        return key.masked_fill(~visible, torch.finfo(key.dtype).min).softmax(-2) * visible
    key = torch.where(visible, key, 0)
    if key_norm == "l2":
        return key * inverse_root(key.square().sum(-2, keepdim=True))
    return key


def inverse_root(squares: Tensor) -> Tensor:
    """squares^-½; 1 where they are zero, so that all zero stays zero with a finite gradient."""
    return torch.where(squares > 0, squares, 1).rsqrt()


def gather(embedding: Float[Tensor, "U K *R"], size: tuple[int, ...], causal: bool) -> Float[Tensor, "U K N M"]:
    """E_nm = R[m − n] for all pairs of positions, zero where m − n lies outside the scope."""
    for dimension, length in enumerate(size):
        # (U, K, RY, RX) -> (U, K, Y, Y', RX) -> (U, K, Y, Y', X, X')
        axis = 2 + 2 * dimension
        taps = embedding.shape[axis]
        origin = taps - 1 if causal else (taps - 1) // 2
        place = torch.arange(length, device=embedding.device)
        index = place[None, :] - place[:, None] + origin  # (n, m) -> j
        inside = (index >= 0) & (index < taps)
        gathered = embedding.index_select(axis, index.clamp(0, taps - 1).flatten()).unflatten(axis, (length, length))
        embedding = gathered * inside.reshape(length, length, *[1] * (gathered.ndim - axis - 2))
    if len(size) == 2:
        embedding = embedding.permute(0, 1, 2, 4, 3, 5)  # (U, K, Y, X, Y', X')
    count = len(size)
    return embedding.flatten(2, 1 + count).flatten(3)


def _visible(query: Tensor, mask: Tensor | None, causal: bool) -> Bool[Tensor, "B N M"]:
    batch, _, count, _ = query.shape
    visible = torch.ones(count if causal else 1, count, dtype=torch.bool, device=query.device)
    if causal:
        visible = visible.tril()
    visible = visible.expand(batch, -1, -1)
    return visible if mask is None else visible & mask.flatten(1)[:, None, :]
