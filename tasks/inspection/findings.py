"""What is pointed out of data: what is rare, twice, missing or far from all else, with the option or the remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from lambda_seq.tasks.data.reading.notes import some

UNEQUAL = 3  # times as many rows of the greatest class as of the smallest
FEW = 5  # rows of a class
FENCE = 3  # quartile ranges beyond the quartiles, of the logarithm of lengths
NARROW = np.log(1.2)  # the least such range
NAMED = 5  # rows in a finding
LEAST = 20  # rows that lengths are compared of

Pair = tuple[tuple[str, int], tuple[str, int]]  # a row and an earlier one, each by split and place


@dataclass(frozen=True)
class Finding:
    """Something to look at before training.

    Attributes:
        kind: "unlabelled", "empty", "unreadable", "imbalance", "few", "absent", "duplicates", "contradictions" or
            "lengths".
        message: what it is, and what can be done.
        rows: some of those it is about.
    """

    kind: str
    message: str
    rows: list[str] = field(default_factory=list)


def of_classes(counts: Mapping[str, Mapping[str, int]], *, several: bool = False) -> list[Finding]:
    """Of classes that are rare or missing.

    Args:
        counts: rows by split and class.
        several: whether a row may have several of them, or none, so that always one of them is no answer.
    """
    train = counts.get("train") or {}
    if not train:
        return []
    found = []
    most, least = (chosen(train, key=train.__getitem__) for chosen in (max, min))
    if train[most] >= UNEQUAL * max(train[least], 1) and not several:
        message = (
            f"class {most!r} has {train[most]:,} training rows and {least!r} {train[least]:,}: always {most!r} is "
            f"right in {train[most] / sum(train.values()):.0%}; judge by F1: --best.monitor val/f1"
        )
        found.append(Finding("imbalance", message))
    if few := [name for name, count in train.items() if count < FEW]:
        message = f"classes with fewer than {FEW} training rows: {some(few)}; add rows, or join classes"
        found.append(Finding("few", message))
    for split, own in counts.items():
        if split != "train" and own and (absent := [name for name in train if not own.get(name)]):
            message = f"classes without a row in {split}: {some(absent)}; nothing measures them there"
            found.append(Finding("absent", message))
    return found


def of_keys(
    keys: Mapping[str, list[bytes]], labels: Mapping[str, list[str] | None], name: Callable[[str, int], str]
) -> list[Finding]:
    """Of rows with the same content: in two splits, in one, and with different labels.

    Args:
        keys: of each row by split; empty ones are of no content.
        labels: of the same rows; None where there are none.
        name: of a row, by its split and its place there.
    """
    first: dict[bytes, tuple[str, int]] = {}
    same: dict[tuple[str, str], list[Pair]] = {}
    other: list[Pair] = []
    empty: list[tuple[str, int]] = []
    for split, own in keys.items():
        for row, key in enumerate(own):
            if not key:
                empty.append((split, row))
            elif key not in first:
                first[key] = split, row
            else:
                before, place = first[key]
                same.setdefault((before, split), []).append(((split, row), (before, place)))
                mine, theirs = labels[split], labels[before]
                if mine and theirs and "" not in (mine[row], theirs[place]) and mine[row] != theirs[place]:
                    other.append(((split, row), (before, place)))
    found = []
    for (one, two), pairs in same.items():
        named = [" = ".join(name(*row) for row in pair) for pair in pairs[:NAMED]]
        where = f"there twice in {one}" if one == two else f"in {one}, too: figures of {two} are too good"
        message = f"{len(pairs):,} of {len(keys[two]):,} rows of {two} are {where}; leave them out, such as {named[0]}"
        found.append(Finding("duplicates", message, named))
    if other:
        named = [" = ".join(name(*row) for row in pair) for pair in other[:NAMED]]
        message = (
            f"{len(other):,} rows have the content of another one, but another label; correct them: {some(named, 2)}"
        )
        found.append(Finding("contradictions", message, named))
    if empty:
        named = [name(*row) for row in empty[:NAMED]]
        what = f"{len(empty):,} rows hold nothing, such as {some(named, 3)}"
        message = f"{what}; fill them in, or leave them out: --data.drop_incomplete true"
        found.append(Finding("empty", message, named))
    return found


def of_lengths(
    lengths: Mapping[str, np.ndarray], places: Mapping[str, np.ndarray], unit: str, name: Callable[[str, int], str]
) -> list[Finding]:
    """Of lengths far from all others.

    Args:
        lengths: of some rows by split; NaN or 0 of those without any.
        places: of these rows in their split.
        unit: of the lengths.
        name: of a row, by its split and its place there.
    """
    every = np.concatenate([own[own > 0] for own in lengths.values()])
    if len(every) < LEAST:
        return []
    low, high = np.quantile(np.log(every), (0.25, 0.75))
    beyond = FENCE * max(high - low, NARROW)
    found = []
    for what, sign, edge in (("longer", 1, high), ("shorter", -1, low)):
        rows = [
            (float(length), split, int(place))
            for split, own in lengths.items()
            for length, place in zip(own, places[split], strict=True)
            if length > 0 and sign * (np.log(length) - edge) > beyond
        ]
        if rows:
            rows.sort(reverse=sign > 0)
            named = [f"{name(split, place)} with {length:,.4g}" for length, split, place in rows[:NAMED]]
            middle = f"median {np.median(every):,.4g} {unit}"
            message = f"{len(rows):,} rows are much {what} than the others ({middle}), such as {some(named, 3)}"
            found.append(Finding("lengths", message, named))
    return found
