"""Files that are made once and kept: trained tokenizers, generated data, tables mapped into memory."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import datasets
import pyarrow as pa

from lambda_seq.tasks.locks import lock

LOCK = "lock"  # file in a folder where something is made
YOUNG = 10.0  # seconds in which a process that has made such a folder has locked it
AT_ONCE = 8 * 2**20  # bytes of rows that are held in memory together while a table is written

Item = TypeVar("Item")


def cached(name: str, make: Callable[[Path], None], folder: str | Path | None = None) -> Path:
    """The file or folder of this name, made by `make(path)` if it is not there yet.

    It is made beside its place and moved there when whole: a process that is killed leaves nothing half done, and of
    several processes that make it at once one wins.

    Args:
        name: of the file or folder; says all that its content depends on.
        make: writes it to the path it is given, which does not exist yet.
        folder: where it is kept; default: lambda_seq/ in the cache folder of `datasets` (HF_DATASETS_CACHE).
    """
    home = Path(datasets.config.HF_DATASETS_CACHE) / "lambda_seq" if folder is None else Path(folder).expanduser()
    place = home / name
    if place.exists():
        return place
    home.mkdir(parents=True, exist_ok=True)
    with _workshop(home, name) as workshop:
        make(workshop / name)
        try:
            os.rename(workshop / name, place)
        except OSError:  # a folder that another process has put there meanwhile
            if not place.exists():
                raise
    return place


@contextmanager
def _workshop(home: Path, name: str) -> Iterator[Path]:
    """A new folder, to make something of this name in; those of processes that were killed while they did go."""
    for left in home.glob(f".{glob.escape(name)}-*"):
        if _abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
    with (workshop / LOCK).open("w") as file:
        with suppress(OSError):  # a file system without locks, where nothing is taken for abandoned
            lock(file)
        try:
            yield workshop
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def _abandoned(workshop: Path) -> bool:
    """Whether no process works there any more: the lock of one that is gone is open."""
    try:
        if time.time() - workshop.stat().st_mtime < YOUNG:
            return False
        with (workshop / LOCK).open("r+") as file:
            lock(file)
    except OSError:
        return False
    return True


def cached_table(kind: str, depends_on: Any, schema: pa.Schema, batches: Callable[[], Iterable[Any]]) -> Any:
    """A `datasets.Dataset` of these batches, written once and then mapped into memory from the cache folder.

    Args:
        kind: a word for the file's name.
        depends_on: all that the rows depend on, as what JSON can hold.
        schema: of the batches; that of `datasets.Features` keeps what it says of them.
        batches: gives the rows, as `pyarrow.RecordBatch` or `pyarrow.Table`, one small part after another.
    """
    digest = hashlib.sha256(json.dumps([depends_on, str(schema)]).encode()).hexdigest()[:32]

    def make(path: Path) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in batches():
                writer.write(batch)

    return datasets.Dataset.from_file(str(cached(f"{kind}-{digest}.arrow", make)))


def state_of(file: str | Path) -> tuple[str, int, int]:
    """What tells whether a file is still the same: its path, size and time of change."""
    state = os.stat(file)
    return str(file), state.st_size, state.st_mtime_ns


def in_batches(items: Iterable[Item], size: Callable[[Item], int], most: int = AT_ONCE) -> Iterator[list[Item]]:
    """Neighbours together, as many as have at most `most` bytes; an item with more is alone.

    Args:
        items: what is put together, in order.
        size: bytes of an item.
        most: bytes of a batch.
    """
    batch: list[Item] = []
    held = 0
    for item in items:
        more = size(item)
        if batch and held + more > most:
            yield batch
            batch, held = [], 0
        batch.append(item)
        held += more
    if batch:
        yield batch
