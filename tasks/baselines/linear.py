"""Logistic regression whose strength is chosen on validation, at a cost that has a bound."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from lambda_seq.tasks.data.labels import Rows, carve
from lambda_seq.tasks.data.module import ClassificationData

STAGES = {"val": "validation", "test": "test"}
DENSE = tuple(10.0**power for power in range(-4, 2))  # strengths C for standardised features
SPARSE = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # for rows of length 1
PATIENCE = 2  # strengths without a better figure before the rest is left out
STEPS = 200  # of the solver
FOLDS = 3  # of cross-validation, where there is no validation split
COMPACT = 1500  # rows up to which a sparse problem becomes one of as many features as rows
COLUMNS = 16_384  # of sparse rows that are made dense at once
SPARSE_COSTS = 80  # products of dense numbers in the time of one of sparse numbers
# Numbers · outputs of a problem: those that strengths are tried on, and those that the final one is fitted on.
TRIED = {True: 4e7, False: 3e8}  # sparse, dense
FITTED = {True: 1e9, False: 3e9}


@dataclass(frozen=True)
class Sample:
    """Features of rows, (n, d), dense or sparse, and their class numbers (n,)."""

    x: Any
    y: Int[np.ndarray, " n"]

    def take(self, rows: Int[np.ndarray, " m"]) -> Sample:
        """These rows."""
        return Sample(self.x[rows], self.y[rows])

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Choice:
    """A strength C, and what it reached where it was chosen."""

    strength: float
    accuracy: float
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """The greater, the better."""
        return self.accuracy, -self.loss


class Standard:
    """Features in units of their standard deviation, from their mean, both of training rows; constant ones are 0."""

    def __init__(self, x: Float[np.ndarray, "n d"]) -> None:
        self.mean, deviation = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
        self.scale = np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0)

    def __call__(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Rows in these units, float32."""
        return ((x - self.mean.astype(np.float32)) * self.scale.astype(np.float32)).astype(np.float32)


class Compact:
    """Sparse rows as their places in the space that the training rows span: (n, d) -> (n, rank of the training rows).

    A linear model with a quadratic penalty has its weights in that space (the representer theorem: B. Schölkopf,
    R. Herbrich, A. Smola, COLT 2001), so that it is the same model, and far smaller where there are few rows.
    """

    def __init__(self, x: sparse.csr_matrix) -> None:
        self.rows = x
        values, vectors = np.linalg.eigh(products(x, x).astype(np.float64))
        kept = values > max(values.max(), 1e-12) * 1e-9
        self.back = vectors[:, kept] / np.sqrt(values[kept])  # (n, rank)

    def __call__(self, x: sparse.csr_matrix) -> Float[np.ndarray, "m rank"]:
        """Places of rows."""
        return products(x, self.rows) @ self.back


def products(x: sparse.csr_matrix, other: sparse.csr_matrix) -> Float[np.ndarray, "n m"]:
    """Scalar products of sparse rows with others, as sparse or as dense ones, whichever is less work."""
    width = x.shape[1]
    pairs = np.bincount(x.indices, minlength=width) @ np.bincount(other.indices, minlength=width)
    if pairs * SPARSE_COSTS < x.shape[0] * other.shape[0] * width:
        return (x @ other.T).toarray()
    found = np.zeros((x.shape[0], other.shape[0]))
    x, other = x.tocsc(), other.tocsc()
    for begin in range(0, width, COLUMNS):
        part, their = (rows[:, begin : begin + COLUMNS].toarray() for rows in (x, other))
        found += part @ their.T
    return found


