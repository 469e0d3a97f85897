"""Texts as bytes and as tokens, whole, in part and in windows."""

import gzip
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pytest
import torch
from small_data import QUIET, SHORT, TINY_ENCODER, texts, write_jsonl

from lambda_seq.inference.texts import Reading, count_windows
from lambda_seq.models.words import word_ids
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data import CorpusData, TextData
from lambda_seq.tasks.data.reading.cache import in_batches
from lambda_seq.tasks.data.reading.corpus import Corpus, Texts
from lambda_seq.tasks.data.reading.documents import pad
from lambda_seq.tasks.data.reading.tokens import Tokens

TEXTS = ("--config", "tasks/configs/text_classification.yaml", "--data.batch_size=8", *TINY_ENCODER)
WINDOWS = ("--data.part=windows", "--data.max_length=16", "--data.stride=8")


def data(tmp_path, texts, labels=None, **options):
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels or [0, 1] * len(texts), strict=False)]
    file = write_jsonl(tmp_path / "texts.jsonl", rows)
    return TextData(str(file), validation_fraction=0, **options)


def in_order(items, split="train"):
    return list(items._in_order(items.split(split), split))


def tokens_of(items, training=False, epoch=0):
    """What is read of each text, as text."""
    rows = items.rows_as_items(items.split("train"), "train", training=training)
    return [items.tokens.decode(rows[epoch, row]["x"]) for row in range(len(rows))]


def test_tokens_are_bytes_plus_one(tmp_path):
    items = data(tmp_path, ["aé\x00", "", "b" * 10], max_length=4)
    (batch,) = in_order(items)
    assert batch["x"].tolist() == [[98, 0xC3 + 1, 0xA9 + 1, 1], [0] * 4, [99] * 4]
    assert batch["mask"].tolist() == [[True] * 4, [False] * 4, [True] * 4]
    assert batch["label"].tolist() == [0, 1, 0]
    assert batch["id"] == ["0", "1", "2"]
    assert items.facts.options == {"num_classes": 2, "vocab_size": 257, "max_length": 4}
    assert items.facts.tokens.to_dict() == Tokens().facts | {"max_length": 4, "part": "start"}


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
    assert pad([item(3)], multiple=4, most=None, value=7)["x"].tolist() == [[1, 1, 1, 7]]
    assert "label" not in pad([item(3)], multiple=8, most=None)


def test_buckets_are_by_tokens_up_to_the_greatest_length(tmp_path):
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "max_length=0: expected at least 1 token"),
        ({"pad_to_multiple": 0}, "pad_to_multiple=0: expected at least 1 token"),
        ({"part": "whole"}, "part='whole': expected one of start, middle, end, random, windows"),
        ({"train_windows": "some"}, "train_windows='some': expected one of random, all"),
        ({"stride": 8}, "stride=8 with part='start'.*--data.part windows"),
        ({"part": "windows", "stride": 0}, "stride=0 .*from 1 to max_length"),
        ({"part": "windows", "stride": 65, "max_length": 64}, "stride=65 .*max_length=64"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TextData("anywhere", **options)


# Parts and windows


@pytest.mark.parametrize(("part", "read"), [("start", "abcd"), ("middle", "defg"), ("end", "ghij")])
def test_a_part_of_each_text(tmp_path, part, read):
    items = data(tmp_path, ["abcdefghij", "xyz", ""], max_length=4, part=part)
    for training in (False, True):
        assert tokens_of(items, training) == [read, "xyz", ""]


def test_random_parts_change_by_epoch_and_only_in_training(tmp_path):
    text = "".join(map(chr, range(32, 127)))
    items = data(tmp_path, [text, "xyz", ""] * 4, max_length=8, part="random")
    seen = {tokens_of(items, True, epoch)[0] for epoch in range(200)}
    assert len(seen) > 60
    assert seen <= {text[begin : begin + 8] for begin in range(len(text) - 7)}
    assert {text[:8], text[-8:]} & seen  # the ends are drawn like all others
    assert tokens_of(items, True, 3) == tokens_of(items, True, 3)
    assert len(set(tokens_of(items, True, 3)[::3])) > 1  # each row draws its own
    assert tokens_of(items, False, 3) == tokens_of(items, False, 4)
    assert tokens_of(items)[0] == text[43:51]


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 11, 12, 13, 30])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_windows_cover_a_text_and_are_full(length, stride):
    reading = Reading(8, "windows", stride)
    count = int(count_windows(np.array([length]), 8, stride)[0])
    begins = [reading.window(length, number) for number in range(count)]
    assert begins[0] == 0
    assert begins[-1] == max(length - 8, 0)
    assert all(0 < second - first <= stride for first, second in pairwise(begins))
    assert count == 1 or begins[-2] < length - 8


