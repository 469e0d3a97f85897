"""The clips of a table, read when asked for or kept in memory, and batches of clips of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lambda_seq.inference.batches import pad_samples
from lambda_seq.inference.clips import Header, of_16_bits, read_header, read_samples, to_16_bits
from lambda_seq.tasks.data.batches import ClipBatch, named
from lambda_seq.tasks.data.reading.cells import Cells, read_all
from lambda_seq.tasks.data.reading.notes import note

LOUDEST = 10 ** (1 / 20)  # of kept samples: what lossy coding and resampling overshoot is no matter


class Clips(Cells):
    """The audio of rows of a table; see `Cells`."""

    kind, several = "audio", "clips"

    def header(self, row: int) -> Header:
        """The header of a clip.

        Raises:
            ValueError: as `read_header`; names the clip.
        """
        return self.read(row, read_header)

    def samples(self, row: int, rate: int) -> np.ndarray:
        """The samples (N,) of a clip; see `read_samples`.

        Raises:
            ValueError: as `read_samples`; names the clip.
        """
        return self.read(row, lambda source: read_samples(source, rate))


def read_headers(sets: Sequence[Clips]) -> list[list[Header]]:
    """The headers of all clips, for each set of clips.

    Raises:
        ValueError: some cannot be read; lists them.
    """
    return read_all([(clips, clips.header) for clips in sets])


class DecodedClips:
    """Clips read once and kept in memory as 16-bit samples; peaks beyond −1 and 1 are cut off there, which is said.

    Args:
        clips: what is kept.
        rate: samples per second.

    Raises:
        ValueError: some clips cannot be read; lists them.
    """

    def __init__(self, clips: Clips, rate: int) -> None:
        self.rate = rate
        loud: list[float] = []  # peaks of those that are cut

        def read(row: int) -> np.ndarray:
            samples = clips.samples(row, rate)
            if (peak := float(np.abs(samples).max())) > LOUDEST:
                loud.append(peak)
            return to_16_bits(samples)

        (kept,) = read_all([(clips, read)])
        if loud:
            note(
                f"{clips.where}: {len(loud)} of {len(clips)} clips go beyond -1 and 1, to {max(loud):.3g}, and are cut "
                "off there. Scale them, or keep them as they are: --data.cache false"
            )
        self.ends = np.cumsum([len(samples) for samples in kept])
        self.flat = np.empty(self.ends[-1], np.int16)  # one array, which worker processes share
        for row, end in enumerate(self.ends):
            self.flat[end - len(kept[row]) : end] = kept[row]
            kept[row] = self.flat[:0]  # not twice in memory

    def samples(self, row: int, rate: int) -> np.ndarray:
        """The samples (N,) of a clip, float32 from −1 to 1; the rate is the one it was kept at."""
        if rate != self.rate:
            raise ValueError(f"rate={rate}: the clips are kept at {self.rate} samples per second")
        begin = self.ends[row - 1] if row else 0
        return of_16_bits(self.flat[begin : self.ends[row]])


def pad_clips(items: list[dict[str, Any]], *, multiple: int, most: int) -> ClipBatch:
    """A batch of clips, padded with zeros."""
    x, mask = pad_samples([item["x"] for item in items], multiple=multiple, most=most)
    batch: ClipBatch = {"x": x, **named(items)}
    return batch if mask is None else {**batch, "mask": mask}
