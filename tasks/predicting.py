"""`lambda-seq predict --model FOLDER --input FILES`: answers of a saved model, which needs nothing of its training."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np

from lambda_seq.inference.answers import Embedded, Generation, Prediction
from lambda_seq.inference.predictor import load_predictor
from lambda_seq.inference.readers import SeriesReader
from lambda_seq.tasks.checkpointing.storage import PARTIAL
from lambda_seq.tasks.data.audio.data import AUDIO_NAMES
from lambda_seq.tasks.data.audio.files import load_audio
from lambda_seq.tasks.data.audio.waveforms import Clips
from lambda_seq.tasks.data.images.data import IMAGE_NAMES
from lambda_seq.tasks.data.images.decoding import Pictures
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.reading.cells import Cells, find_cells
from lambda_seq.tasks.data.reading.columns import flat
from lambda_seq.tasks.data.reading.corpus import DecodedTexts
from lambda_seq.tasks.data.reading.documents import find_text_column
from lambda_seq.tasks.data.reading.known import true_labels
from lambda_seq.tasks.data.reading.sources import load_rows, to_predict
from lambda_seq.tasks.data.reading.text_files import has_text_files, load_text_files
from lambda_seq.tasks.data.series.files import Stored, load_series
from lambda_seq.tasks.data.series.forms import FormOptions
from lambda_seq.tasks.data.tags.texts import WordTexts
from lambda_seq.tasks.data.text.fasta import has_fasta, load_fasta
from lambda_seq.tasks.predictions.tables import number_columns, tag_cells
from lambda_seq.tasks.predictions.writers import WRITERS, Writer

SHOWN = 10  # answers that are printed
WIDTH = 60  # characters of a name, or of a text, that are printed
GENERATION = {"max_new_tokens": int, "temperature": float, "top_k": int, "top_p": float, "seed": int}


class Row(NamedTuple):
    """An input of a file."""

    id: str
    shown: str  # the text, or the path
    truth: str | None
    given: Any  # to the predictor


def asks(words: Sequence[str]) -> bool:
    """Whether a command line means a saved model: `predict` with `--input`, or with a folder as `--model`."""
    if words[:1] != ["predict"]:
        return False
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name == "--input" or (name == "--model" and os.path.isdir(value if equals else following)):
            return True
    return False


def main(words: Sequence[str]) -> None:
    """Answer; an error is one message."""
    options = parser().parse_args(list(words))
    try:
        run(options)
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("LAMBDA_SEQ_TRACEBACK"):
            raise
        sys.exit(f"error: {error}\n(LAMBDA_SEQ_TRACEBACK=1 shows where)")


def run(options: argparse.Namespace) -> None:
    """Write the answers, and print the first of them.

    Raises:
        ValueError, TypeError: an option that does not fit, or an input that cannot be read.
        FileNotFoundError: there is no such model or file.
    """
    target = Path(options.output).expanduser()
    if target.suffix.lower() not in WRITERS:
        raise ValueError(f"--output={options.output}: unknown kind of file; expected {', '.join(WRITERS)}")
    predictor = load_predictor(options.model, device=options.device, batch_size=options.batch_size)
    generation = {name: getattr(options, name) for name in GENERATION if getattr(options, name) is not None}
    if generation and predictor.kind != "prompt":
        raise ValueError(
            f"--{next(iter(generation))}: is of language models, and {options.model} is none; leave it out"
        )
    if options.embed and predictor.kind == "prompt":
        raise ValueError(
            f"--embed: {options.model} is a language model, which has no vector of a whole text; leave it out"
        )
    several = len(options.input) > 1
    units = getattr(predictor.reader, "units", None)
    channels = predictor.reader.channels if isinstance(predictor.reader, SeriesReader) else ()
    tables = [
        Table(path, predictor.kind, options, several=several, units=units, channels=channels) for path in options.input
    ]
    rows, taken = chain.from_iterable(tables), deque[Row]()

    def inputs() -> Iterator[Any]:
        for row in rows:
            taken.append(row)
            yield row.given

    answers: Iterator[Any]
    if predictor.kind == "prompt":
        answers = (one for given in inputs() for one in predictor.generate([given], **generation))
    elif options.embed:
        answers = predictor.embeddings(inputs())
    else:
        answers = predictor.stream(inputs())
    labelled = any(table.truths is not None for table in tables)
    count, right, known = 0, 0, 0
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    writer: Writer | None = None
    try:
        for answer in answers:
            row, cells = taken.popleft(), columns(answer)
            if writer is None:
                kinds = {"id": "string", "input": "string"} | ({"label": "string"} if labelled else {})
                kinds |= {name: kind for name, (kind, _) in cells.items()}
                writer = WRITERS[target.suffix.lower()](partial, kinds)
            truth = [row.truth] if labelled else []
            writer.write([[row.id, row.shown, *truth, *(value for _, value in cells.values())]])
            if count < SHOWN:
                print(said(row, answer))
            count += 1
            if row.truth is not None and isinstance(answer, Prediction):
                for truth_of, own in answered(row.truth, answer):
                    known, right = known + 1, right + (truth_of == own)
    except BaseException:
        if writer is not None:
            writer.close()
        partial.unlink(missing_ok=True)
        raise
    if writer is not None:
        writer.close()
        partial.replace(target)
    print(f"{count} predictions: {target}")
    if known:
        unit = "words" if predictor.kind == "tagged text" else "inputs"
        print(f"accuracy {right / known:.4f}, of {known} {unit} whose label is known")


class Table:
    """The inputs of a file or folder, one by one.

    Args:
        path: as it was given.
        kind: of the inputs: "text", "tagged text", "picture", "clip", "series" or "prompt".
        options: of the command line, for the names of columns.
        several: whether there are other files, so that numbers of rows need the file's name.
        units: what of tagged texts has a label.
        channels: of series, that the model knows.

    Raises:
        ValueError, FileNotFoundError: it cannot be read, or holds nothing of this kind.
    """

    def __init__(
        self,
        path: str,
        kind: str,
        options: argparse.Namespace,
        *,
        several: bool,
        units: str | None = None,
        channels: Sequence[str] = (),
    ) -> None:
        self.path, self.several, self.channels = path, several, channels
        self.names: list[str]
        self.given: Cells | DecodedTexts | WordTexts | Stored
        self.truths: list[str | None] | None
        try:
            if kind == "tagged text":
                named = getattr(options, "data.text_column"), getattr(options, "data.label_column")
                self.given = WordTexts(path, *named, units or "words")
                self.names, self.truths = self.given.names, self.given.truths
                return
            table, label_column = self._read(kind, options), getattr(options, "data.label_column")
            self.truths = true_labels(table, label_column, wanted=True)
            read: Any = {"picture": self._pictures, "clip": self._clips, "series": self._series}.get(kind, self._texts)
            self.names, self.given = read(table, options)
        except (ValueError, OSError) as error:
            if type(error) not in (ValueError, FileNotFoundError, ConnectionError):
                raise
            message = re.sub(r"(?<![\w.])path=", "--input=", str(error))
            raise type(error)(f"{message} (the model takes {kind}{'' if kind == 'series' else 's'})") from error

    def __iter__(self) -> Iterator[Row]:
        for row, name in enumerate(self.names):
            numbered = name == str(row)
            given: Any
            if isinstance(self.given, WordTexts):
                given, shown = self.given[row]
            elif isinstance(self.given, DecodedTexts):
                given = shown = self.given[row]
            elif isinstance(self.given, Stored):
                given = self.given.read(row)  # (C, N)
                shown = f"{given.shape[1]} steps"
            else:
                given, shown = self.given.read(row, lambda source: source), "" if numbered else name
            truth = None if self.truths is None else self.truths[row]
            yield Row(f"{self.path}:{row}" if numbered and self.several else name, shown, truth, given)

    def _read(self, kind: str, options: argparse.Namespace) -> datasets.Dataset:
        if kind == "series":
            return self._of_series(options)
        if kind == "clip":
            tables = load_audio(self.path, whole=True)
        elif kind == "text" and has_fasta(self.path):
            tables = load_fasta(self.path, whole=True)
        elif kind != "picture" and has_text_files(self.path):
            tables = load_text_files(self.path, whole=True)
        else:
            tables = load_rows(self.path, whole=True)
        return flat(to_predict(tables, self.path))

    def _of_series(self, options: argparse.Namespace) -> datasets.Dataset:
        """A row for each series, named by its number, or by what says of which series steps are."""
        columns = {name: getattr(options, f"data.{name}_column") for name in ("id", "time", "label")}
        known = [columns["label"]] if columns["label"] else []
        form = FormOptions(None, len(self.channels), columns["id"], columns["time"])
        found = load_series(self.path, whole=True, options=form, known=known, names=self.channels)
        table = to_predict(found.tables, self.path)
        column = None if found.form is None else found.form.id
        self.names = list(map(str, range(len(table)) if column is None else table[column]))
        return table

    def _series(self, table: datasets.Dataset, options: argparse.Namespace) -> tuple[list[str], Stored]:
        return self.names, Stored(table, np.arange(len(table)))

    def _texts(self, table: datasets.Dataset, options: argparse.Namespace) -> tuple[list[str], DecodedTexts]:
        column = find_text_column(table, getattr(options, "data.text_column"), getattr(options, "data.label_column"))
        texts = DecodedTexts(table, column)
        return texts.names, texts

    def _pictures(self, table: datasets.Dataset, options: argparse.Namespace) -> tuple[list[str], Cells]:
        given = getattr(options, "data.image_column")
        column = find_cells(table, "image_column", given, IMAGE_NAMES, datasets.Image, "images")
        return self._cells(Pictures, table, column)

    def _clips(self, table: datasets.Dataset, options: argparse.Namespace) -> tuple[list[str], Cells]:
        given = getattr(options, "data.audio_column")
        column = find_cells(table, "audio_column", given, AUDIO_NAMES, datasets.Audio, "audio")
        return self._cells(Clips, table, column)

    def _cells(self, kind: type[Cells], table: datasets.Dataset, column: str) -> tuple[list[str], Cells]:
        place = Path(self.path).expanduser()
        root = place if place.is_dir() else place.parent if place.is_file() else None
        cells = kind(Rows(table, np.arange(len(table)), None), column, f"--input={self.path!r}", root)
        return [cells.name(row) for row in range(len(cells))], cells


def answered(truth: str, answer: Prediction) -> Iterator[tuple[str | None, str]]:
    """Of one class the true one beside the answer; of labels of words each of them that is known."""
    if answer.label is not None:
        yield truth, answer.label
    elif answer.words is not None:
        pairs = zip(json.loads(truth), answer.words, strict=True)
        yield from ((label, word.label) for label, word in pairs if label is not None)


def columns(answer: Any) -> dict[str, tuple[str, Any]]:
    """The cells of an answer: type and value of each column."""
    if isinstance(answer, Generation):
        return {"text": ("string", answer.text)}
    if isinstance(answer, Embedded):
        return {f"vector {index}": ("float32", value) for index, value in enumerate(answer.vector.tolist())}
    if answer.words is not None:
        return {name: ("string", cell) for name, cell in tag_cells(answer).items()}
    if answer.numbers is not None:
        return {name: ("float32", value) for name, value in number_columns(answer.numbers).items()}
    if answer.labels is None:
        return {"answer": ("string", json.dumps(answer.answer.tolist()))}
    label = json.dumps(answer.labels, ensure_ascii=False) if answer.label is None else answer.label
    chances = (answer.probabilities or {}).items()
    return {"prediction": ("string", label)} | {f"probability: {name}": ("float32", chance) for name, chance in chances}


def said(row: Row, answer: Any) -> str:
    """A line of an answer."""
    if isinstance(answer, Embedded):
        return f"{_short(row.shown or row.id)}: {len(answer.vector)} numbers, from {answer.vector[0]:.4g} on"
    if isinstance(answer, Prediction) and answer.words is not None:
        parts = answer.words if answer.spans is None else answer.spans
        return f"{_short(row.shown or row.id)}: {_short(', '.join(f'{one.text} {one.label}' for one in parts))}"
    (_, found), *_ = columns(answer).values()
    certain = "" if isinstance(answer, Generation) or answer.label is None else f" ({answer.probability:.3f})"
    found = found if isinstance(found, str) else f"{found:.6g}"
    return f"{_short(row.shown or row.id)}: {_short(found)}{certain}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser("lambda-seq predict", description=__doc__, allow_abbrev=False)
    add = command.add_argument
    add("predict", choices=["predict"], help=argparse.SUPPRESS)
    add("--model", required=True, metavar="FOLDER", help="what `fit` left as outputs/NAME/model, or a name of the hub")
    add(
        "--input",
        required=True,
        nargs="+",
        metavar="FILE",
        help="pictures, clips, texts, series: files, folders, tables",
    )
    add("--output", default="predictions.csv", metavar="FILE", help=".csv, .jsonl or .parquet (%(default)s)")
    add("--batch_size", type=int, default=32, metavar="N", help="inputs, or windows, at once (%(default)s)")
    add("--device", metavar="DEVICE", help="cpu, cuda, … (cpu)")
    add("--embed", action="store_true", help="vectors of inputs, what the network answers from, in place of answers")
    for name, what in (
        ("text", "texts"),
        ("image", "pictures"),
        ("audio", "clips"),
        ("id", "which series a row is a step of"),
        ("time", "the order of steps"),
        ("label", "true labels, if known"),
    ):
        add(f"--data.{name}_column", metavar="NAME", help=f"column of {what}; found by its name or type")
    for name, kind in GENERATION.items():
        add(f"--{name}", type=kind, metavar="N" if kind is int else "X", help="of a language model: see `generate`")
    return command
