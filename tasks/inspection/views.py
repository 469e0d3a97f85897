"""How rows are looked at: their lengths, what tells them apart, a line for each, and a picture of some."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lambda_seq.inference.clips import read_header, read_samples
from lambda_seq.inference.pictures import Decoder, look, opened
from lambda_seq.inference.tagging import Marked
from lambda_seq.tasks.data import CorpusData, Data
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.reading.cells import Cells
from lambda_seq.tasks.data.reading.corpus import Texts, sizes_of

MEASURED = 2000  # files of a split whose headers are read, evenly spaced
HASHED = 2**16  # bytes of a file that tell it from others, with its size
SHOWN = 120  # characters of a text
SIDE = 96  # pixels of a picture on a sheet
CHANNELS = 4  # of a series that are shown


class View(ABC):
    """The rows of a data module.

    Args:
        data: whose splits are read.

    Attributes:
        unit: of lengths.
    """

    unit: ClassVar[str] = "positions"

    def __init__(self, data: Any) -> None:
        self.data = data

    def rows(self, split: str) -> Rows:
        """The rows of a split."""
        found: Rows = self.data.splits[split]
        return found

    def measured(self, rows: Rows) -> np.ndarray:
        """Places of the rows whose lengths are looked at."""
        return np.arange(len(rows))

    @abstractmethod
    def length(self, rows: Rows, split: str) -> tuple[np.ndarray, list[str]]:
        """Lengths of rows, and what is said of those that cannot be read, whose length is NaN."""

    @abstractmethod
    def keys(self, rows: Rows, split: str) -> Iterator[bytes]:
        """What is the same for rows with the same content; empty for one without any."""

    @abstractmethod
    def line(self, rows: Rows, split: str, place: int) -> str:
        """A row in words."""

    def name(self, rows: Rows, split: str, place: int) -> str:
        """What a row is called: its number in the table of its split."""
        return f"{split} row {rows.indices[place]}"

    def tile(self, rows: Rows, split: str, place: int) -> np.ndarray | None:
        """A row to look at: pixels (H, W, C), or samples (N,) from −1 to 1; None of what is no picture."""
        return None


class TextView(View):
    """Texts, by their bytes."""

    unit = "bytes"

    def rows(self, split: str) -> Rows:
        """The rows of a split; of a language model's, documents, of which one may be in two splits."""
        part = self.data.splits[split]
        return part if isinstance(part, Rows) else Rows(part.table, part.index, None)

    def length(self, rows: Rows, split: str) -> tuple[np.ndarray, list[str]]:
        """Bytes of the texts."""
        return sizes_of(rows.table, self.data.content(rows.table))[rows.indices].astype(float), []

    def keys(self, rows: Rows, split: str) -> Iterator[bytes]:
        """Digests of the texts."""
        for text in Texts(rows.table, self.data.content(rows.table), rows.indices):
            yield hashlib.sha256(text).digest() if text else b""

    def line(self, rows: Rows, split: str, place: int) -> str:
        """The beginning of a text."""
        cell = rows.table[int(rows.indices[place])][self.data.content(rows.table)] or ""
        text = " ".join((cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell).split())
        return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


class TagView(View):
    """Texts with labels of words, by their words."""

    unit = "words"

    def length(self, rows: Rows, split: str) -> tuple[np.ndarray, list[str]]:
        """Words of the texts."""
        return np.array([len(own.words) for own in self._texts(rows)], dtype=float), []

    def keys(self, rows: Rows, split: str) -> Iterator[bytes]:
        """Digests of the texts."""
        for own in self._texts(rows):
            yield hashlib.sha256(own.text.encode("utf-8", "replace")).digest() if own.words else b""

    def line(self, rows: Rows, split: str, place: int) -> str:
        """The first words, each with its label."""
        index = int(rows.indices[place])
        own, numbers = self.data.text(rows.table, index), self.data.numbers(rows.table)
        labels = [] if numbers is None or numbers[index] is None else numbers[index].tolist()
        names = [*self.data.labels, "?"]
        words = [f"{word}/{names[label]}" for word, label in zip(own.spelled, labels, strict=False)] or own.spelled
        text = " ".join(words)
        return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"

    def _texts(self, rows: Rows) -> Iterator[Marked]:
        return (self.data.text(rows.table, int(index)) for index in rows.indices)


class FileView(View):
    """Files in cells."""

    @abstractmethod
    def cells(self, rows: Rows, split: str) -> Cells:
        """The files of rows."""

    @abstractmethod
    def header(self, source: str | bytes) -> tuple[float, str]:
        """Length of a file, and what it is like."""

    def measured(self, rows: Rows) -> np.ndarray:
        """All, or some evenly spaced."""
        return np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MEASURED)).astype(int))

    def length(self, rows: Rows, split: str) -> tuple[np.ndarray, list[str]]:
        """Lengths by the headers of files."""
        cells, bad = self.cells(rows, split), []
        lengths = np.full(len(rows), np.nan)
        for place in range(len(rows)):
            try:
                lengths[place] = cells.read(place, self.header)[0]
            except ValueError as error:
                bad.append(str(error))
        return lengths, bad

    def keys(self, rows: Rows, split: str) -> Iterator[bytes]:
        """Digests of the size of files and how they begin."""
        cells = self.cells(rows, split)
        for place in range(len(rows)):
            try:
                yield cells.read(place, digest)
            except ValueError:
                yield b""

    def line(self, rows: Rows, split: str, place: int) -> str:
        """What a file is like."""
        cells = self.cells(rows, split)
        try:
            return cells.read(place, self.header)[1]
        except ValueError as error:
            return str(error)

    def name(self, rows: Rows, split: str, place: int) -> str:
        """A file's name with its folder, if it has one."""
        file = self.cells(rows, split).name(place)
        return super().name(rows, split, place) if file.isdecimal() else "/".join(Path(file).parts[-2:])


