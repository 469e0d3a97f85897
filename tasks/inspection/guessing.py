"""Which configuration is for some data, by the files there are."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from PIL import Image, UnidentifiedImageError

from lambda_seq.inference.clips import SUFFIXES, read_header
from lambda_seq.tasks.configurations import OPTIONS
from lambda_seq.tasks.data.audio.tones import TONES
from lambda_seq.tasks.data.images.numbers import holds_numbers, pixel_columns
from lambda_seq.tasks.data.labels import LABEL_NAMES
from lambda_seq.tasks.data.reading.columns import flat, like_classes
from lambda_seq.tasks.data.reading.dialects import TableOptions
from lambda_seq.tasks.data.reading.files import kind_of
from lambda_seq.tasks.data.reading.layout import classes_of, samples_by_split, visible_files
from lambda_seq.tasks.data.reading.pictures import is_picture
from lambda_seq.tasks.data.reading.shards import is_shard
from lambda_seq.tasks.data.reading.sources import DIGITS, is_saved, load_rows
from lambda_seq.tasks.data.reading.tables import is_table
from lambda_seq.tasks.data.series.arrays import is_arrays
from lambda_seq.tasks.data.series.forms import steps_by_id
from lambda_seq.tasks.data.series.generated import WAVES
from lambda_seq.tasks.data.series.ts import is_ts
from lambda_seq.tasks.data.tags.conll import conll_files
from lambda_seq.tasks.data.tags.letters import LETTERS
from lambda_seq.tasks.data.tags.reading import tagged_columns
from lambda_seq.tasks.data.text.fasta import is_fasta
from lambda_seq.tasks.data.text.sites import SITES
from lambda_seq.tasks.detection.folders import about_objects

PICTURES, CLIPS = "image_classification", "audio_classification"
TEXTS, LANGUAGE, TAGGED = "text_classification", "language_modelling", "tagging"
SERIES, BIOSEQUENCES = "series_classification", "biosequences"
OBJECTS = "detection"
COMMAND = "inspect"
LOOKED = 20  # cells of a column


def called(word: str) -> str:
    """The command that a word calls: data is "inspect" to the parser, in which the data have an option of that name."""
    return COMMAND if word == "data" else word


def with_configuration(words: Sequence[str]) -> list[str]:
    """A command line, of `lambda-seq data` with the configuration that its data are for, if it names none; said.

    The word behind `data`, if that is no option, is the path: `lambda-seq data reviews.csv`.

    Raises:
        ValueError: no path is given, or nothing can be said of it; names the option to give.
        FileNotFoundError: there is nothing at the path.
    """
    given = list(words)
    if not given or called(given[0]) != COMMAND:
        return given
    given[0] = COMMAND
    if len(given) > 1 and not given[1].startswith("-"):
        given += ["--data.path", given.pop(1)]  # behind the configuration, in which the class of the data is
    if any(word.partition("=")[0] in (*OPTIONS, "--print_config", "--help", "-h") for word in given):
        return given
    path = _value(given, "path")
    if not path:
        raise ValueError("data.path: no data given to look at; name a file or a folder: lambda-seq data PATH")
    header = _value(given, "table.header")
    options = TableOptions(
        encoding=_value(given, "table.encoding"),
        separator=_value(given, "table.separator"),
        header=None if header is None else header.casefold() in ("true", "yes", "1"),
    )
    name, why = guessed(path, _value(given, "label_column"), options)
    print(f"configuration {name}, as {why}: lambda-seq fit --config {name} --data.path {path}\n")
    return [given[0], "--config", name, *given[1:]]


def guessed(path: str, label: str | None = None, options: TableOptions = TableOptions()) -> tuple[str, str]:  # noqa: B008 - frozen
    """The name of a configuration for the data at a path, and why.

    Args:
        path: a file, a folder, or the name of generated data.
        label: the column of labels, if it is known.
        options: how tables are written.

    Raises:
        ValueError: there is nothing that can be read, or it is a name on the hub.
        FileNotFoundError: there is nothing at the path.
    """
    known = {
        DIGITS: (PICTURES, "these are handwritten digits"),
        TONES: (CLIPS, "these are generated tones"),
        WAVES: (SERIES, "these are generated series"),
        LETTERS: (TAGGED, "these are generated letters"),
        SITES: (BIOSEQUENCES, "these are generated sequences of DNA"),
    }
    if path in known:
        return known[path]
    place = Path(path).expanduser()
    if not place.exists():
        if "/" in path and not place.suffix and not path.startswith((".", "/", "~")):
            raise ValueError(
                f"config: none given, and path={path!r} is not on this machine, so that none can be guessed; give one, "
                f"such as --config {TEXTS}, {PICTURES}, {CLIPS} or {LANGUAGE}"
            )
        raise FileNotFoundError(f"path={path!r}: no such file or folder (looked for {place.absolute()}); correct it")
    if words := about_objects(place):
        return OBJECTS, words
    if any(kind_of(file)[0] != ".txt" for file in conll_files(path)):
        return TAGGED, "there are words with labels, one on each line"
    alone = is_saved(place) or place.is_file()
    files = [place] if alone else visible_files(place, lambda file: _kind(file) != "")
    kinds = Counter(map(_kind, files))
    if is_saved(place) or (kinds["table"] and not kinds[PICTURES] + kinds[CLIPS] + kinds[SERIES] + kinds[BIOSEQUENCES]):
        return _of_table(flat(next(iter(load_rows(path, whole=True, options=options).values()))), label)
    if not any(kinds[kind] for kind in (PICTURES, CLIPS, SERIES, BIOSEQUENCES, TEXTS)):
        found = f"of kind {place.suffix!r}" if place.is_file() else "without a picture, a clip, a text or a table"
        raise ValueError(
            f"path={path!r}: {found}, nothing that can be read; expected pictures, clips, .txt files, .ts files of "
            "series, arrays (.npz), fasta files or tables (parquet, jsonl, csv)"
        )
    if kinds[BIOSEQUENCES] and not kinds[PICTURES] + kinds[CLIPS] + kinds[SERIES]:
        return BIOSEQUENCES, f"there are {kinds[BIOSEQUENCES]} fasta files; of proteins with --data.tokenizer protein"
    if kinds[SERIES] and not kinds[PICTURES] + kinds[CLIPS]:
        return SERIES, f"there are {kinds[SERIES]} files of series"
    most = max((PICTURES, CLIPS, TEXTS), key=lambda kind: kinds[kind])
    if most != TEXTS:
        return most, f"there are {kinds[most]} {'pictures' if most == PICTURES else 'clips'}"
    texts = [file for file in files if _kind(file) == TEXTS]
    folder = place if place.is_dir() else place.parent
    labelled = any(classes_of(samples) for samples in samples_by_split(folder, texts).values())
    found = f"there are {len(texts)} .txt files {'in' if labelled else 'without'} folders of classes"
    return (TEXTS if labelled else LANGUAGE), found


def _value(words: Sequence[str], option: str) -> str | None:
    """The value of an option of the data."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in (f"--data.{option}", f"--data.init_args.{option}"):
            return value if equals else next(iter(words[place + 1 : place + 2]), None)
    return None


