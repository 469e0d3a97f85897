"""Batches in an order that depends on the seed and the epoch alone, from any batch of the epoch on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, DistributedSampler

BUCKET = 50  # batches among which rows are sorted by length


class EpochSampler(DistributedSampler):
    """Shuffled rows as keys (epoch, row): what a data set draws at random for a row can depend on both.

    Args:
        dataset: what is sampled from.
        batch_size: rows per batch, on each process.
        seed: of the order.
        lengths: of the rows; if given, rows of similar length come in one batch, which saves padding.
        replicas: number of processes that share the rows.
        rank: of this process.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        lengths: np.ndarray | None = None,
        replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas=replicas, rank=rank, seed=seed)
        self.batch_size, self.lengths, self.start = batch_size, lengths, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Keys of this process from batch `start` of the epoch on."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.dataset))  # type: ignore[arg-type]
        if self.lengths is not None:
            order = self._bucketed(order)
        order = np.resize(order, self.total_size)[self.rank :: self.num_replicas]  # every process the same number
        return iter([(self.epoch, int(row)) for row in order[self.start * self.batch_size :]])

    def _bucketed(self, order: np.ndarray) -> np.ndarray:
        """Sort `BUCKET` batches at a time by length, then shuffle the batches; a smaller last batch stays last."""
        batch = self.batch_size * self.num_replicas
        chunks = [order[begin : begin + BUCKET * batch] for begin in range(0, len(order), BUCKET * batch)]
        order = np.concatenate([chunk[np.argsort(self.lengths[chunk], kind="stable")] for chunk in chunks])  # type: ignore[index]
        whole = len(order) // batch * batch
        batches = order[:whole].reshape(-1, batch)
        np.random.default_rng([self.seed, self.epoch, 1]).shuffle(batches)
        return np.concatenate([batches.reshape(-1), order[whole:]])


class ResumableLoader(DataLoader):
    """A loader that starts each epoch at the batch which training has come to.

    Training that resumes in the middle of an epoch so sees the rest of it, without loading what it saw before.

    Args:
        dataset: what is loaded.
        sampler: an `EpochSampler`.
        trained: number of batches of this epoch that were trained already, asked when an epoch begins.
        options: of `torch.utils.data.DataLoader`.
    """

    def __init__(self, dataset: Dataset, *, sampler: EpochSampler, trained: Callable[[], int], **options: Any) -> None:
        super().__init__(dataset, sampler=sampler, **options)
        self.trained = trained

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches from the first untrained one on; a generator, so that `trained` is asked at the first `next`."""
        sampler: EpochSampler = self.sampler  # type: ignore[assignment]
        sampler.start = self.trained()
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the place in the epoch is the trainer's. Lightning takes a loader that has this as resumable."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore; see `state_dict`."""


def padded_length(longest: int, multiple: int, most: int | None) -> int:
    """The length a batch is padded to: the longest row rounded up, at least `multiple`, at most `most`."""
    length = max(math.ceil(longest / multiple), 1) * multiple
    return length if most is None else min(length, most)
