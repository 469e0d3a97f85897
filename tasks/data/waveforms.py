"""Audio files as samples: reading, mixing down, resampling, and batches of clips of different lengths."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import soundfile
import soxr
import torch
from torch import Tensor

from tasks.data.labels import Rows
from tasks.data.loading import padded_length

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")  # of libsndfile
MOST_NAMED = 20  # bad files in one message
OGG_PAGE = 27 + 255 + 255 * 255  # bytes of the longest page
UNKNOWN_SIZE = 2**31 - 1  # or more: what programs that write to a pipe put into a header

# What libsndfile notes of wav and aiff whose samples end before their header says so; it reads them as shorter ones.
CUT_OFF = re.compile(r"^\s*(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)

Result = TypeVar("Result")


class Header(NamedTuple):
    """What a file says of itself before its samples are decoded."""

    rate: int  # samples per second
    frames: int  # samples of each channel
    channels: int

    def length(self, rate: int) -> int:
        """Samples after resampling to `rate` per second; the resampler may give one more or less."""
        return max(round(self.frames * rate / self.rate), 1)


class _Stream(io.BytesIO):
    """Bytes to read from; a place before the first is no error to libsndfile, which tries such with broken files."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place, or stay if there is none such."""
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def read_header(source: str | bytes) -> Header:
    """The header of a file, given by its path or its bytes.

    Raises:
        ValueError: no audio, nothing in it, or cut off as far as the header tells; says which.
    """
    with _opened(source) as file:
        return _header(file, source)


def read_samples(source: str | bytes, rate: int) -> np.ndarray:
    """The samples (N,) of a file, float32 from −1 to 1: the mean of its channels, resampled to `rate` per second.

    Resampling is that of the SoX resampler in high quality (`soxr`): low-pass below half the lower rate, no delay.

    Raises:
        ValueError: as `read_header`, or the samples are fewer than announced or no finite numbers.
    """
    with _opened(source) as file:
        header = _header(file, source)
        try:
            channels = file.read(dtype="float32", always_2d=True)  # (frames, channels)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"damaged or cut off: {error.error_string}") from error
    if len(channels) < header.frames:
        raise ValueError(f"cut off: {header.frames} samples announced, {len(channels)} found")
    samples = channels.mean(1) if header.channels > 1 else channels[:, 0]
    if not np.isfinite(samples).all():
        raise ValueError("holds samples that are infinite or no numbers")
    return resample(samples, header.rate, rate)


def resample(samples: np.ndarray, old: float, new: float) -> np.ndarray:
    """Samples (N,) at `old` per second as about N · new / old, at least one, at `new` per second."""
    if old == new:
        return samples
    resampled = soxr.resample(samples, old, new)
    return resampled if len(resampled) else samples[:1]


def _opened(source: str | bytes) -> soundfile.SoundFile:
    if isinstance(source, bytes):
        if not source:
            raise ValueError("holds no bytes")
    elif not Path(source).is_file():
        raise ValueError("there is no such file")
    elif Path(source).stat().st_size == 0:
        raise ValueError("holds no bytes")
    try:
        return soundfile.SoundFile(_Stream(source) if isinstance(source, bytes) else source)
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: a suffix for files without a header
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise ValueError(f"no audio that can be read: {reason}") from error


def _header(file: soundfile.SoundFile, source: str | bytes) -> Header:
    cut = CUT_OFF.search(file.extra_info)
    if cut and int(cut[2]) < int(cut[1]) < UNKNOWN_SIZE:
        raise ValueError(f"cut off: {cut[1]} bytes of samples announced, {cut[2]} found")
    if file.format == "OGG" and _ends_within_a_page(source):
        raise ValueError("cut off: the last page is not whole")
    if file.frames == 0:
        raise ValueError("holds no samples")
    return Header(file.samplerate, file.frames, file.channels)


def _ends_within_a_page(source: str | bytes) -> bool:
    """Whether an ogg file is cut off, unless between two pages: the rest is then a shorter file, and read as that."""
    if isinstance(source, bytes):
        tail = source[-OGG_PAGE:]
    else:
        with Path(source).open("rb") as stream:
            stream.seek(max(Path(source).stat().st_size - OGG_PAGE, 0))
            tail = stream.read()
    page = tail[max(tail.rfind(b"OggS"), 0) :]
    segments = page[26] if len(page) > 26 else 0  # RFC 3533: 27 bytes, the segments' lengths, the segments
    return len(page) < 27 + segments + sum(page[27 : 27 + segments])


