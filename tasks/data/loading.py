"""Batches in an order that depends on the seed and the epoch alone, from any batch of the epoch on.

Where a run is in its epoch is one number, of batches that were trained, which the trainer keeps anyway. So it goes on
with any number of workers, and of processes if the rows that are done make whole batches of these too.
`torchdata.stateful_dataloader.StatefulDataLoader` has a state to save instead, gathered over the workers of a process
but not over processes, so that it could not go on with another number of these.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

BUCKET = 50  # batches among which rows are sorted by length


class EpochSampler(DistributedSampler):
    """Shuffled rows as keys (epoch, row): what a data set draws at random for a row can depend on both.

    Rows that fill no batch of all processes are left out, others in each epoch; a loader with `drop_last` so sees none
    twice. Only where there are fewer than one such batch takes, all come, and some twice if processes share them
    unevenly.

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
        whole = len(dataset) >= batch_size * replicas  # type: ignore[arg-type]
        super().__init__(dataset, num_replicas=replicas, rank=rank, seed=seed, drop_last=whole)
        self.batch_size, self.lengths, self.start = batch_size, lengths, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Keys of this process from batch `start` of the epoch on."""
        # Processes have the same number of rows: some are left out, or come again
        order = np.resize(self.order(self.epoch), self.total_size)[self.rank :: self.num_replicas]
        return iter([(self.epoch, int(row)) for row in order[self.start * self.batch_size :]])

    def order(self, epoch: int) -> np.ndarray:
        """All rows as they come in an epoch, batch after batch of all processes; the last fill none."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))  # type: ignore[arg-type]
        return order if self.lengths is None else self._bucketed(order, epoch)

    def fingerprint(self, epoch: int) -> int:
        """A number that tells the order of an epoch from others, whatever they depend on."""
        return zlib.crc32(self.order(epoch).astype(np.int64).tobytes())

    def _bucketed(self, order: np.ndarray, epoch: int) -> np.ndarray:
        """Sort `BUCKET` batches at a time by length, then shuffle the batches.

        Rows that fill no batch, the last of the order, are set apart before: sorted, they would always be long ones.
        """
        batch = self.batch_size * self.num_replicas
        order, rest = np.split(order, [len(order) // batch * batch])
        chunks = np.split(order, range(BUCKET * batch, len(order), BUCKET * batch))
        order = np.concatenate([chunk[np.argsort(self.lengths[chunk], kind="stable")] for chunk in chunks])  # type: ignore[index]
        batches = order.reshape(-1, batch)
        np.random.default_rng([self.seed, epoch, 1]).shuffle(batches)
        return np.concatenate([batches.reshape(-1), rest])


class ResumableLoader(DataLoader):
    """A loader that starts each epoch at the batch which training has come to.

    Training that resumes in the middle of an epoch so sees the rest of it, without loading what it saw before.

    Args:
        dataset: what is loaded.
        sampler: an `EpochSampler`; of others, as Lightning puts in its place, rows that were trained are loaded again.
        trained: number of batches of this epoch that were trained already, asked when an epoch begins.
        options: of `torch.utils.data.DataLoader`.
    """

    def __init__(self, dataset: Dataset, *, sampler: Sampler, trained: Callable[[], int], **options: Any) -> None:
        super().__init__(dataset, sampler=sampler, **options)
        self.trained = trained

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches from the first untrained one on; a generator, so that `trained` is asked at the first `next`."""
        done = self.trained()
        if isinstance(self.sampler, EpochSampler):
            self.sampler.start, done = done, 0
        yield from islice(super().__iter__(), done, None)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the place in the epoch is the trainer's. Lightning takes a loader that has this as resumable."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore; see `state_dict`."""
