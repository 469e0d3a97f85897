"""Windows that cover all of a clip, for networks that were trained on shorter stretches."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset

from lambda_seq.inference.batches import cut
from lambda_seq.tasks.data.audio.waveforms import pad_clips
from lambda_seq.tasks.data.batches import ClipWindowBatch, named


class Together(Dataset):
    """Items of another data set, so many neighbours at a time, as a list: what one process takes of a split.

    Args:
        items: of which each may become several rows of a batch.
        count: of neighbours.
    """

    def __init__(self, items: Dataset, count: int) -> None:
        self.items, self.count = items, count

    def __len__(self) -> int:
        return -(-len(self.items) // self.count)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> list[Any]:
        """The items of a batch."""
        after = min((index + 1) * self.count, len(self.items))  # type: ignore[arg-type]
        return [self.items[row] for row in range(index * self.count, after)]


def pad_windows(batches: list[list[dict[str, Any]]], *, most: int, multiple: int, at_once: int) -> ClipWindowBatch:
    """A batch of whole clips in windows of at most `most` samples, of which a network shall read `at_once` at a time.

    Args:
        batches: of items {"x", "id"}, perhaps with labels, as `Together` gives them.
        most: samples of a window.
        multiple: windows are padded to a multiple of so many samples, at most to `most`.
        at_once: windows.
    """
    items = [item for batch in batches for item in batch]
    windows = [cut(item["x"], most) for item in items]
    document = [place for place, found in enumerate(windows) for _ in found]
    padded = pad_clips([{"x": one, "id": ""} for found in windows for one in found], multiple=multiple, most=most)
    real = torch.ones(padded["x"].shape, dtype=torch.bool)
    return {
        "x": padded["x"],
        "mask": padded.get("mask", real),
        "document": torch.tensor(document),
        "at_once": at_once,
        **named(items),
    }
