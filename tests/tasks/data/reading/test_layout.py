"""Which files are which split and which class, and what is said where names leave a choice."""

import os
from pathlib import Path

import pytest

from lambda_seq.tasks.data.reading.layout import (
    classes_of,
    named_split,
    note_others,
    samples_by_split,
    stem,
    tables_by_split,
    visible_files,
)


def make(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return visible_files(folder, lambda file: True)


def tables(folder, *names, **options):
    found = tables_by_split(folder, make(folder, *names), **options)
    return {split: [str(file.relative_to(folder)) for file in files] for split, files in found.items()}


def samples(folder, *names, **options):
    found = samples_by_split(folder, make(folder, *names), **options)
    return {split: [str(sample.file.relative_to(folder)) for sample in members] for split, members in found.items()}


@pytest.mark.parametrize(
    ("names", "train", "test"),
    [
        (["train.csv", "test.csv"], ["train.csv"], ["test.csv"]),
        (["Train.CSV", "TEST.csv"], ["Train.CSV"], ["TEST.csv"]),
        (
            ["train-0.jsonl", "train_1.jsonl", "test.2.jsonl.gz"],
            ["train-0.jsonl", "train_1.jsonl"],
            ["test.2.jsonl.gz"],
        ),
        (
            [
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002-0a1b2c3d4e5f6a7b.parquet",
                "data/test.parquet",
            ],
            ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002-0a1b2c3d4e5f6a7b.parquet"],
            ["data/test.parquet"],
        ),
        (
            ["default/train/0000.parquet", "default/test/0000.parquet"],
            ["default/train/0000.parquet"],
            ["default/test/0000.parquet"],
        ),
        (["news_train.csv", "news_test.csv"], ["news_train.csv"], ["news_test.csv"]),
        (["train_public.csv", "test_public.csv"], ["train_public.csv"], ["test_public.csv"]),
        (["rows.csv", "test_public.csv"], ["rows.csv"], ["test_public.csv"]),
    ],
)
def test_tables_that_are_named_for_splits(tmp_path, names, train, test):
    assert tables(tmp_path, *names) == {"train": train, "test": test}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["crash_test_2019.csv", "crash_test_2020.csv"],
            "crash_test_2019.csv, crash_test_2020.csv: not taken for a split",
        ),
        (["latest.csv", "trained.csv", "developers.csv"], None),
        (["speed_test_03.csv", "flights.csv"], "speed_test_03.csv: not taken for a split"),
        (["train_a.csv", "train_b.csv", "notes.csv"], None),
    ],
)
def test_tables_whose_names_only_hold_such_words(tmp_path, caplog, names, said):
    assert tables(tmp_path, *names) == {"train": sorted(names)}
    assert said in caplog.text if said else not caplog.text


def test_tables_beside_those_that_are_named_are_left_out_with_a_line(tmp_path, caplog):
    names = ["train.csv", "test.csv", "sample_submission.csv", "my_test_notes.csv"]
    assert tables(tmp_path, *names) == {"train": ["train.csv"], "test": ["test.csv"]}
    assert "2 of 4 files lie outside the splits and are left out, such as my_test_notes.csv" in caplog.text
    everything = tables_by_split(tmp_path, visible_files(tmp_path, lambda file: True), whole=True)
    assert [file.name for file in everything["train"]] == sorted(names)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train/cat/1.png", "valid/cat/2.png", "Eval/cat/3.png"], {"train": 1, "validation": 1, "test": 1}),
        (["train-station/1.png", "train-yard/1.png", "test-bench/1.png"], {"train": 3}),
        (["data/train/cat/1.png", "data/test/cat/1.png"], {"train": 1, "test": 1}),
        (["pets/cat/1.png", "pets/train/1.png"], {"train": 2}),
        (["seg_train/sea/1.png", "seg_test/sea/1.png"], {"train": 1, "test": 1}),
        (["sea/train.png", "ice/test.png", "ice/validation_1.png"], {"train": 3}),
        (["train.txt", "test.txt", "dev.txt"], {"train": 1, "validation": 1, "test": 1}),
        (["train.txt", "my_test_notes.txt"], {"train": 2}),
        (["bad/test.txt", "good/train.txt"], {"train": 2}),
        (["test.png", "train.png"], {"train": 2}),
        (["test/a.wav"], {"test": 1}),
    ],
)
def test_rows_that_are_files(tmp_path, names, expected):
    found = samples(tmp_path, *names)
    assert {split: len(files) for split, files in found.items()} == expected
    assert samples(tmp_path, whole=True) == {"train": sorted(names)}


