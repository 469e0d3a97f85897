"""Whole commands on audio, as a user types them."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from paths import DATA
from small_audio import SPLITS, clip_folder, sound, spoil, write_clip
from small_data import QUIET, SHORT, TINY_ENCODER

CONFIG = ("--config", "tasks/configs/audio_classification.yaml")
TINY = (*CONFIG, *TINY_ENCODER, "--model.options.strides=[4,4]", "--data.batch_size=5", "--data.pad_to_multiple=100")
LOG_MEL = (
    *("--data.representation=log_mel", "--data.log_mel.n_mels=8", "--data.log_mel.n_fft=128"),
    *("--model.options.stem=features", "--model.options.strides=[]"),
)


@pytest.fixture
def folder(tmp_path):
    return clip_folder(tmp_path / "clips", SPLITS)


@pytest.mark.parametrize("options", [(), LOG_MEL])
def test_fit_test_and_predict_a_folder(cli, folder, tmp_path, options):
    command = (*TINY, *options, "--data.path", folder)
    assert "test/accuracy" in cli("fit", *command, *SHORT).out
    output = Path("outputs/audio_classification")
    summary = json.loads((output / "summary.json").read_text())
    assert f"{summary['test/loss']:.5f}"[:6] in cli("test", *command, *QUIET).out  # of best.ckpt
    facts = torch.load(output / "checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]["facts"]
    assert facts["audio"]["sampling_rate"] == 4000
    assert facts["options"]["in_channels"] == (8 if options else 1)

    more = clip_folder(tmp_path / "more", {"": 3}, names=("",), suffix=".flac", rate=8000)
    predict = ("predict", *command, *QUIET, "--data.predict_path", more, "--predictions.path")
    tables = {}
    for suffix in ("csv", "jsonl", "parquet"):
        assert f"3 predictions: p.{suffix}" in cli(*predict, f"p.{suffix}").out
    tables["parquet"] = pq.read_table("p.parquet").to_pylist()
    tables["jsonl"] = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    with Path("p.csv").open(newline="") as file:
        tables["csv"] = list(csv.DictReader(file))
    for rows in tables.values():
        assert [row["id"] for row in rows] == [str(more / f"{index:02}.flac") for index in range(3)]
        for row in rows:
            chances = [float(row[f"probability: {name}"]) for name in ("high", "low")]
            assert sum(chances) == pytest.approx(1, abs=1e-5)
            assert row["prediction"] == ("high", "low")[int(np.argmax(chances))]


def weights(folder):
    checkpoint = torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    return checkpoint["state_dict"]


@pytest.mark.parametrize(
    "options",
    [
        ("--data.cache=false",),
        pytest.param(LOG_MEL, marks=pytest.mark.slow),
        pytest.param(("--data.standardize=train",), marks=pytest.mark.slow),
    ],
)
def test_resumed_in_the_middle_of_an_epoch(cli, folder, options):
    """With all augmentation, dropout and buckets: 12 clips in batches of 5, two of which make an epoch."""
    command = (
        *("fit", *TINY, *options, "--data.path", folder, *QUIET, "--trainer.max_epochs=2", "--test_after_fit=false"),
        *("--data.augmentation.gap=0.02", "--data.augmentation.equalizer=3", "--data.augmentation.gain=6"),
        *("--data.max_seconds=0.12", "--model.options.dropout=0.3", "--trainer.log_every_n_steps=1"),
    )
    cli(*command, "--output_dir=whole")
    whole = weights("whole")
    for step, workers in ((1, 0), (3, 2)):
        cli(*command, "--output_dir=part", f"--trainer.max_steps={step}", "--overwrite")
        cli(*command, "--output_dir=part", "--ckpt_path=last", f"--data.num_workers={workers}")
        part = weights("part")
        assert part.keys() == whole.keys()
        for name, tensor in whole.items():
            assert torch.equal(part[name], tensor), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data.sampling_rate=3000",), ("sampling_rate=3000", "--data.sampling_rate 4000")),
        (("--data.standardize=none",), ("standardize=none", "--data.standardize clip")),
        (LOG_MEL, ("representation=log_mel", "--data.representation waveform")),
    ],
)
def test_a_checkpoint_that_heard_other_audio(cli, folder, options, words):
    cli("fit", *TINY, "--data.path", folder, *SHORT)
    result = cli("test", *TINY, "--data.path", folder, *QUIET, *options, code=1)
    for word in ("the checkpoint heard other audio", *words):
        assert word in result.err


def test_a_network_for_other_input(cli, folder):
    result = cli("fit", *TINY, "--data.path", folder, *SHORT, *LOG_MEL[-2:], code=1)
    assert "takes features but the data are waveform" in result.err
    assert "--data.representation log_mel" in result.err
    samples = (*LOG_MEL[:-2], "--model.options.stem=waveform")
    result = cli("fit", *TINY, "--data.path", folder, *SHORT, *samples, code=1)
    assert "takes waveform but the data are features" in result.err
    assert "choose lambda_encoder with options.stem: features" in result.err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--data.augmentation.speed=2", ("augmentation.speed=2", "below 1")),
        ("--data.augmentation.noise=[3,1]", ("augmentation.noise=[3", "[lowest, highest]")),
        ("--data.log_mel.n_mels=0", ("log_mel.n_mels=0", "at least 1")),
        ("--data.sampling_rate=-1", ("sampling_rate=-1", "at least 1 sample")),
        ("--data.audio_column=sound", ("audio_column='sound'", "the columns are audio, label")),
    ],
)
def test_bad_options_are_one_clear_message(cli, folder, option, words):
    result = cli("fit", *TINY, "--data.path", folder, *SHORT, option, code=1)
    assert result.err.count("error: ") == 1
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_files_are_named(cli, folder, workers):
    text, empty, cut = spoil(folder)
    command = ("fit", *TINY, "--data.path", folder, *SHORT, "--data.cache=false", f"--data.num_workers={workers}")
    result = cli(*command, code=1)
    assert str(text) in result.err
    assert str(empty) in result.err
    text.unlink()
    empty.unlink()
    for options in ((), ("--data.verify=false", "--overwrite")):  # when it is tested on
        result = cli(*command, *options, code=1)
        assert f"{cut}: damaged or cut off" in result.err
        assert "Traceback" not in result.err


def test_silence_and_single_samples_are_learned_from_and_predicted(cli, folder):
    for split in ("train", "test"):
        write_clip(folder / split / "low" / "silence.wav", np.zeros(400))
        write_clip(folder / split / "low" / "single.wav", np.ones(1))
    write_clip(
        folder / "train" / "low" / "wide.wav",
        sound(1, np.random.default_rng(0), 9600, 96000)[:, None].repeat(2, 1),
        96000,
    )
    fitted = cli("fit", *TINY, "--data.path", folder, *SHORT, "--model.options.norm=layer")
    assert "nan" not in fitted.out
    cli(
        "predict",
        *TINY,
        "--data.path",
        folder,
        *QUIET,
        "--model.options.norm=layer",
        "--predictions.path=p.jsonl",
    )
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    assert all(0 <= row["probability: low"] <= 1 for row in rows)


def test_help_explains_options(cli):
    shown = " ".join(cli("fit", "--data.help", "AudioData").out.split())
    for words in ("samples per second that clips are resampled to", "log_mel.n_mels", "number of mel bands"):
        assert words in shown
    for words in ("augmentation.noise", "of the clip to white noise that is added, in decibels"):
        assert words in shown


@pytest.mark.slow(seconds=60)
def test_generated_tones_are_learned(cli):
    """In a quarter of the epochs that the recipe chooses."""
    cli("fit", *CONFIG, *QUIET, "--trainer.max_epochs=16")
    summary = json.loads(Path("outputs/audio_classification/summary.json").read_text())
    assert summary["test/accuracy"] >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "name"), [("spoken_digits", "fsdd"), ("speech_commands", "arabic_speech_commands_10")]
)
def test_real_data_by_path_alone(cli, config, name):
    if not (DATA / name).is_dir():
        pytest.skip(f"optional data set not found: {DATA / name} (its folder is LAMBDA_SEQ_DATA or ../shared/data)")
    limits = tuple(f"--trainer.limit_{stage}_batches=2" for stage in ("train", "val", "test", "predict"))
    command = ("--config", f"tasks/configs/{config}.yaml", "--data.path", DATA / name, *limits)
    cli("fit", *command, *SHORT)
    assert "64 predictions" in cli("predict", *command, *QUIET).out
