"""Texts: TF-IDF of words or of characters with logistic regression."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from lambda_seq.tasks.baselines.fitted import Fitted
from lambda_seq.tasks.baselines.labelled import has_labels
from lambda_seq.tasks.baselines.linear import (
    FITTED,
    LINEAR,
    TRIED,
    Choice,
    Linear,
    Sample,
    at_most,
    check_classes,
    choose,
    chosen_on,
    described,
    measured,
    rows_within,
    spread,
)
from lambda_seq.tasks.baselines.ngrams import Characters, Words
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.reading.corpus import Texts
from lambda_seq.tasks.data.text.data import TextData

TOGETHER = 2048  # texts whose features are held at once, of splits that are measured
HELD = 10_000  # validation texts that the choice is made on
BYTES = 100_000_000  # of training texts that are read


class Trial(NamedTuple):
    """Kinds of features that were tried together, and what they reached."""

    kinds: tuple[str, ...]
    choice: Choice

    @property
    def name(self) -> str:
        """What the features are of."""
        return " and ".join(self.kinds)


def applies(data: Data) -> bool:
    """Texts with classes."""
    return has_labels(data) and isinstance(data, TextData)


def fit(data: TextData) -> Fitted:
    """On words and pairs of them, on characters, or on both, whichever is best on validation."""
    rows, classes, linear = data.split("train"), len(data.labels), LINEAR[data.facts.target.kind]
    kept = at_most(rows, max(BYTES // max(_mean_bytes(data, rows), 1), 1))
    texts, y = list(read(data, kept, "train")), np.asarray(kept.labels)
    check_classes(data, y)
    kinds: dict[str, Words | Characters] = {"words": Words(), "characters": Characters()}
    learned = {name: kind.fit(texts) for name, kind in kinds.items()}
    found = {name: Sample(x, y) for name, x in learned.items() if x is not None}
    if not found:
        raise ValueError(f"path={data.path!r}: the training texts have no words and no characters to learn from")
    trials = _trials(found, _held(data, {name: kinds[name] for name in found}), classes, linear)
    best = max(trials, key=lambda trial: trial.choice.rank)
    train = _joined([found[name] for name in best.kinds])
    train = train.take(spread(y, rows_within(train, classes, FITTED)))
    model = linear(train, classes).fit(best.choice.strength)

    def batches(name: str) -> Iterator[Sample]:
        own = data.split(name)
        every, labels, done = read(data, own, name), np.asarray(own.labels), 0
        while batch := list(islice(every, TOGETHER)):
            y = labels[done : done + len(batch)]
            yield _joined([Sample(kinds[name](batch), y) for name in best.kinds])
            done += len(batch)

    name = f"TF-IDF of {best.name} with {linear.name}"
    tried = ", ".join(f"{trial.name} {trial.choice.score:.3f}" for trial in trials)
    return Fitted(
        name,
        f"{name}: {described(len(train), len(rows), 'texts')} ({_part(data)}), {train.x.shape[1]:,} features, "
        f"C={best.choice.strength:g} {chosen_on(data, 'texts', HELD)} ({tried})",
        measured(data, y, batches, model),
        {
            "features": best.name,
            "C": best.choice.strength,
            "training_rows": len(train),
            "tried": {trial.name: trial.choice.score for trial in trials},
        },
    )


def _held(data: TextData, kinds: dict[str, Words | Characters]) -> dict[str, Sample] | None:
    """Features of validation texts, by kind."""
    if "validation" not in data.splits:
        return None
    rows = at_most(data.split("validation"), HELD)
    texts, y = list(read(data, rows, "validation")), np.asarray(rows.labels)
    return {name: Sample(kind(texts), y) for name, kind in kinds.items()}


def _trials(
    found: dict[str, Sample], held: dict[str, Sample] | None, classes: int, linear: type[Linear]
) -> list[Trial]:
    """Each kind of features, and all together; on the same training rows, fewer where all would take minutes."""
    most = min(rows_within(sample, classes, TRIED) for sample in found.values())
    trials = []
    for kinds in dict.fromkeys([*((name,) for name in found), tuple(found)]):
        train = _joined([found[name] for name in kinds])
        validation = None if held is None else _joined([held[name] for name in kinds])
        trials.append(Trial(kinds, choose(train.take(spread(train.y, most)), validation, classes, linear)))
    return trials


def _joined(samples: Sequence[Sample]) -> Sample:
    """The same rows with all their features side by side."""
    if len(samples) == 1:
        return samples[0]
    return Sample(sparse.hstack([sample.x for sample in samples], format="csr"), samples[0].y)


def read(data: TextData, rows: Rows, name: str) -> Iterator[str]:
    """The texts of rows, as much of each as the network reads.

    Of part "random", training reads all of it in the course of epochs; "windows" are all of it anyway.
    """
    items: Any = data.rows_as_items(rows, name)
    column = data.content(rows.table)
    whole = data.part == "windows" or (data.part == "random" and name == "train")
    cut = _cutter(data)
    for row, text in enumerate(Texts(rows.table, column, rows.indices)):
        length = int(items.documents[row])
        if length > data.max_length and not whole:
            yield cut(text, length, items.reading.begin(length, 0, row))
        else:
            yield text.decode("utf-8", "replace")


def _cutter(data: TextData) -> Callable[[bytes, int, int], str]:
    """Cuts `max_length` tokens out of a text of so many tokens, from a token on."""
    tokens, most = data.tokens, data.max_length
    if tokens.kind == "bytes":
        return lambda text, length, begin: text[begin : begin + most].decode("utf-8", "ignore")
    if tokens.kind != "words":
        return lambda text, length, begin: tokens.decode(tokens.encode(text)[begin : begin + most].tolist())

    def cut(text: bytes, length: int, begin: int) -> str:
        """The same share of the bytes, of tokens from which no text comes back."""
        first, last = (round(len(text) * place / length) for place in (begin, begin + most))
        return text[first:last].decode("utf-8", "ignore")

    return cut


def _mean_bytes(data: TextData, rows: Rows) -> int:
    """Bytes that are read of a training text, on average."""
    some = at_most(rows, 500)
    return int(np.mean([len(text.encode()) for text in read(data, some, "train")]))


def _part(data: TextData) -> str:
    """What is read of a text, in words."""
    if data.part == "windows":
        return "whole"
    unit = "bytes" if data.tokens.kind == "bytes" else "tokens"
    if data.part == "random":
        return f"whole in training, else the middle {data.max_length:,} {unit}"
    return f"the {data.part}, up to {data.max_length:,} {unit}"