def _kind(file: Path) -> str:
    if is_picture(file):
        return PICTURES
    if file.suffix.lower() in SUFFIXES:
        return CLIPS
    if is_ts(file) or is_arrays(file):
        return SERIES
    if is_fasta(file):
        return BIOSEQUENCES
    return "table" if is_table(file) or is_shard(file) else TEXTS if kind_of(file)[0] == ".txt" else ""


def _of_table(table: datasets.Dataset, label: str | None) -> tuple[str, str]:
    if "objects" in table.column_names and "bbox" in str(table.features["objects"]):
        return OBJECTS, "column 'objects' holds boxes"
    for column, kind in table.features.items():
        if isinstance(kind, datasets.List) and holds_numbers(table, column) and _no_squares(table, column):
            return SERIES, f"column {column!r} holds lists of numbers that make no squares"
        if isinstance(kind, datasets.Image) or holds_numbers(table, column):
            return PICTURES, f"column {column!r} holds pictures"
        if isinstance(kind, datasets.Audio):
            return CLIPS, f"column {column!r} holds audio"
        cells = table.select_columns(column).with_format("arrow")[:LOOKED].column(0).to_pylist()
        found = {_of_cell(cell) for cell in cells} - {None}
        if len(found) == 1 and (name := found.pop()):
            return name, f"column {column!r} holds {'pictures' if name == PICTURES else 'audio'}, or names them"
    if channels := steps_by_id(table, label):
        return SERIES, f"rows with the same {channels[0]!r} seem to be steps of a series"
    if label is None and (tagged := tagged_columns(table)):
        return TAGGED, f"column {tagged[1]!r} has labels for the words in column {tagged[0]!r}"
    if columns := pixel_columns(table, label):
        return PICTURES, f"there are {len(columns)} columns of pixels"
    names = [name for name in table.column_names if name.strip().casefold().rpartition(".")[2] in LABEL_NAMES]
    alike = [label] if label else names or [name for name in table.column_names if like_classes(table, name)]
    if alike:
        return TEXTS, f"it is a table of texts with a column like {alike[0]!r} for labels"
    return LANGUAGE, "it is a table of texts without a column of labels"


def _no_squares(table: datasets.Dataset, column: str) -> bool:
    """Whether lists of numbers are of different lengths, or of one that makes no square picture, grey or in colours."""
    cells = table.select_columns(column).with_format("arrow")[:LOOKED].column(0).to_pylist()
    lengths = {len(cell) for cell in cells if cell and not isinstance(cell[0], list)}
    return len(lengths) > 1 or any(math.isqrt(n) ** 2 != n and 3 * math.isqrt(n // 3) ** 2 != n for n in lengths)


def _of_cell(cell: Any) -> str | None:
    """What a cell holds or names, if it is a picture or audio; "" if neither."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str):
        kind = _kind(Path(cell)) if len(cell) < 1000 else ""
        return kind if kind in (PICTURES, CLIPS) else ""
    if not isinstance(cell, bytes):
        return None if cell is None else ""
    try:
        with Image.open(io.BytesIO(cell)):
            return PICTURES
    except (UnidentifiedImageError, OSError):
        pass
    try:
        read_header(cell)
    except ValueError:
        return ""
    return CLIPS
