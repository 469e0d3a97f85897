"""Audio files as samples: reading, mixing down, resampling."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from lambda_seq.inference.containers import UNKNOWN_SIZE, Part, mp3_parts, ogg_links, unfinished_wav

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")  # of libsndfile
OGG_PAGE = 27 + 255 + 255 * 255  # bytes of the longest page
BLOCK = 1 << 22  # samples that are decoded at once
UNKNOWN_LENGTH = 1 << 60  # samples or more: libsndfile's way of saying that the header leaves them open

# What libsndfile notes of wav and aiff whose samples end before their header says so; it reads them as shorter ones.
CUT_OFF = re.compile(r"^\s*(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)


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


class _File(soundfile.SoundFile):
    """A file read from its beginning to its end; `SoundFile` seeks after each block, which MP3 answers inexactly."""

    def seekable(self) -> bool:
        """Never."""
        return False


def read_header(source: str | bytes) -> Header:
    """The header of a file, given by its path or its bytes; of files put one after another, of all of them.

    A file whose header leaves its length open is decoded to count its samples: an MP3 without a Xing frame, a FLAC
    that was written to a pipe.

    Raises:
        ValueError: no audio, nothing in it, or cut off as far as the header tells; says which.
    """
    headers = []
    for part in _parts(source):
        with _opened(part.content or source) as file:
            header = _header(file, part.content or source)
            announced = _announced(file, part)
            if announced is None or part.missing:
                header = header._replace(frames=_complete(sum(map(len, _blocks(file))), announced, part))
            headers.append(header)
    first = headers[0]
    return first._replace(frames=sum(round(header.frames * first.rate / header.rate) for header in headers))


def read_samples(source: str | bytes, rate: int) -> np.ndarray:
    """The samples (N,) of a file, float32 from −1 to 1: the mean of its channels, resampled to `rate` per second.

    Resampling is that of the SoX resampler in high quality (`soxr`): low-pass below half the lower rate, no delay.

    Raises:
        ValueError: as `read_header`, or the samples are fewer than announced or no finite numbers.
    """
    return np.concatenate([_read_part(source, part, rate) for part in _parts(source)])


def _read_part(source: str | bytes, part: Part, rate: int) -> np.ndarray:
    with _opened(part.content or source) as file:
        header = _header(file, part.content or source)
        blocks = list(_blocks(file))
        _complete(sum(map(len, blocks)), _announced(file, part), part)
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise ValueError("holds samples that are infinite or no numbers")
    return resample(samples, header.rate, rate)


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """The samples that are there, in blocks (n,), the mean of the channels."""
    left = file.frames  # what follows them, such as tags, is not for the decoder
    while left:
        size = min(max(BLOCK // file.channels, 1), left)
        try:
            channels = file.read(size, dtype="float32", always_2d=True)  # (n, channels)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"damaged or cut off: {error.error_string}") from error
        if len(channels):
            yield channels.mean(1) if channels.shape[1] > 1 else channels[:, 0]
        left = left - size if len(channels) == size else 0


def _announced(file: soundfile.SoundFile, part: Part) -> int | None:
    """The samples that the header announces; None if it leaves them open."""
    return None if part.missing is None or file.frames >= UNKNOWN_LENGTH else file.frames


def _complete(found: int, announced: int | None, part: Part) -> int:
    """The number of samples found, if none are missing."""
    if not found:
        raise ValueError("holds no samples")
    if announced is not None and found < announced - (part.missing or 0):
        raise ValueError(f"cut off: {announced} samples announced, {found} found")
    return found


def resample(samples: np.ndarray, old: float, new: float) -> np.ndarray:
    """Samples (N,) at `old` per second as about N · new / old, at least one, at `new` per second."""
    if old == new:
        return samples
    resampled = soxr.resample(samples, old, new)
    return resampled if len(resampled) else samples[:1]


def to_16_bits(samples: np.ndarray) -> np.ndarray:
    """Samples from −1 to 1 as whole numbers of 16 bits; what is beyond is cut off."""
    return (samples * 32768).round().clip(-32768, 32767).astype(np.int16)


def of_16_bits(samples: np.ndarray) -> np.ndarray:
    """Whole numbers of 16 bits as float32 from −1 to 1."""
    return samples.astype(np.float32) / 32768


def cropped(samples: np.ndarray, length: int, random: np.random.Generator | None = None) -> np.ndarray:
    """At most `length` samples: a stretch at a random place, or without `random` the middle."""
    spare = len(samples) - length
    if spare <= 0:
        return samples
    begin = spare // 2 if random is None else int(random.integers(0, spare + 1))
    return samples[begin : begin + length]


def _parts(source: str | bytes) -> list[Part]:
    """The files that the file is put together of: as a rule itself alone."""
    with _opened(source) as file:
        kind, frames = file.format, file.frames
    if kind not in ("MP3", "OGG") and not (kind in ("WAV", "WAVEX") and frames == 0):
        return [Part(None, 0)]
    raw = source if isinstance(source, bytes) else Path(source).read_bytes()
    if kind in ("MP3", "OGG"):
        return mp3_parts(raw) if kind == "MP3" else ogg_links(raw)
    return [Part(unfinished_wav(raw), 0)]


def _opened(source: str | bytes) -> _File:
    if isinstance(source, bytes):
        if not source:
            raise ValueError("holds no bytes")
    elif not Path(source).is_file():
        raise ValueError("there is no such file")
    elif Path(source).stat().st_size == 0:
        raise ValueError("holds no bytes")
    try:
        return _File(_Stream(source) if isinstance(source, bytes) else source)
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
