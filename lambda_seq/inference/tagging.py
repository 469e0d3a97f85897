"""A label for each word of a text: words and the tokens that they are made of, windows of long texts, and entities.

A text is read as the pieces of its words, one after another, each with the white space in front of it, so that whatever
tokens are, each word has some of its own. What a network says of the first of them is its answer to the word.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lambda_seq.inference.batches import pad_tokens
from lambda_seq.inference.readers import BLOCK, Batch, text_of
from lambda_seq.inference.records import Vocabulary
from lambda_seq.inference.texts import Reading
from lambda_seq.inference.tokens import Tokens, as_text
from lambda_seq.models.words import WORD

log = logging.getLogger(__name__)
UNITS = {"words": WORD, "spaces": re.compile(r"\S+"), "characters": re.compile(r"\S")}  # what has a label of its own
OUTSIDE = "O"
ALIKE = {"U": "S", "L": "E"}  # BILOU calls a single word and the last one so
PREFIXED = re.compile(r"[BIESUL](-.+)?")
UNNAMED = "entity"  # of labels "B", "I" and "O" alone
KEPT = 2**16  # pieces of words whose ids are kept


class Marked(NamedTuple):
    """A text with its words.

    Attributes:
        text: all of it.
        words: first character, and the one behind the last, of each.
    """

    text: str
    words: list[tuple[int, int]]

    @property
    def spelled(self) -> list[str]:
        """The words themselves."""
        return [self.text[begin:end] for begin, end in self.words]


@dataclass(frozen=True)
class Word:
    """A word and the answer to it.

    Attributes:
        text: as it stands in the input.
        start, end: its first character, and the one behind its last.
        label: the likeliest.
        probability: of that.
    """

    text: str
    start: int
    end: int
    label: str
    probability: float


@dataclass(frozen=True)
class Span:
    """Neighbouring words that are one thing, such as a name.

    Attributes:
        text: as it stands in the input.
        start, end: its first character, and the one behind its last.
        label: what it is, without "B-" and "I-".
        probability: the least of its words'.
    """

    text: str
    start: int
    end: int
    label: str
    probability: float


def marked(given: str | Sequence[str], units: str) -> Marked:
    """A text with its words: of `UNITS`, or the words that are given, with a space between them."""
    if isinstance(given, str):
        return Marked(given, [found.span() for found in UNITS[units].finditer(given)])
    ends = np.cumsum([len(word) + 1 for word in given]).tolist()
    return Marked(" ".join(given), [(end - 1 - len(word), end - 1) for word, end in zip(given, ends, strict=True)])


# Tokens


class Pieces(NamedTuple):
    """A text as token ids.

    Attributes:
        ids: of all tokens, (N,).
        first: place of each word's first token, (words,).
    """

    ids: Int[np.ndarray, " N"]
    first: Int[np.ndarray, " words"]


def pieces_with(tokens: Tokens) -> Callable[[Marked], Pieces]:
    """What turns a text into tokens, word by word; see the module.

    A word of which a tokenizer leaves nothing has the id of padding, as a real position.
    """

    @lru_cache(KEPT)
    def encoded(text: str) -> Int[np.ndarray, " N"]:
        return tokens.encode(text)

    def pieces(given: Marked) -> Pieces:
        text, parts, first, count, done = given.text, [], [], 0, 0
        for begin, end in given.words:
            between = text[done:begin]
            if tokens.kind == "tokenizer" and not between.strip():
                lead = np.zeros(0, np.int64)  # white space belongs to the piece, as in "Ġword"
                own = encoded(between + text[begin:end])
            else:
                lead, own = encoded(between), encoded(text[begin:end])
            if not len(own):
                own = np.array([tokens.pad], np.int64)
            first.append(count + len(lead))
            parts += [lead, own]
            count, done = count + len(lead) + len(own), end
        parts.append(encoded(text[done:]))
        return Pieces(np.concatenate(parts), np.array(first, np.int64))

    return pieces


class Read(NamedTuple):
    """Windows that cover a text, and where its words are answered.

    Attributes:
        begins: first token of each window.
        window: of each word, the number of the window that answers it, (words,).
        position: of each word's first token in that window, (words,).
    """

    begins: list[int]
    window: Int[np.ndarray, " words"]
    position: Int[np.ndarray, " words"]


def read(pieces: Pieces, reading: Reading) -> Read:
    """Which window answers which word: of those that its first token is in, the one with the most around it."""
    begins, length = reading.begins(len(pieces.ids)), len(pieces.ids)
    starts = np.array(begins)
    if len(starts) == 1:
        return Read(begins, np.zeros(len(pieces.first), np.int64), pieces.first)
    ends = np.minimum(starts + reading.most, length)
    place = pieces.first[:, None]  # (words, 1)
    before, behind = place - starts, ends - 1 - place  # (words, windows)
    around = np.minimum(np.where(starts == 0, length, before), np.where(ends == length, length, behind))
    around = np.where((before >= 0) & (behind >= 0), around, -1)
    window = around.argmax(1)
    return Read(begins, window, pieces.first - starts[window])


# Entities


def has_entities(names: Sequence[str]) -> bool:
    """Whether labels are those of BIO, IOBES or BILOU: "O", and "B-…", "I-…" and so on."""
    rest = [name for name in names if name != OUTSIDE]
    return bool(rest) and all(map(PREFIXED.fullmatch, rest)) and any(name[0] in "BI" for name in rest)


def parted(name: str) -> tuple[str, str]:
    """Of a label its prefix, "B", "I", "E", "S" or "O", and the kind of entity, "" where there is none."""
    if name == OUTSIDE:
        return OUTSIDE, ""
    prefix, _, kind = name.partition("-")
    return ALIKE.get(prefix, prefix), kind or UNNAMED


def goes_on(before: tuple[str, str], own: tuple[str, str]) -> bool:
    """Whether a word is of the same entity as the one before it, by their parted labels.

    As the script conlleval of the shared task has it (E. Tjong Kim Sang, S. Buchholz, CoNLL 2000): an "I-" or "E-" that
    follows no "B-" or "I-" of its kind begins an entity.
    """
    return bool(own[1]) and own[1] == before[1] and before[0] in "BI" and own[0] in "IE"


def entities(names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Entities of the labels of a text's words: kind, first word, and the one behind the last."""
    found: list[tuple[str, int, int]] = []
    before = (OUTSIDE, "")
    for place, name in enumerate(names):
        own = parted(name)
        if goes_on(before, own):
            kind, begin, _ = found[-1]
            found[-1] = (kind, begin, place + 1)
        elif own[1]:
            found.append((own[1], place, place + 1))
        before = own
    return found


