"""The position lambda of any length: a convolution for few offsets, Fourier transforms for many.

    λ_kv = Σ_u R_uk ⋆ V_uv          y^h_v = Σ_k q^h_k λ_kv

Some value channels are taken at a time, so that the n · k · v numbers of all lambdas never stand in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional.operators import compute_dtype
from lambda_seq.functional.plain.transform import Complex, Transform, multiply

TAPS = 256  # offsets up to which a convolution takes less time than the transforms do
LAMBDAS = 128  # pairs (k, v) that are computed together

Correlate = Callable[[Tensor], Tensor]


def position(query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> Tensor:
    """What a position operator gives, (B, H, Y, X, V); its arguments, all offsets of the embedding included.

    In float32 at least; transforms round by what is loudest in a sequence, about 1e-6 of that.
    """
    dtype = compute_dtype(query.dtype, query.device)
    queries = query.permute(0, 2, 3, 1, 4).to(dtype)  # (B, Y, X, H, K)
    values = value.permute(0, 4, 1, 2, 3).to(dtype)  # (B, V, U, Y, X)
    correlate = _correlation(embedding.to(dtype), values, origin)
    outputs = []
    for some in values.split(max(2, LAMBDAS // query.shape[-1]), 1):
        lambdas = correlate(some)  # (B, v, K, Y, X)
        outputs.append(queries @ lambdas.permute(0, 3, 4, 2, 1))  # (B, Y, X, H, v)
    return torch.cat(outputs, -1).to(query.dtype).permute(0, 3, 1, 2, 4)


def _correlation(embedding: Tensor, values: Tensor, origin: Sequence[int]) -> Correlate:
    """λ of values (b, v, U, Y, X), as (b, v, K, Y, X)."""
    rows, columns = embedding.shape[2:]
    few = isinstance(rows, int) and isinstance(columns, int) and rows * columns <= TAPS
    return (_by_convolution if few else _by_transform)(embedding, values, origin)


def _by_convolution(embedding: Tensor, values: Tensor, origin: Sequence[int]) -> Correlate:
    rows, columns = embedding.shape[2:]
    above, left = origin
    padding = (left, columns - 1 - left, above, rows - 1 - above)
    kernel = embedding.transpose(0, 1)  # (K, U, RY, RX)

    def correlate(some: Tensor) -> Tensor:
        padded = F.pad(some, padding).flatten(0, 1)  # (b·v, U, Y + RY − 1, X + RX − 1)
        return F.conv2d(padded, kernel).unflatten(0, some.shape[:2])

    return correlate


def _by_transform(embedding: Tensor, values: Tensor, origin: Sequence[int]) -> Correlate:
    """Two value channels are one complex signal; the kernel is real, so their lambdas come out side by side."""
    size, scope = values.shape[-2:], embedding.shape[2:]
    transform = Transform([_least(*one) for one in zip(size, scope, origin, strict=True)], embedding)
    # Σ_i R_i V[n + i − origin] is what the reversed kernel convolves to at n + (R − 1 − origin)
    first = [taps - 1 - index for taps, index in zip(scope, origin, strict=True)]
    kernel = transform.forward(_real(embedding.flip(-2, -1)))  # (U, K, F)

    def correlate(some: Tensor) -> Tensor:
        count = some.shape[1]
        half = (count + 1) // 2
        spectra = transform.forward((some[:, :half], F.pad(some[:, half:], (0,) * 7 + (2 * half - count,))))
        total: Complex | None = None
        for intra in range(embedding.shape[0]):
            values = spectra[0][:, :, intra, None], spectra[1][:, :, intra, None]  # (b, v / 2, 1, F)
            found = multiply(values, (kernel[0][intra], kernel[1][intra]))  # (b, v / 2, K, F)
            total = found if total is None else (total[0] + found[0], total[1] + found[1])
        assert total is not None
        lambdas = torch.cat(transform.inverse(total, first, size), 1)  # (b, v, K, Y, X)
        return lambdas[:, :count]

    return correlate


def _real(x: Tensor) -> Complex:
    return x, torch.zeros_like(x)


def _least(length: int, taps: int, index: int) -> int:
    """The least length of a transform in which no offset that counts wraps around onto the input."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # waits for SymPy

    if statically_known_true(taps == 1):
        return length
    # An embedding that is made for this very length has no offsets beyond it; of others all have room
    fits = statically_known_true(taps <= length + index)
    return length + index if fits else length + taps - 1
