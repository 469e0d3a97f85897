"""Lambda order by FFT, for global and wide scopes: n log n.

    R_k ⋆ V = F⁻¹( F(R_k reversed) ⊙ F(V) )

k · v inverse transforms forward and 2 · k · v transforms backward, of twice the length.

A transform rounds everywhere by what is loudest anywhere: in float32 by 2e-7 of the root mean square of the whole. If
some part is so much quieter that 1e-5 of it would not be kept, all is computed in float64, in about twice the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional.position import channelwise
from lambda_seq.functional.position.registry import Algorithm, register
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work

QUIET = 16  # how much quieter a part may be, in root mean square, that float32 keeps to 1e-5: half of what would do
BLOCK = 64  # positions of such a part


def fast_length(least: int) -> int:
    """The smallest even number of the form 2^a · 3^b · 5^c, b + c ≤ 2, that is at least `least`; 1 for 1."""
    if least <= 1:
        return 1
    return min(odd << max(1, (-(-least // odd) - 1).bit_length()) for odd in (1, 3, 5, 9, 15, 25))


def transform_lengths(size: Sequence[int], scope: Sequence[int], origin: Sequence[int]) -> tuple[int, ...]:
    """Length of the transform per dimension: long enough that no offset of the scope wraps around onto the input."""
    return tuple(
        fast_length(length + max(first, taps - 1 - first))
        for length, taps, first in zip(size, scope, origin, strict=True)
    )


class FFTCorrelation:
    """`channelwise.Correlation` by real FFTs over (Y, X)."""

    key_by_key = True

    def __init__(self, embedding: Tensor, size: Sequence[int], origin: Sequence[int]) -> None:
        self.size, self.scope = tuple(size), tuple(embedding.shape[2:])
        self.length = transform_lengths(size, self.scope, origin)
        self.points = self.length[0] * self.length[1]
        # R[m − n] convolves with n − m, which runs from origin − (R − 1) to origin; negative ones wrap around.
        self.shifts = tuple(first - taps + 1 for taps, first in zip(self.scope, origin, strict=True))
        self.values: Tensor
        self.values_grad: Tensor | None = None
        self.take(embedding)

    def take(self, embedding: Tensor) -> None:
        """Go on with another embedding of this scope, such as other keys of one; values stay as they are."""
        padding = [0, self.length[1] - self.scope[1], 0, self.length[0] - self.scope[0]]
        self.kernel = self._transform(F.pad(embedding.flip(-2, -1), padding).roll(self.shifts, (-2, -1)))
        # Gradients are summed as their conjugates, so that none of kernel and values is needed; (U, K, F_Y, F_X)
        self.kernel_grad: Tensor | None = None

    def load(self, values: Tensor) -> None:
        """Take a group of values, (b, v, U, Y, X), by their spectra."""
        self.values, self.values_grad = self._transform(values), None

    def lambdas(self, channels: slice, keys: slice) -> Tensor:
        """Lambdas (b, v, k, Y, X)."""
        spectrum = self.kernel[0, keys] * self.values[:, channels, 0, None]
        for intra in range(1, self.kernel.shape[0]):
            spectrum.addcmul_(self.kernel[intra, keys], self.values[:, channels, intra, None])
        return self._crop(self._inverse(spectrum))

    def add_gradient(self, channels: slice, keys: slice, grad: Tensor) -> None:
        """Correlate the gradient of lambdas, (b, v, k, Y, X), with the kernel and with the values."""
        if self.kernel_grad is None:
            self.kernel_grad = torch.zeros_like(self.kernel)
        if self.values_grad is None:
            self.values_grad = torch.zeros_like(self.values)
        spectrum = self._transform(grad).conj_physical_()  # (b, v, k, F_Y, F_X)
        for intra in range(self.kernel.shape[0]):
            for index, key in enumerate(range(keys.start, keys.stop)):
                self.values_grad[:, channels, intra].addcmul_(self.kernel[intra, key], spectrum[:, :, index])
            for entry in range(spectrum.shape[0]):
                for index, channel in enumerate(range(channels.start, channels.stop)):
                    value = self.values[entry, channel, intra]
                    self.kernel_grad[intra, keys].addcmul_(value, spectrum[entry, index])

    def value_gradient(self) -> Tensor:
        """Gradient of the loaded values, (b, v, U, Y, X)."""
        return self._crop(self._inverse(_conjugate(self.values_grad, self.values)))

    def embedding_gradient(self) -> Tensor:
        """Gradient of the embedding, (U, K, RY, RX)."""
        backwards = tuple(-shift for shift in self.shifts)
        kernel = self._inverse(_conjugate(self.kernel_grad, self.kernel)).roll(backwards, (-2, -1))
        return kernel[..., : self.scope[0], : self.scope[1]].flip(-2, -1)

    def _transform(self, x: Tensor) -> Tensor:
        if self.length[0] == 1:
            return torch.fft.rfft(x, n=self.length[1])
        return torch.fft.rfft2(x, s=self.length)

    def _inverse(self, spectrum: Tensor) -> Tensor:
        if self.length[0] == 1:
            return torch.fft.irfft(spectrum, n=self.length[1])
        return torch.fft.irfft2(spectrum, s=self.length)

    def _crop(self, x: Tensor) -> Tensor:
        return x[..., : self.size[0], : self.size[1]]


def _conjugate(sums: Tensor | None, like: Tensor) -> Tensor:
    """The conjugate of a sum of gradients, in place; zeros if nothing was added (an empty batch)."""
    return torch.zeros_like(like) if sums is None else sums.conj_physical_()


def forward(query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes) -> Tensor:
    """Position part of the output, (B, H, Y, X, V); arguments as in `registry.Algorithm`."""
    least = _precision(_power(value))
    return channelwise.forward(FFTCorrelation, query, value, embedding, sizes, least)


def backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, value and embedding; the lambdas are computed again, chunk by chunk."""
    least = _precision(_power(value), _power(query) * _power(grad))  # of what is transformed
    return channelwise.backward(FFTCorrelation, grad, query, value, embedding, sizes, least)