def test_all_windows_of_a_text_are_in_one_batch(tmp_path):
    items = data(tmp_path, ["abcdefghij", "", "xyz", "klmnopqrstuvwxyz"], part="windows", max_length=4, stride=3)
    items.batch_size = 4
    batches = in_order(items)
    read = [[items.tokens.decode(row) for row in batch["x"]] for batch in batches]
    assert read == [["abcd", "defg", "ghij", ""], ["xyz"], ["klmn", "nopq", "qrst", "tuvw", "wxyz"]]
    assert [batch["document"].tolist() for batch in batches] == [[0, 0, 0, 1], [0], [0] * 5]
    assert [batch["label"].tolist() for batch in batches] == [[0, 1], [0], [1]]
    assert [batch["id"] for batch in batches] == [["0", "1"], ["2"], ["3"]]
    assert batches[0]["mask"].sum(1).tolist() == [4, 4, 4, 0]


def test_training_takes_one_window_of_each_text_or_all(tmp_path):
    items = data(tmp_path, ["abcdefghij", "", "xyz"], part="windows", max_length=4, stride=3)
    seen = [tokens_of(items, True, epoch) for epoch in range(30)]
    assert {parts[0] for parts in seen} > {"abcd", "ghij", "bcde"}  # not at strides only
    assert {tuple(parts[1:]) for parts in seen} == {("", "xyz")}
    every = data(tmp_path, ["abcdefghij", "", "xyz"], part="windows", max_length=4, stride=3, train_windows="all")
    assert tokens_of(every, True) == ["abcd", "defg", "ghij", "", "xyz"]
    rows = every.rows_as_items(every.split("train"), "train", training=True)
    assert [rows[0, index]["label"] for index in range(5)] == [0, 0, 0, 1, 0]
    assert [rows[0, index]["id"] for index in range(5)] == ["0", "0", "0", "1", "2"]
    assert every.lengths(every.split("train")).tolist() == rows.lengths.tolist() == [4, 4, 4, 0, 3]
    every.batch_size = 2
    assert sum(len(batch["label"]) for batch in every.train_dataloader()) == 4  # the rest, of one row, is dropped


def test_the_answer_to_a_document_is_the_mean_over_its_windows(tmp_path):
    items = data(tmp_path, ["abcdefghij" * 3, "", "xyz"], part="windows", max_length=4, stride=3, pad_to_multiple=4)
    task = Classification("lambda_encoder", {"dim": 8, "depth": 1, "heads": 2, "scope": 3}, facts=items.facts).eval()
    (batch,) = in_order(items)
    alone = task.network(batch["x"], batch["mask"]).softmax(-1)  # (windows, classes)
    expected = torch.stack([alone[batch["document"] == place].mean(0) for place in range(3)])
    for at_once in (1, 4, 32):  # a text with many windows is read piece by piece
        found = task.predict_step(batch | {"at_once": at_once}, 0)
        assert torch.allclose(found["probabilities"], expected, atol=1e-6)
        assert found["id"] == ["0", "1", "2"]
    assert torch.allclose(task(batch).exp().sum(-1), torch.ones(3))


def test_windows_on_the_command_line_count_texts(cli, stories):
    fitted = cli("fit", *TEXTS, *WINDOWS, "--data.path", stories, *SHORT, "--data.num_workers=1")
    assert "test/accuracy" in fitted.out
    result = cli("predict", *TEXTS, *WINDOWS, "--data.path", stories, *QUIET, "--predictions.path=p.jsonl")
    assert "8 predictions" in result.out
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(row) for row in range(8)]
    for row in rows:
        assert row["probability: canine"] + row["probability: feline"] == pytest.approx(1, abs=1e-5)


