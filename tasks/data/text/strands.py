"""The other strand of DNA: instead of a sequence in training, and beside it in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from lambda_seq.inference.alphabets import reverse_complement

STRAND = 2  # what is drawn at random of a row, beside the part that is read of it


def other_strand(ids: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The reverse complement of token ids of DNA."""
    return torch.from_numpy(reverse_complement(ids.numpy()))


class EitherStrand(Dataset):
    """Items of DNA, each as it is or as its reverse complement, by seed, epoch and row.

    Args:
        items: of token ids.
        seed: of the choice.
    """

    def __init__(self, items: Any, seed: int) -> None:
        self.items, self.seed = items, seed

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """Tokens of each item."""
        found: np.ndarray = self.items.lengths
        return found

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The item with key row or (epoch, row)."""
        epoch, row = key if isinstance(key, tuple) else (0, key)
        item: dict[str, Any] = self.items[key]
        turned = np.random.default_rng([self.seed, epoch, row, STRAND]).random() < 0.5
        return item | {"x": other_strand(item["x"])} if turned else item