def words_of(given: Marked, labels: Sequence[str], chances: Sequence[float]) -> list[Word]:
    """Words with their answers."""
    every = zip(given.words, labels, chances, strict=True)
    return [Word(given.text[begin:end], begin, end, label, chance) for (begin, end), label, chance in every]


def spans_of(given: Marked, labels: Sequence[str], chances: Sequence[float]) -> list[Span]:
    """Entities with the characters that they have."""
    found = []
    for kind, first, last in entities(labels):
        begin, end = given.words[first][0], given.words[last - 1][1]
        found.append(Span(given.text[begin:end], begin, end, kind, min(chances[first:last])))
    return found


# Inputs


@dataclass(frozen=True)
class Given:
    """An input, and how a network reads it.

    Attributes:
        marked: the text with its words.
        windows: token ids, each (N,).
        read: where words are answered.
    """

    marked: Marked
    windows: list[Tensor]
    read: Read = field(repr=False)


class TagReader:
    """Texts, as `TextReader`, whose words are answered one by one; or lists of words, also as {"tokens": […]}."""

    kind, frontend = "tagged text", None

    def __init__(self, record: Vocabulary, tokens: Tokens) -> None:
        self.tokens, self.most, self.units = tokens, record.max_length, record.units or "words"
        self.reading, self.pieces = record.reading(), pieces_with(tokens)

    def given(self, given: Any) -> Given:
        """An input with its words.

        Raises:
            TypeError, ValueError: it is none.
        """
        if isinstance(given, Mapping) and "tokens" in given:
            given = given["tokens"]
        if isinstance(given, Sequence) and not isinstance(given, str | bytes):
            if strange := next((word for word in given if not isinstance(word, str)), None):
                raise TypeError(f"{strange!r} is no word: expected a text, or a list of words (str)")
            own = marked(list(given), self.units)
        else:
            own = marked(as_text(text_of(given)), self.units)
        if not own.words:
            log.warning("a text without words has nothing to answer")
        pieces = self.pieces(own)
        found = read(pieces, self.reading)
        ids = torch.from_numpy(pieces.ids)
        return Given(own, [ids[begin : begin + self.reading.most] for begin in found.begins], found)

    def windows(self, given: Any) -> list[Tensor]:
        """Token ids, each (N,), as many windows as cover the text."""
        return self.given(given).windows

    def batch(self, windows: Sequence[Tensor]) -> Batch:
        """Ids (B, N) and their mask."""
        return pad_tokens(windows, multiple=BLOCK["tokens"], most=self.most, value=self.tokens.pad)

    def answered(self, given: Given, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """The answer to each word, of the answers (N, classes) to the windows."""
        for window, position in zip(given.read.window.tolist(), given.read.position.tolist(), strict=True):
            yield rows[window][position]