class PictureView(FileView):
    """Pictures, by their pixels."""

    unit = "pixels"

    def cells(self, rows: Rows, split: str) -> Cells:
        """Pictures of rows."""
        found: Cells = self.data.pictures(rows, split)
        return found

    def header(self, source: str | bytes) -> tuple[float, str]:
        """Pixels, and height, width and mode."""
        found = opened(source, look)
        return float(np.prod(found.size)), f"{found.size[0]}×{found.size[1]} {'grey' if found.grey else 'colours'}"

    def tile(self, rows: Rows, split: str, place: int) -> np.ndarray | None:
        """The picture, small."""
        pixels = self.data.pictures(rows, split).load(place, Decoder((SIDE, SIDE), 3, self.data.background))
        return pixels.transpose(1, 2, 0)


class ClipView(FileView):
    """Clips, by their seconds."""

    unit = "seconds"

    def cells(self, rows: Rows, split: str) -> Cells:
        """Clips of rows."""
        found: Cells = self.data.clips(rows, split)
        return found

    def header(self, source: str | bytes) -> tuple[float, str]:
        """Seconds, and rate and channels."""
        found = read_header(source)
        seconds = found.frames / found.rate
        return seconds, f"{seconds:.2f} s, {found.rate} Hz, {found.channels} channel{'s' * (found.channels > 1)}"

    def tile(self, rows: Rows, split: str, place: int) -> np.ndarray | None:
        """The samples at 8 kHz, which show as much."""
        return self.cells(rows, split).read(place, lambda source: read_samples(source, 8000))


class ItemView(View):
    """Items of any other data, by the positions of what the network takes."""

    def measured(self, rows: Rows) -> np.ndarray:
        """All, or some evenly spaced."""
        return np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MEASURED)).astype(int))

    def length(self, rows: Rows, split: str) -> tuple[np.ndarray, list[str]]:
        """Positions."""
        items = self.data.rows_as_items(rows, split)
        return np.array([len(items[place]["x"]) for place in range(len(rows))], dtype=float), []

    def keys(self, rows: Rows, split: str) -> Iterator[bytes]:
        """Digests of the items."""
        items = self.data.rows_as_items(rows, split)
        for place in range(len(rows)):
            yield hashlib.sha256(items[place]["x"].numpy().tobytes()).digest()

    def line(self, rows: Rows, split: str, place: int) -> str:
        """The shape and the first numbers of an item."""
        x = self.data.rows_as_items(rows, split)[place]["x"]
        return f"{tuple(x.shape)} of {x.dtype}: {x.flatten()[:12].tolist()}"


class SeriesView(ItemView):
    """Series, by their steps."""

    unit = "steps"

    def line(self, rows: Rows, split: str, place: int) -> str:
        """Least and greatest number of each channel, and how many are missing."""
        x = self.data.rows_as_items(rows, split)[place]["x"].numpy()  # (N, C)
        said = f"{len(x):,} steps"
        for name, channel in list(zip(self.data.channels, x.T, strict=True))[:CHANNELS]:
            known = channel[~np.isnan(channel)]
            said += f"; {name} {known.min():.4g} to {known.max():.4g}" if len(known) else f"; {name} unknown"
            said += f", {len(channel) - len(known)} missing" if 0 < len(known) < len(channel) else ""
        return said + (" …" if x.shape[1] > CHANNELS else "")

    def name(self, rows: Rows, split: str, place: int) -> str:
        """What a series is called."""
        found = str(self.data.rows_as_items(rows.take(np.array([place])), split)[0]["id"])
        return super().name(rows, split, place) if found.isdecimal() else found

    def tile(self, rows: Rows, split: str, place: int) -> np.ndarray | None:
        """The course of the first channel that has a number, from −1 to 1."""
        x = self.data.rows_as_items(rows, split)[place]["x"].numpy()
        known = ~np.isnan(x)
        if not known.any():
            raise ValueError("holds no number")
        channel = x[:, int(known.any(0).argmax())]
        steps = np.flatnonzero(~np.isnan(channel))
        course = np.interp(np.arange(len(channel)), steps, channel[steps])
        middle, half = (course.max() + course.min()) / 2, max((course.max() - course.min()) / 2, 1e-12)
        return (course - middle) / half


def view_of(data: Data) -> View:
    """How the rows of a data module are looked at.

    Raises:
        ValueError: its rows come as a stream, or are of a kind that has no rows.
    """
    if isinstance(data, CorpusData) and data.streaming:
        raise ValueError("streaming=True: a stream has no rows to compare; leave out --data.streaming")
    if data.view is None:
        raise ValueError(
            f"data={type(data).__name__}: it has no rows that could be looked at; give the class a `view`, as "
            "TextData has it"
        )
    module, _, name = data.view.rpartition(".")
    found: View = getattr(import_module(module), name)(data)
    return found


def digest(source: str | bytes) -> bytes:
    """What tells a file, or its bytes, from others: its size, and how it begins.

    Raises:
        ValueError: it cannot be read.
    """
    if isinstance(source, bytes):
        size, head = len(source), source[:HASHED]
    else:
        try:
            with open(source, "rb") as file:
                size, head = Path(source).stat().st_size, file.read(HASHED)
        except OSError as error:
            raise ValueError(str(error)) from error
    return hashlib.sha256(size.to_bytes(8, "little") + head).digest()
