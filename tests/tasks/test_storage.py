"""Checkpoint files: whole or not there, one to spare, clear errors, and no code that a file brings along."""

import errno
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import CLI, environment
from small_data import QUIET, TINY_RESNET

from tasks.storage import AtomicCheckpoints, damage, newest, previous

IMAGES = (
    *("fit", "--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, *QUIET, "--data.batch_size=6"),
    *("--trainer.max_epochs=2", "--test_after_fit=false", "--last.every_n_train_steps=1", "--data.path=pictures"),
)
LAST = Path("run/checkpoints/last.ckpt")


def checkpoint(step: int) -> dict:
    return {"global_step": step, "state_dict": {"weight": torch.full((1000,), float(step))}}


def step(file: Path) -> int:
    return torch.load(file, weights_only=True)["global_step"]


def spoil(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "a bit":
        content[len(content) // 2] ^= 1
    elif how == "cut":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    else:
        content = bytearray(b"nonsense")
    file.write_bytes(content)


@pytest.fixture
def saved():
    """Checkpoints of steps 1 and 2, written by one run."""
    files = AtomicCheckpoints()
    for number in (1, 2):
        files.save_checkpoint(checkpoint(number), LAST)
    return files


def test_one_to_spare(saved):
    assert (step(LAST), step(previous(LAST))) == (2, 1)
    assert sorted(file.name for file in LAST.parent.iterdir()) == ["last.ckpt", "last.previous.ckpt"]
    assert newest(LAST) == LAST


def test_a_new_run_keeps_nothing_of_the_one_before(saved):
    AtomicCheckpoints().save_checkpoint(checkpoint(7), LAST)
    assert step(LAST) == 7
    assert not previous(LAST).exists()


def test_only_last_has_one_to_spare():
    files, best = AtomicCheckpoints(), Path("best.ckpt")
    for number in (1, 2):
        files.save_checkpoint(checkpoint(number), best)
    assert step(best) == 2
    assert not previous(best).exists()


def test_a_file_system_without_links(saved, monkeypatch):
    def refuse(*names):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    saved.save_checkpoint(checkpoint(3), LAST)
    assert (step(LAST), step(previous(LAST))) == (3, 2)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("a bit", "is not what was written"),
        ("cut", "only a part of one"),
        ("empty", "it is empty"),
        ("text", "no checkpoint"),
    ],
)
def test_damage_is_found_and_the_one_before_goes_on(saved, capsys, how, words):
    spoil(LAST, how)
    assert words in damage(LAST)
    with pytest.raises(ValueError, match=words):
        saved.load_checkpoint(LAST)
    assert newest(LAST) == previous(LAST)
    warning = capsys.readouterr().err
    assert f"{LAST} cannot be used" in warning
    assert f"going on from the one before, {previous(LAST)}" in warning

    resumed = AtomicCheckpoints()
    assert resumed.load_checkpoint(previous(LAST))["global_step"] == 1
    resumed.save_checkpoint(checkpoint(2), LAST)  # what was damaged is no one to spare
    assert (step(LAST), step(previous(LAST))) == (2, 1)


def test_both_damaged(saved):
    spoil(LAST, "cut")
    spoil(previous(LAST), "a bit")
    with pytest.raises(ValueError, match=r"no good last\.previous\.ckpt beside it; remove both to begin anew"):
        newest(LAST)


def test_gone_but_for_the_one_before(saved):
    LAST.unlink()
    assert newest(LAST) == previous(LAST)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(saved, monkeypatch, call):
    def full(*given, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place, name = {"write": (Path, "open"), "fsync": (os, "fsync"), "replace": (Path, "replace")}[call]
    message = r"last\.ckpt cannot be written: No space left on device; last\.ckpt .* whole\. Free"
    with monkeypatch.context() as patch:
        patch.setattr(place, name, full)
        with pytest.raises(OSError, match=message):
            saved.save_checkpoint(checkpoint(3), LAST)
    assert damage(LAST) is None
    assert step(newest(LAST)) == 2
    assert not list(LAST.parent.glob("*.ckpt.partial"))


def test_a_kill_while_writing_leaves_what_was_there(saved, monkeypatch):
    """The file is half written when the process is gone: nothing after it runs."""
    code = (
        "import os, signal, torch, tasks.storage as storage\n"
        "storage.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"storage.AtomicCheckpoints().save_checkpoint({{'global_step': 3}}, {str(LAST)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
    assert done.returncode == -9
    assert LAST.with_name("last.ckpt.partial").is_file()
    assert step(newest(LAST)) == 2
    saved.save_checkpoint(checkpoint(3), LAST)
    assert not LAST.with_name("last.ckpt.partial").exists()


class Harm:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def test_code_in_a_checkpoint_is_not_run():
    LAST.parent.mkdir(parents=True)
    torch.save(checkpoint(1) | {"callbacks": Harm()}, LAST)
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights"):
        AtomicCheckpoints().load_checkpoint(LAST, weights_only=False)
    assert not Path("harm").exists()


def test_a_damaged_last_checkpoint_on_the_command_line(cli, pictures):
    cli(*IMAGES, "--output_dir=whole")
    cli(*IMAGES, "--output_dir=run", "--trainer.max_steps=5")
    spoil(LAST, "a bit")
    refused = cli(*IMAGES, "--output_dir=run", f"--ckpt_path={previous(LAST).with_name('best.ckpt')}x", code=1)
    assert "best.ckptx" in refused.err
    result = cli(*IMAGES, "--output_dir=run", "--ckpt_path=last")
    assert f"{LAST} cannot be used, its part" in result.err
    whole = torch.load("whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    found = torch.load(LAST, weights_only=True)["state_dict"]
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())

    spoil(Path("run/checkpoints/best.ckpt"), "cut")
    refused = cli("test", *IMAGES[1:], "--output_dir=run", code=1)
    assert "best.ckpt cannot be used, it is no checkpoint, or only a part of one; name another, such as" in refused.err


def test_a_folder_that_cannot_be_written_is_refused_before_training(cli, pictures, monkeypatch):
    touch = Path.touch

    def read_only(self, *given, **named):
        if self.parent.name == "checkpoints":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        touch(self, *given, **named)

    monkeypatch.setattr(Path, "touch", read_only)
    result = cli(*IMAGES, "--output_dir=run", code=1)
    assert "run/checkpoints cannot be written: Read-only file system. Free space there or name a folder" in result.err
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_the_run_and_the_last_checkpoint_goes_on(cli, pictures):
    """A limit on the size of files is the full disk of who may not mount one: the system refuses the write."""
    cli(*IMAGES, "--output_dir=whole")
    cli(*IMAGES, "--output_dir=run", "--trainer.max_steps=2")
    size = LAST.stat().st_size

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    words = [*CLI, *IMAGES, "--output_dir=run", "--ckpt_path=last", "--trainer.logger=false"]
    done = subprocess.run(words, env=environment(), preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "last.ckpt cannot be written: File too large; last.ckpt there is still the one before" in done.stderr
    assert step(LAST) == 2
    cli(*IMAGES, "--output_dir=run", "--ckpt_path=last")
    whole = torch.load("whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    found = torch.load(LAST, weights_only=True)["state_dict"]
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())
