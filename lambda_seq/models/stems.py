"""The first layers of a sequence network: tokens, features or raw audio -> (B, M, dim) and the mask that fits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq.layers import WHOLE, Whole, make_norm
from lambda_seq.models import checks
from lambda_seq.models.streaming import ConvolutionState, check_batch, check_norms

STEMS = ("tokens", "features", "waveform")

Stemmed = tuple[Float[Tensor, "B M dim"], Bool[Tensor, "B M"] | None]
StemState = tuple[ConvolutionState, ...]


class StridedConvolution(nn.Module):
    """gelu(norm(convolution(x))), (B, N, channels) -> (B, ⌈N / stride⌉, out); masked positions count as zeros.

    Output j is centred on input stride · j (causal: ends there), and is real exactly if that input is.
    """

    shards: Whole = WHOLE

    def __init__(self, channels: int, out: int, stride: int, norm: str, causal: bool) -> None:
        super().__init__()
        taps = 4 * stride + 1
        self.stride, self.reach = stride, taps - 1
        self.padding = (taps - 1, 0) if causal else (taps // 2, taps // 2)
        self.norm = make_norm(norm, out)
        self.convolution = nn.Conv1d(channels, out, taps, stride, bias=norm not in ("batch", "layer"))

    def forward(self, x: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"] | None = None) -> Stemmed:
        """Convolve; anything may stand at masked positions."""
        x = self.shards.extended(_zero_masked(x, mask), *self.padding, self.stride)  # (B, taps − 1 + N, C)
        mask = None if mask is None else mask[:, :: self.stride]  # (B, ⌈N / stride⌉)
        x = self.convolution(x.mT).mT  # (B, ⌈N / stride⌉, out)
        return F.gelu(self.norm(x, mask)), mask

    def init_state(self, batch_size: int) -> ConvolutionState:
        """The state of a causal convolution before its first input, for `step`."""
        weight = self.convolution.weight
        return ConvolutionState(0, weight.new_zeros(batch_size, self.reach, weight.shape[1]))

    def step(self, x: Float[Tensor, "B T C"], state: ConvolutionState) -> tuple[Tensor, ConvolutionState]:
        """The outputs that the next T inputs complete, (B, 0 or more, out), and the state after them; T may be 0."""
        check_norms(self.norm)
        check_batch(x.shape[0], state.kept.shape[0])
        skipped = -state.seen % self.stride  # inputs until the one at which the next output ends
        seen = state.seen + x.shape[1]
        context = torch.cat([state.kept.to(x.dtype), x], 1)  # (B, taps − 1 + T, C)
        # A copy, so that the state does not keep the whole piece in memory
        state = ConvolutionState(seen, context[:, x.shape[1] :].clone())
        if skipped >= x.shape[1]:
            return x.new_empty(x.shape[0], 0, self.convolution.out_channels), state
        x = self.convolution(context[:, skipped:].mT).mT  # (B, ⌈(T − skipped) / stride⌉, out)
        return F.gelu(self.norm(x)), state


class Stem(nn.Module):
    """What stems share: a vector for each position of x, then strided convolutions, M = ⌈N / Π strides⌉ frames.

    A frame is real exactly if the position at its centre (causal: at its end) is, and convolutions see zeros at
    positions and frames that are not, as they do beyond the end. So padding at the end changes nothing: L real
    positions give ⌈L / Π strides⌉ real frames, those of the L positions alone. Padding in front shifts the frames'
    centres; it changes nothing if it is a multiple of Π strides.

    Args:
        channels: of the vectors that are convolved.
        dim: channels of the frames; each layer but the last has half.
        strides: stride s of each layer; its kernel has 4·s + 1 taps. None at all: frames are positions.
        norm: "layer", "batch" (counts real frames only), "rms" or "none".
        causal: frame j sees no position after stride · j.
    """

    def __init__(self, channels: int, dim: int, strides: Sequence[int], norm: str, causal: bool) -> None:
        super().__init__()
        if any(stride < 1 for stride in strides):
            raise ValueError(f"strides={tuple(strides)}: expected each at least 1; use (1,) for no stride")
        self.stride, self.causal = math.prod(strides), causal
        widths = [channels, *[max(dim // 2, 1)] * (len(strides) - 1), dim]
        self.layers = nn.ModuleList(
            StridedConvolution(channels, out, stride, norm, causal)
            for channels, out, stride in zip(widths, widths[1:], strides, strict=False)
        )

    def embed(self, x: Tensor, mask: Tensor | None) -> tuple[Float[Tensor, "B N C"], Tensor | None]:
        """Check x and mask, and give each position a vector."""
        raise NotImplementedError(f"{type(self).__name__} has no embed(x, mask)")

    def forward(self, x: Tensor, mask: Bool[Tensor, "B N"] | None = None) -> Stemmed:
        """Frames of x, and their mask; anything may stand at masked positions."""
        x, mask = self.embed(x, mask)
        for layer in self.layers:
            x, mask = layer(x, mask)
        return x, mask  # (B, M, dim), (B, M)

    def init_state(self, batch_size: int) -> StemState:
        """The state of a causal stem before the first position, for `step`.

        Raises:
            ValueError: the stem is not causal.
        """
        if self.layers and not self.causal:
            raise ValueError("causal=False: only a causal stem streams; construct it with causal=True")
        return tuple(layer.init_state(batch_size) for layer in self._convolutions())

    def step(self, x: Tensor, state: StemState) -> tuple[Float[Tensor, "B M dim"], StemState]:
        """The frames that the next T ≥ 1 positions complete, 0 or more of them, and the state after them.

        x is a piece of what `forward` takes; pieces of any lengths give the frames of the whole, in evaluation mode.
        """
        x, _ = self.embed(x, None)
        states = []
        for layer, before in zip(self._convolutions(), state, strict=True):
            x, after = layer.step(x, before)
            states.append(after)
        return x, tuple(states)

    def _convolutions(self) -> Iterable[StridedConvolution]:
        return cast(Iterable[StridedConvolution], self.layers)


class TokenStem(Stem):
    """A learned vector for each token id, drawn from N(0, 1), then strided convolutions, (B, N) -> (B, M, dim).

    Args:
        dim: channels of the frames; behind the embedding, if convolutions follow, half of them.
        vocab_size: number of token ids.
        dropout: probability of hiding a token in training: its vector is zero, the others grow by 1 / (1 − dropout).
        strides, norm, causal: as for `Stem`; without strides there are no convolutions.
    """

    def __init__(
        self,
        dim: int,
        vocab_size: int,
        *,
        dropout: float = 0.0,
        strides: Sequence[int] = (),
        norm: str = "layer",
        causal: bool = False,
    ) -> None:
        checks.at_least_one(vocab_size=vocab_size)
        channels = max(dim // 2, 1) if strides else dim
        super().__init__(channels, dim, strides, norm, causal)
        self.embedding = nn.Embedding(vocab_size, channels)
        self.dropout = nn.Dropout1d(dropout)  # takes all channels of a token, or none

    def embed(self, x: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None) -> Stemmed:
        """Look up token ids; any id may stand at masked positions.

        Raises:
            TypeError: x is no int32 or int64 tensor.
            ValueError: x is not (B, N), or holds an id outside 0 ≤ id < vocab_size (on a GPU, CUDA reports that).
        """
        checks.token_ids("x", x)
        _check_shape(x, mask, "(B, N)", (2,))
        if mask is not None:
            x = x.masked_fill(~mask, 0)
        try:
            vectors = self.embedding(x)  # (B, N, C)
        except IndexError:
            raise ValueError(
                f"x holds token ids from {int(x.min())} to {int(x.max())}: expected 0 ≤ id < vocab_size="
                f"{self.embedding.num_embeddings}; give the model the vocab_size of the data"
            ) from None
        return self.dropout(vectors), mask


class FeatureStem(Stem):
    """A linear map of each position's features (pixels, log-mel frames, …), (B, N, in_channels) -> (B, N, dim).

    With strides it is strided convolutions over them instead, -> (B, M, dim).

    Args:
        dim: channels of the frames.
        in_channels: features of a position.
        strides, norm, causal: as for `Stem`.
    """

    def __init__(
        self, dim: int, in_channels: int, *, strides: Sequence[int] = (), norm: str = "layer", causal: bool = False
    ) -> None:
        checks.at_least_one(in_channels=in_channels)
        super().__init__(in_channels, dim, strides, norm, causal)
        self.in_channels = in_channels
        self.linear = nn.Identity() if strides else nn.Linear(in_channels, dim)

    def embed(self, x: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"] | None) -> Stemmed:
        """Map features; anything may stand at masked positions, even NaN.

        Raises:
            TypeError: x is not floating point.
            ValueError: x is not (B, N, in_channels).
        """
        checks.floating("x", x)
        _check_shape(x, mask, f"(B, N, C) with C = in_channels={self.in_channels}", (3,))
        _check_channels(x, self.in_channels)
        return self.linear(_zero_masked(x, mask)), mask  # (B, N, dim)


class WaveformStem(Stem):
    """Strided convolutions over raw samples, (B, N) or (B, N, C) -> (B, M, dim).

    Args:
        dim: channels of the frames.
        in_channels: channels C of the samples.
        strides, norm, causal: as for `Stem`; the product of the strides is samples per frame.
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
        checks.at_least_one(in_channels=in_channels)
        if not strides:
            raise ValueError("strides=(): expected at least one, each at least 1; use (1,) for no stride")
        super().__init__(in_channels, dim, strides, norm, causal)
        self.in_channels = in_channels

    def embed(
        self, x: Float[Tensor, "B N"] | Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"] | None
    ) -> tuple[Float[Tensor, "B N C"], Tensor | None]:
        """Samples with a channel axis; anything may stand at masked samples, even NaN.

        Raises:
            TypeError: x is not floating point.
            ValueError: x is neither (B, N) with one channel nor (B, N, in_channels).
        """
        checks.floating("x", x)
        _check_shape(x, mask, f"(B, N), or (B, N, C) with C = in_channels={self.in_channels}", (2, 3))
        x = x[..., None] if x.ndim == 2 else x  # (B, N, C)
        _check_channels(x, self.in_channels)
        return x, mask


