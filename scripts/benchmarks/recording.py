"""A run of measurements: one record at a time, on disk as soon as it is there, with the machine and the command."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Record = dict[str, Any]


class Recorder:
    """Records by key, kept in a JSON file that is complete after each of them.

    Args:
        file: where records are kept.
        command: that makes them; commands of earlier runs stay before it.
        machine: what they depend on.
        resume: take over the records of an earlier run on the same machine.

    Raises:
        ValueError: the earlier run was on another machine.
    """

    def __init__(self, file: Path, command: Sequence[str], machine: dict[str, Any], resume: bool = False) -> None:
        self.file, self.command, self.machine = file, shlex.join(command), machine
        self.records: list[Record] = []
        self.interrupted = False
        if resume and file.exists():
            earlier = json.loads(file.read_text(encoding="utf-8"))
            if earlier["machine"] != machine:
                raise ValueError(
                    f"--resume: {file} was measured on {earlier['machine']}, this is {machine}: ratios hold within one "
                    "machine only; leave --resume out, or give another --out"
                )
            self.records = earlier["records"]
            known = list(dict.fromkeys(earlier["command"].split("; ")))
            again = any(one.removesuffix(" --resume") == self.command.removesuffix(" --resume") for one in known)
            self.command = "; ".join(known if again else [*known, self.command])

    def find(self, key: Record) -> Record | None:
        """The record of a key."""
        return next((record for record in self.records if record["key"] == key), None)

    def add(self, key: Record, **found: Any) -> Record:
        """Keep a record; it is on disk when this returns."""
        record = {"key": key, **found}
        self.records.append(record)
        self.write()
        return record

    def write(self) -> None:
        """Write all records; a kill leaves the old file or the new one."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        whole = {"command": self.command, "machine": self.machine, "records": self.records}
        beside = self.file.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.file)

    def run(self, keys: Sequence[Record], describe: Callable[[Record], str], one: Callable[[Record], Record]) -> None:
        """Measure each key that has no record yet, `one(key)` giving what to keep, under a progress bar.

        Ctrl-C ends it early; `interrupted` says so, and what was measured stays.
        """
        missing = [key for key in keys if self.find(key) is None]
        try:
            with _progress(len(missing)) as advance:
                for key in missing:
                    advance(describe(key))
                    self.add(key, **one(key))
        except KeyboardInterrupt:
            self.interrupted = True
            print(f"interrupted: {len(self.records)} records are kept in {self.file}; go on with --resume")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    columns = (BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        task, started = progress.add_task("", total=total), False

        def advance(description: str) -> None:
            nonlocal started
            progress.update(task, description=description, advance=1 if started else 0)
            started = True

        yield advance
        progress.update(task, description="done", completed=total)
