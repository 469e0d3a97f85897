"""The recipe `audio`: frames, batches and augmentation by how many clips there are, how long, and at which rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lambda_seq.tasks.data import AudioData
from lambda_seq.tasks.recipes.registry import Choice, Measured, Recipe, register
from lambda_seq.tasks.recipes.rules import (
    MONITOR,
    OPTIMIZER,
    Steps,
    batches,
    by,
    classes_in_words,
    counted,
    epochs,
    few,
    monitors,
    of_network,
    optimizer,
    smoothing,
)

FRAME, SPECTRUM = 0.008, 0.01  # seconds from frame to frame of convolutions and of spectra, as long as that gives
LEAST_FRAMES, MOST_FRAMES = 50, 1_500  # of a clip; else frames are shorter or longer,
SHORTEST_FRAME, LONGEST_FRAME = 0.004, 0.016  # but no more than that
HOP = 0.01  # seconds from one log-mel frame to the next, by default
LONGEST_CLIP = 30.0  # seconds; of longer ones parts are heard
OUTLIER = 1.5  # times as long as 95 % of the clips: such are cut
BATCHES = ((500, 16), (None, 32))  # clips of a batch, by rows
AT_ONCE = 2_097_152  # samples of a batch
STEPS = ((300, 900), (1_000, 1_200), (3_000, 1_500), (10_000, 3_000), (None, 4_000))  # of the training, by rows
KEPT = 2**30  # bytes of decoded clips that stay in memory, 2 a sample

OPTIONS_OF_NETWORK: dict[str, Any] = {"dim": 64, "depth": 3, "scope": 31, "norm": "batch"}
DROPOUT = ((2_000, 0.2), (None, 0.1))  # by rows
SMOOTHING = ((None, 0.1),)  # of labels, by rows
RATE, DECAY = 0.003, 0.05  # of AdamW
AUGMENTATION: Steps[dict[str, Any]] = (  # of training clips, by rows; seconds are parts of the median clip
    (1_500, {"speed": 0.15, "equalizer": 4, "shift": 0.1, "noise": [10, 50], "polarity": True}),
    (10_000, {"speed": 0.1, "equalizer": 3, "shift": 0.05, "noise": [10, 50], "polarity": True}),
    (None, {"speed": 0.05, "equalizer": 2, "shift": 0.05, "noise": [20, 50], "polarity": True}),
)

OPTIONS = (
    *("data.max_seconds", "data.batch_size", "data.cache"),
    *(f"data.augmentation.{name}" for name in ("speed", "equalizer", "shift", "noise", "polarity")),
    *(f"model.options.{name}" for name in ("stem", "strides", "dim", "depth", "scope", "norm", "dropout")),
    *("model.label_smoothing", *OPTIMIZER, "trainer.max_epochs", MONITOR),
)


@dataclass(frozen=True, kw_only=True)
class Clips(Measured):
    """Clips to train on.

    Attributes:
        rate: samples per second that they are brought to.
        median, long, longest: seconds of a clip, of which half, 95 % and all of them have no more.
        frames: whether the network hears log-mel frames in place of samples.
        hop: seconds from one of those to the next.
    """

    rate: int = 16_000
    median: float = 1.0
    long: float = 1.0
    longest: float = 1.0
    frames: bool = False
    hop: float = HOP

    @property
    def sentence(self) -> str:
        """Rows, rate, lengths and classes."""
        lengths = f"median {self.median:.3g} s, longest {self.longest:.3g} s"
        return f"{self.rows:,} training clips at {self.rate:,} Hz, {lengths}, {classes_in_words(self)}"


def measure(data: AudioData) -> Clips:
    """The headers of training clips."""
    seconds = np.array([header.frames / header.rate for header in data.headers["train"]])
    if data.max_seconds is not None:
        seconds = np.minimum(seconds, data.max_seconds)
    median, long, longest = np.quantile(seconds, [0.5, 0.95, 1.0], method="higher").tolist()
    log_mel = data.representation == "log_mel"
    hop = data.log_mel.sizes(data.sampling_rate)["hop_length"] / data.sampling_rate
    rate = data.sampling_rate
    return Clips(**counted(data), rate=rate, median=median, long=long, longest=longest, frames=log_mel, hop=hop)


def choose(clips: Clips) -> list[Choice]:
    """What is heard of clips, and the network and the training for that."""
    heard = _heard(clips)
    longest = heard[0].value if heard else clips.longest
    batch = batches(clips, BATCHES, max(round(longest * clips.rate), 1), AT_ONCE, "samples")
    size = round(clips.rows * min(clips.long, longest) * clips.rate * 2)
    kept = f"decoded, they are {'up to' if size <= KEPT else 'more than'} {max(min(size, KEPT) / 2**20, 1):,.0f} MiB"
    choices = [*heard, batch, Choice("data.cache", size <= KEPT, kept)]
    changes = by(AUGMENTATION, clips.rows)
    shift = round(changes["shift"] * clips.median, 3)
    choices += [
        Choice(f"data.augmentation.{name}", value, few(clips)) for name, value in (changes | {"shift": shift}).items()
    ]
    stem = _stem(clips)
    choices += [stem, _strides(clips, longest, stem.value), *of_network(OPTIONS_OF_NETWORK.items(), "for sound")]
    choices += of_network([("dropout", by(DROPOUT, clips.rows))], few(clips))
    choices += smoothing(SMOOTHING, clips)
    choices += optimizer(RATE, DECAY, "for sound")
    return [*choices, epochs(clips, STEPS, batch), *monitors(clips)]


def _heard(clips: Clips) -> list[Choice]:
    """A length to which clips are cut, if some are much longer than almost all, or very long."""
    if clips.long > LONGEST_CLIP:
        return [
            Choice("data.max_seconds", LONGEST_CLIP, f"clips have up to {clips.longest:.3g} s, which are heard in part")
        ]
    if clips.longest <= OUTLIER * clips.long:
        return []
    length = math.ceil(clips.long * 100) / 100
    return [Choice("data.max_seconds", length, f"95 % of the clips are no longer, but one has {clips.longest:.3g} s")]


def _stem(clips: Clips) -> Choice:
    """How samples become frames; by convolutions where strides are given, as these are strides of such."""
    name = "model.options.stem"
    if clips.frames:
        return Choice(name, "features", "for log-mel frames")
    if name in clips.given or "model.options.strides" not in clips.given:
        return Choice(name, clips.given.get(name, "spectrum"), "for samples")
    return Choice(name, "waveform", f"for strides {clips.given['model.options.strides']}")


def _strides(clips: Clips, longest: float, stem: str) -> Choice:
    """Of spectra and perhaps a convolution, of three convolutions, or of none that log-mel frames need."""
    name = "model.options.strides"
    if clips.frames:
        frames = round(longest / clips.hop)
        strides = [] if frames <= MOST_FRAMES else [2] if frames <= 2 * MOST_FRAMES else [2, 2]
        return Choice(name, strides, f"clips have up to {frames:,} log-mel frames")
    least = clips.median / LEAST_FRAMES
    if stem == "spectrum":
        hop = max(round(clips.rate * max(min(SPECTRUM, least), SHORTEST_FRAME)), 1)
        strides = [hop] if longest * clips.rate / hop <= MOST_FRAMES else [hop, 2]
    else:
        wanted = min(max(FRAME, longest / MOST_FRAMES), least)
        wanted = min(max(wanted, SHORTEST_FRAME), LONGEST_FRAME)
        strides = strides_of(round(math.log2(max(clips.rate * wanted, 2))))
    samples = math.prod(strides)
    frames = round(clips.median * clips.rate / samples)
    frame = f"a frame is {samples} samples, {1000 * samples / clips.rate:.3g} ms"
    return Choice(name, strides, f"{frame}: {frames:,} of the median clip")


def strides_of(doublings: int) -> list[int]:
    """Up to three strides, the first the greatest, which multiplied are 2 to the power of `doublings`."""
    each, more = divmod(doublings, 3)
    return [2 ** (each + (place < more)) for place in range(3) if each + (place < more)]


AUDIO = register(
    Recipe(
        name="audio",
        data=AudioData,
        measure=measure,
        choose=choose,
        options=OPTIONS,
        networks=("lambda_encoder",),
        anywhere=("stem", "strides"),
    )
)
