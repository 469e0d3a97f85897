"""Texts: the baseline reads as much of a text as the network, and is right where the right figure is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_data import write_jsonl

from lambda_seq.tasks.baselines import texts as texts_baseline
from lambda_seq.tasks.baselines.registry import fit_baseline
from lambda_seq.tasks.baselines.texts import read
from lambda_seq.tasks.data import TextData

FILLER = ["the", "cat", "sat", "on", "a", "mat", "while", "it", "rained", "and", "nobody", "came", "to", "see"]


def rows(count, seed, *, last=False, noise=0.0):
    """Texts of 30 words, of which one says the class, the first or the last one."""
    random, found = np.random.default_rng(seed), []
    for row in range(count):
        words = random.choice(FILLER, 30).tolist()
        words[-1 if last else 0] = ("wonderful", "dreadful")[row % 2]
        label = row % 2 if random.random() >= noise else 1 - row % 2
        found.append({"text": " ".join(words), "label": ("good", "bad")[label]})
    return found


@pytest.fixture
def folder(tmp_path):
    def make(**options):
        for seed, (split, count) in enumerate({"train": 120, "validation": 40, "test": 40}.items()):
            write_jsonl(tmp_path / "texts" / f"{split}.jsonl", rows(count, seed, **options))
        return str(tmp_path / "texts")

    return make


def test_a_word_that_says_all(folder):
    found = fit_baseline(TextData(folder()))
    for stage in ("val", "test"):
        assert found.figures[stage]["accuracy"] == 1.0
        assert found.figures[stage]["f1"] == 1.0
        assert found.figures[stage]["majority"] == 0.5
    assert found.name.startswith("TF-IDF of ")
    assert "120 training texts (the start, up to 4,096 bytes)" in found.line
    assert "chosen on 40 validation texts" in found.line
    assert found.seconds > 0
    assert set(found.chosen) == {"features", "C", "training_rows", "tried"}


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({"max_length": 60}, False),
        ({"max_length": 60, "part": "end"}, True),
        ({"max_length": 60, "part": "windows"}, True),
        ({"max_length": 60, "part": "middle"}, False),
        ({"max_length": 20, "tokenizer": "train", "vocab_size": 300, "part": "end"}, True),
        ({"max_length": 20, "tokenizer": "train", "vocab_size": 300}, False),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_the_network_does_not_read_the_baseline_does_not_know(folder, options, right):
    accuracy = fit_baseline(TextData(folder(last=True), **options)).figures["test"]["accuracy"]
    assert accuracy == 1.0 if right else accuracy < 0.8


def test_as_much_as_the_network_reads(folder):
    data = TextData(folder(), max_length=50, part="middle")
    whole = TextData(data.path)
    for text, all_of_it in zip(
        read(data, data.split("test"), "test"), read(whole, whole.split("test"), "test"), strict=True
    ):
        assert len(text) == 50
        begin = (len(all_of_it) - 50) // 2
        assert all_of_it[begin : begin + 50] == text
    drawn = TextData(data.path, max_length=50, part="random")
    assert {len(text) > 50 for text in read(drawn, drawn.split("train"), "train")} == {True}
    assert {len(text) for text in read(drawn, drawn.split("test"), "test")} == {50}


def test_a_part_of_a_text_whose_tokens_are_no_text(folder):
    data = TextData(folder(last=True), max_length=5, part="end", tokenizer="words")
    assert data.tokens.kind == "words"
    for text in read(data, data.split("test"), "test"):
        assert 5 < len(text) < 40


def test_noise_in_the_labels_stays_in_the_figures(folder):
    figures = fit_baseline(TextData(folder(noise=0.25))).figures
    assert 0.5 < figures["test"]["accuracy"] < 0.95


def test_without_validation_by_cross_validation(tmp_path):
    file = write_jsonl(tmp_path / "texts.jsonl", rows(90, 0))
    found = fit_baseline(TextData(str(file), validation_fraction=0.0, test_fraction=0.2))
    assert set(found.figures) == {"test"}
    assert found.figures["test"]["accuracy"] == 1.0
    assert "chosen by cross-validation in 3 parts, as there is no validation split" in found.line


def test_many_texts_are_a_sample(folder, monkeypatch):
    monkeypatch.setattr(texts_baseline, "HELD", 20)
    monkeypatch.setattr(texts_baseline, "BYTES", 60 * 130)
    found = fit_baseline(TextData(folder()))
    assert 40 < found.chosen["training_rows"] < 80
    assert f"{found.chosen['training_rows']} of 120 training texts" in found.line
    assert "chosen on 20 of 40 validation texts" in found.line
    assert found.figures["test"]["accuracy"] == 1.0


def test_texts_without_anything_in_them(tmp_path):
    file = write_jsonl(tmp_path / "texts.jsonl", [{"text": " ", "label": row % 2} for row in range(40)])
    with pytest.raises(ValueError, match="have no words and no characters to learn from"):
        fit_baseline(TextData(str(file), text_column="text"))


def test_the_command(cli, folder):
    printed = cli("baseline", "--config", "text_classification", "--data.path", folder())
    found = json.loads(Path("outputs/text_classification/baseline.json").read_text())
    assert found["test/baseline_accuracy"] == found["val/baseline_accuracy"] == 1.0
    assert "test/baseline_accuracy 1.0000" in printed.out
    assert found["fitted"] in printed.out
    assert "outputs/text_classification/baseline.json" in printed.out
