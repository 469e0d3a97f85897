"""Logistic and ridge regression whose strength is chosen on validation, at a cost that has a bound."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, f1_score

from lambda_seq.tasks.data.labels import Rows, carve, strata
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
    """Features of rows, (n, d), dense or sparse, and what is known of them, as `Rows.labels`."""

    x: Any
    y: Int[np.ndarray, " n"] | Float[np.ndarray, "n labels"]

    def take(self, rows: Int[np.ndarray, " m"]) -> Sample:
        """These rows."""
        return Sample(self.x[rows], self.y[rows])

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Choice:
    """A strength C, and what it reached where it was chosen: the figure that models are compared by, and the loss."""

    strength: float
    score: float
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """The greater, the better."""
        return self.score, -self.loss


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


class Linear(ABC):
    """A linear model of one kind of target.

    Args:
        train: rows; sparse ones are taken as they are, dense ones are standardised.
        outputs: number of classes, or labels.

    Attributes:
        name: what it is called.
        compared: the figure that models are compared by.
    """

    name: ClassVar[str]
    compared: ClassVar[str]

    def __init__(self, train: Sample, outputs: int) -> None:
        self.outputs = outputs
        self.prepared: Callable[[Any], Any] = _as_it_is
        if not sparse.issparse(train.x):
            self.prepared = Standard(train.x)
        elif len(train) <= COMPACT and train.x.nnz:
            self.prepared = Compact(train.x)
        self.x, self.y = self.prepared(train.x), train.y

    @abstractmethod
    def fit(self, strength: float) -> Self:
        """Fit with a strength C, from where the last one came to."""

    @abstractmethod
    def answers(self, prepared: Any) -> Float[np.ndarray, "n outputs"]:
        """Answers to rows that are `prepared`."""

    @staticmethod
    @abstractmethod
    def figures(answers: Any, y: Any) -> dict[str, float]:
        """What is counted, by the names of the network's figures."""

    def __call__(self, x: Any) -> Float[np.ndarray, "n outputs"]:
        """Answers to rows."""
        return self.answers(self.prepared(x))


class Regression(Linear):
    """Logistic regression for all classes, whichever of them have training rows."""

    name, compared = "logistic regression", "accuracy"

    def __init__(self, train: Sample, outputs: int) -> None:
        super().__init__(train, outputs)
        self.model = LogisticRegression(max_iter=STEPS, warm_start=True)

    def fit(self, strength: float) -> Self:
        """Fit with a strength C, from where the last one came to."""
        _fit(self.model, strength, self.x, self.y)
        return self

    def answers(self, prepared: Any) -> Float[np.ndarray, "n classes"]:
        """Probabilities of rows that are `prepared`."""
        found = np.zeros((prepared.shape[0], self.outputs))
        found[:, self.model.classes_] = self.model.predict_proba(prepared)
        return found

    @staticmethod
    def figures(answers: Float[np.ndarray, "n classes"], y: Int[np.ndarray, " n"]) -> dict[str, float]:
        """Accuracy, F1 as the mean over the classes that occur or are predicted, and the loss in nats."""
        predicted, rows = answers.argmax(1), np.arange(len(y))
        return {
            "accuracy": float((predicted == y).mean()),
            "f1": float(f1_score(y, predicted, average="macro", zero_division=0)),
            "loss": float(-np.log(np.maximum(answers[rows, y], 1e-12)).mean()),
        }


class OneVsRest(Linear):
    """Logistic regression for each of several labels; one that all training rows have, or none, is answered so."""

    name, compared = "one-vs-rest logistic regression", "f1"

    def __init__(self, train: Sample, outputs: int) -> None:
        super().__init__(train, outputs)
        self.models = [LogisticRegression(max_iter=STEPS, warm_start=True) for _ in range(outputs)]
        self.share = train.y.mean(0)

    def fit(self, strength: float) -> Self:
        """Fit with a strength C, from where the last one came to."""
        for model, own, share in zip(self.models, self.y.T, self.share, strict=True):
            if 0 < share < 1:
                _fit(model, strength, self.x, own.astype(np.int64))
        return self

    def answers(self, prepared: Any) -> Float[np.ndarray, "n labels"]:
        """Probabilities of each label of rows that are `prepared`."""
        found = np.broadcast_to(self.share, (prepared.shape[0], self.outputs)).astype(np.float64)
        for label, model in enumerate(self.models):
            if 0 < self.share[label] < 1:
                found[:, label] = model.predict_proba(prepared)[:, 1]
        return found

    @staticmethod
    def figures(answers: Float[np.ndarray, "n labels"], y: Float[np.ndarray, "n labels"]) -> dict[str, float]:
        """F1 as the mean over labels and over all answers, average precision, exact matches, and the loss in nats."""
        predicted, occurring = answers >= 0.5, y.any(0)
        chances = np.clip(np.where(y > 0, answers, 1 - answers), 1e-12, 1)
        precision = average_precision_score(y[:, occurring], answers[:, occurring]) if occurring.any() else np.nan
        return {
            "f1": float(f1_score(y, predicted, average="macro", zero_division=0)),
            "f1_micro": float(f1_score(y, predicted, average="micro", zero_division=0)),
            "average_precision": float(precision),
            "exact_match": float((predicted == y).all(1).mean()),
            "loss": float(-np.log(chances).mean()),
        }


