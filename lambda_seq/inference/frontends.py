"""What stands between a batch and the network: standardised pixels or loudness, log-mel frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

REPRESENTATIONS = ("waveform", "log_mel")
STANDARDIZATIONS = ("clip", "train", "none")
SILENCE = 1e-3  # −60 dB of full scale: clips below are amplified as if they were as loud as that

Framed = tuple[Float[Tensor, "B M F"], Bool[Tensor, "B M"] | None]


@dataclass(frozen=True)
class LogMelOptions:
    """Sizes of log-mel frames.

    Args:
        n_mels: number of mel bands, the features of a frame.
        n_fft: samples of a window; default: the power of two from 25 milliseconds on.
        hop_length: samples from one frame to the next; default: 10 milliseconds.
    """

    n_mels: int = 64
    n_fft: int | None = None
    hop_length: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("n_mels", 1), ("n_fft", 2), ("hop_length", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"log_mel.{name}={value}: expected at least {least}")

    def sizes(self, sampling_rate: int) -> dict[str, int]:
        """The three sizes at this number of samples per second."""
        n_fft = self.n_fft or 2 ** math.ceil(math.log2(max(0.025 * sampling_rate, 2)))
        return asdict(self) | {"n_fft": n_fft, "hop_length": self.hop_length or max(round(0.01 * sampling_rate), 1)}


def hertz_to_mel(hertz: float) -> float:
    """2595 · log₁₀(1 + f / 700): the mel scale of the HTK book, on which 1000 Hz are 1000 mel."""
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def mel_to_hertz(mel: float) -> float:
    """The inverse of `hertz_to_mel`."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def mel_filters(n_mels: int, n_fft: int, sampling_rate: int) -> Float[Tensor, "mels bins"]:
    """Triangles over the frequencies k · sampling_rate / n_fft, k = 0 … n_fft / 2, rounded down, as weights of power.

    Their n_mels + 2 corners lie evenly on the mel scale from 0 to half the sampling rate; triangle j rises from corner
    j to 1 at corner j + 1 and falls to 0 at corner j + 2, so that between the first and the last peak they sum to 1
    (S. B. Davis, P. Mermelstein, 1980; the scale is that of the HTK book, the sides are straight in hertz).

    Raises:
        ValueError: a triangle has no frequency in it; says what to change.
    """
    top = hertz_to_mel(sampling_rate / 2)
    corners = torch.tensor(
        [mel_to_hertz(top * place / (n_mels + 1)) for place in range(n_mels + 2)], dtype=torch.float64
    )
    frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sampling_rate / n_fft  # (bins,)
    widths = corners.diff()[:, None]  # (mels + 1, 1)
    rising = (frequencies - corners[:-2, None]) / widths[:-1]  # (mels, bins)
    falling = (corners[2:, None] - frequencies) / widths[1:]  # (mels, bins)
    filters = torch.minimum(rising, falling).clamp_min(0)
    empty = int((filters.sum(1) == 0).sum())
    if empty:
        raise ValueError(
            f"log_mel.n_mels={n_mels}: {empty} bands lie between two of the frequencies of n_fft={n_fft} at "
            f"sampling_rate={sampling_rate}; give fewer bands or a longer n_fft"
        )
    return filters.float()


