"""What a predictor says of an input, by the head of its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lambda_seq.inference.tagging import Marked, Span, Word, has_entities, spans_of, words_of
from lambda_seq.models.heads import Objective

THRESHOLD = 0.5  # the least probability of a label that is answered


@dataclass(frozen=True)
class Prediction:
    """The answer to one input.

    Attributes:
        id: the input's path, where it has one, else its number among all inputs, from 0 on.
        answer: what the head says, an array: probabilities (classes,) of heads "classes" and "labels", numbers
            (numbers,), a vector (channels,) of "embedding"; of heads that answer for each position or frame, (M, …).
        label: the likeliest class, of the head "classes"; None for others.
        labels: that class alone, of the head "labels" all whose probability is at least 0.5, of "positions" the
            likeliest class of each position; None for others.
        probabilities: of each class by its name, of heads "classes" and "labels"; None for others.
        numbers: by their names, of the head "numbers"; None for others.
        words: of a text whose words are answered one by one, each with its label; `labels` and `answer` are of these.
        spans: entities among them, where labels are such as "B-…", "I-…" and "O"; None for others.
    """

    id: str
    answer: np.ndarray = field(repr=False)
    label: str | None = None
    labels: list[str] | None = None
    probabilities: dict[str, float] | None = field(default=None, repr=False)
    numbers: dict[str, float] | None = None
    words: list[Word] | None = field(default=None, repr=False)
    spans: list[Span] | None = None

    @property
    def probability(self) -> float | None:
        """That of the likeliest class, of the head "classes"; None for others."""
        return None if self.label is None or self.probabilities is None else self.probabilities[self.label]


@dataclass(frozen=True)
class Embedded:
    """What a network makes of one input before its head answers.

    Attributes:
        id: as of a `Prediction`.
        vector: (channels,), float32.
    """

    id: str
    vector: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Generation:
    """What a language model writes.

    Attributes:
        id: the number of the prompt among all, or the path of its file.
        prompt: as it was given.
        text: what follows it.
    """

    id: str
    prompt: str
    text: str


def prediction(name: str, answer: np.ndarray, objective: Objective, names: Sequence[str]) -> Prediction:
    """The answer to an input, with the names of classes.

    Args:
        name: id of the input.
        answer: what `objective.answers` gives of it, without a dimension of rows.
        objective: of the network's head.
        names: of the classes.
    """
    if objective.name == "classes":
        label = names[int(answer.argmax())]
        chances = dict(zip(names, answer.tolist(), strict=True))
        return Prediction(name, answer, label, [label], chances)
    if objective.name == "labels":
        chances = dict(zip(names, answer.tolist(), strict=True))
        return Prediction(name, answer, None, [one for one, chance in chances.items() if chance >= THRESHOLD], chances)
    if objective.name == "positions":
        return Prediction(name, answer, None, [names[index] for index in answer.argmax(-1).tolist()])
    if objective.name == "numbers":
        return Prediction(name, answer, numbers=dict(zip(names, answer.tolist(), strict=True)))
    return Prediction(name, answer)


def tagged(name: str, given: Marked, answer: np.ndarray, names: Sequence[str]) -> Prediction:
    """The answer to a text whose words are answered one by one.

    Args:
        name: id of the input.
        given: the text with its words.
        answer: probabilities (words, classes).
        names: of the classes.
    """
    labels = [names[index] for index in answer.argmax(-1).tolist()]
    chances = answer.max(-1).tolist() if len(answer) else []
    spans = spans_of(given, labels, chances) if has_entities(names) else None
    return Prediction(name, answer, None, labels, words=words_of(given, labels, chances), spans=spans)
