"""What a run says of the memory of a step."""

from types import SimpleNamespace

import pytest
from small_data import QUIET, TINY_ENCODER, TINY_RESNET
from torch import nn

from lambda_seq.tasks.callbacks import step_memory
from lambda_seq.tasks.callbacks.step_memory import MemoryNote, gib, longest_row, waits_for_others
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data import ImageData, TextData

IMAGES = ("fit", "--config", "image_classification", "--data.batch_size=8", *TINY_RESNET)
BRIEF = ("--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--test_after_fit=false", "--export=false")
SAYS = (*BRIEF, "--trainer.enable_progress_bar=false")


def test_it_is_said_before_the_first_step(cli, pictures):
    said = cli(*IMAGES, "--data.path", pictures, *SAYS).err
    (line,) = [line for line in said.splitlines() if line.startswith("memory: ")]
    assert "a training step of 8 pictures of 8 × 8 takes about " in line
    assert "an estimate; " in line


def test_small_quiet_runs_say_nothing(cli, pictures, monkeypatch):
    monkeypatch.setattr(step_memory, "estimate", lambda *_, **__: pytest.fail("it is estimated"))
    assert "memory" not in cli(*IMAGES, "--data.path", pictures, *BRIEF, *QUIET).err


def test_what_does_not_fit_is_warned_of_even_then(cli, stories, monkeypatch):
    monkeypatch.setattr(step_memory, "available_memory", lambda: 2**16)
    monkeypatch.setattr(step_memory, "LARGE", 8 * 64)
    texts = ("fit", "--config", "text_classification", "--data.batch_size=8", "--data.tokenizer=bytes", *TINY_ENCODER)
    said = cli(*texts, "--data.path", stories, *BRIEF, *QUIET).err
    (line,) = [line for line in said.splitlines() if line.startswith("warning: ")]
    assert "of 8 rows of " in line
    assert "and only 1 MiB are free: try --data.batch_size " in line
    for option in ("--trainer.accumulate_grad_batches", "--data.max_length", "--trainer.precision bf16-mixed"):
        assert option in line


def test_a_network_that_looks_at_numbers_is_trained_all_the_same(cli, pictures, monkeypatch):
    def inputs(self, batch):
        assert float(batch["x"].sum()) >= 0
        return normal(self, batch)

    normal = Classification.inputs
    monkeypatch.setattr(Classification, "inputs", inputs)
    assert "memory: " not in cli(*IMAGES, "--data.path", pictures, *SAYS).err


def test_an_error_of_memory_ends_with_options(cli, pictures, monkeypatch):
    def fail(self, *_):
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error"
        )

    monkeypatch.setattr(Classification, "training_step", fail)
    said = cli(*IMAGES, "--data.path", pictures, *BRIEF, *QUIET, code=1).err
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (
        "out of memory ([enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes)"
        in line
    )
    assert "try --data.batch_size 4 --trainer.accumulate_grad_batches 2" in line
    assert "--data.image_size" in line
    assert "Traceback" not in said


def test_what_is_shared_is_left_alone(monkeypatch):
    monkeypatch.setattr(step_memory, "estimate", lambda *_, **__: pytest.fail("it is estimated"))
    task = nn.Sequential(nn.SyncBatchNorm(2))
    task.facts = object()
    trainer = SimpleNamespace(datamodule=object(), is_global_zero=True)
    assert waits_for_others(task)
    MemoryNote(True).on_fit_start(trainer, task)
    task[0] = nn.BatchNorm1d(2)
    assert not waits_for_others(task)
    MemoryNote(True, shared=True).on_fit_start(trainer, task)
    MemoryNote(True).on_fit_start(SimpleNamespace(datamodule=None, is_global_zero=True), task)


@pytest.mark.parametrize("bucket", [True, False])
def test_rows_are_as_long_as_the_longest(stories, pictures, bucket):
    data = TextData(str(stories), bucket=bucket, pad_to_multiple=16)
    longest = max(len(batch["x"][0]) for batch in data.train_dataloader())
    assert longest_row(data) == longest < data.max_length
    assert longest_row(ImageData(str(pictures))) is None


def test_sizes_in_words():
    assert [gib(size) for size in (1, 2**20, 300 * 2**20, 1.5 * 2**30)] == ["1 MiB", "1 MiB", "300 MiB", "1.5 GiB"]
