"""ListOps: which trees there are, what they are worth, and how they come to a network."""

import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import QUIET, SHORT, TINY_ENCODER

from lambda_seq.tasks.data import ListOpsData
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.data.synthetic.listops import TOKENS, Shape, draw_trees, generate, to_text

SMALL = {"train_size": 120, "validation_size": 30, "test_size": 20}
LISTOPS = (
    *("--config", "tasks/configs/listops.yaml", "--data.batch_size=8", *TINY_ENCODER),
    *(f"--data.{name}={size}" for name, size in SMALL.items()),
    *("--data.shortest=5", "--data.longest=40"),
)


def length_law(shape):
    """The probability of each length below `longest` of a drawn tree, computed level by level from the deepest up."""
    law = np.zeros(shape.longest)
    law[1] = 1  # of a digit
    for _ in range(shape.deepest - 1):
        arguments, total = law, np.zeros(shape.longest)
        for _ in range(2, shape.most + 1):
            arguments = np.convolve(arguments, law)[: shape.longest]  # one argument more
            total += arguments / (shape.most - 1)
        law = np.concatenate([np.zeros(2), 0.25 * total[:-2]])
        law[1] = 0.75
    return law


def evaluate(text):
    """The value of a tree as written, by recursion."""
    words = text.split()

    def read(place):
        if words[place].isdigit():
            return int(words[place]), place + 1
        name, values, place = words[place], [], place + 1
        while words[place] != "]":
            value, place = read(place)
            values.append(value)
        assert 2 <= len(values) <= 10
        rule = {"[MIN": min, "[MAX": max, "[MED": statistics.median, "[SM": lambda given: sum(given) % 10}[name]
        return int(rule(values)), place + 1

    value, end = read(0)
    assert end == len(words)
    return value


@pytest.fixture(scope="module")
def drawn():
    """60,000 drawn trees: those of the right length, their values and lengths."""
    rounds = [draw_trees(np.random.default_rng([0, number]), 20_000, Shape()) for number in range(3)]
    trees = [tree for found, _, _ in rounds for tree in found]
    return trees, *(np.concatenate(column) for column in list(zip(*rounds, strict=True))[1:])


def test_lengths_are_those_of_the_process(drawn):
    trees, _, lengths = drawn
    law = length_law(Shape())
    accepted = law[501:]
    share = accepted.sum()
    assert share == pytest.approx(0.0828, abs=1e-4)
    assert len(trees) / 60_000 == pytest.approx(share, abs=4 * (share / 60_000) ** 0.5)
    places = np.arange(501, 2000)
    mean = (places * accepted).sum() / share
    spread = ((places - mean) ** 2 @ accepted / share) ** 0.5
    assert mean == pytest.approx(1035.0, abs=0.1)
    assert lengths.mean() == pytest.approx(mean, abs=4 * spread / len(trees) ** 0.5)
    assert (lengths.min(), lengths.max()) >= (501, 1990)
    assert lengths.max() <= 1999
    below = np.cumsum(accepted) / share
    for part, length in ((0.1, 577), (0.5, 954), (0.9, 1643)):
        assert places[np.searchsorted(below, part)] == length
        assert (lengths <= length).mean() == pytest.approx(part, abs=4 * (part * (1 - part) / len(trees)) ** 0.5 + 1e-3)


def test_shares_of_values_and_operators(drawn):
    trees, values, _ = drawn
    shares = np.bincount(values, minlength=10) / len(values)
    assert shares[[0, 9]] == pytest.approx([0.17, 0.17], abs=0.022)  # four standard errors
    assert shares[1:9] == pytest.approx(np.full(8, 0.0825), abs=0.03)
    words = np.frombuffer(b"".join(trees), np.uint8)
    operators = np.bincount(words, minlength=18)[3:7]
    assert operators / operators.sum() == pytest.approx(np.full(4, 0.25), abs=0.005)
    digits = np.bincount(words, minlength=18)[8:]
    assert digits / digits.sum() == pytest.approx(np.full(10, 0.1), abs=0.002)
    assert (words == 7).sum() == operators.sum()  # each operator has its bracket
    assert set(words) == {2, *range(3, 18)}


def test_values_agree_with_an_evaluator_of_the_text(drawn):
    trees, values, lengths = drawn
    assert len(trees[0]) == lengths[0] + 1  # the end
    for place in range(0, len(trees), 25):
        text = to_text(trees[place])
        assert len(text.split()) == lengths[place]
        assert evaluate(text) == values[place]


def test_small_trees_and_medians():
    shape = Shape(shortest=3, longest=9, deepest=3, most=4)
    trees, values, lengths = draw_trees(np.random.default_rng(0), 3000, shape)
    texts = [to_text(tree) for tree in trees]
    assert [evaluate(text) for text in texts] == values.tolist()
    assert lengths.min() == 4  # an operator, two digits, a bracket
    assert lengths.max() == 8
    halves = [text for text in texts if text.startswith("[MED") and len(text.split()) == 4]
    assert any(sum(map(int, text.split()[1:3])) % 2 for text in halves)  # halves were rounded down
    assert evaluate("[MAX 2 [MIN 4 7 ] 0 [SM 5 8 ] ]") == 4


