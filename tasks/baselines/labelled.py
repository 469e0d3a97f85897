"""What baselines of labelled rows share: from a function that makes features of a row to a baseline that is fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lambda_seq.tasks.baselines.fitted import Fitted
from lambda_seq.tasks.baselines.linear import (
    FITTED,
    LINEAR,
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
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.module import ClassificationData

TOGETHER = 4096  # rows whose features are held at once, of splits that are measured
NUMBERS = 200_000_000  # most numbers of training features in memory: 800 MB


class Kind(NamedTuple):
    """What features are made of.

    Attributes:
        name: of what the baseline is fitted on, "pixels".
        rows: what rows are called, "pictures".
        features: what features are, "pixels of 8 × 8".
    """

    name: str
    rows: str
    features: str


def has_labels(data: Data) -> bool:
    """Whether rows have a class each."""
    return isinstance(data, ClassificationData) and data.facts.labels is not None


def fit_features(
    data: ClassificationData,
    kind: Kind,
    features: Callable[[Any], Float[np.ndarray, " d"]],
    most: int | None = None,
) -> Fitted:
    """Logistic regression, or what is like it for other targets, on dense, standardised features of each row.

    Args:
        data: whose items have "x" and "label".
        kind: what it is called.
        features: of "x" of an item, always as many.
        most: training rows that are looked at.
    """
    rows = data.split("train")
    whole, classes, linear = len(rows), len(data.facts.labels or ()), LINEAR[data.facts.target.kind]
    first = features(data.rows_as_items(rows.take(np.arange(1)), "train")[0]["x"])
    limit = min(most or whole, max(NUMBERS // max(first.size, 1), 1))
    train = next(_batches(data, at_most(rows, limit), "train", features, limit + classes), None)
    if train is None:
        raise ValueError(f"path={data.path!r}: the training split has no rows")
    check_classes(data, train.y)
    validation = None
    if "validation" in data.splits:
        validation = next(_batches(data, at_most(data.split("validation"), limit), "validation", features, limit), None)
    choice = choose(train, validation, classes, linear)
    train = train.take(spread(train.y, rows_within(train, classes, FITTED)))
    model = linear(train, classes).fit(choice.strength)
    name = f"{linear.name} on {kind.name}"

    def batches(name: str) -> Iterator[Sample]:
        return _batches(data, data.split(name), name, features, TOGETHER)

    return Fitted(
        name,
        f"{name}: {described(len(train), whole, kind.rows)}, {first.size:,} features ({kind.features}), "
        f"C={choice.strength:g} {chosen_on(data, kind.rows, limit)}",
        measured(data, train.y, batches, model),
        {"C": choice.strength, "training_rows": len(train), "features": int(first.size)},
    )


def _batches(
    data: ClassificationData, rows: Rows, name: str, features: Callable[[Any], Float[np.ndarray, " d"]], count: int
) -> Iterator[Sample]:
    """Features of rows, so many at a time."""
    items: Any = data.rows_as_items(rows, name)
    every = (items[row] for row in range(len(items)))
    while batch := [(features(item["x"]), item["label"]) for item in islice(every, count)]:
        yield Sample(np.stack([x for x, _ in batch]).astype(np.float32), np.array([y for _, y in batch]))