# Rows without labels


def unlabelled(folder, kind):
    """Train and validation with labels, and test rows without: no column, empty cells, −1, or some of them."""
    if kind == "class labels":
        features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["x", "y"]))

        def made(labels):
            return datasets.Dataset.from_dict({"text": ["abc"] * len(labels), "label": labels}, features=features)

        saved = datasets.DatasetDict(train=made([0, 1] * 8), validation=made([0, 1] * 2), test=made([-1] * 5))
        saved.save_to_disk(str(folder))
        return folder
    folder.mkdir()
    rows = [f"text {row},{'xy'[row % 2]}" for row in range(16)]
    (folder / "train.csv").write_text("\n".join(["text,label", *rows]))
    (folder / "validation.csv").write_text("\n".join(["text,label", *rows[:4]]))
    labels = {"no column": [""] * 5, "empty": [","] * 5, "some": [",x", ",", ",y", ",", ","]}[kind]
    header = "text" if kind == "no column" else "text,label"
    (folder / "test.csv").write_text("\n".join([header, *(f"test {row}{label}" for row, label in enumerate(labels))]))
    return folder


@pytest.mark.parametrize("kind", ["class labels", "no column", "empty", "some"])
def test_test_rows_without_labels_are_predicted_and_not_tested(tmp_path, caplog, kind):
    items = TextData(str(unlabelled(tmp_path / "data", kind)), batch_size=8)
    assert len(list(items.train_dataloader())) == 2
    assert len(list(items.val_dataloader())) == 1
    assert items.tested == (kind == "some")
    (batch,) = items.predict_dataloader()
    assert batch["id"] == [str(row) for row in range(5)]
    assert "label" not in batch
    if kind == "some":
        (batch,) = items.test_dataloader()
        assert batch["id"] == ["0", "2"]
        assert batch["label"].tolist() == [0, 1]
        assert "3 of 5 rows have no label: row 1, row 3, row 4; the test is of the others" in caplog.text
    else:
        assert caplog.text.count("its 5 rows have no labels, so that it is not tested; predict answers them") == 1
        with pytest.raises(ValueError, match=r"5 rows have no labels, so that it cannot be tested.*lambda-seq predict"):
            items.test_dataloader()


def test_test_rows_without_labels_on_the_command_line(cli, tmp_path):
    command = (*TEXTS, "--data.path", unlabelled(tmp_path / "data", "no column"), "--data.batch_size=4")
    fitted = cli("fit", *command, *SHORT)
    assert "best checkpoint" in fitted.out
    assert "test/accuracy" not in fitted.out
    result = cli("test", *command, *QUIET, code=1)
    assert result.err.count("error: ") == 1
    assert "its 5 rows have no labels, so that it cannot be tested" in result.err
    assert "5 predictions" in cli("predict", *command, *QUIET, "--predictions.path=p.jsonl").out


@pytest.mark.parametrize(("fraction", "count"), [(0.25, 4), (0, 0)])
def test_validation_rows_without_labels(tmp_path, caplog, fraction, count):
    folder = unlabelled(tmp_path / "data", "empty")
    (folder / "test.csv").rename(folder / "validation.csv")
    items = TextData(str(folder), validation_fraction=fraction)
    assert {name: len(rows) for name, rows in items.splits.items()} == {"train": 16 - count} | (
        {"validation": count} if count else {}
    )
    assert "validation split of" in caplog.text
    assert ("0.25 of the training rows are held out" if count else "there is no validation") in caplog.text
    unlabelled(tmp_path / "part", "some")
    (tmp_path / "part" / "test.csv").rename(tmp_path / "part" / "validation.csv")
    with pytest.raises(
        ValueError, match=r"validation split of .*3 of 5 rows have no label: row 1, row 3, row 4; label"
    ):
        _ = TextData(str(tmp_path / "part")).splits


def test_texts_without_classes(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match=r"there are no classes; put files of each class into a folder of its own"):
        _ = TextData(str(tmp_path)).splits


