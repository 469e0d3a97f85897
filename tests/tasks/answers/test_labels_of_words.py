"""Labels of words, from the command line to the saved folder; figures by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from labelled_runs import fit, weights
from sklearn.metrics import accuracy_score, f1_score
from small_data import QUIET, write_jsonl

from lambda_seq import load_predictor
from lambda_seq.inference.tagging import entities
from lambda_seq.models.heads import IGNORED, Positions
from lambda_seq.tasks import predicting
from lambda_seq.tasks.answers.tags import EntityF1, EntityPrecision, EntityRecall
from lambda_seq.tasks.classification import Classification

SMALL = ("--model.options.dim=16", "--model.options.depth=1", "--model.options.scope=7", "--data.batch_size=8")
NAMES = ("Ann", "Bob", "Zoë Li")
VERBS = ("sees", "hears", "calls")


def sentences(count, seed=0):
    """Sentences that say who does what to whom, and names as entities."""
    random, rows = np.random.default_rng(seed), []
    for _ in range(count):
        one, two = (random.choice(NAMES).split() for _ in range(2))
        words = [*one, str(random.choice(VERBS)), *two, "."]
        tags = [*_names(one), "O", *_names(two), "O"]
        rows.append({"tokens": words, "tags": tags})
    return rows


def read(file):
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _names(words):
    return ["B-PER", "I-PER"][: len(words)]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run on lists of words and labels, with all that follows it."""
    folder = tmp_path_factory.mktemp("tags")
    for split, count in {"train": 60, "validation": 10, "test": 12}.items():
        write_jsonl(folder / "data" / f"{split}.jsonl", sentences(count, count))
    words = (
        *SMALL,
        "--data.path=data",
        "--baseline=true",
        "--model.class_weight=balanced",
        "--model.optimizer.lr=0.02",
    )
    return fit(folder, "tagging", *words, "--trainer.max_epochs=12")


def test_it_learns_and_all_that_follows_a_fit_is_there(fitted):
    folder, said = fitted
    assert "the best checkpoint is that by val/entity_f1" in said
    summary = json.loads((folder / "summary.json").read_text())
    figures = {"loss", "accuracy", "f1", "entity_f1", "entity_precision", "entity_recall"}
    assert {f"test/{name}" for name in figures} <= summary.keys()
    assert {f"test/baseline_{name}" for name in figures} <= summary.keys()
    assert summary["test/entity_f1"] > 0.9
    assert summary["test/baseline_entity_f1"] > 0.9
    assert "logistic regression on words and their neighbours" in said
    report = read(folder / "test_report.csv")
    assert [row["label"] for row in report] == ["O", "B-PER", "I-PER"]
    truth = [tag for row in sentences(12, 12) for tag in row["tags"]]
    assert [int(row["support"]) for row in report] == [truth.count(name) for name in ("O", "B-PER", "I-PER")]
    assert (folder / "report.html").stat().st_size > 10_000
    assert "pipeline_tag: token-classification" in (folder / "model" / "README.md").read_text()


def test_the_saved_folder_answers_words_and_spans(fitted, capsys, monkeypatch, tmp_path):
    folder, _ = fitted
    answers = load_predictor(folder / "model")
    found = answers("Zoë Li sees Bob.")
    assert [word.text for word in found.words] == ["Zoë", "Li", "sees", "Bob", "."]
    assert [(span.text, span.label) for span in found.spans] == [("Zoë Li", "PER"), ("Bob", "PER")]
    given = answers({"tokens": ["Zoë", "Li", "sees", "Bob", "."]})
    assert given.labels == found.labels
    monkeypatch.chdir(tmp_path)
    lines = "".join(
        "".join(f"{word} {tag}\n" for word, tag in zip(row["tokens"], row["tags"], strict=True)) + "\n"
        for row in sentences(5, 12)
    )
    Path("new.conll").write_text(lines)
    Path("new.txt").write_text("Ann calls Bob.")
    words = ["predict", f"--model={folder / 'model'}", "--input"]
    predicting.main([*words, "new.conll", "--output=found.conll"])
    printed = capsys.readouterr().out
    assert "PER" in printed
    assert "words whose label is known" in printed
    columns = [line.split("\t") for line in Path("found.conll").read_text().splitlines() if line]
    right = [truth == answer for _, truth, answer in columns]
    assert f"accuracy {np.mean(right):.4f}, of {len(right)} words" in printed
    predicting.main([*words, "new.txt", "--output=found.csv"])
    (row,) = read("found.csv")
    assert json.loads(row["words"]) == ["Ann", "calls", "Bob", "."]
    assert [span["label"] for span in json.loads(row["spans"])] == ["PER", "PER"]
    assert {"text", "start", "end", "label", "probability"} == set(json.loads(row["spans"])[0])


