"""Files as of the shared tasks of CoNLL: a word and its labels on a line, an empty line behind a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import datasets
import pyarrow as pa

from lambda_seq.tasks.data.reading.cache import cached_table, in_batches, state_of
from lambda_seq.tasks.data.reading.dialects import TableOptions, open_text
from lambda_seq.tasks.data.reading.files import BadFileError, kind_of
from lambda_seq.tasks.data.reading.layout import tables_by_split, visible_files
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.data.reading.sources import is_saved
from lambda_seq.tasks.data.reading.tables import UNREADABLE, is_table

ENDINGS = (".conll", ".conllu", ".conll2002", ".conll2003", ".iob", ".iob2", ".bio", ".bioes")
UNSURE = (".txt", ".tsv")
TOKENS, TAGS = "tokens", "tags"  # columns of the table that is made
DOCUMENT = "-DOCSTART-"  # of a line that begins a document, and is no word
UNIVERSAL = 10  # columns of CoNLL-U
BLANKS = re.compile("[ \t]+")  # no other white space, which may be a word's
FEWEST = 4  # such lines, by which a .txt file is no prose
LOOKED = 200  # lines of a file that show its columns


class Columns(NamedTuple):
    """Which columns of a line are the word and its label, from 0 on, or from −1 backwards."""

    token: int
    tag: int


class Dialect(NamedTuple):
    """How a file is written.

    Attributes:
        tabs: whether a tab parts columns, and no other white space.
        columns: of a line.
        universal: whether it is CoNLL-U, whose first column numbers the words.
    """

    tabs: bool
    columns: int
    universal: bool


def is_conll(file: Path) -> bool:
    """Whether a file is one by its name; of .txt and .tsv files those whose lines have as many columns as others."""
    kind = kind_of(file)[0]
    return kind in ENDINGS or (kind in UNSURE and _is_in_columns(file, kind == ".tsv"))


def conll_files(path: str) -> list[Path]:
    """The files at a path, if it is one or a folder of such without other tables; none otherwise."""
    place = Path(path).expanduser()
    if place.is_file():
        return [place] if is_conll(place) else []
    if not place.is_dir() or is_saved(place):
        return []
    files = visible_files(place, lambda file: is_table(file) or kind_of(file)[0] in (*ENDINGS, ".txt"))
    found = [file for file in files if is_conll(file)]
    return [] if any(is_table(file) for file in files if file not in found) else found


def load_conll(
    path: str, files: Sequence[Path], token: str | None, tag: str | None, options: TableOptions, whole: bool = False
) -> dict[str, datasets.Dataset]:
    """The sentences of files by split, a row each, with the columns `TOKENS` and, where there are any, `TAGS`.

    Args:
        path: where they come from, for errors.
        files: of which those of one split are put together; a file alone is "train".
        token, tag: numbers of the columns; None for the first and the last, of CoNLL-U 1 (FORM) and 3 (UPOS).
        options: for their encoding.
        whole: take all files as one split, "train", whatever they are called.

    Raises:
        ValueError: a line that does not fit; names the file and the line.
    """
    place = Path(path).expanduser()
    by_split = {"train": list(files)} if place.is_file() else tables_by_split(place, files, whole)
    found = {}
    for split, members in by_split.items():
        try:
            found[split] = _table(members, token, tag, options)
        except BadFileError as error:
            raise ValueError(f"path={path!r}: the data cannot be read: {error}") from error
    return found


def _table(files: Sequence[Path], token: str | None, tag: str | None, options: TableOptions) -> datasets.Dataset:
    written = [_dialect(file, options) for file in files]
    columns = [_columns(file, dialect, token, tag) for file, dialect in zip(files, written, strict=True)]
    words = datasets.List(datasets.Value("string"))
    tagged = [own for own in columns if own.tag != own.token]
    features = datasets.Features({TOKENS: words} | ({TAGS: words} if tagged else {}))
    schema = features.arrow_schema

    def rows() -> Iterator[dict[str, list[str] | None]]:
        for file, dialect, own in zip(files, written, columns, strict=True):
            yield from _sentences(file, dialect, own, options)

    def batches() -> Iterator[pa.Table]:
        for batch in in_batches(rows(), lambda row: 16 * len(row[TOKENS] or ())):
            yield pa.Table.from_pylist(batch, schema=schema)

    states = [state_of(file.absolute()) for file in files]
    return cached_table("conll", [states, columns, options.encoding], schema, batches)


def _dialect(file: Path, options: TableOptions) -> Dialect:
    """How a file is written, by its first lines."""
    try:
        with open_text(file, options) as stream:
            lines = [line.rstrip("\r\n") for line, _ in zip(stream, range(LOOKED), strict=False)]
    except UNREADABLE as error:
        raise BadFileError(f"{file}: {type(error).__name__}: {error}") from error
    words = [line for line in lines if line.strip() and not line.startswith(DOCUMENT)]
    plain = [line for line in words if not line.startswith("#")] or words
    if not plain:
        raise BadFileError(
            f"{file}: there are no words in its first {LOOKED} lines; put one on each line, or remove it"
        )
    tabs = sum("\t" in line for line in plain) > len(plain) / 2
    widths = [len(_cells(line, tabs)) for line in plain]
    columns = max(set(widths), key=widths.count)
    return Dialect(tabs, columns, tabs and columns == UNIVERSAL and all(line[0].isdecimal() for line in plain))


def _cells(line: str, tabs: bool) -> list[str]:
    return line.split("\t") if tabs else BLANKS.split(line.strip(" \t"))


def _columns(file: Path, dialect: Dialect, token: str | None, tag: str | None) -> Columns:
    """The columns that are meant; the word's own for the label where there is no other."""
    defaults = ("1", "3") if dialect.universal else ("0", "-1")
    if dialect.universal and tag is None:
        note(f"{file}: of CoNLL-U the parts of speech (UPOS) are read as tags. Choose with --data.tag_column 4")
    found = []
    for name, given, default in (("text_column", token, defaults[0]), ("tag_column", tag, defaults[1])):
        chosen = default if given is None else given
        try:
            number = int(chosen)
        except ValueError:
            raise ValueError(
                f"{name}={chosen!r}: {file} has columns without names; expected a number, 0 for the first or -1 for "
                "the last"
            ) from None
        if not -dialect.columns <= number < dialect.columns:
            raise ValueError(
                f"{name}={chosen}: {file} has {dialect.columns} columns; expected a number from {-dialect.columns} to "
                f"{dialect.columns - 1}"
            )
        found.append(number % dialect.columns)
    return Columns(*found)


