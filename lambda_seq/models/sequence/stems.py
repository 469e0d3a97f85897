"""The first layers of a sequence network: tokens, features or raw audio -> (B, M, dim) and the mask that fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq.layers import checks
from lambda_seq.models.inputs import WORD_IDS
from lambda_seq.models.sequence.convolutions import (
    FrameLayer,
    Stem,
    Stemmed,
    StridedConvolution,
    check_ids,
    zero_masked,
)
from lambda_seq.models.sequence.ngrams import NgramStem
from lambda_seq.models.sequence.spectrum import BandPowers

STEMS = ("tokens", "features", "waveform", "ngrams", "spectrum")
KINDS = {"ngrams": "tokens", "spectrum": "waveform"}  # of input, of those that are not named as theirs
STEMS_OF = {  # options that some have
    **dict.fromkeys(("vocab_size", "token_dropout"), ("tokens", "ngrams")),
    "in_channels": ("features", "waveform", "spectrum"),
    **dict.fromkeys(("orders", "buckets", "idf", "df_power", "tf"), ("ngrams",)),
}


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
        if vocab_size >= WORD_IDS:
            raise ValueError(
                f"vocab_size={vocab_size}: ids of words are hashes, too many for a vector of each; use stem='ngrams'"
            )
        channels = max(dim // 2, 1) if strides else dim
        super().__init__(channels, dim, strides, norm, causal)
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, channels)
        self.dropout = nn.Dropout1d(dropout)  # takes all channels of a token, or none

    def embed(self, x: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None) -> Stemmed:
        """Look up token ids; any id may stand at masked positions.

        Raises:
            TypeError: x is no int32 or int64 tensor.
            ValueError: x is not (B, N), or holds an id outside 0 ≤ id < vocab_size (on a GPU, CUDA reports that).
        """
        check_ids(x, mask)
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
        expected = f"(B, N, C) with C = in_channels={self.in_channels}, N at least 1"
        checks.shaped("x", x, expected, ranks=(3,), channels=self.in_channels, axis=-1)
        checks.masked(mask, x.shape[:2], "(B, N) as x")
        return self.linear(zero_masked(x, mask)), mask  # (B, N, dim)


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
        expected = f"(B, N), or (B, N, C) with C = in_channels={self.in_channels}, N at least 1"
        x = x[..., None] if x.ndim == 2 and self.in_channels == 1 else x  # (B, N, C)
        checks.shaped("x", x, expected, ranks=(3,), channels=self.in_channels, axis=-1)
        checks.masked(mask, x.shape[:2], "(B, N) as x")
        return x, mask


class SpectrumStem(WaveformStem):
    """Spectra of raw samples, then strided convolutions over them, (B, N) or (B, N, C) -> (B, M, dim).

    Args:
        dim: channels of the frames, and bands of each channel of the samples.
        in_channels: channels C of the samples.
        strides: the first from spectrum to spectrum, in samples, such as 10 milliseconds; each is of four times as
            many. The others of convolutions over the spectra; there is one of stride 1 if there are no others.
        norm, causal: as for `Stem`.
    """

    def make_layers(
        self, channels: int, dim: int, strides: Sequence[int], norm: str, causal: bool
    ) -> Iterable[FrameLayer]:
        """Spectra, and the convolutions behind them."""
        yield BandPowers(channels, dim, strides[0], norm, causal)
        for place, stride in enumerate(strides[1:] or (1,)):
            yield StridedConvolution(dim if place else channels * dim, dim, stride, norm, causal)


def make_stem(
    stem: str,
    dim: int,
    *,
    vocab_size: int | None = None,
    in_channels: int | None = None,
    token_dropout: float = 0.0,
    orders: Sequence[int] | None = None,
    buckets: int | None = None,
    idf: bool | None = None,
    df_power: float | None = None,
    tf: str | None = None,
    strides: Sequence[int] | None = None,
    norm: str = "layer",
    causal: bool = False,
) -> TokenStem | FeatureStem | WaveformStem | NgramStem:
    """The stem of this name: "tokens", "features", "waveform", "ngrams" or "spectrum"; None for its own defaults.

    Raises:
        TypeError: strides or orders are no list of integers.
        ValueError: another name, or an option given that this stem does not have.
    """
    checks.one_of("stem", stem, STEMS)
    checks.probability(token_dropout=token_dropout)
    hashing = {"orders": orders, "buckets": buckets, "idf": idf, "df_power": df_power, "tf": tf}
    given = {"vocab_size": vocab_size, "in_channels": in_channels, "token_dropout": token_dropout or None, **hashing}
    for name, value in given.items():
        if value is not None and stem not in STEMS_OF[name]:
            raise ValueError(
                f"{name}={value} does not apply to stem={stem!r}: leave it out, or use stem="
                + " or ".join(map(repr, STEMS_OF[name]))
            )
    for name, numbers in (("strides", strides), ("orders", orders)):
        if numbers is not None:
            if not isinstance(numbers, (list, tuple)):
                example = "[4, 4]" if name == "strides" else "[1, 2]"
                raise TypeError(f"{name}={numbers!r}: expected a list of integers, such as {example}, or None")
            checks.integers(**{f"{name}[{place}]": number for place, number in enumerate(numbers)})
    channels = 1 if in_channels is None else in_channels
    if stem in ("waveform", "spectrum"):
        kind, usual = (WaveformStem, (4, 4)) if stem == "waveform" else (SpectrumStem, (160,))
        return kind(dim, channels, strides=usual if strides is None else strides, norm=norm, causal=causal)
    strides = () if strides is None else strides
    if stem == "features":
        return FeatureStem(dim, channels, strides=strides, norm=norm, causal=causal)
    if stem == "ngrams":
        own: dict[str, Any] = {name: value for name, value in hashing.items() if value is not None}
        return NgramStem(dim, vocab_size, dropout=token_dropout, strides=strides, norm=norm, causal=causal, **own)
    vocab_size = 257 if vocab_size is None else vocab_size
    return TokenStem(dim, vocab_size, dropout=token_dropout, strides=strides, norm=norm, causal=causal)