class Clips:
    """The audio of rows of a table, read when asked for; every complaint names the row and, if it has one, the file.

    A cell holds the path of a file, the bytes of one, or both as {"bytes", "path"} like the `Audio` columns of
    `datasets`; where there are bytes the path is only a name.

    Args:
        rows: which rows of which table.
        column: of the audio.
        where: the rows' origin, for errors.
        root: folder that paths are relative to; a path that is not found there is tried from the working folder.
    """

    def __init__(self, rows: Rows, column: str, where: str, root: Path | None = None) -> None:
        self.rows, self.column, self.where, self.root = rows, column, where, root
        self.table = rows.table.select_columns(column).with_format("arrow")  # which decodes nothing

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, row: int) -> str:
        """The clip's file, or its row number if it has none of its own."""
        raw, path = self._cell(row)
        return str(self.rows.indices[row]) if raw is not None or path is None else path

    def header(self, row: int) -> Header:
        """The header of a clip.

        Raises:
            ValueError: as `read_header`; names the clip.
        """
        return self._read(row, read_header)

    def samples(self, row: int, rate: int) -> np.ndarray:
        """The samples (N,) of a clip; see `read_samples`.

        Raises:
            ValueError: as `read_samples`; names the clip.
        """
        return self._read(row, lambda source: read_samples(source, rate))

    def _read(self, row: int, read: Callable[[str | bytes], Result]) -> Result:
        raw, path = self._cell(row)
        try:
            if raw is not None:
                return read(raw.as_py())
            if path is None:
                raise ValueError("no audio")
            return read(path)
        except ValueError as error:
            file = f", {path}" if path else ""
            raise ValueError(
                f"{self.where}, row {self.rows.indices[row]}{file}: {error}; replace or remove it"
            ) from error

    def _cell(self, row: int) -> tuple[pa.Scalar | None, str | None]:
        """The bytes, not yet copied, and the path of a clip, as far as it has them."""
        cell = self.table[int(self.rows.indices[row])].column(0)[0]
        fields = dict(cell.items()) if isinstance(cell, pa.StructScalar) and cell.is_valid else {"": cell}
        raw, path = None, None
        for field in fields.values():
            if field.is_valid and isinstance(field, pa.StringScalar | pa.LargeStringScalar):  # which are BinaryScalars
                path = field.as_py()
            elif field.is_valid:
                raw = field
        if raw is None and path is not None and self.root is not None and (self.root / path).exists():
            path = str(self.root / path)
        return raw, path


def read_headers(sets: Sequence[Clips]) -> list[list[Header]]:
    """The headers of all clips, for each set of clips.

    Raises:
        ValueError: some cannot be read; lists them.
    """
    return read_all([(clips, clips.header) for clips in sets])


def read_all(sets: Sequence[tuple[Clips, Callable[[int], Result]]]) -> list[list[Result]]:
    """What `read` gives for each row of each set (clips, read).

    Raises:
        ValueError: some cannot be read; lists them, the first `MOST_NAMED` by name.
    """
    results: list[list[Result]] = []
    bad: list[str] = []
    for clips, read in sets:
        found = []
        for row in range(len(clips)):
            try:
                found.append(read(row))
            except ValueError as error:
                bad.append(str(error))
        results.append(found)
    if len(bad) == 1:
        raise ValueError(bad[0])
    if bad:
        more = f"\n  and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        raise ValueError(f"{len(bad)} clips cannot be used:\n  " + "\n  ".join(bad[:MOST_NAMED]) + more)
    return results


class DecodedClips:
    """Clips read once and kept in memory as 16-bit samples; peaks beyond −1 and 1 are cut off there.

    Args:
        clips: what is kept.
        rate: samples per second.

    Raises:
        ValueError: some clips cannot be read; lists them.
    """

    def __init__(self, clips: Clips, rate: int) -> None:
        self.rate = rate

        def read(row: int) -> np.ndarray:
            return (clips.samples(row, rate) * 32768).round().clip(-32768, 32767).astype(np.int16)

        (kept,) = read_all([(clips, read)])
        self.ends = np.cumsum([len(samples) for samples in kept])
        self.flat = np.concatenate(kept)  # one array, which worker processes share

    def samples(self, row: int, rate: int) -> np.ndarray:
        """The samples (N,) of a clip, float32 from −1 to 1; the rate is the one it was kept at."""
        if rate != self.rate:
            raise ValueError(f"rate={rate}: the clips are kept at {self.rate} samples per second")
        begin = self.ends[row - 1] if row else 0
        return self.flat[begin : self.ends[row]].astype(np.float32) / 32768


def pad_clips(items: list[dict[str, Any]], *, multiple: int, most: int) -> dict[str, Any]:
    """A batch of clips: "x" (B, N) padded with 0, "id", "label" if known, and, if any is padded, "mask" (B, N)."""
    lengths = torch.tensor([len(item["x"]) for item in items])
    length = padded_length(int(lengths.max()), multiple, most)
    x = torch.zeros(len(items), length)
    for row, item in enumerate(items):
        x[row, : len(item["x"])] = item["x"]
    batch: dict[str, Tensor | list[str]] = {"x": x, "id": [item["id"] for item in items]}
    if int(lengths.min()) < length:
        batch["mask"] = torch.arange(length) < lengths[:, None]
    if "label" in items[0]:
        batch["label"] = torch.tensor([item["label"] for item in items])
    return batch
