"""The recipe `texts`: how texts are read, and the network that reads them, by how many they are and how long."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lambda_seq.models.words import WORD
from lambda_seq.tasks.data import TextData
from lambda_seq.tasks.recipes.registry import Choice, Measured, Recipe, register
from lambda_seq.tasks.recipes.rules import (
    MONITOR,
    OPTIMIZER,
    Steps,
    batches,
    by,
    classes_in_words,
    counted,
    epochs,
    few,
    monitors,
    of_network,
    optimizer,
    smoothing,
    spread,
)

READ_AT_ONCE = 2_048  # words; what recurs says much in texts that have more of them, in shorter ones little: measured


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A way to read texts, and the network for it.

    Attributes:
        tokenizer: what `--data.tokenizer` calls it.
        unit: what it makes of a text.
        most: units that are read at once; longer texts are read in windows.
        at_once: units of a batch.
        multiple: of units that `data.max_length` is rounded up to.
        whole: whether all texts are read whole, if `most` allows it, and not just 95 % of them: where positions cost
            little, and the last ones say as much as the first.
        options: of the network, for all data; reasons of each are those of the reader.
        by_length: other options of the network, by the median number of units.
        by_rows: others, by the number of rows.
        rate, decay: of AdamW.
        smoothing: of labels, by the number of rows.
        fused: whether AdamW makes its steps in one piece, which is several times as fast where a table of vectors is
            most of the network.
    """

    tokenizer: str
    unit: str
    most: int
    at_once: int
    multiple: int = 64
    whole: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    by_length: dict[str, Steps[Any]] = field(default_factory=dict)
    by_rows: dict[str, Steps[Any]] = field(default_factory=dict)
    rate: float = 0.004
    decay: float = 0.1
    smoothing: Steps[float] = ((10_000, 0.1), (None, 0.0))
    fused: bool = False


READERS = {
    "bytes": Reader(
        tokenizer="bytes",
        unit="bytes",
        most=8_192,
        at_once=131_072,
        options={"stem": "tokens", "dim": 64, "scope": 31, "norm": "batch"},
        by_length={"strides": ((300, [2, 2]), (600, [4, 2]), (None, [2, 4, 2]))},
        by_rows={
            "depth": ((1_000, 1), (5_000, 2), (None, 3)),
            "dropout": ((5_000, 0.3), (None, 0.2)),
            "token_dropout": ((5_000, 0.2), (None, 0.1)),
        },
    ),
    "letters": Reader(
        tokenizer="dna",
        unit="letters",
        most=16_384,
        at_once=131_072,
        options={"stem": "tokens", "dim": 64, "scope": 31, "norm": "batch"},
        by_length={"strides": ((600, []), (2_400, [2]), (None, [4]))},
        by_rows={
            "depth": ((1_000, 2), (None, 3)),
            "dropout": ((5_000, 0.2), (None, 0.1)),
            "token_dropout": ((5_000, 0.1), (None, 0.0)),
        },
    ),
    "pieces": Reader(
        tokenizer="train",
        unit="tokens",
        most=10_240,
        at_once=81_920,
        multiple=256,
        options={"stem": "tokens", "dim": 96, "depth": 1, "scope": 15, "norm": "layer"},
        by_rows={"dropout": ((None, 0.3),), "token_dropout": ((None, 0.3),)},
    ),
    "words": Reader(
        tokenizer="words",
        unit="words",
        most=READ_AT_ONCE,
        at_once=65_536,
        whole=True,
        options={
            "stem": "ngrams",
            "orders": [1, 2],
            "df_power": 0.5,
            "pool": "sqrt",
            "block_norm": "none",
        },
        by_length={"tf": ((READ_AT_ONCE, "log"), (None, "natural"))},
        by_rows={
            "dim": ((10_000, 64), (None, 16)),
            "buckets": ((10_000, 2**18), (None, 2**20)),  # many texts have more pairs of words than they share
            "depth": ((None, 0),),
            "dropout": ((None, 0.0),),
            "token_dropout": ((10_000, 0.3), (None, 0.5)),
        },
        rate=0.002,
        smoothing=((None, 0.2),),
        fused=True,
    ),
}
LETTERS = {"protein": "dna"}  # alphabets that are read as another
READ_AS = ((0.06, "bytes"), (None, "words"))  # which reader, by words and marks of a byte: Chinese parts none by spaces
BATCHES = ((300, 16), (None, 32))  # texts of a batch, by rows
STEPS = ((300, 400), (1_000, 520), (3_000, 1_200), (10_000, 2_000), (None, 2_500))  # of the training, by rows
HIDING = "MaskedPretraining"  # the task that has hidden tokens guessed
PIECES_OF_A_WORD = 1.3  # tokens of byte-level BPE, of 8,192 ids, for each word or mark
SAMPLE, SAMPLED = 200, 2**14  # texts in which words are counted, and bytes of each

HASHED = ("orders", "buckets", "df_power", "tf")  # options of the n-gram stem alone
FUSED = "model.optimizer.fused"
OPTIONS = (
    *("data.tokenizer", "data.max_length", "data.part", "data.pad_to_multiple", "data.batch_size"),
    *(f"model.options.{name}" for name in ("stem", *HASHED, "strides", "dim", "depth", "scope", "norm", "block_norm")),
    *(f"model.options.{name}" for name in ("pool", "dropout", "token_dropout")),
    *("model.label_smoothing", *OPTIMIZER, FUSED, "trainer.max_epochs", MONITOR),
)


