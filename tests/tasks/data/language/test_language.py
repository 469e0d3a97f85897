"""Text to predict: where it comes from, and how it is divided."""

import datasets
import numpy as np
import pytest
import torch
from small_data import write_jsonl

from lambda_seq.tasks.data import CorpusData
from lambda_seq.tasks.data.language.data import Part
from lambda_seq.tasks.data.language.library import LIBRARY, library
from lambda_seq.tasks.data.reading.tokens import Tokens


def targets(batches):
    """Targets that count, in order, as bytes with "|" for ends."""
    found = torch.cat([batch["target"].flatten() for batch in batches])
    return bytes(b if b else ord("|") + 1 for b in found[found >= 0].tolist()).translate(
        bytes(max(byte - 1, 0) for byte in range(256))
    )


@pytest.fixture
def novels(tmp_path):
    """A folder of .txt files with all three splits."""
    texts = {"train/a": b"one two three " * 40, "train/b": b"\xff\x00\xfe" * 20, "train/c": b"", "train/d": b"x"}
    texts |= {"validation/e": b"abcdefghij", "test/f": b"klm", "test/g": b"nopqrstuvwxyz"}
    for name, text in texts.items():
        file = tmp_path / "novels" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    return tmp_path / "novels"


def test_evaluation_is_the_text_in_order(novels):
    data = CorpusData(str(novels), length=4, batch_size=2)
    assert targets(data.val_dataloader()) == b"abcdefghij|"
    assert targets(data.test_dataloader()) == b"klm|nopqrstuvwxyz|"
    assert targets(CorpusData(str(novels), length=4, stride=1, batch_size=3).test_dataloader()) == (
        b"klm|nopqrstuvwxyz|"
    )
    assert [name.rpartition("/")[2] for names in next(iter(data.test_dataloader()))["id"] for name in names] == [
        "f.txt",
        "g.txt",
    ]


def test_training_reads_any_bytes_and_leaves_empty_documents_out(novels):
    data = CorpusData(str(novels), length=16, batch_size=4)
    documents = data.documents("train")
    assert documents.predictions.tolist() == [561, 61, 2]
    batches = list(data.train_dataloader())
    assert len(batches) == (561 + 61 + 2) // 16 // 4
    for batch in batches:
        packing = batch["documents"].packing
        assert batch["x"].shape == batch["target"].shape == packing.number.shape == packing.shape == (4, 16)
        assert "mask" not in batch
        assert packing.mask is None
        inside = packing.number[:, 1:] == packing.number[:, :-1]
        assert torch.equal(batch["target"][:, :-1][inside], batch["x"][:, 1:][inside])
        assert (packing.number.diff() >= 0).all()
        assert len(packing) == sum(map(len, batch["id"]))
    assert data.facts.options == {"vocab_size": 257, "max_length": 16}
    assert data.facts.tokens.kind == "bytes"


def test_the_end_of_the_training_text_is_held_out(tmp_path, caplog):
    text = bytes(range(97, 122)) * 40  # 1000 bytes
    (tmp_path / "one.txt").write_bytes(text)
    data = CorpusData(str(tmp_path / "one.txt"), length=64, validation_fraction=0.1, test_fraction=0.05)
    assert targets(data.val_dataloader()) == text[850:950]  # a part: its document does not end there
    assert targets(data.test_dataloader()) == text[950:] + b"|"
    assert "has no test split: the last 0.05 of the training text held out for it. Choose with" in caplog.text
    assert "has no validation split: the last 0.1 of the training text held out for it" in caplog.text
    train = data.documents("train")
    assert train.predictions.tolist() == [850]
    assert train.piece(0, 0, 850).ids.tolist() == [0, *(byte + 1 for byte in text[:850])]


def test_whole_documents_are_held_out_but_for_the_one_with_the_cut(tmp_path):
    file = write_jsonl(tmp_path / "many.jsonl", [{"text": letter * 10} for letter in "abcdefghij"])
    data = CorpusData(str(file), length=8, validation_fraction=0.25)
    assert targets(data.val_dataloader()) == b"hhhhh|" + b"i" * 10 + b"|" + b"j" * 10 + b"|"
    assert data.documents("train").predictions.tolist() == [11] * 7 + [5]


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
@pytest.mark.parametrize("sizes", [[5], [0, 5, 0], [3, 0, 7, 1], [1] * 9])
def test_a_cut_loses_nothing(sizes, share):
    sizes = np.array(sizes)
    table = datasets.Dataset.from_dict({"text": ["x"] * len(sizes)})
    first, second = Part.all_of(table).cut(sizes, share)
    covered = np.zeros(len(sizes))
    for part in (first, second):
        np.add.at(covered, part.index, part.end - part.begin)
    assert covered == pytest.approx(1)
    held = (sizes[second.index] * (second.end - second.begin)).sum()
    assert held == pytest.approx(share * sizes.sum())