def test_predictions_are_those_of_the_test_and_of_the_folder(fitted, cli):
    folder, _ = fitted
    words = ("--config", "tagging", *SMALL, f"--data.path={folder.parent / 'data'}", f"--output_dir={folder}", *QUIET)
    cli("predict", *words, "--predictions.path=all.jsonl")
    rows = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    truth, found = ([json.loads(row[name]) for row in rows] for name in ("label", "prediction"))
    assert truth == [row["tags"] for row in sentences(12, 12)]
    flat = [[tag for own in side for tag in own] for side in (truth, found)]
    assert accuracy_score(*flat) == pytest.approx(summary["test/accuracy"], abs=1e-6)
    predictor = load_predictor(folder / "model")
    assert found == [one.labels for one in predictor([json.loads(row["words"]) for row in rows])]
    cli("predict", *words, "--predictions.path=all.conll", "--data.batch_size=5")
    lines = Path("all.conll").read_text().split("\n\n")
    assert [[line.split("\t")[2] for line in part.splitlines()] for part in lines if part] == found


def test_a_run_that_is_stopped_goes_on_bit_by_bit(cli, tmp_path):
    write_jsonl(tmp_path / "train.jsonl", sentences(20))
    words = (*SMALL, "--data.path=train.jsonl", "--data.max_length=16", "--model.options.dropout=0.2")
    command = ("fit", "--config", "tagging", *words, *QUIET, "--trainer.max_epochs=2", "--test_after_fit=false")
    cli(*command, "--export=false", "--output_dir=whole")
    cli(*command, "--export=false", "--output_dir=part", "--trainer.max_steps=5")
    cli(*command, "--export=false", "--output_dir=part", "--ckpt_path=last")
    found, expected = weights("part"), weights("whole")
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_command_line_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "train.jsonl", sentences(16))
    printed = run("fit", "--config", "tagging", *SMALL, "--data.path=train.jsonl", *QUIET, "--trainer.max_epochs=1")
    assert "val/entity_f1" in printed
    assert (tmp_path / "outputs" / "tagging" / "model" / "config.json").is_file()


def task(names, counts=None, **options):
    target = {"kind": "tags", "rows": sum(counts or ()), "counts": counts}
    facts = {
        "labels": names,
        "input": "tokens",
        "options": {"num_classes": len(names), "vocab_size": 9},
        "target": target,
    }
    return Classification("lambda_encoder", {"dim": 8, "depth": 1, "scope": 3}, facts=facts, **options)


def test_networks_that_have_no_vector_for_each_word_are_refused():
    facts = {"labels": ["O", "B-x"], "input": "tokens", "options": {"num_classes": 2}, "target": {"kind": "tags"}}
    with pytest.raises(
        ValueError, match=r"options.strides: lambda_encoder has one vector for 4 positions.*strides \[\]"
    ):
        Classification("lambda_encoder", {"dim": 8, "depth": 1, "strides": [4]}, facts=facts)
    with pytest.raises(ValueError, match=r"huber=1.0: is of numbers"):
        Classification("lambda_encoder", {"dim": 8, "depth": 1}, facts=facts, huber=1.0)


def test_figures_of_words_are_scikit_learns_whatever_the_batches():
    names = ["NOUN", "VERB", "DET"]
    made = task(names)
    assert made.compared == "accuracy"
    assert made.judged_by(made.facts) == ("val/accuracy", "max")
    random = np.random.default_rng(0)
    y, found = random.integers(0, 3, (2, 30, 7))
    y[random.random(y.shape) < 0.3] = IGNORED
    known = y != IGNORED
    for sizes in ([30], [1, 4, 25]):
        metrics = made.metrics("test")
        assert set(metrics.keys()) == {"accuracy", "f1"}
        for one, two in zip(np.split(found, np.cumsum(sizes)[:-1]), np.split(y, np.cumsum(sizes)[:-1]), strict=True):
            metrics.update(torch.tensor(one), torch.tensor(two))
        figures = {name: float(value) for name, value in metrics.compute().items()}
        expected = accuracy_score(y[known], found[known]), f1_score(y[known], found[known], average="macro")
        assert (figures["accuracy"], figures["f1"]) == pytest.approx(expected, rel=1e-6)


