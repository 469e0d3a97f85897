"""What a `Classification` learns of a row, as its data say: one file for each kind of answer."""

from __future__ import annotations

from lambda_seq.tasks.answers.base import Answer
from lambda_seq.tasks.answers.classes import OneClass
from lambda_seq.tasks.answers.labels import SeveralLabels
from lambda_seq.tasks.answers.numbers import SomeNumbers
from lambda_seq.tasks.answers.tags import Tags
from lambda_seq.tasks.facts import Facts

ANSWERS: dict[str, type[Answer]] = {
    "classes": OneClass,
    "labels": SeveralLabels,
    "numbers": SomeNumbers,
    "tags": Tags,
}


def answer_for(facts: Facts) -> Answer:
    """The answer that these data ask for."""
    return ANSWERS[facts.target.kind](facts)
