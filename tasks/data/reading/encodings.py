"""How the text of a file is encoded: by its mark, as UTF-8, or else as a guess that is said."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from lambda_seq.tasks.data.reading.cache import state_of
from lambda_seq.tasks.data.reading.files import BadFileError, open_binary
from lambda_seq.tasks.data.reading.notes import note

LOOKED = 64 * 2**20  # bytes of a file that are looked at; what follows is an error if it does not fit
CHUNK = 2**20
MARKS = {  # the longer ones first, as UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
WESTERN = "cp1252"  # Latin-1 with the quotation marks, dashes and € of Windows
UNUSED = b"\x81\x8d\x8f\x90\x9d"  # what it has no characters for
FOREIGN = 0.4  # of the letters: more than any Western language has beyond ASCII
REMEDY = "save it as UTF-8, or say what it is: --data.table.encoding NAME, such as cp1251, gb18030 or shift_jis"


def encoding_of(file: Path) -> str:
    """The encoding of a file's text, unpacked, as Python calls it.

    A mark at the beginning says it. Without one text is UTF-8 if it can be, UTF-16 if every other byte of it is 0, and
    otherwise what Western Europe writes, Windows-1252; these guesses are said.

    Raises:
        BadFileError: it is none of these, or UTF-8 with some other bytes in it; says where.
    """
    return _guessed(*state_of(file.absolute()))


@lru_cache(maxsize=1024)
def _guessed(name: str, size: int, time: int) -> str:
    file = Path(name)
    with open_binary(file) as stream:
        head = stream.read(CHUNK)
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    if wide := _wide(head):
        note(f"{file}: its text is read as {wide}, as every other byte is 0. Choose with --data.table.encoding")
        return wide
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(file):
            decoder.decode(chunk)
    except UnicodeDecodeError:
        return _western(file)
    return "utf-8"


def _chunks(file: Path) -> Iterator[bytes]:
    with open_binary(file) as stream:
        left = LOOKED
        while left > 0 and (chunk := stream.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


def _wide(head: bytes) -> str | None:
    """UTF-16 of mostly ASCII, of which one byte of each pair is 0."""
    zeros = np.frombuffer(head, np.uint8) == 0
    for encoding, first in (("utf-16-le", 1), ("utf-16-be", 0)):
        if len(zeros) and zeros[first::2].sum() > 0.25 * len(zeros) and zeros[1 - first :: 2].sum() < zeros.sum() / 10:
            return encoding
    return None


def _western(file: Path) -> str:
    """Windows-1252, of a file that is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    counts = np.zeros(256, np.int64)
    wrong, line, bad, sample = 0, 1, 0, ""
    for chunk in _chunks(file):
        counts += np.bincount(np.frombuffer(chunk, np.uint8), minlength=256)
        text = decoder.decode(chunk)
        if not bad and "\ufffd" in text:
            bad = line + text.count("\n", 0, text.index("\ufffd"))
            sample = _around(chunk)
        wrong += text.count("\ufffd")
        line += text.count("\n")
    beyond = int(counts[0xC0:].sum())  # letters, or in UTF-8 the beginnings of characters
    if wrong * 4 < beyond:
        raise BadFileError(
            f"{file}, line {bad}: bytes that are no UTF-8, as almost all else is ({wrong} such places); correct them, "
            f"or {REMEDY}"
        )
    plain = int(counts[[*range(0x41, 0x5B), *range(0x61, 0x7B)]].sum())
    if counts[list(UNUSED)].any() or beyond > FOREIGN * (beyond + plain):
        raise BadFileError(f"{file}, line {bad}: its text is neither UTF-8 nor of Western Europe; {REMEDY}")
    note(
        f"{file}: its text is no UTF-8; it is read as Windows-1252 (Latin-1 and more), such as {sample!r}. "
        "Choose with --data.table.encoding"
    )
    return WESTERN


def _around(chunk: bytes) -> str:
    """The word at the first place that is not UTF-8."""
    try:
        chunk.decode()
        place = 0
    except UnicodeDecodeError as error:
        place = error.start
    part = chunk[max(place - 20, 0) : place + 20].decode(WESTERN, "replace")
    words = re.findall(r"\S*[^\x00-\x7f]\S*", part)
    return words[0] if words else part
