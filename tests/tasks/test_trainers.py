"""Options of Lightning's Trainer: each works on a tiny run, or is refused with a clear message before any work."""

import csv
import json
import pickle
from copy import deepcopy
from pathlib import Path

import pytest
from small_data import QUIET, TINY_ENCODER, texts, write_jsonl

from lambda_seq.tasks.cli import LambdaCLI

TEXTS = (
    *("--config", "tasks/configs/text_classification.yaml", *TINY_ENCODER, "--data.batch_size=8"),
    *("--data.path=stories", "--output_dir=run", "--trainer.accelerator=cpu"),
)
FIT = ("fit", *TEXTS, "--trainer.enable_model_summary=false")  # 32 texts: 4 steps an epoch
ONCE = (*QUIET, "--trainer.max_epochs=1")
TWICE = (*QUIET, "--trainer.max_epochs=2")
EARLY = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss")
SOON = (*EARLY, "--trainer.callbacks.patience=0", "--trainer.callbacks.min_delta=10")
GROWING = ("--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={0: 2, 1: 1}")

QUICK = [  # options and what is left: the test of the best or the last weights, the model, checkpoints
    (("--trainer.callbacks+=TQDMProgressBar", "--trainer.max_epochs=1"), "test model best last"),
    (("--trainer.enable_checkpointing=false", *ONCE), "test model"),
    (("--trainer.limit_test_batches=0", *ONCE), "model best last"),
    (("--trainer.limit_val_batches=0", *ONCE), "test model last"),
    (("--trainer.overfit_batches=2", *ONCE), "test model best last"),
    (("--trainer.max_epochs=0", *QUIET), ""),
]
WORKING = [  # several options together, where each concerns something else, and one alone changes what is left
    (("--trainer.callbacks+=RichProgressBar", "--trainer.max_epochs=1"), "test model best last"),
    (("--trainer.enable_progress_bar=true", "--trainer.max_epochs=1"), "test model best last"),
    (("--trainer.barebones=true", "--trainer.max_epochs=1"), "model"),
    (
        ("--trainer.max_time=00:00:10:00", "--trainer.val_check_interval=2", "--trainer.limit_test_batches=1", *ONCE),
        "test model best last",
    ),
    (
        ("--trainer.max_time={hours: 1}", "--trainer.val_check_interval=0.5", "--trainer.precision=64-true", *ONCE),
        "test model best last",
    ),
    (
        ("--trainer.callbacks+=Timer", "--trainer.num_sanity_val_steps=0", "--trainer.precision=bf16-mixed", *ONCE),
        "test model best last",
    ),
    (
        (
            *("--trainer.val_check_interval=3", "--trainer.check_val_every_n_epoch=null"),
            *("--trainer.accumulate_grad_batches=3", *TWICE),
        ),
        "test model best last",
    ),
    (("--trainer.check_val_every_n_epoch=2", "--trainer.inference_mode=false", *ONCE), "test model last"),
    (
        ("--trainer.check_val_every_n_epoch=2", "--trainer.reload_dataloaders_every_n_epochs=1", *TWICE),
        "test model best last",
    ),
    (
        ("--trainer.limit_train_batches=2", "--trainer.num_sanity_val_steps=-1", "--trainer.logger=false", *ONCE),
        "test model best last",
    ),
    (
        ("--trainer.limit_train_batches=0.5", "--trainer.detect_anomaly=true", "--trainer.profiler=simple", *ONCE),
        "test model best last",
    ),
    (("--trainer.fast_dev_run=true", *QUIET), ""),
    (("--trainer.fast_dev_run=2", "--trainer.enable_progress_bar=false"), ""),
    (
        ("--trainer.overfit_batches=1.0", "--trainer.callbacks+=LearningRateMonitor", *ONCE),
        "test model best last",
    ),
    (
        (
            *("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=own", "--trainer.log_every_n_steps=0"),
            *("--trainer.callbacks+=ModelSummary", *ONCE),
        ),
        "test model best last",
    ),
    ((*EARLY, *ONCE), "test model best last"),
    ((*SOON, "--trainer.max_epochs=4", *QUIET), "test model best last"),
    ((*GROWING, "--trainer.use_distributed_sampler=false", *TWICE), "test model best last"),
    (
        ("--trainer.callbacks+=ModelCheckpoint", "--trainer.deterministic=true", *ONCE),
        "test model best last",
    ),
    (
        (
            *("--trainer.gradient_clip_val=0.5", "--trainer.gradient_clip_algorithm=value"),
            *("--trainer.max_epochs=-1", "--trainer.max_steps=3", *QUIET),
        ),
        "test model last",
    ),
    (("--trainer.max_steps=0", *QUIET), ""),
    (("--trainer.sync_batchnorm=true", *ONCE), "test model best last"),
]
EXPECTED = (  # warnings that are true
    "ignore:You requested to overfit but enabled train dataloader shuffling",
    "ignore:You are trying to `self.log\\(\\)` but `Trainer\\(barebones=True\\)`",
)