def make_stem(
    stem: str,
    dim: int,
    *,
    vocab_size: int | None = None,
    in_channels: int | None = None,
    token_dropout: float = 0.0,
    strides: Sequence[int] | None = None,
    norm: str = "layer",
    causal: bool = False,
) -> TokenStem | FeatureStem | WaveformStem:
    """The stem of this name: "tokens", "features" or "waveform".

    Raises:
        TypeError: strides are no list of integers.
        ValueError: another name, or an option given that this stem does not have.
    """
    checks.one_of("stem", stem, STEMS)
    checks.probability(token_dropout=token_dropout)
    given = {"vocab_size": vocab_size, "in_channels": in_channels, "token_dropout": token_dropout or None}
    stems_of = {"vocab_size": ("tokens",), "in_channels": ("features", "waveform"), "token_dropout": ("tokens",)}
    for name, value in given.items():
        if value is not None and stem not in stems_of[name]:
            raise ValueError(
                f"{name}={value} does not apply to stem={stem!r}: leave it out, or use stem="
                + " or ".join(map(repr, stems_of[name]))
            )
    if strides is not None and not (isinstance(strides, (list, tuple)) and all(type(one) is int for one in strides)):
        raise TypeError(f"strides={strides!r}: expected a list of integers, such as [4, 4], or None")
    channels = 1 if in_channels is None else in_channels
    if stem == "waveform":
        return WaveformStem(dim, channels, strides=(4, 4) if strides is None else strides, norm=norm, causal=causal)
    strides = () if strides is None else strides
    if stem == "features":
        return FeatureStem(dim, channels, strides=strides, norm=norm, causal=causal)
    vocab_size = 257 if vocab_size is None else vocab_size
    return TokenStem(dim, vocab_size, dropout=token_dropout, strides=strides, norm=norm, causal=causal)


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
