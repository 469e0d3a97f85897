"""The order of rows, and loaders that begin in the middle of an epoch."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, SequentialSampler

from lambda_seq.inference.batches import padded_length
from lambda_seq.tasks.data.loading import EpochSampler, ResumableLoader


class Echo(Dataset):
    """Gives back its keys."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        return torch.tensor(key)


def order(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return [row for _, row in sampler]


def test_each_epoch_has_its_own_order_of_all_rows():
    sampler = EpochSampler(Echo(50), batch_size=4, seed=3)
    first = order(sampler)
    assert sorted(first) == list(range(50))
    assert order(sampler) == first
    assert order(sampler, 1) != first
    assert order(EpochSampler(Echo(50), batch_size=4, seed=4)) != first
    sampler.set_epoch(7)
    assert {epoch for epoch, _ in sampler} == {7}


@pytest.mark.parametrize("lengths", [None, np.arange(16)])
def test_processes_share_the_rows(lengths):
    """Batch by batch they have what one process has, which sees no row twice."""
    single = EpochSampler(Echo(16), batch_size=6, seed=0, lengths=lengths)
    options = {"batch_size": 2, "seed": 0, "lengths": lengths, "replicas": 3}
    parts = [order(EpochSampler(Echo(16), rank=rank, **options), 1) for rank in range(3)]
    assert {len(part) for part in parts} == {5}
    whole = order(single, 1)
    for begin in (0, 2):
        batch = {row for part in parts for row in part[begin : begin + 2]}
        assert batch == set(whole[3 * begin : 3 * begin + 6])
    assert len({row for part in parts for row in part}) == 15


def test_rows_of_less_than_a_batch_all_come():
    parts = [order(EpochSampler(Echo(10), batch_size=4, seed=0, replicas=3, rank=rank)) for rank in range(3)]
    assert {len(part) for part in parts} == {4}
    assert {row for part in parts for row in part} == set(range(10))


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("lengths", [np.arange(70), np.repeat([1, 500], 35), None], ids=["long", "two", "none"])
def test_rows_left_out_are_others_in_each_epoch(lengths, replicas):
    """70 rows in batches of 32: six are left out, and it must not always be the longest."""
    counts = np.zeros(70)
    for epoch in range(200):
        samplers = [
            EpochSampler(Echo(70), batch_size=32 // replicas, seed=0, lengths=lengths, replicas=replicas, rank=rank)
            for rank in range(replicas)
        ]
        loaders = [
            ResumableLoader(
                Echo(70), sampler=one, trained=lambda: 0, batch_size=32 // replicas, drop_last=one.drop_last
            )
            for one in samplers
        ]
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
            assert len(loader) == 2
            for keys in loader:
                np.add.at(counts, keys[:, 1].numpy(), 1)
    assert counts.sum() == 200 * 64
    assert counts.min() > 165  # 183 is the mean
    assert counts.max() <= 200


def test_the_fingerprint_tells_orders_apart():
    def fingerprint(epoch=3, count=40, lengths=None, **options):
        given = {"batch_size": 4, "seed": 1} | options
        return EpochSampler(Echo(count), lengths=lengths, **given).fingerprint(epoch)

    lengths = np.arange(40) % 7
    assert fingerprint() == fingerprint(batch_size=5) == fingerprint(batch_size=2, replicas=2, rank=1)
    others = [fingerprint(epoch=4), fingerprint(count=41), fingerprint(seed=2), fingerprint(lengths=lengths)]
    others += [fingerprint(lengths=lengths, batch_size=5), fingerprint(lengths=lengths[::-1])]
    assert len({fingerprint(), *others}) == 7
    assert fingerprint(lengths=lengths) == fingerprint(lengths=lengths, batch_size=2, replicas=2)


def test_buckets_hold_rows_of_similar_length():
    lengths = np.random.default_rng(0).integers(1, 1000, 1003)
    plain = EpochSampler(Echo(1003), batch_size=8, seed=0)
    bucketed = EpochSampler(Echo(1003), batch_size=8, seed=0, lengths=lengths)
    rows = order(bucketed)
    assert sorted(rows) == list(range(1003))

    def padding(rows):
        batches = [lengths[rows[begin : begin + 8]] for begin in range(0, len(rows), 8)]
        return sum((batch.max() - batch).sum() for batch in batches)

    assert padding(rows) < padding(order(plain)) / 10
    means = [lengths[rows[begin : begin + 8]].mean() for begin in range(0, 1000, 8)]
    assert abs(np.corrcoef(range(len(means)), means)[0, 1]) < 0.3  # batches do not come by length


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_begins_where_training_is(workers):
    done = 0
    sampler = EpochSampler(Echo(20), batch_size=3, seed=1)
    options = {"batch_size": 3, "drop_last": True, "num_workers": workers}
    loader = ResumableLoader(Echo(20), sampler=sampler, trained=lambda: done, **options)
    whole = [keys[:, 1].tolist() for keys in loader]
    assert len(whole) == len(loader) == 6
    done = 4
    waiting = iter(loader)
    done = 2  # asked for at the first `next`, when the trainer has restored its state
    assert [keys[:, 1].tolist() for keys in waiting] == whole[2:]
    assert len(loader) == 6


def test_a_loader_with_another_sampler_begins_there_too():
    """As Lightning puts one in its place for --trainer.overfit_batches."""
    loader = ResumableLoader(Echo(20), sampler=SequentialSampler(range(20)), trained=lambda: 2, batch_size=3)
    assert torch.cat(list(loader)).tolist() == list(range(6, 20))


@pytest.mark.parametrize(("longest", "most", "length"), [(0, None, 8), (8, None, 8), (9, None, 16), (9, 12, 12)])
def test_padded_length(longest, most, length):
    assert padded_length(longest, 8, most) == length
