"""Generated clips of six kinds of tone: audio to begin with, without data or network."""

from __future__ import annotations

import io

import datasets
import numpy as np
import soundfile

TONES = "generated:tones"
KINDS = ("falling", "hissing", "pulsing", "rising", "steady", "warbling")
RATE = 8000  # samples per second
COUNTS = {"train": 100, "validation": 25, "test": 25}  # of each kind


def tones() -> dict[str, datasets.Dataset]:
    """The same 600, 150 and 150 clips each time, as wav files of 0.3 to 1 second; see `tone`."""
    random = np.random.default_rng(0)
    splits = {}
    for split, count in COUNTS.items():
        labels = [kind for kind in KINDS for _ in range(count)]
        cells = [{"bytes": _wav(tone(kind, random)), "path": None} for kind in labels]
        features = datasets.Features(
            audio={"bytes": datasets.Value("binary"), "path": datasets.Value("string")}, label=datasets.Value("string")
        )
        splits[split] = datasets.Dataset.from_dict({"audio": cells, "label": labels}, features=features)
    return splits


def tone(kind: str, random: np.random.Generator) -> np.ndarray:
    """Samples (N,) of one clip: a tone of random pitch, timbre, loudness and length in some white noise.

    Its pitch rises or falls by an octave, stays, or warbles up and down 5 to 10 times a second; or it is loud and
    quiet as often; "hissing" is noise in a band of an octave. Pitches of all kinds begin at 200 to 800 hertz.
    """
    count = int(random.uniform(0.3, 1.0) * RATE)
    time = np.arange(count) / RATE  # (N,) seconds
    course = np.linspace(0, 1, count)
    pitch = 200 * 4 ** random.uniform()  # hertz
    wave = np.sin(2 * np.pi * random.uniform(5, 10) * time + random.uniform(0, 2 * np.pi))
    octaves = {"rising": course, "falling": -course, "warbling": 0.15 * wave}.get(kind, np.zeros(count))
    phase = 2 * np.pi * np.cumsum(pitch * 2**octaves) / RATE + random.uniform(0, 2 * np.pi)
    sound = np.sin(phase) + random.uniform(0, 0.6) * np.sin(2 * phase) + random.uniform(0, 0.4) * np.sin(3 * phase)
    if kind == "hissing":
        spectrum = np.fft.rfft(random.standard_normal(count))
        frequencies = np.fft.rfftfreq(count, 1 / RATE)
        sound = np.fft.irfft(spectrum * ((frequencies > pitch) & (frequencies < 2 * pitch)), count)
    if kind == "pulsing":
        sound = sound * (0.5 + 0.5 * wave)
    sound = sound * np.minimum(1, np.minimum(time, time[-1] - time) / 0.02)  # no clicks at the ends
    sound = sound / np.sqrt(np.mean(sound**2))
    noise = random.standard_normal(count) * 10 ** (-random.uniform(5, 30) / 20)
    loudness = 10 ** (random.uniform(-35, -12) / 20)
    return (np.clip(loudness * (sound + noise), -1, 1)).astype(np.float32)


def _wav(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE, format="WAV", subtype="PCM_16")
    return stream.getvalue()