def test_columns_of_csv_that_are_no_texts(tmp_path):
    (tmp_path / "a.csv").write_text("id,comment,stars,class\n007,fine,4.5,y\n008,bad,1e0,n\n,NA,,y\n")
    items = TextData(str(tmp_path / "a.csv"), validation_fraction=0)
    assert tokens_of(items) == ["fine", "bad", "NA"]
    assert tokens_of(TextData(str(tmp_path / "a.csv"), validation_fraction=0, text_column="id")) == ["007", "008", ""]
    stream = CorpusData(str(tmp_path / "a.csv"), validation_fraction=0, streaming=True, length=2)
    assert stream.content(stream.splits["train"]) == "comment"
    (tmp_path / "a.csv").write_text("stars,class\n1,y\n2,n\n")
    with pytest.raises(ValueError, match=r"no column chosen for text_column: .*--data.text_column NAME"):
        TextData(str(tmp_path / "a.csv"), validation_fraction=0).train_dataloader()


def test_empty_texts_are_counted(tmp_path, caplog):
    items = data(tmp_path, ["a", "", None, "b", ""])
    assert tokens_of(items) == tokens_of(items, training=True) == ["a", "", "", "b", ""]
    assert caplog.text.count("3 of 5 texts are empty: row 1, row 2, row 4; they stay, without a token") == 1


# Tokenizers


def test_a_tokenizer_of_the_training_split(tmp_path):
    items = data(tmp_path, ["the cat sat", "the dog", "", None, "the naïve cat"], tokenizer="train", vocab_size=270)
    assert items.tokens.kind == "tokenizer"
    assert items.tokens.vocab_size <= 270
    assert tokens_of(items) == ["the cat sat", "the dog", "", "", "the naïve cat"]
    assert items.facts.options["vocab_size"] == items.tokens.vocab_size
    assert Tokens.from_facts(items.facts.tokens.to_dict()).fingerprint == items.tokens.fingerprint
    lengths = items.lengths(items.split("train"))
    assert lengths.tolist() == [len(items.tokens.encode(text)) for text in tokens_of(items)]
    assert 0 < lengths[0] < len("the cat sat")
    again = data(tmp_path, ["the cat sat", "the dog", "", None, "the naïve cat"], tokenizer="train", vocab_size=270)
    assert again.tokens.facts == items.tokens.facts


def test_a_loaded_tokenizer_and_its_padding(tmp_path):
    tokens = Tokens.train(["ab ab", "cd"], 260, folder=tmp_path)
    renamed = tokens.tokenizer.to_str().replace('"<pad>"', '"<s>"')  # so that padding becomes the last id
    (tmp_path / "tokenizer.json").write_text(renamed)
    items = data(tmp_path, ["ab", "", "abcd abcd"], tokenizer=str(tmp_path), max_length=3, part="end")
    (batch,) = in_order(items)
    assert items.tokens.pad == items.tokens.vocab_size - 1 == tokens.vocab_size
    assert batch["x"][1].tolist() == [items.tokens.pad] * 3
    assert batch["mask"].sum(1).tolist() == [len(tokens.encode("ab")), 0, 3]
    assert tokens_of(items)[2] == tokens.decode(tokens.encode("abcd abcd")[-3:])


def test_undecodable_bytes_become_a_visible_sign(tmp_path):
    table = datasets.Dataset.from_dict({"text": [b"cat \xff\xfe", b"\xff", b"dog"], "label": ["x", "y", "x"]})
    table.to_parquet(tmp_path / "raw.parquet")
    for tokenizer in ("bytes", "train"):
        items = TextData(str(tmp_path / "raw.parquet"), validation_fraction=0, tokenizer=tokenizer, vocab_size=260)
        assert tokens_of(items) == ["cat \ufffd\ufffd", "\ufffd", "dog"]


def test_windows_of_tokens(tmp_path):
    text = "the cat sat on the mat " * 5
    items = data(tmp_path, [text, "", "x"], tokenizer="train", vocab_size=265, part="windows", max_length=10, stride=10)
    (batch,) = in_order(items)
    whole = items.tokens.encode(text)
    assert (batch["document"] == 0).sum() == count_windows(np.array([len(whole)]), 10, 10)[0]
    assert batch["x"][1].tolist() == whole[10:20].tolist()
    assert batch["x"][batch["document"] == 0][-1].tolist() == whole[-10:].tolist()


