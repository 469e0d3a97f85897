"""Tables as people have them: what is read of them, what is said of what was guessed, and what is asked for."""

import csv
import gzip
import io
import json

import datasets
import pandas as pd
import pyarrow as pa
import pytest

from lambda_seq.tasks.data import TextData
from lambda_seq.tasks.data.language.data import CorpusData
from lambda_seq.tasks.data.reading import notes
from lambda_seq.tasks.data.reading.dialects import TableOptions
from lambda_seq.tasks.data.reading.sources import load_rows

ROWS = [(f"Übel, gar nicht süß, Nr. {row}", "nein") if row % 2 else (f"Schön war’s {row}", "ja") for row in range(12)]
TEXTS, LABELS = map(list, zip(*ROWS, strict=True))


@pytest.fixture(autouse=True)
def _each_note_anew(monkeypatch):
    monkeypatch.setattr(notes, "_said", set())


def written(header=("text", "label"), rows=ROWS, separator=",", encoding="utf-8"):
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator).writerows([header, *rows] if header else rows)
    return stream.getvalue().encode(encoding)


def read(file, content=None, **options):
    """Texts, class names of the rows, and the data module, without a validation split."""
    if content is not None:
        file.write_bytes(content)
    data = TextData(str(file), validation_fraction=0, **options)
    rows = data.split("train")
    found = rows.table[data.content(rows.table)]
    texts = [found[index] for index in rows.indices.tolist()]
    return texts, [data.labels[label] for label in rows.labels], data


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "csv.gz"])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", None),
        ("utf-32", None),
        ("utf-16-le", "every other byte is 0"),
        ("utf-16-be", "every other byte is 0"),
        ("cp1252", "read as Windows-1252 (Latin-1 and more), such as '"),
    ],
)
def test_encodings(tmp_path, caplog, ending, encoding, said):
    if "json" in ending:
        rows = [{"text": text, "label": label} for text, label in ROWS]
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        content = text.encode(encoding)
    else:
        content = written(encoding=encoding, separator="\t" if ending == "tsv" else ",")
    content = gzip.compress(content) if ending.endswith("gz") else content
    assert read(tmp_path / f"a.{ending}", content)[:2] == (TEXTS, LABELS)
    assert (said in caplog.text and "--data.table.encoding" in caplog.text) if said else not caplog.text


def test_an_encoding_that_cannot_be_guessed_is_asked_for(tmp_path):
    rows = [("Очень хорошо", "да"), ("Плохо", "нет")] * 4
    file = tmp_path / "a.csv"
    with pytest.raises(ValueError, match=r"line 2: .*neither UTF-8 nor of Western Europe.*--data.table.encoding NAME"):
        read(file, written(rows=rows, encoding="cp1251"))
    assert read(file, table=TableOptions(encoding="cp1251"))[:2] == tuple(map(list, zip(*rows, strict=True)))
    damaged = written(rows=[("süß", "ja"), ("schön", "nein")] * 10).replace("schön".encode(), b"sch\xffn", 1)
    with pytest.raises(ValueError, match=r"line 3: bytes that are no UTF-8, as almost all else is .1 such"):
        read(file, damaged)


def test_a_long_file_is_utf8_or_not_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr("lambda_seq.tasks.data.reading.encodings.CHUNK", 7)  # cuts characters in two
    file = tmp_path / "a.csv"
    assert read(file, written())[0] == TEXTS
    rows = [*[("plain", "ja")] * 50, ("süß", "nein")]
    assert read(file, written(rows=rows, encoding="latin-1"))[0][-1] == "süß"


