"""Columns and labels."""

import datasets
import numpy as np
import pyarrow as pa
import pytest

from lambda_seq.tasks.data.labels import Rows, carve, encode_labels, find_column, find_label_column


def table(**columns):
    return datasets.Dataset.from_dict(columns)


def named(values, names):
    features = datasets.Features(label=datasets.ClassLabel(names=names))
    return datasets.Dataset.from_dict({"label": values}, features=features)


def beyond(*values):
    """Numbers of two classes as a parquet file may hold them, which `datasets` does not look at when it maps one."""
    numbers = datasets.Dataset.from_dict({"label": values}).data.table.column(0)
    features = datasets.Features(label=datasets.ClassLabel(names=["a", "b"]))
    return datasets.Dataset(pa.Table.from_arrays([numbers], schema=features.arrow_schema))


def test_columns_by_name_by_type_and_as_given():
    rows = table(review=["a"], stars=[1], target=["x"])
    assert find_label_column(rows, None) == "target"
    assert find_label_column(rows, "stars") == "stars"
    with pytest.raises(ValueError, match=r"label_column='kind': .*the columns are review, stars, target"):
        find_label_column(rows, "kind")
    fine = datasets.Features(fine=datasets.ClassLabel(names=["a"]), x=datasets.Value("int64"))
    assert find_label_column(datasets.Dataset.from_dict({"fine": [0], "x": [1]}, features=fine), None) == "fine"
    with pytest.raises(ValueError, match=r"several could be it: review, target.*--data.text_column NAME"):
        find_column(rows, "text_column", None, ("text",), lambda kind: kind.dtype == "string")
    with pytest.raises(ValueError, match="none is called text"):
        find_column(rows, "text_column", None, ("text",), lambda kind: False)


@pytest.mark.parametrize(
    ("train", "names"),
    [(["b", "a", "b"], ["a", "b"]), ([10, 9, 10], ["9", "10"]), ([True, False, True], ["False", "True"])],
)
def test_names_are_sorted_values(train, names):
    found, numbers = encode_labels({"train": table(label=train), "test": table(label=train[:2])}, "label", "here")
    assert found == names
    assert [found[number] for number in numbers["train"]] == [str(value) for value in train]
    assert numbers["test"].tolist() == numbers["train"][:2].tolist()


def test_class_labels_keep_their_names_and_go_by_name():
    splits = {"train": named([1, 0, 2], ["c", "a", "b"]), "test": named([0, 1], ["a", "c"])}
    names, numbers = encode_labels(splits, "label", "here")
    assert names == ["c", "a", "b"]
    assert numbers["train"].tolist() == [1, 0, 2]
    assert numbers["test"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("train", "names"),
    [
        (["10", "9", "2"], ["2", "9", "10"]),
        (["1", "01", "007"], ["01", "1", "007"]),
        (["10", "other", "2", "-1"], ["-1", "2", "10", "other"]),
        (["NA", "null", "None", "nan", "True"], ["NA", "None", "True", "nan", "null"]),
        ([1.0, 10.0, 2.0], ["1", "2", "10"]),
    ],
)
def test_names_are_text_in_a_natural_order(train, names):
    assert encode_labels({"train": table(label=train)}, "label", "here")[0] == names


def test_text_and_numbers_of_two_splits_are_the_same_labels():
    splits = {"train": table(label=["1", "2"]), "test": table(label=[2, 1])}
    names, numbers = encode_labels(splits, "label", "here")
    assert names == ["1", "2"]
    assert numbers["test"].tolist() == [1, 0]


def test_white_space_at_the_ends_is_no_part_of_a_label(caplog):
    splits = {"train": table(label=["cat ", "dog", "cat", "\tdog\u00a0"]), "test": table(label=["dog\r"])}
    names, numbers = encode_labels(splits, "label", "of trimmed")
    assert names == ["cat", "dog"]
    assert numbers["train"].tolist() == [0, 1, 0, 1]
    assert numbers["test"].tolist() == [1]
    assert "train split of of trimmed: white space at the ends of labels is left out, in '\\tdog" in caplog.text


def test_labels_that_differ_in_case_or_form_are_classes_of_their_own_and_named(caplog):
    names, _ = encode_labels({"train": table(label=["Cat", "cat", "caf\u00e9", "cafe\u0301"])}, "label", "case")
    assert len(names) == 4
    assert "'Cat' and 'cat'" in caplog.text
    assert "'cafe\u0301' and 'caf\u00e9'" in caplog.text


def test_more_classes_than_half_of_the_rows_are_named(caplog):
    encode_labels({"train": table(label=[f"name {row}" for row in range(20)])}, "label", "many")
    assert "20 classes of 20 training rows" in caplog.text


