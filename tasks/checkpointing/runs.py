"""Whose an output folder is: of one run at a time, which knows the checkpoints of earlier ones from its own."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from lambda_seq.tasks.checkpointing.storage import BEST, LAST, PARTIAL, check_writable, fingerprint, previous, replacing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NOTE = "run.json"  # beside last.ckpt
LOCK = "run.lock"
PATIENCE = 10.0  # seconds that a process which was killed may need until it is gone


class Run(NamedTuple):
    """What is noted of the newest run in a folder of checkpoints.

    Attributes:
        older: fingerprints of checkpoints that lay in the folder when the run began, and are none of its own.
        begun: the checkpoint that it went on from, None for none.
    """

    older: tuple[str, ...] = ()
    begun: str | None = None

    def owns(self, file: Path) -> bool:
        """Whether there is such a checkpoint, and it is not of an earlier run."""
        return file.exists() and not (self.older and file.is_file() and fingerprint(file) in self.older)


def newest_run(folder: Path) -> Run:
    """The newest run that has begun in a folder of checkpoints; all that is there is its own if nothing is noted."""
    try:
        noted = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return Run(tuple(map(str, noted["older"])), noted["begun"])
    except (OSError, ValueError, KeyError, TypeError):
        return Run()


def begin(folders: Iterable[Path], begun: Path | None) -> None:
    """Note that a run begins, before its first checkpoint is there.

    A run that goes on from the newest checkpoint of the newest run is the same one, and nothing changes. Otherwise its
    own is only what lies there of the run that it goes on from, and is not of later steps, but for the best checkpoint.

    Args:
        folders: of checkpoints.
        begun: the checkpoint that it goes on from.
    """
    for folder in set(folders):
        run = newest_run(folder)
        files = [file for file in (folder / name for name in (LAST, previous(Path(LAST)), BEST)) if file.is_file()]
        start = next((file for file in files if begun is not None and begun.exists() and file.samefile(begun)), None)
        if start is not None and start.name == LAST and run.owns(start):
            continue
        older = [file for file in files if start is None or not _belongs(file, start, run)]
        noted = {
            "older": sorted(map(fingerprint, older)),
            "begun": None if begun is None else str(begun.absolute()),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / NOTE) as partial:
            partial.write_text(json.dumps(noted) + "\n", encoding="utf-8")


def check_replaces(output: Path, best: Path, last: Path, given: str | None, *, overwrite: bool) -> None:
    """Refuse a run that would replace what an earlier one has left, unless that is asked for.

    A run that goes on from a checkpoint in these folders replaces nothing but its own, and `--ckpt_path last` starts a
    run as well as it continues one.

    Args:
        output: folder of the run.
        best: folder of the best checkpoint.
        last: folder of the last one.
        given: the checkpoint that is asked for: path, "last", "best" or None.
        overwrite: whether it is asked for.

    Raises:
        ValueError: there are results; says which, and what to give.
    """
    if overwrite or given in ("last", "best"):
        return
    if given is not None and Path(given).expanduser().resolve().parent in (best.resolve(), last.resolve()):
        return
    kept = (best / BEST, last / LAST, previous(last / LAST), output / "summary.json", output / "model")
    left = [str(file) for file in kept if file.exists()]
    if left:
        raise ValueError(
            f"output_dir={str(output)!r}: an earlier run has left {left[0]} there, which this one would replace; go on "
            f"with it (--ckpt_path last), keep it and give another folder (--output_dir {free(output)}), or replace it "
            "(--overwrite)"
        )


def free(folder: Path) -> Path:
    """A folder beside this one that does not exist: NAME-2, or the next number."""
    number = next(number for number in count(2) if not folder.with_name(f"{folder.name}-{number}").exists())
    return folder.with_name(f"{folder.name}-{number}")


def _belongs(file: Path, start: Path, run: Run) -> bool:
    """Whether a checkpoint is of the run that goes on from `start`, and of no later step than that."""
    return run.owns(file) == run.owns(start) and (file.name == BEST or start.name == LAST or file == start)


@contextmanager
def alone(folders: Iterable[Path]) -> Iterator[None]:
    """Let no other run write to the folders meanwhile; the lock ends with the process, however that ends.

    Raises:
        ValueError: another run writes to one.
    """
    with ExitStack() as locks:
        for folder in sorted({folder.absolute() for folder in folders}):
            check_writable(folder)
            locks.enter_context(_locked(folder))
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, or warn if its file system has no locks."""
    file = folder / LOCK
    try:
        descriptor = _wait(file)
    except OSError as error:
        cause = error.strerror or str(error)
        print(f"warning: {folder} cannot be locked: {cause}; see that no other run writes there", file=sys.stderr)
        yield
        return
    for name in (f"*.ckpt{PARTIAL}", NOTE + PARTIAL):  # which runs that were killed have left
        for left in folder.glob(name):
            left.unlink(missing_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _wait(file: Path) -> int:
    """The descriptor of a file that is locked, as soon as no other process has locked it.

    Raises:
        ValueError: another one keeps it for longer than `PATIENCE`.
        OSError: the file system has no locks.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(descriptor, file)
        except BaseException:
            os.close(descriptor)
            raise
        if locked:
            return descriptor
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise ValueError(
                f"{file.parent}: another run is writing there, {_holder(file)}; wait for its end, or give another "
                "--output_dir"
            )
        time.sleep(0.1)


def _lock(descriptor: int, file: Path) -> bool:
    """Lock a file, unless another process has; with POSIX's locks, which forked processes do not inherit."""
    if fcntl is None:
        raise OSError("Python has none on this system")
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino != file.stat().st_ino:  # removed by who had it
            return False
    except (BlockingIOError, PermissionError, FileNotFoundError):
        return False
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return True


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") or "a process that has just begun"
    except OSError:
        return "a process that has just ended"
