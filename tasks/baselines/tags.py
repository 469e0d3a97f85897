"""Labels of words: logistic regression on each word, how it is written, and its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.feature_extraction import FeatureHasher
from torchmetrics import Metric

from lambda_seq.models.heads import IGNORED
from lambda_seq.tasks.answers.tags import EntityF1, EntityPrecision, EntityRecall, Tags
from lambda_seq.tasks.baselines.fitted import Fitted
from lambda_seq.tasks.baselines.linear import (
    FITTED,
    STAGES,
    Regression,
    Sample,
    choose,
    chosen_on,
    described,
    most_frequent,
    rows_within,
    spread,
)
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.tags.data import TagData

AROUND = 2  # neighbours on each side
SHARED = 3  # of a word's features, those that its neighbours have, too
WIDTH = 2**20  # features that are told apart; more share places
TWICE = 2  # training words that have a feature, at least
TOGETHER = 512  # texts whose features are held at once, of splits that are measured
MOST = 300_000  # training words that are looked at
ENTITIES: dict[str, Callable[..., Metric]] = {
    "entity_f1": EntityF1,
    "entity_precision": EntityPrecision,
    "entity_recall": EntityRecall,
}


class Words(NamedTuple):
    """Words of some texts that have a label.

    Attributes:
        sample: their features and labels.
        counts: how many each text has.
    """

    sample: Sample
    counts: list[int]


def applies(data: Data) -> bool:
    """Texts with labels of words."""
    return isinstance(data, TagData)


def fit(data: TagData) -> Fitted:
    """On each word as it is, in lower case, its ends and shape, and those of two words on each side."""
    train = _joined(_words(data, "train", MOST))
    kept = np.flatnonzero(np.bincount(train.x.indices, minlength=WIDTH) >= TWICE)
    train = Sample(train.x[:, kept], train.y)
    if len(np.unique(train.y)) < 2:
        raise ValueError(f"path={data.path!r}: all training words have the same label; a baseline needs two")
    held = None
    if "validation" in data.splits:
        held = _joined(_words(data, "validation", MOST))
        held = Sample(held.x[:, kept], held.y)
    classes = len(data.labels)
    choice = choose(train, held, classes, Regression)
    chosen = train.take(spread(train.y, rows_within(train, classes, FITTED)))
    model = Regression(chosen, classes).fit(choice.strength)
    figures = {
        stage: _measured(data, name, lambda x: model(x[:, kept]), most_frequent(train.y))
        for stage, name in STAGES.items()
        if name in data.splits and (name != "test" or data.tested)
    }
    name = f"{Regression.name} on words and their neighbours"
    said = f"{described(len(chosen), data.facts.target.rows or len(chosen), 'words')}, {len(kept):,} features"
    return Fitted(
        name,
        f"{name}: {said}, C={choice.strength:g} {chosen_on(data, 'texts', MOST)}",
        figures,
        {"C": choice.strength, "training_words": len(chosen), "features": len(kept)},
    )


def features(words: Sequence[str]) -> Iterator[list[str]]:
    """Of each word of a text, what is known of it and of its neighbours."""
    own = [_of_word(word) for word in words]
    for place in range(len(words)):
        found = [*own[place], "always"]
        for step in (*range(-AROUND, 0), *range(1, AROUND + 1)):
            there = own[place + step][:SHARED] if 0 <= place + step < len(words) else ["end"]
            found += [f"{step}:{one}" for one in there]
        yield found


def _of_word(word: str) -> list[str]:
    lower = word.lower()
    ends = [f"{side}={part}" for size in (1, 2, 3) for side, part in (("last", lower[-size:]), ("first", lower[:size]))]
    return [f"lower={lower}", f"shape={shape(word)}", f"end={lower[-2:]}", f"word={word}", *ends]


def shape(word: str) -> str:
    """How a word is written: "Xx" of "Paris", "d.d" of "3.14", runs of one kind as one."""
    kinds = {"isupper": "X", "islower": "x", "isdigit": "d", "isalpha": "a"}
    every = (next((kind for asked, kind in kinds.items() if getattr(one, asked)()), one) for one in word)
    return "".join(kind for kind, _ in groupby(every))


def _words(data: TagData, name: str, most: int | None = None) -> Iterator[Words]:
    """Words of a split, some texts at a time; about `most` of them."""
    hasher = FeatureHasher(WIDTH, input_type="string", alternate_sign=False)
    rows = data.split(name)
    numbers = data.numbers(rows.table) or []
    indices, count = iter(rows.indices.tolist()), 0
    while (most is None or count < most) and (batch := list(islice(indices, TOGETHER))):
        found: list[list[str]] = []
        labels: list[np.ndarray] = []
        for index in batch:
            own = numbers[index]
            if own is not None:
                words = features(data.text(rows.table, index).spelled)
                found += [one for one, label in zip(words, own, strict=True) if label >= 0]
                labels.append(own[own >= 0])
        if found:
            count += len(found)
            yield Words(Sample(hasher.transform(found), np.concatenate(labels)), list(map(len, labels)))


def _joined(every: Iterator[Words]) -> Sample:
    samples = [words.sample for words in every]
    x = sparse.vstack([sample.x for sample in samples], format="csr")
    return Sample(x, np.concatenate([sample.y for sample in samples]))


def _measured(data: TagData, name: str, model: Callable[[Any], np.ndarray], majority: int) -> dict[str, float]:
    """Figures of a split's words, of entities where there are such, and of answering with the most frequent label."""
    entities: dict[str, Metric] = {}
    if Tags(data.facts).entities:
        entities = {own: kind(data.labels) for own, kind in ENTITIES.items()}
    every, known = [], []
    for sample, counts in _words(data, name):
        answers = model(sample.x)
        every.append(answers)
        known.append(sample.y)
        for metric in entities.values():
            metric.update(_rows(answers.argmax(1), counts), _rows(sample.y, counts))
    y = np.concatenate(known)
    figures = Regression.figures(np.concatenate(every), y) | {"majority": float((y == majority).mean())}
    return figures | {own: float(metric.compute()) for own, metric in entities.items()}


def _rows(labels: np.ndarray, counts: Sequence[int]) -> torch.Tensor:
    """Labels of some texts one after another as (B, words), `IGNORED` behind a text's end."""
    parts = torch.from_numpy(np.asarray(labels, np.int64)).split(list(counts))
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=IGNORED)
