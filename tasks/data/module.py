"""What data modules for classification share: splits, labels, loaders."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import datasets
import numpy as np
from torch.utils.data import DataLoader, Dataset

from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.labels import FILE_COLUMNS, Rows, carve, name_rows, rows_with
from lambda_seq.tasks.data.loading import EpochSampler, ResumableLoader
from lambda_seq.tasks.data.reading.columns import filled, flat
from lambda_seq.tasks.data.reading.dialects import GUESSED, TableOptions
from lambda_seq.tasks.data.reading.known import Known
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.data.reading.sources import load_rows, named_predict_path, to_predict
from lambda_seq.tasks.data.targets import GUESSED as UNKNOWN_TARGET
from lambda_seq.tasks.data.targets import TargetOptions, Targets, read_targets
from lambda_seq.tasks.facts import Facts, Target, TargetKind


class ClassificationData(Data):
    """Labelled rows from a hub data set or local files, in three splits.

    Without a validation split a part of the training split is held out for it. Without a test split there is no test,
    unless `test_fraction` holds one out. A test split may be without labels: it is predicted, but not tested.
    """

    view = "lambda_seq.tasks.inspection.views.ItemView"
    reads = (*Data.reads, "_labels", "_to_predict", "labelled_by", "target_kind")

    def __init__(
        self,
        path: str,
        *,
        batch_size: int,
        num_workers: int,
        label_column: str | None,
        subset: str | None,
        validation_fraction: float,
        test_fraction: float,
        split_seed: int,
        predict_path: str | None,
        table: TableOptions = GUESSED,
        drop_incomplete: bool = False,
        target: TargetOptions = UNKNOWN_TARGET,
    ) -> None:
        super().__init__(
            path,
            batch_size=batch_size,
            num_workers=num_workers,
            subset=subset,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            predict_path=predict_path,
        )
        self.label_column, self.split_seed = label_column, split_seed
        self.table, self.drop_incomplete, self.target = table, drop_incomplete, target
        self.left_out: dict[str, dict[str, np.ndarray]] = {}  # rows by split, and by what they lack
        self.labelled_by: str | None = None  # the column of labels, once it is found
        self.target_kind: TargetKind = "classes"  # what is known of rows, once they are read
        self._to_predict: Rows | None = None  # the test split with the rows that have no labels
        self._named: tuple[str, Rows] | None = None  # `predict_path` and its rows

    @abstractmethod
    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> Dataset:
        """A data set of items {"x", "id"} and, if labels are known, {"label"}; takes keys row or (epoch, row)."""

    def lengths(self, rows: Rows) -> np.ndarray | None:
        """Lengths of the rows, if batches should hold rows of similar length."""
        return None

    def load_tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """The splits found at a path, or with `whole` all rows as one; see `load_rows`."""
        return load_rows(path, subset, whole=whole, options=self.table)

    def content(self, table: datasets.Dataset) -> str | None:
        """The column of what is classified; None if rows always have it."""
        return None

    def tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """As `load_tables`, with the parts of columns as columns, such as `review.body`."""
        return {name: flat(table) for name, table in self.load_tables(path, subset, whole).items()}

    def read(self) -> dict[str, Rows]:
        """Rows of train, validation and, if there is one, test."""
        tables = self.tables(self.path, self.subset)
        if "train" not in tables:
            raise ValueError(
                f"path={self.path!r} has no training split, only {', '.join(tables)}; it is needed for the class names"
            )
        found = self.targets(tables)
        self.labelled_by, self._labels, self.target_kind = found.column, found.names, found.kind
        splits = {}
        for name, table in tables.items():
            rows = Rows(table, np.arange(len(table)), found.values[name])
            if self.drop_incomplete:
                rows = self._complete(rows, name)
            if (kept := self._labelled(rows, name)) is not None:
                splits[name] = kept
            if name == "test":
                self._to_predict = replace(rows, labels=None) if kept is not rows else rows
        for name, fraction in (("test", self.test_fraction), ("validation", self.validation_fraction)):
            if name not in splits and fraction:
                if len(splits["train"]) < 2:
                    raise ValueError(f"path={self.path!r}: too few training rows to hold some out for {name}")
                every = len(splits["train"])
                splits["train"], splits[name] = carve(splits["train"], fraction, self.split_seed)
                self.note_held_out(name, f"{len(splits[name])} of {every} training rows")
            elif name == "test" and fraction:
                self.note_not_held_out()
        return splits

    def targets(self, tables: Mapping[str, datasets.Dataset]) -> Targets:
        """What is known of the rows of each split.

        Raises:
            ValueError: nothing is, or a row does not fit.
        """
        unnamed = self.label_column is None and self.target.columns is None
        if unnamed and set(tables["train"].column_names) <= {*FILE_COLUMNS, "text"}:
            raise ValueError(
                f"path={self.path!r}: there are no classes; put files of each class into a folder of its own, or give "
                "a table (csv, jsonl, parquet) with a column of labels"
            )
        where, refuse = f"path={self.path!r}", not self.drop_incomplete
        return read_targets(tables, self.label_column, self.target, where, refuse)

    def _complete(self, rows: Rows, name: str) -> Rows:
        """The rows of a split that have what is classified and, but for test, a label; the others are counted."""
        column = self.content(rows.table)
        there = np.ones(len(rows), bool) if column is None else filled(rows.table, column)
        labelled = ~rows.missing
        if name == "test" or not labelled.any():
            labelled = np.ones(len(rows), bool)  # predict answers them; see `_labelled`
        where, left = f"{name} split of path={self.path!r}", rows.take(np.flatnonzero(there & labelled))
        if len(left) < len(rows):
            self.left_out[name] = {"a label": np.flatnonzero(~labelled), "content": np.flatnonzero(~there)}
            note(
                f"{where}: {len(rows) - len(left)} of {len(rows)} rows are left out, {(~labelled).sum()} without a "
                f"label and {(~there).sum()} with nothing in column {column!r} (drop_incomplete)"
            )
        if not len(left):
            raise ValueError(
                f"{where}: no row is complete; leave out --data.drop_incomplete, or fill in column {column!r}"
            )
        return left

    def _labelled(self, rows: Rows, name: str) -> Rows | None:
        """The rows of a split that have labels; without any, those of test as they are, and no validation."""
        missing = np.flatnonzero(rows.missing)
        if not len(missing):
            return rows
        where, share = f"{name} split of path={self.path!r}", self.validation_fraction
        some = f"{len(missing)} of {len(rows)} rows have no label: {name_rows(rows.table, missing)}"
        if len(missing) < len(rows):
            if name == "validation":
                raise ValueError(f"{where}: {some}; label these rows, or leave them out: --data.drop_incomplete true")
            note(f"{where}: {some}; the test is of the others, and predict answers all")
            return rows.take(np.flatnonzero(~rows.missing))
        if name == "test":
            note(f"{where}: its {len(rows)} rows have no labels, so that it is not tested; predict answers them")
            return replace(rows, labels=None)
        instead = f"{share:g} of the training rows are held out instead" if share else "there is no validation"
        note(f"{where}: its {len(rows)} rows have no labels and are left out; {instead}")
        return None

    @cached_property
    def facts(self) -> Facts:
        """What the model has to know: what is measured, and what is known of the training rows."""
        found, train = self.measure(), self.splits.get("train")
        known = None if train is None else train.labels
        return found if known is None else replace(found, target=self.target_of(known))

    def target_of(self, known: np.ndarray) -> Target:
        """What a model has to know of the labels of the training rows."""
        if self.target_kind != "numbers":
            counts = rows_with(known, len(self.labels)).tolist()
            return Target(kind=self.target_kind, rows=len(known), counts=counts)
        mean, std = known.mean(0, dtype=np.float64), known.std(0, dtype=np.float64)
        return Target(kind="numbers", mean=mean.tolist(), std=np.where(std > 0, std, 1.0).tolist())

    @property
    def tested(self) -> bool:
        """Whether there is a test split, with labels."""
        return "test" in self.splits and self.splits["test"].labels is not None

    @property
    def divided(self) -> int | None:
        """See `Data.divided`."""
        rows = self.splits["train"]
        return None if len(rows) == len(rows.table) else zlib.crc32(rows.indices.astype(np.int64).tobytes())

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of the class numbers."""
        return self._labels if self.splits else []

    def split(self, name: str) -> Rows:
        """The rows of a split.

        Raises:
            ValueError: there is no such split; says how to get one.
        """
        if name not in self.splits:
            raise ValueError(
                f"path={self.path!r} has no {name} split, only {', '.join(self.splits)}; add one, or hold out a part "
                f"of the training rows: --data.{name}_fraction 0.1"
            )
        return self.splits[name]

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; see `EpochSampler`."""
        rows = self.split("train")
        items = self.rows_as_items(rows, "train", training=True)
        sampler = EpochSampler(
            items,
            batch_size=self.batch_size,
            seed=self.seed,
            lengths=self.lengths(rows),
            **self.share,
        )
        return ResumableLoader(
            items,
            sampler=sampler,
            trained=self._trained,
            drop_last=sampler.drop_last,  # no batch of one row, of which a batch norm learns nothing
            **self._loader_options(),
        )

    def val_dataloader(self) -> DataLoader | list:
        """The validation split in order; nothing if it is switched off by validation_fraction=0."""
        if "validation" not in self.splits and not self.validation_fraction:
            return []
        return self._in_order(self.split("validation"), "validation")

    def test_dataloader(self) -> DataLoader:
        """The test split in order, as far as it has labels.

        Raises:
            ValueError: there is no test split, or one without labels.
        """
        rows = self.split("test")
        if not self.tested:
            raise ValueError(
                f"test split of path={self.path!r}: its {len(rows)} rows have no labels, so that it cannot be tested; "
                "give labels, hold out training rows in a folder without it (--data.test_fraction 0.1), or predict it: "
                "lambda-seq predict"
            )
        return self._in_order(rows, "test")

    def predict_dataloader(self) -> DataLoader:
        """The rows of `predict_path`, which need no labels; without it all of the test split."""
        rows, split = self._predicted
        return self._in_order(rows, split)

    @property
    def _predicted(self) -> tuple[Rows, str]:
        """The rows that are predicted, and what they are called; read once, for their loader and for `known`."""
        path = self.predict_path
        if path is None:
            rows = self.split("test")
            return self._to_predict if self._to_predict is not None else rows, "test"
        if self._named is None or self._named[0] != path:
            with named_predict_path():
                table = to_predict(self.tables(path, whole=True), path)
            self._named = path, Rows(table, np.arange(len(table)), None)
        return self._named[1], Path(path).name

    @property
    def known(self) -> Known | None:
        """The inputs and true labels of the rows that are predicted; None of data that have no such."""
        rows, split = self._predicted
        shown = self.inputs(Rows(rows.table, np.arange(len(rows.table)), None), split)
        return None if shown is None else Known(rows.table, *shown, self.label_column)

    def inputs(self, rows: Rows, split: str) -> tuple[Sequence[str], Callable[[int], str]] | None:
        """The ids of rows, and what gives the input of one as text or as a path; None of data that are generated."""
        return None

    def _in_order(self, rows: Rows, split: str) -> DataLoader:
        return DataLoader(self.rows_as_items(rows, split), shuffle=False, **self._loader_options())
