"""Sums of decaying exponentials by distance: relative embeddings of any length that stream in constant memory.

    R[u, k, d] = Σ_s Re c_uks z_s^d        z_s = exp(−rate_s + i · frequency_s), |z_s| < 1, distance d = n − m ≥ 0

Diagonal state spaces are the relative: A. Gu et al., "On the Parameterization and Initialization of Diagonal State
Space Models" (S4D), 2022. Written with real numbers, a term of frequency 0 is one function of the distance, any other
two, S functions for the P steady and O oscillating terms together:

    R[d] = c · b(d)        b(d) = (e^{−rate d} … | e^{−rate d} cos(frequency d) … | e^{−rate d} sin(frequency d) …)

Everything rests on z^{d + e} = z^d z^e: b(d + e) = M_e b(d), a matrix that turns pairs of cosine and sine. So a kernel
of length N is one product of two small tables, and a stream needs of all earlier positions only the sums
X = Σ_m b(n − m) v_mᵀ, S · V numbers, which one more position turns and adds to: X ← M_1 X + b(0) vᵀ. Powers are
computed in float64 from rates and frequencies, as the rounding of z or of frequency · d grows with the distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lambda_seq.functional.api import lambda_layer
from lambda_seq.functional.operators import without_autocast
from lambda_seq.functional.single import look_up
from lambda_seq.functional.states import tree

BLOCK = 512  # distances per row of a kernel's product
CHUNK = 1024  # positions that a stream takes at once, S numbers for each and head


@tree
@dataclass(frozen=True)
class Turn:
    """M_1 and b(0): what one more position does to sums, X ← same ∘ X + other ∘ X[swap] + start vᵀ."""

    same: Float[Tensor, "S 1"]
    other: Float[Tensor, "S 1"]
    start: Float[Tensor, "S 1"]
    swap: Int[Tensor, "S"]

    @classmethod
    def of(cls, rates: Float[Tensor, "P+O"], frequencies: Float[Tensor, "O"]) -> Turn:
        """From rates and frequencies, in float64."""
        waves = frequencies.shape[0]
        zero_and_one = torch.arange(2, device=rates.device)
        start, powers = basis(rates, frequencies, zero_and_one).unsqueeze(-1)  # (S, 1) each
        plain, cosines, sines = powers.tensor_split([rates.shape[0] - waves, rates.shape[0]])
        numbers = torch.arange(powers.shape[0], device=rates.device)
        steady, *pairs = numbers.tensor_split([rates.shape[0] - waves, rates.shape[0]])
        return cls(
            torch.cat([plain, cosines, cosines]),
            torch.cat([torch.zeros_like(plain), -sines, sines]),
            start,
            torch.cat([steady, *reversed(pairs)]),
        )


@tree
@dataclass(frozen=True)
class Exponentials:
    """A causal embedding R[u, k, d] of P steady and O oscillating terms, S = P + 2 · O.

    Attributes:
        rates: −log |z|, above 0, per position; the P steady terms first.
        frequencies: angle of z in radians per position, of the oscillating terms.
        coefficients: c, of the steady terms, then of the cosines, then of the sines.
    """

    rates: Float[Tensor, "P+O"]
    frequencies: Float[Tensor, "O"]
    coefficients: Float[Tensor, "U K S"]

    def kernel(self, length: int) -> Float[Tensor, "U K N"]:
        """The embedding for `lambda_layer(causal=True)` on `length` positions: distance N − 1 first, 0 last."""
        return by_distance(self.rates, self.frequencies, self.coefficients, length).flip(-1)

    def empty(self, value: Float[Tensor, "B U N V"]) -> Float[Tensor, "B U S V"]:
        """The sums before the first position, for values of this shape, whatever their N."""
        batch, intra, _, dim_value = value.shape
        return value.new_zeros(batch, intra, self.coefficients.shape[-1], dim_value, dtype=precise(value.device))

    def prepared(self) -> Exponentials:
        """The same for many single positions: what each does to the sums is computed once, here."""
        return _Prepared(self.rates, self.frequencies, self.coefficients, self.turn())

    def turn(self) -> Turn:
        """What one more position does to the sums."""
        return Turn.of(self.rates, self.frequencies)

    def scan(
        self, query: Float[Tensor, "B H T K"], value: Float[Tensor, "B U T V"], sums: Float[Tensor, "B U S V"]
    ) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B U S V"]]:
        """Position part of the output for T positions that follow those of the sums, and the sums after them."""
        if query.shape[2] == 1:
            turn = self.turn()
            value = value.to(sums.dtype)
            after = sums * turn.same + sums[:, :, turn.swap] * turn.other + turn.start * value
            dtype = torch.promote_types(query.dtype, torch.float32)
            return look_up(query, self.coefficients, after, dtype), after
        kernel = self.kernel(query.shape[2]).to(query.dtype)
        output = lambda_layer(query, None, value, kernel, causal=True)
        return output + self.read(query, sums, 1), self.advance(sums, value)

    def advance(self, sums: Float[Tensor, "B U S V"], value: Float[Tensor, "B U T V"]) -> Float[Tensor, "B U S V"]:
        """The sums X after T more positions, chunk by chunk: z^T X + Σ_t b(T − 1 − t) v_tᵀ."""
        most = min(CHUNK, value.shape[2])
        distances = torch.arange(most, -1, -1, device=value.device)
        with without_autocast(value.device):
            powers = basis(self.rates, self.frequencies, distances)  # (C + 1, S)
            for part in value.split(CHUNK, 2):
                first = most - part.shape[2]  # of b(T), …, b(0) for these T
                added = powers[first + 1 :].mT @ part.to(powers.dtype)  # (B, U, S, V)
                sums = turn(sums.mT, powers[first], self.frequencies.shape[0], sign=-1).mT + added
        return sums

    def read(
        self, query: Float[Tensor, "B H T K"], sums: Float[Tensor, "B U S V"], first: int
    ) -> Float[Tensor, "B H T V"]:
        """What queries get from the sums, Σ_s (q · c_s) b(first + t) X_s: t counts queries, from the sums' position.

        h · S · (k + v) multiply-adds each for U = 1.
        """
        dtype = torch.promote_types(query.dtype, torch.float32)
        heads, outputs, start = query.shape[1], [], first
        with without_autocast(query.device):
            context = sums.to(dtype).flatten(1, 2)  # (B, U·S, V)
            for part in query.to(dtype).split(CHUNK, 2):
                weights = torch.einsum("bhtk,uks->bhuts", part, self.coefficients.to(dtype))  # (B, H, U, C, S)
                stop = start + part.shape[2]
                if stop > 1:  # b(0) turns nothing
                    distances = torch.arange(start, stop, device=query.device)
                    powers = basis(self.rates, self.frequencies, distances).to(dtype)  # (C, S)
                    weights = turn(weights, powers, self.frequencies.shape[0])
                weights = weights.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, H·C, U·S)
                outputs.append((weights @ context).unflatten(1, (heads, -1)))  # (B, H, C, V)
                start = stop
        return torch.cat(outputs, 2).to(query.dtype)


@tree
@dataclass(frozen=True)
class _Prepared(Exponentials):
    """Exponentials with their turn."""

    kept: Turn

    def turn(self) -> Turn:
        return self.kept


def precise(device: torch.device) -> torch.dtype:
    """The dtype of powers and running sums: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def basis(
    rates: Float[Tensor, "P+O"], frequencies: Float[Tensor, "O"], distances: Int[Tensor, "D"]
) -> Float[Tensor, "D S"]:
    """b(d) for each distance, in float64."""
    dtype = precise(rates.device)
    places = distances.to(dtype)[:, None]
    decays = torch.exp(-rates.to(dtype) * places)  # (D, P + O)
    angles = frequencies.to(dtype) * places  # (D, O)
    steady, waves = decays.tensor_split([rates.shape[0] - frequencies.shape[0]], -1)
    return torch.cat([steady, waves * angles.cos(), waves * angles.sin()], -1)