def test_words(tmp_path):
    given = ["The cat, the CAT", "", None, "naïve 世界", " "]
    items = data(tmp_path, given, tokenizer="words", max_length=5)
    batch = in_order(items)[0]
    for row, text in enumerate(given):
        expected = word_ids(text or "")[:5]
        assert batch["x"][row][batch["mask"][row]].tolist() == expected
    assert items.facts.options == {"num_classes": 2, "vocab_size": 2**31, "max_length": 5}
    assert Tokens.from_facts(items.facts.tokens.to_dict()).encode("cat").tolist() == word_ids("cat")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["abcd", "x", ""]),
        ({"part": "middle"}, ["cdef", "x", ""]),
        ({"part": "end"}, ["efgh", "x", ""]),
        ({"part": "random"}, ["abcd", "efgh", "x", ""]),
        ({"part": "windows", "stride": 3}, ["abcd", "defg", "efgh", "x", ""]),
    ],
    ids=str,
)
def test_what_is_counted_is_what_may_be_read(tmp_path, options, expected):
    items = data(tmp_path, ["abcdefgh", "x", ""], max_length=4, **options)
    assert [items.tokens.decode(ids) for ids in items.training_ids()] == expected


def test_a_tokenizer_on_the_command_line(cli, stories):
    options = (*TEXTS, "--data.path", stories, "--data.tokenizer=train", "--data.vocab_size=280")
    cli("fit", *options, *SHORT)
    checkpoint = torch.load("outputs/text_classification/checkpoints/best.ckpt", weights_only=True)
    tokens = Tokens.from_facts(checkpoint["hyper_parameters"]["facts"]["tokens"])
    assert checkpoint["state_dict"]["network.stem.embedding.weight"].shape[0] == tokens.vocab_size <= 280
    assert "test/accuracy" in cli("test", *options, *QUIET).out  # which trains or finds the same tokenizer


# What can be wrong


def test_another_vocabulary_than_the_checkpoints(cli, stories, tmp_path):
    options = ("--data.tokenizer=train", "--data.vocab_size=270")
    cli("fit", *TEXTS, "--data.path", stories, *options, *SHORT)
    other = write_jsonl(tmp_path / "other.jsonl", [row | {"text": row["text"].upper()} for row in texts(40)])
    for path, given in (
        (other, options),
        (stories, ("--data.tokenizer=bytes",)),
        (stories, (*options, "--data.vocab_size=262")),
    ):
        result = cli("validate", *TEXTS, "--data.path", path, *given, *QUIET, code=1)
        assert "the checkpoint has another vocabulary than the data" in result.err
        assert "--data.tokenizer" in result.err
        assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data.tokenizer=nobody/nothing",), ("tokenizer='nobody/nothing'", "no such file", '"train"', '"bytes"')),
        (("--data.tokenizer=broken.json",), ("broken.json is not readable as a tokenizer",)),
        (("--data.tokenizer=train", "--data.vocab_size=100"), ("vocab_size=100", "at least 258")),
        (("--data.part=whole",), ("part='whole'", "windows")),
        (("--data.stride=4",), ("stride=4", "--data.part windows")),
    ],
)
def test_bad_options_are_one_clear_message(cli, stories, arguments, words):
    Path("broken.json").write_text("[]")
    result = cli("fit", *TEXTS, "--data.path", stories, *SHORT, *arguments, code=1)
    assert result.err.count("error: ") == 1
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


def test_a_label_that_no_training_text_has(cli, stories):
    write_jsonl(stories / "test.jsonl", [*texts(4), {"text": "moo", "label": "bovine"}])
    result = cli("fit", *TEXTS, "--data.path", stories, *SHORT, code=1)
    assert "test split" in result.err
    assert "row 4 has the label 'bovine', which no training row has" in result.err
    assert "canine, feline" in result.err


