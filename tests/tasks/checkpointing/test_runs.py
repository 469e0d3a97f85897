"""A run knows its own checkpoints from those of earlier ones, and is alone in its folder."""

import fcntl
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from commands import CLI, finish, start
from small_data import QUIET, TINY_RESNET

from lambda_seq.tasks.checkpointing import runs
from lambda_seq.tasks.checkpointing.runs import LOCK, NOTE, alone, begin, newest_run
from lambda_seq.tasks.checkpointing.storage import AtomicCheckpoints
from lambda_seq.tasks.classification import Classification

IMAGES = (
    *("--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, *QUIET, "--data.batch_size=6"),
    *("--data.path=pictures", "--trainer.num_sanity_val_steps=0", "--output_dir=run"),
)
FIT = ("fit", *IMAGES, "--test_after_fit=false", "--export=false", "--trainer.max_epochs=1", "--overwrite")
FOLDER = Path("run/checkpoints")
LAST, BEST = FOLDER / "last.ckpt", FOLDER / "best.ckpt"


class Killed(BaseException):
    pass


@pytest.fixture
def begun(cli, pictures, monkeypatch):
    """Begins a run that is killed before its first checkpoint."""

    def kill(*_):
        raise Killed

    def run(*options):
        with monkeypatch.context() as patch:
            patch.setattr(Classification, "training_step", kill)
            with pytest.raises(Killed):
                cli(*FIT, *options)

    return run


def steps(file: Path = LAST) -> int:
    return torch.load(file, weights_only=True)["global_step"]


def write(name: str, step: int) -> Path:
    AtomicCheckpoints().save_checkpoint({"state_dict": {}, "global_step": step}, FOLDER / name)
    return FOLDER / name


def test_last_is_none_of_an_earlier_run(cli, begun):
    cli(*FIT)
    assert steps() == 4
    begun("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1")
    again = cli(*FIT, "--ckpt_path=last", "--trainer.max_steps=1")
    assert (
        f"there is no {LAST} of the run that was last begun there yet; training begins anew; to use {LAST}" in again.err
    )
    assert steps() == 1
    again = cli(*FIT, "--ckpt_path=last")
    assert "begins anew" not in again.err
    assert steps() == 4


def test_an_earlier_run_goes_on_by_its_path(cli, begun):
    cli(*FIT, "--trainer.max_steps=2")
    begun()
    begun(f"--ckpt_path={LAST}")  # killed once more: from here on it is the newest
    again = cli(*FIT, "--ckpt_path=last")
    assert "begins" not in again.err
    assert steps() == 4


def test_a_run_that_goes_back_to_the_best_goes_on_from_there(cli, begun):
    cli(*FIT, "--trainer.val_check_interval=2")
    AtomicCheckpoints().save_checkpoint(torch.load(BEST, weights_only=True), BEST)
    begun("--ckpt_path=best")
    again = cli(*FIT, "--ckpt_path=last", "--trainer.max_steps=5")
    assert f"it begins as before, from {BEST.absolute()}; to use {LAST}, which is of an earlier run" in again.err


def test_a_run_that_began_elsewhere_begins_there_again(cli, begun):
    cli(*FIT, "--trainer.max_steps=2")
    LAST.rename("elsewhere.ckpt")
    begun("--ckpt_path=elsewhere.ckpt")
    again = cli(*FIT, "--ckpt_path=last")
    assert f"it begins as before, from {Path('elsewhere.ckpt').absolute()}" in again.err
    assert steps() == 4


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_the_best_of_an_earlier_run_is_taken_by_its_path_alone(cli, begun, command):
    cli(*FIT)
    begun()
    for options in ([], ["--ckpt_path=best"], ["--ckpt_path=last"]):
        refused = cli(command, *IMAGES, *options, code=1).err
        assert "of the run that was last begun there; train first" in refused
        assert "which is of an earlier run, give its path" in refused
    cli(command, *IMAGES, f"--ckpt_path={BEST}")


def test_the_last_is_taken_before_the_best_of_an_earlier_run(cli, pictures):
    cli(*FIT)
    cli(*FIT, "--trainer.max_steps=2", "--trainer.limit_val_batches=0")
    tested = cli("test", *IMAGES)
    assert f"{BEST} is of an earlier run; taking {LAST}" in tested.err


def test_what_belongs_to_a_run():
    """All by default; nothing when it begins anew; when it goes on, what is of that run and not later."""
    last, before, best = write("last.ckpt", 2), write("last.previous.ckpt", 1), write("best.ckpt", 1)

    def own() -> set[str]:
        run = newest_run(FOLDER)
        return {file.name for file in (before, last, best) if run.owns(file)}

    assert own() == {"last.ckpt", "last.previous.ckpt", "best.ckpt"}
    begin([FOLDER], None)
    assert own() == set()
    write("last.ckpt", 3)
    assert own() == {"last.ckpt"}
    begin([FOLDER], last)  # the same run
    assert own() == {"last.ckpt"}
    begin([FOLDER], best)  # of the earlier one
    assert own() == {"best.ckpt"}
    write("last.previous.ckpt", 1)
    begin([FOLDER], before)
    assert own() == {"last.previous.ckpt", "best.ckpt"}
    begin([FOLDER], last)  # set aside twice by now
    assert own() == {"last.ckpt"}
    (FOLDER / NOTE).write_text("not JSON")
    assert own() == {"last.ckpt", "last.previous.ckpt", "best.ckpt"}


HOLD = """
import time
from pathlib import Path
from lambda_seq.tasks.checkpointing.runs import alone
with alone([Path('run')]):
    print('held', flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder():
    process = start(CLI[0], "-c", HOLD)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_in_a_folder_is_refused_and_one_after_a_kill_is_not(cli, pictures, holder, monkeypatch):
    monkeypatch.setattr(runs, "PATIENCE", 0.2)
    refused = cli(*FIT, code=1).err
    assert f"run: another run is writing there, process {holder.pid} on " in refused
    assert "or give another --output_dir" in refused
    assert not FOLDER.exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    cli(*FIT)
    assert not list(Path("run").rglob(LOCK))


def test_one_that_ends_within_a_moment_is_waited_for(holder):
    holder.terminate()
    with alone([Path("run")]):
        assert holder.wait() == -signal.SIGTERM


def test_processes_that_are_forked_do_not_keep_a_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "PATIENCE", 0.2)
    with alone([tmp_path]):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        code = "from pathlib import Path; from lambda_seq.tasks.checkpointing import runs; runs.PATIENCE = 0.2\n"
        code += f"with runs.alone([Path({str(tmp_path)!r})]): pass"
        finish(start(CLI[0], "-c", code))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with alone([tmp_path]):
        pass
    assert f"warning: {tmp_path} cannot be locked: No locks available; see that" in capsys.readouterr().err
