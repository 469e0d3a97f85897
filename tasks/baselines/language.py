"""Text to predict: n-grams of its tokens, whose order is chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from lambda_seq.tasks.baselines.backoff import Ngrams, Text
from lambda_seq.tasks.baselines.fitted import Fitted
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.language.data import CorpusData
from lambda_seq.tasks.data.language.packs import Documents
from lambda_seq.tasks.data.language.streams import Block
from lambda_seq.tasks.data.reading.documents import find_text_column

MOST = 5_000_000  # training tokens that are counted, for which a gigabyte or two are needed
TOGETHER = 1_000_000  # tokens that are predicted at once
LONGEST = 10  # tokens of the longest n-grams that are tried
HELD = 20  # without a validation split, one of so many training tokens is held out, at their end
DOCUMENTS = 1000  # of a stream, that are read together


class Score(NamedTuple):
    """Sums over predictions."""

    nats: float
    tokens: int
    size: float  # bytes of text

    @property
    def figures(self) -> dict[str, float]:
        """As `LanguageModelling` logs them."""
        loss = self.nats / max(self.tokens, 1)
        bits = self.nats / math.log(2) / max(self.size, 1e-9)
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "bits_per_byte": bits}


def applies(data: Data) -> bool:
    """Text without labels."""
    return isinstance(data, CorpusData)


def fit(data: CorpusData) -> Fitted:
    """Count the training text; choose the order, and predict each token of validation and test once.

    A token is predicted from all of its document that stands before it, as far as the order reaches: windows, in which
    a network reads, cut nothing off.
    """
    pieces, more = _training(data)
    counted, vocabulary = Text.of(pieces), data.tokens.vocab_size
    held = "validation" in data.splits
    if held:
        model = Ngrams(counted, vocabulary, LONGEST)
        scores = np.sum([_by_order(model, text) for text, _ in _texts(data, "validation")], axis=0)
    else:
        shorter, last = counted.cut(max(len(counted.ids) - max(len(counted.ids) // HELD, 1), 2))
        model = Ngrams(shorter, vocabulary, LONGEST)
        scores = np.array(_by_order(model, last))
    order = int(np.argmin(scores)) + 1
    if not held:
        model = Ngrams(counted, vocabulary, order)
    elif order < model.order:
        model = model.shortened(order)
    figures = {
        stage: _measured(data, name, model).figures
        for stage, name in (("val", "validation"), ("test", "test"))
        if name in data.splits
    }
    unit = "bytes" if data.tokens.kind == "bytes" else "tokens"
    where = "validation" if held else "the end of the training text, as there is no validation split"
    name = f"{model.order}-grams of {unit}"
    return Fitted(
        name,
        f"{name}, interpolated Kneser–Ney: {'the first ' if more else ''}{len(counted.ids):,} training {unit}, "
        f"{model.size:,} different n-grams, order chosen on {where}",
        figures,
        {"order": model.order, "training_tokens": len(counted.ids)},
    )


def _by_order(model: Ngrams, text: Text) -> list[float]:
    """Nats of all predictions with n-grams of up to 1, 2, … tokens."""
    return [float(nats.sum()) for nats in model.by_order(text)]


def _measured(data: CorpusData, name: str, model: Ngrams) -> Score:
    """All predictions of a split."""
    nats, tokens, size = 0.0, 0, 0.0
    for text, own in _texts(data, name):
        found = model.nats(text)
        nats, tokens, size = nats + float(found.sum()), tokens + len(found), size + own
    return Score(nats, tokens, size)


def _training(data: CorpusData) -> tuple[list[Int[np.ndarray, " n"]], bool]:
    """Ids of training documents, with marks, up to `MOST`; and whether there are more."""
    pieces: list[np.ndarray] = []
    left = MOST
    for documents in _documents(data, "train"):
        for place in range(len(documents)):
            count = int(documents.predictions[place])
            if not left:
                return pieces, True
            take = min(count, left)
            pieces.append(documents.piece(place, 0, take).ids)
            left -= take
            if take < count:
                return pieces, True
    return pieces, False


def _texts(data: CorpusData, name: str) -> Iterator[tuple[Text, float]]:
    """The documents of a split, some at a time, with the bytes that their predictions are of."""
    found: list[np.ndarray] = []
    count, size = 0, 0.0
    for documents in _documents(data, name):
        for place in range(len(documents)):
            piece = documents.piece(place, 0, int(documents.predictions[place]))
            found.append(piece.ids)
            count, size = count + len(piece.ids), size + piece.size
            if count >= TOGETHER:
                yield Text.of(found), size
                found, count, size = [], 0, 0.0
    if found:
        yield Text.of(found), size


def _documents(data: CorpusData, name: str) -> Iterator[Documents]:
    """The documents of a split, those of a stream in blocks."""
    if not data.streaming:
        yield data.documents(name)
        return
    source: Any = data.splits[name]
    column = find_text_column(source, data.text_column)
    rows = iter(source)
    while texts := [row[column] or b"" for row in islice(rows, DOCUMENTS)]:
        documents = Block(texts, data.tokens).documents(data.tokens.pad)
        if len(documents):
            yield documents
