"""Rows from files, folders and names, and what is said when there are none."""

import gc
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from small_data import image_folder, texts, write_jsonl

from lambda_seq.tasks.data import ImageData, TextData
from lambda_seq.tasks.data.reading.sources import DIGITS, _load_hub, load_rows, to_predict


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
    with pytest.raises(ValueError, match=r"unknown kind of file '.xlsx'; expected one of .parquet"):
        load_rows(str(tmp_path / "table.xlsx"))


def test_an_empty_file_folder_or_split(tmp_path):
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match=r"empty\.csv: the file is empty"):
        load_rows(str(tmp_path / "empty.csv"))
    (tmp_path / "header.csv").write_text("text,label\n")
    with pytest.raises(ValueError, match="the train split has no rows"):
        load_rows(str(tmp_path / "header.csv"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="no data found in this folder"):
        load_rows(str(tmp_path / "folder"))
    write_jsonl(tmp_path / "files" / "train.jsonl", texts(4))
    (tmp_path / "files" / "test.jsonl").touch()
    with pytest.raises(ValueError, match=r"test.jsonl: the file is empty"):
        load_rows(str(tmp_path / "files"))


def test_an_unreadable_file(tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": 1}\n{"text": \n')
    with pytest.raises(ValueError, match=r"broken.jsonl.*cannot be read"):
        load_rows(str(tmp_path / "broken.jsonl"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing more")
    with pytest.raises(ValueError, match=r"broken.parquet.*cannot be read"):
        load_rows(str(tmp_path / "broken.parquet"))


STRANGE = "my [data] {v1} *? #1 100%"  # a name with the signs of glob patterns


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "pictures", "saved", "png"])
def test_paths_with_the_signs_of_patterns(tmp_path, kind):
    place = tmp_path / STRANGE
    if kind == "pictures":
        image_folder(place, {"train": 3}, names=("a[1]", "b*"))
        assert load_rows(str(place))["train"].features["label"].names == ["a[1]", "b*"]
        return
    place.mkdir()
    table = datasets.Dataset.from_list(texts(6))
    if kind == "saved":
        table.save_to_disk(place / "[x]")
        assert len(load_rows(str(place / "[x]"))["train"]) == 6
        return
    if kind == "png":
        image_folder(place, {"": 2}, names=("[x]", "y"))
        rows = load_rows(str(place / "[x]" / "00.png"))
        assert to_predict(rows, "").cast_column("image", datasets.Image(decode=False))[0]["image"]["path"] == str(
            place / "[x]" / "00.png"
        )
        return
    file = place / f"train [1].{kind}"
    {"jsonl": table.to_json, "csv": table.to_csv, "parquet": table.to_parquet}[kind](file)
    for path in (file, place):
        assert load_rows(str(path))["train"]["text"][:] == table["text"][:]
        assert len(list(load_rows(str(path), streaming=True)["train"])) == 6


@pytest.mark.parametrize("name", ["pandas", "csv", "json", "text", "imagefolder", "webdataset", "arrow", "parquet"])
def test_a_kind_of_file_is_no_data_set_and_nothing_in_the_folder_is_run(tmp_path, monkeypatch, name):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FileNotFoundError, match=rf"path='{name}': no such file or folder .*no data set, but a kind of"):
        load_rows(name)
    (tmp_path / name).mkdir()
    (tmp_path / "train.pkl").rename(tmp_path / name / "train.pkl")
    script = f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\n"
    (tmp_path / name / f"{name}.py").write_text(script)
    with pytest.raises(
        FileNotFoundError, match=r"no data found in this folder \((\w+\.py, train.pkl|train.pkl, \w+\.py)\)"
    ):
        load_rows(name)
    write_jsonl(tmp_path / name / "rows.jsonl", texts(3))
    assert len(load_rows(name)["train"]) == 3
    assert not (tmp_path / "sprung").exists()


def test_all_rows_of_local_files_are_predicted(tmp_path):
    for split, count in {"train": 3, "test": 2}.items():
        write_jsonl(tmp_path / "files" / f"{split}.jsonl", [{"text": f"{split} {row}"} for row in range(count)])
    write_jsonl(tmp_path / "files" / "latest.jsonl", [{"text": "latest", "note": 1}])
    path = str(tmp_path / "files")
    expected = ["latest", "test 0", "test 1", "train 0", "train 1", "train 2"]
    assert to_predict(load_rows(path, whole=True), path)["text"][:] == expected
    assert sorted(to_predict(load_rows(path), path)["text"][:]) == expected[1:]  # as splits: one file is none


def test_of_a_data_set_the_test_split_is_predicted(tmp_path):
    table = datasets.Dataset.from_list(texts(4))
    datasets.DatasetDict(train=table, test=table.select([1])).save_to_disk(tmp_path / "saved")
    path = str(tmp_path / "saved")
    assert len(to_predict(load_rows(path, whole=True), path)) == 1
    with pytest.raises(ValueError, match="predict_path='hub/name' has the splits train, validation: give one of them"):
        to_predict({"train": table, "validation": table}, "hub/name")


def test_tables_of_several_kinds(tmp_path, caplog):
    write_jsonl(tmp_path / "rows.jsonl", texts(3))
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    with pytest.raises(ValueError, match=r"holds tables of several kinds, rows.csv, rows.jsonl: leave one kind"):
        load_rows(str(tmp_path))
    (tmp_path / "rows.csv").rename(tmp_path / "train.csv")
    assert load_rows(str(tmp_path))["train"][:] == {"text": ["a"], "label": ["b"]}
    assert "rows.jsonl: left out, as the files named for splits are of another kind" in caplog.text
    (tmp_path / "rows.jsonl").rename(tmp_path / "train.jsonl")
    with pytest.raises(ValueError, match="several kinds"):
        load_rows(str(tmp_path))


def test_a_table_and_its_compressed_copy(tmp_path):
    for name in ("rows.csv", "rows.csv.gz"):
        (tmp_path / name).write_text("text\na\n")
    with pytest.raises(ValueError, match=r"holds rows.csv, rows.csv.gz, the same rows: leave one of them"):
        load_rows(str(tmp_path))


CARD = """---
configs:
- config_name: first
  data_files:
  - split: train
    path: "one/part-*.csv"
  - split: test
    path: [one/held.csv]
- config_name: second
  data_files: two.jsonl
---
# A data set
"""


def test_a_folder_from_the_hub_says_in_its_readme_what_is_what(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    for name in ("part-1", "part-2", "held", "test"):
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "one" / f"{name}.csv").write_text(f"text\n{name}\n")
    write_jsonl(tmp_path / "two.jsonl", texts(2))
    found = load_rows(str(tmp_path), "first")
    assert {split: rows["text"][:] for split, rows in found.items()} == {
        "train": ["part-1", "part-2"],
        "test": ["held"],
    }
    assert len(load_rows(str(tmp_path), "second")["train"]) == 2
    with pytest.raises(ValueError, match=r"the configurations first, second, and subset=None .*--data.subset NAME"):
        load_rows(str(tmp_path))
    (tmp_path / "two.jsonl").unlink()
    with pytest.raises(ValueError, match=r"says that two.jsonl are the rows, but there are none"):
        load_rows(str(tmp_path), "second")


def test_a_subset_is_a_folder(tmp_path):
    write_jsonl(tmp_path / "cola" / "train-00000-of-00001.jsonl", texts(2))
    write_jsonl(tmp_path / "sst2" / "train-00000-of-00001.jsonl", texts(3))
    assert len(load_rows(str(tmp_path), "sst2")["train"]) == 3
    with pytest.raises(ValueError, match="subset='qqp': there is no such folder"):
        load_rows(str(tmp_path), "qqp")


def test_splits_of_a_data_set_that_nothing_uses_are_named(tmp_path, caplog):
    table = datasets.Dataset.from_list(texts(2))
    datasets.DatasetDict(train=table, unsupervised=table).save_to_disk(tmp_path / "saved")
    assert list(load_rows(str(tmp_path / "saved"))) == ["train"]
    assert "the splits unsupervised are left out; used are train" in caplog.text


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # datasets and pandas, of csv
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
def test_a_hub_data_set_of_csv_files_is_text(tmp_path):
    """A folder stands for the hub here: what `datasets` does with it is the same."""
    (tmp_path / "train.csv").write_text("text,label\nnull,007\n,NA\n")
    found = _load_hub(str(tmp_path), None, False)
    assert found["train"][:] == {"text": ["null", ""], "label": ["007", "NA"]}
    gc.collect()  # what is left open is found here, where the warnings above are expected


# Pictures in folders


def test_pictures_whose_names_hold_words_of_splits(tmp_path):
    folder = image_folder(tmp_path / "data", {"": 2}, names=("test", "train-station", "valid"))
    (folder / "train-station" / "00.png").rename(folder / "train-station" / "my_test_00.png")
    rows = load_rows(str(folder))
    assert {split: len(table) for split, table in rows.items()} == {"train": 6}


def test_pictures_with_a_table_called_metadata(tmp_path, caplog):
    folder = image_folder(tmp_path / "data", {"": 3}, names=("x",))
    (folder / "x" / "metadata.csv").write_text("file_name,label\n00.png,NA\n01.png,007\n")
    table = load_rows(str(folder))["train"]
    assert table["label"][:] == ["NA", "007"]
    assert table[1]["image"].size == (8, 8)
    assert "1 pictures that no table called metadata names are left out" in caplog.text
    (folder / "x" / "metadata.csv").write_text("file_name,label\n09.png,NA\n")
    with pytest.raises(ValueError, match=r"metadata.csv, row 0: there is no file .*09.png"):
        load_rows(str(folder))
    assert len(load_rows(str(folder), whole=True)["train"]) == 3


def test_pictures_that_a_table_names_are_left_to_it(tmp_path, caplog):
    folder = image_folder(tmp_path / "data", {"": 2}, names=("",))
    (folder / "labels.csv").write_text("image,label\n00.png,a\n01.png,b\n")
    assert load_rows(str(folder))["train"]["image"][:] == ["00.png", "01.png"]
    (folder / "labels.csv").write_text("id,where,label\n007,00.png,a\n008,01.png,b\n")
    data = ImageData(str(folder), validation_fraction=0, batch_size=2)
    assert sorted(next(iter(data.train_dataloader()))["id"]) == [str(folder / "00.png"), str(folder / "01.png")]
    classes = image_folder(tmp_path / "classes", {"": 2})
    (classes / "labels.csv").write_text("image,label\n00.png,a\n")
    (classes / "up" / "notes.doc").touch()
    assert len(load_rows(str(classes))["train"]) == 4
    assert "2 files that are no pictures are left out, such as" in caplog.text


def test_pictures_of_test_without_classes(tmp_path, caplog):
    folder = image_folder(tmp_path / "data", {"train": 2})
    (folder / "test").mkdir()
    for row in range(3):
        shutil.copy(folder / "train" / "up" / "00.png", folder / "test" / f"{row}.png")
    data = ImageData(str(folder), validation_fraction=0.25, predict_path=str(folder))
    assert not data.tested
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 3, "validation": 1, "test": 3}
    assert "its 3 rows have no labels, so that it is not tested" in caplog.text
    assert sum(len(batch["id"]) for batch in data.predict_dataloader()) == 7


