"""The pictures that a network is most and least certain of."""

from __future__ import annotations

import heapq
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lambda_seq.tasks.callbacks.pictures import Shown, draw_sheet


class Sheet:
    """The pictures that predictions are most and least certain of, by the probability of the likeliest class.

    Args:
        most: pictures of each kind.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._certain: list[tuple[float, int, Shown]] = []  # a heap of the `most` greatest
        self._uncertain: list[tuple[float, int, Shown]] = []
        self._count = 0

    def add(self, batch: Any, prediction: dict[str, Any], labels: list[str]) -> None:
        """Look through a batch; one that holds no pictures is passed by."""
        pixels = batch.get("x") if isinstance(batch, dict) else None
        if not self.most or not isinstance(pixels, Tensor) or pixels.ndim != 4 or pixels.dtype != torch.uint8:
            return
        chances = prediction["probabilities"].float()
        values, classes = (found.tolist() for found in chances.max(-1))
        for row, (value, best) in enumerate(zip(values, classes, strict=True)):
            self._count += 1
            if math.isnan(value):
                continue  # which is neither certain nor uncertain
            for heap, rank in ((self._certain, value), (self._uncertain, -value)):
                if len(heap) < self.most or rank > heap[0][0]:
                    picture = pixels[row].movedim(0, -1).cpu().numpy()
                    shown = Shown(picture, Path(prediction["id"][row]).name, labels[best], value)
                    entry = (rank, -self._count, shown)  # of equal ones the first
                    (heapq.heappush if len(heap) < self.most else heapq.heapreplace)(heap, entry)

    def draw(self, path: Path) -> bool:
        """Draw, if there are pictures, and say whether there are."""
        if not self._certain:
            return False
        groups = {
            title: [shown for *_, shown in sorted(heap, reverse=True)]
            for title, heap in (("Most certain", self._certain), ("Least certain", self._uncertain))
        }
        draw_sheet(groups, path)
        return True
