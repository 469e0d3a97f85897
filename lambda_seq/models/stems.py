"""The first layers of a sequence network: tokens, features or raw audio -> (B, N, dim) and the mask that fits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq.layers import make_norm
from lambda_seq.models import checks

STEMS = ("tokens", "features", "waveform")

Stemmed = tuple[Float[Tensor, "B M dim"], Bool[Tensor, "B M"] | None]


class TokenStem(nn.Module):
    """A learned vector for each token id, (B, N) -> (B, N, dim), drawn from N(0, 1)."""

    stride = 1

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        checks.at_least_one(vocab_size=vocab_size)
        self.embedding = nn.Embedding(vocab_size, dim)

    def forward(self, x: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None = None) -> Stemmed:
        """Look up token ids; any id may stand at masked positions.

        Raises:
            TypeError: x is no int32 or int64 tensor.
            ValueError: x is not (B, N), or holds an id outside 0 ≤ id < vocab_size (on a GPU, CUDA reports that).
        """
        if not isinstance(x, Tensor) or x.dtype not in (torch.int32, torch.int64):
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x is {found}: expected token ids, torch.int64; use x.long()")
        _check_shape(x, mask, "(B, N)", (2,))
        if mask is not None:
            x = x.masked_fill(~mask, 0)
        try:
            return self.embedding(x), mask  # (B, N, dim)
        except IndexError:
            raise ValueError(
                f"x holds token ids from {int(x.min())} to {int(x.max())}: expected 0 ≤ id < vocab_size="
                f"{self.embedding.num_embeddings}; give the model the vocab_size of the data"
            ) from None


class FeatureStem(nn.Module):
    """A linear map of each position's features, (B, N, in_channels) -> (B, N, dim): pixels, log-mel frames, …"""

    stride = 1

    def __init__(self, dim: int, in_channels: int) -> None:
        super().__init__()
        checks.at_least_one(in_channels=in_channels)
        self.linear = nn.Linear(in_channels, dim)

    def forward(self, x: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"] | None = None) -> Stemmed:
        """Map features; anything may stand at masked positions, even NaN.

        Raises:
            TypeError: x is not floating point.
            ValueError: x is not (B, N, in_channels).
        """
        checks.floating("x", x)
        _check_shape(x, mask, f"(B, N, C) with C = in_channels={self.linear.in_features}", (3,))
        _check_channels(x, self.linear.in_features)
        return self.linear(_zero_masked(x, mask)), mask  # (B, N, dim)


class StridedConvolution(nn.Module):
    """gelu(norm(convolution(x))), (B, N, channels) -> (B, ⌈N / stride⌉, out); masked positions count as zeros.

    Output j is centred on input stride · j (causal: ends there), and is real exactly if that input is.
    """

    def __init__(self, channels: int, out: int, stride: int, norm: str, causal: bool) -> None:
        super().__init__()
        taps = 4 * stride + 1
        self.stride = stride
        self.padding = (taps - 1, 0) if causal else (taps // 2, taps // 2)
        self.norm = make_norm(norm, out)
        self.convolution = nn.Conv1d(channels, out, taps, stride, bias=norm not in ("batch", "layer"))

    def forward(self, x: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"] | None = None) -> Stemmed:
        """Convolve; anything may stand at masked positions."""
        x = F.pad(_zero_masked(x, mask).mT, self.padding)  # (B, C, taps − 1 + N)
        mask = None if mask is None else mask[:, :: self.stride]  # (B, ⌈N / stride⌉)
        x = self.convolution(x).mT  # (B, ⌈N / stride⌉, out)
        return F.gelu(self.norm(x, mask)), mask


class WaveformStem(nn.Module):
    """Strided 1D convolutions over raw samples, (B, N) or (B, N, C) -> (B, ⌈N / stride⌉, dim), stride = Π strides.

    A frame is real exactly if the sample at its centre (causal: at its end) is, and convolutions see zeros at samples
    and frames that are not, as they do beyond the end. So padding at the end changes nothing: L real samples give
    ⌈L / stride⌉ real frames, those of the L samples alone. Padding in front shifts the frames' centres; it changes
    nothing if it is a multiple of the stride.

    Args:
        dim: channels of the frames; each layer but the last has half.
        in_channels: channels C of the samples.
        strides: stride s of each layer; its kernel has 4·s + 1 taps.
        norm: "layer", "batch" (counts real frames only), "rms" or "none".
        causal: frame j sees no sample after stride · j.
    """

    def __init__(
        self,
        dim: int,
        in_channels: int = 1,
        *,
        strides: Sequence[int] = (4, 4),
        norm: str = "layer",
        causal: bool = False,
    ) -> None:
        super().__init__()
        checks.at_least_one(in_channels=in_channels)
        if not strides or min(strides) < 1:
            raise ValueError(
                f"strides={tuple(strides)}: expected at least one, each at least 1; use (1,) for no stride"
            )
        self.in_channels, self.stride = in_channels, math.prod(strides)
        widths = [in_channels, *[max(dim // 2, 1)] * (len(strides) - 1), dim]
        self.layers = nn.ModuleList(
            StridedConvolution(channels, out, stride, norm, causal)
            for channels, out, stride in zip(widths, widths[1:], strides, strict=False)
        )

    def forward(
        self, x: Float[Tensor, "B N"] | Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"] | None = None
    ) -> Stemmed:
        """Turn samples into frames; anything may stand at masked samples, even NaN.

        Raises:
            TypeError: x is not floating point.
            ValueError: x is neither (B, N) with one channel nor (B, N, in_channels).
        """
        checks.floating("x", x)
        _check_shape(x, mask, f"(B, N), or (B, N, C) with C = in_channels={self.in_channels}", (2, 3))
        x = x[..., None] if x.ndim == 2 else x  # (B, N, C)
        _check_channels(x, self.in_channels)
        for layer in self.layers:
            x, mask = layer(x, mask)
        return x, mask  # (B, M, dim), (B, M)


def make_stem(
    stem: str,
    dim: int,
    *,
    vocab_size: int | None = None,
    in_channels: int | None = None,
    strides: Sequence[int] | None = None,
    norm: str = "layer",
    causal: bool = False,
) -> TokenStem | FeatureStem | WaveformStem:
    """The stem of this name: "tokens", "features" or "waveform".

    Raises:
        ValueError: another name, or an option given that this stem does not have.
    """
    checks.one_of("stem", stem, STEMS)
    given = {"vocab_size": vocab_size, "in_channels": in_channels, "strides": strides}
    stems_of = {"vocab_size": ("tokens",), "in_channels": ("features", "waveform"), "strides": ("waveform",)}
    for name, value in given.items():
        if value is not None and stem not in stems_of[name]:
            raise ValueError(
                f"{name}={value} does not apply to stem={stem!r}: leave it out, or use stem="
                + " or ".join(map(repr, stems_of[name]))
            )
    if stem == "tokens":
        return TokenStem(dim, 257 if vocab_size is None else vocab_size)
    channels = 1 if in_channels is None else in_channels
    if stem == "features":
        return FeatureStem(dim, channels)
    return WaveformStem(dim, channels, strides=(4, 4) if strides is None else strides, norm=norm, causal=causal)


def _check_shape(x: Tensor, mask: Tensor | None, expected: str, ranks: tuple[int, ...]) -> None:
    if x.ndim not in ranks or x.shape[1] == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}: expected {expected}, N at least 1")
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask is {found}: expected a bool tensor, True at real positions; use mask.bool()")
    if mask.shape != x.shape[:2]:
        raise ValueError(f"mask has shape {tuple(mask.shape)}: expected {tuple(x.shape[:2])}, (B, N) as x")


def _check_channels(x: Tensor, channels: int) -> None:
    if x.shape[-1] != channels:
        raise ValueError(f"x has {x.shape[-1]} channels, shape {tuple(x.shape)}: expected in_channels={channels}")


def _zero_masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x.masked_fill(~mask[..., None], 0)
