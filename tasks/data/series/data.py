"""Labelled series of numbers, of any channels and lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

from lambda_seq.inference.batches import pad_samples
from lambda_seq.inference.series import check_choices
from lambda_seq.inference.texts import Reading
from lambda_seq.tasks.data.batches import Batch, SeriesBatch, named
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.module import ClassificationData
from lambda_seq.tasks.data.reading.dialects import TableOptions
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.data.series.files import Loaded, Stored, load_series
from lambda_seq.tasks.data.series.forms import Form, FormOptions
from lambda_seq.tasks.data.targets import TargetOptions
from lambda_seq.tasks.facts import Facts, Series

PARTS = ("start", "middle", "end", "random")
FLOAT = 1e-5  # of the mean: deviations below are no more than some steps of float32


class SeriesData(ClassificationData):
    """Series of numbers with one label each, of any number of channels and any lengths, also missing numbers.

    Each channel is standardised, with what the training series say; a number that is missing (an empty cell, NaN, ?,
    NA) is filled in, and an indicator can say where. How many there are is said. An infinite number is an error that
    names its row. Shorter series of a batch are padded, which changes no answer. A series without a step stays in the
    data, and the network answers with what it says about nothing.

    Args:
        path: a .ts file (of the archives of time series, as aeon and sktime write them), a .npz file with arrays x (n,
            channels, length) and y (n,), or x_train, y_train, x_test and so on; a table (csv, tsv, parquet, jsonl) with
            a row for each step and a column that says of which series it is, with a row for each series and a column
            for each step, or with lists of numbers in cells; a folder of such files, named train, validation and test
            for the splits (NAME_TRAIN.ts, too); a hub name; or "generated:waves".
        batch_size: series per step and device.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        layout: "channels" if arrays, and lists of lists, have the numbers of a channel beside one another, which is the
            default; "steps" for those of a step, (n, length, channels).
        channels: of tables with a row for each series and a column for each number: how many channels there are, one
            after another; default: one.
        id_column: of tables with a row for each step: the column that says of which series it is; found by its name.
        time_column: of such: the column by which steps are ordered, of numbers or dates; found by its name. The time
            between steps is not seen.
        channel_columns: columns of numbers, or of lists, that are read; default: all but those of labels.
        standardize: "train" for mean and deviation of each channel over all training series; "series" for those of each
            series itself, so that its level and scale tell nothing; "none" for the numbers as they are.
        missing: what a missing number becomes: "mean", the mean of its channel, or "last", the number before it.
        indicator: give each channel another one beside it that is 1 where its number is missing.
        max_length: steps that are read of a series; default: as many as the longest training series has.
        part: which of a longer series: "start", "middle", "end"; or "random", which is another part in each epoch of
            training, and the middle elsewhere.
        pad_to_multiple: batches are padded to a multiple of this many steps, so that few lengths occur.
        bucket: put series of similar length into one batch while training, which saves padding.
        label_column: column of labels; found by its name or type if not given.
        subset: configuration of a hub data set that has several.
        validation_fraction: share of the training rows held out if there is no validation split; 0 for no validation.
        test_fraction: share of the training rows held out if there is no test split; 0 for no test.
        split_seed: of the choice of the rows held out.
        predict_path: series to predict instead of the test split, which need no labels.
        table: how csv, tsv, jsonl and json files are written, where that is not to be guessed.
        drop_incomplete: leave out series without a label, and say how many; they are refused otherwise.
        target: what is known of a row: one class, any of several labels, or numbers, where that is not to be guessed.
    """

    view = "lambda_seq.tasks.inspection.views.SeriesView"
    reads = (*ClassificationData.reads, "loaded", "surveys")

    def __init__(
        self,
        path: str = "",
        batch_size: int = 32,
        num_workers: int = 0,
        layout: str | None = None,
        channels: int | None = None,
        id_column: str | None = None,
        time_column: str | None = None,
        channel_columns: list[str] | None = None,
        standardize: str = "train",
        missing: str = "mean",
        indicator: bool = False,
        max_length: int | None = None,
        part: str = "start",
        pad_to_multiple: int = 16,
        bucket: bool = True,
        label_column: str | None = None,
        subset: str | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        predict_path: str | None = None,
        table: TableOptions = TableOptions(),  # noqa: B008 - frozen
        drop_incomplete: bool = False,
        target: TargetOptions = TargetOptions(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(
            path,
            batch_size=batch_size,
            num_workers=num_workers,
            label_column=label_column,
            subset=subset,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            predict_path=predict_path,
            table=table,
            drop_incomplete=drop_incomplete,
            target=target,
        )
        for name, number in (("max_length", max_length), ("pad_to_multiple", pad_to_multiple)):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number}: expected at least 1 step")
        if part not in PARTS:
            raise ValueError(f"part={part!r}: expected one of {', '.join(map(repr, PARTS))}")
        check_choices(standardize, missing)
        columns = None if channel_columns is None else tuple(channel_columns)
        self.form = FormOptions(layout, channels, id_column, time_column, columns)
        self.standardize, self.missing, self.indicator = standardize, missing, indicator
        self.given_length, self.part = max_length, part
        self.pad_to_multiple, self.bucket = pad_to_multiple, bucket
        self.loaded: tuple[tuple[str, ...], Form | None] | None = None  # channels and form of the training

    def load_tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """The splits found at a path, or with `whole` all series as one; see `load_series`."""
        names = self.target.columns or [name for name in (self.labelled_by or self.label_column,) if name]
        form = None if self.loaded is None else self.loaded[1]
        found: Loaded = load_series(path, subset, whole, self.table, self.form, names, form)
        if self.loaded is None and "train" in found.tables:
            self.loaded = found.channels, found.form
        elif self.loaded is not None and len(found.channels) != len(self.loaded[0]):
            raise ValueError(
                f"path={path!r}: series of {len(found.channels)} channels, where those of training have "
                f"{len(self.loaded[0])}; give as many"
            )
        if found.numbers and self.target.kind is None and self.target.separator is None:
            note(f"path={path!r} says that its labels are numbers: they are learned as such (--data.target.kind)")
            self.target = replace(self.target, kind="numbers")
        return found.tables

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return self.loaded[0] if self.splits and self.loaded is not None else ()

    @cached_property
    def surveys(self) -> dict[str, Survey]:
        """What there is in the series of each split, of which those of training say how all are standardised."""
        return {name: survey(Stored(rows.table, rows.indices), self._where(name)) for name, rows in self.splits.items()}

    @cached_property
    def max_length(self) -> int:
        """Most steps that are read of a series."""
        return self.given_length or max(self.surveys["train"].longest, 1)

    def measure(self) -> Facts:
        """Labels, channels and greatest length, and mean and deviation of each channel in the training series."""
        found = self.surveys["train"]
        mean, std = found.mean, found.std
        self._note_channels(found, mean, std)
        self._note_missing()
        record = Series(
            channels=list(self.channels),
            mean=mean.tolist(),
            std=np.where(std > 0, std, 1.0).tolist(),
            standardize=self.standardize,
            missing=self.missing,
            indicator=self.indicator,
            max_length=self.max_length,
            part="middle" if self.part == "random" else self.part,
        )
        options = {
            "num_classes": len(self.labels),
            "in_channels": len(self.channels) * (1 + self.indicator),
            "max_length": self.max_length,
        }
        return Facts(kind="features", options=options, labels=self.labels, series=record)

    def _note_channels(self, found: Survey, mean: np.ndarray, std: np.ndarray) -> None:
        """Say of channels that tell nothing, and of those whose numbers float32 is too coarse for."""
        where = self._where("train")
        for words, which in (
            ("hold one number alone in all training series", (std == 0) & (found.known > 0)),
            ("hold no number in any training series", found.known == 0),
            (
                "differ by so little from their mean that float32 has few numbers for it: subtract a constant",
                (std > 0) & (std < FLOAT * np.abs(mean)),
            ),
        ):
            if which.any():
                names = [repr(name) for name, one in zip(self.channels, which, strict=True) if one]
                note(f"{where}: channels {', '.join(names)} {words}")

    def _note_missing(self) -> None:
        become = {"mean": "the mean of their channel", "last": "the number before, or the mean of their channel"}
        for name, found in self.surveys.items():
            if found.missing.any():
                share = found.missing.sum() / max((found.known + found.missing).sum(), 1)
                worst = int((found.missing / np.maximum(found.known + found.missing, 1)).argmax())
                note(
                    f"{self._where(name)}: {found.missing.sum():,} numbers are missing, {share:.2%}, most in channel "
                    f"{self.channels[worst]!r}, in {found.incomplete:,} of {found.rows:,} series: they become "
                    f"{become[self.missing]} (--data.missing). "
                    + ("An indicator says where" if self.indicator else "Say where: --data.indicator true")
                )

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> SeriesItems:
        """Numbers, (N, C), NaN where one is missing."""
        stored = Stored(rows.table, rows.indices)
        known = split in self.splits and rows.table is self.splits[split].table
        where = self._where(split) if known else f"predict_path={self.predict_path!r}"
        if not known:
            survey(stored, where)
        reading = self._record.reading()
        if training:
            reading = Reading(self.max_length, self.part, 1, self.seed)
        lengths = stored.lengths()
        if longer := int((lengths > reading.most).sum()):
            note(
                f"{where}: of {longer} of {len(rows)} series, which have up to {lengths.max():,} steps, "
                f"{reading.most:,} are read, the {reading.part}. Choose with --data.max_length and --data.part"
            )
        if empty := int((lengths == 0).sum()):
            note(f"{where}: {empty} of {len(rows)} series have no step; they stay, as nothing")
        return SeriesItems(rows, stored, reading, self._names(rows))

    def _names(self, rows: Rows) -> list[str] | None:
        """What series are called, where steps say it."""
        form = None if self.loaded is None else self.loaded[1]
        if form is None or form.id is None or form.id not in rows.table.column_names:
            return None
        return [str(name) for name in rows.table.select_columns(form.id)[:][form.id]]

    def inputs(self, rows: Rows, split: str) -> tuple[Sequence[str], Callable[[int], str]]:
        """Names of series, or their numbers, and how many steps they have."""
        lengths = Stored(rows.table, rows.indices).lengths()
        names = self._names(rows) or [str(row) for row in range(len(rows.table))]
        return names, lambda row: f"{lengths[row]} steps"

    def _where(self, split: str) -> str:
        return f"{split} split of path={self.path!r}"

    @property
    def _record(self) -> Series:
        """What is read of series in evaluation, as a saved model knows it."""
        return self.facts.series  # type: ignore[return-value]  # which series always have

    @property
    def collate(self) -> Callable[[list[Any]], Batch]:
        """Pad each batch to its longest series."""
        return partial(pad_series, multiple=self.pad_to_multiple, most=self.max_length)

    def steps(self, rows: Rows) -> np.ndarray:
        """Steps of each series, (rows,)."""
        return Stored(rows.table, rows.indices).lengths()

    def lengths(self, rows: Rows) -> np.ndarray | None:
        """Steps that are read of each series."""
        return np.minimum(self.steps(rows), self.max_length) if self.bucket else None


class SeriesItems(Dataset):
    """Items of series.

    Args:
        rows: which series of the table.
        stored: their numbers.
        reading: what is read of each.
        names: of all series of the table, which become ids; None for their numbers.
    """

    def __init__(self, rows: Rows, stored: Stored, reading: Reading, names: Sequence[str] | None = None) -> None:
        self.rows, self.stored, self.reading, self.names = rows, stored, reading, names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The series with key row or (epoch, row)."""
        epoch, row = key if isinstance(key, tuple) else (0, key)
        values = self.stored.read(row)  # (C, N)
        begin = self.reading.begin(values.shape[1], epoch, row)
        values = values[:, begin : begin + self.reading.most]
        index = int(self.rows.indices[row])
        name = str(index) if self.names is None else self.names[index]
        return {"x": torch.from_numpy(np.ascontiguousarray(values.T)), "id": name} | self.rows.target(row)