def turn(x: Float[Tensor, "*A S"], powers: Float[Tensor, "*A S"], oscillating: int, sign: int = 1) -> Tensor:
    """Mᵀ x for coefficients, c · b(d + e) = (Mᵀ c) · b(d); with sign −1 M x for sums; `powers` is b(e)."""
    steady = x.shape[-1] - 2 * oscillating
    places = [steady, steady + oscillating]
    plain, cosines, sines = x.tensor_split(places, -1)
    decay, cosine, sine = powers.tensor_split(places, -1)
    sine = sign * sine
    return torch.cat([plain * decay, cosines * cosine + sines * sine, sines * cosine - cosines * sine], -1)


def product(
    coefficients: Float[Tensor, "*A S"], rows: Float[Tensor, "Y S"], columns: Float[Tensor, "X S"], oscillating: int
) -> Float[Tensor, "*A Y X"]:
    """Re Σ_s c_s z_s^y w_s^x for all pairs of distances, from the tables b(y) and b(x) of their powers."""
    dtype = torch.promote_types(coefficients.dtype, torch.float32)
    turned = turn(coefficients.to(dtype).unsqueeze(-2), rows.to(dtype), oscillating)  # (*A, Y, S)
    with without_autocast(coefficients.device):
        return turned @ columns.to(dtype).mT


def by_distance(
    rates: Float[Tensor, "P+O"],
    frequencies: Float[Tensor, "O"],
    coefficients: Float[Tensor, "*A S"],
    length: int,
) -> Float[Tensor, "*A N"]:
    """R[0], …, R[length − 1]; every distance is a row's, a multiple of BLOCK, and a column's below it."""
    exporting = torch.compiler.is_exporting()  # whether the length is not known yet: then there is one row
    places = torch.arange(length if exporting else min(BLOCK, length), device=rates.device)
    near = basis(rates, frequencies, places)  # (X, S)
    rows = torch.arange(0, 1 if exporting else length, BLOCK, device=rates.device)
    far = basis(rates, frequencies, rows)  # (Y, S)
    return product(coefficients, far, near, frequencies.shape[0]).flatten(-2)[..., :length]
