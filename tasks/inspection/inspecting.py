"""The command `lambda-seq data`: splits, classes, lengths, some rows, and what is to be looked at."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lambda_seq.tasks.data import Data
from lambda_seq.tasks.data.labels import MISSING, Rows, rows_with, strata
from lambda_seq.tasks.data.reading import notes
from lambda_seq.tasks.data.reading.notes import some
from lambda_seq.tasks.inspection.findings import FEW, Finding, of_classes, of_keys, of_lengths
from lambda_seq.tasks.inspection.sheet import COLUMNS, Tile, draw_sheet
from lambda_seq.tasks.inspection.views import View, view_of

FILE = "data.json"
EXAMPLES = 3  # rows
TILES = 3 * COLUMNS
LISTED = 30  # classes in the table
QUANTILES = {"shortest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "longest": 1.0}


@dataclass
class Inspection:
    """What there is of some data.

    Attributes:
        path: of the data.
        data: class of the data module.
        unit: of lengths.
        target: what is known of a row: "classes", one of them; "labels", any of several; "numbers"; or "tags" of words.
        splits: by name "rows", "classes" (rows by class, or None), "lengths" (by quantile) and "measured", rows whose
            lengths these are.
        examples: rows by "row", their name, "label" and "shown".
        findings: what is to be looked at.
        said: what was guessed, left out or changed while reading.
        sheet: file of pictures or waveforms; None of other data.
    """

    path: str
    data: str
    unit: str
    target: str = "classes"
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    sheet: str | None = None

    def write(self, folder: Path) -> Path:
        """Write it as JSON to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILE
        file.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return file

    def lines(self) -> Iterator[str]:
        """It as text for a terminal."""
        yield f"{self.path} ({self.data})\n"
        yield f"{'split':12}{'rows':>10}" + "".join(f"{name:>12}" for name in QUANTILES) + f"  {self.unit}"
        for split, found in self.splits.items():
            lengths = found["lengths"]
            yield f"{split:12}{found['rows']:>10,}" + "".join(f"{lengths.get(name, 0):>12,.4g}" for name in QUANTILES)
        classes = next((found["classes"] for found in self.splits.values() if found["classes"]), None)
        if classes:
            yield f"\n{f'{len(classes)} {self.target}':24}" + "".join(f"{split:>12}" for split in self.splits)
            for name in list(classes)[:LISTED]:
                counts = [(found["classes"] or {}).get(name, 0) for found in self.splits.values()]
                yield f"{name[:23]:24}" + "".join(f"{count:>12,}" for count in counts)
            if len(classes) > LISTED:
                yield f"and {len(classes) - LISTED} more, in {FILE}"
        yield ""
        for one in self.examples:
            yield f"{one['row']}: {one['label'] or ''}\n    {one['shown']}"
        if self.said:
            yield "\nSaid while reading:"
            yield from (f"- {message}" for message in self.said)
        yield "\nTo look at:" if self.findings else "\nNothing to look at: no duplicates, rare classes or odd lengths."
        for finding in self.findings:
            yield f"- {finding.message}"


def run(data: Data, folder: Path) -> Inspection:
    """Look at data, say what there is, and write `data.json` and, of pictures and clips, `data.png` to a folder.

    Args:
        data: a data module, not yet read.
        folder: that is made if it is not there.

    Raises:
        ValueError: the data cannot be read; names what is wrong.
    """
    with _heard() as said:
        found = inspect(data, folder)
    found.said = said
    file = found.write(folder)
    print("\n".join(found.lines()))
    print(f"\nall of it: {file}" + (f"\nsheet: {found.sheet}" if found.sheet else ""))
    return found


