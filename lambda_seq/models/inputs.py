"""Kinds of input, once: what a network of each takes, in words, and in a line of code."""

from __future__ import annotations

from typing import NamedTuple

WORD_IDS = 2**31  # ids that words may have, which are hashes: see `models.words`


class Input(NamedTuple):
    """A kind of input.

    Attributes:
        example: a line that makes one, `x`.
        said: what a model card says of it.
        pipeline: what the hub calls a network that classifies it; None where it has no name.
        unit: what its positions are called.
    """

    example: str
    said: str
    pipeline: str | None
    unit: str


INPUTS = {
    "tokens": Input(
        'x = torch.tensor([list(b"some text")]) + 1  # bytes, (B, N)',
        "Token ids (B, N), and a mask (B, N) that is True at real positions.",
        "text-classification",
        "tokens",
    ),
    "features": Input(
        "x = torch.zeros(1, 100, {in_channels})  # (B, N, C)",
        "Features (B, N, C) of N positions; `preprocessing` says how they were standardised.",
        None,
        "positions",
    ),
    "waveform": Input(
        "x = torch.zeros(1, 16000)  # samples, (B, N)",
        "Samples (B, N) of one channel; `preprocessing` says at which rate, and how they were standardised.",
        "audio-classification",
        "samples",
    ),
    "image": Input(
        "x = torch.zeros(1, {in_channels}, 224, 224)  # (B, C, H, W)",
        "Pixels (B, C, H, W) from 0 to 255, standardised per channel: (x − `mean`) / `std` of `preprocessing`.",
        "image-classification",
        "pixels",
    ),
}
