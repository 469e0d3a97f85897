"""Associative recall: what sequences say, on what they depend, and that it can be learned."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import QUIET, TINY_ENCODER

from lambda_seq.tasks.data import RecallData
from lambda_seq.tasks.data.synthetic.recall import QUERY, Recall

SMALL = {"length": 40, "pairs": 3, "keys": 6, "values": 4, "noise": 5, "distractors": 0.3}
RECALL = ("--config", "tasks/configs/associative_recall.yaml")


def solve(recall, sequence):
    """The value that stands behind the last token where that stood before, and the places of keys."""
    assert sequence[-2] == QUERY
    places = np.flatnonzero(sequence[:-2] == sequence[-1])
    assert len(places) == 1
    keys = np.flatnonzero((sequence[:-2] >= 2) & (sequence[:-2] < 2 + recall.keys))
    return int(sequence[places[0] + 1]) - 2 - recall.keys, keys


@pytest.mark.parametrize(
    "options",
    [{}, {"length": 8}, {"length": 70_000, "pairs": 50, "keys": 50}, {"distractors": 0.0}, {"distractors": 1}],
)
def test_the_class_is_the_value_behind_the_key_that_is_asked_for(options):
    recall = Recall(**SMALL | options)
    lone = []
    for seed in range(30):
        sequence, value = recall.draw(np.random.default_rng(seed))
        assert sequence.shape == (recall.length,)
        assert sequence.dtype == np.int64
        found, places = solve(recall, sequence)
        assert found == value
        assert len(places) == len(set(sequence[places])) == recall.pairs
        rest = np.delete(sequence[:-2], [*places, *(places + 1)])
        assert ((rest >= 2 + recall.keys) & (rest < recall.vocab_size)).all()
        lone.extend(rest < 2 + recall.keys + recall.values)
    share = np.mean(lone) if lone else recall.distractors
    assert share == pytest.approx(recall.distractors, abs=0.08)


def test_pairs_stand_anywhere_and_any_key_is_asked_for():
    recall = Recall(**SMALL | {"length": 12})
    drawn = [recall.draw(np.random.default_rng(seed)) for seed in range(4000)]
    places = np.bincount(np.concatenate([solve(recall, sequence)[1] for sequence, _ in drawn]), minlength=10)
    assert places[9] == 0  # there is no room for a value
    assert (places[:9] > 1000).all()
    asked = np.bincount([sequence[-1] - 2 for sequence, _ in drawn], minlength=6) / 4000
    values = np.bincount([value for _, value in drawn], minlength=4) / 4000
    assert asked == pytest.approx(np.full(6, 1 / 6), abs=0.03)
    assert values == pytest.approx(np.full(4, 1 / 4), abs=0.03)
    order = [
        int(np.searchsorted(solve(recall, sequence)[1], np.flatnonzero(sequence[:-2] == sequence[-1])[0]))
        for sequence, _ in drawn
    ]
    assert np.bincount(order) / 4000 == pytest.approx(np.full(3, 1 / 3), abs=0.03)  # not the first or the last


def sequences(data, split, epoch=0):
    items = data.rows_as_items(data.split(split), split, training=split == "train")
    return [tuple(items[epoch, row]["x"].tolist()) for row in range(len(items))]


def test_sequences_depend_on_seed_split_epoch_and_row(monkeypatch):
    sizes = {"train_size": 20, "validation_size": 20, "test_size": 20}
    data = RecallData(**SMALL, **sizes)
    every = [
        *sequences(data, "train"),
        *sequences(data, "train", 1),
        *sequences(data, "validation"),
        *sequences(data, "test"),
    ]
    assert len(set(every)) == 80
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    other = RecallData(**SMALL, **sizes)
    assert sequences(other, "test") == sequences(data, "test")  # fixed
    assert sequences(other, "validation") == sequences(data, "validation")
    assert not set(sequences(other, "train")) & set(sequences(data, "train"))
    assert sequences(RecallData(**SMALL, **sizes, data_seed=1), "test") != sequences(data, "test")
    assert sequences(RecallData(**SMALL, **sizes | {"test_size": 30}), "test")[:20] == sequences(data, "test")


def test_batches_facts_and_baselines():
    data = RecallData(**SMALL, batch_size=5, train_size=12, validation_size=400, test_size=10)
    batch = next(iter(data.train_dataloader()))
    assert batch["x"].shape == (5, 40)
    assert batch["label"].dtype == torch.int64
    assert len(data.train_dataloader()) == 2
    facts = data.facts
    assert facts.labels == ["0", "1", "2", "3"]
    assert facts.options == {"num_classes": 4, "vocab_size": 17, "max_length": 40}
    right = []
    for batch in data.val_dataloader():
        for row, label in zip(batch["x"].numpy(), batch["label"].tolist(), strict=True):
            values = row[solve(data.recall, row)[1] + 1] - 8
            right.append(np.bincount(values).argmax() == label)
    assert facts.baselines["val"] == {"chance": 0.25, "most_frequent": pytest.approx(np.mean(right))}
    assert 1 / 3 < np.mean(right) < 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 0}, "pairs=0: expected at least 1"),
        ({"values": 1}, "values=1: expected at least 2"),
        ({"noise": 0}, "noise=0: expected at least 1"),
        ({"train_size": 0}, "train_size=0: expected at least 1"),
        ({"data_seed": -1}, "data_seed=-1: expected at least 0"),
        ({"keys": 7}, "keys=7: expected at least as many as pairs=8"),
        ({"length": 17}, "length=17: expected at least 18, room for pairs=8"),
        ({"distractors": 1.5}, "distractors=1.5: expected a number from 0 to 1"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        RecallData(**options)


def test_baselines_stand_beside_results(cli):
    sizes = ("--data.train_size=64", "--data.validation_size=16", "--data.test_size=16", "--data.length=40")
    command = (*RECALL, *TINY_ENCODER, *sizes, *QUIET)
    fitted = cli("fit", *command, "--trainer.max_epochs=1")
    assert "test/baseline_chance 0.1250" in " ".join(fitted.out.split())
    assert "val/baseline_most_frequent" in cli("validate", *command).out
    assert "16 predictions" in cli("predict", *command, "--data.length=80").out  # any length


@pytest.mark.slow(seconds=40)
def test_it_is_learned(cli):
    easy = ("--data.length=32", "--data.pairs=4", "--data.keys=8", "--data.values=8", "--data.distractors=0")
    cli("fit", *RECALL, *QUIET, *easy, "--trainer.max_epochs=3", "--data.batch_size=64", "--data.train_size=25600")
    summary = json.loads(Path("outputs/associative_recall/summary.json").read_text())
    assert summary["test/baseline_chance"] == pytest.approx(1 / 8)
    assert summary["test/baseline_most_frequent"] < 0.5
    assert summary["test/accuracy"] > 0.95
