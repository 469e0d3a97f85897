"""Whole commands, as a user types them."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from paths import ROOT
from small_data import QUIET, SHORT, TINY_ENCODER, TINY_RESNET, image_folder, texts, write_jsonl

from lambda_seq.tasks.cli import LambdaCLI

CONFIGS = sorted(path.name for path in (ROOT / "tasks" / "configs").glob("*.yaml"))
IMAGES = ("--config", "tasks/configs/image_classification.yaml", "--data.batch_size=8", *TINY_RESNET)
TEXTS = ("--config", "tasks/configs/text_classification.yaml", "--data.batch_size=8", *TINY_ENCODER)


def test_images_fit_validate_test_predict(cli, pictures, rendered):
    fitted = cli("fit", *IMAGES, "--data.path", pictures, *SHORT)
    output = Path("outputs/image_classification")
    for name in ("test/accuracy", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "curves.png"):
        assert name in fitted.out
    summary = json.loads((output / "summary.json").read_text())
    assert Path(summary["curves"]).read_bytes().startswith(b"\x89PNG")
    assert 0 <= summary["test/accuracy"] <= 1
    assert list(output.glob("csv/version_0/metrics.csv"))
    saved = (output / "config.yaml").read_bytes()
    assert (output / "tensorboard/version_0/config.yaml").read_bytes() == saved
    assert b"output_dir: outputs/image_classification\n" in saved
    assert list(output.glob("tensorboard/version_0/events*"))

    validated = cli("validate", *IMAGES, "--data.path", pictures, *QUIET)
    assert "val/accuracy" in validated.out
    tested = cli("test", *IMAGES, "--data.path", pictures, *QUIET)
    assert f"{summary['test/loss']:.5f}"[:6] in tested.out  # of best.ckpt

    predicted = cli("predict", *IMAGES, "--data.path", pictures, *QUIET)
    assert "8 predictions: outputs/image_classification/predictions.csv" in predicted.out
    with (output / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["id"]).parent.name for row in rows] == ["down"] * 4 + ["up"] * 4
    for row in rows:
        chances = {name.removeprefix("probability: "): float(row[name]) for name in row if name.startswith("prob")}
        assert set(chances) == {"down", "up"}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == max(chances, key=chances.get)
        assert row["input"] == row["id"]
        assert row["label"] == Path(row["id"]).parent.name
    resized = cli("predict", *IMAGES, "--data.path", pictures, *QUIET, "--data.image_size=[9,9]", code=1)
    assert "the checkpoint saw other pictures than the data are now, size=[9, 9]" in resized.err
    assert "give --data.image_size [8,8]" in resized.err


@pytest.mark.parametrize(
    ("words", "made"),
    [(["fit", "--config", "x"], ["fit"]), (["data", "x.csv"], ["inspect"]), (["--config", "x"], None), ([], None)],
)
def test_a_command_makes_its_parser_alone(monkeypatch, words, made):
    monkeypatch.setattr(sys, "argv", ["lambda-seq", *words])
    every = ["fit", "validate", "test", "predict", "baseline", "inspect"]
    assert list(LambdaCLI.subcommands()) == (made or every)


def test_predict_unlabelled_images(cli, pictures, tmp_path):
    cli("fit", *IMAGES, "--data.path", pictures, *SHORT, "--output_dir", "run")
    loose = image_folder(tmp_path / "loose", {"": 3}, names=("",))
    cli(
        *("predict", *IMAGES, "--data.path", pictures, *QUIET, "--output_dir", "run", "--data.predict_path", loose),
        *("--predictions.path", "run/loose.parquet"),
    )
    table = pq.read_table("run/loose.parquet").to_pylist()
    assert [Path(row["id"]).name for row in table] == ["00.png", "01.png", "02.png"]
    assert list(table[0]) == ["id", "input", "prediction", "probability: down", "probability: up"]


@pytest.mark.parametrize(
    "suffix", ["jsonl", pytest.param("csv", marks=pytest.mark.slow), pytest.param("parquet", marks=pytest.mark.slow)]
)
def test_texts_from_one_file(cli, tmp_path, suffix):
    import datasets

    table = datasets.Dataset.from_list(texts(40))
    file = tmp_path / f"texts.{suffix}"
    {"jsonl": table.to_json, "csv": table.to_csv, "parquet": table.to_parquet}[suffix](file)
    cli("fit", *TEXTS, "--data.path", file, "--data.test_fraction=0.2", "--output_dir=run", *SHORT)
    result = cli("predict", *TEXTS, "--data.path", file, "--data.test_fraction=0.2", "--output_dir=run", *QUIET)
    assert "8 predictions" in result.out
    checkpoint = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    facts = checkpoint["hyper_parameters"]["facts"]
    assert facts["labels"] == ["canine", "feline"]
    assert facts["options"] == {"num_classes": 2, "vocab_size": 2**31, "max_length": 64}
    assert checkpoint["state_dict"]["network.stem.embedding.weight"].shape[0] == 262_144


def test_texts_fit_and_predict_jsonl(cli, stories):
    fitted = cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--predictions.path", "p.jsonl")
    assert "test/accuracy" in fitted.out
    cli("predict", *TEXTS, "--data.path", stories, *QUIET, "--predictions.path", "p.jsonl")
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(index) for index in range(8)]
    assert list(rows[0]) == ["id", "input", "label", "prediction", "probability: canine", "probability: feline"]
    assert [(row["input"], row["label"]) for row in rows] == [(row["text"], row["label"]) for row in texts(8)]
    checkpoint = torch.load("outputs/text_classification/checkpoints/best.ckpt", weights_only=True)
    most = checkpoint["hyper_parameters"]["facts"]["options"]["max_length"]
    other = cli("predict", *TEXTS, "--data.path", stories, *QUIET, "--data.max_length=9", code=1)
    assert "the checkpoint read other parts of texts than are read now, max_length=9" in other.err
    assert f"give --data.max_length {most}" in other.err


def test_images_as_sequences_into_an_encoder(cli, pictures):
    config = ("--config", "tasks/configs/digits_sequence.yaml", *TINY_ENCODER)
    cli("fit", *config, "--data.path", pictures, "--data.batch_size=8", *SHORT)
    checkpoint = torch.load("outputs/digits_sequence/checkpoints/last.ckpt", weights_only=True)
    facts = checkpoint["hyper_parameters"]["facts"]
    assert facts["options"] == {"num_classes": 2, "in_channels": 3, "max_length": 64}


def test_bf16_clipping_seed_and_workers(cli, stories):
    cli(
        *("fit", *TEXTS, "--data.path", stories, *SHORT, "--trainer.precision=bf16-mixed", "--data.num_workers=1"),
        *("--trainer.gradient_clip_val=0.5", "--seed_everything=7"),
    )
    checkpoint = torch.load("outputs/text_classification/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["TextData"] == {"seed": 7}
    assert all(
        weights.dtype == torch.float32 for weights in checkpoint["state_dict"].values() if weights.is_floating_point()
    )


def test_a_second_run_in_the_same_folder(cli, stories):
    cli("fit", *TEXTS, "--data.path", stories, *SHORT)
    assert "(--overwrite)" in cli("fit", *TEXTS, "--data.path", stories, *SHORT, code=1).err
    cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--overwrite")
    names = sorted(path.name for path in Path("outputs/text_classification/checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "run.json"]
    assert Path("outputs/text_classification/csv/version_0/metrics.csv").is_file()  # logs of both runs are kept
    assert Path("outputs/text_classification/csv/version_1/metrics.csv").is_file()


def test_a_tilde_is_the_home_folder(cli, stories, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--output_dir=~/run")
    cli(
        "validate",
        *TEXTS,
        "--data.path",
        stories,
        *QUIET,
        "--output_dir=~/run",
        "--ckpt_path=~/run/checkpoints/last.ckpt",
    )
    assert {"best.ckpt", "last.ckpt"} <= {file.name for file in (tmp_path / "home/run/checkpoints").iterdir()}
    assert not Path("~").exists()


def test_without_a_test_split_fit_ends_without_a_test(cli, tmp_path):
    file = write_jsonl(tmp_path / "texts.jsonl", texts(40))
    assert "test/accuracy" not in cli("fit", *TEXTS, "--data.path", file, *SHORT).out
    result = cli("test", *TEXTS, "--data.path", file, *QUIET, code=1)
    assert "has no test split" in result.err
    assert "--data.test_fraction 0.1" in result.err


@pytest.mark.parametrize("config", CONFIGS)
def test_every_configuration_parses(cli, config):
    path = () if config == "associative_recall.yaml" else ("--data.path=x",)  # whose data are nowhere
    printed = cli("fit", "--config", f"tasks/configs/{config}", *path, "--print_config").out
    model = re.search(r"^model:\n  class_path: lambda_seq\.tasks\.\w+\.(\w+)", printed, re.MULTILINE)
    assert model
    assert model[1] in ("Classification", "LanguageModelling", "MaskedPretraining", "Detection")


def test_help_explains_options(cli):
    shown = cli("fit", "--help").out
    assert "--output_dir" in shown
    assert "--last.every_n_train_steps" in shown
    shown = " ".join(cli("fit", "--data.help", "TextData").out.split())
    assert "tokens (bytes, words) that are read of a text" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data.path=",), ("path: no data given", "--data.path")),
        (("--data.path=nowhere/at/all",), ("path='nowhere/at/all'", "no such file or folder")),
        (("--data.path=nobody/nothing",), ("path='nobody/nothing'", "hub", "connect to the network")),
        (("--data.batch_size=0",), ("batch_size=0", "at least 1")),
        (("--data.label_column=kind",), ("label_column='kind'", "the columns are text, label")),
        (("--data.text_column=body",), ("text_column='body'", "the columns are text, label")),
        (("--model.network=lambda_encodr",), ("lambda_encodr", "lambda_encoder")),
        (("--model.options.depht=2",), ("depht", "depth")),
        (("--model.label_smoothing=1.5",), ("label_smoothing=1.5", "below 1")),
        (("--predictions.path=p.xlsx",), ("p.xlsx", ".parquet")),
        (("--data.max_length=0",), ("max_length=0", "at least 1 token")),
        (("--ckpt_path=missing.ckpt",), ("missing.ckpt", "--ckpt_path")),
    ],
)
def test_bad_input_is_one_clear_message(cli, stories, arguments, words):
    result = cli("fit", *TEXTS, "--data.path", stories, *SHORT, *arguments, code=1)
    assert result.err.count("error: ") == 1
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


def test_wrong_options_end_a_command_before_data_are_read(cli):
    nowhere = ("fit", *TEXTS, "--data.path=nowhere/at/all", *SHORT)
    Path("file").write_text("")
    for option, message in (
        ("--model.network=lambda_encodr", "lambda_encodr"),
        ("--model.warmup=2", "warmup=2.0"),
        ("--trainer.callbacks+=BatchSizeFinder", "BatchSizeFinder changes batches"),
        ("--reports.folder=file", "file"),
    ):
        error = cli(*nowhere, option, code=1).err
        assert message in error
        assert "nowhere/at/all" not in error


def test_a_network_for_other_input(cli, stories, pictures):
    result = cli("fit", *IMAGES, "--data.path", pictures, "--data.as_sequence=true", *SHORT, code=1)
    assert "takes image but the data are features" in result.err
    result = cli("fit", *TEXTS, "--data.path", stories, "--model.options.stem=features", *SHORT, code=1)
    assert "stem='tokens'" in result.err
    assert "Union" not in result.err


def test_a_checkpoint_of_another_model(cli, stories):
    cli("fit", *TEXTS, "--data.path", stories, *SHORT)
    result = cli("test", *TEXTS, "--data.path", stories, *QUIET, "--model.options.dim=16", code=1)
    assert "the checkpoint is of another model" in result.err
    assert "dim=8" in result.err
    assert "dim=16" in result.err


def test_a_checkpoint_of_other_classes(cli, stories, tmp_path):
    cli("fit", *TEXTS, "--data.path", stories, *SHORT)
    renamed = [row | {"label": row["label"].upper()} for row in texts(40)]
    other = write_jsonl(tmp_path / "other.jsonl", renamed)
    result = cli("validate", *TEXTS, "--data.path", other, *QUIET, code=1)
    assert "CANINE, FELINE" in result.err
    assert "canine, feline" in result.err


def test_a_checkpoint_that_is_none(cli, stories):
    Path("broken.ckpt").write_bytes(b"no checkpoint")
    result = cli("test", *TEXTS, "--data.path", stories, *QUIET, "--ckpt_path=broken.ckpt", code=1)
    assert "broken.ckpt" in result.err
    result = cli("test", *TEXTS, "--data.path", stories, *QUIET, "--output_dir=never", code=1)
    assert "train first" in result.err


def test_a_corrupt_image_is_named(cli, pictures):
    broken = pictures / "train" / "up" / "03.png"
    broken.write_bytes(broken.read_bytes()[:60])
    result = cli("fit", *IMAGES, "--data.path", pictures, *SHORT, code=1)
    assert str(broken) in result.err


def test_an_error_in_a_worker_is_one_line(cli, pictures):
    broken = pictures / "test" / "up" / "03.png"
    broken.write_bytes(broken.read_bytes()[:60])
    result = cli("fit", *IMAGES, "--data.path", pictures, *SHORT, "--data.num_workers=1", code=1)
    assert str(broken) in result.err
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_the_installed_command_without_warnings(stories):
    """In a process of its own, as an error of the interpreter's start-up would not show in this one."""
    command = [sys.executable, "-m", "lambda_seq", "fit", *TEXTS, "--data.path", stories, *SHORT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=None)
    assert done.returncode == 0, done.stderr
    assert not {"Warning", "leaked"} & set(done.stderr.replace(":", " ").split()), done.stderr
    assert "test/accuracy" in done.stdout
