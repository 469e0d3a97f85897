"""Tests of what is refused because a fit could not end as it should, and of what is said when it is broken off."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_data import SHORT, TINY_ENCODER

from lambda_seq.tasks.callbacks.ending import Ending, command_to_go_on
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.strategies.distributed import ShardedStrategy


def trainer(limit=1.0, *, tested=True, strategy=None, batches=4):
    data = SimpleNamespace(tested=tested, test_dataloader=lambda: [0] * batches)
    return SimpleNamespace(datamodule=data, limit_test_batches=limit, strategy=strategy)


def ending(**given):
    return Ending(**({"tests": True, "exports": True, "keeps": True} | given))


def test_less_than_a_batch_to_test_is_refused():
    with pytest.raises(ValueError, match=r"limit_test_batches=0.2: less than one of the 4 batches to test; give 0.25"):
        ending().setup(trainer(0.2), None, "fit")
    for fine in (trainer(0.25), trainer(1), trainer(0), trainer(0.2, tested=False)):
        ending().setup(fine, None, "fit")
    ending(tests=False).setup(trainer(0.2), None, "fit")
    ending().setup(trainer(0.2), None, "test")


def test_weights_that_are_nowhere_whole_are_refused():
    spread = {"strategy": ShardedStrategy()}
    for given in ({}, {"exports": False}, {"tests": False}):
        with pytest.raises(ValueError, match=r"trainer.enable_checkpointing=False with trainer.strategy=fsdp2"):
            ending(keeps=False, **given).setup(trainer(**spread), None, "fit")
    ending(keeps=False, exports=False).setup(trainer(tested=False, **spread), None, "fit")
    ending(keeps=False, exports=False).setup(trainer(0, **spread), None, "fit")
    ending().setup(trainer(**spread), None, "fit")
    ending(keeps=False).setup(trainer(), None, "fit")


@pytest.mark.parametrize(
    ("given", "goes_on"),
    [
        ("lambda-seq fit --config x", "lambda-seq fit --config x --ckpt_path last"),
        ("/bin/lambda-seq fit --ckpt_path best -c x", "lambda-seq fit -c x --ckpt_path last"),
        ("lambda-seq fit --ckpt_path=a/b.ckpt --config x", "lambda-seq fit --config x --ckpt_path last"),
        ("lambda-seq fit --overwrite --config x", "lambda-seq fit --config x --ckpt_path last"),
        ("lambda-seq fit --overwrite true --config x", "lambda-seq fit --config x --ckpt_path last"),
        ("lambda-seq fit --overwrite=true --a 'b c'", "lambda-seq fit --a 'b c' --ckpt_path last"),
        ("there/tasks/cli.py fit --a b", "python -m lambda_seq fit --a b --ckpt_path last"),
    ],
)
def test_the_command_that_goes_on(given, goes_on):
    assert command_to_go_on(shlex.split(given)) == goes_on


TEXTS = ("fit", "--config", "text_classification", "--data.batch_size=8", *TINY_ENCODER, *SHORT, "--output_dir=run")


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_fit_that_is_interrupted_in_its_test_goes_on(cli, stories, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "test_step", interrupt)
        printed = cli(*TEXTS, "--data.path=stories", code=1).err
    assert "interrupted when all was trained; what is missing follows" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("go on with: ")]
    words = shlex.split(line)[4:]  # behind "go on with: lambda-seq"
    assert words == [*TEXTS, "--data.path=stories", "--ckpt_path", "last"]
    cli(*words)
    assert Path("run/summary.json").is_file()


def test_what_is_saved_is_said(cli, stories, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "training_step", interrupt)
        printed = cli(*TEXTS, "--data.path=stories", code=1).err
    assert "interrupted after step 0; nothing is saved yet, and it begins anew" in printed
    made = Classification.training_step

    def late(task, batch, index):
        if task.global_step == 3:
            raise KeyboardInterrupt
        return made(task, batch, index)

    monkeypatch.setattr(Classification, "training_step", late)
    printed = cli(*TEXTS, "--data.path=stories", "--last.every_n_train_steps=2", code=1).err
    assert "interrupted after step 3; run/checkpoints/last.ckpt holds all until step 2" in printed
