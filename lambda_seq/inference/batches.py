"""Inputs of different lengths side by side, and answers to inputs that are read in windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def padded_length(longest: int, multiple: int, most: int | None) -> int:
    """The length a batch is padded to: the longest row rounded up, at least `multiple`, at most `most`."""
    length = max(math.ceil(longest / multiple), 1) * multiple
    return length if most is None else min(length, most)


def pad_tokens(
    rows: Sequence[Int[Tensor, " N"]], *, multiple: int, most: int | None, value: int = 0
) -> tuple[Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """Rows of ids, padded with `value`, and a mask that is True at real positions."""
    length = padded_length(max(map(len, rows)), multiple, most)
    x = torch.full((len(rows), length), value, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        x[index, : len(row)] = row
        mask[index, : len(row)] = True
    return x, mask


def pad_samples(
    rows: Sequence[Float[Tensor, "N ..."]], *, multiple: int, most: int | None
) -> tuple[Float[Tensor, "B N ..."], Bool[Tensor, "B N"] | None]:
    """Rows of samples, or of vectors, padded with zeros, and a mask, True at real positions; None where all are."""
    lengths = torch.tensor([len(row) for row in rows])
    length = padded_length(int(lengths.max()), multiple, most)
    x = torch.zeros(len(rows), length, *rows[0].shape[1:])
    for index, row in enumerate(rows):
        x[index, : len(row)] = row
    return x, torch.arange(length) < lengths[:, None] if int(lengths.min()) < length else None


def cut(samples: Tensor, most: int) -> list[Tensor]:
    """Windows of at most `most` samples that cover all of them, one after another; the last ends where they do."""
    begins = range(0, max(len(samples) - most, 0) + most, most)
    return [samples[max(0, min(begin, len(samples) - most)) :][:most] for begin in begins]


def mean_by_document(answers: Float[Tensor, "W ..."], document: Int[Tensor, " W"]) -> Float[Tensor, "B ..."]:
    """The mean answer of each document's windows; `document` is the number of each window's, from 0 on without gap."""
    counts = document.bincount()  # (B,)
    sums = answers.new_zeros(len(counts), *answers.shape[1:]).index_add_(0, document, answers)
    return sums / counts.view(-1, *[1] * (answers.ndim - 1))