def pad_series(items: list[dict[str, Any]], *, multiple: int, most: int | None) -> SeriesBatch:
    """A batch of series, padded with zeros."""
    x, mask = pad_samples([item["x"] for item in items], multiple=multiple, most=most)
    batch: SeriesBatch = {"x": x, **named(items)}
    return batch if mask is None else {**batch, "mask": mask}


@dataclass(frozen=True)
class Survey:
    """What there is in some series.

    Attributes:
        rows: series.
        incomplete: those in which a number is missing.
        longest: steps of the longest.
        known, missing: numbers of each channel (C,).
        mean, std: of each channel (C,), of the known numbers; 0 without any.
    """

    rows: int
    incomplete: int
    longest: int
    known: np.ndarray
    missing: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def survey(stored: Stored, where: str) -> Survey:
    """Look through series.

    Raises:
        ValueError: a number is infinite; names its row.
    """
    incomplete, longest = 0, 0
    total: Any = 0
    shift: Any = None  # near the numbers of each channel, so that squares lose nothing
    for row in range(len(stored)):
        values = stored.read(row).astype(np.float64)  # (C, N)
        if np.isinf(values).any():
            raise ValueError(
                f"{where}: row {int(stored.indices[row])} has a number that is infinite; correct it, or leave it empty"
            )
        there = ~np.isnan(values)
        count = there.sum(1)
        values = np.where(there, values, 0)
        if shift is None:
            shift = np.full(len(values), np.nan)
        begins = np.isnan(shift) & (count > 0)
        shift[begins] = (values.sum(1) / np.maximum(count, 1))[begins]
        away = np.where(there, values - np.where(np.isnan(shift), 0, shift)[:, None], 0)
        total = total + np.stack([count, (~there).sum(1), away.sum(1), np.square(away).sum(1)])  # (4, C)
        incomplete, longest = incomplete + bool((~there).any()), max(longest, values.shape[1])
    known, missing, sums, squares = total
    some = np.maximum(known, 1)
    mean = sums / some
    std = np.sqrt(np.maximum(squares / some - np.square(mean), 0))
    std[std < 1e-9 * np.abs(mean + np.nan_to_num(shift))] = 0  # what rounding leaves of a constant
    return Survey(
        len(stored), incomplete, longest, known.astype(int), missing.astype(int), mean + np.nan_to_num(shift), std
    )
