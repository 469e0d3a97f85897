"""A multi-scale decaying position embedding: few parameters, any length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq.layers import checks
from lambda_seq.layers.positions.embedding import (
    check_dims,
    check_embedding,
    check_max_size,
    check_scope,
)
from lambda_seq.layers.positions.kept import KeptPosition
from lambda_seq.layers.weights import draw

COVERED = {1: 16384, 2: 128}  # positions per dimension that a global embedding covers unless told, by dimensions
TAPS = {1: 16, 2: 4}  # free weights per side, by dimensions


class MultiScalePosition(KeptPosition, kind="multiscale"):
    """Grids of free weights at doubling distances, each scaled down by a decay, and linear in between.

        R[u, k, d] = c Σ_i decay^i Σ_j w_i[u, k, j] Λ(d / 2^i − j)        Λ(x) = max(0, 1 − |x|), levels i = 0 … L − 1

    Each level has `taps` weights on either side of offset 0 per dimension, |j| < taps, so that it is zero from offset
    taps · 2^i on: near offsets have a weight each, far ones share theirs, and a wide context takes a few weights more
    for each doubling. Images have centred grids of (2 · taps − 1)² weights, bilinear in between. Levels are as many as
    `max_size` takes. Inputs may be larger: offsets beyond `reach` are zero. The value at an offset does not depend on
    the size of the input, and the cost is linear in it.

    After the kernels of SGConv: Y. Li et al., "What Makes Convolutional Models Great on Long Sequence Modeling?", 2022,
    which concatenates its levels and interpolates each over its own distances only.

    Args:
        intra: intra-depth U.
        dim_key: key depth K.
        scope: offsets per dimension of a local embedding, odd unless causal; None for global.
        max_size: input per dimension that the levels cover, for global scope; None for 16,384, in 2D (128, 128).
        causal: offsets end at 0 (1D).
        dims: dimensions, 1 or 2.
        taps: weights per side and dimension, that of offset 0 included; None for 16, in 2D 4.
        decay: by which weights fall from level to level, at most 1.

    At initialisation w ~ N(0, 1), and c is such that the variances of R at all offsets add up to 1, which gives the
    position lambda the variance of one value, as "scaled" does for a `RelativePositionTable`.

    Raises:
        ValueError: an even scope, sizes or taps below 1, a decay that is none.
    """

    summary = "decaying, of few parameters"

    def __init__(
        self,
        intra: int,
        dim_key: int,
        *,
        scope: Sequence[int] | None = None,
        max_size: Sequence[int] | None = None,
        causal: bool = False,
        dims: int = 1,
        taps: int | None = None,
        decay: float = 0.5,
    ) -> None:
        super().__init__()
        check_embedding(intra, dim_key, causal)
        check_dims(dims)
        taps = TAPS[dims] if taps is None else taps
        checks.integers(taps=taps)
        checks.numbers(decay=decay)
        if taps < 1:
            raise ValueError(f"taps={taps}: expected at least 1 weight per side; use {TAPS[dims]}")
        if not 0 < decay <= 1:
            raise ValueError(f"decay={decay}: expected a number above 0 and at most 1; use 0.5")
        if scope is not None:
            check_scope(scope, causal)
            covered = [count if causal else (count + 1) // 2 for count in scope]
        else:
            if max_size is not None:
                check_max_size(max_size)
            covered = [COVERED[dims]] * dims if max_size is None else list(max_size)
        levels = max(0, (-(-max(covered) // taps) - 1).bit_length()) + 1  # taps · 2^(levels − 1) ≥ covered
        if scope is None:
            covered = [taps << (levels - 1)] * dims
        self.intra, self.dim_key, self.taps, self.decay, self.causal = intra, dim_key, taps, decay, causal
        self.reaches = tuple(length - 1 for length in covered)  # greatest distance per dimension
        self.reach = self.reaches[-1]
        energy = sum(
            decay ** (2 * level)
            * math.prod(_energy(taps, 1 << level, distance + 1, causal) for distance in self.reaches)
            for level in range(levels)
        )
        self.scales = tuple(decay**level / math.sqrt(energy) for level in range(levels))
        self.weights = nn.ParameterList()
        for level in range(levels):
            # A local scope leaves out weights that none of its offsets meets.
            knots = (min(taps - 1, _knots(distance, level)) for distance in self.reaches)
            self.weights.append(torch.empty(intra, dim_key, *(_width(count, causal) for count in knots)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for weight in self.weights:
            draw(weight, 1.0)

    def forward(self, size: Sequence[int]) -> Float[Tensor, "U K *R"]:
        """The embedding for inputs of this size per dimension, min(reach, N − 1) offsets per side and dimension."""
        distances = list(self.reaches)
        if not torch.compiler.is_exporting():  # a program that is exported shall serve any size
            distances = [min(reach, length - 1) for reach, length in zip(self.reaches, size, strict=True)]
        # From coarse to fine: Λ on a grid is linear on one twice as fine. Twice the work of the finest, all in all.
        embedding: Tensor | None = None
        for level, (weight, scale) in reversed(list(enumerate(zip(self.weights, self.scales, strict=True)))):
            knots = [_knots(distance, level) for distance in distances]
            grid = self._crop(weight, knots) * scale
            if embedding is None:
                embedding = self._pad(grid, knots)
            else:
                embedding = self._crop(self._refine(embedding), knots)
                self._crop(embedding, self._knots_of(grid)).add_(grid)  # in place, as the finest grid is as long as R
        assert embedding is not None  # there is at least one level
        return embedding

    def streaming(self, length: int) -> Float[Tensor, "U K R"]:
        """The embedding for `length` positions, 1D; made anew only if the weights have changed, or for many more."""
        taps = min(self.reaches[0] + 1, length)
        embedding = super().streaming(taps)
        assert isinstance(embedding, Tensor)
        return embedding[..., embedding.shape[-1] - taps :]

    def made(self, length: int) -> Float[Tensor, "U K R"]:
        """The embedding for so many positions."""
        return self((length,))

    def covered(self, length: int) -> int:
        """As many positions as a stream reaches by the time that it is twice as long."""
        return min(2 * length, self.reaches[0] + 1)

    def weights_of_stream(self) -> tuple[Tensor, ...]:
        """The grids."""
        return tuple(self.weights)

    def blank(self) -> None:
        """None: these are no sums of exponentials."""

    def _knots_of(self, grid: Tensor) -> list[int]:
        """Knots per side and dimension, beyond that of offset 0."""
        return [width - 1 if self.causal else width // 2 for width in grid.shape[2:]]

    def _crop(self, grid: Tensor, knots: Sequence[int]) -> Tensor:
        """The part of a grid within so many knots per side."""
        for axis, (count, found) in enumerate(zip(knots, self._knots_of(grid), strict=True), start=2):
            if count < found:
                grid = grid.narrow(axis, found - count, _width(count, self.causal))
        return grid

    def _pad(self, grid: Tensor, knots: Sequence[int]) -> Tensor:
        """The grid with zeros around it, up to so many knots per side."""
        padding: list[int] = []
        for count, found in zip(knots, self._knots_of(grid), strict=True):
            padding = [count - found, 0 if self.causal else count - found, *padding]  # the last dimension comes first
        return F.pad(grid, padding) if any(padding) else grid

    @staticmethod
    def _refine(grid: Tensor) -> Tensor:
        """Put a knot between each two neighbours, their mean, in every dimension: n -> 2 n − 1."""
        for axis in range(2, grid.ndim):
            first, second = grid.narrow(axis, 0, grid.shape[axis] - 1), grid.narrow(axis, 1, grid.shape[axis] - 1)
            pairs = torch.stack([first, first.lerp(second, 0.5)], axis + 1).flatten(axis, axis + 1)
            grid = torch.cat([pairs, grid.narrow(axis, grid.shape[axis] - 1, 1)], axis)
        return grid

    def extra_repr(self) -> str:
        """Shape and kind, for printing."""
        return (
            f"intra={self.intra}, dim_key={self.dim_key}, levels={len(self.scales)}, taps={self.taps}, "
            f"decay={self.decay}, reach={self.reaches}{', causal' if self.causal else ''}"
        )


def _knots(distance: int, level: int) -> int:
    """Knots per side, beyond that of offset 0, that values up to a distance lie between."""
    return -(-distance >> level)


def _width(knots: int, causal: bool) -> int:
    return knots + 1 if causal else 2 * knots + 1


def _energy(taps: int, spacing: int, offsets: int, causal: bool) -> float:
    """Σ_d Σ_j Λ(d / spacing − j)² over 0 ≤ d < offsets and, unless causal, as many on the other side."""

    def rising(count: int) -> float:
        """Σ (r / spacing)² over 0 ≤ r < count: between two knots, what the farther one adds."""
        return (count - 1) * count * (2 * count - 1) / (6 * spacing**2)

    def falling(count: int) -> float:
        """Σ (1 − r / spacing)² over 0 ≤ r < count: what the nearer one adds."""
        return count - (count - 1) * count / spacing + rising(count)

    whole, rest = divmod(offsets, spacing)  # segments between two knots, and what is left of a cut one
    total = falling(spacing) * min(whole, taps) + rising(spacing) * min(whole, taps - 1)
    total += falling(rest) * (whole < taps) + rising(rest) * (whole < taps - 1)
    return total if causal else 2 * total - 1
