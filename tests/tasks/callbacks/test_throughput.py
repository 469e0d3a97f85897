"""Positions per second."""

import csv
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_data import QUIET, SHORT, TINY_ENCODER

from lambda_seq.tasks.callbacks.throughput import ProgressBar, Throughput, real_positions, short

TRAINER = SimpleNamespace(global_step=1, log_every_n_steps=50, accumulate_grad_batches=1)
TRAINER.distributed_sampler_kwargs = {"num_replicas": 2, "rank": 0}
TRAINER.num_training_batches, TRAINER.is_last_batch = 100, False


def module(kind="tokens", **more):
    logged = {}
    network = SimpleNamespace(input_kind=kind)
    return SimpleNamespace(
        network=network, logged=logged, log=lambda name, value, **_: logged.update({name: value}), **more
    )


@pytest.mark.parametrize(
    ("shape", "count"), [((2, 5), 10), ((2, 5, 3), 10), ((2, 3, 4, 5), 40)], ids=["tokens", "features", "images"]
)
def test_positions_of_a_batch(shape, count):
    assert real_positions({"x": torch.zeros(shape)}) == count


def test_padding_is_not_counted():
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert int(real_positions({"x": torch.zeros(3, 3), "mask": mask})) == 3


def test_the_rate(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    throughput, task = Throughput(), module()
    throughput.on_train_start(TRAINER, task)
    throughput.on_train_epoch_start(TRAINER, task)
    batch = {"x": torch.zeros(4, 25)}
    for _ in range(3):
        now[0] += 0.4
        throughput.on_train_batch_end(TRAINER, task, None, batch, 0)
    assert throughput.rate == pytest.approx(2 * 300 / 1.2)  # of two processes, read when more than a second had passed
    assert task.logged == {}

    now[0] += 60  # a validation
    throughput.on_validation_end(TRAINER, task)
    now[0] += 0.1
    step = SimpleNamespace(**vars(TRAINER) | {"global_step": 50})
    throughput.on_train_batch_end(step, task, None, batch, 0)
    assert task.logged == {"tokens_per_second": pytest.approx(2 * 100 / 0.1)}


def test_no_log_between_two_steps_or_if_logging_is_off(monkeypatch):
    for changed, index in (({"global_step": 50, "accumulate_grad_batches": 2}, 0), ({"log_every_n_steps": 0}, 0)):
        task, throughput = module(), Throughput()
        throughput.on_train_epoch_start(TRAINER, task)
        trainer = SimpleNamespace(**vars(TRAINER) | changed)
        throughput.on_train_batch_end(trainer, task, None, {"x": torch.zeros(4, 25)}, index)
        assert task.logged == {}


@pytest.mark.parametrize(
    ("task", "unit"),
    [
        (module("tokens"), "tokens"),
        (module("waveform"), "samples"),
        (module("features", frontend=object()), "samples"),
        (module("features", frontend=None), "positions"),
        (module("image"), "pixels"),
        (SimpleNamespace(), "positions"),
    ],
)
def test_what_positions_are_called(task, unit):
    throughput = Throughput()
    throughput.on_train_start(TRAINER, task)
    assert throughput.unit == unit


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0.00"), (9.996, "10.0"), (999.6, "1.00k"), (12345.0, "12.3k"), (1.2345e6, "1.23M"), (7e12, "7000G")],
)
def test_short_numbers(number, text):
    assert short(number) == text


def test_it_stands_in_the_log_and_in_the_bar(cli, stories, monkeypatch):
    shown = []
    original = ProgressBar.get_metrics
    monkeypatch.setattr(ProgressBar, "get_metrics", lambda *given: shown.append(original(*given)) or shown[-1])
    text = ("--config", "tasks/configs/text_classification.yaml", "--data.batch_size=8", *TINY_ENCODER)
    command = ("fit", *text, "--data.path", stories, "--test_after_fit=false", "--trainer.log_every_n_steps=2")
    cli(*command, "--output_dir=run", "--trainer.max_epochs=1", "--trainer.enable_model_summary=false")
    with Path("run/csv/version_0/metrics.csv").open() as file:
        rates = {
            row["step"]: float(row["tokens_per_second"]) for row in csv.DictReader(file) if row["tokens_per_second"]
        }
    assert list(rates) == ["1", "3"]
    assert min(rates.values()) > 0
    assert any(metrics.get("tokens/s", "")[-1:] in set("kM0123456789") - {""} for metrics in shown)
    cli(*command, "--output_dir=quiet", *SHORT, *QUIET)
    assert "tokens_per_second" in Path("quiet/csv/version_0/metrics.csv").read_text()
