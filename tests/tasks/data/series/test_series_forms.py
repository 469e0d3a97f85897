"""Forms of series: .ts files, arrays, and tables with a row for each step, for each series, or with lists."""

import gzip
import json

import datasets
import numpy as np
import pandas as pd
import pytest

from lambda_seq.tasks.data import SeriesData

NAN = float("nan")
HEAD = "# a comment\n@problemName Toy\n@timeStamps false\n@missing true\n@univariate false\n@dimensions 2\n"
SERIES = [[[1.0, NAN, 3.0], [4.0, 5.0, 6.5]], [[-1.0, 2.0], [0.0, NAN]]] * 4
LABELS = ["walk", "run"] * 4


def rows(data, split="train"):
    """Series (C, N) and the names of their classes."""
    items = list(data.rows_as_items(data.split(split), split))
    return [item["x"].T.tolist() for item in items], [data.labels[item["label"]] for item in items]


def same(found, expected=SERIES, labels=LABELS):
    series, names = found
    assert names == labels
    assert len(series) == len(expected)
    for one, two in zip(series, expected, strict=True):
        np.testing.assert_allclose(one, two)


def in_ts(series, labels):
    lines = [
        ":".join([*(",".join("?" if one != one else f"{one:g}" for one in channel) for channel in each), label])
        for each, label in zip(series, labels, strict=True)
    ]
    return HEAD + "@classLabel true walk run\n@data\n" + "\n".join(lines) + "\n"


def read(path, **options):
    return SeriesData(str(path), validation_fraction=0, **options)


def test_ts(tmp_path):
    (tmp_path / "a.ts").write_text(in_ts(SERIES, LABELS))
    same(rows(read(tmp_path / "a.ts")))
    (tmp_path / "b.ts.gz").write_bytes(gzip.compress(in_ts(SERIES, LABELS).upper().encode()))
    same(rows(read(tmp_path / "b.ts.gz")), labels=[label.upper() for label in LABELS])


def test_ts_of_the_archives_in_two_files(tmp_path):
    (tmp_path / "Toy_TRAIN.ts").write_text(in_ts(SERIES, LABELS))
    (tmp_path / "Toy_TEST.ts").write_text(in_ts(SERIES[:2], LABELS[:2]))
    data = read(tmp_path)
    same(rows(data))
    same(rows(data, "test"), SERIES[:2], LABELS[:2])


def test_ts_of_numbers_to_predict(tmp_path):
    text = "@targetlabel true\n@data\n" + "".join(f"1,{row},3:{row / 2}\n" for row in range(9))
    (tmp_path / "a.ts").write_text(text)
    data = read(tmp_path / "a.ts")
    assert data.facts.target.kind == "numbers"
    assert data.facts.target.mean == [2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3:a\n", "it has no line @data"),
        ("@classLabel true a b\n@data\n1,2:3:a\n", "line 3: its channels have 2, 1 numbers; give all as many"),
        ("@classLabel true a b\n@data\n1,2:a\n\n1,x:b\n", "line 5: could not convert string to float: .*'x'"),
        ("@classLabel true a b\n@data\n1,2:a\n1,2:3,4:b\n", "row 1 has 2 channels, and those before 1"),
        ("@timestamps true\n@data\n(0,1):a\n", "steps with times of their own are not read"),
        ("@classLabel true a b\n@data\n(0,1),(1,2):a\n", "line 3: steps with times of their own"),
        ("@classLabel true a b\n@data\na\n", "line 3: no series in front of its class"),
        ("@classLabel true a b\n@data\n", "there are no series in it"),
    ],
)
def test_ts_that_is_none(tmp_path, text, message):
    (tmp_path / "a.ts").write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        _ = read(tmp_path / "a.ts").facts
    assert "a.ts" in str(raised.value)