@dataclass(frozen=True, kw_only=True)
class Texts(Measured):
    """Texts to train on.

    Attributes:
        median, long, longest: bytes of a text, of which half, 95 % and all of them have no more.
        words: words and marks of a byte.
    """

    median: int = 1_000
    long: int = 3_000
    longest: int = 10_000
    words: float = 0.2

    @property
    def sentence(self) -> str:
        """Rows, lengths and classes."""
        lengths = f"median {self.median:,} bytes, 95 % up to {self.long:,}, longest {self.longest:,}"
        return f"{self.rows:,} training texts, {lengths}, {classes_in_words(self)}"

    def units(self, reader: Reader, size: int) -> int:
        """About how many units a reader makes of a text of so many bytes."""
        per_byte = {"bytes": 1.0, "letters": 1.0, "tokens": self.words * PIECES_OF_A_WORD}.get(reader.unit, self.words)
        return max(math.ceil(size * per_byte), 1)


def measure(data: TextData) -> Texts:
    """Sizes of all training texts, and the words of some."""
    rows = data.split("train")
    sizes = data.sizes(rows)
    texts = [text[:SAMPLED] for text in data.texts(spread(rows, SAMPLE))]
    words = sum(len(WORD.findall(text.decode("utf-8", errors="replace"))) for text in texts)
    median, long, longest = np.quantile(sizes, [0.5, 0.95, 1.0], method="higher").tolist()
    per_byte = max(words, 1) / max(sum(map(len, texts)), 1)
    return Texts(**counted(data), median=median, long=long, longest=longest, words=per_byte)


def choose(texts: Texts) -> list[Choice]:
    """How texts are read, and the network and the training for that."""
    reader, why = _reader(texts)
    length = _length(texts, reader)
    longest = max(length[0].value, int(texts.given.get("data.max_length", 0)))
    batch = batches(texts, BATCHES, longest, reader.at_once, reader.unit)
    options = [("stem", reader.options["stem"])]
    choices = [Choice("data.tokenizer", reader.tokenizer, why), *length, batch, *of_network(options, why)]
    other = texts.given.get("model.options.stem", reader.options["stem"]) != reader.options["stem"]
    left = {"stem", *(HASHED if other else ())}
    rest = [(name, value) for name, value in reader.options.items() if name not in left]
    choices += of_network(rest, f"for {reader.unit}")
    median = texts.units(reader, texts.median)
    choices += of_network(_sized(reader.by_length, median, left), f"the median text has {median:,} {reader.unit}")
    choices += of_network(_sized(reader.by_rows, texts.rows, left), few(texts))
    choices += smoothing(reader.smoothing, texts)
    choices += optimizer(reader.rate, reader.decay, f"for {reader.unit}")
    if reader.fused and "mixed" not in str(texts.given.get("trainer.precision")):  # which clips no gradients of it
        choices.append(Choice(FUSED, True, "it is faster with so many vectors"))
    return [*choices, epochs(texts, STEPS, batch), *monitors(texts)]


def _sized(tables: dict[str, Steps[Any]], number: int, left: set[str]) -> list[tuple[str, Any]]:
    """The options of these tables for a number, but for those that are left to the network."""
    return [(name, by(table, number)) for name, table in tables.items() if name not in left]


def _reader(texts: Texts) -> tuple[Reader, str]:
    """The reader that was asked for, or the one for texts of this length, and why."""
    given, stem = texts.given.get("data.tokenizer"), texts.given.get("model.options.stem")
    if given is not None:
        fitting = (reader for reader in READERS.values() if reader.tokenizer == LETTERS.get(given, given))
        return next(fitting, READERS["pieces"]), f"for data.tokenizer {given}"
    if stem is not None:
        return READERS["words" if stem == "ngrams" else "bytes"], f"for model.options.stem {stem}"
    if str(texts.given.get("model.class_path")).endswith(HIDING):
        return READERS["bytes"], "hidden words could not be guessed from their hashes"
    return READERS[by(READ_AS, texts.words)], f"about {texts.words:.2g} words and marks a byte"


def _length(texts: Texts, reader: Reader) -> list[Choice]:
    """As much as all texts have, or 95 % of them, at once; windows where those are too long for one piece."""
    long = texts.units(reader, texts.long)
    padding = [Choice("data.pad_to_multiple", reader.multiple, f"for {reader.unit}")] if reader.multiple != 64 else []
    if long > reader.most and "data.max_length" not in texts.given:
        why = f"long texts have {long:,} {reader.unit}, of which {reader.most:,} are read at once"
        return [Choice("data.max_length", reader.most, why), Choice("data.part", "windows", why), *padding]
    longest = texts.units(reader, texts.longest)
    about = "" if reader.unit in ("bytes", "letters") else "about "
    if reader.whole and longest > reader.most and "data.max_length" not in texts.given:
        why = f"the longest text has {about}{longest:,} {reader.unit}, almost all have less"
        return [Choice("data.max_length", reader.most, why), *padding]
    share, length = ("all", longest) if reader.whole else ("95 %", long)
    why = f"{share} of the texts have {about}{length:,} {reader.unit} or less"
    return [Choice("data.max_length", math.ceil(length / reader.multiple) * reader.multiple, why), *padding]


TEXTS = register(
    Recipe(
        name="texts",
        data=TextData,
        measure=measure,
        choose=choose,
        options=OPTIONS,
        networks=("lambda_encoder",),
        anywhere=("stem", "strides", "token_dropout"),
    )
)
