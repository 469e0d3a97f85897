"""Texts as bytes."""

import datasets
import pytest
import torch
from small_data import write_jsonl

from tasks.data import TextData
from tasks.data.text import pad


def data(tmp_path, texts, labels=None, **options):
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels or [0, 1] * len(texts), strict=False)]
    file = write_jsonl(tmp_path / "texts.jsonl", rows)
    return TextData(str(file), validation_fraction=0, **options)


def test_tokens_are_bytes_plus_one(tmp_path):
    items = data(tmp_path, ["aé\x00", "", "b" * 10], max_length=4)
    loader = items._in_order(items.split("train"), "train")
    batch = next(iter(loader))
    assert batch["x"].tolist() == [[98, 0xC3 + 1, 0xA9 + 1, 1], [0] * 4, [99] * 4]
    assert batch["mask"].tolist() == [[True] * 4, [False] * 4, [True] * 4]
    assert batch["label"].tolist() == [0, 1, 0]
    assert batch["id"] == ["0", "1", "2"]
    assert items.facts["options"] == {"num_classes": 2, "vocab_size": 257, "max_length": 4}


def test_a_missing_text_is_an_empty_one(tmp_path):
    items = data(tmp_path, ["a", None])
    assert [len(item["x"]) for item in items.rows_as_items(items.split("train"), "train")] == [1, 0]
    assert items.lengths(items.split("train")).tolist() == [1, 0]


def test_batches_are_padded_to_a_multiple():
    def item(count):
        return {"x": torch.ones(count, dtype=torch.int64), "id": "0"}

    assert pad([item(3), item(9)], multiple=8, most=None)["x"].shape == (2, 16)
    assert pad([item(0)], multiple=8, most=None)["x"].shape == (1, 8)
    assert pad([item(9)], multiple=8, most=10)["x"].shape == (1, 10)
    assert "label" not in pad([item(3)], multiple=8, most=None)


def test_buckets_are_by_bytes_up_to_the_greatest_length(tmp_path):
    items = data(tmp_path, ["é" * 3, "a" * 50, "b"], max_length=20)
    assert items.lengths(items.split("train")).tolist() == [6, 20, 1]
    assert data(tmp_path, ["a", "b"], bucket=False).lengths(items.split("train")) is None


def test_binary_columns_and_names(tmp_path):
    table = datasets.Dataset.from_dict({"raw": [b"\xff\xfe", b"\x00"], "kind": ["x", "y"]})
    table.to_parquet(tmp_path / "raw.parquet")
    items = TextData(
        str(tmp_path / "raw.parquet"), text_column="raw", label_column="kind", validation_fraction=0, max_length=8
    )
    assert [item["x"].tolist() for item in items.rows_as_items(items.split("train"), "train")] == [[256, 255], [1]]
    wrong = TextData(str(tmp_path / "raw.parquet"), text_column="body", label_column="kind", validation_fraction=0)
    with pytest.raises(ValueError, match="text_column='body'"):
        wrong.train_dataloader()


def test_a_column_without_texts(tmp_path):
    table = datasets.Dataset.from_dict({"text": [1, 2], "label": ["x", "y"]})
    table.to_parquet(tmp_path / "numbers.parquet")
    with pytest.raises(ValueError, match=r"text_column='text' holds .*expected strings or bytes"):
        TextData(str(tmp_path / "numbers.parquet"), validation_fraction=0).train_dataloader()


@pytest.mark.parametrize("option", ["max_length", "pad_to_multiple"])
def test_bad_options(option):
    with pytest.raises(ValueError, match=f"{option}=0: expected at least 1 byte"):
        TextData("anywhere", **{option: 0})
