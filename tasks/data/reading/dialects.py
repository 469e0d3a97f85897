"""How csv and tsv files are written: their separator, whether their first line names columns, their quotation."""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lambda_seq.tasks.data.reading.cache import state_of
from lambda_seq.tasks.data.reading.encodings import encoding_of
from lambda_seq.tasks.data.reading.files import kind_of, open_binary
from lambda_seq.tasks.data.reading.notes import note

SIGNS = ",;\t|"
LOOKED = 2**18  # characters that a file is judged by
ROWS = 200  # and rows
ANNOUNCED = re.compile(r"\"?sep=(.)\"?\s*", re.IGNORECASE)  # a line that Excel reads
SENTENCE = 5  # words of a cell that is no name of a column
USUAL = (  # names of columns, none of which is a row's cell
    "id index label labels target class category sentiment y text sentence document content review title body message "
    "comment tweet question answer image img picture photo file filename file_name path filepath file_path audio wav "
    "clip recording date name url lang language score rating stars split"
)


@dataclass(frozen=True)
class TableOptions:
    """How files of tables are written, where that is not to be guessed.

    Args:
        encoding: of csv, tsv, jsonl and json files, as Python calls it, such as cp1251; default: as their mark at the
            beginning says, UTF-8, or else Windows-1252, which is said.
        separator: the character between the cells of csv and tsv files, or "tab"; default: the one by which the first
            rows have as many cells as the header.
        header: whether the first line of csv and tsv files names the columns; default: unless a cell of it is like
            those below it. Columns without names are called "column 1", "column 2" and so on.

    Raises:
        ValueError: there is no such encoding, or the separator is not one character.
    """

    encoding: str | None = None
    separator: str | None = None
    header: bool | None = None

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError as error:
            raise ValueError(
                f"table.encoding={self.encoding!r}: Python knows no such encoding; expected one such as utf-8, cp1252, "
                "cp1251, gb18030 or shift_jis"
            ) from error
        if self.separator is not None and (len(self.sign) != 1 or self.sign in '"\r\n'):
            raise ValueError(
                f"table.separator={self.separator!r}: expected one character, such as ';', or 'tab', and no quotation "
                "mark"
            )

    @property
    def sign(self) -> str:
        """The separator as a character."""
        return {"tab": "\t", "\\t": "\t"}.get(self.separator or "", self.separator or "")


GUESSED = TableOptions()


@dataclass(frozen=True)
class Dialect:
    """How a csv or tsv file is written.

    Attributes:
        separator: between cells.
        header: whether the first line names the columns.
        quoting: `csv.QUOTE_MINIMAL`, or `csv.QUOTE_NONE` if quotation marks are parts of cells.
        skipped: whether a line before the header only says the separator.
    """

    separator: str
    header: bool
    quoting: Any
    skipped: bool


def open_text(file: Path, options: TableOptions = GUESSED) -> io.TextIOWrapper:
    """A file's text, unpacked; see `encoding_of`."""
    encoding = options.encoding or encoding_of(file)
    return io.TextIOWrapper(open_binary(file), encoding=encoding, newline="")


def dialect_of(file: Path, options: TableOptions = GUESSED) -> Dialect:
    """How a csv or tsv file is written, as the options say or the first rows show; what is guessed is said."""
    return _guessed(options, *state_of(file.absolute()))


@lru_cache(maxsize=1024)
def _guessed(options: TableOptions, name: str, size: int, time: int) -> Dialect:
    file = Path(name)
    csv.field_size_limit(sys.maxsize)
    with open_text(file, options) as stream:
        text = stream.read(LOOKED)
    cut = len(text) == LOOKED
    lines = [line for line in io.StringIO(text, newline="") if line.strip()] or [""]
    announced = ANNOUNCED.fullmatch(lines[0])
    lines = lines[bool(announced) :] or [""]
    sign = options.sign or (announced[1] if announced else _separator(file, lines, cut))
    rows = _rows(lines, sign, cut)
    header = options.header
    if header is None and (why := _no_names(rows)):
        header = False
        note(
            f"{file}: its first line is read as a row, not as names of columns, as {why}. Columns are called column 1 "
            f"to column {len(rows[0])}. Choose with --data.table.header true"
        )
    return Dialect(sign, header is not False, _quoting(file, sign, options), bool(announced))


def _rows(lines: list[str], sign: str, cut: bool) -> list[list[str]]:
    """The first rows, by a separator; without the last one, of a file that goes on."""
    rows = []
    for row in csv.reader(lines, delimiter=sign):
        if row:
            rows.append(row)
        if len(rows) > ROWS:
            break
    return rows[:-1] if len(rows) > 1 and (cut or len(rows) > ROWS) else rows


def _separator(file: Path, lines: list[str], cut: bool) -> str:
    """The usual one of such files, if it divides the first rows alike, else another one that does."""
    usual = "\t" if kind_of(file)[0] == ".tsv" else ","
    signs = [usual, *(sign for sign in SIGNS if sign != usual)]
    widths = {sign: _width(_rows(lines, sign, cut)) for sign in signs}
    if widths[usual]:
        return usual
    best = max(signs, key=lambda sign: widths[sign])  # the first of equals
    if not widths[best]:  # rows are not alike by any: the header alone says it
        best = usual if usual in lines[0] else next((sign for sign in signs if sign in lines[0]), usual)
    if best != usual:
        note(
            f"{file}: its cells are taken to be separated by {best!r}, by which the first rows are alike. Choose with "
            "--data.table.separator"
        )
    return best


def _width(rows: list[list[str]]) -> int:
    """How many cells rows have, if most have as many as the first and none has more; otherwise 0."""
    width = len(rows[0]) if rows else 0
    if width < 2 or any(any(row[width:]) for row in rows):
        return 0
    return width if sum(len(row) >= width for row in rows) >= 0.9 * len(rows) else 0


def _no_names(rows: list[list[str]]) -> str:
    """Why the first row names no columns; nothing if it may."""
    if len(rows) < 2:
        return ""
    first, rest = [cell.strip() for cell in rows[0]], rows[1:]
    if {cell.casefold() for cell in first} & set(USUAL.split()):
        return ""
    numbered = [cell for cell in first if cell]
    if numbered in ([str(place) for place in range(begin, begin + len(numbered))] for begin in (0, 1)):
        return ""  # as pandas names columns without names
    for place, cell in enumerate(first):
        column = [row[place].strip() for row in rest if place < len(row) and row[place].strip()]
        if not cell or not column:
            continue
        if _number(cell) and all(map(_number, column)):
            return f"{cell!r} is a number as those below it"
        if cell in column and len(set(column)) <= max(len(column) / 2, 2):
            return f"{cell!r} stands below it, too"
    if len(first) == 1 and len(first[0].split()) >= SENTENCE:
        return f"{first[0][:60]!r} is a sentence"
    return ""


def _number(cell: str) -> bool:
    try:
        return float(cell) is not None
    except ValueError:
        return False


def _quoting(file: Path, sign: str, options: TableOptions) -> Any:
    """Of tsv files many know no quotation: it is left out where one would be malformed, which is said."""
    if kind_of(file)[0] == ".tsv":
        try:
            with open_text(file, options) as stream:
                for _ in csv.reader(stream, delimiter=sign, strict=True):
                    pass
        except csv.Error as error:
            note(f"{file}: quotation marks are taken as parts of the cells, as they are not closed otherwise ({error})")
            return csv.QUOTE_NONE
    return csv.QUOTE_MINIMAL
