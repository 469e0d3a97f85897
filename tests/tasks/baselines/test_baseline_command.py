"""`lambda-seq baseline`, and a fit with a baseline beside it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run
from small_data import QUIET, SHORT, TINY_ENCODER, TINY_RESNET, texts, write_jsonl

from lambda_seq.tasks.baselines import command
from lambda_seq.tasks.baselines.fitted import Fitted

TEXTS = ("--config", "text_classification", "--data.batch_size=8", *TINY_ENCODER)
OUTPUT = Path("outputs/text_classification")


def summary():
    return json.loads((OUTPUT / "summary.json").read_text())


def test_one_word_of_a_fit_is_changed(cli, stories):
    """Options of model and trainer are there and not used, even of devices that are nowhere."""
    options = (*TEXTS, "--data.path", stories, *SHORT, "--trainer.accelerator=cuda", "--trainer.devices=8")
    printed = cli("baseline", *options, "--ckpt_path=last", "--baseline=true", "--model.options.dim=16")
    found = json.loads((OUTPUT / "baseline.json").read_text())
    assert found["test/baseline_accuracy"] == 1.0  # texts about cats or dogs
    assert {file.name for file in OUTPUT.iterdir()} == {"baseline.json"}
    assert "seconds" in printed.out


def test_figures_stand_beside_the_network(cli, stories):
    printed = cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--baseline=true")
    found = summary()
    assert found["test/baseline_accuracy"] == 1.0
    assert found["test/baseline_majority"] == 0.5
    assert not any(name.startswith("val/") for name in found)
    assert found["baseline"] == str(OUTPUT / "baseline.json")
    assert json.loads((OUTPUT / "baseline.json").read_text())["val/baseline_accuracy"] == 1.0
    assert "test/baseline_accuracy 1.0000" in " ".join(printed.out.split())
    assert f"reaches 1.000, the network {found['test/accuracy']:.3f}" in printed.out
    assert ("the network is below the baseline" in printed.out) == (found["test/accuracy"] < 1)
    assert (OUTPUT / "model").is_dir()


def test_it_is_off_by_default(cli, stories, monkeypatch):
    monkeypatch.setattr(command, "fit_baseline", None)
    cli("fit", *TEXTS, "--data.path", stories, *SHORT)
    assert not any("baseline" in name for name in summary())


def test_without_a_test_it_is_of_validation(cli, tmp_path):
    file = write_jsonl(tmp_path / "texts.jsonl", texts(40))
    printed = cli("fit", *TEXTS, "--data.path", file, *SHORT, "--baseline=true")
    found = summary()
    assert found["val/baseline_accuracy"] == 1.0
    assert not any(name.startswith("test/") for name in found)
    assert "val accuracy: the baseline (TF-IDF of " in printed.out


def test_a_test_of_a_part_is_said(cli, stories):
    printed = cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--baseline=true", "--trainer.limit_test_batches=1")
    assert "the network's figures are of trainer.limit_test_batches=1, the baseline's of all rows" in printed.out


@pytest.mark.parametrize(
    ("error", "said"),
    [(ValueError("no luck"), "could not be fitted (no luck)"), (KeyboardInterrupt(), "was interrupted")],
)
def test_a_baseline_that_fails_loses_nothing(cli, stories, monkeypatch, error, said):
    def fail(data):
        assert "test/accuracy" in summary()
        raise error

    monkeypatch.setattr(command, "fit_baseline", fail)
    printed = cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--baseline=true")
    assert f"the baseline {said}; all else of this fit is done" in printed.out
    found = summary()
    assert "test/accuracy" in found
    assert Path(found["model"]).is_dir()
    assert not any("baseline" in name for name in found)


def test_a_network_that_is_better(cli, stories, monkeypatch):
    worse = Fitted("guessing", "guessing: of nothing", {"test": {"accuracy": 0.01}})
    monkeypatch.setattr(command, "fit_baseline", lambda data: worse)
    printed = cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--baseline=true")
    assert "test accuracy: the baseline (guessing) reaches 0.010, the network " in printed.out
    assert "below" not in printed.out


def test_a_task_without_such_figures_is_refused_before_training(cli):
    printed = cli("fit", "--config", "pretraining", "--baseline=true", *QUIET, code=1)
    assert "baseline=True: MaskedPretraining learns something else than baselines do" in printed.err
    assert not Path("outputs/pretraining/checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data.validation_fraction=0",), "neither a validation nor a test split to measure a baseline on"),
        (("--data.label_column=kind",), "label_column='kind'"),
    ],
)
def test_errors_of_the_data(cli, tmp_path, arguments, words):
    file = write_jsonl(tmp_path / "texts.jsonl", texts(40))
    error = cli("baseline", *TEXTS, "--data.path", file, *arguments, code=1).err
    assert words in error
    assert "Traceback" not in error


def test_one_class(cli, tmp_path):
    file = write_jsonl(tmp_path / "texts.jsonl", [row | {"label": "a"} for row in texts(40)])
    assert "all training rows have the same label, 'a'" in cli("baseline", *TEXTS, "--data.path", file, code=1).err


def test_a_place_where_nothing_can_be_written(cli, stories):
    Path("file").write_text("")
    error = cli("baseline", *TEXTS, "--data.path", stories, "--output_dir=file", code=1).err
    assert error.startswith("Seed") or "output_dir: " in error
    assert "file is a file, and a folder is needed there" in error


@pytest.mark.slow
def test_the_library_is_imported_when_it_is_asked_for():
    code = "import sys, lambda_seq.tasks.cli; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


@pytest.mark.slow
def test_of_two_processes_one_computes_it(pictures):
    printed = run(
        *(
            "fit",
            "--config",
            "image_classification",
            "--data.path",
            pictures,
            "--data.batch_size=4",
            *TINY_RESNET,
            *SHORT,
        ),
        *("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--baseline=true"),
    )
    assert printed.count("the baseline (logistic regression on pixels) reaches 1.000") == 1
    found = json.loads(Path("outputs/image_classification/summary.json").read_text())
    assert found["test/baseline_accuracy"] == 1.0