@pytest.mark.parametrize("more", [(), ("--data.tokenizer=train", "--data.vocab_size=258"), WINDOWS])
def test_empty_texts_of_one_byte_and_undecodable_ones_are_trained_on(cli, tmp_path, more):
    strange = [b"", b"x", b"\xff\xfe\xff", None, b"\x00" * 30] * 6
    rows = {"text": strange, "label": ["a", "b"] * 15}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "strange.parquet")
    command = (*TEXTS, "--data.path", tmp_path / "strange.parquet", *more, *QUIET)
    cli("fit", *command, "--trainer.max_epochs=1", "--data.test_fraction=0.2")
    cli("predict", *command, "--data.predict_path", tmp_path / "strange.parquet", "--predictions.path=p.jsonl")
    found = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert len(found) == 30
    assert all(0 <= row["probability: a"] <= 1 for row in found)
    assert found[0]["probability: a"] == pytest.approx(found[3]["probability: a"], abs=1e-6)  # both empty


# Where texts are


def test_folders_of_text_files(cli, tmp_path):
    folder = tmp_path / "reviews"
    for split, count in {"train": 12, "test": 3}.items():
        for name in ("bad", "good"):
            for row in range(count):
                file = folder / split / name / f"{row:02}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(name.encode() * row + b"\nline\n\xff")
    items = TextData(str(folder))
    assert {name: len(rows) for name, rows in items.splits.items()} == {"train": 22, "validation": 2, "test": 6}
    assert items.labels == ["bad", "good"]
    assert tokens_of(items)[1] == "bad\nline\n\ufffd"
    assert in_order(items, "test")[0]["id"][5] == str(folder / "test" / "good" / "02.txt")

    cli("fit", *TEXTS, "--data.path", folder, *SHORT, "--output_dir=run")
    loose = tmp_path / "loose" / "deep"
    loose.mkdir(parents=True)
    for name in ("b", "a"):
        (loose / f"{name}.txt").write_bytes(b"")
    (loose.parent / ".hidden.txt").write_text("not read")
    (loose.parent / "notes.md").write_text("not read")
    command = ("predict", *TEXTS, "--data.path", folder, *QUIET, "--output_dir=run", "--predictions.path=p.jsonl")
    cli(*command, "--data.predict_path", loose.parent)
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(loose / "a.txt"), str(loose / "b.txt")]
    refused = cli(*command, "--data.predict_path", loose.parent, WINDOWS[0], code=1)
    assert "the checkpoint read other parts of texts than are read now, part=windows" in refused.err
    assert "1 predictions" in cli(*command, "--data.predict_path", loose / "b.txt").out


def test_a_text_file_that_changes_is_read_anew(tmp_path):
    for name in ("x", "y"):
        (tmp_path / "files" / name).mkdir(parents=True)
        (tmp_path / "files" / name / "1.txt").write_text("first")
    load = {"validation_fraction": 0}
    assert tokens_of(TextData(str(tmp_path / "files"), **load)) == ["first", "first"]
    (tmp_path / "files" / "y" / "1.txt").write_text("second")
    assert tokens_of(TextData(str(tmp_path / "files"), **load)) == ["first", "second"]


def test_folders_with_tables_are_no_text_files(stories, caplog):
    (stories / "readme.txt").write_text("about")
    items = TextData(str(stories))
    assert len(items.split("train")) == 32
    assert ".txt files are left out, as there are tables beside them: readme.txt" in caplog.text


def test_a_window_of_a_long_document_is_read_without_the_rest(tmp_path):
    """In a file of 64 MiB, which is mapped: what is read is a view of it, and only the window is copied."""
    block = bytes(range(256)) * 4096  # 1 MiB
    table = datasets.Dataset.from_dict({"text": [block * 63, block]})
    table.save_to_disk(tmp_path / "long")
    corpus = Corpus(datasets.load_from_disk(str(tmp_path / "long")), "text", Tokens())
    assert corpus.lengths.tolist() == [63 * 2**20, 2**20]
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    window = corpus.read(0, 40 * 2**20 + 5, 40 * 2**20 + 4101)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(peak, pyarrow.total_allocated_bytes() - before) < 2**20
    assert window.tolist() == [*np.arange(5, 4101) % 256 + 1]
    assert len(corpus.read(0, 63 * 2**20 - 3, 63 * 2**20 + 3)) == 3


