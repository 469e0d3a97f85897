"""Rows from files, folders and names, and what is said when there are none."""

import datasets
import numpy as np
import pytest
from small_data import image_folder, texts, write_jsonl

from tasks.data.sources import DIGITS, load_rows


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_one_file_is_the_training_split(tmp_path, suffix):
    table = datasets.Dataset.from_list(texts(6))
    file = tmp_path / f"my texts.{suffix}"
    if suffix == "parquet":
        table.to_parquet(file)
    elif suffix in ("csv", "tsv"):
        table.to_csv(file, sep="\t" if suffix == "tsv" else ",")
    else:
        table.to_json(file)
    splits = load_rows(str(file))
    assert list(splits) == ["train"]
    assert splits["train"][:]["text"] == table[:]["text"]


def test_a_folder_of_files_with_usual_names(tmp_path):
    for split, count in {"train": 5, "val": 3, "test": 2}.items():
        write_jsonl(tmp_path / f"{split}.jsonl", texts(count))
    assert {name: len(rows) for name, rows in load_rows(str(tmp_path)).items()} == {
        "validation": 3,
        "train": 5,
        "test": 2,
    }


def test_image_folders(tmp_path):
    folder = image_folder(tmp_path / "two words", {"train": 3, "test": 1})
    splits = load_rows(str(folder))
    assert len(splits["train"]) == 6
    assert splits["train"].features["label"].names == ["down", "up"]


def test_a_saved_data_set(tmp_path):
    table = datasets.Dataset.from_list(texts(6))
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=table, dev=table.select(range(2))).save_to_disk(tmp_path / "several")
    assert len(load_rows(str(tmp_path / "one"))["train"]) == 6
    assert len(load_rows(str(tmp_path / "several"))["validation"]) == 2


def test_digits_come_in_fixed_stratified_splits():
    splits = load_rows(DIGITS)
    sizes = {name: len(rows) for name, rows in splits.items()}
    assert sum(sizes.values()) == 1797
    assert sizes["test"] == pytest.approx(0.2 * 1797, abs=6)
    assert sizes["validation"] == pytest.approx(0.2 * 1797, abs=6)
    for rows in splits.values():
        shares = np.bincount(rows[:]["label"]) / len(rows)
        assert shares == pytest.approx(np.full(10, 0.1), abs=0.02)
    assert splits["train"][0]["image"].size == (8, 8)
    assert max(np.asarray(image).max() for image in splits["test"][:50]["image"]) == 255
    assert load_rows(DIGITS)["test"][:]["label"] == splits["test"][:]["label"]


@pytest.mark.parametrize("path", ["/no/such/folder", "nowhere/at/all", "missing.csv", "../missing"])
def test_a_missing_path(path):
    with pytest.raises(FileNotFoundError, match=r"no such file or folder \(looked for /"):
        load_rows(path)


@pytest.mark.parametrize("name", ["imdb", "stanfordnlp/imdb"])
def test_a_hub_name_without_a_network(name):
    with pytest.raises(ConnectionError, match=rf"path='{name}'.*no such local file.*connect to the network"):
        load_rows(name)


def test_an_unknown_kind_of_file(tmp_path):
    (tmp_path / "table.xlsx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"unknown kind of file '.xlsx'; expected .parquet"):
        load_rows(str(tmp_path / "table.xlsx"))


def test_an_empty_file_folder_or_split(tmp_path):
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match="file is empty"):
        load_rows(str(tmp_path / "empty.csv"))
    (tmp_path / "header.csv").write_text("text,label\n")
    with pytest.raises(ValueError, match="a split has no rows"):
        load_rows(str(tmp_path / "header.csv"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="no data found in this folder"):
        load_rows(str(tmp_path / "folder"))
    write_jsonl(tmp_path / "files" / "train.jsonl", texts(4))
    (tmp_path / "files" / "test.jsonl").touch()
    with pytest.raises(ValueError, match=r"files.*no rows"):
        load_rows(str(tmp_path / "files"))


def test_an_unreadable_file(tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": 1}\n{"text": \n')
    with pytest.raises(ValueError, match=r"broken.jsonl.*cannot be read"):
        load_rows(str(tmp_path / "broken.jsonl"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing more")
    with pytest.raises(ValueError, match=r"broken.parquet.*cannot be read"):
        load_rows(str(tmp_path / "broken.parquet"))
