"""Files of the archives of time series (timeseriesclassification.com), as aeon and sktime write them: .ts.

Lines of a head begin with @; below @data each line is a series: its channels with `:` between them, numbers with `,`,
and behind the last `:` the class, or the number to predict. `?` and NaN are missing numbers, and series may have any
lengths. Steps with times of their own, (time, number), are not read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lambda_seq.inference.series import MARKS
from lambda_seq.tasks.data.reading.dialects import open_text
from lambda_seq.tasks.data.reading.files import BadFileError, kind_of
from lambda_seq.tasks.data.reading.tables import UNREADABLE

KIND = ".ts"


@dataclass(frozen=True)
class Head:
    """What the head of a file says.

    Attributes:
        labelled: whether each line ends with a class, or a number to predict.
        numbers: whether that is a number.
        line: of the file, with which the series begin.
    """

    labelled: bool
    numbers: bool
    line: int


def is_ts(file: Path) -> bool:
    """Whether a file is one, by its name."""
    return kind_of(file)[0] == KIND


def read_head(file: Path) -> Head:
    """The head of a file.

    Raises:
        BadFileError: it cannot be read, or has none.
    """
    with _opened(file) as stream:
        return _head(file, stream)


def read_series(file: Path) -> Iterator[tuple[np.ndarray, str | None]]:
    """Each series (C, N), float32, NaN where a number is missing, and its class as text, None without one.

    Raises:
        BadFileError: a line that is no series; names it.
    """
    with _opened(file) as stream:
        head = _head(file, stream)
        for line, text in enumerate(stream, head.line):
            if not (text := text.strip()) or text.startswith("#"):
                continue
            parts = text.split(":")
            label = parts.pop().strip() if head.labelled else None
            if label is not None and label.casefold() in MARKS:
                label = None
            if not parts or any("(" in part for part in parts[:1]):
                what = "steps with times of their own" if parts else "no series in front of its class"
                raise BadFileError(f"{file}, line {line}: {what}; write numbers alone, with `:` between channels")
            try:
                channels = [_numbers(part) for part in parts]
            except ValueError as error:
                raise BadFileError(f"{file}, line {line}: {error}; correct it") from error
            if len({len(channel) for channel in channels}) > 1:
                raise BadFileError(
                    f"{file}, line {line}: its channels have {', '.join(str(len(one)) for one in channels)} numbers; "
                    "give all as many, with ? for those that are missing"
                )
            yield np.stack(channels), label


def _numbers(text: str) -> np.ndarray:
    cells = [cell.strip() for cell in text.split(",")] if text.strip() else []
    return np.array(["nan" if cell.casefold() in MARKS else cell for cell in cells]).astype(np.float32)


def _head(file: Path, stream: io.TextIOWrapper) -> Head:
    labelled, numbers = False, False
    for line, text in enumerate(stream, 1):
        word, _, rest = text.strip().partition(" ")
        name, value = word.casefold(), rest.strip().casefold()
        if name == "@data":
            return Head(labelled, numbers, line + 1)
        if name == "@timestamps" and value.startswith("true"):
            raise BadFileError(f"{file}, line {line}: steps with times of their own are not read; write numbers alone")
        if name in ("@classlabel", "@targetlabel") and value.startswith("true"):
            labelled, numbers = True, name == "@targetlabel"
        elif name and not name.startswith(("@", "#")):
            break
    raise BadFileError(f"{file}: it has no line @data, below which the series are; give a .ts file of the archives")


@contextmanager
def _opened(file: Path) -> Iterator[io.TextIOWrapper]:
    """A file of text, whose errors name it."""
    try:
        with open_text(file) as stream:
            yield stream
    except UNREADABLE as error:
        raise BadFileError(f"{file}: {type(error).__name__}: {error}") from error
