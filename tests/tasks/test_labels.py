"""Columns and labels."""

import datasets
import numpy as np
import pytest

from tasks.data.labels import Rows, carve, encode_labels, find_column, find_label_column


def table(**columns):
    return datasets.Dataset.from_dict(columns)


def named(values, names):
    features = datasets.Features(label=datasets.ClassLabel(names=names))
    return datasets.Dataset.from_dict({"label": values}, features=features)


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
    ("splits", "message"),
    [
        ({"train": table(label=["a", "b"]), "test": table(label=["a", "c"])}, r"test split of here: row 1 .*'c'"),
        ({"train": named([0, 1], ["a", "b", "c"]), "test": named([2], ["a", "b", "c"])}, r"'c', which no training row"),
        ({"train": table(label=["a", None])}, "row 1 has no label"),
        ({"train": named([0, 1], ["a", "b"]), "test": named([-1], ["a", "b"])}, "row 0 has no label"),
        ({"train": table(label=["a", "a"])}, "all training rows have the same label, 'a'"),
        ({"train": table(label=[0.5, 1.5])}, "holds 0.5; expected a class name or a whole number"),
        ({"train": table(label=["a", "b"]), "test": table(x=[1])}, "absent from the test split of here: it has x"),
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