def test_figures_of_entities_by_hand():
    names = ["O", "B-a", "I-a", "B-b", "I-b"]
    truth = ["B-a I-a O B-b", "O B-a O", "B-b I-b B-b O"]  # 5 entities
    found = ["B-a I-a O B-a", "I-a B-a O", "B-b I-b I-b O"]  # 5, of which 2 are right: both in the first two rows
    rows = [[[names.index(tag) for tag in row.split()] for row in side] for side in (found, truth)]
    width = max(map(len, rows[0]))
    answers, labels = (
        torch.tensor([row + [fill] * (width - len(row)) for row in side])
        for side, fill in zip(rows, (1, IGNORED), strict=True)
    )
    expected = {EntityPrecision: 2 / 5, EntityRecall: 2 / 5, EntityF1: 2 / 5}
    for kind, figure in expected.items():
        whole, parts = kind(names), kind(names)
        whole.update(answers, labels)
        for row in range(3):
            parts.update(answers[row : row + 1], labels[row : row + 1])
        assert float(whole.compute()) == pytest.approx(figure)
        assert float(parts.compute()) == pytest.approx(figure)
    empty = EntityF1(names)
    empty.update(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64))
    assert float(empty.compute()) == 0


def test_entities_are_counted_as_they_are_listed():
    random = np.random.default_rng(1)
    names = ["O", "B-a", "I-a", "E-a", "S-a", "B-b", "I-b", "E-b", "S-b"]
    y, found = torch.tensor(random.integers(0, 9, (2, 40, 12)))
    metric = EntityF1(names)
    metric.update(found, y)
    right, there, answered = 0, 0, 0
    for one, two in zip(found.tolist(), y.tolist(), strict=True):
        own, true = ({*entities([names[index] for index in row])} for row in (one, two))
        right, answered, there = right + len(own & true), answered + len(own), there + len(true)
    assert right > 10
    assert metric.counts.tolist() == [right, answered, there]


def test_the_loss_counts_words_alone_by_their_weight():
    made = task(["O", "B-x"], [30, 10], class_weight="balanced", label_smoothing=0.1)
    assert made.objective == Positions(label_smoothing=0.1, weight=(40 / 60, 40 / 20))
    logits = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, IGNORED], [1, IGNORED, IGNORED]])
    loss, count = Positions(weight=(0.5, 2.0)).loss(logits, labels)
    nats = -logits.log_softmax(-1)
    expected = (0.5 * nats[0, 0, 0] + 2 * nats[0, 1, 1] + 2 * nats[1, 0, 1]) / 3
    assert int(count) == 3
    assert torch.allclose(loss, expected)


def test_padding_changes_no_answer_and_no_gradient():
    made = task(["O", "B-x"]).eval()
    x = torch.randint(1, 9, (1, 10), generator=torch.Generator().manual_seed(0))
    position, label = torch.tensor([[0, 3, 7]]), torch.tensor([[0, 1, 1]])

    def grads(width, words):
        wide = torch.zeros(2, width, dtype=torch.int64)
        mask = torch.zeros(2, width, dtype=torch.bool)
        wide[0, :10], mask[0, :10] = x, True
        wide[1, :2], mask[1, :2] = 3, True
        filled = torch.full((2, words), IGNORED)
        place = torch.zeros(2, words, dtype=torch.int64)
        filled[0, :3], place[0, :3] = label, position
        batch = {
            "x": wide,
            "mask": mask,
            "at_once": 9,
            "position": place,
            "window": torch.tensor([[0], [1]]).expand(2, words),
        }
        logits = made(batch)
        loss, _ = made.objective.loss(logits, filled)
        made.zero_grad()
        loss.backward()
        return logits[0, :3], [weight.grad.clone() for weight in made.network.parameters()]

    one, two = grads(10, 3), grads(64, 20)
    assert torch.allclose(one[0], two[0], atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one[1], two[1], strict=True))