class LogMel(nn.Module):
    """log(10⁻⁶ + mel-weighted power) of windowed stretches of samples, (B, N) -> (B, ⌈N / hop_length⌉, n_mels).

    The power is that of a Hann window of n_fft samples, divided by the sum of the window's squares, so that white noise
    of variance 1 has power 1 at each frequency. Frame j is centred on sample hop_length · j, with zeros beyond both
    ends, and is real exactly if that sample is: padding changes nothing.
    """

    def __init__(self, sampling_rate: int, n_mels: int, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.window: Tensor
        self.filters: Tensor
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", mel_filters(n_mels, n_fft, sampling_rate), persistent=False)

    def forward(self, x: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None = None) -> Framed:
        """Frames of samples, and their mask; masked samples are zeros."""
        frames = -(-x.shape[1] // self.hop_length)
        window = self.window.to(x.dtype)
        spectrum = torch.stft(
            x, self.n_fft, self.hop_length, window=window, center=True, pad_mode="constant", return_complex=True
        )[..., :frames]  # (B, bins, M)
        power = (spectrum.real.square() + spectrum.imag.square()) / window.square().sum()
        mels = self.filters.to(x.dtype) @ power  # (B, mels, M)
        return torch.log(mels.mT + 1e-6), None if mask is None else mask[:, :: self.hop_length]


class AudioFrontend(nn.Module):
    """Samples as the network takes them; its arguments are what a data module of audio says in `facts["audio"]`.

    Standardisation, by `standardize`: "clip" takes from each clip its mean and divides it by its root mean square, over
    real samples, so that loudness tells nothing (silence stays silence, and nothing is amplified by more than 60 dB);
    "train" does the same with one mean and standard deviation of all training samples; "none" leaves samples as they
    are decoded, from −1 to 1. Log-mel frames, made of that, are standardised per band with mean and deviation of
    training frames.

    Args:
        sampling_rate: samples per second.
        standardize: "clip", "train" or "none".
        representation: "waveform" or "log_mel".
        waveform_mean: of training samples, for "train".
        waveform_std: of training samples, for "train".
        n_mels: bands of log-mel frames.
        n_fft: samples of their window.
        hop_length: samples from frame to frame.
        log_mel_mean: of each band over training frames.
        log_mel_std: of each band over training frames.
        others: facts of the data that nothing here depends on, such as max_length.

    Raises:
        ValueError: another representation or standardisation, or sizes that do not fit.
    """

    def __init__(
        self,
        *,
        sampling_rate: int,
        standardize: str = "clip",
        representation: str = "waveform",
        waveform_mean: float = 0.0,
        waveform_std: float = 1.0,
        n_mels: int = 64,
        n_fft: int = 512,
        hop_length: int = 160,
        log_mel_mean: Sequence[float] | None = None,
        log_mel_std: Sequence[float] | None = None,
        **others: Any,
    ) -> None:
        super().__init__()
        check_choices(representation, standardize)
        self.standardize = standardize
        self.waveform_mean: Tensor
        self.waveform_std: Tensor
        self.log_mel_mean: Tensor
        self.log_mel_std: Tensor
        if standardize == "train":
            self.register_buffer("waveform_mean", torch.tensor(waveform_mean))
            self.register_buffer("waveform_std", torch.tensor(waveform_std))
        self.log_mel: LogMel | None = None
        if representation == "log_mel":
            self.log_mel = LogMel(sampling_rate, n_mels, n_fft, hop_length)
            self.register_buffer("log_mel_mean", torch.zeros(n_mels) if log_mel_mean is None else _row(log_mel_mean))
            self.register_buffer("log_mel_std", torch.ones(n_mels) if log_mel_std is None else _row(log_mel_std))

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None = None
    ) -> tuple[Tensor, Bool[Tensor, "B M"] | None]:
        """Samples (B, N), as they are decoded, to samples (B, N) or frames (B, M, n_mels), and the mask that fits.

        Computed in float32; the result has the dtype of x.
        """
        with torch.autocast(x.device.type, enabled=False):
            result = self._standardized(x.float(), mask)
            if self.log_mel is not None:
                result, mask = self.log_mel(result, mask)
                result = (result - self.log_mel_mean) / self.log_mel_std  # (B, M, mels)
        return result.to(x.dtype), mask

    def _standardized(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.standardize == "clip":
            count = x.new_tensor(x.shape[1]) if mask is None else mask.sum(1, keepdim=True).clamp_min(1)
            x = x if mask is None else x.masked_fill(~mask, 0)
            x = x - x.sum(1, keepdim=True) / count
            x = x if mask is None else x.masked_fill(~mask, 0)
            return x / (x.square().sum(1, keepdim=True) / count).sqrt().clamp_min(SILENCE)
        if self.standardize == "train":
            x = (x - self.waveform_mean) / self.waveform_std
        return x if mask is None else x.masked_fill(~mask, 0)


class Standardized(nn.Module):
    """(x − mean) / std per channel, of bytes (B, C, H, W) or (B, N, C)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """In float32."""
        return standardized(x, self.mean, self.std), mask


def standardized(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(x − mean) / std of bytes, with a mean and std (C,) of each channel; x is (B, C, H, W) or (B, N, C)."""
    shape = (-1, 1, 1) if x.ndim == 4 else (-1,)
    return (x - mean.view(shape)) / std.view(shape)


def check_choices(representation: str, standardize: str) -> None:
    """That both are among the choices.

    Raises:
        ValueError: one is not; names it and the choices.
    """
    if representation not in REPRESENTATIONS:
        raise ValueError(f"representation={representation!r}: expected {' or '.join(map(repr, REPRESENTATIONS))}")
    if standardize not in STANDARDIZATIONS:
        raise ValueError(f"standardize={standardize!r}: expected one of {', '.join(map(repr, STANDARDIZATIONS))}")


def _row(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)
