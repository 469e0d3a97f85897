"""Checkpoint files that a kill, a full disk or a damaged file cannot take away: whole or not there, one to spare."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import pickle
import secrets
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import lightning
import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

BEST, LAST = "best.ckpt", "last.ckpt"
PARTIAL = ".partial"  # suffix of a file that is being written
KEYS = ("state_dict", "global_step")  # which every checkpoint of a training has
VERSION = "pytorch-lightning_version"  # by which Lightning tells how old it is
# A checkpoint ends with a comment of its zip archive: these words, a number drawn for each file, and a hash of all that
# comes before the hash.
SEAL, NONCE, DIGEST = b"lambda_seq seal ", 16, hashlib.sha256().digest_size * 2
CHUNK = 2**20  # bytes that are hashed at a time


def previous(file: Path) -> Path:
    """Where the checkpoint is kept that `file` has replaced: last.ckpt becomes last.previous.ckpt."""
    return file.with_stem(file.stem + ".previous")


def damage(file: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if every byte is as it was written, and it is one of ours.

    All of the file is read and compared with its seal, as `torch.load` returns other numbers where a disk has turned a
    bit, and says nothing. A file without one, which another program has written, has the checksums of its parts.

    Raises:
        OSError: the file cannot be read.
    """
    if wrong := altered(file):
        return wrong
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of archives of other kinds
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        return "it holds more than tensors and plain values, and nothing else is read"
    except Exception:  # what is no checkpoint fails anywhere
        return "it is no checkpoint"
    return foreign(content)


def altered(file: Path) -> str | None:
    """What tells a file from one that was written whole, in a few words; None if nothing does.

    Raises:
        OSError: the file cannot be read.
    """
    if file.is_dir():
        return "it is a folder"
    if not file.stat().st_size:
        return "it is empty"
    sealed = _digest(file)
    if sealed is not None:
        with file.open("rb") as stream:
            found = _hash(stream, file.stat().st_size - len(sealed))
        if found == sealed:
            return None
    try:
        with zipfile.ZipFile(file) as archive:
            part = archive.testzip()
    except Exception:  # names, places and sizes that a zip file gives are taken as they are
        return "it is no checkpoint, or only a part of one"
    if part is not None:
        return f"its part {part} is not what was written"
    return None if sealed is None else "it is not what was written"


def fingerprint(file: Path) -> str:
    """What tells a checkpoint from all others, be they of equal content; what its seal says, if it has one."""
    if (sealed := _digest(file)) is not None:
        return sealed.decode("latin-1")
    with file.open("rb") as stream:
        return _hash(stream, file.stat().st_size).decode()


def foreign(content: Any) -> str | None:
    """What tells that another program has written the content of a checkpoint, in a few words; None if nothing does."""
    missing = [key for key in KEYS if not isinstance(content, Mapping) or key not in content]
    return f"another program has written it, as it has no {' and no '.join(missing)}" if missing else None


def newest(file: Path, owns: Callable[[Path], bool] = Path.exists) -> Path:
    """The checkpoint, or if it is damaged, gone or none of ours, the one that it replaced; says so on stderr.

    Args:
        file: of the checkpoint.
        owns: whether a checkpoint is there, and of the run that is asked for.

    Raises:
        ValueError: it is damaged, and so is, or there is not, the one before.
    """
    before = previous(file)
    absent = "it is of an earlier run" if file.exists() else "it is gone"
    wrong = damage(file) if owns(file) else absent
    if wrong is None:
        return file
    if before.is_file() and owns(before) and damage(before) is None:
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
            if file.is_dir():  # a checkpoint in many files, or anything: not ours to remove
                file.rename(aside := _free(file))
                _warn(f"{file} was a folder; it is {aside} now")
            elif file.name == LAST:
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
            ValueError: it is damaged, or another program has written it.
            UnpicklingError: it holds code.
        """
        self.go_on_from(Path(path))
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        if wrong := foreign(checkpoint):
            raise ValueError(f"{path} cannot be used, {wrong}; name another checkpoint with --ckpt_path")
        checkpoint.setdefault(VERSION, lightning.__version__)  # else Lightning fails before the task can say what it is
        return checkpoint

    def go_on_from(self, file: Path) -> None:
        """Take a checkpoint for one of this run, which is worth keeping.

        Raises:
            ValueError: it is damaged.
        """
        if wrong := altered(file):
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


def check_places(files: Mapping[str, Path], folders: Mapping[str, Path]) -> None:
    """That results can be written where they are to be, each by the option that says so; nothing is created.

    Raises:
        ValueError: a folder is in the place of a file or a file in that of a folder, or a folder is read-only.
    """
    for option, file in files.items():
        if file.is_dir():
            raise ValueError(f"{option}: {file} is a folder, and a file is to be written there; give another name")
    for option, folder in [*folders.items(), *((option, file.parent) for option, file in files.items())]:
        found = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not found.is_dir():
            raise ValueError(
                f"{option}: {found} is a file, and a folder is needed there; move it, or give another name"
            )
        if not os.access(found, os.W_OK | os.X_OK):
            raise ValueError(f"{option}: {found} is read-only; allow writing there, or give another name")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A file beside this one, to be written, which then takes its place: a kill leaves no half of it."""
    partial = file.with_name(file.name + PARTIAL)
    yield partial
    partial.replace(file)


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
    """Write, sealed, and wait for the disk. From memory, as an error of the disk so is an OSError that says which."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    buffer.seek(-2, os.SEEK_END)  # the length of the archive's comment, which `torch.save` leaves empty
    buffer.write(struct.pack("<H", len(SEAL) + NONCE + DIGEST))
    buffer.write(SEAL + secrets.token_hex(NONCE // 2).encode())
    with file.open("wb") as stream:
        stream.write(buffer.getbuffer())
        stream.write(hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
        stream.flush()
        os.fsync(stream.fileno())


def _digest(file: Path) -> bytes | None:
    """The hash that a file's seal says it has; None without a seal."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - len(SEAL) - NONCE - DIGEST))
        words = stream.read()
    return words[-DIGEST:] if words.startswith(SEAL) else None


def _hash(stream: BinaryIO, size: int) -> bytes:
    """The hash of the first bytes of a file, in hexadecimal digits."""
    found = hashlib.sha256()
    while size > 0 and (chunk := stream.read(min(size, CHUNK))):
        found.update(chunk)
        size -= len(chunk)
    return found.hexdigest().encode()


def _free(file: Path) -> Path:
    """A name that nothing has yet."""
    return next(name for n in itertools.count(1) if not (name := file.with_name(f"{file.name}.{n}")).exists())


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
