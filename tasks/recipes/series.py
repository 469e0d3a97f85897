"""The recipe `series`: batches, the network and how long it learns, by how many series there are, and how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lambda_seq.tasks.data import SeriesData
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

STRIDES: Steps[list[int]] = (
    (400, []),
    (1_600, [2]),
    (6_400, [4]),
    (25_600, [4, 4]),
    (None, [8, 8]),
)  # by steps of almost all series
BATCHES = ((300, 16), (None, 32))  # series of a batch, by rows
AT_ONCE = 262_144  # steps of a batch
STEPS = ((300, 900), (1_000, 1_200), (3_000, 1_500), (10_000, 3_000), (None, 4_000))  # of the training, by rows

OPTIONS_OF_NETWORK: dict[str, Any] = {"dim": 64, "depth": 3, "scope": 15, "norm": "batch"}
DROPOUT = ((2_000, 0.2), (None, 0.1))  # by rows
SMOOTHING = ((None, 0.1),)  # of labels, by rows
RATE, DECAY = 0.003, 0.05  # of AdamW

OPTIONS = (
    "data.batch_size",
    *(f"model.options.{name}" for name in ("stem", "strides", "dim", "depth", "scope", "norm", "dropout")),
    *("model.label_smoothing", *OPTIMIZER, "trainer.max_epochs", MONITOR),
)


@dataclass(frozen=True, kw_only=True)
class Courses(Measured):
    """Series to train on.

    Attributes:
        channels: numbers of a step.
        median, long, longest: steps of a series, of which half, 95 % and all of them have no more.
    """

    channels: int = 1
    median: int = 100
    long: int = 100
    longest: int = 100

    @property
    def sentence(self) -> str:
        """Rows, channels, lengths and classes."""
        several = "channel" if self.channels == 1 else "channels"
        lengths = f"median {self.median:,} steps, 95 % up to {self.long:,}, longest {self.longest:,}"
        return f"{self.rows:,} training series of {self.channels} {several}, {lengths}, {classes_in_words(self)}"


def measure(data: SeriesData) -> Courses:
    """Channels, and lengths of the training series, as far as they are read."""
    lengths = np.minimum(data.steps(data.split("train")), data.max_length)
    median, long, longest = np.quantile(lengths, [0.5, 0.95, 1.0], method="higher").tolist()
    return Courses(**counted(data), channels=len(data.channels), median=median, long=long, longest=longest)


def choose(series: Courses) -> list[Choice]:
    """The network, and the training for it."""
    longest = max(series.longest, 1)
    batch = batches(series, BATCHES, longest, AT_ONCE, "steps")
    strides = by(STRIDES, series.long)
    choices = [batch, *of_network([("stem", "features")], "for numbers")]
    choices += of_network([("strides", strides)], f"95 % of the series have up to {series.long:,} steps")
    choices += of_network(OPTIONS_OF_NETWORK.items(), "for series")
    choices += of_network([("dropout", by(DROPOUT, series.rows))], few(series))
    choices += smoothing(SMOOTHING, series)
    choices += optimizer(RATE, DECAY, "for series")
    return [*choices, epochs(series, STEPS, batch), *monitors(series)]


SERIES = register(
    Recipe(
        name="series",
        data=SeriesData,
        measure=measure,
        choose=choose,
        options=OPTIONS,
        networks=("lambda_encoder",),
        anywhere=("stem", "strides"),
    )
)
