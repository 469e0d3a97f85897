"""Rules that recipes share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from lambda_seq.tasks.data import ClassificationData
from lambda_seq.tasks.data.labels import Rows, rows_with
from lambda_seq.tasks.recipes.registry import Choice, Measured

Value = TypeVar("Value")
Steps = Sequence[tuple[float | None, Value]]  # up to which number, None for any, which value

LEAST_EPOCHS, MOST_EPOCHS = 3, 80
UNEVEN = 3.0  # times as many rows of the greatest class as of the smallest from which on F1 tells which network is best
OPTIMIZER = ("model.optimizer.lr", "model.optimizer.weight_decay")
MONITOR = "best.monitor"


def by(table: Steps[Value], number: float) -> Value:
    """The value of the first line of a table whose limit the number does not exceed."""
    return next(value for limit, value in table if limit is None or number <= limit)


def counted(data: ClassificationData) -> dict[str, Any]:
    """What all data for classification have: rows, those to validate on, and those of each class."""
    rows, labels = data.split("train"), data.split("train").labels
    counts = [] if labels is None or data.target_kind == "numbers" else rows_with(labels, len(data.labels)).tolist()
    validation = len(data.splits["validation"]) if "validation" in data.splits else 0
    return {"rows": len(rows), "validation": validation, "classes": tuple(counts), "target": data.target_kind}


def spread(rows: Rows, most: int) -> Rows:
    """At most so many of some rows, evenly spaced."""
    return rows.take(np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)))


def few(measured: Measured) -> str:
    """The number of rows, as a reason."""
    return f"{measured.rows:,} row{'s' if measured.rows != 1 else ''}"


def batches(measured: Measured, sizes: Steps[int], longest: int, at_once: int, unit: str) -> Choice:
    """As many rows as the table has for their number, or as few as have `at_once` positions together.

    Args:
        measured: the data.
        sizes: rows of a batch by the number of rows.
        longest: positions of a row, as long as almost all are.
        at_once: positions of a batch.
        unit: what a position is.
    """
    wanted = by(sizes, measured.rows)
    fitting = max(2 ** int(math.log2(max(at_once / longest, 1))), 2)
    if fitting < wanted:
        return Choice("data.batch_size", fitting, f"some {at_once:,} {unit} at once, of rows of up to {longest:,}")
    return Choice("data.batch_size", wanted, few(measured))


def epochs(measured: Measured, steps: Steps[int], batch: Choice) -> Choice:
    """As many as make the steps that the table has for the number of rows, from 3 to 80."""
    given, wanted = measured.given, by(steps, measured.rows)
    size = int(given.get(batch.option, batch.value)) * int(given.get("trainer.accumulate_grad_batches", 1))
    size = max(size, 1)  # what is less is refused, by what it was given to
    found = math.ceil(wanted * size / measured.rows)
    count = min(max(found, LEAST_EPOCHS), MOST_EPOCHS)
    made = count * max(measured.rows // size, 1)
    limit = {LEAST_EPOCHS: "the fewest, ", MOST_EPOCHS: "the most, "}.get(count, "") if count != found else ""
    return Choice("trainer.max_epochs", count, f"{limit}about {_round(made):,} steps in all, for {few(measured)}")


def monitors(measured: Measured) -> list[Choice]:
    """The mean F1 of the classes where these are uneven; a network that forgets small classes has a good accuracy."""
    classes = [count for count in measured.classes if count]
    if (
        measured.target != "classes"
        or len(classes) < 2
        or not measured.validation
        or max(classes) < UNEVEN * min(classes)
    ):
        return []
    sizes = f"the greatest class has {max(classes):,} rows, the smallest {min(classes):,}"
    return [Choice(MONITOR, "val/f1", f"{sizes}, and accuracy is of the great ones")]


def smoothing(steps: Steps[float], measured: Measured) -> list[Choice]:
    """Label smoothing by the number of rows, of what has classes or labels."""
    if measured.target == "numbers":
        return []
    return [Choice("model.label_smoothing", by(steps, measured.rows), few(measured))]


def optimizer(rate: float, decay: float, why: str) -> list[Choice]:
    """Learning rate and weight decay of AdamW."""
    return [Choice(OPTIMIZER[0], rate, why), Choice(OPTIMIZER[1], decay, why)]


def of_network(options: Iterable[tuple[str, Any]], why: str) -> list[Choice]:
    """Options of the network, for one reason."""
    return [Choice(f"model.options.{name}", value, why) for name, value in options]


def classes_in_words(measured: Measured) -> str:
    """How many classes there are, and of how many rows if these are uneven."""
    counts = [count for count in measured.classes if count]
    if measured.target == "numbers":
        return "numbers"
    named = f"{len(measured.classes)} {measured.target}"
    if counts and max(counts) >= UNEVEN * min(counts):
        named += f" of {min(counts):,} to {max(counts):,}"
    return named


def _round(number: int) -> int:
    """A number to two digits, which is said."""
    digits = max(len(str(number)) - 2, 0)
    return round(number, -digits)