@pytest.fixture(autouse=True)
def data(tmp_path):
    for split, count in {"train": 32, "validation": 8, "test": 8}.items():
        write_jsonl(tmp_path / "stories" / f"{split}.jsonl", texts(count))


def ids(case):
    return " ".join(word.removeprefix("--trainer.") for word in case[0] if word not in (*ONCE, *TWICE))


@pytest.mark.filterwarnings(*EXPECTED)
@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(case, marks=pytest.mark.slow, id=ids(case)) for case in WORKING)]
)
def test_an_option_works(cli, case):
    options, left = case
    printed = cli(*FIT, *options).out
    files = {"model": "model/model.safetensors", "best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt"}
    found = ["test"] * ("test/loss" in printed) + [name for name, file in files.items() if Path("run", file).is_file()]
    assert " ".join(found) == left
    if "test" in left.split():
        assert "test/loss" in json.loads(Path("run/summary.json").read_text())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trainer.limit_train_batches=0",), ("leaves nothing to train", "lambda-seq validate")),
        (("--trainer.limit_test_batches=0.5",), ("=0.5: less than one", "--test_after_fit")),
        (("--trainer.limit_val_batches=0.5",), ("0.5", "limit_val_batches=1.0")),
        (("--trainer.val_check_interval=100",), ("100", "limit_val_batches")),
        (("--trainer.max_epochs=-1",), ("length is not known", "--model.schedule_steps")),
        (("--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:05"), ("is not known", "--model.schedule_steps")),
        (("--trainer.callbacks+=TQDMProgressBar",), ("enable_progress_bar=False", "TQDMProgressBar")),
        (("--trainer.callbacks+=LearningRateFinder",), ("LearningRateFinder", "--model.optimizer.lr")),
        (("--trainer.callbacks+=BatchSizeFinder",), ("BatchSizeFinder", "--data.batch_size")),
        (("--trainer.callbacks+=BackboneFinetuning",), ("BackboneFinetuning", "--model.init_from")),
        (
            ("--trainer.callbacks+=OnExceptionCheckpoint", "--trainer.callbacks.dirpath=run"),
            ("OnExceptionCheckpoint", "--last.every_n_train_steps"),
        ),
        (("--trainer.limit_train_batches=1.5",), ("limit_train_batches", "1.5")),
        (("--trainer.accumulate_grad_batches=0",), ("accumulate_grad_batches=0: expected at least 1",)),
        (("--trainer.accumulate_grad_batches=-1",), ("accumulate_grad_batches=-1: expected at least 1",)),
        (("--model.schedule_steps=0",), ("schedule_steps=0: expected at least 1",)),
        (("--model.schedule_steps=-5",), ("schedule_steps=-5: expected at least 1",)),
        (("--model.optimizer.lr=-1",), ("model.optimizer: AdamW refuses", "Invalid learning rate: -1.0", "lr 0.001")),
        (("--model.optimizer=torch.optim.LBFGS",), ("model.optimizer: LBFGS refuses", "--model.optimizer AdamW")),
        (("--curves.path=stories",), ("curves.path: stories is a folder", "another name")),
        (("--reports.folder=stories/train.jsonl",), ("reports.folder: ", "train.jsonl is a file", "another name")),
        (("--output_dir=stories/train.jsonl",), ("output_dir: ", "train.jsonl is a file", "another name")),
        (("--output_dir=stories/train.jsonl/run",), ("output_dir: ", "train.jsonl is a file", "another name")),
        (("--trainer.gradient_clip_algorithm=foo",), ("gradient_clip_algorithm", "foo")),
        (
            ("--trainer.strategy=fsdp2", "--trainer.enable_checkpointing=false"),
            ("enable_checkpointing=False", "--test_after_fit false --export false"),
        ),
    ],
)
def test_an_option_is_refused_before_any_work(cli, options, words):
    given = [] if any(option.startswith("--trainer.max_epochs") for option in options) else ["--trainer.max_epochs=1"]
    result = cli(*FIT, *QUIET, *given, *options, code=1)
    assert result.err.count("error: ") == 1
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err
    assert not list(Path("run").glob("checkpoints/*.ckpt"))


