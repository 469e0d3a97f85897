"""What predictions of each kind look like in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

from lambda_seq.inference.answers import THRESHOLD, Prediction, tagged
from lambda_seq.inference.tagging import has_entities


class Table(Protocol):
    """What a task's predictions look like in a file.

    Attributes:
        columns: type of each, "string", "int64" or "float32".
    """

    columns: dict[str, str]

    def rows(self, prediction: Any) -> list[list[Any]]:
        """The rows that what `predict_step` returned makes complete."""

    def rest(self) -> list[list[Any]]:
        """The rows that are still to be written when there are no more predictions."""


class ClassTable:
    """A row for each prediction: id, the likeliest class, and the probability of each class.

    Of probabilities that are no numbers none is likeliest, and the row names no class.

    Args:
        labels: names of the classes.
    """

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels
        self.columns = {"id": "string", "prediction": "string"} | {
            f"probability: {label}": "float32" for label in labels
        }

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", names, and "probabilities" (B, classes)."""
        probabilities = prediction["probabilities"]
        columns = (probabilities.argmax(-1).tolist(), probabilities.isnan().any(-1).tolist(), probabilities.tolist())
        return [
            [name, None if nan else self.labels[index], *row]
            for name, index, nan, row in zip(prediction["id"], *columns, strict=True)
        ]

    def rest(self) -> list[list[Any]]:
        """Nothing."""
        return []


class LabelTable(ClassTable):
    """A row for each prediction: id, the labels of probability 1/2 or more as a JSON list, and that of each label."""

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", names, and "probabilities" (B, labels)."""
        return [
            [name, None if any(map(math.isnan, row)) else json.dumps(self._above(row), ensure_ascii=False), *row]
            for name, row in zip(prediction["id"], prediction["probabilities"].tolist(), strict=True)
        ]

    def _above(self, row: list[float]) -> list[str]:
        return [label for label, chance in zip(self.labels, row, strict=True) if chance >= THRESHOLD]


class AnswerTable:
    """A row for each prediction: id, and the answer as JSON, a number or lists of numbers."""

    def __init__(self) -> None:
        self.columns = {"id": "string", "answer": "string"}

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", names, and "answers" (B, …)."""
        answers = prediction["answers"].tolist()
        return [[name, json.dumps(answer)] for name, answer in zip(prediction["id"], answers, strict=True)]

    def rest(self) -> list[list[Any]]:
        """Nothing."""
        return []


class TagTable(AnswerTable):
    """A row for each text: id, its words, their likeliest labels, and entities, as JSON lists.

    Words are as they stand in the text; entities, of labels such as "B-…" and "I-…", have "text", "start", "end",
    "label" and "probability".

    Args:
        labels: their names.
    """

    def __init__(self, labels: list[str]) -> None:
        self.labels, self.entities = labels, has_entities(labels)
        self.columns = dict.fromkeys(("id", "words", "prediction", *(["spans"] if self.entities else [])), "string")

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", names, "probabilities" (B, words, labels), "words" (B,) and their "texts"."""
        found = zip(prediction["id"], prediction["probabilities"], prediction["words"].tolist(), strict=True)
        rows = []
        for (name, chances, count), text in zip(found, prediction["texts"].marked, strict=True):
            one = tagged(name, text, chances[:count].float().cpu().numpy(), self.labels)
            rows.append([name, *tag_cells(one).values()])
        return rows


def tag_cells(answer: Prediction) -> dict[str, str]:
    """What a file has of an answer to a text's words, by column."""
    parts: dict[str, Any] = {"words": [word.text for word in answer.words or ()], "prediction": answer.labels}
    if answer.spans is not None:
        parts["spans"] = [vars(span) | {"probability": round(span.probability, 4)} for span in answer.spans]
    return {name: json.dumps(part, ensure_ascii=False) for name, part in parts.items()}


class NumberTable(AnswerTable):
    """A row for each prediction: id, and each number, in a column "prediction", or of several "prediction: NAME".

    Args:
        names: of the numbers.
    """

    def __init__(self, names: list[str]) -> None:
        self.columns = {"id": "string"} | dict.fromkeys(number_columns(dict.fromkeys(names, 0.0)), "float32")

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", names, and "answers" (B, numbers)."""
        return [[name, *row] for name, row in zip(prediction["id"], prediction["answers"].tolist(), strict=True)]


def number_columns(numbers: Mapping[str, float]) -> dict[str, float]:
    """Numbers by the names of their columns."""
    if len(numbers) == 1:
        return dict(zip(["prediction"], numbers.values(), strict=True))
    return {f"prediction: {name}": value for name, value in numbers.items()}