def test_arrays(tmp_path):
    series = np.random.default_rng(0).standard_normal((8, 2, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=series, y=np.array(LABELS))
    same(rows(read(tmp_path / "a.npz")), series.tolist())
    np.savez(tmp_path / "b.npz", X=series.swapaxes(1, 2), labels=np.array(LABELS).astype(bytes))
    same(rows(read(tmp_path / "b.npz", layout="steps")), series.tolist())
    np.savez(tmp_path / "c.npz", x_train=series, y_train=LABELS, X_Test=series[:3, :1], y_test=LABELS[:3])
    with pytest.raises(ValueError, match="series of 1 channels, where others have 2"):
        _ = read(tmp_path / "c.npz").facts
    np.savez(tmp_path / "d.npz", x_train=series[:, 0], y_train=LABELS, x_val=series[:3, 0], y_val=LABELS[:3])
    data = read(tmp_path / "d.npz")
    same(rows(data), series[:, :1].tolist())
    same(rows(data, "validation"), series[:3, :1].tolist(), LABELS[:3])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"weights": np.zeros((4, 3))}, "it holds weights; expected x"),
        ({"x": np.zeros((4, 3)), "y": np.zeros(3)}, r"y has shape \(3,\); expected \(4,\), as x has"),
        ({"x": np.array(["a", "b"])}, "x is <U1 .2,.; expected numbers"),
        ({"x": np.array([None, {}], dtype=object)}, "save numbers, not objects"),
    ],
)
def test_arrays_that_are_none(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        _ = read(tmp_path / "a.npz").facts


def long(series=SERIES, labels=LABELS, shuffle=True):
    table = pd.DataFrame(
        {"case": f"s{row}", "time": step, "x": x, "y": y, "place": "here", "note": f"n{row}{step}", "activity": label}
        for row, (channels, label) in enumerate(zip(series, labels, strict=True))
        for step, (x, y) in enumerate(zip(*channels, strict=True))
    )
    order = np.random.default_rng(0).permutation(len(table)) if shuffle else np.arange(len(table))
    return table.iloc[order]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_row_for_each_step(tmp_path, kind):
    table = long()
    table.to_csv(tmp_path / "a.csv", index=False) if kind == "csv" else table.to_parquet(tmp_path / "a.parquet")
    data = read(tmp_path / f"a.{kind}", label_column="activity")
    items = list(data.rows_as_items(data.split("train"), "train"))
    by_name = {item["id"]: (item["x"].T.tolist(), data.labels[item["label"]]) for item in items}
    assert by_name.keys() == {f"s{row}" for row in range(8)}
    names = sorted(by_name)
    same(([by_name[name][0] for name in names], [by_name[name][1] for name in names]))
    assert data.channels == ("x", "y")


def test_numbers_of_rows_are_no_channel(tmp_path):
    table = long(shuffle=False).reset_index(drop=True)
    table.to_csv(tmp_path / "a.csv")
    table.iloc[::-1].to_parquet(tmp_path / "b.parquet")
    for name in ("a.csv", "b.parquet"):
        data = read(tmp_path / name, label_column="activity")
        _ = data.splits
        assert data.channels == ("x", "y")


def test_steps_by_dates_and_columns_that_are_named(tmp_path):
    table = long(shuffle=False).rename(columns={"case": "who", "time": "when"})
    table["when"] = [f"2026-01-0{1 + step} 10:00" for step in table["when"]]
    table.iloc[::-1].to_csv(tmp_path / "a.csv", index=False)
    options = {"id_column": "who", "time_column": "when", "channel_columns": ["y"], "label_column": "activity"}
    data = read(tmp_path / "a.csv", **options)
    assert data.channels == ("y",)
    series, labels = rows(data)
    same((series[::-1], labels[::-1]), [[channels[1]] for channels in SERIES])


def test_steps_of_uneven_times_are_told_of(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("lambda_seq.tasks.data.reading.notes._said", set())
    table = long(shuffle=False)
    table["time"] = table["time"] ** 3
    table.to_csv(tmp_path / "a.csv", index=False)
    _ = read(tmp_path / "a.csv", label_column="activity").splits
    assert "4 of 12 steps in 'time' are longer or shorter than the usual 1" in caplog.text
    assert "columns that differ from step to step of a series are left out: note" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": ["?", *["1"] * 18, "far"]}, "row 19 has 'far' in column 'x'; expected a number"),
        ({"time": [None, *[1] * 19]}, "row 0 has no time in column 'time'"),
        ({"time": ["noon", *["1"] * 19]}, "row 0 has 'noon' in column 'time'; expected a number, .* or a date"),
        ({"case": [None, *["a"] * 9, *["b"] * 10]}, "row 0 has nothing in column 'case'"),
        ({"activity": ["walk", "run"] * 10}, "label_column='activity': there is no such column"),
    ],
)
def test_steps_that_are_none(tmp_path, change, message):
    table = long(shuffle=False)
    for name, cells in change.items():
        table[name] = cells
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ValueError, match=message):
        _ = read(tmp_path / "a.csv", label_column="activity", channel_columns=["x"]).facts


def wide(count=12, short=True):
    random = np.random.default_rng(0)
    numbers = random.standard_normal((count, 10)).round(3)
    cells = numbers.astype(object)
    if short:
        cells[1, 6:] = None
        cells[2, 3] = None
    return numbers, cells


