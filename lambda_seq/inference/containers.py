"""What audio files say of their own length where libsndfile takes them at their word, and files that are several.

libsndfile reads as many samples as a header announces. For an MP3 without that number it guesses by the first frame,
and of files put one after another, which players play as one, it reads the first alone.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

KBITS = (  # per second of a frame of layer III, by its four bits
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
)
RATES = {0: (11025, 12000, 8000), 2: (22050, 24000, 16000), 3: (44100, 48000, 32000)}  # by version: 2.5, 2, 1
LAYER_3, MONO = 1, 3  # as a header has them
SEARCHED = 1 << 16  # bytes in which the first frame is looked for
UNKNOWN_SIZE = 2**31 - 2**16  # or more: what programs that write to a pipe put into a header
STRAY = 2  # frames after the announced ones that are no other file: some encoders count them, some do not


class Part(NamedTuple):
    """A stretch of a file that is a file of its own.

    Attributes:
        content: its bytes; None for all of the file as it lies there.
        missing: how many samples fewer than announced are no damage; None if it does not announce how many it has.
    """

    content: bytes | None
    missing: int | None


class Frame(NamedTuple):
    """The header of a frame of MPEG audio, layer III."""

    version: int  # 0 for MPEG 2.5, 2 for 2, 3 for 1
    rate: int  # samples per second
    size: int  # bytes
    samples: int
    tag: int  # bytes from its beginning to where the number of frames may be noted


class Announced(NamedTuple):
    """The first frame if it holds no sound but notes how many frames follow it."""

    end: int  # of it
    frames: int | None  # None if it notes other things


def ogg_links(raw: bytes) -> list[Part]:
    """The streams that an ogg file chains one after another (RFC 3533, section 4)."""
    begins, place, opening = [], 0, False
    while raw[place : place + 4] == b"OggS" and place + 27 <= len(raw):
        first = bool(raw[place + 5] & 2)  # of a stream; streams side by side begin in pages one after another
        if first and not opening:
            begins.append(place)
        opening, segments = first, raw[place + 26]
        place += 27 + segments + sum(raw[place + 27 : place + 27 + segments])
    if len(begins) < 2:
        return [Part(None, 0)]
    return [Part(raw[begin:end], 0) for begin, end in zip(begins, [*begins[1:], len(raw)], strict=True)]


def mp3_parts(raw: bytes) -> list[Part]:
    """The files that an MP3 was put together of; those that do not say how many frames they have will be counted."""
    begin, parts = 0, []
    while begin < len(raw):
        start = _first_frame(raw, begin)
        if start is None:
            break
        note = _announced(raw, start)
        if note is None or note.frames is None:
            parts.append(Part(_open_ended(raw[start if note is None else note.end :]), None))
            break
        end, found = _walk(raw, note.end, note.frames)
        end += 128 if raw[end : end + 3] == b"TAG" else 0  # ID3, version 1
        samples = _frame(raw, start).samples  # type: ignore[union-attr]
        more = found == note.frames and _begins_anew(raw, end)
        parts.append(Part(raw[begin : end if more else len(raw)], 0 if found == note.frames else samples))
        if not more:
            break
        begin = end
    return [Part(None, parts[0].missing)] if len(parts) == 1 and parts[0].content == raw else parts or [Part(None, 0)]


def unfinished_wav(raw: bytes) -> bytes | None:
    """A wav whose sizes its recorder never filled in, with its samples up to the end; None if it is none such."""
    place = raw[:SEARCHED].find(b"data")
    if raw[:4] != b"RIFF" or place < 0 or len(raw) <= place + 8:
        return None
    whole, data = (struct.unpack_from("<I", raw, at)[0] for at in (4, place + 4))
    if data or len(raw) - 8 <= whole < UNKNOWN_SIZE:  # no samples indeed: other chunks follow the empty one
        return None
    return raw[: place + 4] + b"\xff" * 4 + raw[place + 8 :]


def _frame(raw: bytes, place: int) -> Frame | None:
    """The header at this place, if there is one."""
    if len(raw) < place + 4 or raw[place] != 0xFF or raw[place + 1] & 0xE0 != 0xE0:
        return None
    version, layer = raw[place + 1] >> 3 & 3, raw[place + 1] >> 1 & 3
    bits, rate = raw[place + 2] >> 4, raw[place + 2] >> 2 & 3
    if version not in RATES or layer != LAYER_3 or bits in (0, 15) or rate == 3:
        return None
    return _described(version, RATES[version][rate], bits, raw[place + 2] >> 1 & 1, raw[place + 3] >> 6 == MONO)


def _described(version: int, rate: int, bits: int, padding: int, mono: bool) -> Frame:
    first = version == 3
    size = (144 if first else 72) * KBITS[first][bits] * 1000 // rate + padding
    tag = 4 + ((17 if mono else 32) if first else (9 if mono else 17))  # after what describes the frame's sound
    return Frame(version, rate, size, 1152 if first else 576, tag)


def _first_frame(raw: bytes, place: int) -> int | None:
    """Where the first frame begins that another one or the end follows, after ID3 tags and what else is in front."""
    while raw[place : place + 3] == b"ID3" and len(raw) >= place + 10:
        sizes = raw[place + 6 : place + 10]
        place += 10 + sum((size & 127) << shift for size, shift in zip(sizes, (21, 14, 7, 0), strict=True))
    for start in range(place, min(place + SEARCHED, len(raw))):
        frame = _frame(raw, start)
        if frame and (start + frame.size >= len(raw) or _frame(raw, start + frame.size)):
            return start
    return None


def _announced(raw: bytes, start: int) -> Announced | None:
    frame = _frame(raw, start)
    if frame is None:
        return None
    noted = raw[start + frame.tag : start + frame.tag + 12]  # a word, flags of what follows, and the number of frames
    if noted[:4] in (b"Xing", b"Info"):
        known = len(noted) == 12 and noted[7] & 1
        return Announced(start + frame.size, int.from_bytes(noted[8:], "big") if known else None)
    if raw[start + 36 : start + 40] == b"VBRI":  # which libsndfile does not know
        return Announced(start + frame.size, None)
    return None


def _walk(raw: bytes, place: int, most: int) -> tuple[int, int]:
    """Where up to `most` frames end, and how many whole ones there are."""
    for count in range(most):
        frame = _frame(raw, place)
        if frame is None or place + frame.size > len(raw):
            return place, count
        place += frame.size
    return place, most


def _begins_anew(raw: bytes, place: int) -> bool:
    """Whether another MP3 begins here, and not what stands at the end of one."""
    if raw[place : place + 3] == b"ID3":
        return _first_frame(raw, place) is not None
    return _frame(raw, place) is not None and (
        _announced(raw, place) is not None or _walk(raw, place, STRAY + 1)[1] > STRAY
    )


def _open_ended(raw: bytes) -> bytes:
    """Frames behind one that announces more of them than any file has, so that all are read."""
    frame = _frame(raw, 0)
    if frame is None:
        return raw
    mono, bits = raw[3] >> 6 == MONO, 8  # of bits per second enough for what is noted
    silent = _described(frame.version, frame.rate, bits, 0, mono)
    header = bytes([0xFF, raw[1] | 1, bits << 4 | raw[2] & 0x0C, raw[3]])  # without a checksum
    noted = header + bytes(silent.tag - 4) + b"Xing" + struct.pack(">II", 1, 1 << 24)
    return noted.ljust(silent.size, b"\0") + raw