def test_several_labels_in_a_cell_are_named(caplog):
    encode_labels({"train": table(label=["news", "sport", "news; sport", "a;b"])}, "label", "several")
    assert "several: news; sport seem to be several labels in a cell, and are classes of their own" in caplog.text


@pytest.mark.parametrize(
    ("test", "numbers"),
    [
        (named([-1, -1], ["a", "b"]), [-1, -1]),
        (named([-1, 1], ["a", "b"]), [-1, 1]),
        (table(x=[1, 2]), [-1, -1]),
        (table(label=["", None]), [-1, -1]),
        (table(label=[float("nan"), None]), [-1, -1]),
        (table(label=[None, None]), [-1, -1]),
    ],
)
def test_rows_of_test_without_labels(test, numbers):
    assert (
        encode_labels({"train": named([0, 1], ["a", "b"]), "test": test}, "label", "here")[1]["test"].tolist()
        == numbers
    )


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": table(label=["a", "b"]), "test": table(label=["a", "c"])}, r"test split of here: row 1 .*'c'"),
        ({"train": named([0, 1], ["a", "b", "c"]), "test": named([2], ["a", "b", "c"])}, r"'c', which no training row"),
        ({"train": table(label=["a", None, "b"])}, r"train split of here: 1 of 3 rows have no label .*: row 1;"),
        ({"train": named([-1, 1, -1, 0], ["a", "b"])}, r"2 of 4 rows have no label .*: row 0, row 2;"),
        (
            {"train": table(label=["", "a", " ", "b", None, ""])},
            r"4 of 6 rows .*: row 0, row 2, row 4 and 1 more; 3 of them hold nothing at all; label",
        ),
        ({"train": table(label=[["a"], ["b", "c"]])}, r"holds .*, such as \['a'\]; expected one class"),
        ({"train": table(label=[{"name": "a"}, {"name": "b"}])}, "expected one class name or whole number a row"),
        (
            {"train": beyond(0, 1, 5, 5)},
            r"train split of here: 2 rows have numbers without a name, such as 5 in row 2;",
        ),
        ({"train": named([0, 1], ["a", "b"]), "test": beyond(0, 2)}, r"test split of here: 1 rows .* 2 names: a, b\."),
        ({"train": table(label=["a", "a"])}, "all training rows have the same label, 'a'"),
        ({"train": table(label=[0.5, 1.5])}, "holds 0.5; expected a class name or a whole number"),
    ],
)
def test_labels_that_do_not_fit(splits, message):
    with pytest.raises(ValueError, match=message):
        encode_labels(splits, "label", "here")


def test_carving_keeps_the_shares_of_classes_and_depends_on_the_seed_only():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    rows = Rows(table(x=list(range(160))), np.arange(160), labels)
    rest, held = carve(rows, 0.1, seed=0)
    assert sorted([*rest.indices, *held.indices]) == list(range(160))
    assert np.bincount(held.labels).tolist() == [10, 5, 1]
    assert np.array_equal(carve(rows, 0.1, seed=0)[1].indices, held.indices)
    assert not np.array_equal(carve(rows, 0.1, seed=1)[1].indices, held.indices)
    assert len(carve(rows.take(np.arange(2)), 0.01, seed=0)[1]) == 1


def test_usual_names_in_capitals_and_guesses_by_type(caplog):
    rows = table(Label=["a"], Text=["x"])
    assert find_label_column(rows, None) == "Label"
    assert find_column(rows, "text_column", None, ("text",), lambda kind: True) == "Text"
    assert not caplog.text
    assert find_column(rows, "text_column", None, (), lambda kind: True, taken=("label",)) == "Text"
    assert "Column 'Text' is read as text_column, as no other fits" in caplog.text


@pytest.mark.parametrize("counts", [[1, 1, 8], [2, 8], [1, 1, 1, 2, 5]])
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_carving_leaves_a_row_of_each_class_to_train_on(counts, fraction):
    labels = np.repeat(np.arange(len(counts)), counts)
    for seed in range(5):
        first, second = carve(Rows(table(), np.arange(10), labels), fraction, seed)
        assert set(first.labels) == set(labels)
        assert len(second) == round(10 * fraction)
        assert sorted([*first.indices, *second.indices]) == list(range(10))


def test_classes_that_cannot_be_kept_are_said(caplog, monkeypatch):
    monkeypatch.setattr("lambda_seq.tasks.data.reading.notes._said", set())  # other tests cause the same note
    carve(Rows(table(), np.arange(2), np.array([0, 1])), 0.1, 0)
    assert "1 classes have no rows left to train on" in caplog.text