def test_trees_are_distinct_reproducible_and_the_first_of_more():
    shape = Shape(shortest=3, longest=6, deepest=2, most=2)
    trees, values = generate(350, 1, shape)  # of 400 there are
    assert len(set(trees)) == 350
    assert [evaluate(to_text(tree)) for tree in trees] == values.tolist()
    again = generate(100, 1, shape)
    assert again[0] == trees[:100]
    assert again[1].tolist() == values[:100].tolist()
    assert generate(100, 2, shape)[0] != trees[:100]
    with pytest.raises(ValueError, match=r"shortest=4, longest=6.*fewer than one tree of 100,000.*give a wider range"):
        generate(2, 0, Shape(shortest=4, longest=6, deepest=2, most=2))


def test_splits_batches_and_facts(tmp_path):
    data = ListOpsData(str(tmp_path), batch_size=7, **SMALL)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 120, "validation": 30, "test": 20}
    assert data.labels == [str(digit) for digit in range(10)]
    assert data.facts.options == {"num_classes": 10, "vocab_size": 18, "max_length": 2048}
    assert TOKENS[3:8] == ("[MIN", "[MAX", "[MED", "[SM", "]")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        assert batch["x"].shape[1] % 64 == 0
        assert 501 < batch["x"].shape[1] <= 2048
        for row in range(7):
            text = to_text(batch["x"][row])
            assert evaluate(text) == batch["label"][row]
            assert batch["mask"][row].sum() == len(text.split()) + 1
            assert batch["x"][row][batch["mask"][row]][-1] == 2
    assert data.lengths(data.split("train")).max() <= 2000


def test_trees_are_made_once_and_test_trees_are_the_same_for_more_training(tmp_path, monkeypatch):
    def words(data, split):
        return [row["x"].tolist() for row in data.rows_as_items(data.split(split), split)]

    data = ListOpsData(str(tmp_path), **SMALL)
    test = words(data, "test")
    (kept,) = tmp_path.iterdir()
    more = ListOpsData(str(tmp_path), **SMALL | {"train_size": 200})
    assert words(more, "test") == test
    assert words(more, "validation") == words(data, "validation")
    assert words(more, "train")[:120] == words(data, "train")
    assert words(ListOpsData(str(tmp_path), data_seed=1, **SMALL), "test") != test
    monkeypatch.setattr("lambda_seq.tasks.data.synthetic.listops.generate", None)
    assert words(ListOpsData(str(tmp_path), **SMALL), "test") == test
    assert kept.is_dir()


def test_the_baseline_answers_by_the_operator_at_the_root(tmp_path):
    data = ListOpsData(str(tmp_path), **SMALL | {"train_size": 1000})
    by_root = {}
    train, test = (
        [(row["x"][0].item(), row["label"]) for row in data.rows_as_items(data.split(name), name)]
        for name in ("train", "test")
    )
    for root, label in train:
        by_root.setdefault(root, []).append(label)
    answers = {root: statistics.mode(sorted(labels)) for root, labels in by_root.items()}
    found = statistics.mean(answers[root] == label for root, label in test)
    assert data.facts.baselines["test"] == {"root_operator": pytest.approx(found)}
    assert 0.1 < data.facts.baselines["val"]["root_operator"] < 0.7
    assert (answers[3], answers[4]) == (0, 9)  # of MIN and MAX


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 0}, "train_size=0: expected at least 1"),
        ({"test_size": 0}, "test_size=0: expected at least 1"),
        ({"data_seed": -1}, "data_seed=-1: expected at least 0"),
        ({"deepest": 1}, "deepest=1: expected at least 2"),
        ({"most": 1}, "most=1: expected at least 2"),
        ({"shortest": 50, "longest": 51}, "shortest=50, longest=51: expected lengths between them"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ListOpsData(**options)


def test_the_baseline_stands_beside_every_result(cli):
    fitted = cli("fit", *LISTOPS, *SHORT)
    facts = torch.load("outputs/listops/checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]["facts"]
    shown = f"{facts['baselines']['test']['root_operator']:.4f}"
    assert f"test/baseline_root_operator {shown}" in " ".join(fitted.out.split())
    assert "val/baseline_root_operator" in cli("validate", *LISTOPS, *QUIET).out
    assert "test/baseline_root_operator" in cli("test", *LISTOPS, *QUIET).out
    assert "baseline_root_operator" in next(Path("outputs/listops").glob("csv/*/metrics.csv")).read_text()
    assert "20 predictions" in cli("predict", *LISTOPS, *QUIET).out
    assert "tokens" not in facts or facts["tokens"] != Tokens().facts