def test_packed_text_files_in_folders_with_strange_names(tmp_path):
    for name in ("a [1]", "b*"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        (tmp_path / "texts" / name / "test {x}.txt.gz").write_bytes(gzip.compress(name.encode() * 3))
    items = TextData(str(tmp_path / "texts"), validation_fraction=0, predict_path=str(tmp_path / "texts" / "b*"))
    assert items.labels == ["a [1]", "b*"]
    assert tokens_of(items) == ["a [1]" * 3, "b*" * 3]
    (batch,) = items.predict_dataloader()
    assert batch["id"] == [str(tmp_path / "texts" / "b*" / "test {x}.txt.gz")]
    (tmp_path / "texts" / "b*" / "test {x}.txt.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"test \{x\}.txt.gz cannot be read \(Not a gzipped file"):
        _ = TextData(str(tmp_path / "texts")).splits


def test_all_text_files_are_predicted_whatever_their_folders_are_called(stories, tmp_path):
    for name in ("a", "train/b", "test/c", "validation/deep/test_d"):
        (tmp_path / "more" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "more" / f"{name}.txt").write_text(name)
    (batch,) = TextData(str(stories), predict_path=str(tmp_path / "more")).predict_dataloader()
    assert [Path(name).stem for name in batch["id"]] == ["a", "c", "b", "test_d"]


def test_long_documents_are_read_and_tokenised_a_few_at_a_time(tmp_path, monkeypatch):
    """Memory goes with bytes that are held together, so these are counted."""
    held, most = [], 0

    def counted(items, size, limit=1000):
        for batch in in_batches(items, size, limit):
            held.append([size(item) for item in batch])
            yield batch

    for module in ("corpus", "tokens", "text_files"):
        monkeypatch.setattr(f"lambda_seq.tasks.data.reading.{module}.in_batches", counted)
    monkeypatch.setattr("lambda_seq.tasks.data.reading.tokens.ENCODED", 1000)
    for row in range(30):
        (tmp_path / "texts" / "xy"[row % 2]).mkdir(parents=True, exist_ok=True)
        size = 5000 if row == 7 else 100 * (row % 6)
        (tmp_path / "texts" / "xy"[row % 2] / f"{row:02}.txt").write_text("ab " * (size // 3))
    items = TextData(str(tmp_path / "texts"), validation_fraction=0, tokenizer="train", vocab_size=270)
    assert len(tokens_of(items)) == 30
    assert len(held) > 20
    for sizes in held:
        most = max(most, sum(sizes))
        assert sum(sizes) <= 1000 or len(sizes) == 1
    assert most > 4500  # the long one was alone


def test_training_texts_are_gone_through_as_often_as_one_likes(tmp_path):
    table = datasets.Dataset.from_dict({"text": [f"text {row}" for row in range(250)] + [None]})
    chosen = Texts(table, "text", np.array([250, 3, 249, *range(120)]))
    assert list(chosen) == list(chosen)
    assert list(chosen)[:3] == [b"", b"text 3", b"text 249"]
    assert len(list(chosen)) == 123


def test_what_is_held_out_is_said(tmp_path, caplog):
    data = TextData(str(write_jsonl(tmp_path / "a.jsonl", texts(40))), test_fraction=0.2)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 29, "validation": 3, "test": 8}
    assert "has no test split: 8 of 40 training rows held out for it. Choose with --data.test_fraction" in caplog.text
    assert "has no validation split: 3 of 32 training rows held out for it" in caplog.text
    caplog.clear()
    for name in ("train", "validation", "test"):
        write_jsonl(tmp_path / "whole" / f"{name}.jsonl", texts(8))
    assert len(TextData(str(tmp_path / "whole")).split("train")) == 8
    assert not caplog.text
    assert len(TextData(str(tmp_path / "whole"), test_fraction=0.5).split("train")) == 8
    assert "has a test split, which is taken: test_fraction=0.5 is left out" in caplog.text
