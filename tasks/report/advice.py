"""What stands out in a training, in words, with the options to try."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from lambda_seq.tasks.baselines.fitted import COMPARED, shown
from lambda_seq.tasks.metrics import direction

Points = Mapping[str, Sequence[Sequence[float]]]  # name -> [step, value] in order, as `Curves` keeps them

FEWEST = 8  # steps that were logged, below which nothing is said of the course of the loss
FLAT = 0.02  # part of a loss by which it must have fallen
LEARNED = 0.05  # a training loss below which there is nothing left to fall
GAP = 0.1  # of accuracy, or as part of other figures, between training and validation
NAMED = 5  # most classes that a line names
OTHERS = ("f1", "loss", "calibration_error")  # figures of baselines that are no accuracy


def of_training(points: Points) -> list[str]:
    """A training loss that did not fall."""
    losses = [value for _, value in points.get("train/loss", ())]
    if len(losses) < FEWEST:
        return []
    quarter = len(losses) // 4
    first, last = (sum(part) / quarter for part in (losses[:quarter], losses[-quarter:]))
    if not math.isfinite(first + last) or first <= LEARNED or first - last > FLAT * abs(first):
        return []
    rate = max((value for _, value in points.get("lr", ())), default=None)
    tried = "" if rate is None else f" (the greatest was {rate:.3g})"
    return [
        f"flat loss: {first:.4g} in the first steps, {last:.4g} in the last. Try another learning rate{tried}: ten "
        "times greater or smaller, --model.optimizer.lr; or more steps, --trainer.max_epochs"
    ]


def of_fitting(points: Points, compared: str | None) -> list[str]:
    """A training split that is known much better than the validation split.

    Args:
        points: of the training.
        compared: the figure that the task is judged by, see `tasks.baselines.fitted`; None for its loss.
    """
    name, better = (compared, direction(compared)) if compared in COMPARED else ("loss", -1)
    own = points.get(f"train/{name}") or points.get("train/loss_epoch" if name == "loss" else "")
    theirs = points.get(f"val/{name}")
    if not own or not theirs:
        return []
    trained, validated = own[-1][1], theirs[-1][1]
    allowed = GAP if name == "accuracy" else GAP * abs(trained)
    said, words = [], name.replace("_", " ")
    if (trained - validated) * better > allowed and not (name == "loss" and trained <= LEARNED >= validated):
        said.append(
            f"over-fitting: {words} {shown(trained)} on the training split, {shown(validated)} on validation. Try "
            "--model.options.dropout, a greater --model.optimizer.weight_decay, more data or augmentation"
        )
    if rise := _rise(points.get("val/loss", ())):
        said.append(
            f"validation loss rises: {rise[0]:.4g} at its best, step {rise[1]:.0f}, and {rise[2]:.4g} at the end. The "
            "best checkpoint is kept; fewer --trainer.max_epochs save the rest"
        )
    return said


def _rise(losses: Sequence[Sequence[float]]) -> tuple[float, float, float] | None:
    """Of a loss that ends well above its least value: that, its step, and the last value."""
    if len(losses) < 3 or not all(math.isfinite(value) for _, value in losses):
        return None
    step, least = min(losses, key=lambda point: point[1])
    last = losses[-1][1]
    rising = all(one[1] <= other[1] * (1 + FLAT) for one, other in pairwise(losses[-2:]))
    return (least, step, last) if last > (1 + GAP) * least and rising else None


def of_classes(report: Mapping[str, Any]) -> list[str]:
    """Classes that are never predicted, and an accuracy that one answer to everything reaches.

    Args:
        report: of a split, as `tasks.callbacks.reports.summarise` makes it.
    """
    classes, rows, said = report["classes"], report["rows"], []
    never = [row for row in classes if row["support"] and row["precision"] is None]
    if never:
        names = ", ".join(f"{row['label']!r} ({row['support']} rows)" for row in never[:NAMED])
        more = f" and {len(never) - NAMED} more" if len(never) > NAMED else ""
        said.append(
            f"never predicted: {len(never)} of {len(classes)} classes, {names}{more}, of the {report['split']} split. "
            "Try more --trainer.max_epochs, a best checkpoint by the mean over classes (--best.monitor val/f1), or "
            "more rows of them"
        )
    accuracy = report["metrics"].get("accuracy")
    most = max(classes, key=lambda row: row["support"], default=None)
    if most and rows and accuracy is not None and accuracy <= most["support"] / rows + 1e-9:
        said.append(
            f"no better than one answer: accuracy {shown(accuracy)}, and {most['label']!r} to all {rows} rows reaches "
            f"{shown(most['support'] / rows)}. Look at the labels and at a few inputs; then try more "
            "--trainer.max_epochs or another --model.optimizer.lr"
        )
    return said


def of_baselines(final: Mapping[str, Any], compared: str | None, recipe: str | None = None) -> list[str]:
    """A network that a fitted baseline, or a simple rule of the data, is better than.

    Args:
        final: figures by name.
        compared: the figure that a baseline is compared by; None for none.
        recipe: that has chosen sizes and rates; None for none.
    """
    if compared not in COMPARED:
        return []
    said = []
    hint = "Try a --recipe, which chooses sizes and rates by the data, or more --trainer.max_epochs"
    if recipe:
        hint = f"Recipe {recipe} has chosen sizes and rates; more rows may help, or take the baseline"
    for name, theirs in final.items():
        stage, _, rest = name.partition("/baseline_")
        rules = rest == compared or (compared == "accuracy" and rest not in (*OTHERS, "majority"))
        own = final.get(f"{stage}/{compared}")
        if not rest or not rules or own is None or (own - theirs) * direction(compared) > 0:
            continue
        words = compared.replace("_", " ")
        said.append(f"not above the baseline: {words} {shown(own)}, and {name} {shown(theirs)}. {hint}")
    return said
