"""The comparison of lengths, on generated texts."""

import json
import subprocess
from types import SimpleNamespace

import compare_lengths
import pytest


@pytest.fixture
def command(small, tmp_path):
    """Arguments of a small comparison in a folder of its own."""
    configuration, folder = small
    places = ("--out", str(tmp_path / "results"), "--work", str(tmp_path / "work"))
    return ["--config", configuration, "--path", folder, "--lengths", "16", "8", *places]


@pytest.mark.slow
def test_compares_and_goes_on(command, tmp_path, capfd, monkeypatch):
    assert compare_lengths.main(command) == 0
    records = json.loads((tmp_path / "results" / "lengths_small.json").read_text())["records"]
    assert [(one["key"]["length"], one["key"]["seed"]) for one in records] == [(8, 0), (16, 0)]
    assert all(one["epochs"] == 2 and 0 <= one["test_accuracy"] <= 1 for one in records)
    assert "| 8 |" in (tmp_path / "results" / "lengths_small.md").read_text()
    assert (tmp_path / "results" / "lengths_small.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(subprocess, "run", lambda *given, **options: pytest.fail("trained again"))
    assert compare_lengths.main(command) == 0
    assert "small: accuracy by length" in capfd.readouterr().out


def test_each_length_and_seed_is_a_training(command, monkeypatch, tmp_path):
    given = []

    def run(fit, **options):
        given.append([one for one in fit if one.startswith(("--data.max_length", "--seed_everything"))])
        return SimpleNamespace(returncode=0)

    found = {"test_accuracy": 0.5, "validation_accuracy": 0.5, "parameters": 1, "epochs": 1, "seconds_per_epoch": 1.0}
    scores = iter((0.5, 0.6, 0.7, 0.8))
    monkeypatch.setattr("evidence.trainings.subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(compare_lengths, "measured", lambda folder: ({**found, "test_accuracy": next(scores)},))
    assert compare_lengths.main([*command, "--seeds", "0", "1"]) == 0
    lengths, seeds = ("--data.max_length=8", "--data.max_length=16"), ("--seed_everything=0", "--seed_everything=1")
    assert given == [[seed, length] for seed in seeds for length in lengths]
    assert "| 8 | 60.00 ± 10.00 %" in (tmp_path / "results" / "lengths_small.md").read_text()


def test_a_failed_training_is_named(command, capfd):
    assert compare_lengths.main([*command, "--", "--trainer.max_epochs=none_such"]) == 1
    assert "8, seed 0: failed" in capfd.readouterr().out
