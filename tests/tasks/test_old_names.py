"""What was written when the tasks were a top-level package is read: names of classes, a configuration, a checkpoint.

tests/tasks/before/ was written by that version: `python -m tasks.cli fit --config text_classification.yaml` with a tiny
encoder, batches of 8, one epoch, on the texts of the fixture `stories`.
"""

import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from paths import ROOT
from small_data import QUIET

from lambda_seq.tasks import old_names
from lambda_seq.tasks.classification import Classification

BEFORE = ROOT / "tests" / "tasks" / "before"
CLASSES = {
    "averaging": ("WeightEMA",),
    "checkpoints": ("BestCheckpoint", "LastCheckpoint", "SeededSteps"),
    "classification": ("Classification",),
    "cli": (
        "AudioData",
        "Classification",
        "CorpusData",
        "ImageData",
        "LanguageModelling",
        "ListOpsData",
        "MaskedPretraining",
        "RecallData",
        "TextData",
        "TextSamples",
    ),
    "curves": ("Curves",),
    "data": (
        "AudioData",
        "ClassificationData",
        "CorpusData",
        "Data",
        "ImageData",
        "ListOpsData",
        "RecallData",
        "TextData",
    ),
    "data.audio": ("AudioData",),
    "data.base": ("Data",),
    "data.images": ("ImageData",),
    "data.language": ("CorpusData",),
    "data.listops": ("ListOpsData",),
    "data.module": ("ClassificationData",),
    "data.recall": ("RecallData",),
    "data.text": ("TextData",),
    "distributed": ("ShardedStrategy", "SyncedNorms"),
    "finite": ("FiniteTraining",),
    "language_modelling": ("LanguageModelling",),
    "predictions": ("PredictionFile",),
    "pretraining": ("MaskedPretraining",),
    "reports": ("Reports",),
    "resuming": ("Resuming",),
    "samples": ("TextSamples",),
    "sequence_parallel": ("SequenceParallel",),
    "storage": ("AtomicCheckpoints",),
    "throughput": ("ProgressBar", "Throughput"),
    "training": ("Training",),
}


@pytest.fixture(autouse=True)
def _asked_anew():
    old_names._class_of_today.cache_clear()
    yield
    old_names._class_of_today.cache_clear()


@pytest.mark.parametrize("module", CLASSES)
def test_every_class_is_found(module):
    for name in CLASSES[module]:
        place, _, kind = old_names.renamed(f"tasks.{module}.{name}").rpartition(".")
        assert place.startswith("lambda_seq.tasks.")
        assert getattr(import_module(place), kind).__name__ == name


@pytest.mark.parametrize("name", ["tasks.nowhere.Thing", "tasks.data.Thing", "tasks.py", "tasks/digits", "tasks.", "x"])
def test_other_text_stays(name):
    assert old_names.renamed({"a": [name, 3, None]}) == {"a": [name, 3, None]}


@pytest.fixture
def own_tasks(tmp_path, monkeypatch):
    """A package `tasks` of the user's, with classes Mine and classification.Classification."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("class Mine: pass")
    (tmp_path / "tasks" / "classification.py").write_text("class Classification: pass")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        others = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "tasks"}
        yield
        for name in [name for name in sys.modules if name.partition(".")[0] == "tasks"]:
            del sys.modules[name]
        sys.modules.update(others)


def test_a_class_of_the_users_own_stays(own_tasks):
    stays = ["tasks.Mine", "tasks.classification.Classification"]
    assert old_names.renamed(stays) == stays
    assert old_names.renamed("tasks.data.TextData") == "lambda_seq.tasks.data.TextData"


def test_on_the_command_line():
    words = ["--model=tasks.classification.Classification", "--data", "tasks.data.TextData", "--data.path", "tasks.csv"]
    found = old_names.renamed_words(words)
    assert found[0] == "--model=lambda_seq.tasks.classification.Classification"
    assert found[1:3] == ["--data", "lambda_seq.tasks.data.TextData"]
    assert found[3:] == words[3:]


def test_a_run_of_before_goes_on(cli, stories):
    Path("run/checkpoints").mkdir(parents=True)
    shutil.copy(BEFORE / "last.ckpt", "run/checkpoints")
    command = ("--config", BEFORE / "config.yaml")
    result = cli("fit", *command, "--ckpt_path=last", "--trainer.max_epochs=2")
    changed = [line for line in result.err.splitlines() if line.startswith("resuming: ") and " was " in line]
    assert changed == ["resuming: trainer.max_epochs was 1, now 2: the learning rate goes on at step 4 of 8"]
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8
    options = checkpoint["trained_with"]["options"]
    assert options["model.class_path"] == "lambda_seq.tasks.classification.Classification"
    assert options["data.class_path"] == "lambda_seq.tasks.data.TextData"
    assert "8 predictions" in cli("predict", *command, *QUIET).out


def test_a_configuration_of_before_is_printed_with_names_of_today(cli, stories):
    shown = yaml.safe_load(cli("fit", "--config", BEFORE / "config.yaml", "--print_config").out)
    before = yaml.safe_load((BEFORE / "config.yaml").read_text())
    assert shown["data"]["class_path"] == "lambda_seq.tasks.data.TextData"
    added = {
        "drop_incomplete": False,
        "table": dict.fromkeys(("encoding", "separator", "header")),
        "target": dict.fromkeys(("kind", "columns", "separator")),
    }
    assert shown["data"]["init_args"] == before["data"]["init_args"] | added
    assert shown["trainer"] == before["trainer"]


def test_a_checkpoint_of_before_is_loaded_in_python():
    task = Classification.load_from_checkpoint(BEFORE / "last.ckpt", map_location="cpu")
    assert type(task) is Classification
    saved = torch.load(BEFORE / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    found, wanted = (
        sorted((tuple(weights.shape), weights.double().sum().item()) for weights in state.values())
        for state in (task.state_dict(), saved)
    )
    assert found == wanted  # whatever the names of parameters are by now
