"""Sums over all positions, of which the content lambda is made, as Triton kernels: read once, parts at a time.

For GPUs. See `kernels/content.py` for how it is computed.
"""

from __future__ import annotations

from torch import Tensor

from lambda_seq.functional.chunks import finite
from lambda_seq.functional.launching import applies, launch, shares
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.summaries import SUMMARIES, Summary, greatest, sizes_of
from lambda_seq.functional.summing import constants, laid_out, summed_up, tiles
from lambda_seq.functional.work import Work

SPREAD = 2**11  # keys times values of a tile of a program that writes gradients, at most
SHARE = 16  # tiles of a program that writes gradients


def forward(key: Tensor, value: Tensor, key_norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """S, D and a; arguments as in `summaries.Summary`."""
    s = sizes_of(key, value)
    parts, share = shares(s.B * s.U, -(-s.X // tiles(s.K, s.V).rows))
    sums, norms, tops = summed_up(laid_out(key), laid_out(value), key_norm, share, parts)
    top = tops.amax(2, keepdim=True)  # (B, U, 1, K)
    if key_norm != "softmax":
        return sums.sum(2), norms.sum(2, keepdim=True), top
    shrink = (tops - finite(top)).exp()  # (B, U, P, K)
    return (sums * shrink[..., None]).sum(2), (norms * shrink).sum(2, keepdim=True), top


def backward(
    grad_sums: Tensor, grad_norm: Tensor, _: Tensor, key: Tensor, value: Tensor, key_norm: str
) -> tuple[Tensor, Tensor]:
    """Gradients of key and value, in one kernel that computes the weights again."""
    from lambda_seq.functional.kernels import content

    s = sizes_of(key, value)
    t = tiles(s.K, s.V)
    key, value = laid_out(key), laid_out(value)
    top = greatest(key.transpose(1, 2)).float() if key_norm == "softmax" else grad_norm
    grad_key, grad_value = key.new_empty(key.shape), value.new_empty(value.shape)
    count = -(-s.X // t.rows)
    parts = -(-count // SHARE)
    launch(
        content.spread,
        s.B * s.U * parts,
        (key, value, grad_sums.contiguous(), grad_norm.contiguous(), top.contiguous(), grad_key, grad_value),
        (s.U, s.K, s.V, s.X, count, SHARE, parts),
        **(constants(t, key_norm) | {"VP": min(t.values, SPREAD // t.keys)}),
    )
    return grad_key.transpose(1, 2), grad_value.transpose(1, 2)


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work, and floats of temporaries; with the backward pass or without.

    Products are those of whole tiles. What parts have read counts once.
    """
    t = tiles(s.K, s.V)
    blocks = -(-s.X // t.rows)
    product = s.B * s.U * blocks * t.rows * t.keys * t.values
    keys, values = s.N * s.U * s.K, s.N * s.U * s.V
    parts, _ = shares(s.B * s.U, blocks)
    sums = s.B * s.U * parts * s.K * (s.V + 2)
    work = Work(products=product, streamed=keys + values + 3 * sums, calls=8)
    if not backward:
        return work, float(2 * sums)
    return work + Work(products=2 * product, streamed=3 * keys + 2 * values, calls=6), float(2 * sums)


SUMMARIES.register(
    Summary("triton_content", "a split reduction as Triton kernels, on GPUs", forward, backward, count, applies, False)
)