def test_a_tokenizer_counts_bytes_of_text(tmp_path):
    rows = [{"text": "the cat sat on the mat, naïve as ever. " * (1 + row % 3)} for row in range(30)]
    file = write_jsonl(tmp_path / "texts.jsonl", rows)
    data = CorpusData(str(file), length=8, stride=5, tokenizer="train", vocab_size=300, validation_fraction=0.2)
    batches = list(data.val_dataloader())
    size = sum(len(row["text"].encode()) for row in rows)
    found = sum(batch["bytes"].sum().item() for batch in batches)
    assert found == pytest.approx(0.2 * size, rel=0.02)  # the cut is rounded to a token
    documents = data.documents("validation")
    assert sum((batch["target"] >= 0).sum().item() for batch in batches) == documents.predictions.sum()
    assert data.facts.options["vocab_size"] == data.tokens.vocab_size <= 300
    ids = torch.cat([batch["target"].flatten() for batch in batches])
    text = data.tokens.decode(ids[ids >= 0].tolist())
    assert text.endswith(rows[-1]["text"])


def test_predict_path(novels, tmp_path):
    (tmp_path / "more.txt").write_text("later")
    data = CorpusData(str(novels), length=4, predict_path=str(tmp_path / "more.txt"))
    assert targets(data.predict_dataloader()) == b"later|"
    assert targets(CorpusData(str(novels)).predict_dataloader()) == b"klm|nopqrstuvwxyz|"


def test_text_files_called_as_splits_and_others(tmp_path, caplog):
    for name in ("train", "valid", "test", "my_test_notes"):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{name}.txt").write_text(name)
    data = CorpusData(str(tmp_path / "texts"), length=4, predict_path=str(tmp_path / "texts"))
    assert targets(data.val_dataloader()) == b"valid|"
    assert targets(data.test_dataloader()) == b"test|"
    assert data.documents("train").predictions.tolist() == [6]
    assert "1 of 4 files lie outside the splits and are left out, such as my_test_notes.txt" in caplog.text
    assert targets(data.predict_dataloader()) == b"my_test_notes|test|train|valid|"


def test_empty_documents_are_counted(tmp_path, caplog):
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in ("a", "", None, "b")])
    assert len(CorpusData(str(file), validation_fraction=0).documents("train")) == 2
    assert "2 of 4 documents are empty and left out: row 1, row 2" in caplog.text


def test_a_corpus_with_columns_and_kinds_that_come_late(tmp_path):
    write_jsonl(tmp_path / "train-0.jsonl", [{"text": "a", "meta": 1}] * 3)
    write_jsonl(tmp_path / "train-1.jsonl", [{"text": "b", "meta": "m", "more": [1]}] * 3)
    for streaming in (False, True):
        data = CorpusData(str(tmp_path), validation_fraction=0, length=2, batch_size=6, streaming=streaming)
        batch = next(iter(data.train_dataloader()))
        assert sorted(Tokens().decode(batch["target"].flatten().tolist())) == list("aaabbb")


def test_python_has_its_library_with_it():
    found = library()
    sizes = {split: sum(map(len, table["text"])) for split, table in found.items()}
    assert sizes["train"] > 1_000_000
    assert 0.01 < sizes["validation"] / sum(sizes.values()) < 0.15
    names = [name for table in found.values() for name in table["file"]]
    assert len(names) == len(set(names))
    assert "argparse.py" in names
    data = CorpusData(LIBRARY, length=128)
    assert len(data.documents("train")) <= len(found["train"])
    assert data.content(found["train"]) == "text"


def test_binary_and_missing_texts(tmp_path):
    table = datasets.Dataset.from_dict({"raw": [b"\xff" * 40, None, b"ab"]})
    table.to_parquet(tmp_path / "raw.parquet")
    data = CorpusData(str(tmp_path / "raw.parquet"), text_column="raw", validation_fraction=0, length=8)
    assert data.documents("train").predictions.tolist() == [41, 3]
    assert data.val_dataloader() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "path: no data given"),
        ({"length": 0}, "length=0: expected at least 1"),
        ({"shuffle_buffer": 0}, "shuffle_buffer=0: expected at least 1"),
        ({"length": 8, "stride": 9}, "stride=9: expected from 1 to length=8"),
        ({"stride": 0}, "stride=0: expected from 1"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: expected a number from 0 to below 1"),
        ({"validation_fraction": 0.5, "test_fraction": 0.6}, "leave nothing to train on"),
        ({"streaming": True, "tokenizer": "train"}, "tokenizer='train' would read all of a stream"),
        ({"batch_size": 0}, "batch_size=0: expected at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        CorpusData(**({"path": "anywhere"} | options))


def test_data_that_are_not_there(tmp_path, novels):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        _ = CorpusData(str(tmp_path / "nowhere")).facts
    file = write_jsonl(tmp_path / "empty.jsonl", [{"text": ""}, {"text": ""}])
    with pytest.raises(ValueError, match=r"the train split of path=.*empty.jsonl' has no text"):
        CorpusData(str(file), validation_fraction=0).train_dataloader()
    with pytest.raises(ValueError, match=r"has no test split, only train, validation.*--data.test_fraction 0.05"):
        CorpusData(str(write_jsonl(tmp_path / "a.jsonl", [{"text": "abc"}]))).test_dataloader()
    with pytest.raises(ValueError, match=r"text_column='body'.*the columns are text"):
        CorpusData(str(write_jsonl(tmp_path / "a.jsonl", [{"text": "abc"}])), text_column="body").train_dataloader()
    test = datasets.DatasetDict(test=datasets.Dataset.from_dict({"text": ["a"]}))
    test.save_to_disk(tmp_path / "test")
    with pytest.raises(ValueError, match="has no training split, only test"):
        _ = CorpusData(str(tmp_path / "test")).splits
