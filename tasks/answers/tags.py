"""A label for each word."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lambda_seq.inference.tagging import has_entities, parted
from lambda_seq.models.heads import IGNORED, Objective, Positions
from lambda_seq.tasks.answers.base import Answer, Weights, of_numbers, weights
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.metrics import FAST, Exact, exact, exact_device, report_metrics
from lambda_seq.tasks.predictions.tables import TagTable


class Tags(Answer):
    """Cross entropy of each word; accuracy and F1 of words and, of labels such as "B-…" and "I-…", F1 of entities.

    Weights that are "balanced" are words / (labels · words of the label), whose mean over the training words is 1.
    """

    head = "positions"
    shares_sequences = False

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.entities = has_entities(self.names)
        self.compared = "entity_f1" if self.entities else "accuracy"  # type: ignore[misc]  # what these labels have
        self.monitor = (f"val/{self.compared}", "max")  # type: ignore[misc]

    def objective(self, label_smoothing: float, class_weight: Weights | None, huber: float | None) -> Objective:
        """Cross entropy with label smoothing and weights."""
        of_numbers(huber)
        counts, balanced = self.facts.target.counts, None
        if counts:
            balanced = [sum(counts) / (len(counts) * max(count, 1)) for count in counts]
        return Positions(label_smoothing=label_smoothing, weight=weights(class_weight, self.names, balanced))

    def metrics(self, stage: str) -> MetricCollection:
        """Accuracy and macro F1 of words; of validation and test precision, recall and F1 of entities, if there are."""
        labels, options = len(self.names), {"ignore_index": IGNORED, **FAST}
        metrics: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(labels, average="micro", **options),
            "f1": MulticlassF1Score(labels, average="macro", **options),
        }
        if stage != "train" and self.entities:
            metrics |= {
                f"entity_{name}": kind(self.names)
                for name, kind in (("f1", EntityF1), ("precision", EntityPrecision), ("recall", EntityRecall))
            }
        return MetricCollection(metrics, compute_groups=False)

    def report_metrics(self) -> MetricCollection:
        """By label: precision, recall, F1 and the confusion matrix, of words."""
        return report_metrics(len(self.names))

    def evaluated(self, answers: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Probabilities (B, words, labels), and class numbers (B, words)."""
        return {"probabilities": answers, "labels": labels}

    def predicted(self, answers: Tensor) -> dict[str, Tensor]:
        """Probabilities (B, words, labels)."""
        return {"probabilities": answers}

    def table(self) -> TagTable:
        """The likeliest label of each word and, if there are such, entities."""
        return TagTable(self.names)


class Entities(Exact):
    """Entities that are found, whose kind, first and last word are right; all kinds together.

    An entity is what `inference.tagging.entities` says. Words without a label are as if they were not there. Updates
    take whole texts: (B, words) class numbers that are answered, and those that are right, `IGNORED` behind a text.

    Args:
        names: of the labels.
    """

    counts: Tensor  # (3,): entities that are right, that are found, and that there are

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        kinds = [parted(name) for name in names]
        order = sorted({kind for _, kind in kinds})
        self.kinds = [order.index(kind) if kind else -1 for _, kind in kinds]
        self.begun = [prefix in "BI" for prefix, _ in kinds]  # whether the next may go on
        self.going = [prefix in "IE" for prefix, _ in kinds]
        self.add_state("counts", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, answers: Int[Tensor, "B words"], labels: Int[Tensor, "B words"]) -> None:
        """Count texts."""
        known = labels != IGNORED
        rows = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)[known]
        begin, end, kind = self._ends(labels[known], rows)
        found = self._ends(answers[known], rows)
        right = begin & found[0] & (end == found[1]) & (kind == found[2])
        counts = torch.stack([right.sum(), found[0].sum(), begin.sum()])
        self.counts += counts.to(self.counts.device)

    def _ends(self, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each word whether an entity begins with it, the place of that entity's last word, and its kind."""
        lookup = (labels.new_tensor(given) for given in (self.kinds, self.begun, self.going))
        kind, begun, going = (table[labels] for table in lookup)
        begun, going = begun.bool(), going.bool()
        on = torch.zeros_like(begun)  # whether a word is of the same entity as the one before
        on[1:] = (rows[1:] == rows[:-1]) & (kind[1:] >= 0) & (kind[1:] == kind[:-1]) & begun[:-1] & going[1:]
        begin = (kind >= 0) & ~on
        last = (kind >= 0) & ~torch.cat([on[1:], on.new_zeros(min(len(on), 1))])
        end = torch.full_like(kind, -1)
        end[begin] = last.nonzero()[:, 0]  # entities begin and end in turn
        return begin, end, kind


class EntityPrecision(Entities):
    """Of entities that are found, those that are right."""

    def compute(self) -> Float[Tensor, ""]:
        """Of all texts so far."""
        right, found, _ = exact(self.counts, exact_device(self.counts.device))
        return right / found.clamp_min(1)


class EntityRecall(Entities):
    """Of entities that there are, those that are found."""

    def compute(self) -> Float[Tensor, ""]:
        """Of all texts so far."""
        right, _, there = exact(self.counts, exact_device(self.counts.device))
        return right / there.clamp_min(1)


class EntityF1(Entities):
    """2 · precision · recall / (precision + recall), over the entities of all kinds."""

    def compute(self) -> Float[Tensor, ""]:
        """Of all texts so far."""
        right, found, there = exact(self.counts, exact_device(self.counts.device))
        return 2 * right / (found + there).clamp_min(1)