def test_a_metric_that_is_not_logged_is_named_with_those_that_are(cli):
    result = cli(*FIT, *ONCE, *EARLY[:1], "--trainer.callbacks.monitor=val_loss", code=1)
    assert "error: Early stopping conditioned on metric `val_loss` which is not available" in result.err
    assert "`val/loss`" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(("name", "folder"), [("summary.json", True), ("csv", False), ("model", False)])
def test_what_lies_in_the_place_of_results_is_found_before_any_work(cli, name, folder):
    Path("run").mkdir()
    Path("run", name).mkdir() if folder else Path("run", name).touch()
    result = cli(*FIT, *ONCE, code=1)
    assert f"run/{name} is a {'folder' if folder else 'file'}" in result.err
    assert not Path("run/checkpoints").exists()


@pytest.mark.parametrize(("steps", "ends"), [(2, True), (4, False), (9, False)])
def test_a_rate_that_ends_before_the_training_is_said(cli, steps, ends):
    printed = cli(*FIT, *ONCE, f"--model.schedule_steps={steps}", "--model.final_lr=0.5", "--export=false").err
    words = "training has 4 steps; the learning rate ends its course of 2 steps and stays at 0.5 of the greatest rate"
    assert (words in printed) == ends


def test_growing_accumulation_is_planned(cli):
    """Two steps, then four, of 4 batches each: the rate ends with the last of the six."""
    cli(*FIT, *GROWING, *TWICE, "--trainer.log_every_n_steps=1", "--model.warmup=0")
    with Path("run/csv/version_0/metrics.csv").open(newline="") as file:
        found = [float(row["lr-AdamW/pg1"]) for row in csv.DictReader(file) if row["lr-AdamW/pg1"]]
    assert len(found) >= 6
    assert found == sorted(found, reverse=True)
    assert 0 < found[-1] < 0.1 * found[0]


def test_no_batch_to_predict(cli):
    cli(*FIT, *ONCE)
    printed = cli("predict", *TEXTS, *QUIET, "--trainer.limit_predict_batches=0").out
    assert "0 predictions" in printed or not Path("run/predictions.csv").exists()


def test_a_task_is_copied_without_the_command_line(cli, monkeypatch):
    """Its optimizer comes from the parser's factory, which holds parser, trainer and data."""
    found = []
    monkeypatch.setattr(LambdaCLI, "_run_subcommand", lambda self, subcommand: found.append(self.model))
    cli(*FIT, *ONCE)
    for copy in (deepcopy(found[0]), pickle.loads(pickle.dumps(found[0]))):
        optimizer = copy.optimizer([{"params": list(copy.parameters())}])
        assert type(optimizer).__name__ == "AdamW"
        assert optimizer.defaults["lr"] == 0.002
    assert b"jsonargparse" not in pickle.dumps(found[0])