def test_a_picture_outside_the_classes_has_no_label(tmp_path, caplog):
    folder = image_folder(tmp_path / "data", {"": 2})
    (folder / "up" / "00.png").rename(folder / "loose.png")
    assert load_rows(str(folder))["train"]["label"][:] == [0, 0, None, 1]
    assert "pictures lie at several depths; the innermost folder is the class: down, up" in caplog.text


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (": [bad", r"README.md: its head is no readable YAML"),
        ("configs: [{config_name: a, data_files: [{split: train, pth: x}]}]", r"that None are the rows, but there are"),
        ("configs: [{config_name: a, data_files: /x/*.csv}]", r"data_files /x/\*.csv lie elsewhere; name files in"),
    ],
)
def test_a_readme_that_names_no_files(tmp_path, head, message):
    write_jsonl(tmp_path / "train.jsonl", texts(2))
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n")
    with pytest.raises(ValueError, match=message):
        load_rows(str(tmp_path))


@pytest.mark.parametrize("name", ["test.xlsx", "more.ZIP"])
def test_tables_of_unknown_kinds_are_said(tmp_path, name, caplog):
    write_jsonl(tmp_path / "train.jsonl", texts(2))
    (tmp_path / name).touch()
    assert list(load_rows(str(tmp_path))) == ["train"]
    assert "1 files of other kinds are left out, such as" in caplog.text


