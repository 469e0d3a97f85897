"""Cells stay what is written in a file, in whatever order kinds and columns come; and what is said of bad files."""

import bz2
import csv
import gzip
import json
import lzma

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_data import write_jsonl

from lambda_seq.tasks.data.reading.dialects import open_text
from lambda_seq.tasks.data.reading.sources import load_rows
from lambda_seq.tasks.data.reading.tables import read_tables, stream_tables
from lambda_seq.tasks.data.reading.text_tables import csv_rows

WORDS = ["null", "NA", "None", "nan", "N/A", "007", "1e5", "1.0", "True", "-", " x ", "2020-01-01", 'a "b", c\nd', "é"]


def write_csv(file, rows, header=("text", "label"), **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", newline="", encoding=options.pop("encoding", "utf-8")) as stream:
        csv.writer(stream, **options).writerows([header, *rows])
    return file


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_words_and_numbers_of_csv_stay_text(tmp_path, suffix, encoding):
    rows = [(word, word) for word in WORDS]
    file = write_csv(tmp_path / f"a.{suffix}", rows, delimiter="\t" if suffix == "tsv" else ",", encoding=encoding)
    table = load_rows(str(file))["train"]
    assert table["text"][:] == table["label"][:] == WORDS
    assert table.features["label"] == datasets.Value("string")
    stream = load_rows(str(file), streaming=True)["train"]
    assert [row["text"] for row in stream] == WORDS


def test_empty_cells_are_missing_and_short_rows_are_said(tmp_path, caplog):
    (tmp_path / "a.csv").write_text('text, label\nx,""\n,b\n\ny\nz,c,,\n')
    table = load_rows(str(tmp_path / "a.csv"))["train"]
    assert table[:] == {"text": ["x", None, "y", "z"], "label": [None, "b", None, "c"]}
    assert "1 rows have fewer cells than the header, the first in line 5" in caplog.text


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_empty_lines_of_a_single_column_are_said(tmp_path, suffix, caplog):
    """They may have been meant as texts; those at the end are none, and nor are they where rows have several cells."""
    file = tmp_path / f"a.{suffix}"
    file.write_text('text\nfoo\n\n""\nbar\n\n\nbaz\n\n')
    assert load_rows(str(file))["train"]["text"][:] == ["foo", None, "bar", "baz"]
    assert f'{file}: 3 empty lines between rows are left out, the first is line 3; write rows without text as ""' in (
        caplog.text
    )
    caplog.clear()
    (tmp_path / "end.csv").write_text("text\nfoo\nbar\n\n")
    (tmp_path / "two.csv").write_text("text,label\nfoo,a\n\nbar,b\n")
    for name in ("end.csv", "two.csv"):
        assert len(load_rows(str(tmp_path / name))["train"]) == 2
    assert not caplog.text


def test_a_large_cell_and_a_column_that_is_empty_at_first(tmp_path):
    large = "x" * 300_000 + "\n"
    rows = [("", "")] * 10_050 + [(large, "1")]
    table = load_rows(str(write_csv(tmp_path / "a.csv", rows)))["train"]
    assert len(table) == 10_051
    assert table[-1] == {"text": large, "label": "1"}


def test_semicolons_are_found_and_said(tmp_path, caplog):
    file = write_csv(tmp_path / "a.csv", [("a, b", "c")], delimiter=";")
    assert load_rows(str(file))["train"][:] == {"text": ["a, b"], "label": ["c"]}
    assert "separated by ';'" in caplog.text


@pytest.mark.parametrize("text", ['"a" b', 'a "b"', '"', "it's 5\" wide", '"open'])
def test_a_tsv_file_without_quotation(tmp_path, text, caplog):
    (tmp_path / "a.tsv").write_text(f'text\tlabel\n{text}\tx\n"c" d\ty\n')
    assert load_rows(str(tmp_path / "a.tsv"))["train"][:] == {"text": [text, '"c" d'], "label": ["x", "y"]}
    assert "quotation marks are taken as parts of the cells" in caplog.text


LATE = [
    ([1, 2, "other"], ["1", "2", "other"]),
    (["a", 7, None, 1.5, True], ["a", "7", None, "1.5", "true"]),
    ([True, 1], ["true", "1"]),
    ([1, 2.5], [1.0, 2.5]),
    ([None, None, {"a": 1}, {"b": "x"}], [None, None, {"a": 1, "b": None}, {"a": None, "b": "x"}]),
    (["2020-01-01", "soon"], ["2020-01-01", "soon"]),
    ([2**70, 1], [str(2**70), "1"]),
    ([["a"], "b"], ['["a"]', "b"]),
    ([None, None], [None, None]),
]


@pytest.mark.parametrize(("values", "expected"), LATE)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_kinds_of_json_that_come_late(tmp_path, monkeypatch, values, expected, backwards, suffix):
    monkeypatch.setattr(
        "lambda_seq.tasks.data.reading.text_tables.in_batches", lambda items, size: ([item] for item in items)
    )
    order = slice(None, None, -1 if backwards else 1)
    file = tmp_path / f"a.{suffix}"
    file.write_text("\n".join(json.dumps({"value": value}) for value in values[order]))
    assert load_rows(str(file))["train"]["value"][:] == expected[order]


@pytest.mark.parametrize("order", [("0", "1"), ("1", "0")])
def test_files_with_other_columns(tmp_path, order):
    write_jsonl(tmp_path / f"train-{order[0]}.jsonl", [{"text": "a", "n": 1}])
    write_jsonl(tmp_path / f"train-{order[1]}.jsonl", [{"meta": {"k": 1}, "text": "b"}, {"n": "x"}])
    rows = sorted(load_rows(str(tmp_path))["train"], key=lambda row: row["text"] or "")
    assert rows == [
        {"text": None, "n": "x", "meta": None},
        {"text": "a", "n": "1", "meta": None},
        {"text": "b", "n": None, "meta": {"k": 1}},
    ]


def test_splits_with_other_columns_in_parquet_and_mixed_kinds(tmp_path):
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"]))
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features).to_parquet(
        tmp_path / "train.parquet"
    )
    write_csv(tmp_path / "test.csv", [("007",)], header=("text",))
    tables = load_rows(str(tmp_path))
    assert tables["train"].features == features
    assert tables["test"].column_names == ["text"]
    assert tables["test"]["text"][:] == ["007"]


