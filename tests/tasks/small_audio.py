"""Small generated clips, as files."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 4000
SPLITS = {"train": 6, "validation": 2, "test": 2}


def sound(label: int, rng: np.random.Generator, count: int = 600, rate: int = RATE) -> np.ndarray:
    """Samples of a tone of 900 (0) or 300 (1) hertz in some noise."""
    tone = np.sin(2 * np.pi * (900, 300)[label] * np.arange(count) / rate + rng.uniform(0, 6))
    return (0.3 * tone + 0.02 * rng.standard_normal(count)).astype(np.float32)


def write_clip(file: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """A file of the kind that its name says; 16 bits where that means something."""
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, samples, rate)
    return file


def clip_folder(folder: Path, counts: dict[str, int], names=("high", "low"), suffix=".wav", **options) -> Path:
    """folder/SPLIT/NAME/00.wav for each split, of different lengths; without split folders if the only split is ""."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for label, name in enumerate(names):
            for index in range(count):
                samples = sound(label, rng, 400 + 40 * (index % 6), **options)
                write_clip(folder / split / name / f"{index:02}{suffix}", samples, options.get("rate", RATE))
    return folder


def spoil(folder):
    """Three files that are no clips, one in each split; the last only shows when it is decoded."""
    text, empty, cut = (folder / split / "high" / "00.wav" for split in ("train", "validation", "test"))
    text.write_text("no audio")
    write_clip(empty, np.zeros(0))
    cut.unlink()
    cut = cut.with_suffix(".flac")
    write_clip(cut, sound(0, np.random.default_rng(0), 9000))
    cut.write_bytes(cut.read_bytes()[:5000])
    return text, empty, cut
