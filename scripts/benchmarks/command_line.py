"""Options that several scripts have."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.recording import Recorder


def byte_count(text: str) -> int:
    """'8GiB', '500MiB' or a number of bytes."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("", 1)):
        if text.endswith(unit):
            try:
                return int(float(text.removesuffix(unit)) * factor)
            except ValueError:
                break
    raise argparse.ArgumentTypeError(f"{text!r}: expected a size such as 8GiB or 500MiB")


def positive(least: int) -> Callable[[str], int]:
    """A type of option: an integer that is not below `least`."""

    def integer(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected an integer of {least} or more")
        return int(text)

    return integer


def add_machine(command: argparse.ArgumentParser, threads: int) -> None:
    """`--device` and `--threads`, so many if not given."""
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--threads", type=positive(1), default=threads, help="of torch (%(default)s)")


def add_results(command: argparse.ArgumentParser, folder: str) -> None:
    """`--out`, this folder if not given, and `--resume`."""
    command.add_argument("--out", type=Path, default=Path(folder), help="folder for results (%(default)s)")
    command.add_argument("--resume", action="store_true", help="go on with an interrupted or shorter run in --out")


def open_recorder(file: Path, command: Sequence[str], machine: dict[str, Any], resume: bool) -> Recorder:
    """A `Recorder`; ends the script with what is wrong if it cannot go on with the records of an earlier run."""
    try:
        return Recorder(file, command, machine, resume)
    except ValueError as error:
        sys.exit(f"error: {error}")