def inspect(data: Any, folder: Path) -> Inspection:
    """What there is of data, whose rows without a label are counted instead of refused.

    Args:
        data: a data module, not yet read.
        folder: for the sheet of pictures or waveforms.
    """
    given = getattr(data, "drop_incomplete", None)
    if given is not None:
        data.drop_incomplete = True
    view = view_of(data)
    found = Inspection(data.path, type(data).__name__, view.unit)
    rows = {split: view.rows(split) for split in ("train", "validation", "test") if split in data.splits}
    labels = {split: _labels(data, own) for split, own in rows.items()}
    lengths: dict[str, np.ndarray] = {}
    places: dict[str, np.ndarray] = {}

    def name(split: str, place: int) -> str:
        return view.name(rows[split], split, place)

    found.target = getattr(data, "target_kind", found.target)
    if given is False:
        found.findings += list(_left_out(data))
    for split, own in rows.items():
        places[split] = view.measured(own)
        lengths[split], bad = view.length(own.take(places[split]), split)
        if bad:
            message = f"{len(bad):,} of {len(places[split]):,} files of {split} cannot be read: {bad[0]}"
            found.findings.append(Finding("unreadable", message, bad[:FEW]))
        names = labels[split]
        found.splits[split] = {
            "rows": len(own),
            "classes": _counts(data, own),
            "lengths": _quantiles(lengths[split]),
            "measured": len(places[split]),
        }
    found.findings += of_classes(
        {split: one["classes"] or {} for split, one in found.splits.items()}, several=found.target in ("labels", "tags")
    )
    found.findings += of_keys({split: list(view.keys(own, split)) for split, own in rows.items()}, labels, name)
    found.findings += of_lengths(lengths, places, view.unit, name)
    first = "train" if "train" in rows else next(iter(rows))
    for place in _spread(rows[first], EXAMPLES):
        names = labels[first]
        label = None if names is None else names[place]
        shown = view.line(rows[first], first, place)
        found.examples.append({"row": name(first, place), "label": label, "shown": shown})
    found.sheet = _sheet(view, rows[first], labels[first], first, folder / "data.png")
    return found


def _labels(data: Any, rows: Rows) -> list[str] | None:
    if rows.labels is None:
        return None
    names = data.labels
    if rows.labels.ndim == 1:
        return ["" if label == MISSING else names[label] for label in rows.labels.tolist()]
    if data.target_kind in ("labels", "tags"):
        return [", ".join(name for name, one in zip(names, own, strict=True) if one == 1) for own in rows.labels]
    return ["" if np.isnan(own).any() else ", ".join(f"{number:g}" for number in own) for own in rows.labels]


def _counts(data: Any, rows: Rows) -> dict[str, int] | None:
    """Rows of each class or label."""
    if rows.labels is None or data.target_kind == "numbers":
        return None
    return dict(zip(data.labels, rows_with(rows.labels, len(data.labels)).tolist(), strict=True))


def _left_out(data: Any) -> Iterator[Finding]:
    for split, lacking in data.left_out.items():
        for what, rows in lacking.items():
            if len(rows):
                named = [f"{split} row {row}" for row in rows.tolist()]
                kind = "unlabelled" if what == "a label" else "empty"
                message = (
                    f"{len(rows):,} rows of {split} without {what}: {some(named, 3)}; fill them in, or leave them out: "
                    "--data.drop_incomplete true"
                )
                yield Finding(kind, message, named[:FEW])


def _quantiles(lengths: np.ndarray) -> dict[str, float]:
    known = lengths[~np.isnan(lengths)]
    if not len(known):
        return {}
    return {name: float(np.quantile(known, share)) for name, share in QUANTILES.items()} | {"mean": float(known.mean())}


def _spread(rows: Rows, most: int) -> list[int]:
    """Places of some rows, of as many classes as there can be."""
    if rows.labels is None:
        return np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)).tolist()
    groups = strata(rows.labels)
    order = np.argsort(groups, kind="stable")
    by_class = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    chosen: list[int] = []
    for turn in range(most):
        chosen += [int(own[turn]) for own in by_class if turn < len(own)][: most - len(chosen)]
        if len(chosen) >= most:
            break
    return chosen


def _sheet(view: View, rows: Rows, labels: list[str] | None, split: str, path: Path) -> str | None:
    """Draw some rows of a split, those that can be read; nothing of what is no picture."""
    tiles = []
    for place in _spread(rows, TILES):
        try:
            content = view.tile(rows, split, place)
        except ValueError:  # which the findings name
            continue
        if content is None:
            return None
        tiles.append(Tile(content, labels[place] if labels else "", view.name(rows, split, place)))
    if not tiles:
        return None
    draw_sheet(f"{Path(view.data.path).name}: {split}", tiles, path)
    return str(path)


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What is said of data meanwhile."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    notes.log.addHandler(handler)
    try:
        yield said
    finally:
        notes.log.removeHandler(handler)