def test_parquet_shards_with_other_types_and_categories(tmp_path):
    pq.write_table(
        pa.table({"label": pa.array(["a", "b"]).dictionary_encode(), "n": [1, 2]}), tmp_path / "train-0.parquet"
    )
    pq.write_table(pa.table({"n": [0.5], "label": ["c"], "more": [[1]]}), tmp_path / "train-1.parquet")
    assert load_rows(str(tmp_path))["train"][:] == {
        "label": ["a", "b", "c"],
        "n": [1.0, 2.0, 0.5],
        "more": [None, None, [1]],
    }
    features = datasets.Features(label=datasets.ClassLabel(names=["x"]))
    datasets.Dataset.from_dict({"label": [0]}, features=features).to_parquet(tmp_path / "train-2.parquet")
    with pytest.raises(ValueError, match=r"train-0.parquet and .*train-2.parquet do not fit.*the column 'label' holds"):
        load_rows(str(tmp_path))


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow_files(tmp_path, kind):
    table = pa.table({"text": ["a", "b"]})
    new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with new(tmp_path / "a.arrow", table.schema) as writer:
        writer.write(table)
    assert load_rows(str(tmp_path))["train"]["text"][:] == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1},\n {"a": 2}]',
        '{"a": 1}\n{"a": 2}\n',
        '{\n "a": 1\n}\n{\n "a": 2\n}',
        '{"a": [1, 2]}',
        '\ufeff[{"a": 1}, {"a": 2}]\n',
    ],
)
def test_forms_of_a_json_file(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert load_rows(str(tmp_path / "a.json"))["train"]["a"][:] == [1, 2]


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize(
    ("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd)]
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_packed_files(tmp_path, ending, pack, kind):
    text = {"csv": "text\nnull\n", "jsonl": '{"text": "null"}\n', "json": '[{"text": "null"}]'}[kind]
    file = tmp_path / f"train.{kind}.{ending}"
    file.write_bytes(pack(text.encode()))
    for path in (file, tmp_path):
        assert load_rows(str(path))["train"]["text"][:] == ["null"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"x": 1}]\n[{"x": 2}]', "line 2: the list of rows ends, but more follows"),
        (
            "a.jsonl",
            b'{"x": ' + b"[" * 9999 + b"]" * 9999 + b"}",
            "line 1: no JSON that can be read .maximum recursion",
        ),
        ("a.json", b"\n" + b"1" * 5000, "line 2: no JSON that can be read .Exceeds the limit .4300 digits"),
        ("a.csv", b"text,label\na,b\nc,d,e\n", r"a.csv, line 3: 3 cells, but the header has 2"),
        ("a.csv", b'text,label\n"a,b\nc,d\n', r"a.csv: Error: unexpected end of data"),
        ("a.csv", b'text,label\n"a" b,c\n', r"a.csv: Error: .*quotation mark"),
        ("a.csv", b"text,text\na,b\n", r"its header names several columns text"),
        (
            "a.csv",
            b"text,label\n\x81,b\n",
            r"a.csv, line 2: its text is neither UTF-8 nor .*--data.table.encoding",
        ),
        ("a.jsonl", b'{"a": 1}\n\n{"a": \n', r"a.jsonl, line 3: no JSON .*one object a line"),
        ("a.jsonl", b'[{"a": 1}]\n', r"a.jsonl, line 1: expected an object"),
        ("a.json", b'[{"a": 1},\n {"a": 2}', r"a.json: the list of rows does not end"),
        ("a.json", b'[{"a": 1},\n {"a": 2,]', r"a.json, line 2: no JSON"),
        ("a.csv.gz", gzip.compress(b"text\n" + b"abc\n" * 50, mtime=0)[:-9], r"a.csv.gz: EOFError"),
        ("a.jsonl.gz", b"no archive", r"a.jsonl.gz: BadGzipFile"),
        ("a.parquet.gz", b"x", r"unknown kind of file|compressed within; unpack it"),
        ("a.zip", b"x", r"unknown kind of file '.zip'; unpack it; expected one of"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_rows(str(tmp_path / name))


def test_a_changed_file_is_read_anew_and_an_unchanged_one_is_not(tmp_path, monkeypatch):
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    assert read_tables("here", [file])["text"][:] == ["one"]
    write_jsonl(file, [{"text": "three"}])
    assert read_tables("here", [file])["text"][:] == ["three"]
    monkeypatch.setattr("lambda_seq.tasks.data.reading.tables._batches", None)
    assert read_tables("here", [file])["text"][:] == ["three"]


def test_a_stream_knows_the_columns_of_the_first_rows(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("lambda_seq.tasks.data.reading.cache.AT_ONCE", 1)
    monkeypatch.setattr(
        "lambda_seq.tasks.data.reading.text_tables.in_batches", lambda items, size: ([item] for item in items)
    )
    first = write_jsonl(tmp_path / "0.jsonl", [{"text": "a", "n": 1}, {"text": 2, "late": 3}])
    second = write_jsonl(tmp_path / "1.jsonl", [{"text": "b", "more": 4}])
    assert list(stream_tables("here", [first, second])) == [
        {"text": "a", "n": 1, "more": None},
        {"text": "2", "n": None, "more": None},
        {"text": "b", "n": None, "more": 4},
    ]
    assert "0.jsonl: the columns late come after the first rows and are left out of the stream" in caplog.text
    third = write_jsonl(tmp_path / "2.jsonl", [{"n": 1}, {"n": "x"}])
    with pytest.raises(ValueError, match=r"2.jsonl, lines 1 to 2: the column 'n' holds int64 in the first rows"):
        list(stream_tables("here", [third]))


def test_lines_of_rows_with_line_breaks_in_them(tmp_path):
    file = write_csv(tmp_path / "a.csv", [("a\nb\nc", "x"), ("d", "y")])
    with open_text(file) as stream:
        assert [part.line for part in csv_rows(file, stream)] == [2, 5]


ROWS = {"text": ["x", "y"], "label": ["a", "b"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("excel.csv", "sep=;\ntext;label\nx;a\ny;b\n"),
        ("quoted.csv", '"sep=\t"\ntext\tlabel\nx\ta\ny\tb\n'),
        ("bars.csv", "text|label\nx|a\ny|b\n"),
        ("pandas.json", '{"text": {"0": "x", "1": "y"}, "label": {"0": "a", "1": "b"}}'),
    ],
)
def test_what_other_programs_write(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert load_rows(str(tmp_path / name))["train"][:] == ROWS


def test_columns_without_a_name_are_numbered(tmp_path):
    (tmp_path / "a.csv").write_text(",text,label,,\n0,x,a,,\n1,y,b,,\n")
    table = load_rows(str(tmp_path / "a.csv"))["train"]
    assert table.column_names == ["column 1", "text", "label", "column 4", "column 5"]
    assert table["column 1"][:] == ["0", "1"]
    assert table["column 5"][:] == [None, None]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_columns_of_types_that_cannot_be_read_are_said(tmp_path, kind, caplog):
    views = {name: pa.array(cells, pa.string_view()) for name, cells in ROWS.items()}
    odd = pa.array([[("k", "v")], []], pa.map_(pa.string(), pa.string()))
    table = pa.table({**views, "odd": odd})
    file = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, file)
    else:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write(table)
    assert load_rows(str(file))["train"][:] == ROWS
    assert "columns of types that cannot be read are left out: odd (map<string, string" in caplog.text


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_columns_of_the_same_name_are_refused(tmp_path, suffix):
    table = pa.Table.from_arrays([pa.array(["x"])] * 2, names=["text", "text"])
    file = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, file)
    else:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write(table)
    with pytest.raises(ValueError, match="several columns called text; give each a name of its own"):
        load_rows(str(file))


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}\n', 2),
        ("a.json", '[{"text": "a"},\n {"text": "b", "text": "c"}]', 2),
        ("columns.json", '{"text": ["a", "b"], "text": ["c", "d"]}', 1),
        ("a.jsonl.gz", '{"text": "a", "of": {"text": "x", "text": "y"}}\n', 1),
    ],
)
def test_values_of_the_same_name_in_an_object_are_refused(tmp_path, name, text, line):
    """As Python's reader would take the last one and drop the others."""
    file = tmp_path / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    with pytest.raises(ValueError, match=rf"{name}, line {line}: no JSON .*an object gives several values to text"):
        load_rows(str(file))


@pytest.mark.parametrize("damage", ["lost", "cut", "empty"])
def test_saved_rows_that_are_damaged(tmp_path, damage):
    datasets.Dataset.from_dict(ROWS if damage != "empty" else {"text": []}).save_to_disk(str(tmp_path / "saved"))
    for file in (tmp_path / "saved").glob("*.arrow"):
        file.unlink() if damage == "lost" else file.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"what `save_to_disk` has written there cannot be read.*save rows again"):
        load_rows(str(tmp_path / "saved"))