def _power(x: Tensor) -> Tensor:
    """Mean square over channels, (B, C, Y, X, D) -> (B, Y·X)."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide.square().mean((1, 4)).flatten(1)


def _precision(*powers: Tensor) -> torch.dtype:
    """float64 if some positions of a signal are much quieter than all of them together, else float32."""
    if powers[0].dtype == torch.float64 or powers[0].device.type == "mps":
        return torch.float32  # at least: there is nothing to choose
    if powers[0].is_cuda and torch.cuda.is_current_stream_capturing():
        return torch.float32  # a graph takes no decisions
    quiet = [_quietest(power) * QUIET**2 < power.mean(1) for power in powers]
    return torch.float64 if bool(torch.stack(quiet).any()) else torch.float32


def _quietest(power: Tensor) -> Tensor:
    """The least mean over a block of positions, (B, N) -> (B,); zeros, such as padding, count in no mean."""
    blocks = F.pad(power, (0, -power.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    count = blocks.count_nonzero(2)
    mean = blocks.sum(2) / count
    return torch.where(count > 0, mean, torch.inf).amin(1)


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work, and floats of temporaries; with the backward pass or without."""
    points = math.prod(transform_lengths((s.Y, s.X), (s.RY, s.RX), s.origin))
    work, temporary = channelwise.count(s, points, FFTCorrelation.key_by_key, backward)
    once, pairs, inputs, kernels = 2.5 * points * math.log2(points), s.B * s.V * s.K, s.B * s.V * s.U, s.U * s.K
    work += Work(transforms=once * (pairs + inputs + kernels), streamed=3 * points * (pairs * s.U + kernels))
    temporary += points * kernels
    if backward:
        transforms = once * 2 * (pairs + inputs + kernels)
        work += Work(transforms=transforms, streamed=12 * points * pairs * s.U)
        temporary += 3 * points * kernels
    return work, temporary


register(Algorithm("fft", "lambdas by FFT, channel by channel", forward, backward, count))
