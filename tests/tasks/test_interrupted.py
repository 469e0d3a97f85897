"""A run that is stopped or killed at any moment leaves, when it has gone on, the folder of a run that was not."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evidence.folders import differences
from lightning.pytorch.callbacks import ModelCheckpoint
from small_data import QUIET, TINY_RESNET, image_folder

from lambda_seq.tasks import after_fit
from lambda_seq.tasks.callbacks.curves import Curves
from lambda_seq.tasks.classification import Classification

# 24 images in batches of 5: 4 steps per epoch, 8 in all, and a validation of 2 batches after each second one.
IMAGES = (
    *("fit", "--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, *QUIET, "--data.path=pictures"),
    *("--data.batch_size=5", "--model.options.dropout=0.3", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"),
    *("--trainer.val_check_interval=2", "--last.every_n_train_steps=1", "--trainer.num_sanity_val_steps=0"),
)


class Killed(BaseException):
    """Ends a training as SIGKILL does: nothing of ours is run after it."""


def kill() -> None:
    raise Killed


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def at(monkeypatch, place: Any, name: str, count: int, then: Callable[[], None], after: bool = False) -> None:
    """Let something happen when a function is called for the `count`-th time, before it or after it."""
    function, calls = getattr(place, name), []

    def call(*given, **named):
        calls.append(name)
        if not after and len(calls) == count:
            then()
        found = function(*given, **named)
        if after and len(calls) == count:
            then()
        return found

    monkeypatch.setattr(place, name, call)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all runs are: the one that is never stopped is made once."""
    folder = tmp_path_factory.mktemp("runs")
    image_folder(folder / "pictures", {"train": 12, "validation": 4, "test": 4})
    return folder


@pytest.fixture
def whole(cli, folder, monkeypatch):
    monkeypatch.chdir(folder)
    if not Path("whole", "report.html").is_file():
        cli(*IMAGES, "--output_dir=whole")
    shutil.rmtree("run", ignore_errors=True)
    return Path("whole")


def interrupted(cli, monkeypatch, then, *moment, options=(), **named) -> str:
    """Run until the moment, and go on; what was printed when it was stopped."""
    printed = ""
    with monkeypatch.context() as patch:
        at(patch, *moment, then, **named)
        if then is kill:
            with pytest.raises(Killed):
                cli(*IMAGES, *options, "--output_dir=run")
        else:
            code = 143 if then is ask else 1
            printed = cli(*IMAGES, *options, "--output_dir=run", code=code).err
            assert printed.count("stopped as asked to") == (then is ask)
    cli(*IMAGES, *options, "--output_dir=run", "--ckpt_path=last")
    return printed


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def press_twice() -> None:
    press()
    press()


# Validations come after steps 2, 4 (the end of the first epoch), 6, and 8, with two batches each
MOMENTS = {
    "in a step": (Classification, "training_step", 6),
    "before the first checkpoint": (Classification, "training_step", 1),
    "in a validation in the middle of an epoch": (Classification, "validation_step", 6),
    "at the first batch of a validation": (Classification, "validation_step", 5),
    "in the validation at the end of an epoch": (Classification, "validation_step", 4),
    "in the last validation": (Classification, "validation_step", 8),
    "as a validation ends": (Curves, "on_validation_end", 3),
    "as the best is kept": (ModelCheckpoint, "_save_checkpoint", 1),
    "as the epoch ends": (Curves, "on_train_epoch_end", 1),
    "as the last epoch ends": (Curves, "on_train_epoch_end", 2),
    "as the training ends": (Curves, "on_train_end", 1),
    "in the test": (Classification, "test_step", 2),
    "in the export": (after_fit, "export", 1),
    "before the summary": (after_fit.json, "dumps", 3),
    "in the report": (after_fit, "write_page", 1),
}


@pytest.fixture
def hears_interrupts():
    """As a program in the foreground of a terminal, which processes of pytest-xdist are not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


TRAINED = ("in a step", "before the first checkpoint", "in a validation in the middle of an epoch", "as the epoch ends")


@pytest.mark.slow
@pytest.mark.parametrize("moment", [MOMENTS[name] for name in TRAINED], ids=TRAINED)
def test_ctrl_c_saves(cli, monkeypatch, whole, moment, hears_interrupts):
    printed = interrupted(cli, monkeypatch, press, *moment)
    assert printed.count("this step is finished and saved; Ctrl-C again ends it at once") == 1
    after, held = re.search(
        r"interrupted after step (\d+); run/checkpoints/last.ckpt holds all until step (\d+)", printed
    ).groups()
    assert after == held
    assert "go on with: lambda-seq fit" in printed
    assert differences(whole, Path("run")) == []


@pytest.mark.slow
def test_ctrl_c_in_the_test_ends_at_once(cli, monkeypatch, whole, hears_interrupts):
    """Nothing is left to save: the handlers of the training are gone with it."""
    printed = interrupted(cli, monkeypatch, press, *MOMENTS["in the test"])
    assert "interrupted when all was trained; what is missing follows" in printed
    assert "this step is finished" not in printed
    assert differences(whole, Path("run")) == []


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once(cli, monkeypatch, whole, hears_interrupts):
    printed = interrupted(
        cli, monkeypatch, press_twice, *MOMENTS["in a step"], options=("--last.every_n_train_steps=4",)
    )
    assert "interrupted after step 5; run/checkpoints/last.ckpt holds all until step 4" in printed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.parametrize("then", [kill, ask])
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_interrupted_anywhere(cli, monkeypatch, whole, then, moment):
    interrupted(cli, monkeypatch, then, *moment)
    assert differences(whole, Path("run")) == []
