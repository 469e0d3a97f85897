"""A series network from its data to its answers: trained, saved, and asked by the command line and in Python."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_data import QUIET, SHORT, TINY_ENCODER

import lambda_seq
from lambda_seq.__main__ import main
from lambda_seq.tasks.data import SeriesData

SPLITS = {"train": 24, "validation": 6, "test": 8}


def steps(count, seed):
    """Rows for each step of series of 6 to 9 steps and two channels, the first of which rises or falls."""
    random = np.random.default_rng(seed)
    rows = []
    for row in range(count):
        sign, length = (1 if row % 2 else -1), int(random.integers(6, 10))
        for step in range(length):
            x = sign * step + random.standard_normal() / 3
            y = "" if random.random() < 0.1 else random.standard_normal() + 100
            rows.append({"id": f"s{row}", "time": step, "x": x, "y": y, "label": "up" if sign > 0 else "down"})
    return pd.DataFrame(rows)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "steps"
    place.mkdir()
    for seed, (split, count) in enumerate(SPLITS.items()):
        steps(count, seed).to_csv(place / f"{split}.csv", index=False)
    return place


def test_fit_test_predict_and_ask(cli, folder, monkeypatch, capsys):
    command = ("--config", "series_classification", "--data.path", folder, *TINY_ENCODER, "--data.indicator=true")
    printed = cli("fit", *command, *QUIET, "--trainer.max_epochs=12", "--data.batch_size=8", "--baseline=true")
    assert "recipe series: 24 training series of 2 channels, median" in printed.err
    output = Path("outputs/series_classification")
    summary = json.loads((output / "summary.json").read_text())
    assert summary["test/accuracy"] == 1
    assert summary["test/baseline_accuracy"] >= 0.9
    assert f"{summary['test/loss']:.5f}"[:6] in cli("test", *command, *QUIET).out
    assert "8 predictions" in cli("predict", *command, *QUIET).out
    with Path("outputs/series_classification/predictions.csv").open(newline="") as file:
        by_run = {row["id"]: float(row["probability: up"]) for row in csv.DictReader(file)}
    assert by_run.keys() == {f"s{row}" for row in range(8)}

    found = lambda_seq.load_predictor(output / "model")
    assert found.reader.channels == ["x", "y"]
    table = pd.read_csv(folder / "test.csv")
    series = {name: own[["x", "y"]].to_numpy().T for name, own in table.groupby("id", sort=False)}
    answers = found(list(series.values()))
    chances = [one.probabilities["up"] for one in answers]
    assert np.allclose(chances, [by_run[name] for name in series], atol=1e-5)

    table = table.rename(columns={"id": "case", "label": "truth"})[["truth", "y", "case", "time", "x"]]
    table.to_csv("new.csv", index=False)
    words = ("predict", "--model", str(output / "model"), "--input", "new.csv", "--data.label_column", "truth")
    monkeypatch.setattr("sys.argv", ["lambda-seq", *words])
    capsys.readouterr()
    main()
    assert "accuracy 1.0000, of 8 inputs whose label is known" in capsys.readouterr().out
    with Path("predictions.csv").open(newline="") as file:
        again = {row["id"]: row for row in csv.DictReader(file)}
    assert np.allclose([float(again[name]["probability: up"]) for name in series], chances, atol=1e-5)
    assert again["s3"]["input"] == f"{series['s3'].shape[1]} steps"


@pytest.mark.parametrize(
    ("options", "predicting", "remedy"),
    [
        ({"standardize": "series"}, False, "standardize=series; give --data.standardize train"),
        ({"indicator": True}, False, "indicator=True; give --data.indicator False"),
        ({"channel_columns": ["x"]}, False, r"channels=\['x'\]; give --data.channel_columns \['x','y'\]"),
        ({"max_length": 5}, True, "max_length=5; give --data.max_length 9"),
        ({"part": "end"}, True, "part=end; give --data.part start"),
    ],
)
def test_data_that_are_read_otherwise_than_those_of_a_checkpoint(folder, options, predicting, remedy):
    trained, now = SeriesData(str(folder)).facts, SeriesData(str(folder), **options).facts
    trained.check(trained, predicting=True)
    with pytest.raises(ValueError, match=f"the checkpoint read other series than the data are now, {remedy}"):
        now.check(trained, predicting=predicting)


def test_hidden_steps_are_guessed(cli, folder):
    """Masked pretraining takes any features, standardised and filled in."""
    command = ("--config", "series_classification", "--data.path", folder, *TINY_ENCODER)
    printed = cli(
        "fit", *command, *SHORT, "--model=MaskedPretraining", "--recipe=null", "--model.options.stem=features"
    )
    assert "test/loss" in printed.out