def test_a_row_for_each_series(tmp_path):
    numbers, cells = wide()
    table = pd.DataFrame(cells, columns=[f"t{step}" for step in range(10)])
    table.insert(0, "name", [f"n{row}" for row in range(12)])
    table["label"] = ["a", "b"] * 6
    table.to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path / "a.csv")
    series, labels = rows(data)
    assert labels == ["a", "b"] * 6
    assert [len(one[0]) for one in series[:4]] == [10, 6, 10, 10]
    np.testing.assert_allclose(series[0][0], numbers[0], rtol=1e-6)
    assert np.isnan(series[2][0][3])
    two = read(tmp_path / "a.csv", channels=2)
    np.testing.assert_allclose(rows(two)[0][0], numbers[0].reshape(2, 5), rtol=1e-6)
    two = read(tmp_path / "a.csv", channels=2, layout="steps")
    np.testing.assert_allclose(rows(two)[0][0], numbers[0].reshape(5, 2).T, rtol=1e-6)
    with pytest.raises(ValueError, match="channels=3: 10 numbers of a row are no whole number of channels"):
        _ = read(tmp_path / "a.csv", channels=3).facts


def test_rows_of_the_archives_begin_with_their_class(tmp_path):
    numbers, cells = wide(short=False)
    table = pd.DataFrame(cells)
    table.insert(0, "class", [1, 2] * 6)
    table.to_csv(tmp_path / "Toy_TRAIN.tsv", sep="\t", header=False, index=False)
    table[:5].to_csv(tmp_path / "Toy_TEST.tsv", sep="\t", header=False, index=False)
    data = read(tmp_path)
    series, labels = rows(data)
    assert labels == ["1", "2"] * 6
    np.testing.assert_allclose(np.array(series)[:, 0], numbers, rtol=1e-6)
    assert len(data.split("test")) == 5


def test_lists_in_cells(tmp_path):
    clean = [[[None if one != one else one for one in channel] for channel in series] for series in SERIES]
    table = [{"series": series, "label": label} for series, label in zip(clean, LABELS, strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    same(rows(read(tmp_path / "a.jsonl")))
    turned = [row | {"series": [list(step) for step in zip(*row["series"], strict=True)]} for row in table]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turned))
    same(rows(read(tmp_path / "b.jsonl", layout="steps")))
    apart = [{"x": row["series"][0], "y-axis": row["series"][1], "label": row["label"]} for row in table]
    datasets.Dataset.from_list(apart).to_parquet(tmp_path / "c.parquet")
    data = read(tmp_path / "c.parquet")
    same(rows(data))
    assert data.channels == ("x", "y-axis")
    datasets.Dataset.from_list(table).save_to_disk(tmp_path / "d")
    same(rows(read(tmp_path / "d")))
    text = [{"signal": " ".join(map(str, range(row, row + 5))), "label": "ab"[row % 2]} for row in range(6)]
    pd.DataFrame(text).to_csv(tmp_path / "e.csv", index=False)
    same(rows(read(tmp_path / "e.csv")), [[list(range(row, row + 5))] for row in range(6)], ["a", "b"] * 3)


def test_lists_that_are_no_series(tmp_path):
    table = [{"series": [[1, 2], [3]], "label": "a"}, {"series": [[1, 2], [3, 4]], "label": "b"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    with pytest.raises(ValueError, match=r"row 0 holds no series in series \(channels of 2, 1 numbers\)"):
        _ = read(tmp_path / "a.jsonl").facts
    table = [{"series": [[1, 2]] * (3 - row), "label": "ab"[row]} for row in range(2)]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    with pytest.raises(ValueError, match=r"row 1 has 2 channels, and those before 3; .* --data.layout steps"):
        _ = read(tmp_path / "b.jsonl").facts


def test_tables_without_series(tmp_path):
    pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ValueError, match=r"no series are found in the columns text, label; expected lists of numbers"):
        _ = read(tmp_path / "a.csv").facts
    with pytest.raises(ValueError, match=r"time_column='text': rows are steps of series, but of which ones\?"):
        _ = read(tmp_path / "a.csv", time_column="text").facts


def test_what_is_predicted_is_read_alike_and_needs_no_labels(tmp_path):
    long().to_csv(tmp_path / "a.csv", index=False)
    long(SERIES[:3], LABELS[:3], shuffle=False).drop(columns="activity").to_csv(tmp_path / "new.csv", index=False)
    data = read(tmp_path / "a.csv", label_column="activity", predict_path=str(tmp_path / "new.csv"))
    _ = data.facts
    (batch,) = data.predict_dataloader()
    assert batch["id"] == ["s0", "s1", "s2"]
    assert "label" not in batch
    assert data.known.of("s1") == ["2 steps"]
    pd.DataFrame({"case": ["s0", "s0"], "time": [0, 1], "x": [1, 2]}).to_csv(tmp_path / "less.csv", index=False)
    data = read(tmp_path / "a.csv", label_column="activity", predict_path=str(tmp_path / "less.csv"))
    _ = data.facts
    with pytest.raises(ValueError, match=r"predict_path=.*less.csv': the columns y are missing; give a table like"):
        data.predict_dataloader()
