"""The baseline of labels of words."""

import numpy as np
import pytest
from small_data import write_jsonl

from lambda_seq.tasks.baselines.registry import fit_baseline
from lambda_seq.tasks.baselines.tags import features, shape
from lambda_seq.tasks.data import TagData


def test_features_of_words():
    one, two = features(["Zoë", "U.S."])
    assert {"word=Zoë", "lower=zoë", "shape=Xx", "1:lower=u.s.", "1:shape=X.X.", "-1:end", "last=ë"} <= {*one}
    assert {"word=U.S.", "-1:lower=zoë", "1:end", "first=u.s"} <= {*two}
    assert [shape(word) for word in ("Paris", "3.14", "x2Y", "東京", "")] == ["Xx", "d.d", "xdX", "a", ""]


def test_it_knows_a_word_by_its_neighbour(tmp_path):
    random, rows = np.random.default_rng(0), []
    for _ in range(80):
        title = random.random() < 0.5
        name = f"N{random.integers(10**6)}"
        rows.append(
            {"tokens": ["Mr" if title else "in", name, "rests"], "tags": ["O", "B-PER" if title else "B-LOC", "O"]}
        )
    write_jsonl(tmp_path / "a.jsonl", rows)
    data = TagData(str(tmp_path / "a.jsonl"), test_fraction=0.25)
    found = fit_baseline(data)
    assert found.figures["test"]["entity_f1"] == 1
    assert found.figures["test"]["accuracy"] == 1
    assert found.figures["test"]["majority"] == pytest.approx(2 / 3)
    assert "training words" in found.line


def test_without_entities_there_are_figures_of_words(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"tokens": ["a", "b"], "tags": ["DET", "NOUN"]}] * 20)
    found = fit_baseline(TagData(str(tmp_path / "a.jsonl")))
    assert set(found.figures["val"]) == {"accuracy", "f1", "loss", "majority"}