@pytest.mark.parametrize("kind", ["csv", "tsv", "txt.csv"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [("text", "label"), ("Text, long", "Label"), None])
def test_separators(tmp_path, caplog, kind, separator, header):
    options = {"text_column": "Text, long"} if header == ("Text, long", "Label") else {}
    texts, labels, _ = read(tmp_path / f"a.{kind}", written(header, separator=separator), **options)
    assert (texts, labels) == (TEXTS, LABELS)
    usual = separator == ("\t" if kind == "tsv" else ",")
    assert (f"separated by {separator!r}" in caplog.text) is not usual


def test_a_separator_that_no_one_guesses(tmp_path):
    content = written(separator="~")
    assert read(tmp_path / "a.csv", content, table=TableOptions(separator="~"))[:2] == (TEXTS, LABELS)
    assert TableOptions(separator="tab").sign == TableOptions(separator="\\t").sign == "\t"
    with pytest.raises(ValueError, match=r"line 3: 3 cells, but the header has 1; .*--data.table.separator"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("rows", "why", "columns"),
    [
        (ROWS, "'ja' stands below it, too", ("column 1", "column 2")),
        ([(str(1 + row % 4), f"Title {row}, or so", "More") for row in range(12)], "'1' is a number as", ("column 2",)),
    ],
)
def test_files_without_a_header(tmp_path, caplog, rows, why, columns):
    texts, labels, _ = read(
        tmp_path / "a.csv", written(None, rows), text_column="column 2" if len(columns) == 1 else None
    )
    assert len(texts) == len(rows)
    assert labels == [str(row[0] if len(columns) == 1 else row[1]) for row in rows]
    assert f"{why}" in caplog.text
    assert "--data.table.header true" in caplog.text


@pytest.mark.parametrize("header", [("0", "1"), ("v1", "v2"), ("What did you like about it?", "And otherwise?")])
def test_headers_that_are_unusual(tmp_path, header):
    _, labels, data = read(tmp_path / "a.csv", written(header), label_column=header[1], text_column=header[0])
    assert labels == LABELS
    assert data.split("train").table.column_names == list(header)


def test_a_header_may_be_said_to_be_none_or_one(tmp_path):
    file = tmp_path / "a.csv"
    rows = [("text", "label"), *ROWS]
    options = {"table": TableOptions(header=False), "text_column": "column 1", "label_column": "column 2"}
    assert read(file, written(None, rows), **options)[0] == ["text", *TEXTS]
    assert read(file, written(("x", "ja")), table=TableOptions(header=True), label_column="ja")[1] == LABELS


@pytest.mark.parametrize(
    "name",
    ["label", "LABEL", " Label ", "target", "class", "Category", "y", "sentiment", "Sentiment", "emotion", "intent"],
)
def test_usual_names_of_labels_in_any_case(tmp_path, name, caplog):
    assert read(tmp_path / "a.csv", written(("Review", name)))[:2] == (TEXTS, LABELS)
    assert not caplog.text


@pytest.mark.parametrize("name", ["airline_sentiment", "rating", "is_spam", "v1"])
def test_a_column_that_is_like_classes(tmp_path, name, caplog):
    header = ("id", "what they wrote", name)
    rows = [(row, text, label) for row, (text, label) in enumerate(ROWS)]
    assert read(tmp_path / "a.csv", written(header, rows))[:2] == (TEXTS, LABELS)
    assert f"Column {name!r} is read as label_column, as no other is like classes" in caplog.text
    assert "Column 'what they wrote' is read as text_column" in caplog.text


def test_what_is_not_clear_is_asked_for(tmp_path):
    rows = [(text, label, label) for text, label in ROWS]
    with pytest.raises(ValueError, match=r"several hold few values: mood, tone. Name one: --data.label_column NAME"):
        read(tmp_path / "a.csv", written(("text", "mood", "tone"), rows))
    with pytest.raises(ValueError, match=r"label_column='tome': .* did you mean 'tone'\? The columns are text, mood"):
        read(tmp_path / "a.csv", label_column="tome")
    assert read(tmp_path / "a.csv", label_column="TONE")[1] == LABELS


def test_several_usual_names(tmp_path, caplog):
    rows = [(text, label, "x") for text, label in ROWS]
    assert read(tmp_path / "a.csv", written(("text", "label", "category"), rows))[1] == LABELS
    assert "Column 'label' is read as label_column; category could be it too. Choose with" in caplog.text


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        (["0.0", "1.0"], ["1", "0.0"], ["0", "1"]),
        (["0", "1.0"], ["1.0"], ["0", "1"]),
        (["-1.", "1.00"], ["-1"], ["-1", "1"]),
        (["1.0", "2.1"], ["1.0"], ["1.0", "2.1"]),
    ],
)
def test_labels_with_a_point(tmp_path, train, test, names):
    (tmp_path / "train.csv").write_bytes(written(rows=[("x", label) for label in train * 3]))
    (tmp_path / "test.csv").write_bytes(written(rows=[("x", label) for label in test]))
    data = TextData(str(tmp_path), validation_fraction=0)
    assert data.split("test").labels.tolist() == [
        names.index(label.partition(".")[0]) if "1.0" not in names else 0 for label in test
    ]
    assert data.labels == names


def test_labels_with_a_point_are_said(tmp_path, caplog):
    read(tmp_path / "a.csv", written(rows=[("x", "0.0"), ("y", "1.0")] * 4))
    assert "0.0, 1.0 are read as whole numbers, such as '0'" in caplog.text


HOLES = b"text,label\na,x\n,\n,,\nb,y\n\nc,\n,x\nd,x\ne,y\n"