class Regression:
    """Logistic regression for all classes, whichever of them have training rows.

    Args:
        train: rows; sparse ones are taken as they are, dense ones are standardised.
        classes: number of classes.
    """

    def __init__(self, train: Sample, classes: int) -> None:
        self.classes = classes
        self.prepared: Callable[[Any], Any] = _as_it_is
        if not sparse.issparse(train.x):
            self.prepared = Standard(train.x)
        elif len(train) <= COMPACT and train.x.nnz:
            self.prepared = Compact(train.x)
        self.x, self.y = self.prepared(train.x), train.y
        self.model = LogisticRegression(max_iter=STEPS, warm_start=True)

    def fit(self, strength: float) -> Regression:
        """Fit with a strength C, from where the last one came to."""
        self.model.set_params(C=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # what it has reached counts
            self.model.fit(self.x, self.y)
        return self

    def answers(self, prepared: Any) -> Float[np.ndarray, "n classes"]:
        """Probabilities of rows that are `prepared`."""
        found = np.zeros((prepared.shape[0], self.classes))
        found[:, self.model.classes_] = self.model.predict_proba(prepared)
        return found

    def __call__(self, x: Any) -> Float[np.ndarray, "n classes"]:
        """Probabilities of rows."""
        return self.answers(self.prepared(x))


def _as_it_is(x: Any) -> Any:
    return x


def choose(train: Sample, validation: Sample | None, classes: int) -> Choice:
    """The best of a few strengths, on validation rows or by cross-validation, from few training rows if all cost much.

    Strengths are tried from the weakest, each from where the last one ended.
    """
    train = train.take(spread(train.y, rows_within(train, classes, TRIED)))
    pairs = _folds(train) if validation is None else [(train, validation)]
    pairs = [pair for pair in pairs if len(np.unique(pair[0].y)) > 1]
    grid = SPARSE if sparse.issparse(train.x) else DENSE
    if not pairs:
        return Choice(grid[len(grid) // 2], 0.0, 0.0)
    models = [Regression(own, classes) for own, _ in pairs]
    held = [(model.prepared(other.x), other.y) for model, (_, other) in zip(models, pairs, strict=True)]
    best = Choice(grid[0], -1.0, 0.0)
    since = 0
    for strength in grid:
        found = [figures(model.fit(strength).answers(x), y) for model, (x, y) in zip(models, held, strict=True)]
        accuracy, loss = (float(np.mean([one[name] for one in found])) for name in ("accuracy", "loss"))
        choice = Choice(strength, accuracy, loss)
        best, since = (choice, 0) if choice.rank > best.rank else (best, since + 1)
        if since == PATIENCE:
            break
    return best


def rows_within(sample: Sample, classes: int, limits: dict[bool, float]) -> int:
    """How many of the rows keep within a limit of work."""
    thin = sparse.issparse(sample.x)
    numbers = sample.x.nnz if thin else sample.x.size
    work = max(numbers, 1) * (classes if classes > 2 else 1)
    return min(len(sample), max(int(len(sample) * min(1.0, limits[thin] / work)), min(COMPACT, len(sample))))


def spread(y: Int[np.ndarray, " n"], most: int) -> Int[np.ndarray, " m"]:
    """Places of at most so many rows, in order, with about the same share of each class and a row of each."""
    if most >= len(y):
        return np.arange(len(y))
    by_class = np.argsort(y, kind="stable")
    chosen = by_class[np.linspace(0, len(y) - 1, most).astype(int)]
    _, first = np.unique(y, return_index=True)
    return np.unique(np.concatenate([chosen, first]))


def _folds(train: Sample) -> list[tuple[Sample, Sample]]:
    """Training rows and others, `FOLDS` times, with the same share of each class."""
    fold = np.empty(len(train), np.int64)
    fold[np.argsort(train.y, kind="stable")] = np.arange(len(train)) % FOLDS
    return [
        (train.take(np.flatnonzero(fold != number)), train.take(np.flatnonzero(fold == number)))
        for number in range(min(FOLDS, len(train)))
    ]


def figures(answers: Float[np.ndarray, "n classes"], y: Int[np.ndarray, " n"]) -> dict[str, float]:
    """Accuracy, F1 as the mean over the classes that occur or are predicted, and the loss in nats."""
    predicted, rows = answers.argmax(1), np.arange(len(y))
    return {
        "accuracy": float((predicted == y).mean()),
        "f1": float(f1_score(y, predicted, average="macro", zero_division=0)),
        "loss": float(-np.log(np.maximum(answers[rows, y], 1e-12)).mean()),
    }


def measured(
    data: ClassificationData, most_frequent: int, batches: Callable[[str], Iterable[Sample]], model: Regression
) -> dict[str, dict[str, float]]:
    """Figures of validation and test, as far as they have labels, and of answering with the most frequent class.

    Args:
        data: with the splits.
        most_frequent: class of most training rows.
        batches: the rows of a split, some at a time.
        model: what answers.
    """
    found = {}
    for stage, name in STAGES.items():
        if name not in data.splits or (name == "test" and not data.tested):
            continue
        pairs = [(model(batch.x), batch.y) for batch in batches(name)]
        y = np.concatenate([own for _, own in pairs])
        own = figures(np.concatenate([answers for answers, _ in pairs]), y)
        found[stage] = own | {"majority": float((y == most_frequent).mean())}
    return found


def check_classes(data: ClassificationData, y: Int[np.ndarray, " n"]) -> None:
    """That there are two classes to tell apart.

    Raises:
        ValueError: all training rows have the same.
    """
    if len(known := np.unique(y)) < 2:
        name = data.labels[int(known[0])] if len(known) else "none"
        raise ValueError(
            f"path={data.path!r}: all training rows have the same label, {name!r}; a baseline needs two classes"
        )


def at_most(rows: Rows, most: int) -> Rows:
    """Rows, or so many of them with the same share of each class, and a row of each."""
    if len(rows) <= most:
        return rows
    if rows.labels is None:
        return rows.take(np.linspace(0, len(rows) - 1, most).astype(int))
    kept, _ = carve(rows, 1 - most / len(rows), 0)
    return kept


def described(count: int, whole: int, what: str) -> str:
    """Training rows in words: "20,500 training texts", "10,000 of 43,000 training pictures"."""
    return f"{count:,}{'' if count == whole else f' of {whole:,}'} training {what}"


def chosen_on(data: ClassificationData, what: str, most: int) -> str:
    """How the choice was made, on `most` validation rows or fewer, in words."""
    if "validation" in data.splits:
        count = len(data.splits["validation"])
        return f"chosen on {min(count, most):,}{f' of {count:,}' if count > most else ''} validation {what}"
    return f"chosen by cross-validation in {FOLDS} parts, as there is no validation split"


def most_frequent(y: Sequence[int] | Int[np.ndarray, " n"]) -> int:
    """The class of most rows."""
    return int(np.bincount(np.asarray(y)).argmax())