def test_a_file_to_predict_without_rows_is_no_training_split(tmp_path):
    known = write_jsonl(tmp_path / "train.jsonl", texts(4))
    (tmp_path / "new.csv").write_text("text\n")
    data = TextData(str(known), validation_fraction=0, predict_path=str(tmp_path / "new.csv"))
    with pytest.raises(ValueError, match=r"^predict_path=.*new.csv': it has no rows"):
        data.predict_dataloader()
    data.predict_path = str(tmp_path / "gone.csv")
    with pytest.raises(FileNotFoundError, match=r"^predict_path=.*gone.csv': no such file or folder"):
        data.predict_dataloader()


@pytest.mark.parametrize("column", ["label", "image"])
def test_a_table_called_metadata_in_a_relative_folder(tmp_path, monkeypatch, column, caplog):
    image_folder(tmp_path / "data", {"": 2}, names=("x",))
    monkeypatch.chdir(tmp_path)
    Path("data/metadata.csv").write_text(f"file_name,{column},more\nx/00.png,a,1\nx/01.png,b,2\n")
    table = load_rows("data")["train"]
    assert table[1]["image"].size == (8, 8)
    assert table["more"][:] == ["1", "2"]
    assert ("its column 'image' is left out" in caplog.text) == (column == "image")
    Path("data/metadata.csv").write_text("file_name,label\n")
    with pytest.raises(ValueError, match=r"metadata.csv has no rows"):
        load_rows("data")


@pytest.mark.parametrize("names", ["train-{:05}-of-00003", "part.{}.of.3-0123abcd", "train/x_{} of 3"])
def test_parts_of_a_table_that_are_not_there_are_said(tmp_path, names, caplog):
    """As of a download that was broken off."""
    for number in (1, 2, 3):
        write_jsonl(tmp_path / f"{names.format(number)}.jsonl", texts(2))
    assert len(load_rows(str(tmp_path))["train"]) == 6
    assert not caplog.text
    (tmp_path / f"{names.format(2)}.jsonl").unlink()
    assert len(load_rows(str(tmp_path))["train"]) == 4
    assert "only 2 of its 3 files are there: get the others" in caplog.text
    caplog.clear()
    assert len(load_rows(str(tmp_path / f"{names.format(3)}.jsonl"))["train"]) == 2  # which alone was asked for
    assert not caplog.text
