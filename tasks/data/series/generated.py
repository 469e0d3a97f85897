"""Generated series of four kinds: something to begin with, without data or network."""

from __future__ import annotations

import numpy as np

WAVES = "generated:waves"
CHANNELS = ("left", "right")
KINDS = ("left falling", "left rising", "right falling", "right rising")  # which is ahead, and its frequency
COUNTS = {"train": 150, "validation": 40, "test": 40}  # of each kind
MISSING = 0.02  # share of the numbers


def waves() -> dict[str, tuple[list[np.ndarray], list[str]]]:
    """The same 600, 160 and 160 series each time, and their kinds; see `wave`."""
    random = np.random.default_rng(0)
    found = {}
    for split, count in COUNTS.items():
        labels = [kind for kind in KINDS for _ in range(count)]
        found[split] = [wave(kind, random) for kind in labels], labels
    return found


def wave(kind: str, random: np.random.Generator) -> np.ndarray:
    """A series (2, N) of 80 to 160 steps: two noisy oscillations, of which one goes a quarter of a period ahead.

    Their frequency rises or falls by an octave; 2 % of the numbers are missing.
    """
    first, course = kind.split()
    count = int(random.integers(80, 161))
    octaves = np.linspace(0, 1, count) if course == "rising" else np.linspace(1, 0, count)
    phase = 2 * np.pi * (np.cumsum(2**octaves / random.uniform(24, 32)) + random.uniform())
    ahead = np.pi / 2 if first == "left" else -np.pi / 2
    both = np.stack([np.sin(phase + ahead), np.sin(phase)]) * random.uniform(0.5, 2, (2, 1))
    series = both + random.uniform(-1, 1, (2, 1)) + random.standard_normal((2, count)) * random.uniform(0.05, 0.2)
    series[random.uniform(size=series.shape) < MISSING] = np.nan
    return series.astype(np.float32)