class RidgeRegression(Linear):
    """Least squares with a quadratic penalty of 1 / C."""

    name, compared = "ridge regression", "r2"

    def fit(self, strength: float) -> Self:
        """Fit with a strength C."""
        self.model = Ridge(alpha=1 / strength).fit(self.x, self.y.astype(np.float64))
        return self

    def answers(self, prepared: Any) -> Float[np.ndarray, "n numbers"]:
        """Numbers of rows that are `prepared`."""
        return self.model.predict(prepared).reshape(prepared.shape[0], self.outputs)

    @staticmethod
    def figures(answers: Float[np.ndarray, "n numbers"], y: Float[np.ndarray, "n numbers"]) -> dict[str, float]:
        """Mean absolute error, root of the mean squared one, and R², as means over the numbers."""
        error, y = np.abs(answers - y), y.astype(np.float64)
        spread = np.square(y - y.mean(0)).sum(0)
        explained = 1 - np.square(error).sum(0) / np.where(spread > 0, spread, np.nan)
        return {
            "mae": float(error.mean()),
            "rmse": float(np.sqrt(np.square(error).mean(0)).mean()),
            "r2": float(explained.mean()),
        }


LINEAR: dict[str, type[Linear]] = {  # by the kind of target
    "classes": Regression,
    "labels": OneVsRest,
    "numbers": RidgeRegression,
}


def _fit(model: LogisticRegression, strength: float, x: Any, y: Any) -> None:
    model.set_params(C=strength)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what it has reached counts
        model.fit(x, y)


def _as_it_is(x: Any) -> Any:
    return x


def choose(train: Sample, validation: Sample | None, classes: int, kind: type[Linear] = Regression) -> Choice:
    """The best of a few strengths, on validation rows or by cross-validation, from few training rows if all cost much.

    Strengths are tried from the weakest, each from where the last one ended.
    """
    train = train.take(spread(train.y, rows_within(train, classes, TRIED)))
    pairs = _folds(train) if validation is None else [(train, validation)]
    pairs = [pair for pair in pairs if len(np.unique(pair[0].y, axis=0)) > 1]
    grid = SPARSE if sparse.issparse(train.x) else DENSE
    if not pairs:
        return Choice(grid[len(grid) // 2], 0.0, 0.0)
    models = [kind(own, classes) for own, _ in pairs]
    held = [(model.prepared(other.x), other.y) for model, (_, other) in zip(models, pairs, strict=True)]
    best = Choice(grid[0], -np.inf, 0.0)
    since = 0
    for strength in grid:
        found = [kind.figures(model.fit(strength).answers(x), y) for model, (x, y) in zip(models, held, strict=True)]
        score, loss = (
            float(np.nan_to_num(np.mean([one.get(name, 0) for one in found]))) for name in (kind.compared, "loss")
        )
        choice = Choice(strength, score, loss)
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


def spread(y: Any, most: int) -> Int[np.ndarray, " m"]:
    """Places of at most so many rows, in order, with about the same share of each class and a row of each."""
    if most >= len(y):
        return np.arange(len(y))
    y = strata(y)
    by_class = np.argsort(y, kind="stable")
    chosen = by_class[np.linspace(0, len(y) - 1, most).astype(int)]
    _, first = np.unique(y, return_index=True)
    return np.unique(np.concatenate([chosen, first]))


def _folds(train: Sample) -> list[tuple[Sample, Sample]]:
    """Training rows and others, `FOLDS` times, with the same share of each class."""
    fold = np.empty(len(train), np.int64)
    fold[np.argsort(strata(train.y), kind="stable")] = np.arange(len(train)) % FOLDS
    return [
        (train.take(np.flatnonzero(fold != number)), train.take(np.flatnonzero(fold == number)))
        for number in range(min(FOLDS, len(train)))
    ]


def measured(
    data: ClassificationData, y: Any, batches: Callable[[str], Iterable[Sample]], model: Linear
) -> dict[str, dict[str, float]]:
    """Figures of validation and test, as far as they have labels, and of answering with the most frequent class.

    Args:
        data: with the splits.
        y: of training rows.
        batches: the rows of a split, some at a time.
        model: what answers.
    """
    found = {}
    for stage, name in STAGES.items():
        if name not in data.splits or (name == "test" and not data.tested):
            continue
        pairs = [(model(batch.x), batch.y) for batch in batches(name)]
        known = np.concatenate([own for _, own in pairs])
        found[stage] = model.figures(np.concatenate([answers for answers, _ in pairs]), known)
        if known.ndim == 1:
            found[stage]["majority"] = float((known == most_frequent(y)).mean())
    return found


def check_classes(data: ClassificationData, y: Any) -> None:
    """That there are two classes to tell apart, or rows of different labels, which their data module sees to.

    Raises:
        ValueError: all training rows have the same.
    """
    if y.ndim == 1 and len(known := np.unique(y)) < 2:
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
