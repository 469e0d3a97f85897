"""What data modules for classification share: splits, labels, loaders."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path

import datasets
import numpy as np
from torch.utils.data import DataLoader, Dataset

from tasks.data.base import Data
from tasks.data.labels import Rows, carve, encode_labels, find_label_column
from tasks.data.loading import EpochSampler, ResumableLoader
from tasks.data.sources import load_rows, to_predict


class ClassificationData(Data):
    """Labelled rows from a hub data set or local files, in three splits.

    Without a validation split a part of the training split is held out for it. Without a test split there is no test,
    unless `test_fraction` holds one out.
    """

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

    @abstractmethod
    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> Dataset:
        """A data set of items {"x", "id"} and, if labels are known, {"label"}; takes keys row or (epoch, row)."""

    def lengths(self, rows: Rows) -> np.ndarray | None:
        """Lengths of the rows, if batches should hold rows of similar length."""
        return None

    def load_tables(self, path: str, subset: str | None = None) -> dict[str, datasets.Dataset]:
        """The splits found at a path; see `load_rows`."""
        return load_rows(path, subset)

    @cached_property
    def splits(self) -> dict[str, Rows]:
        """Rows of train, validation and, if there is one, test."""
        tables = self.load_tables(self.path, self.subset)
        if "train" not in tables:
            raise ValueError(
                f"path={self.path!r} has no training split, only {', '.join(tables)}; it is needed for the class names"
            )
        column = find_label_column(tables["train"], self.label_column)
        self._labels, numbers = encode_labels(tables, column, f"path={self.path!r}")
        splits = {name: Rows(table, np.arange(len(table)), numbers[name]) for name, table in tables.items()}
        for name, fraction in (("test", self.test_fraction), ("validation", self.validation_fraction)):
            if name not in splits and fraction:
                if len(splits["train"]) < 2:
                    raise ValueError(f"path={self.path!r}: too few training rows to hold some out for {name}")
                splits["train"], splits[name] = carve(splits["train"], fraction, self.split_seed)
        return splits

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
            **self._process,
        )
        return ResumableLoader(
            items,
            sampler=sampler,
            trained=self._trained,
            drop_last=len(sampler) >= self.batch_size,  # no batch of one row, of which a batch norm learns nothing
            **self._loader_options(),
        )

    def val_dataloader(self) -> DataLoader | list:
        """The validation split in order; nothing if it is switched off by validation_fraction=0."""
        if "validation" not in self.splits and not self.validation_fraction:
            return []
        return self._in_order(self.split("validation"), "validation")

    def test_dataloader(self) -> DataLoader:
        """The test split in order."""
        return self._in_order(self.split("test"), "test")

    def predict_dataloader(self) -> DataLoader:
        """The rows of `predict_path`, which need no labels; without it the test split."""
        if self.predict_path is None:
            return self.test_dataloader()
        table = to_predict(self.load_tables(self.predict_path), self.predict_path)
        return self._in_order(Rows(table, np.arange(len(table)), None), Path(self.predict_path).name)

    def _in_order(self, rows: Rows, split: str) -> DataLoader:
        return DataLoader(self.rows_as_items(rows, split), shuffle=False, **self._loader_options())
