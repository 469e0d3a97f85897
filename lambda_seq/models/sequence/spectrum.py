"""What a spectrogram hears of raw samples, in bands that training moves and widens."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq.models.sequence.convolutions import FrameLayer

LINEAR = 1 / 32  # cycles per sample up to which bands are about as wide, 700 Hz at 22 kHz; above, in proportion
FLOOR = 1e-5  # power that counts as silence, in that of samples of variance 1
WIDTH = 0.5  # standard deviation of a band at first, in distances from band to band


class BandPowers(FrameLayer):
    """norm(log(power in bands)), (B, N, channels) -> (B, ⌈N / stride⌉, channels · bands).

    S[j] = |FFT(w · x[around stride · j])|² / Σ w², with w a Hann window of 4 · stride + 1 samples, so that white noise
    of variance 1 has a power of 1 at each frequency. Band b is an average over frequencies, whose weights softmax(−(p −
    centre_b)² / 2 width_b²) depend on their places p on a scale like mel's: linear at low frequencies, logarithmic at
    high ones, 0 at the lowest and `bands` at the highest. Centres begin evenly spaced; they and the widths are learned,
    as those of filters in time are in N. Zeghidour et al., "LEAF: A Learnable Frontend for Audio Classification", ICLR
    2021. Powers are added up in float32 at least.

    Args:
        channels: of the samples; each has all bands.
        bands: of a channel.
        stride, norm, causal: as for `FrameLayer`.
    """

    def __init__(self, channels: int, bands: int, stride: int, norm: str, causal: bool) -> None:
        super().__init__(channels, channels * bands, stride, norm, causal)
        self.bands = bands
        self.length = 1 << (self.taps - 1).bit_length()  # of the FFT
        self.centre = nn.Parameter(torch.empty(bands))
        self.log_width = nn.Parameter(torch.empty(bands))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Bands evenly spaced on the scale, all as wide."""
        with torch.no_grad():
            self.centre.copy_(torch.arange(self.bands) + 0.5)
            self.log_width.fill_(math.log(WIDTH))

    def weights(self, dtype: torch.dtype) -> Float[Tensor, "bands frequencies"]:
        """How much each frequency counts in each band; those of a band sum to 1."""
        frequencies = torch.arange(self.length // 2 + 1, dtype=dtype, device=self.centre.device) / self.length
        places = self.bands * torch.log1p(frequencies / LINEAR) / math.log1p(0.5 / LINEAR)
        away = (places - self.centre.to(dtype)[:, None]) / self.log_width.to(dtype).exp()[:, None]
        return torch.softmax(-(away**2) / 2, 1)

    def windows(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B M out"]:
        """The logarithms, at least in float32."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            window = torch.hann_window(self.taps + 2, periodic=False, dtype=dtype, device=x.device)[1:-1]  # no zeros
            frames = x.to(dtype).mT.unfold(2, self.taps, self.stride) * (window / window.norm())  # (B, C, M, taps)
            spectrum = torch.fft.rfft(frames, self.length)  # (B, C, M, length / 2 + 1)
            power = spectrum.real.square() + spectrum.imag.square()
            bands = torch.log(power @ self.weights(dtype).mT + FLOOR)  # (B, C, M, bands)
        return bands.movedim(1, 2).flatten(2).to(x.dtype)
