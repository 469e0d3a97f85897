"""Checkpoint files that a kill, a full disk or a damaged file cannot take away: whole or not there, one to spare."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

LAST = "last.ckpt"
PARTIAL = ".partial"  # suffix of a file that is being written


def previous(file: Path) -> Path:
    """Where the checkpoint is kept that `file` has replaced: last.ckpt becomes last.previous.ckpt."""
    return file.with_stem(file.stem + ".previous")


def damage(file: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if every byte is as it was written.

    All of the file is read and compared with the checksums that `torch.save` put there and `torch.load` ignores: it
    returns other numbers where a disk has turned a bit, and says nothing.

    Raises:
        OSError: the file cannot be read.
    """
    if not file.stat().st_size:
        return "it is empty"
    try:
        with zipfile.ZipFile(file) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, EOFError):
        return "it is no checkpoint, or only a part of one"
    return None if part is None else f"its part {part} is not what was written"


def newest(file: Path) -> Path:
    """The checkpoint, or if it is damaged or gone, the one that it replaced; says so on stderr.

    Raises:
        ValueError: it is damaged, and so is, or there is not, the one before.
    """
    before = previous(file)
    wrong = damage(file) if file.is_file() else "it is gone"
    if wrong is None:
        return file
    if before.is_file() and damage(before) is None:
        _warn(f"{file} cannot be used, {wrong}; going on from the one before, {before}")
        return before
    raise ValueError(
        f"{file} cannot be used, {wrong}, and there is no good {before.name} beside it; remove both to begin anew, or "
        "name another checkpoint with --ckpt_path"
    )


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when the disk has all of it; reads no code.

    A kill at any moment leaves the old file or the new one. What last.ckpt replaces stays as last.previous.ckpt, as
    long as it is of the same run: a new run in the same folder does not keep what it cannot go on from. Checkpoints are
    read with `weights_only=True`, which never executes what a file holds.
    """

    def __init__(self) -> None:
        self._own: set[Path] = set()  # files that this run wrote or went on from

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save; when this returns, the checkpoint survives a power failure.

        Raises:
            OSError: it cannot be written, for want of space or permission. What was there before is untouched.
        """
        if storage_options is not None:
            raise TypeError("storage_options: checkpoints are local files, which have none; leave it out")
        file = Path(path)
        partial = file.with_name(file.name + PARTIAL)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(partial, checkpoint)
            if file.name == LAST:
                self._keep(file)
            partial.replace(file)
            _flush_folder(file.parent)
        except OSError as error:
            raise unwritable(file, error) from error
        finally:
            _remove(partial)
        self._own.add(file.absolute())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """The checkpoint at a path.

        Raises:
            ValueError: it is damaged.
        """
        self.go_on_from(Path(path))
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return checkpoint

    def go_on_from(self, file: Path) -> None:
        """Take a checkpoint for one of this run, which is worth keeping.

        Raises:
            ValueError: it is damaged.
        """
        if wrong := damage(file):
            raise ValueError(f"{file} cannot be used, {wrong}; name another checkpoint with --ckpt_path")
        self._own.add(file.absolute())

    def _keep(self, file: Path) -> None:
        """Let `previous(file)` be what is about to be replaced, if that is of this run."""
        before = previous(file)
        if file.absolute() not in self._own:
            if before.absolute() not in self._own:
                before.unlink(missing_ok=True)
            return
        spare = before.with_name(before.name + PARTIAL)
        spare.unlink(missing_ok=True)
        try:
            os.link(file, spare)  # a second name of the same bytes: there is no moment without `file`
        except OSError:  # a file system without links; if killed right here, `newest` finds the one before
            file.replace(before)
            return
        try:
            spare.replace(before)
        finally:
            _remove(spare)


def check_writable(folder: Path) -> None:
    """That checkpoints can be written to a folder, which is created; to be found out before training, not after.

    Raises:
        OSError: they cannot.
    """
    probe = folder / f"writable{PARTIAL}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        _remove(probe)


def unwritable(path: Path, error: OSError) -> OSError:
    """An error that names the path, the cause and what to do; checkpoints that are there stay as they are."""
    cause = error.strerror or str(error)
    kept = [file.name for file in (path, previous(path)) if file.is_file()]
    state = f"; {kept[0]} there is still the one before, and whole" if kept else ""
    return OSError(
        f"{path} cannot be written: {cause}{state}. Free space there or name a folder that can be written, with "
        "--output_dir or --last.dirpath and --best.dirpath, and go on with --ckpt_path last"
    )


def _write(file: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write and wait for the disk. From memory, as an error of the disk so is an OSError that says which."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with file.open("wb") as stream:
        stream.write(buffer.getbuffer())
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Wait until the disk has the folder's new names; not all systems open folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(file: Path) -> None:
    """Remove what may be left; where that is forbidden the error of writing says so."""
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return


@rank_zero_only
def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
