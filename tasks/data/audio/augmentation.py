"""Random changes of training clips, on raw samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lambda_seq.inference.clips import resample

BANDS = 8  # of the equalizer, equally wide in octaves from LOWEST to half the sampling rate
LOWEST = 60.0  # hertz
MOST = 1 / 4  # of a clip that is shifted out or silenced, so that at least half of it is heard


@dataclass(frozen=True)
class WaveformAugmentation:
    """Random changes of the training clips, in this order; 0, none and false leave them as they are.

    All are drawn from the seed, the epoch and the row, so a resumed run hears what the uninterrupted one would have.

    Args:
        speed: greatest change of the speed, as a part of it: 0.1 plays clips up to 10 % faster, and so higher, or
            slower and lower (resampled).
        equalizer: standard deviation, in decibels, of the gains in eight bands across the spectrum, as of other voices
            and microphones.
        shift: greatest shift to and fro, in seconds; what is shifted in is silence, what is shifted out is lost. Never
            more than a quarter of the clip.
        gap: longest stretch that is silenced, in seconds, at a random place. Never more than a quarter of the clip.
        noise: lowest and highest ratio of the clip to white noise that is added, in decibels, such as [5, 40].
        gain: greatest change of the loudness, in decibels; does nothing if clips are standardised one by one.
        polarity: turn half of the clips upside down, which cannot be heard.
    """

    speed: float = 0.0
    equalizer: float = 0.0
    shift: float = 0.0
    gap: float = 0.0
    noise: tuple[float, float] | None = None
    gain: float = 0.0
    polarity: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("equalizer", "shift", "gap", "gain"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"augmentation.{name}={value}: expected a number of at least 0")
        if not 0 <= self.speed < 1:
            raise ValueError(f"augmentation.speed={self.speed}: expected a part from 0 to below 1, such as 0.1")
        if self.noise is not None and not -math.inf < self.noise[0] <= self.noise[1] < math.inf:
            raise ValueError(f"augmentation.noise={list(self.noise)}: expected [lowest, highest] in decibels")

    def __call__(
        self, samples: np.ndarray, rate: int, random: np.random.Generator, kept: int | None = None
    ) -> np.ndarray:
        """Changed samples (N',) of samples (N,) at `rate` per second; N' differs from N by the speed alone.

        Of these as many are `kept` afterwards, which counts as the clip's length; None for all.
        """
        if self.speed:
            factor = math.exp(random.uniform(-1, 1) * math.log1p(self.speed))  # as often half as fast as twice as fast
            samples = resample(samples, rate * factor, rate)
        if self.equalizer:
            samples = equalized(samples, rate, random.normal(0, self.equalizer, BANDS))
        most = MOST * min(len(samples), kept or len(samples)) / rate  # seconds
        if self.shift:
            samples = shifted(samples, round(random.uniform(-1, 1) * min(self.shift, most) * rate))
        if self.gap:
            length = int(random.uniform(0, min(self.gap, most)) * rate)
            begin = int(random.integers(0, len(samples) - length + 1))
            samples = samples.copy()
            samples[begin : begin + length] = 0
        if self.noise is not None:
            ratio = 10 ** (random.uniform(*self.noise) / 20)
            loudness = math.sqrt(float(np.mean(np.square(samples, dtype=np.float64))))
            samples = samples + random.standard_normal(len(samples), np.float32) * np.float32(loudness / ratio)
        if self.gain:
            samples = samples * np.float32(10 ** (random.uniform(-self.gain, self.gain) / 20))
        if self.polarity and random.random() < 0.5:
            samples = -samples
        return samples

    def bounded(self, seconds: np.ndarray) -> dict[str, int]:
        """The options that ask for more than clips of these lengths can bear, and of how many clips."""
        counts = {name: int((seconds * MOST < getattr(self, name)).sum()) for name in ("shift", "gap")}
        return {name: count for name, count in counts.items() if count}


def equalized(samples: np.ndarray, rate: int, gains: np.ndarray) -> np.ndarray:
    """Samples (N,) whose spectrum is changed by gains in decibels (bands,), interpolated over the octaves."""
    length = (len(samples) // 1024 + 1) * 1024  # fast to transform, and the zeros keep the end from the beginning
    spectrum = np.fft.rfft(samples, length)
    frequencies = np.arange(len(spectrum)) * rate / length
    octaves = np.log2(np.maximum(frequencies, LOWEST) / LOWEST)
    places = np.linspace(0, max(math.log2(rate / 2 / LOWEST), 1e-3), len(gains))
    factors = 10 ** (np.interp(octaves, places, gains) / 20)
    return np.fft.irfft(spectrum * factors, length)[: len(samples)].astype(np.float32)


def shifted(samples: np.ndarray, places: int) -> np.ndarray:
    """Samples (N,) later by a number of places, earlier if it is negative, with zeros where none were."""
    moved = np.zeros_like(samples)
    if places >= 0:
        moved[places:] = samples[: max(len(samples) - places, 0)]
    else:
        moved[: max(len(samples) + places, 0)] = samples[-places:]
    return moved
