"""A run's folder alone answers raw inputs as the run did: every row, of every kind of data."""

import csv
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from lightning.pytorch import Trainer
from PIL import Image
from small_audio import clip_folder
from small_data import image_folder, texts, write_jsonl

import lambda_seq
from lambda_seq.__main__ import main
from lambda_seq.inference.frontends import LogMelOptions
from lambda_seq.tasks import predicting
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.cli import EXPECTED
from lambda_seq.tasks.data import AudioData, ImageData, TextData
from lambda_seq.tasks.export import export

COUNTS = {"train": 12, "validation": 2, "test": 9}
ENCODER = {"dim": 8, "depth": 1, "heads": 2, "scope": 3}
FEATURES = {**ENCODER, "stem": "features", "strides": []}
RESNET = {"blocks": [1], "placement": "L", "width": 8, "heads": 2, "scope": 3}


def stories(folder):
    for split, count in COUNTS.items():
        write_jsonl(folder / f"{split}.jsonl", texts(2 * count))
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    return [row["text"] for row in rows]


def pictures(folder):
    """Of other sizes than the median, some of them transparent."""
    image_folder(folder, COUNTS, size=(8, 10))
    files = sorted((folder / "test").rglob("*.png"))
    for file in files[::3]:
        picture = Image.open(file).convert("RGBA").resize((15, 11))
        picture.putalpha(90)
        picture.save(file)
    return files


def clips(folder):
    """Some of another rate, some in stereo."""
    clip_folder(folder, COUNTS)
    files = sorted((folder / "test").rglob("*.wav"))
    for file in files[::3]:
        samples, rate = soundfile.read(file)
        soundfile.write(file, np.stack([samples, samples / 2], 1), 2 * rate)
    return files


KINDS = {
    "texts": (stories, TextData, {"max_length": 20, "part": "end"}, ENCODER),
    "windows of words": (
        stories,
        TextData,
        {"tokenizer": "words", "max_length": 6, "part": "windows", "stride": 4, "batch_size": 3},
        {**ENCODER, "stem": "ngrams", "buckets": 64, "strides": []},
    ),
    "tokens": (
        stories,
        TextData,
        {"tokenizer": "train", "vocab_size": 270, "part": "random", "max_length": 9},
        ENCODER,
    ),
    "pictures": (pictures, ImageData, {"background": "black"}, RESNET),
    "grey pixels": (pictures, ImageData, {"grey": True, "as_sequence": True, "image_size": [5, 6]}, FEATURES),
    "clips": (
        clips,
        AudioData,
        {"cache": True, "max_seconds": 0.13, "pad_to_multiple": 50},
        {**ENCODER, "stem": "waveform", "strides": [4, 4]},
    ),
    "windows of log-mel frames": (
        clips,
        AudioData,
        {
            "representation": "log_mel",
            "log_mel": LogMelOptions(8, 128),
            "standardize": "train",
            "crop_seconds": 0.05,
            "evaluate": "windows",
            "batch_size": 4,
        },
        FEATURES,
    ),
}


def trained(name, folder):
    """The folder of a model that was trained for two epochs, raw test inputs, and what the run says of the test."""
    make, kind, options, network = KINDS[name]
    inputs = make(folder / "data")
    data = kind(str(folder / "data"), **{"batch_size": 8, **options})
    task = Classification(
        "lambda_resnet_tiny" if kind is ImageData and network is RESNET else "lambda_encoder", network
    )
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, log_every_n_steps=1, **quiet)
    trainer.fit(task, data)
    (figures,) = trainer.test(task, data, verbose=False)
    found = trainer.predict(task, data)
    export(task, folder / "model", source="data", metrics={})
    labels = torch.cat([batch["label"] for batch in data.test_dataloader()]).tolist()
    return folder / "model", inputs, figures, torch.cat([batch["probabilities"] for batch in found]), labels


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        torch.manual_seed(0)
        for message in EXPECTED:
            warnings.filterwarnings("ignore", message)
        return trained(request.param, tmp_path_factory.mktemp("run"))


def test_every_row_is_answered_as_by_the_run(run):
    folder, inputs, figures, probabilities, labels = run
    predictor = lambda_seq.load_predictor(folder)
    found = predictor(inputs)
    assert torch.allclose(torch.tensor(np.stack([one.answer for one in found])), probabilities, atol=1e-5)
    right = sum(one.label == predictor.labels[label] for one, label in zip(found, labels, strict=True))
    assert right / len(labels) == pytest.approx(figures["test/accuracy"])
    assert [one.label for one in found] == [predictor.labels[index] for index in probabilities.argmax(1)]
    paths = isinstance(inputs[0], Path)
    assert [one.id for one in found] == [str(given) if paths else str(row) for row, given in enumerate(inputs)]
    single = predictor(inputs[4])
    assert single.label == found[4].label
    assert np.allclose(single.answer, found[4].answer, atol=1e-5)
    assert single.probability == max(single.probabilities.values())
    assert list(single.probabilities) == predictor.labels
    few = lambda_seq.load_predictor(folder, batch_size=1).stream(iter(inputs[:3]))
    assert np.allclose([one.answer for one in few], probabilities[:3], atol=1e-5)
    assert predictor([]) == []