def test_a_class_called_as_a_split_beside_other_classes(tmp_path, caplog):
    found = samples_by_split(tmp_path, make(tmp_path, "train/1.png", "bus/2.png", "car/3.png"))
    assert classes_of(found["train"]) == ["bus", "car", "train"]
    assert "folders taken for classes, as bus, car beside them: train" in caplog.text


def test_files_outside_the_splits(tmp_path, caplog):
    assert samples(tmp_path, "train/cat/1.png", "test/cat/2.png", "more/cat/3.png") == {
        "train": ["train/cat/1.png"],
        "test": ["test/cat/2.png"],
    }
    assert "1 of 3 files lie outside the splits and are left out, such as more/cat/3.png" in caplog.text


def test_classes_are_innermost_folders_and_loose_files_have_none(tmp_path):
    found = samples_by_split(tmp_path, make(tmp_path, "train/x/cat /1.png", "train/2.png", "test/3.png"))
    assert classes_of(found["train"]) == [None, "cat"]
    assert classes_of(found["test"]) is None


def test_hidden_files_and_links(tmp_path):
    make(tmp_path / "data", ".hidden.csv", ".git/a.csv", "__MACOSX/b.csv", "__own__/c.csv", "d [1].csv")
    make(tmp_path / "elsewhere", "e.csv")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "itself").symlink_to(tmp_path / "data")
    names = [file.name for file in visible_files(tmp_path / "data", lambda file: file.suffix == ".csv")]
    assert names == ["c.csv", "d [1].csv", "e.csv"]


def test_names_of_files():
    assert stem(Path("a.b.jsonl.gz")) == "a.b"
    assert stem(Path("train.TSV")) == "train"
    assert named_split(Path("/x"), Path("/x/y/val.csv.zst")) == "validation"
    assert named_split(Path("/x"), Path("/x/valid_words.csv")) is None


def test_links_that_lead_nowhere_and_names_that_are_no_text(tmp_path, caplog):
    make(tmp_path, "a/1.wav")
    (tmp_path / "a" / "2.wav").symlink_to("gone")
    assert [file.name for file in visible_files(tmp_path, lambda file: file.suffix == ".wav")] == ["1.wav"]
    assert "1 links lead nowhere and are left out, such as" in caplog.text
    os.rename(tmp_path / "a" / "1.wav", os.fsencode(tmp_path / "a") + b"/\xff.wav")
    with pytest.raises(ValueError, match=r"the name of the file b'.*xff.wav' is not UTF-8; rename it"):
        visible_files(tmp_path, lambda file: True)


@pytest.mark.parametrize(
    ("names", "whole", "said"),
    [
        (["a/1.wav", "a/2.m4a", "b/1.wav"], False, ["1 files that are no clips are left out, such as"]),
        (["1.wav", "2.m4a"], True, ["2.m4a"]),
        (["train/a/1.wav", "train/b/1.m4a"], False, ["1 files", "folders without clips are no classes"]),
        (["a/1.wav", "b/1.wav", "notes.csv"], False, ["notes.csv"]),
        (["a/1.wav", "b/1.wav", "README.md", "LICENSE", "report.pdf", "dataset_info.json"], False, []),
    ],
)
def test_other_files_are_said(tmp_path, caplog, names, whole, said):
    files = [file for file in make(tmp_path, *names) if file.suffix == ".wav"]
    note_others(tmp_path, files, "clips", whole)
    assert all(words in caplog.text for words in said)
    assert len(caplog.records) == len(said)
