"""Sums of decaying exponentials as a position embedding: any length, streaming in constant memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.functional import exponentials
from lambda_seq.layers import checks
from lambda_seq.layers.positions.embedding import (
    check_dims,
    check_embedding,
    check_max_size,
)
from lambda_seq.layers.positions.kept import KeptPosition
from lambda_seq.layers.weights import draw, fill

COVERED = {1: 4096, 2: 64}  # greatest time scale at initialisation unless told, by dimensions
STEEP = 1 / 64  # frequency of a wave across its direction, for one along it
SLOWEST = 2.0**-30  # smallest rate: |z| < 1 whatever is learned


class ExponentialPosition(KeptPosition, kind="exponential"):
    """Sums of decaying exponentials, some of them oscillating, with coefficients of their own for each side.

        R[u, k, d] = Σ_s Re c_s[u, k, side(d)] z_s^|d|            z = exp(−rate + i · frequency)
        images: Re c_s z_s^|dy| w_s^|dx|, with rates and frequencies for rows and for columns

    rate = softplus(·) > 0, so that |z| < 1, and 0 < frequency < π: both learned, on scales that are logarithmic where
    they are small. Offset 0 belongs to the past. No offset is out of reach, and a causal layer streams in memory that
    does not depend on the context: `functional.Exponentials`, where the relation to S4D is.

    Args:
        intra: intra-depth U.
        dim_key: key depth K.
        max_size: input per dimension that the time scales cover at initialisation; None for 4,096, in 2D (64, 64).
        causal: the past only (1D).
        dims: dimensions, 1 or 2.
        terms: exponentials.
        oscillating: how many of them oscillate; None for half of them.
        decay: by which coefficients fall when the time scale doubles, at most 1; None for 2^(−dims / 2), at which all
            time scales add about as much to the energy.

    At initialisation the time scales 1 / rate are spread geometrically from 1 to the size, the oscillating ones from 4,
    each with one period per time scale (in images along columns, rows and diagonals in turn), and coefficients are
    normal and such that the variances of R at all offsets add up to 1, as "scaled" does for a `RelativePositionTable`.

    Raises:
        ValueError: numbers of terms or sizes below 1, a decay that is none.
    """

    summary = "sums of decaying exponentials, global only"
    takes = ("dims", "max_size", "causal")

    def __init__(
        self,
        intra: int,
        dim_key: int,
        *,
        max_size: Sequence[int] | None = None,
        causal: bool = False,
        dims: int = 1,
        terms: int = 16,
        oscillating: int | None = None,
        decay: float | None = None,
    ) -> None:
        super().__init__()
        check_embedding(intra, dim_key, causal)
        check_dims(dims)
        checks.integers(terms=terms)
        oscillating = terms // 2 if oscillating is None else oscillating
        decay = 2.0 ** (-dims / 2) if decay is None else decay
        checks.integers(oscillating=oscillating)
        checks.numbers(decay=decay)
        if terms < 1:
            raise ValueError(f"terms={terms}: expected at least 1 exponential")
        if not 0 <= oscillating <= terms:
            raise ValueError(f"oscillating={oscillating}: expected 0 to terms={terms}, as it counts some of the terms")
        if not 0 < decay <= 1:
            raise ValueError(f"decay={decay}: expected a number above 0 and at most 1; use 0.5")
        if max_size is not None:
            check_max_size(max_size)
        self.max_size = (COVERED[dims],) * dims if max_size is None else tuple(max_size)
        self.intra, self.dim_key, self.causal, self.dims, self.decay = intra, dim_key, causal, dims, decay
        self.steady, self.oscillating = terms - oscillating, oscillating
        self.raw_rate = nn.Parameter(torch.empty(dims, terms))
        self.raw_frequency = nn.Parameter(torch.empty(dims, oscillating))
        sides = () if causal else (2,) * dims  # past and future
        self.weight = nn.Parameter(torch.empty(*sides, intra, dim_key, terms + oscillating))
        # A buffer of the state dict: coefficients are weight · scale, whatever the options a copy is built with
        self.scale: Tensor
        self.register_buffer("scale", torch.empty(terms + oscillating))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Spread time scales and frequencies, and draw the coefficients anew."""
        device, steady, oscillating = self.weight.device, self.steady, self.oscillating
        scales = torch.stack(
            [torch.cat([_spread(1, size, steady), _spread(4, size, oscillating)]) for size in self.max_size]
        )  # (dims, P + O)
        rates = 1 / scales
        share = 2 * rates[:, steady:]  # of π: a period per time scale
        if self.dims == 2:
            turns = torch.tensor([[STEEP, 1, 1], [1, STEEP, 1]], dtype=share.dtype)  # columns, rows, diagonals
            share = share * turns[:, torch.arange(oscillating) % 3]
        fill(self.raw_rate, (rates - SLOWEST).expm1().log().to(device))  # softplus backwards
        fill(self.raw_frequency, share.logit().to(device))
        # Σ_d |z|^2d is 1 / (1 − |z|²) for a side; waves of random phase have that variance at each distance
        energy = -1 / torch.expm1(-2 * rates)
        energy = (energy if self.causal else 2 * energy - 1).prod(0)
        amplitude = scales.log2().mean(0).mul(math.log2(self.decay)).exp2()
        amplitude = amplitude / (amplitude.square() @ energy).sqrt()
        fill(self.scale, torch.cat([amplitude, amplitude[steady:]]).to(device))
        draw(self.weight, 1.0)

    def forward(self, size: Sequence[int]) -> Float[Tensor, "U K *R"]:
        """The embedding for inputs of this size per dimension, 2N − 1 offsets each (causal: N)."""
        rates, frequencies, coefficients = self._terms()
        if self.causal:
            return LF.Exponentials(rates[0], frequencies[0], coefficients).kernel(size[0])
        if self.dims == 1:
            past, future = exponentials.by_distance(rates[0], frequencies[0], coefficients, size[0])  # (U, K, N) each
            return _joined(past, future, -1)
        rows, columns = (
            exponentials.basis(rates[axis], frequencies[axis], torch.arange(length, device=rates.device))
            for axis, length in enumerate(size)
        )
        quadrants = exponentials.product(coefficients, rows, columns, self.oscillating)  # (2, 2, U, K, Y, X)
        above, below = _joined(quadrants[:, 0], quadrants[:, 1], -1)  # (U, K, Y, 2X − 1) each
        return _joined(above, below, -2)

    def streaming(self, length: int) -> LF.Exponentials:
        """The rates, frequencies and coefficients, from which a causal embedding streams whatever the length.

        Raises:
            ValueError: the embedding is not causal.
        """
        if not self.causal:
            raise ValueError("causal=False: only a causal embedding streams; construct it with causal=True")
        embedding = super().streaming(1)  # one for all lengths
        assert isinstance(embedding, LF.Exponentials)
        return embedding

    def made(self, length: int) -> LF.Exponentials:
        """The embedding with what one more position does to its sums."""
        rates, frequencies, coefficients = self._terms()
        return LF.Exponentials(rates[0], frequencies[0], coefficients).prepared()

    def weights_of_stream(self) -> tuple[Tensor, ...]:
        """What rates, frequencies and coefficients are made of."""
        return self.raw_rate, self.raw_frequency, self.weight, self.scale

    def blank(self) -> LF.Exponentials | None:
        """Zeros of the sizes of `streaming`; the weights, which may be spread over processes, are not asked."""
        if not self.causal:
            return None
        zeros = torch.zeros(self.steady + self.oscillating, device=self.weight.device)
        terms = zeros.new_zeros(self.weight.shape, dtype=self.weight.dtype)
        return LF.Exponentials(zeros, zeros[: self.oscillating], terms)

    def _terms(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rates (dims, P + O) and frequencies (dims, O) in float64, and coefficients (*sides, U, K, S)."""
        wide = exponentials.precise(self.weight.device)
        rates = F.softplus(self.raw_rate.to(wide)) + SLOWEST
        frequencies = math.pi * self.raw_frequency.to(wide).sigmoid()
        return rates, frequencies, self.weight * self.scale

    def extra_repr(self) -> str:
        """Shape and kind, for printing."""
        return (
            f"intra={self.intra}, dim_key={self.dim_key}, terms={self.steady} + {self.oscillating} oscillating, "
            f"decay={self.decay:.3g}{', causal' if self.causal else ''}"
        )


def _spread(least: float, most: float, count: int) -> Float[Tensor, "count"]:
    """Numbers spread geometrically from one to the other."""
    return least * max(1, most / least) ** torch.linspace(0, 1, count, dtype=torch.float64)


def _joined(past: Tensor, future: Tensor, axis: int) -> Tensor:
    """Distances 0 … N − 1 of both sides -> offsets −(N − 1) … N − 1 along an axis; offset 0 is the past's."""
    return torch.cat([past.flip(axis), future.narrow(axis, 1, future.shape[axis] - 1)], axis)