@pytest.mark.parametrize(
    ("make", "kind", "part", "changed", "shape"),
    [
        (stories, TextData, "tokens", {"max_length": 3}, (3,)),
        (pictures, ImageData, "pixels", {"size": [3, 4]}, (3, 3, 4)),
        (clips, AudioData, "audio", {"clip_length": 7}, (7,)),
    ],
)
def test_data_modules_read_their_test_split_by_the_record(tmp_path, make, kind, part, changed, shape):
    """Which the predictor reads by, too: neither has a way of its own."""
    make(tmp_path / "data")
    data = kind(str(tmp_path / "data"))
    record = replace(getattr(data.facts, part), **changed)
    vars(data)["facts"] = replace(data.facts, **{part: record})
    assert data.rows_as_items(data.split("test"), "test")[0]["x"].shape == shape
    assert data.rows_as_items(data.split("train"), "train", training=True)[0, 0]["x"].shape != shape


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `lambda-seq predict ARGUMENTS` of a saved model, and gives what it prints."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["lambda-seq", "predict", *map(str, arguments)])
        capsys.readouterr()
        main()
        return capsys.readouterr().out

    return run


def rows(file):
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def test_the_command_reads_what_a_folder_or_table_holds(run, command, tmp_path):
    folder, inputs, figures, probabilities, labels = run
    names = lambda_seq.load_predictor(folder).labels
    data = folder.parent / "data" / ("test.jsonl" if isinstance(inputs[0], str) else "test")
    printed = command("--model", folder, "--input", data, "--output", tmp_path / "p.jsonl")
    assert f"{len(inputs)} predictions: {tmp_path / 'p.jsonl'}" in printed
    assert f"accuracy {figures['test/accuracy']:.4f}, of {len(inputs)} inputs" in printed
    found = rows(tmp_path / "p.jsonl")
    assert list(found[0]) == ["id", "input", "label", "prediction", *(f"probability: {name}" for name in names)]
    assert [row["input"] for row in found] == [str(given) for given in inputs]
    assert [row["label"] for row in found] == [names[label] for label in labels]
    chances = [[row[f"probability: {name}"] for name in names] for row in found]
    assert np.allclose(chances, probabilities, atol=1e-5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of models by what they read; none is trained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    reads = {"tokens": {"kind": "bytes", "max_length": 16, "part": "start"}}
    records = {
        "text": ("lambda_encoder", {**ENCODER, "num_classes": 2, "vocab_size": 257}, reads),
        "several": ("lambda_encoder", {**ENCODER, "num_classes": 2, "vocab_size": 257, "head": "labels"}, reads),
        "numbers": ("lambda_encoder", {**ENCODER, "num_classes": 3, "vocab_size": 257, "head": "numbers"}, reads),
        "picture": ("lambda_resnet_tiny", {"num_classes": 2}, {"size": [8, 8], "mean": [99.0] * 3, "std": [50.0] * 3}),
        "prompt": ("lambda_lm_tiny", {"vocab_size": 257}, {"tokens": {"kind": "bytes"}}),
    }
    for name, (network, options, record) in records.items():
        model = lambda_seq.create_model(network, **options).eval()
        labels = ["canine", "feline"] if options.get("num_classes") == 2 else None
        model.save_pretrained(folder / name, labels=labels, preprocessing={"version": 1, **record})
    return folder


def test_several_tables_and_columns(saved, command):
    write_jsonl(Path("a.jsonl"), [{"remark": "cat", "kind": "feline"}, {"remark": "", "kind": None}])
    write_jsonl(Path("b.jsonl"), [{"remark": "dog", "kind": "wolf"}])
    printed = command(
        *("--model", saved / "text", "--input", "a.jsonl", "b.jsonl"),
        *("--data.text_column", "remark", "--data.label_column", "kind", "--output", "new/p.jsonl"),
    )
    found = rows("new/p.jsonl")
    assert [(row["id"], row["input"], row["label"]) for row in found] == [
        ("a.jsonl:0", "cat", "feline"),
        ("a.jsonl:1", "", None),
        ("b.jsonl:0", "dog", "wolf"),
    ]
    assert f"accuracy {(found[0]['prediction'] == 'feline') / 2:.4f}, of 2 inputs" in printed
    assert f"cat: {found[0]['prediction']} (" in printed


def test_texts_of_files_with_other_heads(saved, command):
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("naïve", encoding="utf-8")
    Path("texts/b.txt").write_text("a longer text than is read", encoding="utf-8")
    assert "2 predictions: predictions.csv" in command("--model", saved / "numbers", "--input", "texts")
    with Path("predictions.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [Path(row["id"]).name for row in found] == ["a.txt", "b.txt"]
    assert found[0]["input"] == "naïve"
    answer = lambda_seq.load_predictor(saved / "numbers")("naïve").answer
    assert np.allclose([float(found[0][f"prediction: {number}"]) for number in range(3)], answer, atol=1e-5)
    command("--model", saved / "several", "--input", "texts/a.txt", "--output", "p.parquet")
    (row,) = pq.read_table("p.parquet").to_pylist()
    chances = {name: row[f"probability: {name}"] for name in ("canine", "feline")}
    assert json.loads(row["prediction"]) == [name for name, chance in chances.items() if chance >= 0.5]


def test_vectors_of_files(saved, command):
    write_jsonl(Path("a.jsonl"), [{"text": "cat", "label": "feline"}, {"text": "a longer text than is read"}])
    printed = command("--model", saved / "text", "--input", "a.jsonl", "--embed", "--output", "p.parquet")
    vectors = lambda_seq.load_predictor(saved / "text").embed(["cat", "a longer text than is read"])
    assert f"cat: 8 numbers, from {vectors[0, 0]:.4g} on" in printed
    assert "accuracy" not in printed
    table = pq.read_table("p.parquet")
    assert table.column_names == ["id", "input", "label", *(f"vector {index}" for index in range(8))]
    assert np.allclose([list(row.values())[3:] for row in table.to_pylist()], vectors, atol=1e-6)


def test_prompts_of_files(saved, command):
    Path("prompt.txt").write_text("Once")
    options = ("--max_new_tokens", 5, "--temperature", 0, "--output", "p.jsonl")
    command("--model", saved / "prompt", "--input", "prompt.txt", *options)
    (row,) = rows("p.jsonl")
    assert row["input"] == "Once"
    assert row["text"] == lambda_seq.load_predictor(saved / "prompt")("Once", max_new_tokens=5, temperature=0).text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "text", "--input", "none.csv"), "--input='none.csv': no such file or folder"),
        (("--model", "picture", "--input", "a.txt"), "--input='a.txt': unknown kind of file '.txt'"),
        (("--model", "picture", "--input", "broken.png"), "broken.png: not a readable image"),
        (("--model", "text", "--input", "white.png"), "(the model takes texts)"),
        (("--model", "none", "--input", "a.txt"), "'none' is no folder here"),
        (("--model", "text", "--input", "a.txt", "--output", "p.xlsx"), "--output=p.xlsx: unknown kind of file"),
        (("--model", "text", "--input", "a.txt", "--temperature", "1"), "--temperature: is of language models"),
        (("--model", "prompt", "--input", "a.txt", "--embed"), "--embed: "),
        (("--model", "text", "--input", "a.txt", "--batch_size", "0"), "batch_size=0: expected at least 1"),
        (("--model", "text", "--input", "a.txt", "--data.label_column", "kind"), "label_column='kind'"),
        (("--model", "text"), None),
    ],
)
def test_what_a_command_cannot_do_is_one_line(saved, command, capsys, arguments, message):
    Path("a.txt").write_text("a text")
    Path("broken.png").write_text("no picture")
    Image.new("RGB", (8, 8)).save("white.png")
    words = [saved / word if (saved / word).is_dir() else word for word in arguments]
    with pytest.raises(SystemExit) as end:
        command(*words)
    if message is None:
        assert "the following arguments are required: --input" in capsys.readouterr().err
    else:
        assert str(end.value.code).startswith("error: ")
        assert message in str(end.value.code)
    assert not Path("predictions.csv").exists()


def test_which_command_lines_mean_a_saved_model(saved):
    assert predicting.asks(["predict", "--model", str(saved / "text")])
    assert predicting.asks(["predict", f"--model={saved / 'text'}"])
    assert predicting.asks(["predict", "--model", "owner/name", "--input", "a.txt"])
    assert not predicting.asks(["predict", "--config", "digits", "--model", "Classification"])
    assert not predicting.asks(["predict", "--config", "digits", "--model.network", "lambda_resnet_tiny"])
    assert not predicting.asks(["fit", "--input", "a.txt"])
