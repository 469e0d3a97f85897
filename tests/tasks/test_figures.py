"""The figures of an epoch that was interrupted are those of the epoch that never was, bit by bit."""

import csv
from pathlib import Path

import pytest
import torch
from commands import run
from lightning.pytorch import Trainer
from small_data import QUIET, TINY_ENCODER, texts, write_jsonl

from lambda_seq.tasks import figures
from lambda_seq.tasks.metrics import Mean

COMMON = (*QUIET, "--trainer.max_epochs=2", "--test_after_fit=false", "--trainer.accelerator=cpu")
COMMON = (*COMMON, "--trainer.log_every_n_steps=1", "--trainer.limit_train_batches=6", "--data.batch_size=3")
TEXTS = ("--config", "tasks/configs/text_classification.yaml", "--data.path=stories", *TINY_ENCODER)
TASKS = {
    "classification": TEXTS,
    "language modelling": (
        *("--config", "tasks/configs/language_modelling.yaml", "--data.path=stories", "--data.length=16"),
        *(*TINY_ENCODER, "--trainer.callbacks=[]", "--trainer.val_check_interval=1.0"),
    ),
    "masked tokens": (*TEXTS[:2], "--model=MaskedPretraining", *TEXTS[2:]),
    "masked features": (
        *("--config", "tasks/configs/digits_sequence.yaml", "--model=MaskedPretraining"),
        *(*TINY_ENCODER, "--trainer.limit_val_batches=2"),
    ),
}


@pytest.fixture(autouse=True)
def stories():
    for split, count in {"train": 40, "validation": 14, "test": 4}.items():
        write_jsonl(Path("stories") / f"{split}.jsonl", texts(count))


def logged(name, versions=1):
    """Figures of training, by name and step, in all logs of a run; the later ones count."""
    found = {}
    for version in range(versions):
        with Path(name, "csv", f"version_{version}", "metrics.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                found |= {(key, row["step"]): row[key] for key in row if key.startswith("train/") and row[key]}
    return found


def points(name):
    checkpoint = torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)
    return {key: value for key, value in checkpoint["callbacks"]["Curves"]["points"].items() if key != "lr"}


@pytest.mark.parametrize(
    "name", [*list(TASKS)[:1], *(pytest.param(name, marks=pytest.mark.slow) for name in list(TASKS)[1:])]
)
def test_an_interrupted_epoch(cli, name):
    """The second, with accumulation: stopped after one of its two steps."""
    command = ("fit", *TASKS[name], *COMMON, "--trainer.accumulate_grad_batches=4")
    cli(*command, "--output_dir=whole")
    cli(*command, "--output_dir=part", "--trainer.max_steps=3")
    cli(*command, "--output_dir=part", "--ckpt_path=last")
    expected = logged("whole")
    assert {key[0] for key in expected} >= {"train/loss_step", "train/loss_epoch"}
    found = logged("part", 2)
    assert {key: found[key] for key in expected} == expected
    assert points("part") == points("whole")


def test_an_epoch_that_was_over_is_not_counted_again(cli):
    command = ("fit", *TASKS["classification"], *COMMON)
    cli(*command, "--output_dir=whole")
    cli(*command, "--output_dir=part", "--trainer.max_steps=6")
    assert "training_figures" not in torch.load("part/checkpoints/last.ckpt", weights_only=True)
    cli(*command, "--output_dir=part", "--ckpt_path=last")
    assert points("part") == points("whole")


def test_a_checkpoint_before_the_last_validation_of_an_epoch(cli):
    """No batch is left, and yet the epoch has its figures."""
    command = ("fit", *TASKS["classification"], *COMMON)
    cli(*command, "--output_dir=whole")
    cli(*command, "--output_dir=part", "--trainer.max_epochs=1", "--model.schedule_steps=12")
    cli(*command, "--output_dir=part", "--ckpt_path=best", "--model.schedule_steps=12")
    expected = {key: value for key, value in logged("whole").items() if key[0] == "train/loss_epoch"}
    found = logged("part", 2)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.slow(seconds=12)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("name", ["classification", "language modelling", "masked features"])
def test_an_interrupted_epoch_of_two_processes(name, strategy):
    command = ("fit", *TASKS[name], *COMMON, "--trainer.devices=2", f"--trainer.strategy={strategy}")
    command = (*command, "--trainer.limit_train_batches=4")
    run(*command, "--output_dir=whole")
    run(*command, "--output_dir=part", "--trainer.max_steps=6")
    run(*command, "--output_dir=part", "--ckpt_path=last")
    assert points("part") == points("whole")
    found = logged("part", 2)
    assert {key: found[key] for key in logged("whole")} == logged("whole")


class Share:
    """A trainer of which only the place among others matters."""

    def __init__(self, rank, replicas, world):
        self.distributed_sampler_kwargs = {"num_replicas": replicas, "rank": rank}
        self.world_size = world
        self.strategy = self
        self.root_device = torch.device("cpu")
        self.every = []

    def all_gather(self, own):
        return torch.stack([every.pop(0) for every in self.every])


def mean_of(*values):
    metric = Mean()
    for value in values:
        metric.update(value, 2)
    return metric


def gathered(processes, replicas):
    """What processes save, of which neighbours share their rows."""
    trainer = Share(0, replicas, len(processes))
    trainer.every = [list(figures.states(metric).values()) for metric in processes]
    return figures.sums({"loss": processes[0]}, trainer)


@pytest.mark.parametrize("share", [1, 2])  # processes that share their rows
def test_on_another_number_of_processes_all_is_counted_once(share):
    saved = gathered(
        [mean_of(1.0), mean_of(4.0, 7.0)] if share == 1 else [mean_of(1.0)] * 2 + [mean_of(4.0, 7.0)] * 2, 2
    )
    for replicas in (1, 2, 3):
        restored = [Mean() for _ in range(replicas)]
        for rank, metric in enumerate(restored):
            figures.go_on({"loss": metric}, saved, Share(rank, replicas, replicas))
        total = sum(metric.mean_value for metric in restored)
        weight = sum(metric.weight for metric in restored)
        assert total / weight == 4
        assert all(metric.update_called for metric in restored)
    assert [float(metric.weight) for metric in restored] == [6, 0, 0]


def test_one_process_without_a_share():
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    metric, again = mean_of(3.0, 5.0), Mean()
    figures.go_on({"loss": again}, figures.sums({"loss": metric}, trainer), trainer)
    assert again.compute() == 4