def _sentences(
    file: Path, dialect: Dialect, columns: Columns, options: TableOptions
) -> Iterator[dict[str, list[str] | None]]:
    """Rows of a file."""
    tagged = columns.tag != columns.token
    tokens: list[str] = []
    tags: list[str] = []
    documents = 0
    try:
        with open_text(file, options) as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    if tokens:
                        yield {TOKENS: tokens, TAGS: tags if tagged else None}
                        tokens, tags = [], []
                    continue
                cells = _cells(line.rstrip("\r\n"), dialect.tabs)
                if cells[0] == DOCUMENT:
                    documents += 1
                elif len(cells) != dialect.columns:
                    if not line.startswith("#"):
                        raise BadFileError(
                            f"{file}, line {number}: {len(cells)} columns, where others have {dialect.columns}: "
                            f"{line.strip()[:60]!r}; correct it, or put an empty line between sentences"
                        )
                elif not (dialect.universal and not cells[0].isdecimal()):  # words that are written as one, or not
                    tokens.append(cells[columns.token])
                    tags.append(cells[columns.tag])
    except UNREADABLE as error:
        raise BadFileError(f"{file}: {type(error).__name__}: {error}") from error
    if tokens:
        yield {TOKENS: tokens, TAGS: tags if tagged else None}
    if documents:
        note(f"{file}: {documents} lines {DOCUMENT} are no words and are left out")


def _is_in_columns(file: Path, gaps: bool) -> bool:
    """Whether almost all of the first lines have as many columns, two at least; with `gaps` in sentences only."""
    try:
        with open_text(file) as stream:
            lines = [line.rstrip("\r\n") for line, _ in zip(stream, range(LOOKED), strict=False)]
        written = _dialect(file, TableOptions())
    except (*UNREADABLE, BadFileError):
        return False
    while lines and not lines[-1].strip():
        lines.pop()
    words = [line for line in lines if line.strip() and not line.startswith((DOCUMENT, "#"))]
    same = sum(len(_cells(line, written.tabs)) == written.columns for line in words)
    return (
        written.columns > 1
        and same >= max(0.9 * len(words), FEWEST)
        and not (gaps and all(line.strip() for line in lines))
    )