def test_empty_rows_and_rows_without_a_label(tmp_path, caplog):
    file = tmp_path / "a.csv"
    with pytest.raises(
        ValueError, match=r"3 of 8 rows have no label .*row 4; 2 of them hold nothing at all; .*drop_inc"
    ):
        read(file, HOLES)
    assert read(file, drop_incomplete=True)[:2] == (["a", "b", "d", "e"], list("xyxy"))
    assert "4 of 8 rows are left out, 3 without a label and 3 with nothing in column 'text'" in caplog.text


def test_incomplete_rows_of_other_splits(tmp_path, caplog):
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.csv").write_bytes(
            written() if name == "train" else HOLES.replace(b"x", b"ja").replace(b"y", b"nein")
        )
    with pytest.raises(ValueError, match=r"validation split .*3 of 8 rows have no label.*--data.drop_incomplete true"):
        read(tmp_path)
    data = read(tmp_path, drop_incomplete=True)[2]
    assert [len(data.split(name)) for name in ("train", "validation", "test")] == [12, 4, 4]
    assert len(data._to_predict) == 5  # one has no label, but a text
    with pytest.raises(
        ValueError, match=r"no row is complete; leave out --data.drop_incomplete, or fill in column 'text'"
    ):
        read(tmp_path / "empty.csv", b"text,label\n,x\n,y\n,x\n", drop_incomplete=True)


NESTED = [
    {"id": row, "review": {"body": text, "meta": {"lang": "de"}}, "answer": {"label": label}}
    for row, (text, label) in enumerate(ROWS)
]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("options", [{}, {"text_column": "review.body", "label_column": "answer.label"}])
def test_columns_within_columns(tmp_path, kind, options):
    table = datasets.Dataset.from_list(NESTED)
    (table.to_json if kind == "jsonl" else table.to_parquet)(tmp_path / f"a.{kind}")
    texts, labels, data = read(tmp_path / f"a.{kind}", **options)
    assert (texts, labels) == (TEXTS, LABELS)
    assert set(data.split("train").table.column_names) == {"id", "review.body", "review.meta.lang", "answer.label"}
    with pytest.raises(ValueError, match=r"text_column='review': .*did you mean 'review.\w+'\? The columns are"):
        read(tmp_path / f"a.{kind}", text_column="review")[2]


def test_columns_within_columns_of_text_to_predict(tmp_path):
    datasets.Dataset.from_list(NESTED).to_json(tmp_path / "a.jsonl")
    data = CorpusData(str(tmp_path / "a.jsonl"), text_column="review.body")
    assert len(data.splits["train"].table) == len(NESTED)


def test_what_pandas_writes(tmp_path):
    frame = pd.DataFrame({"text": TEXTS, "label": [1.0, 0.0] * 6})
    for name, write in (
        ("csv", frame.to_csv),
        ("tsv", lambda file: frame.to_csv(file, sep="\t")),
        ("json", frame.to_json),
    ):
        write(tmp_path / f"a.{name}")
        assert read(tmp_path / f"a.{name}")[:2] == (TEXTS, ["1", "0"] * 6)
    frame.to_json(tmp_path / "a.jsonl.gz", orient="records", lines=True)
    assert read(tmp_path / "a.jsonl.gz")[1] == ["1", "0"] * 6
    frame["label"] = frame["label"].astype("category")
    frame.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[1] == ["1", "0"] * 6


def test_zstandard(tmp_path):
    content = pa.Codec("zstd").compress(written(encoding="cp1252"), asbytes=True)
    assert read(tmp_path / "a.csv.zst", content)[:2] == (TEXTS, LABELS)


def test_streams_are_read_alike(tmp_path):
    (tmp_path / "a.csv").write_bytes(written(separator=";", encoding="cp1252"))
    rows = load_rows(str(tmp_path / "a.csv"), streaming=True)["train"]
    assert [row["text"] for row in rows] == TEXTS
    (tmp_path / "b.csv").write_bytes(written(None, separator="~"))
    options = TableOptions(separator="~", header=False)
    assert [
        row["column 2"] for row in load_rows(str(tmp_path / "b.csv"), streaming=True, options=options)["train"]
    ] == LABELS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "latin-99"}, "table.encoding='latin-99': Python knows no such encoding"),
        ({"separator": "::"}, r"table.separator='::': expected one character, such as ';', or 'tab'"),
        ({"separator": '"'}, "no quotation mark"),
    ],
)
def test_wrong_options_of_tables(options, message):
    with pytest.raises(ValueError, match=message):
        TableOptions(**options)
