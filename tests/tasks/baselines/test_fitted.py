"""What is said of a baseline: names of figures, the file, and the difference to a network in words."""

import json

import pytest

from lambda_seq.tasks.baselines.fitted import FILE, Fitted

FIGURES = {"val": {"accuracy": 0.9, "f1": 0.8}, "test": {"accuracy": 0.872, "f1": 0.7}}
FOUND = Fitted("TF-IDF", "TF-IDF: 3 texts", FIGURES, {"C": 10.0}, 1.26)
TEXT = Fitted("5-grams of bytes", "5-grams", {"test": {"bits_per_byte": 2.0, "loss": 1.4}})


def test_figures_have_the_names_of_simple_rules():
    assert FOUND.logged("test") == {"test/baseline_accuracy": 0.872, "test/baseline_f1": 0.7}
    assert set(FOUND.logged()) == {f"{stage}/baseline_{name}" for stage in ("val", "test") for name in FIGURES["val"]}


def test_the_file(tmp_path):
    file = FOUND.write(tmp_path / "new" / "run")
    assert file.name == FILE
    assert json.loads(file.read_text()) == {
        "baseline": "TF-IDF",
        "fitted": "TF-IDF: 3 texts",
        **FOUND.logged(),
        "chosen": {"C": 10.0},
        "seconds": 1.3,
    }


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (0.885, "test accuracy: the baseline (TF-IDF) reaches 0.872, the network 0.885"),
        (0.85, "the network 0.850: the network is below the baseline"),
        (0.872, "the network 0.872: no better than the baseline"),
    ],
)
def test_a_difference_in_words(network, words):
    said = FOUND.beside({"accuracy": network}, "test", "accuracy")
    assert words in said
    assert ("below" in said) == (network < 0.872)


def test_fewer_bits_are_better():
    assert "below" not in TEXT.beside({"bits_per_byte": 1.9}, "test", "bits_per_byte")
    assert "the network is below the baseline" in TEXT.beside({"bits_per_byte": 2.1}, "test", "bits_per_byte")
    assert TEXT.beside({"bits_per_byte": 2.1}, "val", "bits_per_byte") is None
    assert TEXT.beside({}, "test", "bits_per_byte") is None
