"""What all kinds of answers have: a head and its loss, metrics, reports, and what predictions look like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor
from torchmetrics import MetricCollection

from lambda_seq.models.heads import Objective
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.predictions.tables import Table

Weights = str | Sequence[float] | Mapping[str, float]
BALANCED = "balanced"


class Told(NamedTuple):
    """A wrong answer in words: "`answer` `sure`, but it is `label` (`own`)".

    Attributes:
        answer, label: what was answered, and what is right.
        sure: how sure the network is of the answer; may be empty.
        own: how sure it is of what is right, or how far off it is.
    """

    answer: str
    sure: str
    label: str
    own: str


class Answer(ABC):
    """What a task does with one kind of answer.

    Args:
        facts: of the data.

    Attributes:
        head: of the network, see `lambda_seq.models.heads`.
        monitor: figure by which the best checkpoint is chosen, and whether "max" or "min" of it is.
        compared: figure that a baseline is compared by.
        shares_sequences: whether several processes may share a sequence of such rows.
        right_or_wrong: whether a row has one answer, so that accuracy can be told by length.
        worst: what the page of a run calls its worst answers: above them, below all that are wrong, and below the first
            {kept} of them; of the {split} split.
    """

    head: ClassVar[str]
    monitor: ClassVar[tuple[str, str]]
    compared: ClassVar[str]
    shares_sequences: ClassVar[bool] = True
    right_or_wrong: ClassVar[bool] = False
    worst: ClassVar[tuple[str, str, str]] = ("", "", "")

    def __init__(self, facts: Facts) -> None:
        self.facts, self.names = facts, facts.labels or []

    @property
    def head_options(self) -> dict[str, Any]:
        """Options of the network's head."""
        return {}

    @abstractmethod
    def objective(self, label_smoothing: float, class_weight: Weights | None, huber: float | None) -> Objective:
        """What is trained for, with options of the task; validation and test count the network's own objective.

        Raises:
            ValueError: an option does not apply to such answers, or to these data.
        """

    @abstractmethod
    def metrics(self, stage: str) -> MetricCollection:
        """What is counted in "train", "val" or "test", by names without the stage; takes answers and labels."""

    def report_metrics(self) -> MetricCollection | None:
        """What is counted of each class; None of answers without such."""
        return None

    @abstractmethod
    def evaluated(self, answers: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What steps of validation and test return, for callbacks."""

    def counted(self, target: Tensor) -> Tensor:
        """What metrics count of mixed targets."""
        return target

    @abstractmethod
    def predicted(self, answers: Tensor) -> dict[str, Tensor]:
        """What steps of predictions return."""

    def mistakes(self, found: Mapping[str, Tensor]) -> Tensor | None:
        """How wrong each row is, of what `evaluated` gives: (B, 5), or None of answers of which none are shown.

        The columns: how wrong, the greater the worse, -inf where all is right, NaN where nobody knows; the place in the
        row's answers; 1 or -1 where a greater or a smaller number there speaks for the wrong answer, 0 where neither
        does; two for `told`.
        """
        return None

    def told(self, worst: float, place: int, sign: float, first: float, second: float) -> Told:
        """A row of `mistakes` in words."""
        raise NotImplementedError(f"{type(self).__name__} shows no mistakes")

    @abstractmethod
    def table(self) -> Table:
        """What predictions look like in a file."""


def of_numbers(huber: float | None) -> None:
    """Refuse what is of numbers where there are none.

    Raises:
        ValueError: it is given.
    """
    if huber is not None:
        raise ValueError(
            f"huber={huber}: is of numbers, --data.target.kind numbers, and the data have none; leave it out"
        )


def weights(given: Weights | None, names: Sequence[str], balanced: Sequence[float] | None) -> tuple[float, ...] | None:
    """A weight for each class or label; None for none.

    Args:
        given: "balanced", a number for each, or numbers by name, 1 for others.
        names: of the classes or labels.
        balanced: what "balanced" means; None where rows were not counted.

    Raises:
        ValueError: no such weights; names what is wrong, and what there is.
    """
    if given is None:
        return None
    if isinstance(given, str):
        if given != BALANCED:
            raise ValueError(
                f"class_weight={given!r}: expected 'balanced', a number for each class, or numbers by name"
            )
        if balanced is None:
            raise ValueError("class_weight='balanced': the rows of each class were not counted; give numbers by name")
        return tuple(balanced)
    if isinstance(given, Mapping):
        if unknown := [name for name in given if name not in names]:
            raise ValueError(f"class_weight: there is no class {unknown[0]!r}; the classes are {', '.join(names)}")
        found = [float(given.get(name, 1.0)) for name in names]
    else:
        found = [float(one) for one in given]
        if len(found) != len(names):
            raise ValueError(
                f"class_weight has {len(found)} numbers, and there are {len(names)} classes: {', '.join(names)}; give "
                "one for each, in this order"
            )
    for name, weight in zip(names, found, strict=True):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"class_weight: {weight} of {name!r}; expected a number of at least 0")
    if not any(found):
        raise ValueError("class_weight: all are 0, so that nothing would be learned; expected one above 0")
    return tuple(found)
