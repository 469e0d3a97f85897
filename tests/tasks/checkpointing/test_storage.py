"""Checkpoint files: whole or not there, one to spare, clear errors, and no code that a file brings along."""

import errno
import os
import pickle
import re
import resource
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import CLI, environment, finish, start
from small_data import QUIET, TINY_RESNET

from lambda_seq.tasks.checkpointing.storage import AtomicCheckpoints, damage, newest, previous

IMAGES = (
    *("fit", "--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, *QUIET, "--data.batch_size=6"),
    *("--trainer.max_epochs=2", "--test_after_fit=false", "--last.every_n_train_steps=1", "--data.path=pictures"),
)
LAST = Path("run/checkpoints/last.ckpt")


def checkpoint(step: int, size: int = 1000) -> dict:
    return {"global_step": step, "state_dict": {"weight": torch.full((size,), float(step))}}


def step(file: Path) -> int:
    return torch.load(file, weights_only=True)["global_step"]


def spoil(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "a bit":
        with zipfile.ZipFile(file) as archive:  # of the largest part, not of what stands between two
            part = max((archive.read(name) for name in archive.namelist()), key=len)
        content[content.find(part) + len(part) // 2] ^= 1
    elif how == "cut":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    elif how == "directory":  # of the zip archive, which no checksum covers: how a part is packed
        content[content.index(b"PK\x01\x02") + 10] ^= 64
    elif how == "text":
        content = bytearray(b"nonsense")
    file.unlink()
    if how == "folder":
        (file / "data").mkdir(parents=True)
    elif how in OTHERS:
        OTHERS[how](file)
    else:
        file.write_bytes(content)


class Harm:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def archive(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as found:
        found.writestr("data.pkl", b"nothing to unpickle")


OTHERS = {
    "pickle": lambda file: file.write_bytes(pickle.dumps({"state_dict": {}, "global_step": 1})),
    "archive": archive,
    "script": lambda file: torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.ones(2),)), file),
    "weights": lambda file: torch.save({"weight": torch.ones(3)}, file),
    "tensor": lambda file: torch.save(torch.ones(3), file),
    "code": lambda file: torch.save(checkpoint(1) | {"callbacks": Harm()}, file),
}


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
        ("directory", "no checkpoint, or only"),
        ("folder", "it is a folder"),
        ("pickle", "no checkpoint"),
        ("archive", "no checkpoint"),
        ("script", "no checkpoint"),
        ("weights", "no state_dict and no global_step"),
        ("tensor", "no state_dict and no global_step"),
        ("code", "more than tensors and plain values"),
    ],
)
def test_damage_is_found_and_the_one_before_goes_on(saved, capsys, how, words):
    spoil(LAST, how)
    assert words in damage(LAST)
    with pytest.raises((ValueError, pickle.UnpicklingError, RuntimeError)):
        saved.load_checkpoint(LAST)
    assert newest(LAST) == previous(LAST)
    warning = capsys.readouterr().err
    assert f"{LAST} cannot be used" in warning
    assert f"going on from the one before, {previous(LAST)}" in warning

    resumed = AtomicCheckpoints()
    assert resumed.load_checkpoint(previous(LAST))["global_step"] == 1
    resumed.save_checkpoint(checkpoint(2), LAST)  # what was damaged is no one to spare
    assert (step(LAST), step(previous(LAST))) == (2, 1)


def equal(file: Path) -> bool:
    """Whether a file loads to what was written; an error of loading is none of ours."""
    found = AtomicCheckpoints().load_checkpoint(file)
    return found["global_step"] == 2 and bool((found["state_dict"]["weight"] == 2).all())


@pytest.mark.slow
def test_whatever_byte_is_another_is_found_or_does_not_matter(saved):
    saved.save_checkpoint(checkpoint(2, 5), LAST)
    whole = LAST.read_bytes()
    random = np.random.default_rng(0)
    for place, flip in enumerate(random.integers(1, 256, len(whole))):
        content = bytearray(whole)
        content[place] ^= int(flip)
        LAST.write_bytes(content)
        assert damage(LAST) or equal(LAST), place


def test_ends_and_headers_that_are_others_are_found_or_do_not_matter(saved):
    """Where no checksum of the archive is: the last bytes, and those at each part's two headers."""
    whole = LAST.read_bytes()
    headers = [found.start() for found in re.finditer(rb"PK[\x01-\x08]{2}", whole)]
    places = {place for header in headers for place in range(header, min(header + 46, len(whole)), 3)}
    for place in sorted(places | set(range(len(whole) - 120, len(whole), 3))):
        content = bytearray(whole)
        content[place] ^= 1
        LAST.write_bytes(content)
        assert damage(LAST) or equal(LAST), place


def test_wherever_it_is_cut_is_found_or_does_not_matter(saved):
    whole = LAST.read_bytes()
    for size in [*range(0, len(whole), 97), *range(len(whole) - 130, len(whole))]:
        LAST.write_bytes(whole[:size])
        assert damage(LAST) or equal(LAST), size


def test_checkpoints_of_other_programs_have_checksums_too():
    LAST.parent.mkdir(parents=True)
    torch.save(checkpoint(1), LAST)
    assert damage(LAST) is None
    assert AtomicCheckpoints().load_checkpoint(LAST)["global_step"] == 1
    spoil(LAST, "a bit")
    assert "is not what was written" in damage(LAST)


def test_a_folder_in_the_place_of_a_checkpoint_is_put_aside(saved, capsys):
    spoil(LAST, "folder")
    saved.save_checkpoint(checkpoint(3), LAST)
    assert f"{LAST} was a folder; it is {LAST}.1 now" in capsys.readouterr().err
    assert step(LAST) == 3
    assert (LAST.parent / "last.ckpt.1" / "data").is_dir()


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
        "import os, signal, torch, lambda_seq.tasks.checkpointing.storage as storage\n"
        "storage.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"storage.AtomicCheckpoints().save_checkpoint({{'global_step': 3}}, {str(LAST)!r})"
    )
    finish(start(CLI[0], "-c", code), code=-9)
    assert LAST.with_name("last.ckpt.partial").is_file()
    assert step(newest(LAST)) == 2
    saved.save_checkpoint(checkpoint(3), LAST)
    assert not LAST.with_name("last.ckpt.partial").exists()


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


def test_a_checkpoint_without_a_version_is_read_or_refused_by_what_it_holds(cli, pictures):
    cli(*IMAGES, "--output_dir=run", "--trainer.max_steps=2")
    whole = torch.load(LAST, weights_only=True)
    for names, code in ((whole.keys() - {"pytorch-lightning_version"}, 0), (("state_dict", "global_step"), 1)):
        torch.save({name: whole[name] for name in names}, "other.ckpt")
        result = cli("test", *IMAGES[1:], "--output_dir=run", "--ckpt_path=other.ckpt", code=code)
        assert ("the checkpoint is of no task of lambda_seq" in result.err) == bool(code)
