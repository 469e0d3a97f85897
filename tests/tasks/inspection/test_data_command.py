"""`lambda-seq data`: what would be read, and what is to be looked at."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_audio import SPLITS, clip_folder
from small_data import image_folder, write_jsonl

from lambda_seq.tasks.data import AudioData, CorpusData, ImageData, ListOpsData, RecallData, SeriesData, TextData
from lambda_seq.tasks.inspection.guessing import guessed, with_configuration
from lambda_seq.tasks.inspection.inspecting import inspect, run


def kinds(found):
    return [finding.kind for finding in found.findings]


def said(found, kind):
    return [finding.message for finding in found.findings if finding.kind == kind]


def width(file):
    with Image.open(file) as image:
        return image.width


@pytest.fixture
def reviews(tmp_path):
    rows = [
        {"text": f"review number {row} of this shop", "label": "bad" if row % 10 == 0 else "good"} for row in range(60)
    ]
    rows[5]["text"] = "x" * 5000
    rows[7] = {"text": "no label", "label": None}
    folder = tmp_path / "reviews"
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "test.jsonl", [{"text": rows[3]["text"], "label": "bad"}, {"text": "new", "label": "good"}])
    return folder


def test_the_command(cli, reviews):
    printed = cli("data", "--data.path", reviews)
    assert "\nSaid while reading:\n- " in printed.out
    assert "configuration text_classification, as it is a table of texts with a column like 'label'" in printed.out
    assert f"lambda-seq fit --config text_classification --data.path {reviews}" in printed.out
    found = json.loads(Path("outputs/text_classification/data.json").read_text())
    assert found["data"] == "TextData"
    assert found["splits"]["train"]["rows"] + found["splits"]["validation"]["rows"] == 59
    assert found["splits"]["test"]["classes"] == {"bad": 1, "good": 1}
    assert found["splits"]["train"]["lengths"]["longest"] == 5000
    assert len(found["examples"]) == 3
    assert {one["label"] for one in found["examples"]} == {"bad", "good"}
    assert {"unlabelled", "imbalance", "duplicates", "contradictions", "lengths"} <= {
        one["kind"] for one in found["findings"]
    }
    for words in (
        "1 rows of train without a label: train row 7; ",
        "train row 5 with 5,000",
        "in train, too: figures of test",
    ):
        assert words in printed.out
    assert any("1 of 60 rows are left out" in line for line in found["said"])
    assert not Path("outputs/text_classification/checkpoints").exists()


def test_a_path_alone_and_a_configuration_of_ones_own(cli, reviews):
    printed = cli("inspect", reviews, "--config", "long_documents", "--output_dir", "here")
    assert "review number" in printed.out
    assert Path("here/data.json").is_file()
    printed = cli("inspect", "nowhere", code=1)
    assert "path='nowhere': no such file or folder" in printed.err


@pytest.mark.parametrize("options", [["--data.table.encoding", "cp1251"], ["--data.table.encoding=cp1251"]])
def test_options_of_tables_count_for_the_guess(tmp_path, options):
    (tmp_path / "a.csv").write_bytes("text,label\nхорошо,да\nплохо,нет\n".encode("cp1251"))
    words = with_configuration(["data", str(tmp_path / "a.csv"), *options])
    assert words == ["inspect", "--config", "text_classification", *options, "--data.path", str(tmp_path / "a.csv")]


def test_nothing_to_look_at(tmp_path, capsys):
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": f"text {row}", "label": "ab"[row % 2]} for row in range(40)])
    found = run(TextData(str(file)), tmp_path / "out")
    assert not found.findings, found.findings
    printed = capsys.readouterr().out
    assert "Nothing to look at" in printed
    assert f"all of it: {tmp_path / 'out' / 'data.json'}" in printed
    assert not found.sheet


def test_findings_name_rows(tmp_path):
    texts = [f"some text {row}" for row in range(30)]
    texts[11], texts[12], texts[13] = texts[2], texts[3], ""
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": text, "label": "ab"[row % 2]} for row, text in enumerate(texts)])
    found = inspect(TextData(str(file), validation_fraction=0), tmp_path)
    assert kinds(found) == ["empty", "duplicates", "contradictions"]
    assert "train row 13" in said(found, "empty")[0]
    twice = said(found, "duplicates")[0]
    assert "2 of 29 rows of train are there twice in train; leave them out, such as train row 11 = train row 2" in twice
    assert "2 rows have the content of another one, but another label" in said(found, "contradictions")[0]


def test_rare_classes(tmp_path):
    rows = [{"text": f"text {row}", "label": "b" if row in (1, 2) else "a"} for row in range(30)]
    write_jsonl(tmp_path / "d" / "train.jsonl", rows)
    write_jsonl(tmp_path / "d" / "test.jsonl", rows[3:6])
    found = inspect(TextData(str(tmp_path / "d"), validation_fraction=0), tmp_path)
    assert kinds(found) == ["imbalance", "few", "absent", "duplicates"]
    assert "class 'a' has 28 training rows and 'b' 2: always 'a' is right in 93%" in said(found, "imbalance")[0]
    assert "classes without a row in test: b" in said(found, "absent")[0]


def test_pictures(tmp_path):
    folder = image_folder(tmp_path / "p", {"train": 12, "test": 2})
    (folder / "test" / "up" / "00.png").write_bytes((folder / "train" / "down" / "03.png").read_bytes())
    Image.fromarray(np.zeros((90, 90, 3), np.uint8)).save(folder / "train" / "up" / "big.png")
    (folder / "train" / "up" / "bad.png").write_bytes(b"no picture")
    found = inspect(ImageData(str(folder), image_size=8), tmp_path / "out")
    assert found.unit == "pixels"
    assert width(found.sheet) > 900
    assert "up/00.png = down/03.png" in said(found, "duplicates")[0]
    assert "up/big.png with 8,100" in said(found, "lengths")[0]
    assert "bad.png: not a readable image" in said(found, "unreadable")[0]
    assert "8×8 colours" in found.examples[0]["shown"]


def test_clips(tmp_path):
    folder = clip_folder(tmp_path / "clips", SPLITS)
    found = inspect(AudioData(str(folder)), tmp_path / "out")
    assert found.unit == "seconds"
    assert width(found.sheet) > 900
    assert " Hz, 1 channel" in found.examples[0]["shown"]


def test_texts_to_predict(tmp_path):
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": f"text {row}"} for row in range(40)])
    found = inspect(CorpusData(str(file)), tmp_path)
    assert found.splits["train"]["classes"] is None
    assert found.examples[0] == {"row": "train row 0", "label": None, "shown": "text 0"}
    with pytest.raises(ValueError, match="streaming=True: a stream has no rows to compare; leave out"):
        inspect(CorpusData(str(file), streaming=True), tmp_path)


def test_generated_data(tmp_path):
    data = RecallData(length=64, train_size=50, validation_size=20, test_size=20)
    found = inspect(data, tmp_path)
    assert found.splits["train"]["rows"] == len(data.splits["train"])
    assert "of torch.int64" in found.examples[0]["shown"]
    assert isinstance(ListOpsData, type)


def waves_in(file):
    file.write_text("@classLabel true a b\n@data\n" + "1,2,3:4,5,?:a\n3,2,1:5,4,3:b\n" * 6)
    return file


def arrays_in(folder):
    folder.mkdir()
    np.savez(folder / "all.npz", x=np.arange(60.0).reshape(10, 2, 3), y=np.array(["a", "b"] * 5))
    return folder


def test_series(tmp_path):
    found = inspect(SeriesData(str(waves_in(tmp_path / "a.ts")), validation_fraction=0), tmp_path / "out")
    assert found.unit == "steps"
    assert found.splits["train"]["lengths"]["longest"] == 3
    assert found.examples[0]["shown"] == "3 steps; channel 1 1 to 3; channel 2 4 to 5, 1 missing"
    assert width(found.sheet) > 900
    assert "10 of 12 rows of train are there twice" in said(found, "duplicates")[0]


def table(place, **columns):
    pq.write_table(pa.table(columns), place)
    return place


def test_the_configuration_that_data_are_for(tmp_path):
    png, wav = tmp_path / "a.png", clip_folder(tmp_path / "clips", SPLITS)
    Image.new("L", (4, 4)).save(png)
    clip = next(wav.rglob("*.wav")).read_bytes()
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "a.txt").write_text("x")
    for name in ("a", "b"):
        (tmp_path / "sorted" / name).mkdir(parents=True)
        (tmp_path / "sorted" / name / "x.txt").write_text("x")
    pairs = {
        "image_classification": [
            png,
            image_folder(tmp_path / "p", {"": 2}),
            table(tmp_path / "1.parquet", x=[{"bytes": png.read_bytes(), "path": None}] * 2, y=[0, 1]),
            table(tmp_path / "2.parquet", x=[None, png.read_bytes()], y=[0, 1]),
            table(tmp_path / "3.parquet", file=["x/a.jpg", "x/b.jpg"], y=[0, 1]),
            table(tmp_path / "4.parquet", label=[0, 1], **{f"pixel{place}": [0, 1] for place in range(64)}),
            table(tmp_path / "5.parquet", pixels=[[[0] * 8] * 8] * 2, y=[0, 1]),
            "sklearn:digits",
        ],
        "audio_classification": [
            wav,
            table(tmp_path / "6.parquet", x=[clip, clip], y=[0, 1]),
            table(tmp_path / "7.parquet", path=["a.wav", "b.flac"], y=[0, 1]),
            "generated:tones",
        ],
        "series_classification": [
            waves_in(tmp_path / "waves.ts"),
            arrays_in(tmp_path / "arrays"),
            table(tmp_path / "12.parquet", label=[0, 1], values=[[0.5] * 17, [0.25] * 17]),
            table(tmp_path / "13.parquet", id=[1, 1, 2, 2], time=[0, 1, 0, 1], x=[1.0, 2, 3, 4], label=[0, 0, 1, 1]),
            "generated:waves",
        ],
        "biosequences": ["generated:sites"],
        "text_classification": [
            tmp_path / "sorted",
            table(tmp_path / "8.parquet", comment=["a", "b"], sentiment=[0, 1]),
            table(tmp_path / "9.parquet", what=["a", "b", "c", "d"], mood=[0, 1, 0, 1]),
            write_jsonl(tmp_path / "10.jsonl", [{"a": {"text": "x"}, "b": {"label": 1}}]),
        ],
        "language_modelling": [tmp_path / "loose", table(tmp_path / "11.parquet", text=["a", "b"])],
    }
    for name, paths in pairs.items():
        for path in paths:
            assert guessed(str(path))[0] == name, path


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("some/hub-name", ValueError, "config: none given, and path='some/hub-name' is not on this machine"),
        ("./nowhere.csv", FileNotFoundError, "no such file or folder"),
        ("a.xyz", ValueError, "of kind '.xyz', nothing that can be read; expected pictures, clips"),
    ],
)
def test_what_cannot_be_guessed(tmp_path, path, error, message):
    Path("a.xyz").write_text("x")
    with pytest.raises(error, match=message):
        guessed(path)
    with pytest.raises(ValueError, match=r"data.path: no data given to look at; .* lambda-seq data PATH"):
        with_configuration(["data"])
