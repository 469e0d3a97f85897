"""Text to predict: counted as `LanguageModelling` counts it, and near the entropy of a source that is known."""

import json
import math
from bisect import bisect
from pathlib import Path

import numpy as np
import pytest
from small_data import write_jsonl

from lambda_seq.tasks.baselines import language
from lambda_seq.tasks.baselines.registry import fit_baseline
from lambda_seq.tasks.data import CorpusData
from lambda_seq.tasks.data.language.packs import IGNORED

STEPS = np.array([[0.8, 0.15, 0.05], [0.1, 0.1, 0.8], [0.5, 0.45, 0.05]])  # from each of three letters to the next


def source(count, seed):
    up_to, letter, found = STEPS.cumsum(1).tolist(), 0, []
    for draw in np.random.default_rng(seed).random(count).tolist():
        letter = min(bisect(up_to[letter], draw), 2)
        found.append("abc"[letter])
    return "".join(found)


def entropy():
    """Bits of a letter of the source behind another."""
    values, vectors = np.linalg.eig(STEPS.T)
    share = np.real(vectors[:, np.argmax(np.real(values))])
    return float((share / share.sum()) @ -(STEPS * np.log2(STEPS)).sum(1))


@pytest.fixture
def folder(tmp_path):
    for seed, (split, count) in enumerate({"train": 20_000, "validation": 4000, "test": 4000}.items()):
        write_jsonl(tmp_path / "text" / f"{split}.jsonl", [{"text": source(count, seed)}])
    return str(tmp_path / "text")


def test_a_source_whose_entropy_is_known(folder):
    found = fit_baseline(CorpusData(folder))
    bits = found.figures["test"]["bits_per_byte"]
    assert entropy() - 0.06 < bits < entropy() + 0.06
    assert found.chosen["order"] in (2, 3, 4)
    assert found.name == f"{found.chosen['order']}-grams of bytes"
    assert found.chosen["training_tokens"] == 20_002
    # A document of 4,000 bytes has 4,001 predictions, as its end is predicted, too
    loss = found.figures["test"]["loss"]
    assert bits == pytest.approx(loss * 4001 / math.log(2) / 4000)
    assert found.figures["test"]["perplexity"] == pytest.approx(math.exp(loss))


@pytest.mark.parametrize("options", [{}, {"tokenizer": "train", "vocab_size": 280}, {"test_fraction": 0.2}])
def test_predictions_and_bytes_are_those_of_the_network(tmp_path, options, monkeypatch):
    texts = [{"text": text} for text in ("naïve cats", "", "a", "dogs and cats and dogs " * 30, "end")] * 3
    file = write_jsonl(tmp_path / "text.jsonl", texts)
    data = CorpusData(str(file), validation_fraction=0.3, length=16, **options)
    tokens, size = 0, 0.0
    for batch in data.val_dataloader():
        tokens, size = tokens + int((batch["target"] != IGNORED).sum()), size + float(batch["bytes"].sum())
    monkeypatch.setattr(language, "TOGETHER", 50)
    found = [(int(text.predicted.sum()), own) for text, own in language._texts(data, "validation")]
    assert sum(count for count, _ in found) == tokens
    assert sum(own for _, own in found) == pytest.approx(size)
    assert fit_baseline(data).figures["val"]["loss"] > 0


def test_without_validation_the_end_of_the_training_text_tells_the_order(folder, tmp_path):
    file = write_jsonl(tmp_path / "one.jsonl", [{"text": source(20_000, 3)}])
    found = fit_baseline(CorpusData(str(file), validation_fraction=0.0, test_fraction=0.1))
    assert set(found.figures) == {"test"}
    assert "order chosen on the end of the training text" in found.line
    assert found.figures["test"]["bits_per_byte"] < entropy() + 0.06


def test_a_long_text_is_counted_up_to_a_bound(folder, monkeypatch):
    monkeypatch.setattr(language, "MOST", 5000)
    found = fit_baseline(CorpusData(folder))
    assert found.chosen["training_tokens"] == 5001
    assert "the first 5,001 training bytes" in found.line
    assert found.figures["test"]["bits_per_byte"] < entropy() + 0.1


def test_a_stream_gives_the_same(folder):
    streamed = fit_baseline(CorpusData(folder, streaming=True))
    assert streamed.figures == fit_baseline(CorpusData(folder)).figures


def test_the_command(cli, folder):
    printed = cli("baseline", "--config", "language_modelling", "--data.path", folder)
    found = json.loads(Path("outputs/language_modelling/baseline.json").read_text())
    assert found["test/baseline_bits_per_byte"] < 1.3
    assert f"test/baseline_bits_per_byte {found['test/baseline_bits_per_byte']:.4f}" in printed.out
    assert "interpolated Kneser–Ney" in printed.out
